"""What `nfa.watch` asks of the object it writes to."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from nfa.errors import Refusal

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@runtime_checkable
class Sink(Protocol):
    """Any object with these methods. Values are finite, texts and figures hold no passwords."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Values by metric key, each (key, step) once."""

    def text(self, name: str, content: str) -> None:
        """A file of text, such as `alignment.json` or `teacher/similarities.csv`; one of that name before is gone."""

    def figure(self, name: str, figure: "Figure") -> None:
        """A picture, such as `all_relations`; the name has no ending."""


@contextmanager
def needing(package: str) -> Iterator[None]:
    """`Refusal` where the package that a sink writes with is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        got, allowed = f"a sink that writes with {package}, which is not installed", "Memory or JsonLines of nfa.sinks"
        raise Refusal(got, allowed, f"pip install {package}, or sink=") from None
