"""Parameters of the entry points for decoding a speech envelope from EEG."""

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
from nfa.registry.training.seeds import check_seeds, check_workers, seeds_option, workers_option
from nfa.registry.typed_values import SEED_LIMIT, seed_list

RATE = 64  # samples per second
FRONT_KERNELS = (7, 5, 3)  # samples of the convolutions before the blocks
LONGEST = 1000  # samples; relative positions reach 999 samples in both directions
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
UNSEEN_HELP = "how to normalise a subject without training recordings: by its first minute, or by those of all subjects"
EEG_SCHEDULE = "0,1,2,5,10,20,50,100,200,500,1000"


@dataclass(frozen=True)
class EEGTraining(OptimizerParameters):
    """Parameters that a training on EEG and an ablation share."""

    size: str = option("tiny", "what auto means for dimensions, window, epochs and learning rate", choices=tuple(SIZES))
    gradient_scale_position: str = option("before_gate", "where gradient_scale is applied", choices=POSITIONS)
    llrd_front: float = option(
        3.0, "use_llrd: learning-rate factor of everything before the second half of the blocks", above=0
    )
    llrd_back: float = option(
        2.0, "use_llrd: learning-rate factor of the second half of the blocks and of the gate", above=0
    )
    llrd_output: float = option(0.5, "use_llrd: learning-rate factor of the head", above=0)
    use_positions: bool = option(True, "add sinusoidal positions before the blocks")
    use_se: bool = option(True, "use squeeze-excitation after the first convolutions")
    use_subjects: bool = option(True, "add an embedding of the subject")
    d_model: int | Auto = option("auto", "width of the model; auto = 32 (tiny), 256 (paper)", at_least=2, below=2**14)
    d_inner: int | Auto = option(
        "auto", "hidden width of feed-forward modules; auto = 64 (tiny), 1024 (paper)", at_least=1, below=2**16
    )
    n_head: int | Auto = option("auto", "attention heads; auto = 2 (tiny), 4 (paper)", at_least=1, below=2**10)
    n_layers: int | Auto = option("auto", "number of blocks; auto = 2 (tiny), 8 (paper)", at_least=1, below=2**10)
    conv_kernel_size: int | Auto = option(
        "auto", "odd kernel size of the blocks' convolution in samples; auto = 15 (tiny), 31 (paper)", at_least=1
    )
    dropout: float | Auto = option("auto", "dropout rate; auto = 0.1 (tiny), 0.3 (paper)", at_least=0, below=1)
    window_seconds: float | Auto = option(
        "auto", "length of a window in seconds; auto = 5 (tiny), 10 (paper)", above=0, below=LONGEST / RATE
    )
    data_dir: str = option(
        "",
        "folder with files SPLIT_-_SUBJECT_-_STIMULUS_-_eeg.npy and …_-_envelope.npy (docs/conventions.md, split_data "
        "layout); empty = simulated recordings",
        path="folder",
    )
    subjects: int = option(6, "number of simulated subjects", at_least=1, below=10**4)
    stimuli: int = option(3, "number of simulated stimuli, each heard by every subject", at_least=1, below=10**4)
    seconds: int = option(300, "length of simulated recordings in seconds", at_least=10, below=10**5)
    channels: int = option(16, "EEG channels of simulated recordings", at_least=1, below=10**4)
    snr_db: float = option(-10.0, "signal-to-noise ratio of simulated recordings in dB")
    data_seed: int = option(1717, "seed of the simulated recordings", at_least=0, below=2**63)
    split: str = option(
        "auto",
        "how val and test are held out: time = parts of training recordings, recordings = also whole recordings, "
        "subjects = also unseen subjects; auto = time or recordings, depending on data_dir",
        choices=SPLITTINGS,
    )
    unseen: str = option("first_minute", UNSEEN_HELP, choices=UNSEEN)
    optimizer: str = option("adam", f"optimizer: {ALLOWED}; adam and adamw have betas 0.9 and 0.98, eps 1e-9")
    lr: float | Auto = option("auto", f"learning rate; auto = (tiny, paper) {RATES}", above=0)
    lr_schedule: str = option("step", "how the learning rate changes during training", choices=SCHEDULES)
    pearson_weight: float = option(1.0, "λ in the loss MSE + λ·(1 − r)²", at_least=0)
    epochs: int | Auto = option("auto", "epochs; auto = 40 (tiny), 1000 (paper)", at_least=1, below=10**7)
    batch_size: int | Auto = option(
        "auto", "windows per optimizer step, over all processes; auto = 16 (tiny), 64 (paper)", at_least=1, below=2**31
    )
    windows_per_recording: int | Auto = option(
        "auto", "random windows per recording and epoch; auto = 4 (tiny), 1 (paper)", at_least=1, below=10**6
    )
    eval_every: int = option(10, "epochs between evaluations", at_least=1)
    schedule: str = option(
        EEG_SCHEDULE, "epochs with a checkpoint, up to the last epoch; 0, the last and the best are always included"
    )
    histograms_every: int = option(100, "optimizer steps between TensorBoard histograms; 0 = none", at_least=0)
    precision: str = option(
        "auto",
        "precision; auto = bfloat16 autocast on a GPU that supports it, else float32",
        choices=("float32", "bfloat16"),
    )
    device: str = device_option(free_on_resume=True)

    @property
    def window(self) -> int:
        """Samples per window."""
        seconds = SIZES[self.size]["window_seconds"] if self.window_seconds == "auto" else self.window_seconds
        return round(float(seconds) * RATE)


@dataclass(frozen=True)
class TrainEEGConfig(EEGTraining):
    """Train a Conformer that decodes a speech envelope from EEG, and compare it with a linear baseline."""

    preset: str = option(
        "full",
        "sets the four switches below that have auto (docs/conventions.md, presets of the Conformer); custom = only "
        "the switches that you give are on",
        choices=(*PRESETS, "custom"),
    )
    use_residual: bool | Auto = option("auto", "add a residual connection around all blocks; auto = preset")
    use_gated_residual: bool | Auto = option(
        "auto", "combine residual and blocks by a learned gate, not by a sum; auto = preset"
    )
    use_mlp_head: bool | Auto = option("auto", "use a head with a hidden layer; auto = preset")
    gradient_scale: float | Auto = option(
        "auto", "factor that multiplies the gradient into the blocks; auto = preset", above=0
    )
    output_grad_scale: float = option(1.0, "factor that multiplies the gradient of the head's parameters", above=0)
    use_llrd: bool = option(False, "use layer-wise learning rates, with factors llrd_front, llrd_back and llrd_output")
    seed: int = option(1717, "seed of initial weights, windows and dropout", at_least=0, below=SEED_LIMIT)
    seeds: str = seeds_option()
    n_workers: int = workers_option()
    nproc: int = option(1, "number of processes that share every batch", at_least=1, below=1025)
    resume: str = option("", "id of a killed or failed run to continue", free_on_resume=True)
    run_name: str = option("", "name of the run in MLflow; empty = named by what ran", free_on_resume=True)

    def __post_init__(self) -> None:
        check_fields(self)
        self.check_optimizer()
        self._check_seeds()
        check_unseen(self.split, self.unseen)
        full = self.resolved() if any(getattr(self, name) == "auto" for name in RESOLVED) else self
        checkpoint_schedule.parse(self.schedule, int(full.epochs))
        self._check_switches(full)
        self._check_sizes(full)

    def _check_seeds(self) -> None:
        check_seeds(self)
        if self.seeds and self.nproc > 1:
            got = f"seeds={self.seeds} with nproc={self.nproc}"
            raise Refusal(got, "nproc=1 for several trainings", f"n_workers={self.nproc} instead of nproc")

    def _check_switches(self, full: "TrainEEGConfig") -> None:
        for name, said in PRESETS.get(self.preset, {}).items():
            if getattr(full, name) != said:
                got = f"preset={self.preset} with {name}={getattr(full, name)}"
                raise Refusal(got, f"{name}={said}, which is the preset's, or auto", "preset=custom")
        if full.use_gated_residual and not full.use_residual:
            got = "use_gated_residual=true with use_residual=false"
            raise Refusal(got, "use_gated_residual only with a residual", "use_residual=true")

    def _check_sizes(self, full: "TrainEEGConfig") -> None:
        if int(full.d_model) % int(full.n_head):
            got = f"d_model={full.d_model} with n_head={full.n_head}"
            raise Refusal(got, "a width that is a multiple of n_head", f"d_model={64 * int(full.n_head)}")
        if int(full.conv_kernel_size) % 2 == 0:
            near = int(full.conv_kernel_size) + 1
            got = f"conv_kernel_size={full.conv_kernel_size}"
            raise Refusal(got, "an odd number, so that a window has a middle", f"conv_kernel_size={near}")
        if not 2 <= self.window <= LONGEST:
            got = f"window_seconds={full.window_seconds} ({self.window} samples)"
            raise Refusal(got, f"2 to {LONGEST} samples at {RATE} Hz", "window_seconds=5")
        if int(full.batch_size) % self.nproc:
            got = f"batch_size={full.batch_size} with nproc={self.nproc}"
            raise Refusal(got, "a batch size that is a multiple of nproc", f"batch_size={64 * self.nproc}")

    def check_memory(self) -> None:
        """Raise `Refusal` if the network of a resolved configuration does not fit into this machine's memory."""
        d, inner, blocks = (int(getattr(self, name)) for name in ("d_model", "d_inner", "n_layers"))
        parameters = blocks * (4 * d * inner + 10 * d * d) + sum(FRONT_KERNELS[1:]) * d * d
        check_memory(parameters, f"d_model={d} d_inner={inner} n_layers={blocks}", "a smaller width or fewer blocks")

    def check_batches(self, recordings: int) -> None:
        """Raise `Refusal` if a batch has fewer windows than there are processes, and for a warm-up that is too long."""
        windows = recordings * int(self.windows_per_recording)
        self.check_updates(int(self.epochs) * -(-windows // int(self.batch_size)))
        last = windows % int(self.batch_size)
        if 0 < last < self.nproc:
            got = f"nproc={self.nproc} with {windows} windows an epoch, of which the last batch has {last}"
            remedy = "another batch_size or windows_per_recording"
            raise Refusal(got, "at least one window per process in every batch", remedy)

    def resolved(self) -> "TrainEEGConfig":
        """Return the configuration with every `auto` replaced by its value.

        Device and precision stay, and so does the split of real recordings.
        """
        known = {**PRESETS.get(self.preset, PRESETS["v1"]), **SIZES[self.size]}
        rates = {name: rates[self.size] for name, rates in EEG_LEARNING_RATES.items()}
        known.update(self.values_of_auto(rates))
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
    """Train presets and single switches of the Conformer with several seeds, and compare which of them help."""

    presets: str = option(
        "v1,full", f"presets to train, comma-separated: {', '.join(PRESETS)}; the first is the reference"
    )
    switches: str = option("all", f"switches to add one at a time to v1: all, none, or some of {', '.join(ALONE)}")
    seeds: str = option("1,2,3", "seeds of each arm, such as 1-3 or 1,2,7")
    n_workers: int = workers_option()
    resume: str = option("", "id of a killed or failed ablation to continue", free_on_resume=True)
    run_name: str = option("", "name of the run in MLflow; empty = named by what ran", free_on_resume=True)

    def __post_init__(self) -> None:
        check_fields(self)
        check_workers(self.n_workers, several=len(self.trainings()) * len(self.seed_list()) > 1)

    def seed_list(self) -> list[int]:
        """Return the seeds; raise `Refusal` if they are not valid."""
        return seed_list(self.seeds)

    def arms(self) -> dict[str, dict[str, Any]]:
        """Return the parameters of each arm by its name, in the order of the comparison."""
        presets = _chosen("presets", self.presets, list(PRESETS))
        found: dict[str, dict[str, Any]] = {preset: {"preset": preset} for preset in presets}
        switches = [] if self.switches == "none" else _chosen("switches", self.switches, list(ALONE))
        return found | {f"v1 + {name}": {"preset": "custom", **ALONE[name]} for name in switches}

    def trainings(self) -> list[TrainEEGConfig]:
        """Return one training per arm."""
        return [self.training(settings, seed=self.seed_list()[0]) for settings in self.arms().values()]

    def training(self, settings: Mapping[str, Any], *, seed: int) -> TrainEEGConfig:
        """Return the training of an arm with this seed."""
        common = {item.name: getattr(self, item.name) for item in dataclasses.fields(EEGTraining)}
        return TrainEEGConfig(**common, **settings, seed=seed)


def check_unseen(split: str, unseen: str) -> None:
    """Raise `Refusal` for `unseen` without unseen subjects."""
    if split != "subjects" and unseen != UNSEEN[0]:
        raise Refusal(f"unseen={unseen} with split={split}", "unseen with split=subjects", "leave unseen out")


def _chosen(name: str, text: str, allowed: list[str]) -> list[str]:
    parts = allowed if text.strip() == "all" else [part.strip() for part in text.split(",")]
    unknown = [part for part in parts if part not in allowed]
    if unknown:
        raise Refusal(f"{name}={text!r} (at {unknown[0]!r})", f"{', '.join(allowed)}, or all", f"{name}={allowed[0]}")
    return list(dict.fromkeys(parts))
