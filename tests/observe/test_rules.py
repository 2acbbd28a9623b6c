"""Layer types are read through rules; what has none is refused with a way out."""

import pytest
import torch
import torch.nn as nn

from nfa.errors import Refusal
from nfa.observe.rules import rules_for


@pytest.mark.parametrize("module", [nn.ReLU(), nn.Conv3d(2, 3, 1), nn.LSTM(2, 3), nn.Sequential(nn.Linear(2, 3))])
def test_a_layer_type_without_a_rule_is_refused_by_name(module):
    kind = type(module).__name__
    with pytest.raises(Refusal, match=f"(?s)site 'body.odd' of type {kind}.*allowed: .*Linear.*add a rule"):
        rules_for("body.odd", module)


def test_a_subclass_is_read_like_its_base():
    class Mine(nn.Linear):
        pass

    assert rules_for("mine", Mine(2, 3))["mine"] is rules_for("plain", nn.Linear(2, 3))["plain"]


@pytest.mark.parametrize("shape", [(4, 3), (4, 5, 3), (4, 2, 5, 3)])
def test_every_layout_becomes_examples_positions_features(shape):
    layer, x = nn.Linear(3, 2), torch.randn(shape)
    rule = rules_for("layer", layer)["layer"]
    h, z = rule.inputs(layer, x, 4), rule.outputs(layer, layer(x), 4)
    positions = torch.Size(shape[1:-1]).numel()
    assert h.shape == (4, positions, 3)
    assert z.shape == (4, positions, 2)
    torch.testing.assert_close(h @ rule.weight(layer).T + layer.bias, z)
    assert torch.equal(h[1].flatten(), x[1].flatten())
