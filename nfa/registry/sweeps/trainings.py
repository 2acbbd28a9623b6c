"""The trainings of a study; data are read once and shared by all trainings that use them."""

from collections.abc import Sequence
from typing import Any

from nfa.registry import stored_runs
from nfa.registry.families.registry import family_of
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.shared_data import SharedData
from nfa.registry.training.start import prepared
from nfa.registry.training.tracked import train_one


class Trainings:
    """Trains, and reads data when a training first needs them."""

    def __init__(self) -> None:
        self._data = SharedData()

    def prepare(self, config: Any) -> None:
        """Read the data of a training; raise `Refusal` if it cannot be trained."""
        prepared(family_of(config), config, Stopwatch(), data=self.data(config))

    def check_layers(self, configs: Sequence[Any]) -> None:
        """Raise `Refusal` if one of the configurations does not fit the layers of its base model."""
        family_of(configs[0]).training.check_layers(configs, self.data)

    def train(self, run: TrackedRun, config: Any, clock: Stopwatch) -> None:
        """Train in `run` to the end, or resume the training."""
        family, begun = family_of(config), run if stored_runs.has_begun(run.run_id) else None
        train_one(run, family, family.training.prepare(config, self.data(config), begun), clock)

    def data(self, config: Any) -> Any:
        """Return the data of a training, read once for all trainings with the same data parameters."""
        return self._data.of(config, Stopwatch())
