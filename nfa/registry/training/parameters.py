"""Parameters of a training by our loop, whatever network is trained."""

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

from nfa import checkpoint_schedule
from nfa.errors import Refusal
from nfa.options import Auto, check_fields, device_option, option
from nfa.registry.training.optimizer_table import OPTIMIZERS

COMPARED = ("sgd", "adam", "muon")  # by optimizer=all
RATES = ", ".join(f"{entry.lr:g} for {name}" for name, entry in OPTIMIZERS.items())
Parameters = TypeVar("Parameters", bound="TrainingParameters")


@dataclass(frozen=True)
class TrainingParameters:
    """How a network is trained, and what is measured at its checkpoints."""

    optimizer: str = option("sgd", f"optimizer; all = {', '.join(COMPARED)}, compared", choices=(*OPTIMIZERS, "all"))
    lr: float | Auto = option("auto", f"learning rate; auto = {RATES}", above=0)
    epochs: int = option(100, "passes over the training examples", at_least=1, below=10**7)
    batch_size: int = option(128, "examples per optimizer step", at_least=1, below=2**31)
    weight_decay: float = option(0.0, "L2 penalty for sgd and adam; decoupled for adamw and muon", at_least=0)
    momentum: float | Auto = option(
        "auto", "momentum of sgd and muon; auto = 0 for sgd, 0.95 for muon", at_least=0, below=1
    )
    companion_lr: float = option(0.001, "Adam learning rate of muon's readout", above=0)
    seed: int = option(1717, "seed of split, initial weights, batch order and label noise", at_least=0, below=2**63)
    schedule: str = option("0-20,40,60,80,100", "checkpoint epochs; what fits, always with 0 and the last")
    max_samples: int = option(0, "training examples analysed at a checkpoint; 0 = all", at_least=0, below=2**31)
    precision: str = option("float32", "operands of the analysis' products", choices=("float32", "bfloat16"))
    device: str = device_option(free_on_resume=True)
    resume: str = option("", "id of a killed or failed run to continue", free_on_resume=True)
    run_name: str = option("", "name of the run in MLflow; empty = MLflow chooses one", free_on_resume=True)

    def __post_init__(self) -> None:
        check_fields(self)
        checkpoint_schedule.parse(self.schedule, self.epochs)
        entry = OPTIMIZERS.get(self.optimizer)
        if self.momentum != "auto" and self.momentum and entry and entry.momentum is None:
            got = f"momentum={self.momentum} with optimizer={self.optimizer}"
            raise Refusal(got, "momentum for sgd and muon", "leave momentum=auto")

    def resolved(self: Parameters) -> Parameters:
        """The same configuration with every `auto` that depends on the optimizer replaced by its value."""
        if self.optimizer == "all":
            return self
        entry = OPTIMIZERS[self.optimizer]
        lr = entry.lr if self.lr == "auto" else self.lr
        momentum = (entry.momentum or 0.0) if self.momentum == "auto" else self.momentum
        return dataclasses.replace(self, lr=lr, momentum=momentum)

    def variants(self: Parameters) -> dict[str, Parameters]:
        """With optimizer=all, one training each."""
        if self.optimizer != "all":
            return {}
        momenta = {name: "auto" if OPTIMIZERS[name].momentum is None else self.momentum for name in COMPARED}
        return {
            name: dataclasses.replace(self, optimizer=name, run_name=name, momentum=momentum)
            for name, momentum in momenta.items()
        }
