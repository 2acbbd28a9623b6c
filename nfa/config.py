"""One frozen dataclass per entry point: what the command line parses, MLflow logs and a checkpoint is rebuilt from.

The field is the documentation: its type, default and help text appear unchanged in `--help`, MLproject and docs/.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nfa import schedules
from nfa.errors import Refusal

Auto = Literal["auto"]
LEARNING_RATES = {"sgd": 0.1, "adam": 0.001, "muon": 0.01}
MOMENTA = {"sgd": 0.0, "adam": 0.0, "muon": 0.95}
OPTIMIZERS = tuple(LEARNING_RATES)


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    free_on_resume: bool = False,
) -> Any:
    """A parameter: default, help text, and what is allowed. `free_on_resume`: may differ when a run is continued."""
    metadata = {
        "help": help,
        "choices": choices,
        "at_least": at_least,
        "above": above,
        "below": below,
        "free_on_resume": free_on_resume,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainConfig:
    """Train a bias-free MLP classifier; checkpoints and AGOP/NFM series become a tracked run."""

    optimizer: str = option("sgd", "optimizer; all = one run of each, compared", choices=(*OPTIMIZERS, "all"))
    lr: float | Auto = option("auto", "learning rate; auto = 0.1 for sgd, 0.001 for adam, 0.01 for muon", above=0)
    dataset: str = option("digits", "images to classify", choices=("digits", "svhn", "fashion-mnist", "cifar10"))
    data_dir: str = option("", "folder with the dataset's files; empty = search, else fetch", free_on_resume=True)
    epochs: int = option(100, "passes over the training examples", at_least=1, below=10**7)
    width: int = option(1024, "units in each hidden layer", at_least=1, below=2**20)
    depth: int = option(5, "hidden layers; the network has depth + 1 matrices", at_least=1, below=10**4)
    activation: str = option(
        "relu",
        "nonlinearity between layers",
        choices=("relu", "sigmoid", "leaky_relu", "sine", "tanh", "identity"),
    )
    init: str = option(
        "default",
        "initial weights: PyTorch's Linear default, balanced (deep linear theory), small (half the default)",
        choices=("default", "balanced", "small"),
    )
    loss: str = option("mse", "per-example loss", choices=("mse", "cross-entropy"))
    label_noise: float = option(0.0, "share of the training labels replaced by another class", at_least=0, below=1)
    batch_size: int = option(128, "examples per optimizer step", at_least=1, below=2**31)
    weight_decay: float = option(0.0, "L2 penalty for sgd and adam; decoupled for muon's matrices", at_least=0)
    momentum: float | Auto = option(
        "auto", "momentum of sgd and muon; auto = 0 for sgd, 0.95 for muon", at_least=0, below=1
    )
    companion_lr: float = option(0.001, "Adam learning rate of muon's readout", above=0)
    seed: int = option(1717, "seed of split, initial weights, batch order and label noise", at_least=0, below=2**63)
    schedule: str = option("0-20,40,60,80,100", "checkpoint epochs; what fits, always with 0 and the last")
    max_samples: int = option(0, "training examples analysed at a checkpoint; 0 = all", at_least=0, below=2**31)
    precision: str = option("float32", "operands of the analysis' products", choices=("float32", "bfloat16"))
    device: str = option("auto", "auto = CUDA when it is there, else the CPU; or a torch device", free_on_resume=True)
    resume: str = option("", "id of a killed or failed run to continue", free_on_resume=True)
    run_name: str = option("", "name of the run in MLflow; empty = MLflow chooses one", free_on_resume=True)

    def __post_init__(self) -> None:
        check_fields(self)
        schedules.parse(self.schedule, self.epochs)
        if self.momentum != "auto" and self.momentum and self.optimizer == "adam":
            raise Refusal(
                f"momentum={self.momentum} with optimizer=adam", "momentum for sgd and muon", "leave momentum=auto"
            )

    def resolved(self) -> "TrainConfig":
        """The same configuration with every `auto` that depends on the optimizer replaced by its value."""
        if self.optimizer == "all":
            return self
        lr = LEARNING_RATES[self.optimizer] if self.lr == "auto" else self.lr
        momentum = MOMENTA[self.optimizer] if self.momentum == "auto" else self.momentum
        return dataclasses.replace(self, lr=lr, momentum=momentum)


def check_fields(config: Any) -> None:
    """Raise `Refusal` for the first field of a dataclass of `option`s whose value is outside what is allowed."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.metadata["choices"] and value not in item.metadata["choices"]:
            raise Refusal(
                f"{item.name}={value!r}", ", ".join(item.metadata["choices"]), suggest(item.name, value, item)
            )
        if isinstance(value, int | float) and not _within(value, item.metadata):
            raise Refusal(
                f"{item.name}={value}", bounds(item), f"leave {item.name} out for its default, {item.default}"
            )


def _within(value: float, limits: Mapping[str, Any]) -> bool:
    at_least, above, below = limits["at_least"], limits["above"], limits["below"]
    return (
        (isinstance(value, int) or math.isfinite(value))
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (below is None or value < below)
    )


def bounds(item: "dataclasses.Field[Any]") -> str:
    """What a field allows, in words.

    >>> bounds(TrainConfig.__dataclass_fields__["momentum"])
    'a number ≥ 0 and < 1, or auto'
    """
    limits = item.metadata
    signs = (("at_least", "≥"), ("above", ">"), ("below", "<"))
    text = " and ".join(f"{sign} {limits[name]}" for name, sign in signs if limits[name] is not None)
    kind = "a whole number" if item.type in (int, "int") else "a number"
    return f"{kind} {text}".strip() + (", or auto" if item.default == "auto" else "")


def suggest(name: str, value: str, item: "dataclasses.Field[Any]") -> str:
    """The nearest allowed value, ready to type."""
    import difflib

    near = difflib.get_close_matches(str(value), item.metadata["choices"], n=1, cutoff=0.4)
    return f"{name}={near[0] if near else item.default}"


ENTRY_POINTS = {"train": TrainConfig}
