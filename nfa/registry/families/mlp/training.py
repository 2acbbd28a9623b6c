"""Trainings of classifiers: images, workloads and sessions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nfa.figures.training_analysis import Series
from nfa.parallel import World
from nfa.registry import stored_runs, tracking
from nfa.registry.datasets import image_files, images, splits
from nfa.registry.datasets.images import ImageData
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.mlp.family import Classifiers
from nfa.registry.families.mlp.session import ClassifierSession, stored_config
from nfa.registry.families.mlp.workload import MLPClassifier
from nfa.registry.families.protocol import FamilyTraining, Ids, Ready, StoredTraining
from nfa.registry.families.stored import check_same
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training import report
from nfa.workloads.devices import choose_device


class ClassifierTraining(FamilyTraining):
    """Trainings of MLPs on images."""

    def read(self, config: TrainConfig, clock: Stopwatch, found: Mapping[str, Path] | None = None) -> ImageData:
        with clock.section("data"):
            files = image_files.locate(config.dataset, config.data_dir) if found is None else found
            return images.load(config.dataset, files)

    def prepare(
        self, config: TrainConfig, data: ImageData, run: TrackedRun | None = None, ids: Ids | None = None
    ) -> Ready:
        if run:
            check_same(data.name, data.digest(), tracking.config(run.run_id)["data"]["digest"])
        config.check_sizes(len(data.train_labels), data.features, data.classes)
        config = config.resolved()
        ids = stored_runs.example_ids(run.run_id) if run else ids or _decided(config, data)
        config.check_updates(config.updates(len(ids["train"])))
        workload = MLPClassifier(config, data, ids, choose_device(config.device))
        return Ready(config, workload, data, ids)

    def lines(self, ready: Ready) -> Iterator[tuple[str, str]]:
        data = ready.data
        shown = f"{len(data.train_labels)} + {len(data.test_labels)} images of {data.features} pixels"
        yield "data", f"{data.name}: {shown}, {data.classes} classes"

    def stored(self, config: TrainConfig, ready: Ready) -> dict[str, Any]:
        return stored_config("train", {**asdict(config), "resume": ""}, ready.data)

    def session(self, run: TrackedRun, ready: Ready, clock: Stopwatch, world: World) -> ClassifierSession:  # noqa: ARG002
        return ClassifierSession(run, ready, clock, max_samples=ready.config.max_samples)

    def compare(self, parent: TrackedRun) -> None:
        report.compare(parent, Classifiers().subject(tracking.config(parent.run_id)))

    def report_seeds(self, parent: TrackedRun, series: Mapping[str, Series], seeds: Sequence[int], title: str) -> None:
        report.report_seeds(parent, series, seeds, title)

    def rebuild(self, run: StoredTraining) -> MLPClassifier:
        train = TrainConfig(**run.config["train"])
        files = image_files.locate(train.dataset, train.data_dir if run.data_dir is None else run.data_dir)
        data = images.load(train.dataset, files)
        check_same(train.dataset, data.digest(), run.config["data"]["digest"])
        return MLPClassifier(train, data, run.example_ids, run.device)


def _decided(config: TrainConfig, data: ImageData) -> Ids:
    labels = data.train_labels, data.test_labels
    return splits.decide(*labels, seed=config.seed, label_noise=config.label_noise, classes=data.classes)
