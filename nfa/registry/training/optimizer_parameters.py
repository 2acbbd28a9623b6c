"""Parameters of the optimizer and of its learning rate, the same for every family."""

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

from nfa.errors import Refusal
from nfa.options import Auto, option
from nfa.registry.training.optimizer_table import (
    ALLOWED,
    OPTIMIZERS,
    SEPARATE_PARAMETERS,
    OptimizerEntry,
    entry_of,
    try_step,
)
from nfa.registry.training.rates import SCHEDULES, Rate, scheduled
from nfa.registry.typed_values import BOOLEANS, assignments, read_number

RATES = ", ".join(f"{entry.lr:g} for {name}" for name, entry in OPTIMIZERS.items())
Parameters = TypeVar("Parameters", bound="OptimizerParameters")


@dataclass(frozen=True)
class OptimizerParameters:
    """The optimizer of a training, its learning rate and its other parameters."""

    optimizer: str = option("sgd", f"optimizer: {ALLOWED}")
    lr: float | Auto = option("auto", f"learning rate; auto = {RATES}, and torch's default for other classes", above=0)
    momentum: float | Auto = option(
        "auto", "momentum of sgd and muon; auto = 0 for sgd, 0.95 for muon", at_least=0, below=1
    )
    weight_decay: float = option(0.0, "L2 penalty for sgd and adam; decoupled for adamw and muon", at_least=0)
    companion_lr: float = option(
        0.001, "learning rate of the Adam that trains everything but the hidden matrices, with optimizer=muon", above=0
    )
    optimizer_args: str = option(
        "", "further arguments of the optimizer's class, such as nesterov=true or betas=0.9,0.98,eps=1e-9"
    )
    lr_schedule: str = option("constant", "how the learning rate changes during training", choices=SCHEDULES)
    lr_step: int = option(50, "epochs after which lr_schedule=step multiplies the learning rate", at_least=1)
    lr_decay: float = option(0.9, "factor by which lr_schedule=step multiplies it", above=0, below=1.0001)
    warmup: int = option(0, "optimizer steps of linear warm-up to lr at the start", at_least=0)
    clip_norm: float = option(0.0, "gradients with a larger norm are clipped to it; 0 = no clipping", at_least=0)

    @property
    def entry(self) -> OptimizerEntry:
        """The optimizer's entry in the table."""
        return entry_of(self.optimizer)

    def check_optimizer(self, *names: str) -> None:
        """Check that the optimizer exists and takes the parameters that were set for it.

        Args:
            *names: Further allowed values of `optimizer`, which stand for several optimizers.

        Raises:
            Refusal: There is no such optimizer, or it does not take one of the parameters.
        """
        if getattr(self, "resume", ""):
            return  # what is typed is compared with what the run has, and a part of it may be typed alone
        self._check_schedule()
        if self.optimizer in names:
            if self.optimizer_args:
                got = f"optimizer_args={self.optimizer_args} with optimizer={self.optimizer}"
                raise Refusal(got, "arguments for one optimizer", "leave optimizer_args out")
            return
        entry = entry_of(self.optimizer, names)
        if self.momentum != "auto" and self.momentum and entry.momentum is None:
            got = f"momentum={self.momentum} with optimizer={self.optimizer}"
            raise Refusal(got, "momentum for sgd and muon", "leave momentum=auto")
        if self.companion_lr != OptimizerParameters.companion_lr and not entry.companion:
            got = f"companion_lr={self.companion_lr} with optimizer={self.optimizer}, which trains all weights itself"
            raise Refusal(got, "companion_lr for muon", "leave companion_lr out")
        if self.weight_decay and not entry.decays:
            got = f"weight_decay={self.weight_decay} with optimizer={self.optimizer}, which has none"
            raise Refusal(got, "weight_decay=0", "leave weight_decay out")
        if arguments := self.optimizer_arguments():
            momentum = entry.momentum if self.momentum == "auto" else self.momentum
            beside = {} if momentum is None or entry.momentum is None else {"momentum": momentum}
            try_step(self.optimizer, entry.made_by, arguments, beside)

    def _check_schedule(self) -> None:
        own = {item.name: item.default for item in dataclasses.fields(self)}
        for name in ("lr_step", "lr_decay"):
            value = getattr(self, name)
            if self.lr_schedule != "step" and value != own[name]:
                got = f"{name}={value} with lr_schedule={self.lr_schedule}"
                raise Refusal(got, f"{name} with lr_schedule=step", "lr_schedule=step")

    def check_updates(self, updates: int) -> None:
        """Raise `Refusal` if the warm-up is as long as the whole training of `updates` optimizer steps."""
        if self.warmup >= updates:
            got = f"warmup={self.warmup} in a training of {updates} updates"
            raise Refusal(got, f"0 to {updates - 1}", f"warmup={updates // 10}")

    def optimizer_arguments(self) -> dict[str, Any]:
        """Return the arguments in `optimizer_args`: numbers, booleans, words, and tuples of them.

        Raises:
            Refusal: An argument has a separate parameter, such as lr.
        """
        found = {name: value_of(text) for name, text in assignments("optimizer_args", self.optimizer_args).items()}
        for name in SEPARATE_PARAMETERS:
            if name in found:
                got = f"optimizer_args={self.optimizer_args}"
                raise Refusal(got, f"{name} as a separate parameter", f"use {name}={found[name]} instead")
        return found

    def values_of_auto(self, rates: Any = None) -> dict[str, Any]:
        """Return the values of `lr` and `momentum`, of each only if it is auto.

        Args:
            rates: A family's own default learning rates by optimizer.
        """
        entry = self.entry
        known = {"lr": {**(rates or {})}.get(self.optimizer, entry.lr), "momentum": entry.momentum or 0.0}
        return {name: value for name, value in known.items() if getattr(self, name) == "auto"}

    def rate(self, updates: int, per_epoch: int) -> Rate:
        """Return the learning rate's factor as a function of optimizer steps, `per_epoch` of them in each epoch."""
        every = self.lr_step * per_epoch
        return scheduled(self.lr_schedule, updates=updates, warmup=self.warmup, every=every, factor=self.lr_decay)

    @property
    def rate_keys(self) -> list[str]:
        """The metric key of the learning rate, if it is not constant."""
        return ["train/learning_rate"] if self.lr_schedule != "constant" or self.warmup else []

    def described_rate(self, unit: str = "epoch") -> str:
        """Return the learning rate in words."""
        words = {
            "constant": "",
            "linear": ", falling linearly to 0",
            "cosine": ", falling to 0 along a cosine",
            "step": f" × {self.lr_decay} every {self.lr_step} {unit}s",
        }
        warmup = f" after {self.warmup} steps of warm-up" if self.warmup else ""
        return f"lr {self.lr}{words[self.lr_schedule]}{warmup}"

    def described_optimizer(self, unit: str = "epoch") -> str:
        """Return the optimizer in words."""
        momentum = f", momentum {self.momentum}" if self.entry.momentum is not None else ""
        given = f", {self.optimizer_args}" if self.optimizer_args else ""
        clipped = f", gradients clipped to norm {self.clip_norm:g}" if self.clip_norm else ""
        return f"{self.optimizer}, {self.described_rate(unit)}{momentum}{given}{clipped}"


def value_of(text: str) -> Any:
    """Parse a typed number, boolean or word, or a tuple of them.

    >>> value_of("0.9,0.98"), value_of("true"), value_of("none"), value_of("polar-express")
    ((0.9, 0.98), True, None, 'polar-express')
    """
    if "," in text:
        return tuple(value_of(part) for part in text.split(","))
    words: dict[str, Any] = {**BOOLEANS, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return read_number(text, kind)
        except ValueError:
            continue
    return text
