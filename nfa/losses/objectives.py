"""What a training makes small."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from nfa.protocols import Batch


class MeanLoss:
    """The mean of the per-example losses, every example weighing the same."""

    def __init__(self, losses: Callable[[Tensor, Batch], Tensor]) -> None:
        self.losses = losses

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self.losses(outputs, batch).mean()

    def share(self, part: Batch, parts: Sequence[Batch], examples: int) -> float:  # noqa: ARG002
        """Its share of the examples."""
        return len(part) / examples

    def step(self) -> None:
        """Nothing to remember."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing."""

    def fixed(self, seen: Iterable[tuple[Tensor, Batch]]) -> Callable[[Tensor, Batch], Tensor]:  # noqa: ARG002
        """Per-example losses, which depend on no other example."""
        return self.losses
