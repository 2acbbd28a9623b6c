"""Passwords are masked wherever a text leaves the process: the terminal, errors, tags, params and artifacts.

Of an address, what stands for the password is masked, so that user, host and database are seen; and what follows
`password=`. The passwords of typed addresses and of the environment are masked wherever else they turn up, too.
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
    """From now on, mask the passwords that these texts carry, in whatever text they turn up."""
    _typed.update(text for text in texts if carried(text).passwords)


def carries_password(text: str) -> bool:
    """Whether a text that was typed holds a password."""
    return bool(carried(text).passwords - {MASK}) or masked(text) != text


def masked(text: str) -> str:
    """The text without passwords.

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
    """Mappings and sequences with every text in them masked; everything else as it is."""
    if isinstance(content, str):
        return masked(content)
    if isinstance(content, Mapping):
        return {masked_values(key): masked_values(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [masked_values(value) for value in content]
    return content


def mask_process() -> None:
    """Learn the passwords among this program's words, and mask what it prints from now on.

    The streams stay the same objects: handlers of logging that have them already print through them.
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
    """The error, unless it or what it came of tells a password: what to raise another one from, seen with it."""
    link: BaseException | None = error
    while link is not None:
        if masked(str(link)) != str(link):
            return None
        link = link.__cause__ or link.__context__
    return error
