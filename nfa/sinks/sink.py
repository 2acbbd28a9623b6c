"""What `nfa.watch` asks of the object it writes to."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


OTHERS = "sink=Memory() or JsonLines(FILE) of nfa.sinks"  # need nothing else


@runtime_checkable
class Sink(Protocol):
    """Any object with these methods. Values are finite, texts and figures hold no passwords."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Values by metric key, each (key, step) once."""

    def text(self, name: str, content: str) -> None:
        """A file of text, such as `alignment.json` or `teacher/similarities.csv`; one of that name before is gone."""

    def figure(self, name: str, figure: "Figure") -> None:
        """A picture, such as `all_relations`; the name has no ending."""
