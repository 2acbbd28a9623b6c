"""Faults of programs that compare gradients of layers, and tests that fail with them."""

import dataclasses

import pytest
import torch
from torch import nn

from nfa.measures.parameter_groups import relative_changes, root_mean_squares
from nfa.registry.families.eeg.config import PRESETS
from nfa.registry.families.eeg.conformer import Conformer, ConformerOptions
from nfa.registry.families.eeg.workload import EEGDecoder
from nfa.registry.training.loop import Training, Watched
from nfa.studies.gradient_flow import gradient_flow, ratio_verdict, targets
from tests.support.eeg_trainings import STEPS_AN_EPOCH, tiny_decoder
from tests.support.toy_models import seeded, toy

# The diagnosis did not know the new head's name, divided by zero and reported a healthy network.

SMALL = ConformerOptions(channels=3, subjects=2, d_model=8, d_inner=8, n_head=2, n_layers=2, conv_kernel_size=3)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_head_of_every_preset_is_the_output_and_no_parameter_is_in_two_groups_or_none(preset: str) -> None:
    decoder = EEGDecoder.__new__(EEGDecoder)
    decoder.options = dataclasses.replace(SMALL, **PRESETS[preset])
    model = Conformer(decoder.options)
    groups = decoder.groups(model)
    assert (groups.front, groups.back, groups.output) == ("block_0", "block_1", "head")
    assert {model.get_parameter(name) for name in groups.names["head"]} == set(model.head.parameters())
    names = [name for of_group in groups.names.values() for name in of_group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert ("gate" in groups.names) is PRESETS[preset]["use_gated_residual"]
    assert all("se" not in name.split(".") for name in groups.names["head"])
    found = gradient_flow({"block_0": 0.001}, {}, {}, groups)  # no gradient of the head
    assert "flow/front_output_ratio" not in found
    assert ratio_verdict(found.get("flow/front_output_ratio")) == "not measured"
    assert targets(found, groups)[0].said == "not measured"


# A weight change of 0.0000, because the reader of event files kept one histogram of each name.


def test_every_checkpoint_has_its_own_change_and_only_a_run_without_training_has_none() -> None:
    toys = toy(seeded(nn.Linear, 3, 2), 6, 3, sites=[""])
    weights = [{name: weight.detach().clone() for name, weight in toys.net.named_parameters()}]
    optimizer = torch.optim.SGD(toys.net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        toys.loss(toys.net(toys.inputs), toys.targets).mean().backward()
        optimizer.step()
        weights.append({name: weight.detach().clone() for name, weight in toys.net.named_parameters()})
    groups = {"all": ["weight", "bias"]}
    changes = [relative_changes(groups, weights[0], later)["all"] for later in weights]
    assert changes[0] == 0
    assert 0 < changes[1] < changes[2] < changes[3]


# A variable kept from an earlier loop, so every layer was given the value of one.


def test_each_group_has_the_value_of_its_own_parameters():
    workload = tiny_decoder(n_layers=3, optimizer="sgd")
    model = workload.model()
    groups = workload.groups(model).names
    options = {"batch_size": 6, "seed": 0, "order": workload.draw}
    training = Training(workload, model, workload.optimizers(model), **options, watched=Watched(groups, [1]))
    weights = []
    training.run(1, lambda _: None, lambda: weights.append({k: v.clone() for k, v in model.state_dict().items()}))
    assert len(weights) == STEPS_AN_EPOCH
    found = {group: training.flow[f"flow/{group}/update_ratio"] for group in groups}
    assert len(set(found.values())) == len(groups) == 8
    for group, names in groups.items():
        (alone,) = relative_changes({group: names}, weights[-2], weights[-1]).values()
        assert found[group] == alone


# A variable left over from the layer before gave every layer the same value.

SIZES = {"a": 1.0, "b": 0.1, "c": 0.01}
GROUPS = {name: [name] for name in SIZES}


def test_every_group_has_its_own_value_and_one_without_a_value_has_none() -> None:
    gradients = {name: torch.full((3,), size, dtype=torch.float64) for name, size in SIZES.items()}
    assert root_mean_squares(GROUPS, gradients) == pytest.approx(SIZES)
    before = {name: torch.ones(3, dtype=torch.float64) for name in SIZES}
    after = {name: before[name] + gradients[name] for name in SIZES}
    assert relative_changes(GROUPS, before, after) == pytest.approx(SIZES)
    gradients["b"][1] = torch.nan
    before["b"].zero_()
    assert list(root_mean_squares(GROUPS, gradients)) == list(relative_changes(GROUPS, before, after)) == ["a", "c"]


# The largest gradient of tensors of different size was divided, which grows with the number of entries.


def test_gradients_of_one_distribution_have_one_size_however_many_they_are() -> None:
    random = torch.Generator().manual_seed(0)
    gradients = {name: torch.randn(n, generator=random) for name, n in {"front": 100_000, "head": 500}.items()}
    found = root_mean_squares({name: [name] for name in gradients}, gradients)
    assert found["front"] / found["head"] == pytest.approx(1, abs=0.1)
    largest = {name: float(gradient.abs().max()) for name, gradient in gradients.items()}
    assert largest["front"] / largest["head"] > 1.2  # of the same distribution


# Groups by parts of names; "se" is in many, and squeeze-excitation learned at the output's rate.


@pytest.mark.parametrize("preset", ["v1", "conservative", "full"])
def test_a_parameter_belongs_to_the_group_of_the_module_that_holds_it(preset):
    workload = tiny_decoder(preset=preset, n_layers=11)
    model = workload.model()
    groups = workload.groups(model).names
    owners = {"cnn": model.cnn, "se": model.se, "subject": model.subject, "gate": model.gate, "head": model.head}
    owners |= {f"block_{index}": block for index, block in enumerate(model.layer_stack)}
    named = dict(model.named_parameters())
    for group, module in owners.items():
        own = {id(weight) for weight in module.parameters()} if module is not None else set()
        assert {id(named[name]) for name in groups.get(group, [])} == own


def test_squeeze_excitation_learns_at_the_front_s_rate():
    workload = tiny_decoder(use_llrd=True, lr=0.01)
    model = workload.model()
    rates = {
        id(weight): group["lr"]
        for group in workload.optimizers(model).parts["adam"].param_groups
        for weight in group["params"]
    }
    assert {rates[id(weight)] for weight in model.se.parameters()} == {0.03}
    assert {rates[id(weight)] for weight in model.head.parameters()} == {0.005}
