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
    """One or several torch optimizers that together update the parameters of one model.

    Args:
        parts: The optimizers by name.
        rate: The factor of every learning rate, as a function of the number of updates.
    """

    def __init__(self, parts: Mapping[str, torch.optim.Optimizer], rate: Rate = always) -> None:
        self.parts, self.rate = dict(parts), rate
        self.schedules = [LambdaLR(part, rate) for part in parts.values()]

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for part in self.parts.values():
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Update the weights, and set the learning rates of the next update."""
        for part, schedule in zip(self.parts.values(), self.schedules, strict=True):
            part.step()
            schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the optimizers by name."""
        return {name: _without_initial_rates(part.state_dict()) for name, part in self.parts.items()}

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
    """Parameters that have the same learning rate.

    Attributes:
        hidden: Matrices of hidden layers. An optimizer that has a companion updates only these.
        others: All other parameters, which the companion updates if there is one.
        factor: What the learning rates are multiplied by.
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
    """Return the optimizer that is asked for, with its companion if it needs one.

    The weight decay of sgd and adam is an L2 penalty (added to the gradient); that of adamw and muon is decoupled. The
    singular values of an update by Muon are between about 0.7 and 1.2 times lr·√max(1, out/in), except those that are
    negligible in the gradient.

    Args:
        asked: The parameters, with `lr` and `momentum` resolved.
        groups: All parameters that are trained.
        rate: The factor of the learning rates, as a function of the number of updates.
        own: A family's own arguments of the class by optimizer; `optimizer_args` take precedence over them.
    """
    entry = asked.entry
    arguments = {**(own or {}).get(asked.optimizer, {}), **asked.optimizer_arguments()}
    if entry.decays:
        arguments["weight_decay"] = asked.weight_decay
    if entry.momentum is not None:
        arguments["momentum"] = float(asked.momentum)
    taken = [list(group.hidden) if entry.companion else [*group.hidden, *group.others] for group in groups]
    factors = [group.factor for group in groups]
    parts = {asked.optimizer: named(entry.made_by)(_torch_groups(float(asked.lr), taken, factors), **arguments)}
    if entry.companion and any(group.others for group in groups):
        left = _torch_groups(asked.companion_lr, [list(group.others) for group in groups], factors)
        companion = named(OPTIMIZERS[entry.companion].made_by)
        parts["companion"] = companion(left, weight_decay=asked.weight_decay)
    return Optimizers(parts, rate)


def _torch_groups(lr: float, taken: Sequence[list[nn.Parameter]], factors: Sequence[float]) -> list[dict[str, Any]]:
    """Return the groups of parameters with their learning rates, as torch takes them."""
    pairs = zip(taken, factors, strict=True)
    return [{"params": weights, "lr": lr * factor} for weights, factor in pairs if weights]


def _without_initial_rates(state: dict[str, Any]) -> dict[str, Any]:
    """Remove the initial learning rates, which schedules write into an optimizer's groups, from its state."""
    for group in state["param_groups"]:
        group.pop("initial_lr", None)
    return state
