"""Fault 2 of LoRA programs: noise of 0.1·s₁ per entry is 8–20 × s₁ in spectral norm, and the signal is gone."""

import torch

from nfa import reference
from nfa.maths.low_rank import FactorPair, noise
from nfa.registry.families.language.teacher.synthesis import synthesize, teacher_update


def test_rank_16_energy_and_directions_survive_the_noise_and_with_noise_per_entry_they_do_not():
    random = torch.Generator().manual_seed(0)
    b, a = (torch.randn(*shape, generator=random, dtype=torch.float64) for shape in ((192, 16), (16, 576)))
    made = synthesize(FactorPair(b, a), "layer", rank=16, target_rank=64, decay=0.04, noise_scale=0.1, seed=0)
    ours = teacher_update(made.matrix, made.sigma, 0, "layer")
    clean = (made.matrix.u * made.matrix.s) @ made.matrix.vh
    s_1 = float(made.matrix.s[0])
    theirs = clean + noise((192, 576), 0.1 * s_1, 0, "layer")

    def cosine(W: torch.Tensor) -> float:
        return float(reference.subspace_cosines(reference.truncated_svd(W, 16)[0], made.matrix.u[:, :16]).min())

    energies = [reference.energy_ratio(W, 16) for W in (clean, ours, theirs)]
    assert abs(energies[1] - energies[0]) < 0.02
    assert cosine(ours) > 0.9
    assert float(torch.linalg.matrix_norm(theirs - clean, 2)) > 3 * s_1
    assert energies[2] < 0.35 * energies[0]
    assert cosine(theirs) < 0.5
