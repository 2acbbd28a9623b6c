"""`nfa.watch`: studies of a model in your own training loop, recorded while it trains."""

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

_open: WeakSet["Watch"] = WeakSet()  # in this process, so that no two watches of a run write under the same names


class Watch:
    """Record studies of a model while it trains; training is bitwise the same with and without the watch.

        with mlflow.start_run(), nfa.watch(model, loss, (images, labels)) as watch:
            for epoch in range(10):
                watch.record(epoch)
                train_one_epoch(model)

    With several processes (DistributedDataParallel) the first one records and the others do nothing. If training
    diverges, nothing is raised: values that are undefined because weights or outputs are not finite are left out, and
    the first such step is printed.

    Args:
        model: The model that is being trained.
        loss: A function of outputs and targets that returns one loss per example [n].
        probe: The examples that are analysed, a few hundred of the training set: (inputs, targets), a dict whose
            `labels` are the targets, or a DataLoader or Dataset.
        studies: "alignment", "directions", "flow", or several: "alignment,flow".
        schedule: The steps that are recorded, such as "0-20,40" or "all".
        every: The distance between recorded steps, in place of a schedule; "auto" spends at most 5 % of the time on
            recording.
        outputs: A function of model and inputs that returns the outputs f; by default model(inputs), the logits of the
            answer, or its first element.
        present: True for positions of sequences that belong to an example, false for padding [n, s]; an
            `attention_mask` among the inputs says the same.
        examples: How many examples of a DataLoader or Dataset are taken, by class where targets are classes, otherwise
            the first.
        known_features: Known features of sites' inputs by site name (`nfa.maths.known_features`).
        prefix: What all keys and file names begin with; each watch of a run needs a prefix of its own.
        step: The model's step now. At step 0 its weights are the initial ones. A resumed MLflow run has its initial
            weights stored; otherwise values that depend on them are left out.
        sink: Where values, tables and figures go: None for the active MLflow run, an object of nfa.sinks (TensorBoard,
            JSON lines, memory), or any object with the methods log(values, step), text(name, content) and figure(name,
            figure).
        checkpoints: Whether the MLflow run stores the trained weights at every recorded step, so that it can be
            analysed by run id like any tracked training.
        **options: `relations`, `sites`, `centre`, `agop_power`, `positions`, `max_samples`, `batch_size`, `precision`,
            `directions`, `top_k`, `chance` and `seed` as for `analyze`; `sketch`, and those of them that it has, as for
            `gradient_directions`, whose `sites` are `parameters`.

    Raises:
        Refusal: The model cannot be analysed, because its loss is reduced, its examples influence each other, or its
            answers differ between two calls; or an argument cannot be used.
        NfaError: The store of the MLflow run cannot be read or written.
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
        self.output = Output(sink, prefix)
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
        """Raise `Refusal` if another watch of this process writes under the same names into the same run."""
        others = [other.prefix for other in _open if other.output.place == self.output.place]
        if self.prefix in others:
            got = f"prefix={self.prefix!r}, which another watch of this run uses"
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
        """Print how much of the model is seen, and what is left out."""
        for study in self.studies:
            stage("watch", f"{self.prefix}{study.name}: {study.coverage}")
            for notice in study.notices():
                stage("notice", notice)
        if not self.start.known:
            reason = f"the run continues from step {self.step} and has no stored initial weights"
            stage("notice", f"{reason}, so relations with nfm_init_removed and weight changes are left out")
        self.output.keep_coverage(self.studies[0].coverage)

    def record(self, step: int) -> dict[str, float]:
        """Measure and log the model at a step, if the step is due; a step that has been logged before is not logged
        again.

        Args:
            step: The number of the step or epoch.

        Returns:
            The values by metric key, with the probe's mean loss; empty if the step is not due. Undefined values are
            absent.

        Raises:
            Refusal: The step is not a whole number from 0 on.
            NfaError: The values cannot be written.
        """
        step = count_of("step", step)
        return self._measured(step) if not self.silent and self.pace.due(step) else {}

    def record_last(self, step: int) -> dict[str, float]:
        """Measure and log the last step of the training, unless the schedule lists the steps.

        Args:
            step: The number of the step or epoch.

        Returns:
            The values by metric key, as from `record`.
        """
        return self._measured(step) if self.lacks(step) else {}

    def lacks(self, step: int) -> bool:
        """Tell whether the last step of the training is to be recorded and has not been.

        Args:
            step: The number of the step or epoch.

        Returns:
            True if `record_last` would record it.
        """
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
        """Print the first step at which weights, outputs or losses are not finite."""
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
            from nfa.watching import reports  # importing matplotlib is slow, and only figures need it

            reports.report(self.output, self.studies, self.subject)
            self.output.end()
