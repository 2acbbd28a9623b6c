"""Parameters of a training by our loop, whatever network is trained."""

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

from nfa import checkpoint_schedule
from nfa.options import check_fields, device_option, option
from nfa.registry.training.optimizer_parameters import OptimizerParameters
from nfa.registry.training.optimizer_table import ALLOWED, entry_of
from nfa.registry.training.rates import Rate
from nfa.registry.training.seeds import check_seeds, part_name, seeds_option, workers_option
from nfa.registry.typed_values import SEED_LIMIT

COMPARED = ("sgd", "adam", "muon")  # by optimizer=all
ALL = "all"
Parameters = TypeVar("Parameters", bound="TrainingParameters")


@dataclass(frozen=True)
class TrainingParameters(OptimizerParameters):
    """How a network is trained, and what is measured at its checkpoints."""

    optimizer: str = option("sgd", f"optimizer: {ALLOWED}; all = compare {', '.join(COMPARED)}")
    epochs: int = option(100, "passes through the training examples", at_least=1, below=10**7)
    batch_size: int = option(128, "examples per optimizer step", at_least=1, below=2**31)
    seed: int = option(
        1717, "seed of data split, initial weights, batch order and label noise", at_least=0, below=SEED_LIMIT
    )
    seeds: str = seeds_option()
    n_workers: int = workers_option()
    schedule: str = option(
        "0-20,40,60,80,100", "epochs with a checkpoint, up to the last epoch; 0 and the last are always included"
    )
    max_samples: int = option(
        0,
        "number of training examples analysed at each checkpoint; 0 = all (of a workload by name: at most 512)",
        at_least=0,
        below=2**31,
    )
    precision: str = option("float32", "precision of matrix products in the analysis", choices=("float32", "bfloat16"))
    chance: bool = option(True, "chance levels, shared-weights levels and standard errors in the analysis")
    device: str = device_option(free_on_resume=True)
    resume: str = option(
        "", "id of a killed or failed run to continue; of a parent, all its unfinished trainings", free_on_resume=True
    )
    run_name: str = option("", "name of the run in MLflow; empty = named by what ran", free_on_resume=True)

    def __post_init__(self) -> None:
        check_fields(self)
        checkpoint_schedule.parse(self.schedule, self.epochs)
        self.check_optimizer(ALL)
        check_seeds(self, others=self.optimizer == ALL)

    def rate_on(self, examples: int) -> Rate:
        """Return the learning rate's factor in a training on so many examples, as a function of optimizer steps."""
        updates = self.updates(examples)
        return self.rate(updates, updates // self.epochs)

    def updates(self, examples: int) -> int:
        """Return the number of optimizer steps for this number of training examples."""
        return self.epochs * -(-examples // self.batch_size)

    def resolved(self: Parameters) -> Parameters:
        """Return the configuration with every `auto` that depends on the optimizer replaced by its value."""
        return self if self.optimizer == ALL else dataclasses.replace(self, **self.values_of_auto())

    def variants(self: Parameters) -> dict[str, Parameters]:
        """Return one training per optimizer for optimizer=all, else nothing."""
        if self.optimizer != ALL:
            return {}
        momenta = {name: "auto" if entry_of(name).momentum is None else self.momentum for name in COMPARED}
        return {
            name: dataclasses.replace(
                self, optimizer=name, run_name=part_name(self.run_name, name), momentum=momentum, n_workers=1
            )
            for name, momentum in momenta.items()
        }
