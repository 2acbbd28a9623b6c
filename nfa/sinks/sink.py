"""The interface of the objects that `nfa.watch` writes to."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


OTHERS = "sink=Memory() or JsonLines(FILE) of nfa.sinks"  # need nothing else


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
