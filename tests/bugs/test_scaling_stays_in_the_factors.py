"""Fault 4 of LoRA programs: alpha/r not divided out; all of s on B, so that A and B get very different gradients."""

import pytest
import torch
import torch.nn as nn

from nfa import reference
from nfa.maths.low_rank import FactorPair, LowRank
from nfa.registry.families.language.teacher.compression import compress

RANK, ALPHA = 4, 32.0


def layer_gradients(b: torch.Tensor, a: torch.Tensor) -> tuple[float, float]:
    """Norms of the gradients of B and A of a LoRA layer, for a random loss."""
    random = torch.Generator().manual_seed(3)
    b, a = nn.Parameter(b.clone()), nn.Parameter(a.clone())
    x, weight = (torch.randn(64, size, generator=random) for size in (48, 40))
    ((x @ a.T @ b.T) * ALPHA / RANK * weight).sum().backward()
    assert b.grad is not None
    assert a.grad is not None
    return float(b.grad.norm()), float(a.grad.norm())


def test_the_layer_s_update_is_the_truncated_one_and_its_two_gradients_are_alike():
    random = torch.Generator().manual_seed(0)
    W = 0.001 * torch.randn(40, 48, generator=random)
    b, a = compress(W, RANK, ALPHA).factors
    best = LowRank(*(part.float() for part in reference.truncated_svd(W, RANK)))
    truncated = (best.u * best.s) @ best.vh
    torch.testing.assert_close(ALPHA / RANK * b @ a, truncated, atol=1e-6, rtol=0)
    of_b, of_a = layer_gradients(b, a)
    assert 0.5 < of_b / of_a < 2

    theirs = FactorPair(best.u * best.s, best.vh)
    assert float((ALPHA / RANK * theirs.b @ theirs.a).norm() / truncated.norm()) == pytest.approx(8, rel=1e-5)
    of_b, of_a = layer_gradients(*theirs)
    assert of_b / of_a > 50
