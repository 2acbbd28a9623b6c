"""One tracked training: what happens at epoch 0, after every epoch, at checkpoints and at the end."""

import math

import torch

from nfa.checkpoint_schedule import fit
from nfa.console import bar, stage
from nfa.maths.bfloat16 import has_bfloat16_units
from nfa.measures.evaluation import Evaluation, evaluate_split, record_outputs, recorded_by
from nfa.measures.site_matrices import Conventions, SiteMeasures, chosen_sites
from nfa.observe.coverage import coverage
from nfa.observe.door import few_of, find_sites
from nfa.observe.passes import BATCH_SIZE, site_weights
from nfa.registry import tracking
from nfa.registry.datasets import splits
from nfa.registry.datasets.images import ImageData
from nfa.registry.families.mlp import report
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.mlp.figures.ghm_histogram import ghm_histogram
from nfa.registry.families.mlp.ghm import Harmonised
from nfa.registry.families.mlp.workload import MLPClassifier
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import TrackedRun
from nfa.registry.training.loop import Training, Watched
from nfa.registry.training.settings import SPACE_MARGIN, data_inputs, stored_config
from nfa.registry.training.time_spent import keep_time, timed
from nfa.registry.training.tracked import TrackedTraining
from nfa.relations import TRAINING, needed
from nfa.studies.alignment import AlignmentOptions, alignment, conventions

STATE_COPIES = {"sgd": 1, "adam": 3, "muon": 2}  # weights and what the optimizer keeps beside them
BYTES = 4


def train_one(run: TrackedRun, config: TrainConfig, data: ImageData, device: torch.device, clock: Stopwatch) -> None:
    """Train, or go on training, the configured network in `run` up to its last epoch, and report."""
    job = _TrainingRun(run, config.resolved(), data, device, clock)
    job.describe()
    with timed(run, clock):
        job.restore()
        job.train()
        job.finish()


class _TrainingRun:
    def __init__(
        self, run: TrackedRun, config: TrainConfig, data: ImageData, device: torch.device, clock: Stopwatch
    ) -> None:
        self.run, self.config, self.data, self.clock = run, config, data, clock
        self.stored = stored_config(config, data)
        self.workload = MLPClassifier(config, data, self._example_ids(), device)
        self.model = self.workload.model()
        optimizer = self.workload.optimizers(self.model)
        self.objective = self.workload.objective()
        self.schedule = fit(config.schedule, config.epochs)
        self.training = Training(
            self.workload,
            self.model,
            optimizer,
            batch_size=config.batch_size,
            seed=config.seed,
            objective=self.objective,
            watched=Watched(self.workload.groups(self.model).names, self.schedule),
        )
        found = find_sites(self.model, self.workload, few_of(self.workload))
        self.sites = chosen_sites(self.workload, self.model, found)
        self.coverage = coverage(self.model, found.parameters(self.sites))
        measured = Conventions(precision="bfloat16" if config.precision == "bfloat16" else "float32")
        initial = site_weights(self.workload, self.model, self.sites, found)
        self.measures = SiteMeasures(self.workload, self.sites, needed(TRAINING), measured, initial, found=found)
        self.analysed = list(self.workload.ids("probe")[: config.max_samples or None])
        self.conventions = {**conventions(measured, AlignmentOptions()), "examples": len(self.analysed)}
        self.tracked = TrackedTraining(run, self.training, self.stored, clock, name=config.optimizer)

    def _example_ids(self) -> dict[str, list[int]]:
        if self.run.continued and tracking.has_artifact(self.run.run_id, "example_ids.json"):
            return tracking.example_ids(self.run.run_id)
        return splits.decide(
            self.data.train_labels,
            self.data.test_labels,
            seed=self.config.seed,
            label_noise=self.config.label_noise,
            classes=self.data.classes,
        )

    def describe(self) -> None:
        """Everything about the run that is known before it starts, after a check that it can be stored."""
        parameters = sum(weight.numel() for weight in self.model.parameters())
        weights = parameters * BYTES
        state = weights * STATE_COPIES[self.config.optimizer]
        total = weights * len(self.tracked.kept(self.schedule)) + 2 * state + SPACE_MARGIN
        with self.clock.section("tracking"):
            tracking.check_space(self.run.info, total=total, largest=state)
            self.run.log_params({name: value for name, value in self.stored["train"].items() if name != "resume"})
            self.run.log_datasets(data_inputs(self.stored, self.workload.example_ids))
            tracking.put_json(self.run.info, "config.json", self.stored)
            tracking.put_json(self.run.info, "example_ids.json", self.workload.example_ids)
            self.run.tag({"nfa.coverage": self.coverage})
        layers = " → ".join(
            str(size) for size in (self.data.features, f"{self.config.width} × {self.config.depth}", self.data.classes)
        )
        stage("model", f"MLP {layers}, {self.config.activation}, {parameters:,} parameters")
        stage("optimizer", f"{self.config.optimizer}, lr {self.config.lr}, momentum {self.config.momentum}")
        stage(
            "run",
            f"{self.run.run_id}, {len(self.schedule)} checkpoints, "
            f"analysis of {len(self.analysed)} examples in {self.config.precision}",
        )
        stage("coverage", self.coverage)
        if self.config.precision == "bfloat16" and not has_bfloat16_units(self.workload.device):
            stage("notice", "this processor has no bfloat16 units: the numbers are those of bfloat16, the speed is not")

    def restore(self) -> None:
        """Take up the run's training state, if it has one."""
        if self.tracked.restore() and 0 in tracking.epochs(self.run.run_id):
            start = self.workload.model()
            tracking.load_weights(start, self.run.run_id, 0)
            self.measures.initial = site_weights(self.workload, start, self.sites, self.measures.found)

    def train(self) -> None:
        """Train to the last epoch."""
        self.tracked.train(self.config.epochs, self._after_epoch)

    def _after_epoch(self, epoch: int) -> None:
        with self.clock.section("evaluation"):
            values = self._evaluate("val")
        if epoch in self.schedule:
            self._checkpoint(epoch, values)
        else:
            self.tracked.log(epoch, values)

    def _evaluate(self, split: str) -> dict[str, float]:
        return evaluate_split(self.model, self.workload, split)

    def _checkpoint(self, epoch: int, values: dict[str, float]) -> None:
        values = {**values, **self._analyse()}
        self.tracked.checkpoint(epoch, {**values, **self.training.flow})
        keep_time(self.run, self.clock)
        similarities = " ".join(
            f"{values[f'{site}/agop_nfm']:.3f}" for site in self.sites if f"{site}/agop_nfm" in values
        )
        stage(
            f"epoch {epoch}", f"train {values['train/loss']:.4g}  val {values['val/loss']:.4g}  AGOP/NFM {similarities}"
        )

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

    def finish(self) -> None:
        """Test metrics, results, figure and the best epoch, all from what the run has logged."""
        with self.clock.section("evaluation"):
            test = self._evaluate("test")
        self.tracked.log(self.config.epochs, test)
        with self.clock.section("tracking"):
            self.run.metrics.flush()
            series = tracking.history(self.run.run_id)
            best = min(self.tracked.kept(self.schedule), key=lambda epoch: series["val/loss"][epoch])
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
        stage("time", str(self.clock))
