"""What is analysed: a model, examples, and the chosen studies."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch.nn as nn
from torch import Tensor

from nfa.errors import NfaError, Refusal, reason
from nfa.maths.known_features import KnownFeatures
from nfa.plain_text import counted, loss_in_words
from nfa.watching.models import observable, unwrapped
from nfa.watching.options import Asked
from nfa.watching.probes import probe_of
from nfa.watching.start import Start
from nfa.watching.studies import RecordOutputs, WatchedAlignment, WatchedDirections, WatchedFlow, WatchedStudy
from nfa.workloads.examples import Loss, Outputs


class Subject:
    """An unwrapped model and the examples on which it is analysed."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        probe: Any,
        asked: Asked,
        *,
        outputs: Outputs,
        present: Tensor | None,
        examples: int,
        known_features: Mapping[str, KnownFeatures] | None = None,
    ) -> None:
        self.model, self.asked = unwrapped(model), asked
        with _at_the_door():
            how: Any = {"present": present, "examples": examples, "known": known_features}
            self.workload = probe_of(self.model, loss, probe, outputs, **how)
        self.ids = list(self.workload.ids("probe"))[: asked.count(len(self.workload.all))]

    @property
    def called(self) -> str:
        """The model and its loss, in words."""
        words = type(self.model).__name__, loss_in_words(self.workload.described_loss(plain=True))
        return ", ".join(filter(None, words))

    def title(self, run: str = "") -> str:
        """Return the title of a figure: what is analysed, in which run if it has a name, and on how many examples."""
        return f"{self.called}{f', run {run}' if run else ''}: {counted(len(self.ids), 'example')}"

    def studies(self, start: Start, record: RecordOutputs | None = None) -> list[WatchedStudy]:
        """Return the chosen studies; `Refusal` where one is impossible. `record` receives the outputs of all examples.
        """
        with _at_the_door(), observable(self.model):
            return [self._study(name, start, record) for name in self.asked.studies]

    def _study(self, name: str, start: Start, record: RecordOutputs | None) -> WatchedStudy:
        if name == "alignment":
            parameters = self.asked.alignment(start_known=start.known)
            return WatchedAlignment(self.workload, self.model, parameters, start, record)
        if name == "directions":
            return WatchedDirections(self.workload, self.model, self.asked.directions(len(self.ids)))
        alone = "alignment" not in self.asked.studies
        return WatchedFlow(self.workload, self.model, self.asked.flow(len(self.ids)), start, record if alone else None)


@contextmanager
def _at_the_door() -> Iterator[None]:
    """Turn whatever a user's model, loss or dataset raises on the probe into a `Refusal`."""
    try:
        yield
    except NfaError:
        raise
    except Exception as error:
        raise Refusal(
            f"a probe on which the model or the loss fails ({type(error).__name__}: {reason(error)})",
            "inputs for model(inputs), or for model(**inputs) if they are a dict; targets for loss(outputs, targets)",
            "pass outputs=lambda model, inputs: …, or another probe",
        ) from error
