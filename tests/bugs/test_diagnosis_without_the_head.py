"""Fault 2: the diagnosis did not know the new head's name, divided by zero and reported a healthy network."""

import dataclasses

import pytest

from nfa.registry.families.eeg.config import PRESETS
from nfa.registry.families.eeg.conformer import Conformer, ConformerOptions
from nfa.registry.families.eeg.workload import EEGDecoder
from nfa.studies.gradient_flow import gradient_flow, ratio_verdict, targets

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
