"""Files of recordings are examined once, windows are read when they are asked for, and nothing stays in memory."""

import hashlib
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from nfa import content
from nfa.registry import folders
from nfa.registry.families.eeg import data as eeg
from nfa.registry.families.eeg import recording_files
from nfa.seeding import generator
from tests.support.prepared_recordings import save, signals, small, stem, write

WINDOW = 32


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("NFA_CACHE", str(place))
    return place


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Names of the files that are examined from now on."""
    names: list[str] = []
    examine = recording_files.examine

    def noted(path: Path) -> recording_files.Facts:
        names.append(path.name)
        return examine(path)

    monkeypatch.setattr(recording_files, "examine", noted)
    return names


def test_a_file_is_examined_once_and_again_only_when_it_has_changed(tmp_path, read):
    written = write(tmp_path, small())
    first = eeg.load(tmp_path, window=WINDOW)
    assert sorted(read) == sorted(path.name for path in tmp_path.iterdir())
    read.clear()
    assert eeg.load(tmp_path, window=10).digest() == first.digest()
    assert eeg.load(tmp_path, window=WINDOW).facts == first.facts
    assert read == []
    changed = tmp_path / f"{stem('train')}_-_eeg.npy"
    np.save(changed, 2 * written[stem("train")][0])
    os.utime(changed, ns=(0, changed.stat().st_mtime_ns + 1))
    assert eeg.load(tmp_path, window=WINDOW).digest() != first.digest()
    assert read == [changed.name]


def test_a_file_of_the_same_time_and_another_size_is_examined_again(tmp_path, read):
    write(tmp_path, small())
    eeg.load(tmp_path, window=WINDOW)
    read.clear()
    times = (tmp_path / f"{stem('val')}_-_eeg.npy").stat().st_mtime_ns
    save(tmp_path, stem("val"), *signals(np.random.default_rng(1), 50, 3))
    for kind in ("eeg", "envelope"):
        os.utime(tmp_path / f"{stem('val')}_-_{kind}.npy", ns=(times, times))
    assert eeg.load(tmp_path, window=WINDOW).of("val")[0].samples == 50
    assert sorted(read) == [f"{stem('val')}_-_{kind}.npy" for kind in ("eeg", "envelope")]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\n{}", "cut", "other"])
def test_a_damaged_record_is_ignored_and_replaced(tmp_path, own_cache, read, content):
    write(tmp_path, small())
    digest = eeg.load(tmp_path, window=WINDOW).digest()
    (record,) = (own_cache / "eeg").iterdir()
    whole = record.read_bytes()
    damaged = {"cut": whole[:-20], "other": whole.replace(b'"samples": 3', b'"samples": 4', 1)}
    record.write_bytes(content if isinstance(content, bytes) else damaged[content])
    read.clear()
    assert eeg.load(tmp_path, window=WINDOW).digest() == digest
    assert len(read) == 24
    assert list((own_cache / "eeg").iterdir()) == [record]
    assert record.read_bytes() == whole


def test_without_a_place_for_the_record_data_are_read_all_the_same(tmp_path, monkeypatch):
    write(tmp_path / "set", small())
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("NFA_CACHE", str(tmp_path / "file"))
    assert folders.cache_folder("eeg").parent.is_file()
    assert eeg.load(tmp_path / "set", window=WINDOW).channels == 3


def test_other_files_in_the_folder_are_nobodys_business(tmp_path):
    write(tmp_path, small())
    for name in ("README.md", "train_-_sub-001_-_story-1_-_mel.npy", "notes_eeg.npy", "._train_-_a_-_b_-_eeg.npy"):
        (tmp_path / name).write_text("?")
    assert len(eeg.load(tmp_path, window=WINDOW).parts) == 12


# ---- memory


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_memory_does_not_grow_with_what_is_read(tmp_path):
    """200 windows of 256 MB in a file that is sparse but for one row, examined first."""
    samples, channels, window = 1_000_000, 64, 640
    write(tmp_path, {("val", 1, 1): 1000, ("test", 1, 1): 1000}, channels)
    for kind, width in (("eeg", channels), ("envelope", 1)):
        path = tmp_path / f"{stem('train')}_-_{kind}.npy"
        np.lib.format.open_memmap(path, "w+", np.float32, (samples, width))[samples // 2] = 1 + np.arange(width)
    before = resident()
    data = eeg.load(tmp_path, window=window)
    random = generator(0, "order/1")
    for _ in range(10):
        for ids in data.draw(window, 20, random).split(10):
            data.windows(ids, window)
    assert resident() - before < 30e6


def test_no_file_stays_open(tmp_path):
    write(tmp_path, small())
    before = len(list(Path("/proc/self/fd").iterdir()))
    data = eeg.load(tmp_path, window=WINDOW)
    kept = [data.windows(data.ids(split, WINDOW), WINDOW) for split in eeg.SPLITS]
    assert len(kept) == 3
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_a_digest_behind_the_values_is_no_part_of_what_a_file_holds(tmp_path):
    values = np.random.default_rng(0).normal(size=(30, 2))
    np.save(tmp_path / "plain.npy", values)
    content.write_array(tmp_path / "sealed.npy", values)
    plain, sealed = (recording_files.examine(tmp_path / f"{name}.npy") for name in ("plain", "sealed"))
    assert plain.sha256 == sealed.sha256 == hashlib.sha256((tmp_path / "plain.npy").read_bytes()).hexdigest()
