"""Sketched Gram matrices of whole models: those of the reference for given random vectors, as exact as was asked."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nfa import reference
from nfa.maths.gradient_sketch import Projection, cosine_error
from nfa.maths.gram import cosines
from nfa.measures import sketch_sizes
from nfa.measures.gradient_gram import GradientGram
from nfa.measures.sketch_sizes import SketchOption, allocated, choose_sketches
from nfa.observe.parameter_regions import Region
from nfa.workloads.probe import Probe
from tests.measures.test_gradient_gram import images, others, words
from tests.observe.test_batches_that_differ import Routed
from tests.support.grams import (
    Forward,
    assert_close,
    everything,
    expected_gram,
    normal,
    probe,
    scrambled,
    tokens,
    trainable,
)
from tests.support.snapshots import assert_same, snapshot
from tests.support.toy_models import Noisy, layers, seeded, toy


def own() -> None:
    """The workload's own losses."""


def gram_of(workload: Probe, budget: int = 2**29) -> GradientGram:
    return GradientGram(workload, range(len(workload.all)), trainable(workload.network), budget=budget)


def sketches(gram: GradientGram, net: nn.Module, vectors: int, seed: int = 0) -> dict[Region, Projection]:
    """Of every parameter that has entries, by rows and by columns in turn."""
    made = gram.open(net)(gram.batch_of(gram.ids))
    found = {}
    for place, region in enumerate(of for of in made.parts if of.shape and math.prod(of.shape)):
        shape = (region.shape[0], math.prod(region.shape[1:]))
        found[region] = Projection.drawn(shape, vectors, of_rows=bool(place % 2), seed=seed, purpose=str(place))
    return found


def expected_of(workload: Probe, of: Mapping[Region, Projection]) -> Tensor:
    """K of sketched parameters by the reference, one parameter at a time, and the exact rest."""
    net, batch = workload.network, everything(workload)
    gram = torch.zeros(len(batch), len(batch), dtype=torch.float64)
    for name in trainable(net):
        whole = reference.example_gradients(net, workload, batch, [name])
        mine = {region: one for region, one in of.items() if region.parameter == name}
        if not mine:
            gram += reference.gradient_gram(whole)
        for region, one in mine.items():
            size = net.get_parameter(name).shape
            gammas = torch.stack([region.view(row.view(size)).reshape(one.shape) for row in whole])
            gram += reference.sketched_gram([gammas], [("rows" if one.of_rows else "columns", one.vectors)])
    return gram


@pytest.mark.filterwarnings("ignore:Already found", "ignore:There is a performance drop")
@given(st.one_of(images(), words(), others()), st.sampled_from([2, 6, 8, 16]), st.sampled_from([1, 3000, 2**29]))
@settings(max_examples=10)
def test_any_model_with_given_random_vectors_equals_the_reference_at_any_budget(model, vectors, budget):
    net, inputs = model
    workload = probe(net, inputs)
    gram = gram_of(workload, budget)
    gram.sketches = sketches(gram, net, vectors)
    found = gram(net)
    assert_close(found, expected_of(workload, gram.sketches))
    assert torch.equal(found, found.T)
    assert torch.equal(gram.shifts, gram.shifts.mT)


def convolutions() -> nn.Module:
    parts = [nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), nn.GroupNorm(2, 4), nn.GELU()]
    return nn.Sequential(*parts, nn.ConvTranspose2d(4, 2, 2), nn.Flatten(), nn.Linear(32, 3))


def tied() -> nn.Module:
    table = nn.Embedding(7, 4)
    net = Forward(lambda self, x: F.linear(self.map(self.table(x)).tanh(), self.table.weight), table=table)
    net.map = nn.Linear(4, 4)
    return net


EVERY = {
    "linear": (lambda: layers(6, 5, 3, bias=True), normal(5, 6)),
    "positions": (lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 3)), normal(5, 7, 4)),
    "convolutions": (convolutions, normal(5, 2, 5, 5)),
    "tied": (tied, tokens(5, 6, below=7)),
    "experts": (lambda: Routed(lambda expert, rows: expert(rows)), normal(5, 6, 4)),
}


@pytest.mark.parametrize("kind", EVERY)
def test_on_average_over_random_vectors_it_is_the_exact_matrix_and_shifts_tell_its_spread(kind):
    make, inputs = EVERY[kind]
    workload = probe(scrambled(seeded(make)), inputs)
    gram, net, draws = gram_of(workload), workload.network, 2000
    made = gram.open(net)(everything(workload))
    found = torch.zeros(draws, 5, 5, dtype=torch.float64)
    for region, one in sketches(gram, net, 2 * draws).items():
        values = one(made.parts[region]).values.unflatten(1, (draws, -1))
        found += torch.einsum("adk,bdk->dab", values, values) * draws
    found = found * made.scale[:, None] * made.scale
    exact = expected_gram(workload)
    assert ((found.mean(dim=0) - exact).abs() <= 5 * found.std(dim=0) / math.sqrt(draws) + 1e-9).all()
    stated = []
    for seed in range(30):
        gram.sketches = sketches(gram, net, 2, seed)
        gram(net)
        stated.append(gram.shifts.square().sum(dim=0))
    ratio = torch.stack(stated).mean() / found.var(dim=0).mean()
    assert 0.7 < float(ratio) < 1.4


# ---- what is chosen


def text_model() -> Probe:
    """Large enough that sketches cost less than exact gradients."""
    net = seeded(lambda: nn.Sequential(*(part for _ in range(3) for part in (nn.Linear(80, 80), nn.GELU()))))
    inputs = torch.randn(24, 60, 80, generator=torch.Generator().manual_seed(1))
    targets = torch.randn(24, 60, 80, generator=torch.Generator().manual_seed(2))
    return Probe(net, lambda outputs, of: (outputs - of).square().mean(dim=(1, 2)), inputs, targets)


def test_auto_is_exact_where_all_gradients_fit_into_the_memory_and_none_is_exact_anywhere():
    workload = text_model()
    for gram, asked in ((gram_of(workload), "auto"), (gram_of(workload, 10**5), "none")):
        chosen = choose_sketches(gram, workload.network, own, asked=asked, seed=0)
        assert (chosen.projections, chosen.size, chosen.said, chosen.vectors) == ({}, "none", "none", {})


def test_where_they_do_not_fit_auto_takes_so_many_vectors_that_a_cosine_is_off_by_less_than_a_hundredth():
    workload = text_model()
    gram = gram_of(workload, 10**6)
    exact = gram(workload.network)
    assert gram.shifts is None
    chosen = choose_sketches(gram, workload.network, own, asked="auto", seed=0)
    assert chosen.vectors
    gram.sketches = chosen.projections
    found = gram(workload.network)
    apart = ~torch.eye(24, dtype=torch.bool)
    error = float((cosines(found)[0] - cosines(exact)[0])[apart].square().mean().sqrt())
    assert 0 < error <= 0.01
    assert cosine_error(found, gram.shifts) == pytest.approx(error, rel=0.5)
    assert chosen.error == pytest.approx(error, rel=0.5)


def test_a_number_of_vectors_is_taken_for_every_parameter_that_is_dearer_exactly():
    workload = text_model()
    chosen = choose_sketches(gram_of(workload), workload.network, own, asked="5", seed=0)
    assert chosen.vectors == {"0.weight": 6, "2.weight": 6, "4.weight": 6}
    assert chosen.size == "6"
    assert choose_sketches(gram_of(workload), workload.network, own, asked="9999", seed=0).vectors == {}


def test_the_cheapest_sizes_for_an_error_are_those_of_a_search():
    options = [SketchOption((name, False), v, c, 1e9) for name, v, c in (("a", 4.0, 1.0), ("b", 1.0, 9.0))]
    sizes = allocated(options, 0.25)
    error = sum(one.variance / vectors for one, vectors in sizes.items())
    cost = sum(one.cost * vectors for one, vectors in sizes.items())
    assert error <= 0.25**2
    others = [(a, b) for a in range(8, 400, 8) for b in range(8, 400, 8) if 4 / a + 1 / b <= 0.25**2]
    assert cost <= 1.1 * min(a + 9 * b for a, b in others)


def test_the_same_seed_and_model_choose_the_same_and_a_later_checkpoint_is_projected_alike():
    workload = text_model()
    first, again, other = (
        choose_sketches(gram_of(workload), workload.network, own, asked="4", seed=seed).projections
        for seed in (0, 0, 1)
    )
    for region, one in first.items():
        assert torch.equal(one.vectors, again[region].vectors)
        assert not torch.equal(one.vectors, other[region].vectors)
    gram = gram_of(workload)
    gram.sketches = first
    before = gram(workload.network)
    assert torch.equal(gram(workload.network), before)


def test_experts_that_a_batch_does_not_use_have_gradients_of_zero_when_sizes_are_chosen(monkeypatch):
    monkeypatch.setattr(sketch_sizes, "SMALL", 0)
    monkeypatch.setattr(sketch_sizes, "_of_exact", lambda *_: math.inf)
    inputs = normal(12, 6, 4)
    inputs[:, :, 0] = inputs[:, :, 0].abs() * (1.0 - 2.0 * (torch.arange(12) % 2 == 1))[:, None]
    inputs[0, ::2, 0] = inputs[1, ::2, 0] = -0.5  # the first two use both experts, and so does the check
    inputs[2:4, :3, 0] *= -1
    workload = probe(scrambled(Routed(lambda expert, rows: expert(rows))), inputs)
    gram = gram_of(workload, 1)
    chosen = choose_sketches(gram, workload.network, own, asked="2", seed=0)
    assert [*chosen.vectors] == trainable(workload.network)
    gram.sketches = chosen.projections
    assert_close(gram(workload.network), expected_of(workload, chosen.projections))


def test_a_loss_that_no_output_changes_needs_no_sketch():
    workload = probe(scrambled(layers(4, 5, 3)), normal(9, 4), lambda _, targets: targets[:, 0])
    assert choose_sketches(gram_of(workload, 1), workload.network, own, asked="4", seed=0).vectors == {}


# ---- what it takes, and what is left as it was


class Largest(TorchDispatchMode):
    """The largest tensor that is made."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            self.size = max(self.size, one.numel() if isinstance(one, Tensor) else 0)
        return made


def test_no_gradient_is_made_of_all_examples():
    workload = text_model()
    exact, gram = gram_of(workload), gram_of(workload)
    gram.sketches = choose_sketches(gram, workload.network, own, asked="2", seed=0).projections
    exact(workload.network)
    sizes = []
    for one in (exact, gram):
        with Largest() as largest:
            one(workload.network)
        sizes.append(largest.size)
    assert sizes[0] >= 24 * 80 * 80 > sizes[1]


@pytest.mark.parametrize("asked", ["auto", "2"])
def test_choosing_and_sketching_leave_no_trace(asked, monkeypatch):
    monkeypatch.setattr(sketch_sizes, "SMALL", 0)
    toys = toy(seeded(Noisy, 5, 8, 3), 20, 5, sites=[])
    toys.loss(toys.net(toys.inputs), toys.targets).mean().backward()
    before = snapshot(toys)
    gram = GradientGram(toys, range(20), trainable(toys.net), budget=1000)
    gram.sketches = choose_sketches(gram, toys.net, own, asked=asked, seed=0).projections
    gram(toys.net)
    after = snapshot(toys)
    del before["python"], after["python"]  # which the checker of shapes draws from
    assert_same(after, before)
