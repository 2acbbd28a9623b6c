"""The optimizers of a training run, stepped and saved as one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch.optim.lr_scheduler import LambdaLR

from nfa.registry.places import named
from nfa.registry.training.optimizer_parameters import OptimizerParameters
from nfa.registry.training.optimizer_table import OPTIMIZERS
from nfa.registry.training.rates import Rate, always


class Optimizers:
    """Several torch optimizers that share the parameters of one model between them.

    `rate` gives the factor of every learning rate after so many updates.
    """

    def __init__(self, parts: Mapping[str, torch.optim.Optimizer], rate: Rate = always) -> None:
        self.parts, self.rate = dict(parts), rate
        self.schedules = [LambdaLR(part, rate) for part in parts.values()]

    def zero_grad(self) -> None:
        for part in self.parts.values():
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Update the weights, and set the learning rates of the next update."""
        for part, schedule in zip(self.parts.values(), self.schedules, strict=True):
            part.step()
            schedule.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: _without_first_rates(part.state_dict()) for name, part in self.parts.items()}

    def load_state_dict(self, state: Mapping[str, Any], updates: int) -> None:
        """Restore a state that was reached after this number of updates."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])  # with the learning rates
        # torch warns of schedules that are ahead of the updates of this process; these were all made.
        counts = {"last_epoch": updates, "_step_count": updates + 1}
        for schedule in self.schedules:
            schedule.load_state_dict({**schedule.state_dict(), **counts})


@dataclass(frozen=True)
class Group:
    """Parameters with one learning rate, which is `factor` times the one asked for.

    An optimizer that has a companion takes the `hidden` matrices and leaves it the `others`; any other takes them all.
    """

    hidden: Sequence[nn.Parameter]
    others: Sequence[nn.Parameter] = ()
    factor: float = 1.0


def build(
    asked: OptimizerParameters,
    groups: Sequence[Group],
    rate: Rate = always,
    own: Mapping[str, Mapping[str, Any]] | None = None,
) -> Optimizers:
    """The optimizer that is asked for, on the parameters of `groups`.

    The weight decay of sgd and adam is an L2 penalty (added to the gradient); that of adamw and muon is decoupled. Muon
    makes an update's singular values lie between about 0.7 and 1.2 where the gradient's are not negligible, times
    lr·√max(1, out/in).

    Args:
        asked: With `lr` and `momentum` resolved.
        groups: All that is trained.
        rate: The factor of the learning rates after so many updates.
        own: Arguments that a family gives the classes of some optimizers; `optimizer_args` come before them.
    """
    entry = asked.entry
    arguments = {**(own or {}).get(asked.optimizer, {}), **asked.optimizer_arguments()}
    if entry.decays:
        arguments["weight_decay"] = asked.weight_decay
    if entry.momentum is not None:
        arguments["momentum"] = float(asked.momentum)
    taken = [list(group.hidden) if entry.companion else [*group.hidden, *group.others] for group in groups]
    factors = [group.factor for group in groups]
    parts = {asked.optimizer: named(entry.made_by)(_at(float(asked.lr), taken, factors), **arguments)}
    if entry.companion and any(group.others for group in groups):
        left = _at(asked.companion_lr, [list(group.others) for group in groups], factors)
        companion = named(OPTIMIZERS[entry.companion].made_by)
        parts["companion"] = companion(left, weight_decay=asked.weight_decay)
    return Optimizers(parts, rate)


def _at(lr: float, taken: Sequence[list[nn.Parameter]], factors: Sequence[float]) -> list[dict[str, Any]]:
    """torch's groups of parameters, each with its learning rate."""
    pairs = zip(taken, factors, strict=True)
    return [{"params": weights, "lr": lr * factor} for weights, factor in pairs if weights]


def _without_first_rates(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state as it is stored: schedules note the learning rates that they start from in its groups."""
    for group in state["param_groups"]:
        group.pop("initial_lr", None)
    return state
