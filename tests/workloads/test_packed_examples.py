"""Inputs of examples as tensors of a file: what is read back is what was put in, and what cannot be is left out."""

from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nfa.content import of_sealed, read_tensors, write_tensors
from nfa.workload import Batch
from nfa.workloads import packed_examples
from nfa.workloads.packed_examples import packed, unpacked

ROWS = torch.arange(6.0).view(3, 2)
Named = namedtuple("Named", "a b")


def batch(inputs: Any, present: Tensor | None = None) -> Batch:
    return Batch(inputs, torch.zeros(3), torch.tensor([7, 8, 9]), present)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return type(other) is dict and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and all(same(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "inputs",
    [
        ROWS,
        ROWS.long(),
        ROWS.bfloat16(),
        ROWS.t().contiguous().t(),
        {"input_ids": ROWS.long(), "attention_mask": ROWS > 1},
        [ROWS, ROWS],
        (ROWS, {"again": ROWS, "deep": [ROWS.double(), (ROWS,)]}),
    ],
)
def test_inputs_come_back_from_a_file_as_they_were(inputs: Any, tmp_path: Path) -> None:
    found = packed(batch(inputs, present=ROWS > 2))
    assert found is not None
    write_tensors(tmp_path / "file", *found)
    back = unpacked(*of_sealed(read_tensors(tmp_path / "file")))
    assert same(inputs, back.inputs)
    assert back.ids.tolist() == [0, 1, 2]
    assert back.targets is None
    assert back.present is not None
    assert torch.equal(back.present, ROWS > 2)


@pytest.mark.parametrize(
    "inputs", ["text", ["text"], {"a": ROWS, "b": 3}, {1: ROWS}, Named(ROWS, ROWS), OrderedDict(a=ROWS), None]
)
def test_inputs_that_are_no_tensors_in_plain_containers_are_not_packed(inputs: Any) -> None:
    assert packed(batch(inputs)) is None


def test_inputs_above_the_limit_are_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_examples, "LARGEST", ROWS.nbytes)
    assert packed(batch(ROWS)) is not None
    assert packed(batch([ROWS, ROWS])) is None


def test_without_a_mask_of_own_positions_none_comes_back() -> None:
    found = packed(batch(ROWS))
    assert found is not None
    assert unpacked(*found).present is None
