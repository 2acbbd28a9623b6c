"""Parameters of a training by our loop, whatever network is trained."""

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

from nfa import checkpoint_schedule
from nfa.options import check_fields, device_option, option
from nfa.registry.training.optimizer_parameters import OptimizerParameters
from nfa.registry.training.optimizer_table import ALLOWED, entry_of

COMPARED = ("sgd", "adam", "muon")  # by optimizer=all
ALL = "all"
Parameters = TypeVar("Parameters", bound="TrainingParameters")


@dataclass(frozen=True)
class TrainingParameters(OptimizerParameters):
    """How a network is trained, and what is measured at its checkpoints."""

    optimizer: str = option("sgd", f"optimizer: {ALLOWED}; all = {', '.join(COMPARED)}, compared")
    epochs: int = option(100, "passes over the training examples", at_least=1, below=10**7)
    batch_size: int = option(128, "examples per optimizer step", at_least=1, below=2**31)
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
        self.check_optimizer(ALL)

    def updates(self, examples: int) -> int:
        """Of a training on so many examples."""
        return self.epochs * -(-examples // self.batch_size)

    def resolved(self: Parameters) -> Parameters:
        """The same configuration with every `auto` that depends on the optimizer replaced by its value."""
        return self if self.optimizer == ALL else dataclasses.replace(self, **self.known())

    def variants(self: Parameters) -> dict[str, Parameters]:
        """With optimizer=all, one training each."""
        if self.optimizer != ALL:
            return {}
        momenta = {name: "auto" if entry_of(name).momentum is None else self.momentum for name in COMPARED}
        return {
            name: dataclasses.replace(self, optimizer=name, run_name=name, momentum=momentum)
            for name, momentum in momenta.items()
        }
