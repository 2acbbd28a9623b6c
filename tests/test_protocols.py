"""A batch is cut and converted through whatever containers its inputs and targets are kept in."""

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from nfa.protocols import Batch


def nested() -> Batch:
    inputs = {"tokens": torch.arange(6).view(3, 2), "mask": [torch.ones(3, 2), "causal"], "scale": torch.tensor(2.0)}
    return Batch(inputs, (torch.zeros(3), torch.eye(2)), torch.tensor([7, 8, 9]))


def test_taken_examples_come_in_the_order_asked_for_and_what_has_no_row_for_each_stays():
    taken = nested().take([2, 0])
    assert len(taken) == 2
    assert taken.ids.tolist() == [9, 7]
    assert taken.inputs["tokens"].tolist() == [[4, 5], [0, 1]]
    assert taken.inputs["mask"][0].shape == (2, 2)
    assert taken.inputs["mask"][1] == "causal"
    assert taken.inputs["scale"] == 2
    assert taken.targets[0].shape == (2,)
    assert torch.equal(taken.targets[1], torch.eye(2))
    assert taken.present is None


def test_what_is_no_padding_is_taken_with_the_examples_and_stays_in_every_precision():
    present = torch.tensor([[True, True], [True, False], [False, True]])
    batch = dataclasses.replace(nested(), present=present)
    assert torch.equal(batch.take([2, 0]).present, present[[2, 0]])
    assert torch.equal(batch.double().present, present)


def test_in_double_precision_whole_numbers_stay_whole():
    double = nested().double()
    assert double.inputs["tokens"].dtype == torch.int64
    assert double.inputs["mask"][0].dtype == double.inputs["scale"].dtype == torch.float64
    assert double.targets[0].dtype == torch.float64
    assert torch.equal(double.ids, nested().ids)


def test_containers_stay_what_they_are_and_the_batch_is_not_edited():
    class Pair(NamedTuple):
        left: Tensor
        right: Tensor

    batch = Batch(Pair(torch.zeros(2), torch.ones(2)), None, torch.arange(2))
    moved = batch.map(lambda tensor: tensor + 1)
    assert isinstance(moved.inputs, Pair)
    assert moved.inputs.right.tolist() == [2, 2]
    assert moved.targets is None
    assert batch.inputs.right.tolist() == [1, 1]
