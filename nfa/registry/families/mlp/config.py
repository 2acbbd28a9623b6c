"""Parameters of the entry points for classifiers."""

import dataclasses
from dataclasses import dataclass
from itertools import pairwise

from nfa import checkpoint_schedule
from nfa.errors import Refusal
from nfa.options import CheckedOptions, check_fields, device_option, option
from nfa.registry.datasets.image_sizes import train_size
from nfa.registry.machine import check_memory
from nfa.registry.training.parameters import TrainingParameters

DATASETS = ("digits", "svhn", "fashion-mnist", "cifar10")
ACTIVATIONS = ("relu", "sigmoid", "leaky_relu", "sine", "tanh", "identity")
LOSSES = ("mse", "cross-entropy")


@dataclass(frozen=True)
class TrainConfig(TrainingParameters):
    """Train a bias-free MLP classifier as a tracked run with checkpoints and AGOP/NFM series."""

    dataset: str = option("digits", "images to classify", choices=DATASETS)
    data_dir: str = option(
        "", "folder with the dataset's files; empty = search known folders, else download", path="folder"
    )
    width: int = option(1024, "units in each hidden layer", at_least=1, below=2**20)
    depth: int = option(
        5, "number of hidden layers; the network has depth + 1 weight matrices", at_least=1, below=10**4
    )
    activation: str = option("relu", "nonlinearity between layers", choices=ACTIVATIONS)
    init: str = option(
        "default",
        "initial weights: PyTorch's default, balanced (deep linear theory), or small (half the default)",
        choices=("default", "balanced", "small"),
    )
    loss: str = option("mse", "per-example loss", choices=LOSSES)
    weighting: str = option(
        "none", "weighting of the training loss; ghm = gradient harmonising mechanism", choices=("none", "ghm")
    )
    ghm_bins: int = option(10, "ghm: number of equal bins of the gradient norm", at_least=1, below=1001)
    ghm_momentum: float = option(0.0, "ghm: momentum of the bin counts over batches", at_least=0, below=1)
    ghm_alpha: float = option(
        1.0, "ghm: weights are bin counts to the power −alpha; 0 = equal weights", at_least=0, below=10
    )
    label_noise: float = option(0.0, "share of training labels replaced by a random other class", at_least=0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_weighting()

    def _check_weighting(self) -> None:
        defaults = {item.name: item.default for item in dataclasses.fields(self)}
        for name in ("ghm_bins", "ghm_momentum", "ghm_alpha"):
            value = getattr(self, name)
            if self.weighting == "none" and value != defaults[name] and not self.resume:
                raise Refusal(f"{name}={value} with weighting=none", "ghm_… with weighting=ghm", "weighting=ghm")

    def check_sizes(self, published: int, features: int, classes: int) -> None:
        """Raise `Refusal` for more examples than the data set has, and for a network that does not fit into memory."""
        limit = train_size(published)
        if self.max_samples > limit:
            raise Refusal(f"max_samples={self.max_samples}", f"0 (all) to {limit} training examples", "max_samples=0")
        sizes = [features, *[self.width] * self.depth, classes]
        parameters = sum(inputs * outputs for inputs, outputs in pairwise(sizes))
        check_memory(parameters, f"width={self.width} depth={self.depth}", "a smaller width or depth")


@dataclass(frozen=True)
class ImportConfig:
    """Import a folder of old checkpoint files as a tracked run; analyses treat it like a run of train."""

    folder: str = option(
        "", "folder with model_epoch_E.pth files, or with a subfolder models that holds them; required"
    )
    dataset: str = option("", "images that the network was trained on; empty = from the file names", choices=DATASETS)
    data_dir: str = option("", "folder with the dataset's files; empty = search known folders, else download")
    width: int = option(0, "units in each hidden layer; 0 = from the tensors", at_least=0, below=2**20)
    depth: int = option(0, "number of hidden layers; 0 = from the tensors", at_least=0, below=10**4)
    activation: str = option("", "nonlinearity between layers; empty = from the file names", choices=ACTIVATIONS)
    loss: str = option("mse", "per-example loss", choices=LOSSES)
    seed: int = option(1717, "seed of the split into training and validation examples", at_least=0, below=2**63)
    epochs: str = option("all", "epochs to import, such as 0-5,10; all = every epoch with a file")
    device: str = device_option()
    run_name: str = option("", "name of the run in MLflow; empty = named by what ran")

    def __post_init__(self) -> None:
        check_fields(self)
        checkpoint_schedule.parse(self.epochs, 0, "epochs")
        if not self.folder:
            raise Refusal("folder=''", "a folder of old checkpoint files", "set folder=FOLDER")


@dataclass(frozen=True)
class DemoConfig(CheckedOptions):
    """Train three small networks on digits (SGD, Adam, Muon) and analyse them: a tour of nfa in about a minute."""

    epochs: int = option(12, "passes through the training examples", at_least=1, below=1000)
    width: int = option(64, "units in each hidden layer", at_least=1, below=4097)
    depth: int = option(3, "number of hidden layers", at_least=1, below=11)
    seed: int = option(1717, "seed of data split, initial weights and batch order", at_least=0, below=2**63)
    output_dir: str = option("", "folder to copy the figure to; empty = no copy")
