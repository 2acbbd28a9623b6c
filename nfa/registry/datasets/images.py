"""Image classification datasets as arrays, read from their published files."""

import gzip
import hashlib
import struct
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nfa.errors import reading

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
CIFAR_ROW = 1 + 3072


@dataclass(frozen=True)
class ImageData:
    """Raw images [n, features] (flattened) and labels [n] in published order; a pixel is raw / `scale`."""

    name: str
    scale: float
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels

    @property
    def classes(self) -> int:
        return int(self.train_labels.max() + 1)

    @property
    def features(self) -> int:
        return int(self.train_images.shape[1])

    def digest(self) -> str:
        """SHA-256 over all images and labels, independent of where the files lie."""
        content = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            content.update(np.ascontiguousarray(array).data)
        return content.hexdigest()


def load(dataset: str, files: Mapping[str, Path]) -> ImageData:
    """Read a dataset from the files that `image_files.locate` found; raise `Refusal` if they cannot be read."""
    places = ", ".join(str(path) for path in files.values())
    with reading(f"{dataset}: unreadable files", "the published files", f"download them again: {places}"):
        return _READERS[dataset](files)


def _digits(files: Mapping[str, Path]) -> ImageData:
    """Read rows of pixels followed by a label."""
    table = np.loadtxt(files["table"], np.uint8, delimiter=",", ndmin=2)
    images, labels = np.ascontiguousarray(table[:, :-1]), table[:, -1].astype(np.int64)
    return ImageData("digits", 16.0, images[:1437], labels[:1437], images[1437:], labels[1437:])


def _fashion_mnist(files: Mapping[str, Path]) -> ImageData:
    arrays = {role: read_idx(path) for role, path in files.items()}
    return ImageData(
        "fashion-mnist",
        255.0,
        arrays["train_images"].reshape(len(arrays["train_images"]), -1),
        arrays["train_labels"].astype(np.int64),
        arrays["test_images"].reshape(len(arrays["test_images"]), -1),
        arrays["test_labels"].astype(np.int64),
    )


def read_idx(path: Path) -> Images:
    """Read a gzipped IDX file of unsigned bytes: two zeros, type 8, number of axes, big-endian lengths, then bytes."""
    with gzip.open(path) as file:
        content = file.read()
    zero, kind, axes = struct.unpack_from(">HBB", content)
    if (zero, kind) != (0, 8):
        raise ValueError(f"{path.name} is not an IDX file of unsigned bytes")
    shape = struct.unpack_from(f">{axes}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _svhn(files: Mapping[str, Path]) -> ImageData:
    train, test = (read_svhn(files[split]) for split in ("train", "test"))
    return ImageData("svhn", 255.0, *train, *test)


def read_svhn(path: Path) -> tuple[Images, Labels]:
    """Read a MATLAB file (X [32 32 3 n], y [n 1]) as images [n, channel·row·column]; label 10 (digit 0) becomes 0."""
    from scipy.io import loadmat

    content = loadmat(path)
    images = np.ascontiguousarray(content["X"].transpose(3, 2, 0, 1)).reshape(content["X"].shape[3], -1)
    return images, content["y"].reshape(-1).astype(np.int64) % 10


def _cifar10(files: Mapping[str, Path]) -> ImageData:
    with tarfile.open(files["archive"]) as archive:
        parts = {Path(item.name).name: item for item in archive if item.name.endswith(".bin")}
        names = [f"data_batch_{number}.bin" for number in range(1, 6)]
        train = read_cifar10(b"".join(_member(archive, parts[name]) for name in names))
        test = read_cifar10(_member(archive, parts["test_batch.bin"]))
    return ImageData("cifar10", 255.0, *train, *test)


def read_cifar10(content: bytes) -> tuple[Images, Labels]:
    """Read rows of one label byte and 3072 pixel bytes (channel, row, column)."""
    rows = np.frombuffer(content, np.uint8).reshape(-1, CIFAR_ROW)
    return np.ascontiguousarray(rows[:, 1:]), rows[:, 0].astype(np.int64)


def _member(archive: tarfile.TarFile, item: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(item)
    if file is None:
        raise ValueError(f"{item.name} is not a file")
    return file.read()


_READERS: dict[str, Callable[[Mapping[str, Path]], ImageData]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "svhn": _svhn,
    "cifar10": _cifar10,
}
