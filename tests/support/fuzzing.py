"""Seeded changes of a file's bytes, of JSON and of tensors: what failing disks, broken copies and editors make."""

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nfa.errors import NfaError

COUNT = 500  # mutations of a format
SOME = 100  # of one that takes longer, in every run of the tests
BOTH = [SOME, pytest.param(COUNT, marks=pytest.mark.slow)]
OTHERS: tuple[Any, ...] = (None, True, -1, 3, 0.5, "", "text", [], [1], {}, {"a": 1}, [[2]], "NaN", 10**30)


def of_bytes(was: bytes, draw: random.Random) -> bytes:
    """Other bytes; half of the places are near the beginning, where formats keep what they say of themselves."""
    end = len(was) if draw.random() < 0.5 else min(len(was), 256)
    i, j = sorted(draw.randrange(end) for _ in range(2))
    few, noise = 1 + draw.randrange(8), draw.randbytes(1 + draw.randrange(8))
    made = {
        "bit flipped": was[:i] + bytes([was[i] ^ 1 << few - 1]) + was[i + 1 :],
        "bytes deleted": was[:i] + was[i + few :],
        "bytes inserted": was[:i] + noise + was[i:],
        "cut off": was[:i],
        "blocks swapped": was[:i] + was[j:] + was[i:j],
        "block doubled": was[:j] + was[i:j] + was[j:],
        "range zeroed": was[:i] + bytes(j - i) + was[j:],
    }
    return made[draw.choice(list(made))]


# ---- nested mappings and lists of numbers, names and tensors


def of_values(was: Any, draw: random.Random) -> Any:
    """A copy in which one entry is gone, added, of another type, or another one."""
    made = copy.deepcopy(was)
    holder = draw.choice(list(_holders(made)))
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    act = draw.choice(("delete", "add", "replace", "change"))
    if act == "add" or not keys:
        if isinstance(holder, dict):
            holder["another"] = draw.choice(OTHERS)
        else:
            holder.append(draw.choice(OTHERS))
        return made
    key = draw.choice(keys)
    if act == "delete":
        del holder[key]
    else:
        holder[key] = draw.choice(OTHERS) if act == "replace" else _changed(holder[key], draw)
    return made


def _holders(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _holders(inner)


def _changed(value: Any, draw: random.Random) -> Any:
    """Another value of the same type, where it has one."""
    if isinstance(value, torch.Tensor):
        return of_tensor(value, draw)
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + draw.choice((-1, 1, 10**6))
    if isinstance(value, str | list | tuple):
        parts: Any = value
        return parts[::-1] + parts[:1]
    return draw.choice(OTHERS)


def of_tensor(was: torch.Tensor, draw: random.Random) -> torch.Tensor:
    """Another shape, type or value."""
    other = torch.float16 if was.is_floating_point() else torch.int16
    acts: list[Callable[[], torch.Tensor]] = [
        lambda: was.reshape(-1, 1),
        lambda: was.T.contiguous() if was.dim() == 2 else was[None],
        lambda: was.to(other),
        lambda: was.reshape(-1)[:-1].clone(),
        lambda: was + 1,
    ]
    return draw.choice(acts)()


def of_tensors(was: dict[str, torch.Tensor], draw: random.Random) -> dict[str, torch.Tensor]:
    """Tensors by name of which one is missing, renamed, there twice, or another one."""
    made, name = dict(was), draw.choice(list(was))
    act = draw.choice(("drop", "rename", "copy", "change"))
    tensor = made.pop(name) if act in ("drop", "rename") else made[name]
    if act in ("rename", "copy"):
        made[name[::-1]] = tensor.clone()
    if act == "change":
        made[name] = of_tensor(tensor, draw)
    return made


# ---- what becomes of them


def outcomes(
    file: Path,
    made: Iterable[bytes],
    read: Callable[[Path], Any],
    accepted: Callable[[bytes, Any], object],
    named: str = "",
) -> Counter[str]:
    """How many files were refused, by an `NfaError` that names them (or what is `named`), and how many were read.

    What was read has to satisfy `accepted`. Whatever else comes out is let through.
    """
    found: Counter[str] = Counter()
    for content in made:
        file.unlink(missing_ok=True)  # file systems wait for the disk where one is written over
        file.write_bytes(content)
        said = ""
        try:
            got = read(file)
        except NfaError as refused:
            said = str(refused)
        found["refused" if said else "read"] += 1
        assert (named or file.name) in said if said else accepted(content, got), (content, said)
    return found
