"""Parameters of the analyses of stored runs."""

from dataclasses import dataclass

from nfa import checkpoint_schedule
from nfa.analyses.accuracy import ESTIMATED
from nfa.analyses.parameters import AlignmentParameters, DirectionsParameters, FlowParameters
from nfa.errors import Refusal
from nfa.options import CheckedOptions, device_option, option
from nfa.relations import RELATIONS, choose_relations

DIRECTION_EPOCHS = "5-60/5"


@dataclass(frozen=True)
class StoredRunsConfig(CheckedOptions):
    """Parameters of every analysis of stored runs."""

    run_id: str = option("latest", "runs to analyse: ids or prefixes, comma-separated; several are also compared")
    epochs: str = option("all", "checkpoints to analyse, such as 0-5,10; all = every stored one")
    output_dir: str = option("", "folder to copy all reports and figures to; empty = no copy")
    data_dir: str = option("", "folder that holds the run's data now; empty = where they were in training")
    workload: str = option("", "function that rebuilds the model: module:function; empty = the run's own, if trusted")
    workload_args: str = option("", "arguments of that function, such as width=32,bias=true; empty = those of the run")
    device: str = device_option()
    run_name: str = option("", "name of the analysis run in MLflow; empty = named by what ran")

    def __post_init__(self) -> None:
        super().__post_init__()
        checkpoint_schedule.parse(self.epochs, 0, "epochs")


@dataclass(frozen=True)
class AnalyzeConfig(AlignmentParameters, StoredRunsConfig):
    """Measure the alignment of weights, representations and gradients at every checkpoint of one or several runs."""

    run_id: str = option(
        "latest", "runs to analyse: ids or prefixes, comma-separated; a parent stands for its children"
    )
    nproc: int = option(1, "number of processes that share the examples", at_least=1, below=1025)
    target_se: float = option(
        0.0,
        "largest standard error of the relations: examples are doubled from 256, up to max_samples, until none is "
        "larger; "
        "0 = all of max_samples",
        at_least=0,
        below=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_se:
            self._check_errors()

    def _check_errors(self) -> None:
        """Raise `Refusal` if the relations that are asked for have no standard errors."""
        got = f"target_se={self.target_se:g}"
        if not self.chance:
            raise Refusal(f"{got} with chance=false", "chance=true, which computes standard errors", "chance=true")
        if ESTIMATED.isdisjoint(choose_relations(self.relations)):
            names = ", ".join(name for name in RELATIONS if name in ESTIMATED)
            raise Refusal(f"{got} with relations={self.relations}", f"relations among {names}", "relations=agop_nfm")
        if self.agop_power != "1":
            got = f"{got} with agop_power={self.agop_power}, whose standard errors are not computed"
            raise Refusal(got, "agop_power=1", "agop_power=1")


@dataclass(frozen=True)
class GradientDirectionsConfig(DirectionsParameters, StoredRunsConfig):
    """Do per-example gradients point in the same direction? Cosines, t-SNE maps and noise scale at each checkpoint."""

    run_id: str = option("latest", "runs to analyse: ids or prefixes, comma-separated; two are also compared")
    epochs: str = option(
        DIRECTION_EPOCHS,
        "checkpoints to analyse; default = those of 5, 10, …, 60 that exist, or all if none does; all = every one",
    )


@dataclass(frozen=True)
class GradientFlowConfig(FlowParameters, StoredRunsConfig):
    """Do the front layers learn? Gradient, weight change and update of each part of a network at each checkpoint."""

    seed: int = option(1717, "seed of the bootstrap in comparisons", at_least=0, below=2**63)
