"""Parameters of the analyses of stored runs."""

from dataclasses import dataclass

from nfa import checkpoint_schedule
from nfa.analyses.parameters import AlignmentParameters, DirectionsParameters, FlowParameters
from nfa.options import CheckedOptions, device_option, option

DIRECTION_EPOCHS = "5-60/5"


@dataclass(frozen=True)
class StoredRunsConfig(CheckedOptions):
    """What every analysis of stored runs is told."""

    run_id: str = option("latest", "runs to analyse: ids or their beginnings, comma-separated; several = comparison")
    epochs: str = option("all", "checkpoints to analyse; all = those that exist")
    output_dir: str = option("", "folder that gets a copy of all reports and pictures")
    data_dir: str = option("", "where the run's data are now; empty = where the run had them")
    workload: str = option("", "code that makes the model again: module:function; empty = the run's own, if it may be")
    workload_args: str = option("", "arguments of that function; empty = those of the run")
    device: str = device_option()
    run_name: str = option("", "name of the analysis run in MLflow; empty = MLflow chooses one")

    def __post_init__(self) -> None:
        super().__post_init__()
        checkpoint_schedule.parse(self.epochs, 0, "epochs")


@dataclass(frozen=True)
class AnalyzeConfig(AlignmentParameters, StoredRunsConfig):
    """Alignment of weights, representations and gradients at every checkpoint of one or several runs."""

    run_id: str = option("latest", "runs to analyse: ids or their beginnings, comma-separated; a parent = its children")
    nproc: int = option(1, "processes that share the examples", at_least=1, below=1025)


@dataclass(frozen=True)
class GradientDirectionsConfig(DirectionsParameters, StoredRunsConfig):
    """Whether examples pull the network the same way: cosines of their gradients, maps, noise scale, by checkpoint."""

    run_id: str = option("latest", "runs to analyse: ids or their beginnings, comma-separated; two = comparison")
    epochs: str = option(
        DIRECTION_EPOCHS, "checkpoints to analyse; by default those of 5-60/5 that exist, if any; all = all"
    )


@dataclass(frozen=True)
class GradientFlowConfig(FlowParameters, StoredRunsConfig):
    """Whether the front layers learn: gradient, weight change and update of each part of a network, by checkpoint."""

    seed: int = option(1717, "seed of the bootstrap of comparisons", at_least=0, below=2**63)
