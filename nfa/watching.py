"""Alignment of a model in a training loop that is not ours, recorded into the active MLflow run."""

import math
from types import TracebackType
from typing import Any

import torch.nn as nn

from nfa import __version__, schedules, tracking
from nfa.analysis import Analysis
from nfa.config import AnalyzeConfig
from nfa.console import stage
from nfa.errors import Refusal
from nfa.evaluation import Evaluation
from nfa.jobs.analyses import analysis_reports
from nfa.observe.passes import site_weights
from nfa.tracking.metrics import MetricLog
from nfa.workloads.probe import Loss, Outputs, Probe, call

OPTIONS = (
    "relations",
    "sites",
    "centre",
    "agop_power",
    "positions",
    "max_samples",
    "batch_size",
    "precision",
    "directions",
    "top_k",
    "seed",
)  # of `analyze`; the others are about stored runs


class Watch:
    """Records relations of weights, representations and gradients into the active MLflow run; training is unchanged.

        with mlflow.start_run(), nfa.watch(model, loss, (images, labels)) as watch:
            for epoch in range(10):
                watch.record(epoch)
                train_one_epoch(model)

    `loss(outputs, targets)` gives one loss for each example. `probe` = (inputs, targets) are the examples that are
    analysed, a few hundred of the training set. `schedule` names the steps that count ("0-20,40" or "all").
    `outputs(model, inputs)` is f where that is not model(inputs) or its logits. `relations`, `sites`, `centre`,
    `agop_power`, `positions`, `max_samples`, `batch_size`, `precision`, `directions`, `top_k` and `seed` are those of
    `analyze`. The initial weights are those at this call. Raises `Refusal` for what cannot be analysed: a reduced loss,
    examples that see each other, a model that answers differently each time. Where training diverges nothing is raised:
    what is undefined for weights or outputs that are not finite is left out, and the first such step is said.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        probe: tuple[Any, Any],
        *,
        schedule: str = "all",
        outputs: Outputs = call,
        **options: Any,
    ) -> None:
        schedules.parse(schedule, 0)
        if unknown := [name for name in options if name not in OPTIONS]:
            raise Refusal(f"option {unknown[0]!r} of nfa.watch", ", ".join(OPTIONS), "leave it out")
        self.schedule, self.model = schedule, model
        self.workload = Probe(model, loss, *probe, outputs)
        self.analysis = Analysis(
            self.workload,
            model,
            AnalyzeConfig(**options),
            lambda sites: site_weights(self.workload, model, sites),
        )
        self.run = tracking.active_run()
        self.metrics = MetricLog(self.run.info.run_id, set())
        self.diverged = False

    def __enter__(self) -> "Watch":
        tracking.put_json(self.run, "alignment.json", {"nfa_version": __version__, **self.analysis.described()})
        return self

    def record(self, step: int) -> dict[str, float]:
        """Measure and log at `step` if it is on the schedule; the values by metric key, with the probe's mean loss.

        Undefined values are absent.
        """
        if self.schedule != "all" and step not in schedules.parse(self.schedule, step):
            return {}
        evaluation = Evaluation(self.workload)
        values = self.analysis.values(self.model, hear_outputs=evaluation.update)
        loss = evaluation.means()["loss"]
        if math.isfinite(loss):
            values["probe/loss"] = loss
        self._look_for_divergence(step, loss)
        self.metrics.log(values, step)
        self.metrics.flush()
        return values

    def _look_for_divergence(self, step: int, loss: float) -> None:
        """Say the first step at which weights of sites, outputs or losses are not finite."""
        if self.diverged:
            return
        weights = site_weights(self.workload, self.model, self.analysis.sites)
        bad = [name for name, weight in weights.items() if not weight.isfinite().all()]
        if bad or not math.isfinite(loss):
            self.diverged = True
            what = f"weights of {bad[0]}" if bad else "outputs or their losses"
            stage("notice", f"step {step}: {what} are not finite; undefined values are left out")

    def __exit__(self, _kind: type | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        self.metrics.flush()
        if error is None:
            analysis_reports.report_watched(self.run)
