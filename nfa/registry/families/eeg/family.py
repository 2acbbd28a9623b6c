"""Conformers that decode a speech envelope from EEG, as a family."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from nfa.errors import Refusal
from nfa.registry.families.eeg.config import PRESETS, SWITCHES, TrainEEGConfig
from nfa.registry.families.protocol import EntryPoint, Family, Ids, Quality, Ready, Remedy, Score, Value
from nfa.registry.folders import check_folder, typed_folder
from nfa.registry.machine import check_memory

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nfa.parallel import World
    from nfa.registry.families.eeg.data import EEGData
    from nfa.registry.families.eeg.session import DecoderSession
    from nfa.registry.families.eeg.workload import EEGDecoder
    from nfa.registry.stopwatch import Stopwatch
    from nfa.registry.tracking import TrackedRun

HERE = "nfa.registry.families.eeg"
LAYOUT = "pairs {train|val|test}_-_SUBJECT_-_STIMULUS_-_{eeg|envelope}.npy"
SCORES = ("loss", "loss_mse", "loss_pearson", "pearson")
LLRD = ("llrd_front", "llrd_back", "llrd_output")
FULL: dict[str, Value] = {"preset": "custom", "use_residual": True, "use_gated_residual": True, "use_mlp_head": True}


class Decoders(Family):
    """Conformers on recordings of EEG, simulated or real."""

    name, entrypoint, config = "eeg", "train_eeg", TrainEEGConfig
    entry_points: ClassVar[Mapping[str, EntryPoint]] = {
        "train_eeg": EntryPoint(
            f"{HERE}.config:TrainEEGConfig", "nfa.registry.training.start:train", "nfa.registry.families.registry:look"
        ),
        "prepare_eeg": EntryPoint(
            f"{HERE}.preparation.config:PrepareEEGConfig",
            f"{HERE}.preparation.prepare_eeg:prepare_eeg",
            f"{HERE}.preparation.recordings:chosen",
        ),
        "ablate_eeg": EntryPoint(f"{HERE}.config:AblateEEGConfig", f"{HERE}.ablation:ablate_eeg"),
    }
    data = ("data_dir", "subjects", "stimuli", "seconds", "channels", "snr_db", "data_seed", "split", "unseen")
    objective = "val/pearson"
    quality = Quality(objective, "validation Pearson's r", hoped=0.3)
    space = (
        "lr=log:3e-4:3e-2,gradient_scale=1:4,llrd_front=log:0.25:4,llrd_back=log:0.25:4,llrd_output=log:0.25:4,"
        "dropout=0:0.5"
    )
    remedy = Remedy("gradient_scale", felt=1.5)

    def metric_keys(self, config: TrainEEGConfig) -> list[str]:
        config = config.resolved()
        scores = [f"{split}/{score}" for split in ("train", "val", "test") for score in SCORES]
        windows = [f"{split}/undefined_windows" for split in ("val", "test")]
        baselines = [f"{split}/baseline_pearson" for split in ("val", "test")]
        optional = {"se": config.use_se, "subject": config.use_subjects, "gate": config.use_gated_residual}
        blocks = [f"block_{index}" for index in range(int(config.n_layers))]
        groups = ["cnn", *[name for name, there in optional.items() if there], *blocks, "head"]
        moved = [f"flow/{group}/update_ratio" for group in groups]
        return [*scores, *windows, *baselines, "flow/grad_norm", *moved]

    def check(self, trainings: Sequence[TrainEEGConfig]) -> None:
        for folder in {one.data_dir for one in trainings} - {""}:
            check_folder("data_dir", folder)
        for one in trainings:
            _check(one)

    def needed(self, typed: Mapping[str, Value], searched: Collection[str]) -> dict[str, Value]:
        """Learning rates by layer switched on, and all switches where some are searched."""
        found: dict[str, Value] = {"use_llrd": True} if {*LLRD} & {*searched} else {}
        if {*SWITCHES} & {*searched} and "preset" not in typed:
            found |= {**FULL, **({} if "gradient_scale" in searched else {"gradient_scale": 2.0})}
        return found

    def unsearched(self, typed: Mapping[str, Value], searched: Collection[str]) -> dict[str, Any]:
        """Without learning rates by layer, whose factors are 1 then."""
        plain = {name: value for name, value in typed.items() if name != "use_llrd"}
        return {**super().unsearched(plain, searched), **{name: 1.0 for name in searched if name in LLRD}}

    def telling(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A preset stands for its switches, and switches that are off say nothing."""
        preset, off = config.get("preset"), PRESETS["v1"]
        implied = SWITCHES if preset in PRESETS else [name for name in SWITCHES if config.get(name) == off[name]]
        return {key: value for key, value in super().telling(config).items() if key not in implied}

    def processes(self, config: TrainEEGConfig) -> int:
        return config.nproc

    def read(self, config: TrainEEGConfig, clock: "Stopwatch", found: Any = None) -> "EEGData":  # noqa: ARG002
        from nfa.registry.families.eeg.workload import read

        with clock.section("data"):
            return read(config)

    def prepare(
        self, config: TrainEEGConfig, data: "EEGData", run: "TrackedRun | None" = None, ids: Ids | None = None
    ) -> Ready:
        from nfa.registry.families.eeg.session import prepare

        return prepare(config, data, run, ids)

    def lines(self, ready: Ready) -> Iterator[tuple[str, str]]:
        from nfa.registry.families.eeg.session import described

        return described(ready.data, ready.config)

    def stored(self, config: TrainEEGConfig, ready: Ready) -> dict[str, Any]:
        from nfa.registry.families.eeg.session import stored_config

        return stored_config(config, ready.data)

    def session(self, run: "TrackedRun", ready: Ready, clock: "Stopwatch", world: "World") -> "DecoderSession":
        from nfa.registry.families.eeg.session import DecoderSession

        return DecoderSession(run, ready, clock, world)

    def assist(self, config: TrainEEGConfig, told: Any, world: "World") -> None:
        from nfa.registry.families.eeg.session import assist

        assist(config, told, world)

    def rebuild(
        self,
        stored: Mapping[str, Any],
        ids: Ids,
        *,
        device: "torch.device",
        data_dir: str | None,
        tensors: Callable[[str], Mapping[str, "Tensor"]],  # noqa: ARG002 - all is in config.json
    ) -> "EEGDecoder":
        from nfa.registry.families.eeg.workload import rebuild

        return rebuild(stored, ids, device, data_dir)

    @property
    def score(self) -> Score:
        from nfa.registry.families.eeg.report import tested

        return Score("pearson", "Pearson's r", "r", "recording", tested)


def _check(training: TrainEEGConfig) -> None:
    full = training.resolved()
    said = f"d_model={full.d_model} d_inner={full.d_inner} n_layers={full.n_layers}"
    check_memory(full.about_parameters, said, "a smaller width or fewer blocks")
    if not training.data_dir:
        if full.split == "time":  # of the others, it depends on what is held out
            full.check_batches(training.subjects * training.stimuli)
    elif not any(path.suffix == ".npy" for path in typed_folder(training.data_dir).iterdir()):
        got = f"data_dir={training.data_dir} (no files of the layout)"
        raise Refusal(got, LAYOUT, "prepare_eeg makes them of recordings; empty = simulated ones")
