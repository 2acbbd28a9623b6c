"""What a training stores of a model: what it changes, and nothing that is frozen."""

import pytest
import torch
import torch.nn as nn

from nfa.learned import frozen_names, learned_state, load_learned


def model(seed: int = 0) -> nn.Module:
    """A frozen layer, a trained one, batch statistics, and a frozen weight with two names."""
    torch.manual_seed(seed)
    layers = nn.ModuleDict({"frozen": nn.Linear(3, 3), "trained": nn.Linear(3, 3), "norm": nn.BatchNorm1d(3)})
    layers["tied"] = nn.Linear(3, 3, bias=False)
    layers["tied"].weight = layers["frozen"].weight
    layers["frozen"].requires_grad_(False)
    return layers


def test_it_holds_what_is_trained_and_buffers_and_no_frozen_weight_under_any_name():
    found = learned_state(model())
    norm = {f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    assert found.keys() == {"trained.weight", "trained.bias"} | norm


def test_loading_changes_what_was_trained_and_nothing_else():
    one, other = model(), model(1)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    load_learned(other, learned_state(one))
    for name, tensor in other.state_dict().items():
        expected = before[name] if name.startswith(("frozen", "tied")) else one.state_dict()[name]
        assert torch.equal(tensor, expected), name


def test_without_frozen_weights_it_is_the_whole_state():
    whole = nn.Linear(2, 2)
    assert learned_state(whole).keys() == whole.state_dict().keys()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("trained.bias"), r"missing \['trained.bias'\], unexpected \[\]"),
        (lambda state: state.update(other=torch.zeros(1)), r"missing \[\], unexpected \['other'\]"),
    ],
)
def test_weights_of_another_model_are_told(change, said):
    state = learned_state(model())
    change(state)
    with pytest.raises(RuntimeError, match=said):
        load_learned(model(), state)


def test_what_is_frozen_on_the_way_is_stored_where_it_was_trained_before():
    network = model()
    before = frozen_names(network)
    network["trained"].requires_grad_(False)
    assert "trained.weight" not in learned_state(network)
    assert "trained.weight" in learned_state(network, before)
    load_learned(model(), learned_state(network, before))
