"""One training loop for every workload; it knows no study."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
import torch.nn as nn
from torch import Tensor

from nfa.ends import shielded
from nfa.errors import DivergedError
from nfa.losses.objectives import MeanLoss
from nfa.protocols import Batch, Workload
from nfa.seeding import generator


class Optimizer(Protocol):
    """What the loop needs of an optimizer."""

    def zero_grad(self) -> None: ...

    def step(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> None: ...


class Objective(Protocol):
    """What training makes small, as a function of a batch's outputs; it may keep a state from step to step."""

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor: ...

    def step(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> None: ...


@dataclass
class Progress:
    """Where training stands: `batch` batches into the epoch after `epoch`, whose end has been `reported` or not."""

    epoch: int = 0
    batch: int = 0
    reported: bool = False


class Training:
    """A model and optimizer on their way; `state` is all that is needed to go on to bitwise the same weights.

    `objective` is what is made small; None = the mean loss.
    """

    def __init__(
        self,
        workload: Workload,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        batch_size: int,
        seed: int,
        objective: Objective | None = None,
    ) -> None:
        self.workload, self.model, self.optimizer = workload, model, optimizer
        self.objective = objective or MeanLoss(workload.losses)
        self.batch_size, self.seed = batch_size, seed
        self.progress = Progress()
        torch.manual_seed(seed)

    def state(self, *, reported: bool | None = None) -> dict[str, Any]:
        """Weights, optimizer, global generators and progress, as plain tensors, numbers and names; to be saved at once.

        `reported=True` where `after_epoch` saves it as its last act, so that its work is not done again.
        """
        progress = asdict(self.progress) if reported is None else {**asdict(self.progress), "reported": reported}
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
            "generators": {"cpu": torch.get_rng_state(), "cuda": _cuda_states()},
            "progress": progress,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a `state` again."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.objective.load_state_dict(state["objective"])
        torch.set_rng_state(state["generators"]["cpu"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["generators"]["cuda"])
        self.progress = Progress(**state["progress"])

    @property
    def batches_per_epoch(self) -> int:
        """Optimizer steps in an epoch; the last one may see fewer examples."""
        return math.ceil(len(self.workload.ids("train")) / self.batch_size)

    def run(
        self, epochs: int, after_epoch: Callable[[int], None], after_batch: Callable[[], object] = lambda: None
    ) -> None:
        """Train up to `epochs`; `after_epoch` is called once for epoch 0 (before any update) and after each epoch.

        Raises `DivergedError` where a loss of the epoch was not finite; `after_epoch` has then not been called for it.
        """
        self._report(after_epoch)
        while self.progress.epoch < epochs:
            self._epoch(after_batch)
            self._report(after_epoch)

    def _report(self, after_epoch: Callable[[int], None]) -> None:
        if not self.progress.reported and self.progress.batch == 0:
            after_epoch(self.progress.epoch)
            self.progress.reported = True

    def _epoch(self, after_batch: Callable[[], object]) -> None:
        ids = torch.as_tensor(self.workload.ids("train"))
        shuffle = generator(self.seed, f"order/{self.progress.epoch}")
        order = ids[torch.randperm(len(ids), generator=shuffle)]
        remaining = order[self.progress.batch * self.batch_size :]
        total = torch.zeros((), device=next(self.model.parameters()).device)
        self.model.train()
        for batch in self.workload.batches("train", batch_size=self.batch_size, ids=remaining):
            loss = self.objective(self.workload.outputs(self.model, batch), batch)
            self.optimizer.zero_grad()
            loss.backward()
            total += loss.detach()
            with shielded():
                self.optimizer.step()
                self.objective.step()
                self.progress.batch += 1
            after_batch()
        self._check_finite(total)
        with shielded():
            self.progress = Progress(epoch=self.progress.epoch + 1)

    def _check_finite(self, total: Tensor) -> None:
        if not torch.isfinite(total):
            raise DivergedError(f"the training loss became {float(total)} in epoch {self.progress.epoch + 1}")


def _cuda_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
