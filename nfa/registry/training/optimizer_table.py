"""The table of optimizers: an entry for each with defaults of its own; any other class of torch.optim by its name.

Help texts, default values, the construction of optimizers and the estimate of their memory all use this table. PyTorch
is imported only for a class without an entry, so parameters can be checked before it is loaded.
"""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from nfa.errors import Refusal, reason
from nfa.registry.places import named
from nfa.registry.typed_values import known

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class OptimizerEntry:
    """What is known of an optimizer before PyTorch is loaded.

    Attributes:
        made_by: Its class, as "module:name".
        lr: The learning rate that `auto` stands for.
        momentum: The momentum that `auto` stands for; None = the optimizer has no momentum.
        copies: How many tensors of the size of the trained weights a training state holds: the weights themselves, and
            those that the optimizer keeps for them.
        companion: The optimizer of all other parameters, if this one updates only the matrices of hidden layers.
        decays: Whether it has a weight decay.
    """

    made_by: str
    lr: float
    momentum: float | None
    copies: int
    companion: str = ""
    decays: bool = True


OPTIMIZERS = {
    "sgd": OptimizerEntry("torch.optim:SGD", lr=0.1, momentum=0.0, copies=1),
    "adam": OptimizerEntry("torch.optim:Adam", lr=0.001, momentum=None, copies=3),
    "adamw": OptimizerEntry("torch.optim:AdamW", lr=0.001, momentum=None, copies=3),
    "muon": OptimizerEntry("nfa.registry.training.muon:Muon", lr=0.01, momentum=0.95, copies=2, companion="adam"),
}
SEPARATE_PARAMETERS = ("params", "lr", "momentum", "weight_decay")  # arguments that optimizer_args cannot hold
ALLOWED = f"{', '.join(OPTIMIZERS)}, or the name of another class of torch.optim, such as RMSprop"


@cache
def entry_of(name: str, more: tuple[str, ...] = ()) -> OptimizerEntry:
    """Return the entry of an optimizer by its name; that of a class without one is made from its signature.

    Args:
        name: One of `OPTIMIZERS`, or the name of a class.
        more: Further names to list among the allowed ones if the name is refused.

    Raises:
        Refusal: No optimizer has that name, or its class cannot make the steps of a training.
    """
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    kind = _class_of(name, more)
    defaults = inspect.signature(kind).parameters
    momentum = float(defaults["momentum"].default) if "momentum" in defaults else None
    kept = try_step(name, f"torch.optim:{name}", {})
    lr = float(defaults["lr"].default)
    return OptimizerEntry(f"torch.optim:{name}", lr, momentum, 1 + kept, decays="weight_decay" in defaults)


def try_step(
    name: str, made_by: str, arguments: Mapping[str, Any], beside: Mapping[str, Any] | None = None
) -> int:
    """Make one step of an optimizer on a small matrix.

    Args:
        name: The optimizer as it is typed.
        made_by: Its class, as "module:name".
        arguments: Arguments of the class from `optimizer_args`.
        beside: Other arguments of it, which come from parameters of their own.

    Returns:
        The number of tensors of the matrix's shape that the optimizer keeps after the step.

    Raises:
        Refusal: The class does not take the arguments, or its step needs more than a dense gradient.
    """
    import torch

    kind, weight = named(made_by), torch.nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    for argument in arguments:
        known(f"optimizer_args of {name}", argument, _arguments_of(kind))
    try:
        optimizer = kind([weight], lr=0.01, **arguments, **(beside or {}))
        optimizer.step()
    except Exception as error:  # whatever the class raises
        given = "".join(f" {argument}={value}" for argument, value in arguments.items())
        got = f"optimizer={name}{given}: a step with it fails ({type(error).__name__}: {reason(error)})"
        allowed = "an optimizer that steps on a dense gradient, without evaluating the loss again"
        raise Refusal(got, allowed, "other optimizer_args" if arguments else "optimizer=adam") from error
    return sum(torch.is_tensor(value) and value.shape == weight.shape for value in optimizer.state[weight].values())


def _arguments_of(kind: "type[torch.optim.Optimizer]") -> list[str]:
    """Return the arguments of a class that `optimizer_args` can hold."""
    return [name for name in inspect.signature(kind).parameters if name not in SEPARATE_PARAMETERS]


def _class_of(name: str, more: tuple[str, ...]) -> "type[torch.optim.Optimizer]":
    """Return the class of torch.optim that has that name."""
    allowed = ", ".join((*more, ALLOWED))
    if name.lower() in OPTIMIZERS or not name[:1].isupper():  # PyTorch is not imported for a typing error
        raise Refusal(f"optimizer={name!r}", allowed, f"optimizer={_nearest(name, (*more, *OPTIMIZERS))}")
    import torch

    every = vars(torch.optim).values()
    kinds = {one.__name__: one for one in every if inspect.isclass(one) and issubclass(one, torch.optim.Optimizer)}
    del kinds["Optimizer"]
    if name not in kinds:
        raise Refusal(f"optimizer={name!r}", allowed, f"optimizer={_nearest(name, (*kinds, *OPTIMIZERS))}")
    return kinds[name]


def _nearest(name: str, allowed: Iterable[str]) -> str:
    import difflib

    lower = {other.lower(): other for other in allowed}
    near = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.4)
    return lower[near[0]] if near else next(iter(OPTIMIZERS))
