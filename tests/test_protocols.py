"""A batch is cut and converted through whatever containers its parts are kept in; a workload is complete."""

import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn as nn
from torch import Tensor

from nfa.grouping import ROOT, groups_of_modules
from nfa.workload import Batch, MeanLoss, Workload
from tests.support.toy_models import layers, seeded


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


def test_a_batch_goes_to_a_device_with_what_is_no_padding():
    batch = dataclasses.replace(nested(), present=torch.ones(3, 2, dtype=torch.bool))
    moved = batch.to(torch.device("meta"))
    assert moved.inputs["tokens"].device == moved.targets[0].device == moved.present.device == torch.device("meta")
    assert moved.ids.device == torch.device("cpu")


# ---- workloads


class Least(Workload):
    """What has to be written, and nothing else."""

    def model(self) -> nn.Module:
        return seeded(layers, 4, 5, 3)

    def ids(self, split: str) -> Sequence[int]:  # noqa: ARG002
        return range(6)

    def batches(self, split: str, *, batch_size: int, ids: Any = None) -> Iterator[Batch]:
        chosen = torch.as_tensor(list(self.ids(split)) if ids is None else list(ids))
        inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
        for part in chosen.split(batch_size):
            yield Batch(inputs[part], part % 3, part)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(batch.inputs)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(outputs, batch.targets, reduction="none")


def test_five_methods_make_a_workload_and_the_others_have_defaults():
    workload = Least()
    model, batch = workload.model(), next(workload.batches("train", batch_size=6))
    outputs = workload.outputs(model, batch)
    assert isinstance(workload, Workload)
    assert isinstance(workload.objective(), MeanLoss)
    assert workload.objective()(outputs, batch) == workload.losses(outputs, batch).mean()
    assert workload.described_loss(plain=True) == "the loss of Least"
    assert workload.metrics(outputs, batch) == {}
    assert workload.classes(batch) is workload.readout(model) is None
    assert list(workload.noisy()) == []
    assert list(workload.sites(model)) == ["", "0", "1", "2"]
    assert list(workload.groups(model).names) == ["0", "2"]
    assert workload.examples_at_once > 1
    assert workload.device == torch.device("cpu")


@pytest.mark.parametrize("name", ["model", "ids", "batches", "outputs", "losses"])
def test_one_of_them_left_out_is_an_error_at_once(name: str):
    class Without(Least):
        pass

    setattr(Without, name, getattr(Workload, name))
    Without.__abstractmethods__ = frozenset({name})
    with pytest.raises(TypeError, match=name):
        Without()


def test_what_has_to_be_written_is_what_is_abstract():
    assert Workload.__abstractmethods__ == {"model", "ids", "batches", "outputs", "losses"}
    assert not inspect.isabstract(Least)


# ---- groups


def test_each_module_that_owns_parameters_is_a_group_with_all_of_them():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.LSTM(4, 3), nn.Sequential(nn.Linear(3, 2)))
    groups = groups_of_modules(net)
    assert list(groups.names) == ["0", "1", "3", "4.0"]
    assert [name for names in groups.names.values() for name in names] == [name for name, _ in net.named_parameters()]
    assert (groups.front, groups.back, groups.output) == ("0", "3", "4.0")


def test_parameters_of_the_model_itself_are_a_group_and_frozen_ones_are_in_none():
    net = layers(4, 5, 3)
    net.scale = nn.Parameter(torch.ones(1))
    net[0].bias.requires_grad_(False)
    assert groups_of_modules(net).names == {ROOT: ["scale"], "0": ["0.weight"], "2": ["2.weight", "2.bias"]}
    assert groups_of_modules(net.requires_grad_(False)) == dataclasses.replace(
        groups_of_modules(nn.Identity()), front=None
    )


def test_a_readout_whose_weights_are_tied_to_others_is_not_the_output():
    net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False))
    net[2].weight = net[0].weight
    groups = groups_of_modules(net)
    assert groups.names == {"0": ["0.weight"], "1": ["1.weight", "1.bias"]}
    assert (groups.front, groups.back, groups.output) == ("0", "1", None)
    alone = groups_of_modules(nn.Linear(2, 2))
    assert (alone.front, alone.back, alone.output) == (ROOT, None, ROOT)
