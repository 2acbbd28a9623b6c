"""How a family says what its models are judged by: scores after training, metrics during it, and remedies."""

from collections.abc import Mapping
from dataclasses import dataclass

from nfa.registry.places import named
from nfa.relations import Limits


@dataclass(frozen=True)
class Score:
    """A score of a trained model on each recording, or on other units.

    Attributes:
        key: Its name in files.
        called: Its name in sentences and on axes.
        symbol: Its symbol in tables.
        unit: What is scored one by one, such as "recording".
        read: "module:name" of a function that reads the scores of a run.
        limits: What a score can be.
    """

    key: str
    called: str
    symbol: str
    unit: str
    read: str
    limits: Limits | None = None

    def of(self, run_id: str) -> Mapping[str, float]:
        """Return the scores of a run by unit; empty if it has none."""
        found: Mapping[str, float] = named(self.read)(run_id)
        return found


@dataclass(frozen=True)
class Quality:
    """A metric of how good a model is during training; higher is better, and above `hoped` it is good."""

    key: str
    called: str
    hoped: float | None = None


@dataclass(frozen=True)
class Remedy:
    """A parameter that scales a gradient; factors from `felt` on are large enough to see whether updates follow."""

    parameter: str
    felt: float
