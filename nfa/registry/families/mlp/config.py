"""Parameters of the entry points that make runs of classifiers."""

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
    """Train a bias-free MLP classifier; checkpoints and AGOP/NFM series become a tracked run."""

    dataset: str = option("digits", "images to classify", choices=DATASETS)
    data_dir: str = option("", "folder with the dataset's files; empty = search, else fetch", path="folder")
    width: int = option(1024, "units in each hidden layer", at_least=1, below=2**20)
    depth: int = option(5, "hidden layers; the network has depth + 1 matrices", at_least=1, below=10**4)
    activation: str = option("relu", "nonlinearity between layers", choices=ACTIVATIONS)
    init: str = option(
        "default",
        "initial weights: PyTorch's Linear default, balanced (deep linear theory), small (half the default)",
        choices=("default", "balanced", "small"),
    )
    loss: str = option("mse", "per-example loss", choices=LOSSES)
    weighting: str = option("none", "weights of the training loss; ghm = gradient harmonising", choices=("none", "ghm"))
    ghm_bins: int = option(10, "equal bins of the gradient norm", at_least=1, below=1001)
    ghm_momentum: float = option(0.0, "momentum of the bins' counts over batches", at_least=0, below=1)
    ghm_alpha: float = option(1.0, "weight = count to the power −alpha; 0 = equal weights", at_least=0, below=10)
    label_noise: float = option(0.0, "share of the training labels replaced by another class", at_least=0, below=1)

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
        """`Refusal` for more examples than a data set has, and for a network that this machine cannot hold."""
        limit = train_size(published)
        if self.max_samples > limit:
            raise Refusal(f"max_samples={self.max_samples}", f"0 (all) to {limit} training examples", "max_samples=0")
        sizes = [features, *[self.width] * self.depth, classes]
        parameters = sum(inputs * outputs for inputs, outputs in pairwise(sizes))
        check_memory(parameters, f"width={self.width} depth={self.depth}", "a smaller width or depth")


@dataclass(frozen=True)
class ImportConfig:
    """Make a tracked run of a folder of old checkpoint files; analyses treat it like a run of train."""

    folder: str = option("", "folder with model_epoch_E.pth files, or with a folder models that has them; required")
    dataset: str = option("", "images the network was trained on; empty = as the file names say", choices=DATASETS)
    data_dir: str = option("", "folder with the dataset's files; empty = search, else fetch")
    width: int = option(0, "units in each hidden layer; 0 = as the tensors say", at_least=0, below=2**20)
    depth: int = option(0, "hidden layers; 0 = as the tensors say", at_least=0, below=10**4)
    activation: str = option("", "nonlinearity between layers; empty = as the file names say", choices=ACTIVATIONS)
    loss: str = option("mse", "per-example loss", choices=LOSSES)
    seed: int = option(1717, "seed of the split into training and validation examples", at_least=0, below=2**63)
    epochs: str = option("all", "epochs to import; all = every one that has a file")
    device: str = device_option()
    run_name: str = option("", "name of the run in MLflow; empty = MLflow chooses one")

    def __post_init__(self) -> None:
        check_fields(self)
        checkpoint_schedule.parse(self.epochs, 0, "epochs")
        if not self.folder:
            raise Refusal("folder=''", "a folder of old checkpoint files", "give folder=FOLDER")


@dataclass(frozen=True)
class DemoConfig(CheckedOptions):
    """Train three small networks on digits (SGD, Adam, Muon) and analyse them: what this program does, in a minute."""

    epochs: int = option(12, "passes over the training examples", at_least=1, below=1000)
    width: int = option(64, "units in each hidden layer", at_least=1, below=4097)
    depth: int = option(3, "hidden layers", at_least=1, below=11)
    seed: int = option(1717, "seed of split, initial weights and batch order", at_least=0, below=2**63)
    output_dir: str = option("", "folder that gets a copy of the figure")
