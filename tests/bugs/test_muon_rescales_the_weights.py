"""Fault 9: Muon variants that rescale W at every step put a rescaling into W − W⁽⁰⁾; torch's own decays by default."""

import torch
import torch.nn as nn

from nfa.registry.training.optimizers import build
from tests.support.toy_models import tiny_classifier


def test_the_default_muon_moves_weights_by_its_update_alone():
    """A large W and a small gradient: W − W⁽⁰⁾ is that of a W⁽⁰⁾ = 0, with no part along W⁽⁰⁾."""
    gradient = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    moves = []
    for start in (torch.zeros(8, 6), 16 * torch.eye(8)[:, :6]):
        weight, readout = nn.Parameter(start.clone()), nn.Parameter(torch.zeros(2, 2))
        options = {"lr": 0.5, "momentum": 0.95, "weight_decay": 0, "companion_lr": 0.001}
        optimizer = build("muon", [weight], readout=[readout], **options)
        for _ in range(3):
            weight.grad, readout.grad = gradient.clone(), torch.zeros(2, 2)
            optimizer.step()
        moves.append(weight.detach() - start)
    assert moves[0].norm() > 1
    torch.testing.assert_close(moves[1], moves[0], rtol=1e-4, atol=1e-5)


def test_a_run_of_muon_decays_nothing_unless_asked():
    workload = tiny_classifier("muon")
    parts = workload.optimizers(workload.model()).parts
    assert {group["weight_decay"] for part in parts.values() for group in part.param_groups} == {0.0}
