"""What the command line and the file system decide of any entry point, before torch or MLflow is loaded."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nfa.errors import SHOWN, Refusal
from nfa.registry.analyses.config import StoredRunsConfig
from nfa.registry.datasets.catalog import locate, typed_folder
from nfa.registry.families.eeg.config import AblateEEGConfig, TrainEEGConfig
from nfa.registry.families.language.base.known_layers import OUTPUT, known_layers
from nfa.registry.families.language.base.names import place
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.language.experiment.config import LoraExperimentConfig
from nfa.registry.families.language.fitting import Sides, check_rank, fitting, trained
from nfa.registry.families.language.question_files import existing, is_file_name
from nfa.registry.families.language.teacher.config import LoraSvdConfig
from nfa.registry.families.mlp import sizes
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.machine import check_memory
from nfa.registry.sweeps.config import STORAGES, TuneConfig

COUNTS = "check its name; a relative one counts from where the command is typed"
LAYOUT = "pairs {train|val|test}_-_SUBJECT_-_STIMULUS_-_{eeg|envelope}.npy"
SQLITE = "sqlite:///"
FLOAT = 4  # bytes
Training = TrainConfig | TrainEEGConfig | TrainLoraConfig


def check(config: Any) -> None:
    """`Refusal` for folders, files, layers and sizes that `config` names and that cannot be used.

    Nothing is made or changed, and what a run that is continued has stored is not known here.
    """
    try:
        _check(config)
    except OSError as error:  # a name that is too long, a folder that may not be entered
        got = f"{str(error.filename)[:SHOWN]} ({error.strerror})"
        raise Refusal(got, "files and folders that can be looked at", COUNTS) from None


def _check(config: Any) -> None:
    for name, look in FOLDERS.items():
        if text := getattr(config, name, ""):
            look(name, text)
    if isinstance(config, StoredRunsConfig) and config.data_dir:
        _is_folder("data_dir", config.data_dir)
    if isinstance(config, LoraSvdConfig):
        _check_factors(config)
    if not getattr(config, "resume", ""):
        _check_trainings(_trainings(config))


def _trainings(config: Any) -> Sequence[Training]:
    """Every training that it may start, with one seed."""
    if isinstance(config, TuneConfig):
        return config.candidates
    if isinstance(config, LoraExperimentConfig):
        return config.trainings()
    if isinstance(config, AblateEEGConfig):
        return [config.training(settings, seed=0) for settings in config.arms().values()]
    return [config] if isinstance(config, TrainConfig | TrainEEGConfig | TrainLoraConfig) else []


def _check_trainings(trainings: Sequence[Training]) -> None:
    """Their sizes, and their folders and files, each read once."""
    images = [one for one in trainings if isinstance(one, TrainConfig)]
    decoders = [one for one in trainings if isinstance(one, TrainEEGConfig)]
    tuned = [one for one in trainings if isinstance(one, TrainLoraConfig)]
    for dataset, folder in {(one.dataset, one.data_dir) for one in images if one.data_dir}:
        locate(dataset, folder)
    for folder in {*(one.data_dir for one in images), *(one.data_dir for one in decoders)} - {""}:
        _is_folder("data_dir", folder)
    for image in images:
        sizes.check_sizes(image, *sizes.PUBLISHED[image.dataset])
    for decoder in decoders:
        _of_decoder(decoder)
    for name, file in {(name, getattr(one, name)) for one in tuned for name in ("data", "val_data")}:
        if is_file_name(file):
            existing(typed_folder(file), f"{name}={file}")
    layers = {name: known_layers(name) for name in {one.base_model for one in tuned}}
    for one in tuned:
        _check_layers(one, layers[one.base_model])


def _of_decoder(training: TrainEEGConfig) -> None:
    full = training.resolved()
    said = f"d_model={full.d_model} d_inner={full.d_inner} n_layers={full.n_layers}"
    check_memory(full.about_parameters, said, "a smaller width or fewer blocks")
    if not training.data_dir:
        if full.split == "time":  # of the others, it depends on what is held out
            full.check_batches(training.subjects * training.stimuli)
    elif not any(path.suffix == ".npy" for path in typed_folder(training.data_dir).iterdir()):
        got = f"data_dir={training.data_dir} (no files of the layout)"
        raise Refusal(got, LAYOUT, "prepare_eeg makes them of recordings; empty = simulated ones")


def _check_layers(config: TrainLoraConfig, layers: Sides | None) -> None:
    """Targets, rank and memory of a fine-tuning; nothing is known of a base model without `layers`."""
    if layers is None:
        return
    found = fitting([*layers, OUTPUT], config.target_list)
    sides = {name: layers[name] for name in found if name in layers}
    check_rank(config, sides)
    check_memory(
        trained(config, sides),
        f"rank={config.rank} for {len(sides)} modules of base_model={config.base_model}",
        "a smaller rank, fewer targets, or a smaller base model",
        more=FLOAT * sum(o * i for o, i in layers.values()),
    )


def _check_factors(config: LoraSvdConfig) -> None:
    """A teacher's targets, which have to be in both models, and a rank that they have."""
    for layers in map(known_layers, filter(None, (config.teacher, config.base_model))):
        if not config.teacher or layers is None:
            continue
        sides = {name: layers[name] for name in fitting([*layers, OUTPUT], config.target_list) if name in layers}
        most, module = min(((min(shape), name) for name, shape in sides.items()), default=(config.rank, ""))
        if config.rank > most:
            got = f"rank={config.rank} for {module}, whose update has rank {most} at most"
            raise Refusal(got, f"1 to {most}: further directions would be zero and learn nothing", f"rank={most}")


def _is_folder(name: str, text: str) -> None:
    folder = typed_folder(text)
    if not folder.is_dir():
        trouble = "is no folder" if folder.exists() else "does not exist"
        raise Refusal(f"{name}={text} ({folder.absolute()} {trouble})", "a folder with the data", COUNTS)


def _is_writable(name: str, text: str) -> None:
    """The folder, or the nearest one above it that exists."""
    folder = typed_folder(text).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        trouble = "cannot be written" if there.is_dir() else "is no folder"
        raise Refusal(f"{name}={text} ({there} {trouble})", "a folder that can be written", "give another folder")


def _is_model(name: str, text: str) -> None:
    place(text, name)


def _is_database(name: str, text: str) -> None:
    """The folder of an SQLite file; what a server says is known later."""
    if text.startswith(SQLITE):
        folder = Path(text.removeprefix(SQLITE).partition("?")[0]).absolute().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise Refusal(f"{name}={text} (no database file can be made in {folder})", STORAGES, f"make {folder}")


FOLDERS: Mapping[str, Callable[[str, str], None]] = {
    "output_dir": _is_writable,
    "storage": _is_database,
    "teacher": _is_model,
    "base_model": _is_model,
}
