"""Studies of a model in a training loop that is not ours, recorded while it trains."""

import math
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any
from weakref import WeakSet

import torch.nn as nn
from torch import Tensor

from nfa import __version__
from nfa.console import stage
from nfa.errors import Refusal
from nfa.maths.known_features import KnownFeatures
from nfa.measures.evaluation import Evaluation, record_outputs
from nfa.sinks import Sink
from nfa.sinks.values import count_of
from nfa.watching.checkpoints import Checkpoints
from nfa.watching.models import is_second, observable, unwrapped
from nfa.watching.options import Asked, check_prefix, whole_number
from nfa.watching.output import Output
from nfa.watching.pace import pace
from nfa.watching.start import Start
from nfa.watching.subject import Subject
from nfa.workload import Batch
from nfa.workloads.examples import Loss, Outputs, call

_open: WeakSet["Watch"] = WeakSet()  # of this process, so that no two of one run write under the same names


class Watch:
    """Records studies of a model while it trains; training is bitwise the same with and without.

        with mlflow.start_run(), nfa.watch(model, loss, (images, labels)) as watch:
            for epoch in range(10):
                watch.record(epoch)
                train_one_epoch(model)

    `loss(outputs, targets)` gives one loss for each example. `probe` are the examples that are analysed, a few hundred
    of the training set: (inputs, targets), a dict of which `labels` are the targets, or a DataLoader or Dataset, of
    which `examples` are taken (by class where targets are classes, else the first). Which positions of sequences are an
    example's own is said by an `attention_mask` among the inputs, or by `present` [examples, positions]. Where the
    right features of a site's input are known, `known_features` names them by site (`nfa.maths.known_features`).

    `studies` are "alignment", "directions", "flow", or several: "alignment,flow". Either `schedule` names the steps
    that count ("0-20,40" or "all"), or `every` is their distance, "auto" so that 5 % of the time is spent at most.
    `outputs(model, inputs)` is f where that is not model(inputs), its logits or its first part. `prefix` stands before
    all keys and files: one for each watch of a run.

    `sink` is where values, tables and figures go: the active MLflow run, or one of nfa.sinks (TensorBoard, JSON lines,
    memory), or any object with the methods log(values, step), text(name, content) and figure(name, figure).

    With `checkpoints` the MLflow run keeps what the model has learned at every recorded step, by which it is found and
    analysed like a training of ours.

    `step` is the model's step now. At 0 its weights are the initial ones. Where an MLflow run goes on, those that were
    stored with it are taken; without any, and with every other sink, what is made of them is left out.

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
        known_features: Mapping[str, KnownFeatures] | None = None,
        prefix: str = "",
        step: int = 0,
        sink: Sink | None = None,
        checkpoints: bool = False,
        **options: Any,
    ) -> None:
        asked, self.pace, self.prefix = Asked.of(studies, options), pace(schedule, every), check_prefix(prefix)
        self.model, self.step, self.silent = unwrapped(model), whole_number("step", step), is_second()
        if self.silent:
            return
        self.output = Output(sink, prefix, type(self.model).__name__)
        self._check_names()
        how: Any = {"outputs": outputs, "present": present, "examples": examples, "known_features": known_features}
        self.subject = Subject(self.model, loss, probe, asked, **how)
        self.workload = self.subject.workload
        before = self.output.named if self.output.again else ""
        stored = self.output.initial_weights()
        self.start = Start(self.workload, self.model, self.step, stored=stored, run=before)
        self.studies = self.subject.studies(self.start, self._record_outputs)
        self.start.check()
        self.checkpoints = Checkpoints(self.output, self.workload) if checkpoints else None
        if self.checkpoints:
            self.checkpoints.check_space(self.pace.named())
        self.diverged = False
        self.recorded: int | None = None

    def _check_names(self) -> None:
        """`Refusal` where another watch of this process writes under the same names into the same run."""
        others = [other.prefix for other in _open if other.output.place == self.output.place]
        if self.prefix in others:
            got = f"prefix={self.prefix!r}, which another watch of this run has"
            raise Refusal(got, "a prefix of its own for each watch of a run", "prefix='second/'")

    def __enter__(self) -> "Watch":
        if self.silent:
            return self
        self._check_names()
        _open.add(self)
        self.output.keep_initial_weights(self.start.new)
        for study in self.studies:
            said = {"nfa_version": __version__, "coverage": study.coverage, **study.described()}
            self.output.json(f"{study.name}.json", said)
        if self.checkpoints:
            self.checkpoints.begin()
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
        self.output.keep_coverage(self.studies[0].coverage)

    def record(self, step: int) -> dict[str, float]:
        """Measure and log at `step` if it is one that counts; the values by metric key, with the probe's mean loss.

        Undefined values are absent. A step that has been logged before is not logged again.
        """
        step = count_of("step", step)
        return self._measured(step) if not self.silent and self.pace.due(step) else {}

    def record_last(self, step: int) -> dict[str, float]:
        """The same for the step at which training ends, which counts wherever steps were not named one by one."""
        return self._measured(step) if self.lacks(step) else {}

    def lacks(self, step: int) -> bool:
        """Whether the step at which training ends counts and is not recorded yet."""
        return not self.silent and step != self.recorded and self.pace.keeps_ends

    def _measured(self, step: int) -> dict[str, float]:
        began = time.perf_counter()
        with observable(self.model):
            values = self._values(step)
            if self.checkpoints:
                self.checkpoints.keep(step)
        self.output.log(values, step)
        self.pace.took(time.perf_counter() - began)
        self.recorded = step
        return {f"{self.prefix}{key}": value for key, value in values.items()}

    def _values(self, step: int) -> dict[str, float]:
        self.evaluation = Evaluation(self.workload)
        found = {key: value for study in self.studies for key, value in study.values(self.model, step).items()}
        if not self.evaluation.examples:
            record_outputs(self.model, self.workload, self._batches(), self._record_outputs)
        loss = self.evaluation.means()["loss"]
        if math.isfinite(loss):
            found["probe/loss"] = loss
        self._look_for_divergence(step, loss)
        return found

    def _batches(self) -> Iterator[Batch]:
        return self.workload.batches("train", batch_size=self.workload.examples_at_once, ids=self.subject.ids)

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
        if error is None:
            from nfa.watching import reports  # matplotlib takes its time, and only figures need it

            reports.report(self.output, self.studies)
            self.output.end()
