"""Checkpoint files of older programs: their epochs, what the file names state, and our names for the tensors.

Nothing here opens a file, and names are parsed before torch is loaded.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nfa import checkpoint_schedule
from nfa.errors import Refusal, reading
from nfa.registry.datasets import image_files
from nfa.registry.families.mlp.config import ACTIVATIONS, DATASETS, ImportConfig
from nfa.registry.folders import COUNTS, typed_folder
from nfa.registry.wrapped_names import innermost, is_count

if TYPE_CHECKING:
    from torch import Tensor

_EPOCH = r"model_epoch_(?P<epoch>[0-9]{1,7})"


def _words(separator: str) -> str:
    dataset, activation = "(?P<dataset>.+?)", "(?P<activation>.+?)"
    width, depth = (rf"(?P<{name}>[1-9][0-9]{{0,6}})" for name in ("width", "depth"))
    return separator.join((dataset, "width", width, "depth", depth, "act", activation))


# Tried in this order. The last pattern accepts any text before the extension, and parses it if it looks familiar.
_PATTERNS = [
    re.compile(pattern)
    for pattern in (
        rf"{_EPOCH}\.pth",
        rf"models/{_EPOCH}\.pth",
        rf"models/{_EPOCH}\.pt",
        rf"{_EPOCH}:{_words(':')}:nn\.pth",
        rf"models/{_EPOCH}:{_words(':')}:nn\.pth",
        rf"models/{_EPOCH}_(?:{_words('[:_]')}|.*)_nn\.pth",
    )
]
NAMES = (
    "[models/]model_epoch_E.pth, models/model_epoch_E.pt, "
    "[models/]model_epoch_E:DATASET:width:W:depth:D:act:A:nn.pth, models/model_epoch_E_…_nn.pth"
)
KEYS = "first.weight or first.0.weight, middle.0.1.weight …, last.1.weight (fc.1.weight), in order and without biases"
_CHOICES = {"dataset": DATASETS, "activation": ACTIVATIONS}
_OTHER_WORDS = {"fmnist": "fashion-mnist", "sin": "sine", "linear": "identity"}
_MIDDLE = re.compile(r"middle\.([0-9]{1,4})\.1\.weight")


class OldFile(NamedTuple):
    """A checkpoint file: its path inside the folder, and the words about the network in its name."""

    path: str
    words: Mapping[str, str]


class Sizes(NamedTuple):
    """The sizes of a network according to its matrices; `depth` counts hidden layers."""

    inputs: int
    width: int
    depth: int
    classes: int


def find(paths: Iterable[str]) -> dict[int, OldFile]:
    """Return the file of each epoch among paths relative to the folder; the first pattern that matches wins.

    >>> find(["models/model_epoch_3.pt", "model_epoch_3.pth", "model_epoch_4:svhn:width:8:depth:2:act:relu:nn.pth"])[3]
    OldFile(path='model_epoch_3.pth', words={})
    """
    paths = sorted(paths)
    files: dict[int, OldFile] = {}
    for pattern in _PATTERNS:
        new: dict[int, OldFile] = {}
        for match in filter(None, map(pattern.fullmatch, paths)):
            words = {name: text for name, text in match.groupdict().items() if text is not None}
            epoch, file = int(words.pop("epoch")), OldFile(match.string, words)
            if epoch not in files and epoch in new:
                got, allowed = f"{new[epoch].path} beside {file.path}", f"one file for epoch {epoch}"
                raise Refusal(got, allowed, "keep each network's files in a separate folder")
            new[epoch] = file
        files = new | files
    return dict(sorted(files.items()))


def choose(files: Mapping[int, OldFile], epochs: str, folder: str) -> dict[int, OldFile]:
    """Return the files of the epochs that `epochs` names; raise `Refusal` if there are none, or one is missing."""
    if not files:
        raise Refusal(f"folder={folder} (no checkpoint file in it)", NAMES, "choose a folder that holds such files")
    if epochs.strip() == "all":
        return dict(files)
    wanted = checkpoint_schedule.parse(epochs, max(files))
    missing = [str(epoch) for epoch in wanted if epoch not in files]
    if missing:
        existing = "epochs with a file: " + ", ".join(map(str, files))
        raise Refusal(f"epochs={epochs} (no file for {_some(missing)})", existing, "choose from these, or epochs=all")
    return {epoch: files[epoch] for epoch in wanted}


def _some(items: Sequence[str]) -> str:
    more = len(items) - 5
    return ", ".join(items[:5]) + (f" and {more} more" if more > 0 else "")


def complete(config: ImportConfig, files: Mapping[int, OldFile]) -> ImportConfig:
    """Return `config` completed by the file names; raise `Refusal` for contradictions, or if something is missing.

    Width and depth may stay 0, because the tensors tell them. Dataset and activation must be in the names or given.
    """
    given = {name: getattr(config, name) for name in ("dataset", "width", "depth", "activation")}
    said = {name: (value, f"parameter {name}") for name, value in given.items() if value}
    for file in files.values():
        for name, value in _facts(file).items():
            known, origin = said.setdefault(name, (value, file.path))
            if known != value:
                raise Refusal(
                    f"{name}={value} ({file.path}) beside {name}={known} ({origin})",
                    "names and parameters that agree",
                    f"correct or leave out {name}, or select one network's files, by a separate folder or by epochs",
                )
    missing = [name for name in _CHOICES if name not in said]
    if missing:
        got = f"{next(iter(files.values())).path}, whose name does not state {' and '.join(missing)}"
        allowed = "; ".join(f"{name}: {', '.join(_CHOICES[name])}" for name in missing)
        raise Refusal(got, allowed, "give " + ", ".join(f"{name}=…" for name in missing))
    return dataclasses.replace(config, **{name: value for name, (value, _) in said.items()})


def _facts(file: OldFile) -> dict[str, str | int]:
    return {
        name: _choice(name, text, file.path) if name in _CHOICES else int(text) for name, text in file.words.items()
    }


def _choice(name: str, text: str, path: str) -> str:
    """Return the allowed value that a word in a file name means; case and separators are ignored.

    >>> _choice("activation", "LeakyReLU", "x.pth"), _choice("dataset", "Fashion_MNIST", "x.pth")
    ('leaky_relu', 'fashion-mnist')
    """
    word = _letters(text)
    for choice in _CHOICES[name]:
        if _letters(choice) == word or _OTHER_WORDS.get(word) == choice:
            return choice
    got, allowed = f"{name} {text!r} in the name {path}", ", ".join(_CHOICES[name])
    raise Refusal(got, allowed, f"if it means one of these, rename the file to model_epoch_E.pth and give {name}=…")


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def rename(state: Mapping[str, "Tensor"], path: str) -> dict[str, "Tensor"]:
    """Return the weights under the names of our MLP, layer by layer, without the prefixes of wrapper modules.

    Raises `Refusal` for keys that do not belong to a bias-free MLP, and unless tensors are finite float32 matrices.
    """
    state = {key: tensor for key, tensor in state.items() if not is_count(key)}
    bare = {key: innermost(key) for key in state}
    depth = max((int(match[1]) + 2 for match in map(_MIDDLE.fullmatch, bare.values()) if match), default=1)
    layers: dict[int, Tensor] = {}
    for key, tensor in state.items():
        layer = _layer(bare[key], depth)
        if layer is None or layer in layers:
            why = "unknown" if layer is None else "a second one for the same layer"
            raise Refusal(f"{path}: key {key} ({why})", KEYS, "only bias-free MLPs can be imported")
        _check_matrix(key, tensor, path)
        layers[layer] = tensor
    missing = [_key(layer, depth) for layer in range(depth + 1) if layer not in layers]
    if missing:
        raise Refusal(f"{path} without {_some(missing)}", KEYS, "choose a file with every layer's weight")
    return {f"layers.{layer}.weight": layers[layer] for layer in range(depth + 1)}


def _layer(key: str, depth: int) -> int | None:
    if key in ("first.weight", "first.0.weight"):
        return 0
    if key in ("last.1.weight", "fc.1.weight"):
        return depth
    match = _MIDDLE.fullmatch(key)
    return int(match[1]) + 1 if match else None


def _key(layer: int, depth: int) -> str:
    return "first.weight" if layer == 0 else "last.1.weight" if layer == depth else f"middle.{layer - 1}.1.weight"


def _check_matrix(key: str, tensor: "Tensor", path: str) -> None:
    is_float32 = tensor.is_floating_point() and tensor.element_size() == 4
    is_dense = str(tensor.layout) == "torch.strided" and not tensor.is_meta
    if tensor.dim() != 2 or not is_float32 or not is_dense:
        kind = "" if is_dense else "without values, " if tensor.is_meta else f"{tensor.layout}, "
        got = f"{path}: {key} ({kind}{tensor.dtype}, shape {list(tensor.shape)})"
        allowed = "dense float32 matrices [out, in]"
        raise Refusal(got, allowed, "save it again in this form; weights are imported bit by bit, without conversion")
    if not bool(tensor.isfinite().all()):
        raise Refusal(f"{path}: {key} (not all values are finite)", "finite weights", "leave its epoch out with epochs")


def sizes(weights: Mapping[str, "Tensor"], path: str) -> Sizes:
    """Return the sizes of a network from its matrices, first to last; raise `Refusal` unless they form one MLP."""
    shapes = [list(weight.shape) for weight in weights.values()]
    (width, inputs), classes, depth = shapes[0], shapes[-1][0], len(shapes) - 1
    expected = [[width, inputs], *[[width, width]] * (depth - 1), [classes, width]]
    if shapes != expected:
        raise Refusal(f"{path}: shapes {shapes}", f"{expected} for this width and depth", "choose files of one MLP")
    return Sizes(inputs, width, depth, classes)


def agree(config: ImportConfig, found: Sizes, path: str) -> ImportConfig:
    """Return `config` with the tensors' width and depth; raise `Refusal` if other values were given or found before."""
    for name, value in (("width", found.width), ("depth", found.depth)):
        known = getattr(config, name)
        if known not in (0, value):
            raise Refusal(
                f"{path}: {name} {value} in its tensors",
                f"{name}={known}, as given, in a file name, or in the tensors of an earlier epoch",
                f"correct or leave out {name}, or select one network's files, by a separate folder or by epochs",
            )
    return dataclasses.replace(config, width=found.width, depth=found.depth)


class FoundFiles(NamedTuple):
    """What is imported: the complete parameters, the folder, its files by epoch, and the files of the data set."""

    config: ImportConfig
    folder: Path
    files: Mapping[int, OldFile]
    data: Mapping[str, Path]


def look(config: ImportConfig) -> FoundFiles:
    """Find the files and their data set without heavy imports; raise `Refusal` if one is missing."""
    folder = typed_folder(config.folder).resolve()
    files = choose(find(listed(folder)), config.epochs, config.folder)
    config = complete(config, files)
    return FoundFiles(config, folder, files, image_files.locate(config.dataset, config.data_dir))


def listed(folder: Path) -> list[str]:
    """Return relative paths of the files in a folder and in `models` inside it; raise `Refusal` if it is unreadable."""
    models = folder / "models"
    with reading(f"folder={folder}", "a readable folder of old checkpoint files", COUNTS):
        inside = [*folder.iterdir(), *(models.iterdir() if models.is_dir() else ())]
    return [path.relative_to(folder).as_posix() for path in inside if path.is_file()]
