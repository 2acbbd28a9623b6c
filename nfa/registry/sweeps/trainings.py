"""The trainings of a study, whatever is trained: data are read once and shared by all that use the same."""

import dataclasses
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

from nfa.registry import tracking
from nfa.registry.datasets import catalog, images
from nfa.registry.datasets.images import ImageData
from nfa.registry.families.eeg import train_eeg
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.eeg.data import EEGData
from nfa.registry.families.language import train_lora
from nfa.registry.families.language.checks import check_targets
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.language.factors import factors_of
from nfa.registry.families.mlp import session, train
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.rebuild import recordings
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.sweeps.config import Training
from nfa.registry.tracking import TrackedRun
from nfa.workloads.devices import choose_device

ENTRY_POINTS = {"mlp": "train", "eeg": "train_eeg", "lora": "train_lora"}  # what a trial's run is a run of
IMAGES = ("dataset", "data_dir")  # parameters that say which data
RECORDINGS = (
    "data_dir", "subjects", "stimuli", "seconds", "channels", "snr_db", "data_seed", "split", "unseen"
)  # fmt: skip
LAYERS = ("base_model", "targets", "init", "rank")
QUESTIONS = (
    "base_model", "data", "val_data", "split_seed", "max_items", "eval_items", "max_length", "device", "precision"
)  # fmt: skip
Read = TypeVar("Read")


class Trainings:
    """Reads what trainings need when one first needs it, and trains."""

    def __init__(self) -> None:
        self._read: dict[Hashable, Any] = {}

    def prepare(self, config: Training) -> None:
        """Read the data of a training; `Refusal` for what cannot be trained."""
        if isinstance(config, TrainConfig):
            train.check_sizes(config, self._images(config))
            choose_device(config.device)
        elif isinstance(config, TrainEEGConfig):
            train_eeg.prepared(config, Stopwatch(), data=self._recordings(config))
        else:
            self._questions(config)

    def check_layers(self, configs: Iterable[Training]) -> None:
        """`Refusal` where the adapter of one of them does not fit the layers of its base model."""
        tuned = [config for config in configs if isinstance(config, TrainLoraConfig) and config.init != "svd"]
        for config in {tuple(getattr(one, name) for name in LAYERS): one for one in tuned}.values():
            check_targets(config, self._questions(config).workload.base, None)

    def train(self, run: TrackedRun, config: Training, clock: Stopwatch) -> None:
        """Train, or go on training, in `run` to the end; see the job of its workload."""
        if isinstance(config, TrainConfig):
            session.train_one(run, config, self._images(config), choose_device(config.device), clock)
        elif isinstance(config, TrainEEGConfig):
            ready = train_eeg.prepared(config, clock, _stored(run), self._recordings(config))
            train_eeg.train_one(run, ready, clock)
        else:
            self._fine_tune(run, config, clock)

    def _fine_tune(self, run: TrackedRun, config: TrainLoraConfig, clock: Stopwatch) -> None:
        if stored := _stored(run):
            ready = train_lora.prepared(config, clock, stored)
        else:
            first = self._questions(config)
            ready = first.variant(config, factors_of(config, first.workload.base))
        train_lora.train_one(run, ready, clock)

    def _images(self, config: TrainConfig) -> ImageData:
        return self._once(
            config, IMAGES, lambda: images.load(config.dataset, catalog.locate(config.dataset, config.data_dir))
        )

    def _recordings(self, config: TrainEEGConfig) -> EEGData:
        return self._once(config, RECORDINGS, lambda: recordings(config, config.data_dir))

    def _questions(self, config: TrainLoraConfig) -> train_lora.Prepared:
        return self._once(config, QUESTIONS, lambda: train_lora.prepared(config, Stopwatch()))

    def _once(self, config: Training, decisive: tuple[str, ...], read: Callable[[], Read]) -> Read:
        fields = dataclasses.asdict(config)
        key = tuple(fields[name] for name in decisive)
        if key not in self._read:
            self._read[key] = read()
        found: Read = self._read[key]
        return found


def _stored(run: TrackedRun) -> TrackedRun | None:
    """The run, where it has begun before and holds what it was begun with."""
    return run if run.continued and tracking.has_artifact(run.run_id, "example_ids.json") else None
