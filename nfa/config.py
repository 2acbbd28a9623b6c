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
from nfa.relations import DEFAULT, choose_relations

Auto = Literal["auto"]
LEARNING_RATES = {"sgd": 0.1, "adam": 0.001, "muon": 0.01}
MOMENTA = {"sgd": 0.0, "adam": 0.0, "muon": 0.95}
OPTIMIZERS = tuple(LEARNING_RATES)
DATASETS = ("digits", "svhn", "fashion-mnist", "cifar10")
ACTIVATIONS = ("relu", "sigmoid", "leaky_relu", "sine", "tanh", "identity")
LOSSES = ("mse", "cross-entropy")
DIRECTION_EPOCHS = "5-60/5"


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
    dataset: str = option("digits", "images to classify", choices=DATASETS)
    data_dir: str = option("", "folder with the dataset's files; empty = search, else fetch", free_on_resume=True)
    epochs: int = option(100, "passes over the training examples", at_least=1, below=10**7)
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
        self._check_weighting()

    def _check_weighting(self) -> None:
        defaults = {item.name: item.default for item in dataclasses.fields(self)}
        for name in ("ghm_bins", "ghm_momentum", "ghm_alpha"):
            value = getattr(self, name)
            if self.weighting == "none" and value != defaults[name] and not self.resume:
                raise Refusal(f"{name}={value} with weighting=none", "ghm_… with weighting=ghm", "weighting=ghm")

    def resolved(self) -> "TrainConfig":
        """The same configuration with every `auto` that depends on the optimizer replaced by its value."""
        if self.optimizer == "all":
            return self
        lr = LEARNING_RATES[self.optimizer] if self.lr == "auto" else self.lr
        momentum = MOMENTA[self.optimizer] if self.momentum == "auto" else self.momentum
        return dataclasses.replace(self, lr=lr, momentum=momentum)


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
    device: str = option("auto", "auto = CUDA when it is there, else the CPU; or a torch device")
    run_name: str = option("", "name of the run in MLflow; empty = MLflow chooses one")

    def __post_init__(self) -> None:
        check_fields(self)
        schedules.parse(self.epochs, 0, "epochs")
        if not self.folder:
            raise Refusal("folder=''", "a folder of old checkpoint files", "give folder=FOLDER")


@dataclass(frozen=True)
class AnalyzeConfig:
    """Alignment of weights, representations and gradients at every checkpoint of one or several runs."""

    run_id: str = option("latest", "runs to analyse: ids or their beginnings, comma-separated; a parent = its children")
    relations: str = option(",".join(DEFAULT), "what is compared: names, globs, or all (docs/maths.md)")
    sites: str = option("", "sites: names or globs; empty = all but the readout")
    centre: str = option("none", "subtract the mean entry, or the mean Jacobian", choices=("none", "entry", "jacobian"))
    agop_power: str = option("1", "AGOP or its square root", choices=("1", "0.5"))
    positions: str = option("each", "outer product at each position, or of their sum", choices=("each", "sum"))
    epochs: str = option("all", "checkpoints to analyse; all = those that exist")
    max_samples: int = option(0, "training examples, the first of the stored probe; 0 = all", at_least=0, below=2**31)
    batch_size: int = option(1024, "examples at a time; changes memory, not values", at_least=1, below=2**31)
    precision: str = option(
        "float32", "operands of products; float64 = everything", choices=("float32", "bfloat16", "float64")
    )
    directions: str = option("auto", "output directions: all, a number ≥ 2 of random ones, auto = all up to 32 outputs")
    top_k: int = option(10, "dimensions of the subspaces that are compared", at_least=1, below=2**20)
    seed: int = option(1717, "seed of random output directions", at_least=0, below=2**63)
    nproc: int = option(1, "processes that share the examples", at_least=1, below=1025)
    output_dir: str = option("", "folder that gets a copy of all reports and pictures")
    data_dir: str = option("", "where the dataset's files are now; empty = where the run had them")
    device: str = option("auto", "auto = CUDA when it is there, else the CPU; or a torch device")
    run_name: str = option("", "name of the analysis run in MLflow; empty = MLflow chooses one")

    def __post_init__(self) -> None:
        check_fields(self)
        choose_relations(self.relations)
        schedules.parse(self.epochs, 0, "epochs")
        self._check_directions()

    def _check_directions(self) -> None:
        if self.directions in ("auto", "all"):
            return
        if not self.directions.isdecimal() or int(self.directions) < 2:
            remedy = "directions=2; one alone has a biased norm and no standard error"
            raise Refusal(f"directions={self.directions!r}", "auto, all, or a whole number ≥ 2", remedy)
        for name, value in (("centre", "jacobian"), ("agop_power", "0.5")):
            if getattr(self, name) == value:
                raise Refusal(
                    f"{name}={value} with directions={self.directions}",
                    "it with all directions: it is not linear in AGOP, so random ones would bias it",
                    "directions=all",
                )


@dataclass(frozen=True)
class GradientDirectionsConfig:
    """Whether examples pull the network the same way: cosines of their gradients, maps, noise scale, by checkpoint."""

    run_id: str = option("latest", "runs to analyse: ids or their beginnings, comma-separated; two = comparison")
    epochs: str = option(DIRECTION_EPOCHS, "checkpoints to analyse; by default those of 5-60/5 that exist; all = all")
    n: int = option(512, "training examples, the first of the stored probe", at_least=2, below=20001)
    unit: str = option("sample", "gradients of examples, or of batches of them", choices=("sample", "batch"))
    batch_size: int = option(32, "examples of a batch where unit=batch", at_least=2, below=2**31)
    loss: str = option("run", "the loss that the run trained on, or the plain one", choices=("run", "plain"))
    sites: str = option("all", "parameters: names of sites, modules or parameters, globs; all = every trainable one")
    perplexity: float | Auto = option("auto", "of the t-SNE maps; auto = min(30, (n − 1)/3)", at_least=1, below=10**4)
    seed: int = option(1717, "seed of the bootstrap; maps start from given places", at_least=0, below=2**63)
    output_dir: str = option("", "folder that gets a copy of all reports and pictures")
    data_dir: str = option("", "where the dataset's files are now; empty = where the run had them")
    device: str = option("auto", "auto = CUDA when it is there, else the CPU; or a torch device")
    run_name: str = option("", "name of the analysis run in MLflow; empty = MLflow chooses one")

    def __post_init__(self) -> None:
        check_fields(self)
        schedules.parse(self.epochs, 0, "epochs")
        if self.unit == "batch" and self.n < 2 * self.batch_size:
            got = f"n={self.n} with unit=batch batch_size={self.batch_size}"
            raise Refusal(got, "at least two whole batches", f"n={16 * self.batch_size}, or a smaller batch_size")
        if self.perplexity != "auto" and self.perplexity >= self.units:
            got, allowed = f"perplexity={self.perplexity} for {self.units} gradients", f"a number below {self.units}"
            raise Refusal(got, allowed, "perplexity=auto")

    @property
    def units(self) -> int:
        """How many gradients are compared."""
        return self.n // self.batch_size if self.unit == "batch" else self.n


@dataclass(frozen=True)
class DemoConfig:
    """Train three small networks on digits (SGD, Adam, Muon) and analyse them: what this program does, in a minute."""

    epochs: int = option(12, "passes over the training examples", at_least=1, below=1000)
    width: int = option(64, "units in each hidden layer", at_least=1, below=4097)
    depth: int = option(3, "hidden layers", at_least=1, below=11)
    seed: int = option(1717, "seed of split, initial weights and batch order", at_least=0, below=2**63)
    output_dir: str = option("", "folder that gets a copy of the figure")

    def __post_init__(self) -> None:
        check_fields(self)


def check_fields(config: Any) -> None:
    """Raise `Refusal` for the first field of a dataclass of `option`s whose value is outside what is allowed."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.metadata["choices"] and value not in (*item.metadata["choices"], item.default):
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
    return f"{name}={near[0] if near else item.default or item.metadata['choices'][0]}"


ENTRY_POINTS = {
    "train": TrainConfig,
    "analyze": AnalyzeConfig,
    "gradient_directions": GradientDirectionsConfig,
    "demo": DemoConfig,
    "import_checkpoints": ImportConfig,
}
