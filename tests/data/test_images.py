"""Readers of the published formats, on tiny files written by hand."""

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from nfa.errors import Refusal
from nfa.registry.datasets import image_files, images

RANDOM, BYTES = np.random.default_rng(0), np.arange(9, dtype=np.uint8)


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(">HBB", 0, kind, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def gz(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content))
    return path


def fashion(folder: Path, n: int = 4) -> tuple[dict[str, Path], dict[str, np.ndarray]]:
    arrays = {}
    for split, count in (("train", n), ("test", 2)):
        arrays[f"{split}_images"] = RANDOM.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8)
    return {role: gz(folder / role, idx(array)) for role, array in arrays.items()}, arrays


def test_an_idx_file_is_read_byte_by_byte(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert np.array_equal(images.read_idx(gz(tmp_path / "a.gz", idx(array))), array)


@pytest.mark.parametrize(
    "content",
    [idx(BYTES, kind=13), b"\x01" + idx(BYTES)[1:], idx(BYTES)[:-1], b"\0"],
    ids=["floats", "wrong magic", "too short", "no header"],
)
def test_an_idx_file_of_another_kind_or_length_is_refused(tmp_path, content):
    files, _ = fashion(tmp_path)
    gz(files["test_labels"], content)
    with pytest.raises(Refusal, match=r"(?s)fashion-mnist: unreadable files.*download them again: .*test_labels"):
        images.load("fashion-mnist", files)


@pytest.mark.parametrize("keep", [0, 5, -9], ids=["empty", "cut in the header", "cut at the end"])
def test_a_cut_off_gzip_file_is_refused(tmp_path, keep):
    files, _ = fashion(tmp_path)
    whole = files["train_images"].read_bytes()
    files["train_images"].write_bytes(whole[:keep])
    with pytest.raises(Refusal, match="fashion-mnist: unreadable files"):
        images.load("fashion-mnist", files)


def test_fashion_mnist_is_flattened_row_by_row(tmp_path):
    files, arrays = fashion(tmp_path)
    data = images.load("fashion-mnist", files)
    assert (data.name, data.scale, data.features, data.classes) == ("fashion-mnist", 255.0, 784, 4)
    assert np.array_equal(data.train_images[3].reshape(28, 28), arrays["train_images"][3])
    assert np.array_equal(data.test_labels, arrays["test_labels"])
    assert data.train_labels.dtype == np.int64


def test_svhn_is_read_channel_by_channel_and_label_10_is_the_digit_0(tmp_path):
    files = {}
    for split, labels in (("train", [1, 10, 9]), ("test", [10])):
        X = RANDOM.integers(0, 256, (32, 32, 3, len(labels)), dtype=np.uint8)
        savemat(tmp_path / f"{split}.mat", {"X": X, "y": np.array(labels)[:, None]})
        files[split] = tmp_path / f"{split}.mat"
    data = images.load("svhn", files)
    assert data.train_labels.tolist() == [1, 0, 9]
    assert data.test_labels.tolist() == [0]
    assert data.test_images.shape == (1, 3072)
    for channel, row, column in [(0, 0, 0), (2, 5, 7), (1, 31, 30)]:
        assert data.test_images[0, channel * 1024 + row * 32 + column] == X[row, column, channel, 0]


def test_cifar10_is_read_from_its_archive_in_the_order_of_its_batches(tmp_path):
    batches = {f"data_batch_{number}.bin": RANDOM.integers(0, 256, (2, 3073), dtype=np.uint8) for number in range(1, 6)}
    batches["test_batch.bin"] = RANDOM.integers(0, 256, (3, 3073), dtype=np.uint8)
    for number, rows in enumerate(batches.values()):
        rows[:, 0] = number
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for name in reversed(batches):
            item = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            item.size = batches[name].size
            archive.addfile(item, io.BytesIO(batches[name].tobytes()))
    data = images.load("cifar10", {"archive": tmp_path / "a.tar.gz"})
    assert data.train_labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert data.test_labels.tolist() == [5, 5, 5]
    assert np.array_equal(data.train_images[2], batches["data_batch_2.bin"][0, 1:])
    assert np.array_equal(data.test_images, batches["test_batch.bin"][:, 1:])


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_an_archive_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(Refusal, match="cifar10: unreadable files"):
        images.load("cifar10", {"archive": tmp_path / "a.tar.gz"})


def test_an_archive_without_a_batch_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz"):
        pass
    with pytest.raises(Refusal, match=r"cifar10: unreadable files.*data_batch_1.bin"):
        images.load("cifar10", {"archive": tmp_path / "a.tar.gz"})


@pytest.mark.parametrize("content", [b"not a matrix" * 50])
def test_a_matlab_file_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(Refusal, match="svhn: unreadable files"):
        images.load("svhn", {"train": tmp_path / "a.mat", "test": tmp_path / "a.mat"})


def test_digits_are_those_of_scikit_learn_to_the_bit_in_its_order():
    from sklearn.datasets import load_digits

    data, published = images.load("digits", image_files.locate("digits")), load_digits()
    read = np.concatenate([data.train_images, data.test_images]).astype(np.float64)
    assert read.tobytes() == published.data.tobytes()
    assert np.concatenate([data.train_labels, data.test_labels]).tobytes() == published.target.tobytes()
    assert (data.features, data.classes, data.scale) == (64, 10, 16.0)
    assert data.train_images.max() == 16


def test_the_digest_is_that_of_the_content_not_of_the_place(tmp_path):
    (tmp_path / "one").mkdir()
    files, _ = fashion(tmp_path / "one")
    moved = {role: path.rename(tmp_path / role) for role, path in files.items()}
    data = images.load("fashion-mnist", moved)
    digest = data.digest()
    assert images.load("fashion-mnist", moved).digest() == digest
    assert data.train_images.flags.writeable is False
    changed = np.array(data.train_images)
    changed[0, 0] ^= 1
    assert images.ImageData(**{**vars(data), "train_images": changed}).digest() != digest
    labels = data.test_labels[::-1]
    assert images.ImageData(**{**vars(data), "test_labels": labels}).digest() != digest


def test_the_installed_fashion_mnist_is_whole():
    folder = Path(image_files.SOURCES["fashion-mnist"].folders[0])
    if not folder.is_dir():
        pytest.skip(f"{folder} is not installed")
    data = images.load("fashion-mnist", image_files.locate("fashion-mnist"))
    assert data.train_images.shape == (60_000, 784)
    assert data.test_images.shape == (10_000, 784)
    assert np.bincount(data.train_labels).tolist() == [6_000] * 10
    assert np.bincount(data.test_labels).tolist() == [1_000] * 10
    assert data.train_labels[:5].tolist() == [9, 0, 0, 3, 0]
