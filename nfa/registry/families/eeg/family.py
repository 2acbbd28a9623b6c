"""Conformers that decode a speech envelope from EEG, as a family."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from nfa.bookkeeping import FLOPS
from nfa.errors import Refusal
from nfa.registry.families.assessment import Quality, Remedy, Score
from nfa.registry.families.eeg.config import PRESETS, SWITCHES, TrainEEGConfig
from nfa.registry.families.entry_point import EntryPoint, trains
from nfa.registry.families.protocol import Family, Value
from nfa.registry.folders import check_folder, typed_folder

HERE = "nfa.registry.families.eeg"
LAYOUT = "pairs {train|val|test}_-_SUBJECT_-_STIMULUS_-_{eeg|envelope}.npy"
SCORES = ("loss", "loss_mse", "loss_pearson", "pearson")
LLRD = ("llrd_front", "llrd_back", "llrd_output")
FULL: dict[str, Value] = {"preset": "custom", "use_residual": True, "use_gated_residual": True, "use_mlp_head": True}


class Decoders(Family):
    """Conformers on recordings of EEG, simulated or real."""

    name, entrypoint, config = "eeg", "train_eeg", TrainEEGConfig
    trained_by, extra = f"{HERE}.training:DecoderTraining", "eeg"
    entry_points: ClassVar[Mapping[str, EntryPoint]] = {
        "train_eeg": trains(f"{HERE}.config:TrainEEGConfig"),
        "prepare_eeg": EntryPoint(
            f"{HERE}.preparation.config:PrepareEEGConfig",
            f"{HERE}.preparation.prepare_eeg:prepare_eeg",
            f"{HERE}.preparation.recordings:chosen",
        ),
        "ablate_eeg": EntryPoint(
            f"{HERE}.config:AblateEEGConfig",
            f"{HERE}.ablation:ablate_eeg",
            results="ablation.csv",
            verdicts=f"{HERE}.ablation_report:verdicts_of",
        ),
    }
    data = ("data_dir", "subjects", "stimuli", "seconds", "channels", "snr_db", "data_seed", "split", "unseen")
    objective = "val/pearson"
    quality = Quality(objective, "validation Pearson's r", hoped=0.3)
    score = Score("pearson", "Pearson's r", "r", "recording", f"{HERE}.report:tested", (-1.0, 1.0))
    space = (
        "lr=log:3e-4:3e-2,gradient_scale=1:4,llrd_front=log:0.25:4,llrd_back=log:0.25:4,llrd_output=log:0.25:4,"
        "dropout=0:0.5"
    )
    remedy = Remedy("gradient_scale", felt=1.5)
    rules_of_thumb = (
        "rules of thumb from decoding EEG with Conformers; they are not derived and may not fit other networks"
    )

    told = frozenset({"preset"})

    def called(self, config: TrainEEGConfig) -> str:
        data = typed_folder(config.data_dir).resolve().name if config.data_dir else "simulated"
        return f"{data} eeg {config.preset}"

    def subject(self, stored: Mapping[str, Any]) -> str:
        data = "simulated EEG" if stored["data"]["name"] == "simulated" else stored["data"]["name"]
        return f"Conformer {stored['train']['preset']} on {data}"

    def loss(self, stored: Mapping[str, Any]) -> str:
        return f"mean squared error + {float(stored['train']['pearson_weight']):g} (1 − r)²"

    def metric_keys(self, config: TrainEEGConfig) -> list[str]:
        config = config.resolved()
        scores = [f"{split}/{score}" for split in ("train", "val", "test") for score in SCORES]
        windows = [f"{split}/undefined_windows" for split in ("val", "test")]
        baselines = [f"{split}/baseline_pearson" for split in ("val", "test")]
        optional = {"se": config.use_se, "subject": config.use_subjects, "gate": config.use_gated_residual}
        blocks = [f"block_{index}" for index in range(int(config.n_layers))]
        groups = ["cnn", *[name for name, there in optional.items() if there], *blocks, "head"]
        moved = [f"flow/{group}/update_ratio" for group in groups]
        return [*scores, *windows, *baselines, "flow/grad_norm", *moved, FLOPS, *config.rate_keys]

    def check(self, trainings: Sequence[TrainEEGConfig]) -> None:
        for folder in {one.data_dir for one in trainings} - {""}:
            check_folder("data_dir", folder)
        for one in trainings:
            _check(one)

    def needed(self, typed: Mapping[str, Value], searched: Collection[str]) -> dict[str, Value]:
        """Switch on layer-wise learning rates if their factors are searched, and preset=custom if switches are."""
        found: dict[str, Value] = {"use_llrd": True} if {*LLRD} & {*searched} else {}
        if {*SWITCHES} & {*searched} and "preset" not in typed:
            found |= {**FULL, **({} if "gradient_scale" in searched else {"gradient_scale": 2.0})}
        return found

    def unsearched(
        self, parameters: type[Any], typed: Mapping[str, Value], searched: Collection[str]
    ) -> dict[str, Any]:
        """Use 1 as the default of layer-wise learning-rate factors, because they are off by default."""
        plain = {name: value for name, value in typed.items() if name != "use_llrd"}
        return {**super().unsearched(parameters, plain, searched), **{name: 1.0 for name in searched if name in LLRD}}

    def telling(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Leave out the switches that a preset stands for, and parameters of switches that are off."""
        off = [name for name in SWITCHES if str(config.get(name)) == str(PRESETS["v1"][name])]  # MLflow has texts
        implied = SWITCHES if config.get("preset") in PRESETS else off
        return {key: value for key, value in super().telling(config).items() if key not in implied}

    def processes(self, config: TrainEEGConfig) -> int:
        return config.nproc


def _check(training: TrainEEGConfig) -> None:
    full = training.resolved()
    full.check_memory()
    if not training.data_dir:
        if full.split == "time":  # for other splits it depends on what is held out
            full.check_batches(training.subjects * training.stimuli)
    elif not any(path.suffix == ".npy" for path in typed_folder(training.data_dir).iterdir()):
        got = f"data_dir={training.data_dir} (no files in the split_data layout)"
        raise Refusal(got, LAYOUT, "prepare recordings with prepare_eeg, or leave data_dir empty for simulated ones")
