"""What a user is told when something cannot be done."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nfa.masking import masked

SHOWN = 200  # characters of a reader's own message


class NfaError(Exception):
    """A failure that a user can act on; it ends a program with `exit_code` and one message, without a traceback."""

    exit_code = 1

    def __init__(self, text: str) -> None:
        super().__init__(masked(text))


class Refusal(NfaError):
    """Input that cannot be used; it is found before any work starts.

    Args:
        got: What was given.
        allowed: What is allowed in its place.
        remedy: What to do.

    Example:
        >>> print(Refusal("optimizer='sdg'", "sgd, adam, muon, all", "did you mean sgd?"))
        cannot use optimizer='sdg'
          allowed: sgd, adam, muon, all
          do: did you mean sgd?
    """

    exit_code = 2

    def __init__(self, got: str, allowed: str, remedy: str) -> None:
        super().__init__(f"cannot use {got}\n  allowed: {allowed}\n  do: {remedy}")


class Pruned(NfaError):
    """A trial was stopped because it lags behind the others at the same step; raised by the listener to its metrics."""


class DivergedError(NfaError):
    """Training has produced a loss or weights that are not finite."""


@contextmanager
def reading(file: object, allowed: str, remedy: str) -> Iterator[None]:
    """Turn whatever a reader raises in the block, for a file that is damaged, missing or of another kind, into a
    `Refusal`.

    >>> with reading("config.json", "the file as it was written", "restore it from a copy"):
    ...     int("{")
    Traceback (most recent call last):
    nfa.errors.Refusal: cannot use config.json (invalid literal for int() with base 10: '{')
      allowed: the file as it was written
      do: restore it from a copy
    """
    try:
        yield
    except NfaError:
        raise
    except Exception as error:  # damaged bytes can raise any error
        raise Refusal(f"{file} ({reason(error)}{_other(error, file)})", allowed, remedy) from error


def _other(error: Exception, file: object) -> str:
    """Return the file that an error is about, if it is not the one that was read."""
    named = str((isinstance(error, OSError) and error.filename) or file)
    return "" if Path(named).name == Path(str(file)).name else f": {named}"


def headline(error: BaseException) -> str:
    """Return the first line of an error: databases append the whole statement with all values.

    >>> headline(OSError("disk is full\\n[SQL: UPDATE tags …]")), headline(TimeoutError())
    ('disk is full', 'TimeoutError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def reason(error: BaseException) -> str:
    """Summarise an error in the few words that fit into a message.

    >>> reason(FileNotFoundError(2, "No such file or directory", "a.json")), reason(RecursionError("maximum …"))
    ('No such file or directory', 'nested too deeply')
    """
    if isinstance(error, RecursionError):
        return "nested too deeply"
    words = getattr(error, "strerror", None) or str(error)
    found = " ".join(str(words).split())[:SHOWN] or type(error).__name__
    return f"{found} is missing" if isinstance(error, KeyError) else found
