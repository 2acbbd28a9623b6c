"""Whatever cannot be measured is refused when a model is looked at, and never once work has started."""

import pytest
import torch
import torch.nn as nn

from nfa.errors import Refusal
from tests.support.models.loops import analysis
from tests.support.models.workloads import EXAMPLES, classifier, normal
from tests.support.toy_models import seeded


class InPlace(nn.Module):
    """Edits the input of a layer after the call."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.layer, self.readout = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        hidden = torch.tanh(self.enter(x)) * 2
        z = self.layer(hidden.detach())
        hidden += 1
        return self.readout(torch.tanh(z) + hidden)


class Cut(nn.Module):
    """Calls a layer where no gradient flows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.readout = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        with torch.no_grad():
            hidden = torch.tanh(self.layer(x))
        return self.readout(hidden + x)


class Windows(nn.Module):
    """Attention, time first, over windows that stand in the examples' dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.attend, self.readout = nn.MultiheadAttention(4, 2), nn.Linear(4, 3)

    def forward(self, x):
        windows = x.unflatten(1, (2, -1)).flatten(0, 1).transpose(0, 1)
        seen = self.attend(windows, windows, windows, need_weights=False)[0]
        return self.readout(seen.transpose(0, 1).unflatten(0, (len(x), 2)).mean(dim=(1, 2)))


@pytest.mark.parametrize(("build", "shape"), [(InPlace, (4,)), (Cut, (4,)), (Windows, (6, 4))])
def test_whatever_is_refused_is_refused_before_anything_is_measured(build, shape):
    workload = classifier(seeded(build), normal(EXAMPLES, *shape), 3)
    model = workload.model()
    try:
        made = analysis(workload, model)
    except Refusal:
        return
    assert made.values(model)
