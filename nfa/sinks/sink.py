"""The interface of the objects that `nfa.watch` writes to."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from nfa.errors import Refusal

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@runtime_checkable
class Sink(Protocol):
    """Any object with these methods can be a sink; values are finite, and texts and figures contain no passwords."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Store the values of a step by metric key; each pair of key and step comes once."""

    def text(self, name: str, content: str) -> None:
        """Store a text file, such as `alignment.json` or `teacher/similarities.csv`, in place of an earlier one of that
        name.
        """

    def figure(self, name: str, figure: "Figure") -> None:
        """Store a figure under a name without an ending, such as `all_relations`."""


@contextmanager
def needing(package: str) -> Iterator[None]:
    """Raise `Refusal` in place of the error that a missing package causes in the block.

    Args:
        package: The package that the sink writes with.

    Raises:
        Refusal: The package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        got, allowed = f"a sink that writes with {package}, which is not installed", "Memory or JsonLines of nfa.sinks"
        raise Refusal(got, allowed, f"pip install {package}, or pass another sink=") from None
