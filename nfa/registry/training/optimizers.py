"""The optimizers of a training run, stepped and saved as one."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn as nn
from torch.optim.lr_scheduler import LambdaLR

from nfa.maths.bfloat16 import bfloat16_products, has_bfloat16_units
from nfa.registry.places import named
from nfa.registry.training.optimizer_table import OPTIMIZERS
from nfa.registry.training.rates import Rate, always


class Optimizers:
    """Several torch optimizers that share the parameters of one model between them.

    `rate` gives the factor of every learning rate after so many epochs have ended.
    """

    def __init__(self, parts: Mapping[str, torch.optim.Optimizer], rate: Rate = always) -> None:
        self.parts = dict(parts)
        self.schedules = [LambdaLR(part, rate) for part in parts.values()]

    def zero_grad(self) -> None:
        for part in self.parts.values():
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        for part in self.parts.values():
            with _fast_products(part):
                part.step()

    def end_epoch(self) -> None:
        """Let the learning rates follow their schedule."""
        for schedule in self.schedules:
            schedule.step()

    def state_dict(self) -> dict[str, Any]:
        parts = {name: _without_first_rates(part.state_dict()) for name, part in self.parts.items()}
        return {"epochs": self.schedules[0].last_epoch, **parts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])  # with the learning rates
        # torch warns of an epoch that ends without an update; of one that is taken up at its end, they were all made.
        counts = {"last_epoch": state["epochs"], "_step_count": state["epochs"] + 2}
        for schedule in self.schedules:
            schedule.load_state_dict({**schedule.state_dict(), **counts})


def build(
    name: str,
    groups: Sequence[Any],
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0,
    readout: Sequence[nn.Parameter] = (),
    companion_lr: float = 0.0,
    rate: Rate = always,
    **options: Any,
) -> Optimizers:
    """The optimizer of that name for `groups` of parameters and `readout`, or with its companion for the latter.

    The weight decay of SGD and Adam is an L2 penalty (added to the gradient). Muon orthogonalises its momentum by a
    Newton–Schulz iteration (Jordan et al. 2024; torch.optim.Muon): an update's singular values come out between about
    0.5 and 1.5 where the gradient's are not negligible, times lr·√max(1, out/in). Its weight decay is decoupled. The
    readout is not a hidden matrix, so it gets Adam at `companion_lr`. `options` are further ones of the class.
    """
    entry = OPTIMIZERS[name]
    own = options if entry.momentum is None else {**options, "momentum": momentum}
    together = groups if entry.companion else [*groups, *readout]
    parts = {name: named(entry.made_by)(together, lr=lr, weight_decay=weight_decay, **own)}
    if entry.companion and readout:
        companion = named(OPTIMIZERS[entry.companion].made_by)
        parts["companion"] = companion(readout, lr=companion_lr, weight_decay=weight_decay)
    return Optimizers(parts, rate)


def _without_first_rates(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state as it is stored: schedules note the learning rates that they start from in its groups."""
    for group in state["param_groups"]:
        group.pop("initial_lr", None)
    return state


def _fast_products(part: torch.optim.Optimizer) -> AbstractContextManager[None]:
    """torch.optim.Muon multiplies in bfloat16, which is unusably slow on a processor without bfloat16 units."""
    if not isinstance(part, torch.optim.Muon):
        return nullcontext()
    device = part.param_groups[0]["params"][0].device
    return nullcontext() if has_bfloat16_units(device) else bfloat16_products()
