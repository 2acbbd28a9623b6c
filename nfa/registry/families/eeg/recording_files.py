"""One npy file of a recording: cached facts about its content, and reading of single rows."""

import hashlib
import mmap
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfa.console import bar
from nfa.content import digest_of, mapped_array
from nfa.errors import reason
from nfa.registry import folders
from nfa.registry.families.eeg.scales import Scale
from nfa.registry.remembered import keep, recalled

CHUNK_BYTES = 2**22
Statistics = tuple[float, ...]


@dataclass(frozen=True)
class Facts:
    """Facts about a file of [samples, channels]; `fault` is the reason if it cannot be used, else empty.

    `mean` and `std` (ddof 0) are of each channel over all samples. `size` (bytes) and `mtime_ns` are the file's when
    it was examined.
    """

    size: int
    mtime_ns: int
    fault: str = ""
    sha256: str = ""
    samples: int = 0
    channels: int = 0
    dtype: str = ""
    order: str = "C"
    offset: int = 0
    mean: Statistics = ()
    std: Statistics = ()

    def scale(self) -> Scale:
        """Mean and deviation of the whole file."""
        return Scale(self.samples, np.array(self.mean), np.array(self.std))


def rows(path: Path, facts: Facts, *spans: tuple[int, int]) -> list[NDArray[np.float64]]:
    """Copies of a file's rows [start, stop) for each span; the file is mapped into memory only meanwhile."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    shape = (facts.samples, facts.channels)
    mapped = np.ndarray(shape, facts.dtype, content, facts.offset, order="F" if facts.order == "F" else "C")
    with np.errstate(invalid="ignore"):  # NaNs of the kind that signals: what is not finite is found elsewhere
        return [mapped[start:stop].astype(np.float64, order="C") for start, stop in spans]


def examine(path: Path) -> Facts:
    """Read a file from end to end, in pieces; `OSError` where it cannot be read."""
    state = path.stat()
    facts = _header(path, state)
    if facts.fault:
        return facts
    return _measured(path, replace(facts, sha256=_sha256(path, facts)))


def _sha256(path: Path, facts: Facts) -> str:
    """Return the SHA-256 of the header and the values, without trailing bytes."""
    left = facts.offset + facts.samples * facts.channels * np.dtype(facts.dtype).itemsize
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(min(CHUNK_BYTES, left)):
            hashed.update(piece)
            left -= len(piece)
    return hashed.hexdigest()


def _header(path: Path, state: os.stat_result) -> Facts:
    try:
        array, stated = mapped_array(path)
        fault = _kind(array) or _differs(array, stated)
    except OSError:
        raise
    except Exception as error:  # damaged bytes raise anything
        return Facts(state.st_size, state.st_mtime_ns, f"not a complete npy file of numbers ({reason(error)[:80]})")
    if fault:
        return Facts(state.st_size, state.st_mtime_ns, fault)
    return Facts(
        state.st_size,
        state.st_mtime_ns,
        samples=array.shape[0],
        channels=array.shape[1],
        dtype=array.dtype.str,
        order="C" if array.flags.c_contiguous else "F",
        offset=array.offset,
    )


def _kind(array: NDArray[np.generic]) -> str:
    if array.dtype.kind != "f" or array.dtype.itemsize not in (2, 4, 8):
        return f"dtype {array.dtype}; float16, float32 or float64 expected"
    if array.ndim != 2 or not array.shape[1]:
        return f"shape {list(array.shape)}; [samples, channels] expected"
    return ""


def _differs(array: NDArray[np.generic], stated: str | None) -> str:
    return "damaged: its content does not match its digest" if stated not in (None, digest_of(array)) else ""


def _measured(path: Path, facts: Facts) -> Facts:
    mean, squares = np.zeros(facts.channels), np.zeros(facts.channels)
    least, most = np.full(facts.channels, np.inf), np.full(facts.channels, -np.inf)
    step = max(1, CHUNK_BYTES // (8 * facts.channels))
    for start in range(0, facts.samples, step):
        stop = min(start + step, facts.samples)
        block = rows(path, facts, (start, stop))[0]
        if not np.isfinite(block).all():
            return Facts(facts.size, facts.mtime_ns, _not_finite(block, start))
        mean, squares = _joined(block, start, mean, squares)
        least, most = np.minimum(least, block.min(axis=0)), np.maximum(most, block.max(axis=0))
    std = np.where(least < most, np.sqrt(squares / max(1, facts.samples)), 0.0)
    return replace(facts, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def _joined(
    block: NDArray[np.float64], before: int, mean: NDArray[np.float64], squares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and summed squared deviation of `before` samples joined with a block's (Chan et al. 1983)."""
    after = before + len(block)
    with np.errstate(over="ignore", invalid="ignore"):
        own = block.mean(axis=0)
        change = own - mean
        squares = squares + np.square(block - own).sum(axis=0) + np.square(change) * (before * len(block) / after)
        return mean + change * (len(block) / after), squares


def _not_finite(block: NDArray[np.float64], start: int) -> str:
    sample, channel = (int(place) for place in np.argwhere(~np.isfinite(block))[0])
    value = "NaN" if np.isnan(block[sample, channel]) else "infinity"
    return f"{value}, first at sample {start + sample}, channel {channel} (counted from 0)"


# ---- what was found out is kept


def examined(folder: Path, paths: Iterable[Path]) -> dict[Path, Facts]:
    """Facts of files in a folder; only those that are new or have changed since the last time are read."""
    record = _record(folder)
    found: dict[Path, Facts] = {}
    known = recalled(record, _all_facts) or {}
    changed = [path for path in paths if not _unchanged(path, known.get(path.name), found)]
    for path in bar(changed, "checking", unit="file"):
        try:
            found[path] = known[path.name] = examine(path)
        except OSError as error:
            found[path] = Facts(0, 0, f"unreadable ({error.strerror or error})")
    if changed:
        keep(record, {path.name: asdict(known[path.name]) for path in found if path.name in known})
    return found


def _unchanged(path: Path, facts: Facts | None, found: dict[Path, Facts]) -> bool:
    try:
        state = path.stat()
    except OSError:
        return False
    if facts is None or (facts.size, facts.mtime_ns) != (state.st_size, state.st_mtime_ns):
        return False
    found[path] = facts
    return True


def _record(folder: Path) -> Path:
    place = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return folders.cache_folder("eeg") / f"checked-{place}.json"


def _all_facts(kept: Mapping[str, Any]) -> dict[str, Facts]:
    return {
        name: Facts(**{**entry, "mean": tuple(entry["mean"]), "std": tuple(entry["std"])})
        for name, entry in kept.items()
    }
