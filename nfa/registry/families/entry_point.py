"""What is known of a command before it starts: its parameters, and the functions that check and run it."""

from dataclasses import dataclass
from typing import Any

from nfa.registry.places import named


@dataclass(frozen=True)
class EntryPoint:
    """A command that users can start. Functions are named as "module:name" and imported when they are needed.

    Attributes:
        config: The dataclass of the parameters.
        start: The function that is called with the parameters.
        look: Checks parameters, files and data before anything heavy is imported. If it is given, `start` is called
            with the parameters, a `Stopwatch` and the result of `look`.
        check: Checks the parameters before anything heavy is imported, without a result.
        becomes: Converts the typed parameters to those that `start` takes.
        extra: The extra of nfa that installs what `start` imports.
        results: The artifact with the results of its runs, which `verdicts` reads.
        verdicts: Returns what a run has found, in sentences for a report, by the run's id.
    """

    config: str
    start: str
    look: str = ""
    check: str = ""
    becomes: str = ""
    extra: str = "registry"
    results: str = ""
    verdicts: str = ""

    @property
    def parameters(self) -> type[Any]:
        """The dataclass of the parameters."""
        found: type[Any] = named(self.config)
        return found


def trains(config: str, becomes: str = "") -> EntryPoint:
    """Return an entry point that trains with these parameters, or with those that `becomes` makes of them."""
    look = "nfa.registry.families.registry:look"
    return EntryPoint(config, "nfa.registry.training.start:train", look, becomes=becomes)
