"""EEG fault 6: groups by parts of names; "se" is in many, and squeeze-excitation learned at the output's rate."""

import pytest

from tests.support.eeg_trainings import tiny_decoder


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
