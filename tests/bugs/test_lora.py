"""Faults of programs that make and use low-rank factors, and tests that fail with them."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.nn as nn
from safetensors.torch import load_file
from torch import Tensor

from nfa import reference
from nfa.errors import Refusal
from nfa.maths.low_rank import FactorPair, LowRank, noise
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.language.teacher.compression import compress
from nfa.registry.families.language.teacher.synthesis import synthesize, teacher_update
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.training.start import train
from tests.support.analyses import undrawn
from tests.support.fine_tunings import ALPHA, MODULES, RANK, Place, factor_run, factors_for, used_place
from tests.support.stores import Store

# The published "SVD-init" run initialised 0 layers, because its factors' names never matched the model's; nothing
# said so, and its gain was noise.

RENAMED = {
    "with PEFT's prefix": ("model.", "base_model.model.model."),
    "of another family": ("model.layers.", "transformer.h."),
    "one block only": ("model.layers.1.", "model.layers.7."),
}


def renamed(factors: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {name.replace(old, new, 1): tensor for name, tensor in factors.items()}


@pytest.mark.parametrize("case", RENAMED)
def test_factors_whose_names_match_no_module_are_refused_with_both_lists(
    case: str, store: Store, tmp_path: Path
) -> None:
    with used_place(Place.made(tmp_path / "place")) as place:
        factors = factor_run(place, renamed(factors_for(place), *RENAMED[case]))
        config = TrainLoraConfig(**place.options(init="svd", factors=factors))
        with pytest.raises(Refusal, match=r"targets without factors: model\.layers.*; factors without a target: \w"):
            train(config, Stopwatch())
    assert store.runs() == [factors], "no training was started"


def test_as_many_modules_start_from_factors_as_are_targets(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with used_place(Place.made(tmp_path / "place")) as place, undrawn():
        factors = factor_run(place)
        config = TrainLoraConfig(**place.options(init="svd", start="warm", factors=factors, steps=1))
        train(config, Stopwatch())
    assert f"svd warm, rank {RANK}, alpha 6: {len(MODULES)} of {len(MODULES)} targets" in capsys.readouterr().out
    (run_id,) = set(store.runs()) - {factors}
    assert len(store.json(run_id, "config.json")["modules"]) == len(MODULES)
    first = load_file(store.artifact(run_id, "checkpoints/step_000000.safetensors"))
    for module in MODULES:
        a, b = (first[f"base_model.model.{module}.lora_{part}.default.weight"] for part in "AB")
        given = [factors_for(place)[f"{module}.lora_{part}.weight"] for part in "BA"]
        expected = reference.lora_update(given[0], given[1], 3, RANK)
        assert expected.any()
        torch.testing.assert_close(reference.lora_update(b, a, ALPHA, RANK), expected, rtol=1e-5, atol=1e-7)


# Noise of 0.1·s₁ per entry is 8–20 × s₁ in spectral norm, and the signal is gone.


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


# Directions added without making them orthogonal, by a tail that vanished, and unseeded.

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


# Alpha/r not divided out; all of s on B, so that A and B get very different gradients.

FACTOR_RANK, FACTOR_ALPHA = 4, 32.0


def layer_gradients(b: torch.Tensor, a: torch.Tensor) -> tuple[float, float]:
    """Norms of the gradients of B and A of a LoRA layer, for a random loss."""
    random = torch.Generator().manual_seed(3)
    b, a = nn.Parameter(b.clone()), nn.Parameter(a.clone())
    x, weight = (torch.randn(64, size, generator=random) for size in (48, 40))
    ((x @ a.T @ b.T) * FACTOR_ALPHA / FACTOR_RANK * weight).sum().backward()
    assert b.grad is not None
    assert a.grad is not None
    return float(b.grad.norm()), float(a.grad.norm())


def test_the_layer_s_update_is_the_truncated_one_and_its_two_gradients_are_alike():
    random = torch.Generator().manual_seed(0)
    W = 0.001 * torch.randn(40, 48, generator=random)
    b, a = compress(W, FACTOR_RANK, FACTOR_ALPHA).factors
    best = LowRank(*(part.float() for part in reference.truncated_svd(W, FACTOR_RANK)))
    truncated = (best.u * best.s) @ best.vh
    torch.testing.assert_close(FACTOR_ALPHA / FACTOR_RANK * b @ a, truncated, atol=1e-6, rtol=0)
    of_b, of_a = layer_gradients(b, a)
    assert 0.5 < of_b / of_a < 2

    theirs = FactorPair(best.u * best.s, best.vh)
    theirs_update = FACTOR_ALPHA / FACTOR_RANK * theirs.b @ theirs.a
    assert float(theirs_update.norm() / truncated.norm()) == pytest.approx(8, rel=1e-5)
    of_b, of_a = layer_gradients(*theirs)
    assert of_b / of_a > 50
