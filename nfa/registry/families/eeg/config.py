"""Parameters of the entry points that decode a speech envelope from EEG."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nfa import checkpoint_schedule
from nfa.errors import Refusal
from nfa.options import Auto, check_fields, device_option, option
from nfa.registry.machine import check_memory
from nfa.registry.training.optimizer_parameters import OptimizerParameters
from nfa.registry.training.optimizer_table import ALLOWED
from nfa.registry.training.rates import SCHEDULES
from nfa.registry.typed_values import whole_numbers

RATE = 64  # samples a second
FRONT_KERNELS = (7, 5, 3)  # samples of the convolutions before the blocks
LONGEST = 1000  # samples; relative positions reach 999 samples either way
SWITCHES = ("use_residual", "use_gated_residual", "use_mlp_head", "gradient_scale")
PRESETS: dict[str, dict[str, Any]] = {
    "v1": dict(zip(SWITCHES, (False, False, False, 1.0), strict=True)),
    "full": dict(zip(SWITCHES, (True, True, True, 2.0), strict=True)),
    "conservative": dict(zip(SWITCHES, (True, False, True, 1.5), strict=True)),
    "aggressive": dict(zip(SWITCHES, (True, True, True, 3.0), strict=True)),
}
OF_SIZES: dict[str, tuple[float, float]] = {  # tiny, paper
    "d_model": (32, 256),
    "d_inner": (64, 1024),
    "n_head": (2, 4),
    "n_layers": (2, 8),
    "conv_kernel_size": (15, 31),
    "dropout": (0.1, 0.3),
    "window_seconds": (5.0, 10.0),
    "epochs": (40, 1000),
    "batch_size": (16, 64),
    "windows_per_recording": (4, 1),
}
SIZES: dict[str, dict[str, Any]] = {
    size: {name: values[place] for name, values in OF_SIZES.items()} for place, size in enumerate(("tiny", "paper"))
}
EEG_LEARNING_RATES = {
    "adam": {"tiny": 3e-3, "paper": 1e-4},
    "adamw": {"tiny": 3e-3, "paper": 1e-4},
    "sgd": {"tiny": 2e-2, "paper": 1e-2},
    "muon": {"tiny": 1e-2, "paper": 1e-2},
}
RATES = "; ".join(f"{name} {rates['tiny']:g}, {rates['paper']:g}" for name, rates in EEG_LEARNING_RATES.items())
RESOLVED = (*SWITCHES, *OF_SIZES, "lr", "momentum")
POSITIONS = ("before_gate", "before_head", "before_stack")
SPLITTINGS = ("time", "recordings", "subjects")
UNSEEN = ("first_minute", "population")
UNSEEN_HELP = "what normalises a subject without training recordings: its first minute, or those of all subjects"
EEG_SCHEDULE = "0,1,2,5,10,20,50,100,200,500,1000"


@dataclass(frozen=True)
class EEGTraining(OptimizerParameters):
    """What a training on EEG and an ablation of one have in common."""

    size: str = option("tiny", "dimensions, window, epochs and learning rate that are auto", choices=tuple(SIZES))
    gradient_scale_position: str = option("before_gate", "where the gradient is scaled", choices=POSITIONS)
    llrd_front: float = option(3.0, "learning-rate factor of all before the second half of the blocks", above=0)
    llrd_back: float = option(2.0, "learning-rate factor of the second half of the blocks and the gate", above=0)
    llrd_output: float = option(0.5, "learning-rate factor of the head", above=0)
    use_positions: bool = option(True, "sinusoidal positions are added before the blocks")
    use_se: bool = option(True, "squeeze-excitation after the convolutions")
    use_subjects: bool = option(True, "an embedding of the subject is added")
    d_model: int | Auto = option("auto", "width; auto = 32 tiny, 256 paper", at_least=2, below=2**14)
    d_inner: int | Auto = option("auto", "width inside feed-forward modules; auto = 64, 1024", at_least=1, below=2**16)
    n_head: int | Auto = option("auto", "attention heads; auto = 2, 4", at_least=1, below=2**10)
    n_layers: int | Auto = option("auto", "blocks; auto = 2, 8", at_least=1, below=2**10)
    conv_kernel_size: int | Auto = option("auto", "samples of the blocks' convolution, odd; auto = 15, 31", at_least=1)
    dropout: float | Auto = option("auto", "share of units dropped; auto = 0.1, 0.3", at_least=0, below=1)
    window_seconds: float | Auto = option("auto", "length of a window; auto = 5, 10", above=0, below=LONGEST / RATE)
    data_dir: str = option("", "folder in the split_data layout; empty = simulated recordings", path="folder")
    subjects: int = option(6, "simulated subjects", at_least=1, below=10**4)
    stimuli: int = option(3, "simulated stimuli, heard by every subject", at_least=1, below=10**4)
    seconds: int = option(300, "length of a simulated recording", at_least=10, below=10**5)
    channels: int = option(16, "channels of simulated recordings", at_least=1, below=10**4)
    snr_db: float = option(-10.0, "response over noise in simulated recordings, dB")
    data_seed: int = option(1717, "seed of simulated recordings", at_least=0, below=2**63)
    split: str = option(
        "auto",
        "what val and test are: time = parts of training recordings, recordings = whole ones too, subjects = those of "
        "unseen subjects too; auto = time or recordings, as data_dir has it",
        choices=SPLITTINGS,
    )
    unseen: str = option("first_minute", UNSEEN_HELP, choices=UNSEEN)
    optimizer: str = option("adam", f"optimizer: {ALLOWED}; adam and adamw have betas 0.9 and 0.98, eps 1e-9")
    lr: float | Auto = option("auto", f"learning rate; auto = (tiny, paper) {RATES}", above=0)
    lr_schedule: str = option("step", "how the learning rate changes during the training", choices=SCHEDULES)
    pearson_weight: float = option(1.0, "λ of the loss MSE + λ·(1 − r)²", at_least=0)
    epochs: int | Auto = option("auto", "epochs; auto = 40 tiny, 1000 paper", at_least=1, below=10**7)
    batch_size: int | Auto = option(
        "auto", "windows per optimizer step, of all processes together; auto = 16, 64", at_least=1, below=2**31
    )
    windows_per_recording: int | Auto = option(
        "auto", "random windows of each recording in an epoch; auto = 4, 1", at_least=1, below=10**6
    )
    eval_every: int = option(10, "epochs between evaluations", at_least=1)
    schedule: str = option(EEG_SCHEDULE, "checkpoint epochs; what fits, always with 0, the last and the best")
    histograms_every: int = option(100, "steps between TensorBoard histograms; 0 = none", at_least=0)
    precision: str = option(
        "auto", "auto = bfloat16 autocast on a GPU that has it, else float32", choices=("float32", "bfloat16")
    )
    device: str = device_option(free_on_resume=True)

    @property
    def window(self) -> int:
        """Samples of a window."""
        seconds = SIZES[self.size]["window_seconds"] if self.window_seconds == "auto" else self.window_seconds
        return round(float(seconds) * RATE)


@dataclass(frozen=True)
class TrainEEGConfig(EEGTraining):
    """Train a Conformer that decodes a speech envelope from EEG; a linear baseline stands beside its results."""

    preset: str = option("full", "which switches are on; custom = none but those given", choices=(*PRESETS, "custom"))
    use_residual: bool | Auto = option("auto", "what enters the blocks is also led around them; auto = as the preset")
    use_gated_residual: bool | Auto = option("auto", "a learned gate mixes the two, instead of a sum; auto = preset")
    use_mlp_head: bool | Auto = option("auto", "a head with a hidden layer; auto = as the preset")
    gradient_scale: float | Auto = option("auto", "factor of the gradient into the blocks; auto = preset", above=0)
    output_grad_scale: float = option(1.0, "factor of the gradient of the head's parameters; 0.5 is used", above=0)
    use_llrd: bool = option(False, "layer-wise learning rates: front, back and output have factors of their own")
    seed: int = option(1717, "seed of initial weights, windows and dropout", at_least=0, below=2**63)
    nproc: int = option(1, "processes that share every batch", at_least=1, below=1025)
    resume: str = option("", "id of a killed or failed run to continue", free_on_resume=True)
    run_name: str = option("", "name of the run in MLflow; empty = MLflow chooses one", free_on_resume=True)

    def __post_init__(self) -> None:
        check_fields(self)
        self.check_optimizer()
        check_unseen(self.split, self.unseen)
        full = self.resolved() if any(getattr(self, name) == "auto" for name in RESOLVED) else self
        checkpoint_schedule.parse(self.schedule, int(full.epochs))
        self._check_switches(full)
        self._check_sizes(full)

    def _check_switches(self, full: "TrainEEGConfig") -> None:
        for name, said in PRESETS.get(self.preset, {}).items():
            if getattr(full, name) != said:
                got = f"preset={self.preset} with {name}={getattr(full, name)}"
                raise Refusal(got, f"{name}={said}, which is the preset's, or auto", "preset=custom")
        if full.use_gated_residual and not full.use_residual:
            got = "use_gated_residual=true with use_residual=false"
            raise Refusal(got, "a gate where there is a residual", "use_residual=true")

    def _check_sizes(self, full: "TrainEEGConfig") -> None:
        if int(full.d_model) % int(full.n_head):
            got = f"d_model={full.d_model} with n_head={full.n_head}"
            raise Refusal(got, "a width that the number of heads divides", f"d_model={64 * int(full.n_head)}")
        if int(full.conv_kernel_size) % 2 == 0:
            near = int(full.conv_kernel_size) + 1
            got = f"conv_kernel_size={full.conv_kernel_size}"
            raise Refusal(got, "an odd number, so that a window has a middle", f"conv_kernel_size={near}")
        if not 2 <= self.window <= LONGEST:
            got = f"window_seconds={full.window_seconds} ({self.window} samples)"
            raise Refusal(got, f"2 to {LONGEST} samples at {RATE} Hz", "window_seconds=5")
        if int(full.batch_size) % self.nproc:
            got = f"batch_size={full.batch_size} with nproc={self.nproc}"
            raise Refusal(got, "a batch that the processes share equally", f"batch_size={64 * self.nproc}")

    def check_memory(self) -> None:
        """`Refusal` where this machine cannot hold the network of a resolved configuration: its products of widths."""
        d, inner, blocks = (int(getattr(self, name)) for name in ("d_model", "d_inner", "n_layers"))
        parameters = blocks * (4 * d * inner + 10 * d * d) + sum(FRONT_KERNELS[1:]) * d * d
        check_memory(parameters, f"d_model={d} d_inner={inner} n_layers={blocks}", "a smaller width or fewer blocks")

    def check_batches(self, recordings: int) -> None:
        """`Refusal` where a batch of a resolved configuration has fewer windows than processes, and for its warm-up."""
        windows = recordings * int(self.windows_per_recording)
        self.check_updates(int(self.epochs) * -(-windows // int(self.batch_size)))
        last = windows % int(self.batch_size)
        if 0 < last < self.nproc:
            got = f"nproc={self.nproc} with {windows} windows an epoch, of which the last batch has {last}"
            remedy = "another batch_size or windows_per_recording"
            raise Refusal(got, "a window for each process in every batch", remedy)

    def resolved(self) -> "TrainEEGConfig":
        """The same configuration with every `auto` replaced by its value, but for device, precision, and split
        of recordings that are not simulated."""
        known = {**PRESETS.get(self.preset, PRESETS["v1"]), **SIZES[self.size]}
        rates = {name: rates[self.size] for name, rates in EEG_LEARNING_RATES.items()}
        known.update(self.known(rates))
        if self.preset == "custom" and self.use_gated_residual is True:
            known["use_residual"] = True
        if not self.data_dir:
            known["split"] = "time"
        return dataclasses.replace(
            self, **{name: value for name, value in known.items() if getattr(self, name) == "auto"}
        )


ALONE: dict[str, dict[str, Any]] = {
    "use_residual": {"use_residual": True},
    "use_gated_residual": {"use_residual": True, "use_gated_residual": True},
    "use_mlp_head": {"use_mlp_head": True},
    "gradient_scale": {"gradient_scale": 2.0},
    "output_grad_scale": {"output_grad_scale": 0.5},
    "use_llrd": {"use_llrd": True},
}


@dataclass(frozen=True)
class AblateEEGConfig(EEGTraining):
    """Train presets and each switch alone, with several seeds, and compare them: what helps, what is cosmetic."""

    presets: str = option(
        "v1,full", f"presets to train, comma-separated: {', '.join(PRESETS)}; the first is compared with"
    )
    switches: str = option("all", f"switches to train alone on v1: all, none, or some of {', '.join(ALONE)}")
    seeds: str = option("1,2,3", "seeds of each arm, comma-separated")
    resume: str = option("", "id of a killed or failed ablation to continue", free_on_resume=True)
    run_name: str = option("", "name of the run in MLflow; empty = MLflow chooses one", free_on_resume=True)

    def __post_init__(self) -> None:
        check_fields(self)
        self.trainings()

    def seed_list(self) -> list[int]:
        """The seeds; `Refusal` for what is none."""
        return whole_numbers("seeds", self.seeds)

    def arms(self) -> dict[str, dict[str, Any]]:
        """Parameters of each arm by its name, in the order of the comparison."""
        presets = _chosen("presets", self.presets, list(PRESETS))
        found: dict[str, dict[str, Any]] = {preset: {"preset": preset} for preset in presets}
        switches = [] if self.switches == "none" else _chosen("switches", self.switches, list(ALONE))
        return found | {f"v1 + {name}": {"preset": "custom", **ALONE[name]} for name in switches}

    def trainings(self) -> list[TrainEEGConfig]:
        """One of each arm."""
        return [self.training(settings, seed=self.seed_list()[0]) for settings in self.arms().values()]

    def training(self, settings: Mapping[str, Any], *, seed: int) -> TrainEEGConfig:
        """The training of an arm with a seed."""
        common = {item.name: getattr(self, item.name) for item in dataclasses.fields(EEGTraining)}
        return TrainEEGConfig(**common, **settings, seed=seed)


def check_unseen(split: str, unseen: str) -> None:
    """`Refusal` for `unseen` where no subject is."""
    if split != "subjects" and unseen != UNSEEN[0]:
        raise Refusal(f"unseen={unseen} with split={split}", "unseen with split=subjects", "leave unseen out")


def _chosen(name: str, text: str, allowed: list[str]) -> list[str]:
    parts = allowed if text.strip() == "all" else [part.strip() for part in text.split(",")]
    unknown = [part for part in parts if part not in allowed]
    if unknown:
        raise Refusal(f"{name}={text!r} (at {unknown[0]!r})", f"{', '.join(allowed)}, or all", f"{name}={allowed[0]}")
    return list(dict.fromkeys(parts))
