"""Twins of foreign models: they compute the same, and have a linear map for each that the model has."""

import copy

import pytest
import torch
import torch.nn as nn

from nfa.reference.linear_twin import linear_twin, twin_sites
from tests.support.models.adapted import KINDS, adapted
from tests.support.models.table import FOREIGN, FURTHER


@pytest.mark.parametrize("model", [pytest.param(model, id=name) for name, model in {**FOREIGN, **FURTHER}.items()])
def test_a_twin_computes_the_same(model):
    workload = model.make()
    network = copy.deepcopy(workload.model()).double().eval()
    twin = model.twin(copy.deepcopy(network))
    batch = next(workload.batches("train", batch_size=3)).double()
    found, right = (workload.outputs(net, batch) for net in (twin, network))
    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_twin_of_an_adapter_is_one_linear_map(kind):
    name, options = KINDS[kind]
    twin = linear_twin(adapted(name, **options).network)
    assert twin_sites(twin) == {
        path: path for path in ("base_model.model.0", "base_model.model.2", "base_model.model.4")
    }
    assert type(twin.get_submodule("base_model.model.0")) is nn.Linear
