"""What happens in the training of a classifier: at its epochs and at the end."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from nfa.checkpoint_schedule import fit
from nfa.console import bar, stage
from nfa.maths.bfloat16 import has_bfloat16_units
from nfa.measures.evaluation import Evaluation, evaluate_split, record_outputs, recorded_by
from nfa.measures.site_matrices import Conventions, SiteMeasures, chosen_sites
from nfa.observe.coverage import coverage
from nfa.observe.door import few_of, find_sites
from nfa.observe.passes import BATCH_SIZE, site_weights
from nfa.registry import stored_runs, tracking
from nfa.registry.datasets import catalog, images, splits
from nfa.registry.datasets.images import ImageData
from nfa.registry.families.mlp import report
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.mlp.figures.ghm_histogram import ghm_histogram
from nfa.registry.families.mlp.ghm import Harmonised
from nfa.registry.families.mlp.sizes import check_sizes
from nfa.registry.families.mlp.workload import MLPClassifier
from nfa.registry.families.protocol import Ids, Ready
from nfa.registry.families.stored import check_same
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.config_json import training_config
from nfa.registry.training.loop import Training, Watched
from nfa.registry.training.optimizer_table import OPTIMIZERS
from nfa.registry.training.session import Session, Tracked
from nfa.relations import TRAINING, needed
from nfa.studies.alignment import AlignmentOptions, alignment, conventions
from nfa.workloads.devices import choose_device


def stored_config(entrypoint: str, train: Mapping[str, Any], data: ImageData) -> dict[str, Any]:
    """Content of the `config.json` of a classifier's run; `train` holds the fields of `TrainConfig` that are known."""
    described = {
        "name": data.name,
        "digest": data.digest(),
        "published_train": len(data.train_labels),
        "published_test": len(data.test_labels),
        "features": data.features,
        "classes": data.classes,
    }
    return training_config(entrypoint, "mlp", TrainConfig, train, described)


def prepare(config: TrainConfig, data: ImageData, run: TrackedRun | None, ids: Ids | None) -> Ready:
    """The workload on images, with the examples that `run` has stored; `Refusal` for what cannot be trained."""
    if run:
        check_same(data.name, data.digest(), tracking.config(run.run_id)["data"]["digest"])
    check_sizes(config, len(data.train_labels), data.features, data.classes)
    config = config.resolved()
    ids = stored_runs.example_ids(run.run_id) if run else ids or _decided(config, data)
    workload = MLPClassifier(config, data, ids, choose_device(config.device))
    return Ready(config, workload, data, ids)


def _decided(config: TrainConfig, data: ImageData) -> Ids:
    labels = data.train_labels, data.test_labels
    return splits.decide(*labels, seed=config.seed, label_noise=config.label_noise, classes=data.classes)


def rebuild(stored: Mapping[str, Any], ids: Ids, device: torch.device, data_dir: str | None) -> MLPClassifier:
    """The workload of a run's config.json."""
    train = TrainConfig(**stored["train"])
    data = images.load(train.dataset, catalog.locate(train.dataset, train.data_dir if data_dir is None else data_dir))
    check_same(train.dataset, data.digest(), stored["data"]["digest"])
    return MLPClassifier(train, data, ids, device)


class ClassifierSession(Session):
    """The training of a classifier, with AGOP and NFM at its checkpoints."""

    def __init__(self, run: TrackedRun, ready: Ready, clock: Stopwatch) -> None:
        workload = ready.workload
        assert isinstance(workload, MLPClassifier)
        self.run, self.config, self.data, self.clock = run, ready.config, ready.data, clock
        fields = {**dataclasses.asdict(self.config), "resume": ""}
        self.stored, self.example_ids = stored_config("train", fields, self.data), ready.example_ids
        self.workload, self.model = workload, workload.model()
        self.objective = workload.objective()
        self.schedule, self.last = fit(self.config.schedule, self.config.epochs), self.config.epochs
        self.called, self.state_copies = self.config.optimizer, OPTIMIZERS[self.config.optimizer].copies
        self.training = Training(
            workload,
            self.model,
            workload.optimizers(self.model),
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            objective=self.objective,
            watched=Watched(workload.groups(self.model).names, self.schedule),
        )
        self._look()

    def _look(self) -> None:
        """What is measured at checkpoints."""
        workload, model, config = self.workload, self.model, self.config
        found = find_sites(model, workload, few_of(workload))
        self.sites = chosen_sites(workload, model, found)
        self.coverage = coverage(model, found.parameters(self.sites))
        measured = Conventions(precision="bfloat16" if config.precision == "bfloat16" else "float32")
        initial = site_weights(workload, model, self.sites, found)
        self.measures = SiteMeasures(workload, self.sites, needed(TRAINING), measured, initial, found=found)
        self.analysed = list(workload.ids("probe")[: config.max_samples or None])
        self.conventions = {**conventions(measured, AlignmentOptions()), "examples": len(self.analysed)}

    def tags(self) -> dict[str, str]:
        """How much of the model is seen."""
        return {"nfa.coverage": self.coverage}

    def lines(self) -> Iterator[tuple[str, str]]:
        config, data = self.config, self.data
        parameters = sum(weight.numel() for weight in self.model.parameters())
        sizes = f"{data.features} → {config.width} × {config.depth} → {data.classes}"
        yield "model", f"MLP {sizes}, {config.activation}, {parameters:,} parameters"
        yield "optimizer", f"{config.optimizer}, lr {config.lr}, momentum {config.momentum}"
        analysed = f"analysis of {len(self.analysed)} examples in {config.precision}"
        yield "run", f"{self.run.run_id}, {len(self.schedule)} checkpoints, {analysed}"
        yield "coverage", self.coverage
        if config.precision == "bfloat16" and not has_bfloat16_units(self.workload.device):
            yield "notice", "this processor has no bfloat16 units: the numbers are those of bfloat16, the speed is not"

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """The weights before the first update are those of the checkpoint."""
        if state is not None and 0 in tracking.epochs(self.run.run_id):
            start = self.workload.model()
            stored_runs.load_weights(start, self.run.run_id, 0)
            self.measures.initial = site_weights(self.workload, start, self.sites, self.measures.found)

    def measure(self, epoch: int, *, checkpoint: bool) -> dict[str, float]:  # noqa: ARG002
        with self.clock.section("evaluation"):
            values = evaluate_split(self.model, self.workload, "val")
        return {**values, **self._analyse(), **self.training.flow} if checkpoint else values

    def _analyse(self) -> dict[str, float]:
        """Train loss and alignment; one pass serves both where the same examples are analysed exactly."""
        evaluation = Evaluation(self.workload)
        histogram = self.objective.histogram() if isinstance(self.objective, Harmonised) else None
        record = recorded_by(evaluation.update, *([histogram.update] if histogram else []))
        shared = self.config.precision == "float32" and len(self.analysed) == len(self.workload.ids("train"))
        batches = self.workload.batches("train", batch_size=BATCH_SIZE, ids=self.analysed)
        with self.clock.section("analysis"):
            matrices = self.measures(
                self.model,
                bar(batches, "analysis", total=math.ceil(len(self.analysed) / BATCH_SIZE), unit="batch"),
                record_outputs=record if shared else None,
            )
            similarities = alignment(matrices).scalars
        if not shared:
            with self.clock.section("evaluation"):
                split = self.workload.batches("train", batch_size=self.workload.examples_at_once)
                record_outputs(self.model, self.workload, split, record)
        losses = {f"train/{name}": value for name, value in evaluation.means().items()}
        return {**losses, **(histogram.values() if histogram else {}), **similarities}

    def line(self, epoch: int, values: Mapping[str, float]) -> str:  # noqa: ARG002
        if "train/loss" not in values:
            return ""
        found = [values[f"{site}/agop_nfm"] for site in self.sites if f"{site}/agop_nfm" in values]
        similarities = " ".join(f"{value:.3f}" for value in found)
        return f"train {values['train/loss']:.4g}  val {values['val/loss']:.4g}  AGOP/NFM {similarities}"

    def finish(self, tracked: Tracked) -> None:
        """Test metrics, results, figures and the best epoch."""
        with self.clock.section("evaluation"):
            test = evaluate_split(self.model, self.workload, "test")
        tracked.log(self.last, test)
        with self.clock.section("tracking"):
            self.run.metrics.flush()
            series = tracking.history(self.run.run_id)
            best = min(tracked.kept(self.schedule), key=lambda epoch: series["val/loss"][epoch])
            self.run.tag({"nfa.best_epoch": str(best)})
            tracking.put_json(self.run.info, "results.json", report.results(series, self.sites, self.conventions))
            network = f"MLP {self.config.width} × {self.config.depth}"
            title = f"{self.data.name}, {self.config.optimizer}, lr {self.config.lr}, {network}"
            tracking.save_picture(self.run, report.training_figure(series, self.sites, title), "training_analysis")
            if self.config.weighting == "ghm":
                figure = ghm_histogram(series, self.config.ghm_bins, title=title)
                tracking.save_picture(self.run, figure, "ghm_histogram")
        stage("test", f"loss {test['test/loss']:.4g}, accuracy {test['test/accuracy']:.4f}")
        stage("figure", "plots/training_analysis.png and .pdf")
