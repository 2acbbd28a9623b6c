"""The studies of a watch: each measures the model as it is now, under the metric keys that analyses of stored runs use.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch.nn as nn
from torch import Tensor

from nfa.analyses.alignment import Analysis
from nfa.analyses.gradient_directions import GradientAnalysis
from nfa.analyses.gradient_flow import NO_OUTPUT, FlowAnalysis
from nfa.analyses.parameters import AlignmentParameters, DirectionsParameters, FlowParameters
from nfa.measures.mean_gradient import mean_gradient
from nfa.observe.checks import check_model
from nfa.observe.door import EXAMPLES
from nfa.watching.start import Start
from nfa.workload import Batch, Workload

RecordOutputs = Callable[[Tensor, Batch], None]


class WatchedStudy(Protocol):
    """The interface of a study of a watch; creating one raises `Refusal` where it is impossible."""

    name: str

    @property
    def coverage(self) -> str:
        """How much of the model is seen, in words."""

    def described(self) -> Mapping[str, Any]:
        """Return conventions and choices, to be stored beside the values."""

    def notices(self) -> Iterator[str]:
        """Yield what is left out, and why."""

    def values(self, model: nn.Module, step: int) -> dict[str, float]:
        """Return the values by metric key; undefined ones are absent."""


class WatchedAlignment:
    """Relations of weights, representations and gradients; `record` receives the outputs of all examples."""

    name = "alignment"

    def __init__(
        self,
        workload: Workload,
        model: nn.Module,
        parameters: AlignmentParameters,
        start: Start,
        record: RecordOutputs | None,
    ) -> None:
        self.analysis = Analysis(workload, model, parameters, start.of_sites if start.known else None)
        self.record = record

    @property
    def coverage(self) -> str:
        return self.analysis.coverage

    def described(self) -> Mapping[str, Any]:
        return self.analysis.described()

    def notices(self) -> Iterator[str]:
        yield from self.analysis.notices()

    def values(self, model: nn.Module, step: int) -> dict[str, float]:  # noqa: ARG002 - the same at every step
        return self.analysis.values(model, record_outputs=self.record)


class WatchedDirections:
    """Directions of per-example gradients; `gradient/correlation_with_previous` compares with the step recorded before.
    """

    name = "directions"

    def __init__(self, workload: Workload, model: nn.Module, parameters: DirectionsParameters) -> None:
        self.analysis = GradientAnalysis(workload, model, parameters)
        self.coverage = self.analysis.coverage
        self.analysis.gram.trial(EXAMPLES, EXAMPLES)(model)  # or Refusal
        self.before: Mapping[str, np.ndarray] = {}

    def described(self) -> Mapping[str, Any]:
        return self.analysis.described()

    def notices(self) -> Iterator[str]:
        return self.analysis.notices()

    def values(self, model: nn.Module, step: int) -> dict[str, float]:  # noqa: ARG002 - the same at every step
        result = self.analysis(model)
        before, self.before = self.before, {key: result.arrays[key] for key in ("cosines", "kept")}
        return {**result.scalars, **(self.analysis.correlation(before, self.before) if before else {})}


class WatchedFlow:
    """Gradients and weight changes by part of the model; `record` receives the outputs of all examples."""

    name = "flow"

    def __init__(
        self,
        workload: Workload,
        model: nn.Module,
        parameters: FlowParameters,
        start: Start,
        record: RecordOutputs | None,
    ) -> None:
        self.analysis = FlowAnalysis(workload, model, parameters, start.of_parameters())
        few = list(workload.batches("train", batch_size=EXAMPLES, ids=self.analysis.ids[:EXAMPLES]))
        check_model(model, workload, few[0])
        mean_gradient(workload, model, few)  # raises Refusal where it is impossible
        self.coverage = self.analysis.coverage
        self.record = record

    def described(self) -> Mapping[str, Any]:
        return self.analysis.described()

    def notices(self) -> Iterator[str]:
        if self.analysis.groups.output is None:
            yield NO_OUTPUT

    def values(self, model: nn.Module, step: int) -> dict[str, float]:
        return self.analysis(model, moved=step > 0, record_outputs=self.record)
