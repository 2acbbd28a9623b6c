"""Fault 3 of LoRA programs: directions added without making them orthogonal, by a tail that vanished, and unseeded."""

import torch

from nfa import reference
from nfa.maths.low_rank import FactorPair
from nfa.registry.families.language.teacher.synthesis import synthesize

SHAPE, KEPT, TARGET = (96, 128), 16, 64


def adapter() -> FactorPair:
    random = torch.Generator().manual_seed(0)
    return FactorPair(*(torch.randn(*shape, generator=random, dtype=torch.float64) for shape in ((96, 16), (16, 128))))


def test_rank_64_is_64_with_the_spectrum_that_was_asked_for_and_with_their_recipe_it_is_neither():
    options = {"rank": KEPT, "target_rank": TARGET, "decay": 0.04, "noise_scale": 0.0, "seed": 0}
    one, again = (synthesize(adapter(), "layer", **options) for _ in range(2))  # type: ignore[arg-type]
    assert torch.equal(one.matrix.u, again.matrix.u)
    W = (one.matrix.u.double() * one.matrix.s.double()) @ one.matrix.vh.double()
    _, s, _ = reference.truncated_svd(W, 96)
    torch.testing.assert_close(s[:TARGET], one.matrix.s.double(), rtol=1e-4, atol=0)
    assert float(s[TARGET:].max()) < 1e-5 * float(s[0])
    for columns in (one.matrix.u, one.matrix.vh.T):
        cross = columns[:, :KEPT].T @ columns[:, KEPT:]
        assert float(cross.abs().max()) < 1e-5

    random = torch.Generator().manual_seed(1)
    drawn = [torch.randn(side, TARGET - KEPT, generator=random, dtype=torch.float64) for side in SHAPE]
    u, v = (
        torch.cat([kept.double(), columns / columns.norm(dim=0)], dim=1)
        for kept, columns in zip((one.matrix.u[:, :KEPT], one.matrix.vh.T[:, :KEPT]), drawn, strict=True)
    )
    asked = torch.cat([s[:KEPT], s[KEPT - 1] * torch.exp(-1.5 * torch.arange(1.0, TARGET - KEPT + 1))])
    theirs = reference.truncated_svd((u * asked) @ v.T, 96)[1]
    assert int((theirs > 1e-7 * theirs[0]).sum()) < 32  # "rank 64"
    assert float((u[:, :KEPT].T @ u[:, KEPT:]).abs().max()) > 0.2
