"""Studies of a model in a training loop that is not ours, recorded into the active MLflow run."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any
from weakref import WeakSet

import torch.nn as nn
from torch import Tensor

from nfa import __version__
from nfa.console import stage
from nfa.errors import NfaError, Refusal, reason
from nfa.measures.evaluation import Evaluation, record_outputs
from nfa.registry import tracking
from nfa.registry.tracking.metrics import MetricLog, known_steps
from nfa.watching import reports
from nfa.watching.models import is_second, observable, unwrapped
from nfa.watching.options import STUDIES, Asked, check_prefix, whole_number
from nfa.watching.pace import pace
from nfa.watching.probes import probe_of
from nfa.watching.start import Start
from nfa.watching.studies import WatchedAlignment, WatchedDirections, WatchedFlow, WatchedStudy
from nfa.workload import Batch
from nfa.workloads.examples import Loss, Outputs, call

COVERAGE = "nfa.coverage"
_open: WeakSet["Watch"] = WeakSet()  # of this process, so that no two of one run write under the same names


class Watch:
    """Records studies of a model into the active MLflow run; training is bitwise the same with and without.

        with mlflow.start_run(), nfa.watch(model, loss, (images, labels)) as watch:
            for epoch in range(10):
                watch.record(epoch)
                train_one_epoch(model)

    `loss(outputs, targets)` gives one loss for each example. `probe` are the examples that are analysed, a few hundred
    of the training set: (inputs, targets), a dict of which `labels` are the targets, or a DataLoader or Dataset, of
    which `examples` are taken (by class where targets are classes, else the first). Which positions of sequences are an
    example's own is said by an `attention_mask` among the inputs, or by `present` [examples, positions].

    `studies` are "alignment", "directions", "flow", or several: "alignment,flow". Either `schedule` names the steps
    that count ("0-20,40" or "all"), or `every` is their distance, "auto" so that 5 % of the time is spent at most.
    `outputs(model, inputs)` is f where that is not model(inputs), its logits or its first part. `prefix` stands before
    all keys and files: one for each watch of a run.

    `step` is the model's step now. At 0 its weights are the initial ones, and are stored with the run; where a run goes
    on, those that are stored with it are taken, and without any what is made of them is left out.

    `relations`, `sites`, `centre`, `agop_power`, `positions`, `max_samples`, `batch_size`, `precision`, `directions`,
    `top_k` and `seed` are those of `analyze`; `parameters` are the `sites` of `gradient_directions`.

    Of several processes (DistributedDataParallel) the first records, the others do nothing. Raises `Refusal` for what
    cannot be analysed: a reduced loss, examples that see each other, a model that answers differently each time. Where
    training diverges nothing is raised: what is undefined for weights or outputs that are not finite is left out, and
    the first such step is said.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        probe: Any,
        *,
        studies: Any = "alignment",
        schedule: Any = "all",
        every: Any = 1,
        outputs: Outputs = call,
        present: Tensor | None = None,
        examples: int = 512,
        prefix: str = "",
        step: int = 0,
        **options: Any,
    ) -> None:
        self.asked, self.pace, self.prefix = Asked.of(studies, options), pace(schedule, every), check_prefix(prefix)
        self.model, self.step, self.silent = unwrapped(model), whole_number("step", step), is_second()
        if self.silent:
            return
        self.run = tracking.active_run()
        self._check_names()
        with _at_the_door():
            self.workload = probe_of(self.model, loss, probe, outputs, present=present, examples=examples)
        self.ids = list(self.workload.ids("probe"))[: self.asked.count(len(self.workload.all))]
        self.start = Start(self.run, prefix, self.workload, self.model, self.step, again=self._again())
        with _at_the_door(), observable(self.model):
            self.studies = [self._study(name) for name in self.asked.studies]
        self.start.check()
        self.metrics = MetricLog(self.run.info.run_id, known_steps(self.run.info.run_id) if self.start.again else set())
        self.diverged = False
        self.recorded: int | None = None

    def _study(self, name: str) -> WatchedStudy:
        if name == "alignment":
            config = self.asked.alignment(start_known=self.start.known)
            return WatchedAlignment(self.workload, self.model, config, self.start, self._record_outputs)
        if name == "directions":
            return WatchedDirections(self.workload, self.model, self.asked.directions(len(self.ids)))
        return WatchedFlow(self.workload, self.model, self.asked.flow(len(self.ids)), self.start)

    def _again(self) -> bool:
        """Whether the run has been watched before under the same names."""
        described = [f"{self.prefix}{name}.json" for name in STUDIES]
        return any(tracking.has_artifact(self.run.info.run_id, path) for path in described)

    def _check_names(self) -> None:
        """`Refusal` where another watch of this process writes under the same names into the same run."""
        others = [other.prefix for other in _open if other.run.info.run_id == self.run.info.run_id]
        if self.prefix in others:
            got = f"prefix={self.prefix!r}, which another watch of this run has"
            raise Refusal(got, "a prefix of its own for each watch of a run", "prefix='second/'")

    def __enter__(self) -> "Watch":
        if self.silent:
            return self
        self._check_names()
        _open.add(self)
        self.start.save()
        for study in self.studies:
            said = {"nfa_version": __version__, "coverage": study.coverage, **study.described()}
            tracking.put_json(self.run, f"{self.prefix}{study.name}.json", said)
        self._announce()
        return self

    def _announce(self) -> None:
        """How much of the model is seen, and what is left out."""
        for study in self.studies:
            stage("watch", f"{self.prefix}{study.name}: {study.coverage}")
            for notice in study.notices():
                stage("notice", notice)
        if not self.start.known:
            reason = f"the run goes on from step {self.step} and has not stored its initial weights"
            stage("notice", f"{reason}: initial-removed relations and weight changes are left out")
        tracking.set_tag(self.run, f"{COVERAGE}.{self.prefix}".rstrip("./"), self.studies[0].coverage)

    def record(self, step: int) -> dict[str, float]:
        """Measure and log at `step` if it is one that counts; the values by metric key, with the probe's mean loss.

        Undefined values are absent. A step that has been logged before is not logged again.
        """
        return self._measured(step) if not self.silent and self.pace.due(step) else {}

    def record_last(self, step: int) -> dict[str, float]:
        """The same for the step at which training ends, which counts wherever steps were not named one by one."""
        if self.silent or step == self.recorded or not self.pace.keeps_ends:
            return {}
        return self._measured(step)

    def _measured(self, step: int) -> dict[str, float]:
        began = time.perf_counter()
        with observable(self.model):
            values = self._values(step)
        self.metrics.log(values, step)
        self.metrics.flush()
        self.pace.took(time.perf_counter() - began)
        self.recorded = step
        return values

    def _values(self, step: int) -> dict[str, float]:
        self.evaluation = Evaluation(self.workload)
        found = {key: value for study in self.studies for key, value in study.values(self.model, step).items()}
        if not self.evaluation.examples:
            record_outputs(self.model, self.workload, self._batches(), self._record_outputs)
        loss = self.evaluation.means()["loss"]
        if math.isfinite(loss):
            found["probe/loss"] = loss
        self._look_for_divergence(step, loss)
        return {f"{self.prefix}{key}": value for key, value in found.items()}

    def _batches(self) -> Iterator[Batch]:
        return self.workload.batches("train", batch_size=self.workload.examples_at_once, ids=self.ids)

    def _record_outputs(self, outputs: Tensor, batch: Batch) -> None:
        self.evaluation.update(outputs, batch)

    def _look_for_divergence(self, step: int, loss: float) -> None:
        """Say the first step at which weights, outputs or losses are not finite."""
        if self.diverged:
            return
        named = self.model.named_parameters()
        bad = [name for name, weight in named if not weight.detach().isfinite().all()]
        if bad or not math.isfinite(loss):
            self.diverged = True
            what = f"weights of {bad[0].rpartition('.')[0] or bad[0]}" if bad else "outputs or their losses"
            stage("notice", f"step {step}: {what} are not finite; undefined values are left out")

    def __exit__(self, _kind: type | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        if self.silent:
            return
        _open.discard(self)
        self.metrics.flush()
        if error is None:
            reports.report(self.run, self.asked.studies, self.prefix)
            stage("done", tracking.link(self.run))


@contextmanager
def _at_the_door() -> Iterator[None]:
    """Whatever a model, a loss or a dataset of somebody's raises on the probe, as a `Refusal`."""
    try:
        yield
    except NfaError:
        raise
    except Exception as error:
        raise Refusal(
            f"a probe on which model or loss fails ({type(error).__name__}: {reason(error)})",
            "inputs that model(inputs) takes, or model(**inputs) for a dict; targets that loss(outputs, targets) takes",
            "outputs=lambda model, inputs: …, or another probe",
        ) from error
