"""`analyze` and `gradient_directions` read a Conformer's run as they read any."""

import pytest
import torch
import torch.nn as nn
from torch import Tensor

from nfa import reference
from nfa.registry import stored_runs
from tests.support.analyses import analysed, series
from tests.support.gradient_direction_runs import Trained, batch_of, directed, example_gradients, stored_gram

SITE = "layer_stack.0.ffn_out.expand"


def test_gradient_directions_of_a_conformer_are_those_of_the_reference(flows: Trained) -> None:
    made = directed(flows.store, run_id=flows.ids["v1"], epochs="3", n=5)
    K = reference.gradient_gram(example_gradients(flows.ids["v1"], 3, 5))
    found = stored_gram(flows.store, made, 3)
    assert float((found - K).abs().max()) < 1e-4 * float(K.abs().max())


class OneInput(nn.Module):
    """The same with the subject's index as one more channel."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder.double().eval()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.decoder(inputs[..., :-1], inputs[:, 0, -1].long())
        return outputs


def test_similarities_of_a_conformer_are_those_of_the_reference(flows: Trained) -> None:
    source = flows.ids["v1"]
    made = analysed(flows.store, run_id=source, epochs="3", max_samples=2, sites=SITE)
    model, _ = stored_runs.load_checkpoint(source, 3, device="cpu")
    eeg, subjects = batch_of(source, 2).inputs
    inputs = torch.cat([eeg, subjects[:, None, None].expand(-1, eeg.shape[1], 1)], dim=2).double()
    agop = reference.agop(reference.jacobians(OneInput(model), f"decoder.{SITE}", inputs))
    nfm = reference.nfm(model.get_submodule(SITE).weight.detach())
    found = series(flows.store, made)[f"{SITE}/agop_nfm"][3]
    assert found == pytest.approx(reference.cosine(agop, nfm), abs=1e-4)
