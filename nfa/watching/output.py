"""What a watch writes to its sink, and what an earlier part of the training has written there."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nfa.console import stage
from nfa.content import json_text
from nfa.errors import Refusal
from nfa.masking import masked, masked_values
from nfa.sinks import JsonLines, MlflowRun, Sink, TensorBoard
from nfa.sinks.pictures import mask_texts
from nfa.sinks.values import loggable
from nfa.watching.options import STUDIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COVERAGE = "nfa.coverage"
INITIAL = "initial_weights.safetensors"
Recorded = Mapping[str, Mapping[int, float]]


class Output:
    """The only access to a sink: every name begins with the prefix, no text contains a password, and every value is
    finite and written once.

    Only an MLflow run can be continued: it has the initial weights, the steps that were logged before, and a tag with
    the coverage. With every other sink a watch starts from nothing.
    """

    def __init__(self, sink: Any, prefix: str) -> None:
        self.sink: Sink = MlflowRun() if sink is None else checked(sink)
        self.prefix = prefix
        self.run = self.sink if isinstance(self.sink, MlflowRun) else None
        self.again = self.run is not None and any(self.run.has(f"{prefix}{name}.json") for name in STUDIES)
        before = self.run.series() if self.run and self.again else {}
        self._kept = {key: dict(of_key) for key, of_key in before.items()}

    @property
    def place(self) -> object:
        """A value that is equal for two watches that write to the same place."""
        if isinstance(self.sink, JsonLines | TensorBoard):
            return self.sink.folder.resolve()
        return self.run.run_id if self.run else id(self.sink)

    @property
    def named(self) -> str:
        """The run, as an error names it."""
        of_prefix = f" with prefix={self.prefix!r}" if self.prefix else ""
        return f"run {self.run.run_id[:12] if self.run else ''}{of_prefix}"

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log the values of a step, except those that were logged before."""
        found = loggable({f"{self.prefix}{key}": value for key, value in values.items()}, step)
        new = {key: value for key, value in found.items() if step not in self._kept.get(key, {})}
        self.sink.log(new, step)
        for key, value in new.items():
            self._kept.setdefault(key, {})[step] = value

    def json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a JSON object with its digest."""
        self.sink.text(f"{self.prefix}{name}", json_text(masked_values(values)))

    def text(self, name: str, content: str) -> None:
        """Write a text without passwords."""
        self.sink.text(f"{self.prefix}{name}", masked(content))

    def figure(self, name: str, figure: "Figure") -> None:
        """Write a figure without passwords."""
        mask_texts(figure)
        self.sink.figure(f"{self.prefix}{name}", figure)

    def series(self) -> Recorded:
        """Return series by key, without the prefix; for an MLflow run, also those of other programs."""
        found = self.run.series(self._kept) if self.run else self._kept
        return {key.removeprefix(self.prefix): of for key, of in found.items() if key.startswith(self.prefix)}

    def initial_weights(self) -> dict[str, Tensor]:
        """Return the initial weights that the run has stored; empty if there are none."""
        path = f"{self.prefix}{INITIAL}"
        return self.run.tensors(path) if self.run and self.again and self.run.has(path) else {}

    def keep_initial_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Store the initial weights in the run."""
        if self.run and tensors:
            self.run.put_tensors(f"{self.prefix}{INITIAL}", tensors)

    def keep_coverage(self, coverage: str) -> None:
        """Store the coverage as a tag of the run."""
        if self.run:
            self.run.tag(f"{COVERAGE}.{self.prefix}".rstrip("./"), coverage)

    def end(self) -> None:
        """Print where everything is."""
        if self.run:
            stage("done", self.run.link)


def checked(sink: Any) -> Sink:
    """Return a sink; `Refusal` for an object that is not one."""
    if isinstance(sink, type) or not isinstance(sink, Sink):
        got = f"sink={sink!r}"
        raise Refusal(got, "an object with the methods log, text and figure", "sink=nfa.sinks.Memory()")
    return sink
