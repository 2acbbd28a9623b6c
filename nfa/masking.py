"""Passwords are masked wherever a text leaves the process: the terminal, errors, tags, params and artifacts.

In an address only the password is masked, so that user, host and database stay visible, and so is what follows
`password=`. The passwords of typed addresses and of the environment are masked wherever else they occur, too.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nfa.passwords import ADDRESS, NAMED, carried, known

MASK = "***"
INSTEAD = "give the password as PGPASSWORD, or in ~/.pgpass"
Error = TypeVar("Error", bound=BaseException)
_typed: set[str] = set()  # texts whose passwords are masked


def learn(*texts: str) -> None:
    """Mask the passwords that these texts contain, wherever they occur from now on."""
    _typed.update(text for text in texts if carried(text).passwords)


def carries_password(text: str) -> bool:
    """Tell whether a typed text contains a password."""
    return bool(carried(text).passwords - {MASK}) or masked(text) != text


def masked(text: str) -> str:
    """Return the text with its passwords masked.

    >>> masked("postgresql://me:secret@host/runs?sslpassword=other")
    'postgresql://me:***@host/runs?sslpassword=***'
    """
    for password in known(frozenset(_typed)):
        if password.sign in text:
            text = password.pattern.sub(rf"\g<head>{MASK}", text)
    if "://" in text:
        text = ADDRESS.sub(rf"\g<head>{MASK}@", text)
    return NAMED.sub(rf"\g<head>{MASK}", text)


def masked_values(content: Any) -> Any:
    """Return mappings and sequences with every text in them masked, and everything else unchanged."""
    if isinstance(content, str):
        return masked(content)
    if isinstance(content, Mapping):
        return {masked_values(key): masked_values(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [masked_values(value) for value in content]
    return content


def mask_process() -> None:
    """Learn the passwords among this program's arguments, and mask what it prints from now on.

    The streams remain the same objects, so logging handlers that already hold them print through the mask.
    """
    learn(*sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not isinstance(stream.write, _MaskedWrite):
            stream.write = _MaskedWrite(stream.write)  # type: ignore[method-assign]


class _MaskedWrite:
    def __init__(self, write: Callable[[str], int]) -> None:
        self._write = write

    def __call__(self, text: str) -> int:
        self._write(masked(text))
        return len(text)


def tellable(error: Error) -> Error | None:
    """Return an error that another one may be raised from: None if it, or one of its causes, contains a password."""
    link: BaseException | None = error
    while link is not None:
        if masked(str(link)) != str(link):
            return None
        link = link.__cause__ or link.__context__
    return error
