"""The training loop for every workload; it is independent of studies."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nfa.errors import DivergedError
from nfa.learned import learned_state, load_learned
from nfa.measures.parameter_groups import gradient_norm, relative_changes
from nfa.parallel import World
from nfa.registry.signals import shielded
from nfa.registry.training.flops import StepFlops
from nfa.registry.training.optimizer_parameters import OptimizerParameters
from nfa.registry.training.optimizers import Optimizers
from nfa.registry.training.shared_batch import share_batches
from nfa.seeding import generator
from nfa.workload import Batch, MeanLoss, Objective, Workload


@dataclass
class Progress:
    """The progress: `batch` batches after the end of `epoch`; `reported` tells whether `after_epoch` has finished."""

    epoch: int = 0
    batch: int = 0
    reported: bool = False


@dataclass(frozen=True)
class Watched:
    """The steps whose updates are measured: the last one of each of these epochs, by groups of parameter names."""

    groups: Mapping[str, Sequence[str]]
    epochs: Sequence[int]


class Training:
    """A model in training; its `state` is all that is needed to continue to bitwise the same weights.

    `objective` is minimised; None = the mean loss. `order(epoch)` returns an epoch's examples; None = all, shuffled.
    The processes of a `world` share every batch, and each processes its share in `accumulation` parts. Gradients with a
    norm above `clip_norm` are clipped. `last` holds the loss of the last step, and with `clip_norm` the norm before
    clipping. `flow` holds the relative update of each group, and the gradient norm, at the last step of a `watched`
    epoch. `flops` counts the operations of the steps of one process, unless `count_flops` is false. `unit` is the name
    of an epoch in messages.
    """

    def __init__(
        self,
        workload: Workload,
        model: nn.Module,
        optimizer: Optimizers,
        *,
        batch_size: int,
        seed: int,
        objective: Objective | None = None,
        order: Callable[[int], Tensor] | None = None,
        world: World | None = None,
        clip_norm: float = 0.0,
        accumulation: int = 1,
        unit: str = "epoch",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        watched: Watched | None = None,
        count_flops: bool = True,
    ) -> None:
        self.workload, self.model, self.optimizer = workload, model, optimizer
        self.objective = objective or MeanLoss(workload.losses)
        self.batch_size, self.seed = batch_size, seed
        self.order, self.world = order or self._shuffled, world or World()
        self.clip_norm, self.autocast, self.unit = clip_norm, autocast, unit
        self.part_size = batch_size // self.world.size // accumulation
        self.watched = watched or Watched({}, ())
        self.flow: dict[str, float] = {}
        self.last: dict[str, Tensor] = {}
        self.progress = Progress()
        counted = count_flops and self.world.size == 1
        self.flops = StepFlops(workload, model, optimizer, self.objective, autocast, counted=counted)
        self._share = share_batches(model)
        torch.manual_seed(seed)

    def state(self, *, reported: bool | None = None) -> dict[str, Any]:
        """Return weights, optimizer, generators and progress as plain tensors, numbers and names, without copies.

        `after_epoch` passes `reported=True` when it saves the state at its end, so that it is not repeated on resume.
        """
        progress = asdict(self.progress) if reported is None else {**asdict(self.progress), "reported": reported}
        return {
            "model": learned_state(self.model),
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
            "generators": {"cpu": torch.get_rng_state(), "cuda": _cuda_states()},
            "flow": dict(self.flow),
            "last": dict(self.last),
            "flops": self.flops.total,
            "progress": progress,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`."""
        load_learned(self.model, state["model"])
        self.objective.load_state_dict(state["objective"])
        _set_generators(state["generators"]["cpu"], state["generators"]["cuda"])
        self.flow, self.last = dict(state["flow"]), dict(state["last"])
        self.flops.total = state.get("flops")  # states of 0.6 do not tell
        self.progress = Progress(**state["progress"])
        self.optimizer.load_state_dict(state["optimizer"], self.updates)

    @property
    def updates(self) -> int:
        """The number of updates made so far."""
        return self.progress.epoch * self.batches_per_epoch + self.progress.batch

    def learning_rate(self, asked: OptimizerParameters) -> dict[str, float]:
        """Return the learning rate of the last update as a metric, if it changes and there has been an update."""
        if not self.updates:
            return {}
        return dict.fromkeys(asked.rate_keys, float(asked.lr) * self.optimizer.rate(self.updates - 1))

    @cached_property
    def batches_per_epoch(self) -> int:
        """Optimizer steps per epoch; the last one may have fewer examples."""
        return math.ceil(len(self.order(0)) / self.batch_size)

    def run(
        self, epochs: int, after_epoch: Callable[[int], None], after_batch: Callable[[], object] = lambda: None
    ) -> None:
        """Train up to `epochs`; `after_epoch` is called once for epoch 0 (before any update) and after each epoch.

        Raises `DivergedError` if a loss of an epoch was not finite; `after_epoch` is not called for that epoch.
        """
        self._report(after_epoch)
        while self.progress.epoch < epochs:
            self._epoch(after_batch)
            self._report(after_epoch)

    def _report(self, after_epoch: Callable[[int], None]) -> None:
        if not self.progress.reported and self.progress.batch == 0:
            after_epoch(self.progress.epoch)
            self.progress.reported = True

    def _shuffled(self, epoch: int) -> Tensor:
        ids = torch.as_tensor(self.workload.ids("train"))
        return ids[torch.randperm(len(ids), generator=generator(self.seed, f"order/{epoch}"))]

    def _epoch(self, after_batch: Callable[[], object]) -> None:
        steps = self.order(self.progress.epoch).split(self.batch_size)
        remaining = steps[self.progress.batch :]
        mine = [self.world.shard(step) for step in remaining]
        total = torch.zeros((), device=next(self.model.parameters()).device)
        self.model.train()
        ids = torch.cat(mine) if mine else steps[0][:0]
        batches = self.workload.batches("train", batch_size=self.part_size, ids=ids)
        for share, step in zip(mine, remaining, strict=True):
            parts = list(itertools.islice(batches, math.ceil(len(share) / self.part_size)))
            watch = len(steps) == self.progress.batch + 1 and self.progress.epoch + 1 in self.watched.epochs
            total += self._step(parts, len(step), after_batch, watch=watch)
        assert next(batches, None) is None, "the workload gives more batches than there are examples"
        self._check_finite(self.world.sum(total))
        self.progress = Progress(epoch=self.progress.epoch + 1)

    def _step(self, parts: Sequence[Batch], examples: int, after_batch: Callable[[], object], *, watch: bool) -> Tensor:
        """Make one update; a signal before it leaves everything unchanged, a later one is delayed until its end."""
        done, before = self.progress.batch, self._passing_state()
        try:
            loss = self._differentiate(parts, examples)
            with shielded():
                self.last = {"loss": loss, **self._update(watch=watch)}
                self.progress.batch += 1
                self.flops.add(parts)
                after_batch()
        except BaseException:
            if self.progress.batch == done:
                self._go_back(before)
            raise
        return loss

    def _differentiate(self, parts: Sequence[Batch], examples: int) -> Tensor:
        """Return this process's part of the step's loss; gradients are summed over parts and processes."""
        if self.world.size > 1:
            self._share.start, self._share.stop = self.world.bounds(examples)
            self._share.total = examples
        self.optimizer.zero_grad()
        losses = []
        for part in parts:
            with self.autocast():
                outputs = self.workload.outputs(self.model, part)
            loss = self.objective(outputs, part) * self.objective.share(part, parts, examples)
            loss.backward()
            losses.append(loss.detach())
        self._join_gradients()
        return torch.stack(losses).sum()

    def _join_gradients(self) -> None:
        if self.world.size > 1:
            gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
            joined = self.world.sum(torch.cat([gradient.flatten() for gradient in gradients]))
            for gradient, part in zip(gradients, joined.split([each.numel() for each in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def _update(self, *, watch: bool) -> dict[str, Tensor]:
        named = dict(self.model.named_parameters())
        watched = {name for names in self.watched.groups.values() for name in names} if watch else set()
        before = {name: named[name].detach().clone() for name in watched}
        norm = gradient_norm(named.values()) if watch else None
        found = {"grad_norm": nn.utils.clip_grad_norm_(named.values(), self.clip_norm)} if self.clip_norm else {}
        self.optimizer.step()
        self.objective.step()
        if watch:
            changes = relative_changes(self.watched.groups, before, named)
            self.flow = {f"flow/{group}/update_ratio": change for group, change in changes.items()}
            self.flow.update({} if norm is None else {"flow/grad_norm": norm})
        return found

    def _passing_state(self) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """Return what a forward pass in training mode changes: running statistics and generators."""
        return [buffer.clone() for buffer in self.model.buffers()], torch.get_rng_state(), _cuda_states()

    def _go_back(self, before: tuple[list[Tensor], Tensor, list[Tensor]]) -> None:
        buffers, cpu, cuda = before
        for buffer, was in zip(self.model.buffers(), buffers, strict=True):
            buffer.copy_(was)
        _set_generators(cpu, cuda)

    def _check_finite(self, total: Tensor) -> None:
        if not torch.isfinite(total):
            raise DivergedError(f"the training loss became {float(total)} in {self.unit} {self.progress.epoch + 1}")


def _cuda_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _set_generators(cpu: Tensor, cuda: list[Tensor]) -> None:
    torch.set_rng_state(cpu)
    if cuda and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(cuda)
