"""What differs from family to family in one tracked training; the rest is the same for all (tracked.py)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor

from nfa.registry.training.loop import Training


class Tracked(Protocol):
    """The training in its run, as its session sees it."""

    def kept(self, schedule: Sequence[int]) -> list[int]:
        """Of these epochs, those whose weights stay."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Metrics of an epoch."""

    def save(self, epoch: int) -> str:
        """The model's weights as the checkpoint of an epoch."""


class Session(ABC):
    """One training of a family: what is measured at its epochs, and what is reported at its end.

    `stored` becomes the run's config.json, `schedule` are the checkpoints up to the `last` epoch, where an epoch is
    what `unit` calls it. `called` names the training in a progress bar.
    """

    unit: ClassVar[str] = "epoch"
    training: Training
    stored: Mapping[str, Any]
    schedule: Sequence[int]
    last: int
    called: str
    config: Any
    example_ids: Mapping[str, Sequence[int]]
    state_copies: int  # of what is trained, in a training state

    # ---- before the first update

    def space(self) -> tuple[int, int]:
        """Bytes of what is trained, and of all that is stored once at the end."""
        return sum(weight.nbytes for weight in self.training.model.parameters() if weight.requires_grad), 0

    def tensors(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Files of tensors that a training goes on from, beside its state."""
        return {}

    def tags(self) -> dict[str, str]:
        """Of the run."""
        return {}

    def named_params(self) -> dict[str, Any]:
        """What MLflow shows among a run's parameters beside those in `stored`."""
        return {}

    def sample_answers(self) -> list[float]:
        """What the model answers on a few examples, where code that makes it again may differ."""
        return []

    @abstractmethod
    def lines(self) -> Iterator[tuple[str, str]]:
        """What is said of the training before it starts: titles and texts."""

    def begin(self) -> None:  # noqa: B027 - there may be nothing to do
        """After the run has been described."""

    def memory(self) -> Mapping[str, Any]:
        """What the training state holds beside the training's own."""
        return {}

    def restore(self, state: Mapping[str, Any] | None) -> None:  # noqa: B027
        """Take up what `memory` gave; None = the run begins."""

    def told(self, state: Mapping[str, Any] | None) -> Any:  # noqa: ARG002 - most train in one process
        """What the processes beside the first one are told before they train, with the configuration."""
        return None

    # ---- at each epoch

    def after_batch(self) -> None:  # noqa: B027
        """After each update."""

    @abstractmethod
    def measure(self, epoch: int, *, checkpoint: bool) -> dict[str, float] | None:
        """Metrics of an epoch; None = nothing is logged at it."""

    def draw(self, epoch: int, values: Mapping[str, float], *, checkpoint: bool) -> None:  # noqa: B027
        """What is written or drawn of finite metrics before they, and the checkpoint, are stored."""

    @abstractmethod
    def line(self, epoch: int, values: Mapping[str, float]) -> str:
        """An epoch's metrics for a person who waits; empty = nothing is said."""

    # ---- at the end

    @abstractmethod
    def finish(self, tracked: Tracked) -> None:
        """The last metrics, the best epoch, reports and figures, all from what the run has logged."""

    def close(self) -> None:  # noqa: B027
        """However the training has ended."""
