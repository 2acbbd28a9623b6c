"""What the tests of whole LoRA experiments share."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nfa.registry.families.language.experiment.config import LoraExperimentConfig
from nfa.registry.families.language.experiment.lora_experiment import lora_experiment
from nfa.registry.stopwatch import Stopwatch
from tests.support.analyses import undrawn
from tests.support.fine_tunings import Place, used_place
from tests.support.processes import Ended, run, words
from tests.support.stores import Store, used

OPTIONS = {
    "rank": 4,
    "alpha": 6.0,
    "lr": 0.02,
    "batch_size": 2,
    "accumulation": 2,
    "max_length": 70,
    "train_steps": 3,
    "target_rank": 8,
    "seeds": "1,2",
}


@dataclass(frozen=True)
class Experiment:
    """A store, a small base model with questions, and experiments on them."""

    store: Store
    place: Place

    def options(self, **changed: Any) -> dict[str, Any]:
        known = {"base_model": str(self.place.folder / "base"), "data": str(self.place.folder / "questions.jsonl")}
        return {**known, **OPTIONS, **changed}

    def config(self, **changed: Any) -> LoraExperimentConfig:
        return LoraExperimentConfig(**self.options(**changed))

    def make(self, **changed: Any) -> str:
        """An experiment in this process; the id of its run."""
        with undrawn():
            lora_experiment(self.config(**changed), Stopwatch())
        return self.parents()[-1]

    def launch(self, **options: Any) -> Ended:
        """In a process of its own; `before` is what happens there first."""
        before = options.pop("before", None)
        argv, cache = words(**self.options(**options)), str(self.place.folder / "cache")
        return run(self.store, argv, entrypoint="lora_experiment", before=before, NFA_CACHE=cache)

    def parents(self) -> list[str]:
        runs = self.store.runs()
        return [one for one in runs if self.store.tags(one).get("nfa.entrypoint") == "lora_experiment"]

    def entrypoints(self) -> list[str]:
        """Of all runs, in order."""
        return [self.store.tags(one)["nfa.entrypoint"] for one in self.store.runs()]

    def runs(self, parent: str) -> Mapping[str, str]:
        """Run ids by the names of tasks."""
        found: dict[str, str] = self.store.json(parent, "experiment.json")["runs"]
        return found


@contextmanager
def experimenting(store: Store, folder: Path) -> Iterator[Experiment]:
    """Experiments in `store`, which this process uses."""
    place = Place.made(folder)
    with pytest.MonkeyPatch.context() as patch, used(store, patch), used_place(place):
        yield Experiment(store, place)
