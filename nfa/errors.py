"""What a user is told when something cannot be done."""

from nfa.masking import masked


class NfaError(Exception):
    """A failure that a user can act on; it ends a program with `exit_code` and one message, no traceback."""

    exit_code = 1

    def __init__(self, text: str) -> None:
        super().__init__(masked(text))


class Refusal(NfaError):
    """Input that cannot be used, found before any work has started.

    >>> print(Refusal("optimizer='sdg'", "sgd, adam, muon, all", "did you mean sgd?"))
    cannot use optimizer='sdg'
      allowed: sgd, adam, muon, all
      do: did you mean sgd?
    """

    exit_code = 2

    def __init__(self, got: str, allowed: str, remedy: str) -> None:
        super().__init__(f"cannot use {got}\n  allowed: {allowed}\n  do: {remedy}")


class Pruned(NfaError):
    """A trial was ended because it is behind the others at the same step; raised by whoever listens to its metrics."""


class DivergedError(NfaError):
    """Training produced a loss or weights that are not finite."""
