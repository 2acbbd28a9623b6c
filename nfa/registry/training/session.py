"""What differs between families in a tracked training; tracked.py is the part that they share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor

from nfa.registry.training.loop import Training


class Tracked(Protocol):
    """The tracked training, as its session sees it."""

    def kept(self, schedule: Sequence[int]) -> list[int]:
        """Return those of the scheduled epochs whose checkpoints are kept."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Log metrics of an epoch; raise `DivergedError` for one that is not finite."""

    def save(self, epoch: int) -> str:
        """Store the model as the checkpoint of an epoch; return the id of its LoggedModel."""


class Session(ABC):
    """One training of a family: what it measures at each epoch, and what it reports at its end.

    For language models an epoch of the loop is one optimizer step, and `Family.unit` is "step".

    Attributes:
        run: The tracked run.
        training: The training loop with model and optimizers.
        stored: The content of the run's config.json.
        schedule: Epochs with a checkpoint.
        last: The last epoch.
        called: Name of the training in the progress bar.
        state_copies: Size of the training state, in copies of the trained parameters.
        pictures: Names of the figures for the run's description; the first that exists is shown.
    """

    unit: ClassVar[str] = "epoch"
    pictures: ClassVar[tuple[str, ...]] = ()
    training: Training
    stored: Mapping[str, Any]
    schedule: Sequence[int]
    last: int
    called: str
    config: Any
    example_ids: Mapping[str, Sequence[int]]
    state_copies: int  # of the trained parameters

    # ---- before the first update

    def space(self) -> tuple[int, int]:
        """Return the bytes of the trained parameters, and the bytes that are stored once at the end."""
        return sum(weight.nbytes for weight in self.training.model.parameters() if weight.requires_grad), 0

    def tensors(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Return further files that resuming needs: tensors by name, by artifact path."""
        return {}

    def tags(self) -> dict[str, str]:
        """Return further tags of the run."""
        return {}

    def named_params(self) -> dict[str, Any]:
        """Return further parameters to log in MLflow."""
        return {}

    def sample_answers(self) -> list[float]:
        """Return the model's outputs on a few examples, if its code is not part of nfa and may change."""
        return []

    @abstractmethod
    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield console lines about the training before it starts: a title and a text each."""

    def begin(self) -> None:  # noqa: B027 - there may be nothing to do
        """Called once after the run has been described."""

    def memory(self) -> Mapping[str, Any]:
        """Return what the session adds to the training state: tensors, numbers, strings and containers of them."""
        return {}

    def restore(self, state: Mapping[str, Any] | None) -> None:  # noqa: B027
        """Restore what `memory` returned; `state` is None in a new run."""

    def told(self, state: Mapping[str, Any] | None) -> Any:  # noqa: ARG002 - most train in one process
        """Return what is sent to the other processes before training, in addition to the configuration."""
        return None

    # ---- at each epoch

    def after_batch(self) -> None:  # noqa: B027
        """Called after each optimizer step."""

    @abstractmethod
    def measure(self, epoch: int, *, checkpoint: bool) -> dict[str, float] | None:
        """Measure metrics at the end of an epoch.

        Args:
            epoch: Number of the epoch; 0 is before the first update.
            checkpoint: Whether the epoch has a checkpoint.

        Returns:
            Metrics by key, or None if nothing is logged at this epoch.
        """

    def draw(self, epoch: int, values: Mapping[str, float], *, checkpoint: bool) -> None:  # noqa: B027
        """Write or draw something for an epoch, before its metrics (which are finite) and checkpoint are stored."""

    @abstractmethod
    def line(self, epoch: int, values: Mapping[str, float]) -> str:
        """Return the console line of an epoch; empty = print nothing."""

    # ---- at the end

    @abstractmethod
    def finish(self, tracked: Tracked) -> None:
        """Log final metrics, tag the best epoch, and write reports and figures from what the run has logged.

        Args:
            tracked: Logs metrics and stores checkpoints.
        """

    def results(self) -> list[str]:
        """Return the results in words after `finish`, for the run's description."""
        return []

    def close(self) -> None:  # noqa: B027
        """Called at the end of the training, in every case."""
