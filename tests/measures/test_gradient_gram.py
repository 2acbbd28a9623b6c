"""K_ab = ⟨γ_a, γ_b⟩ of whole models: any architecture, budget and size of gradients; and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfa import reference
from nfa.errors import Refusal
from nfa.measures import gradient_gram
from nfa.measures.gradient_gram import GradientGram
from nfa.measures.gradient_store import GradientStore
from nfa.workloads.probe import Probe
from tests.support.grams import (
    Forward,
    assert_close,
    everything,
    expected_gram,
    found_gram,
    half_square,
    normal,
    probe,
    scrambled,
    tokens,
    trainable,
)
from tests.support.layer_types import CASES, networks
from tests.support.snapshots import assert_same, snapshot
from tests.support.toy_models import Noisy, layers, seeded, toy


@st.composite
def images(draw: Callable[..., Any]) -> tuple[nn.Module, Tensor]:
    """Convolution, a norm, an activation with or without a parameter, a readout."""
    width = draw(st.integers(1, 3))
    first = nn.Conv2d(2, 2 * width, 3, padding=1, bias=draw(st.booleans()))
    norm = draw(st.sampled_from([nn.BatchNorm2d(2 * width), nn.GroupNorm(2, 2 * width)]))
    activation = draw(st.sampled_from([nn.GELU(), nn.ReLU(inplace=True), nn.PReLU()]))
    readout = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * width, 3))
    return scrambled(nn.Sequential(first, norm, activation, readout)), normal(draw(st.integers(1, 10)), 2, 5, 4)


@st.composite
def words(draw: Callable[..., Any]) -> tuple[nn.Module, Tensor]:
    """Embedding, a transformer with examples or time first, a readout that may share the table."""
    table, body, readout = (
        nn.Embedding(7, 4),
        nn.TransformerEncoderLayer(4, 2, 5, batch_first=draw(st.booleans())),
        nn.Linear(4, 7, bias=False),
    )
    if draw(st.booleans()):
        readout.weight = table.weight
    net = nn.Sequential(table, body, readout)
    if not body.self_attn.batch_first:
        net = Forward(lambda self, x: self.net(x.T).transpose(0, 1), net=net)
    return scrambled(net), tokens(draw(st.integers(1, 10)), 5, below=7)


@st.composite
def others(draw: Callable[..., Any]) -> tuple[nn.Module, Tensor]:
    """A layer of any type, called once or twice; one parameter may be frozen."""
    net, case = draw(st.one_of(*(networks(cases) for kind, cases in CASES.items() if kind != "LoRA")))
    parameters = [*net.double().parameters()]
    parameters[draw(st.integers(0, len(parameters) - 1))].requires_grad_(draw(st.booleans()))
    return net, normal(draw(st.integers(1, 10)), *case.shape)


budgets = st.one_of(st.just(1), st.integers(1, 30_000), st.just(2**29))


@pytest.mark.filterwarnings("ignore:Already found", "ignore:There is a performance drop")
@given(st.one_of(images(), words(), others()), budgets, st.integers(1, 5))
@settings(max_examples=30)
def test_any_model_at_any_budget_and_batch_size_equals_the_reference(model, budget, batch):
    net, inputs = model
    workload = probe(net, inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient_gram, "LEAST", 1)
        patch.setattr(gradient_gram, "MOST", batch)
        found = found_gram(workload, budget=budget)
    assert_close(found, expected_gram(workload))
    assert torch.equal(found, found.T)


@pytest.mark.parametrize("budget", [1, 2000, 5000, 2**29])
def test_what_is_held_fits_the_budget_and_each_pair_is_made_once(budget, monkeypatch):
    workload = probe(scrambled(layers(6, 8, 3)), normal(21, 6))
    numbers = 8 + 6 + 8 + 3 + 8 + 3  # of an example: two layers' factors and biases
    stores: list[int] = []

    class Counting(GradientStore):
        def __init__(self, examples: int, *more: Any, **options: Any) -> None:
            stores.append(examples)
            super().__init__(examples, *more, **options)

    monkeypatch.setattr(gradient_gram, "GradientStore", Counting)
    monkeypatch.setattr(gradient_gram, "LEAST", 1)
    gram = GradientGram(workload, range(21), trainable(workload.network), budget=budget)
    assert_close(gram(workload.network), expected_gram(workload))
    assert max(stores) + (max(stores) < 21) <= max(2, budget // (numbers * 8))
    assert stores == [21] if budget == 2**29 else len(stores) > 1
    assert 21 * 22 / 2 <= gram.work.pairs <= 21 * 21


def test_the_order_of_the_examples_is_that_of_the_ids_and_repeated_ones_are_repeated():
    workload = probe(scrambled(layers(4, 5, 3)), normal(12, 4))
    ids = [7, 3, 11, 3, 0, 1, 2, 5, 9, 10]
    found = GradientGram(workload, ids, trainable(workload.network))(workload.network)
    assert_close(found, expected_gram(workload)[ids][:, ids])


def test_two_calls_give_the_same_bits():
    net = scrambled(nn.Sequential(nn.Linear(4, 5), nn.PReLU(), nn.Linear(5, 3)))
    workload = probe(net, normal(20, 4))
    gram = GradientGram(workload, range(20), trainable(net), budget=3000)
    first = gram(net)
    with torch.no_grad():
        assert torch.equal(gram(net), first)


# ---- sizes of gradients


def classified(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets.argmax(dim=1), reduction="none")


def wide(dtype: torch.dtype, seed: int = 0) -> Probe:
    net = seeded(lambda: nn.Sequential(nn.Linear(20, 64), nn.LayerNorm(64), nn.PReLU(), nn.Linear(64, 10)), seed=seed)
    workload = probe(net.double(), normal(40, 20), classified)
    return Probe(net.to(dtype), classified, workload.all.inputs.to(dtype), workload.all.targets.to(dtype))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_coarser_numbers_give_what_they_can(dtype, tolerance):
    workload = wide(dtype)
    assert_close(found_gram(workload), expected_gram(workload), tolerance)


def cosines(gram: Tensor) -> Tensor:
    norms = gram.diagonal().sqrt()
    return gram / norms / norms[:, None]


@pytest.mark.parametrize("size", [1e-22, 1e-30, 1e18])
def test_gradients_of_any_size_keep_their_products_and_directions_in_float32(size):
    workload = wide(torch.float32)
    expected = expected_gram(workload)
    workload.loss = lambda outputs, targets: classified(outputs, targets) * size
    found = found_gram(workload)
    torch.testing.assert_close(found / size**2, expected, rtol=1e-4, atol=1e-6 * float(expected.max()))
    torch.testing.assert_close(cosines(found), cosines(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["0.weight", "14.weight"])
def test_gradients_that_vanish_on_their_way_through_the_layers_are_not_zero(name):
    """γ ≈ 1e-25 at the first layer, where products of float32 numbers are zero."""
    net = scrambled(layers(4, *[4] * 15, activation=nn.Identity, bias=False))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.03)
    workload = probe(net, normal(9, 4))
    expected = expected_gram(workload, [name])
    assert 0 < expected.diagonal().max() < 1e-40
    workload = Probe(net.float(), half_square, workload.all.inputs.float(), workload.all.targets.float())
    assert_close(found_gram(workload, [name]), expected, 1e-4)


@pytest.mark.parametrize("middle", [nn.Tanh, nn.PReLU])
def test_a_gradient_of_zero_has_exactly_zero_products_and_only_it_has(middle):
    """Ten of the examples keep a margin, the first eight among them."""
    net = scrambled(nn.Sequential(nn.Linear(4, 5), middle(), nn.Linear(5, 3)))
    workload = probe(net, normal(20, 4), lambda outputs, targets: half_square(outputs, targets) * targets[:, 0].relu())
    workload.all.targets[:, 0] = torch.tensor([-1.0] * 8 + [1.0, -1.0] * 2 + [1.0] * 8)
    for budget in (3000, 2**29):
        found = found_gram(workload, budget=budget)
        assert_close(found, expected_gram(workload))
        zero = workload.all.targets[:, 0] < 0
        assert torch.equal(found.diagonal() == 0, zero)
        assert not found[zero].any()
        assert not found[:, zero].any()


def test_a_loss_that_no_output_changes_has_gradients_of_zero():
    workload = probe(scrambled(layers(4, 5, 3)), normal(9, 4), lambda _, targets: targets[:, 0])
    assert not found_gram(workload).any()


def test_other_losses_may_take_the_place_of_the_workloads():
    workload = wide(torch.float64)
    gram = GradientGram(workload, range(40), trainable(workload.network))

    def other(outputs: Tensor, batch: Any) -> Tensor:
        return outputs.square().sum(dim=1) * (1 + batch.ids.to(outputs) % 3)

    gradients = reference.example_gradients(workload.network, workload, everything(workload), losses=other)
    assert_close(gram(workload.network, other), reference.gradient_gram(gradients))
    assert_close(gram(workload.network), expected_gram(workload))


def test_a_loss_that_edits_the_outputs_in_place_is_the_same_loss():
    net = scrambled(nn.Sequential(nn.Linear(4, 5), nn.PReLU(), nn.Linear(5, 3), nn.PReLU()))
    workload = probe(net, normal(9, 4), lambda outputs, targets: half_square(outputs.mul_(3), targets))
    assert_close(found_gram(workload), expected_gram(workload))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("middle", [nn.Tanh, nn.PReLU])
def test_weights_that_are_not_finite_end_nothing(bad, middle):
    workload = probe(scrambled(nn.Sequential(nn.Linear(4, 5), middle(), nn.Linear(5, 3))), normal(9, 4))
    workload.network[0].weight.data[0, 0] = bad
    assert found_gram(workload).shape == (9, 9)


# ---- what is left as it was, and what is refused


@pytest.mark.parametrize("fails", [False, True])
def test_no_trace_is_left_also_where_it_ends_in_an_exception(fails):
    toys = toy(seeded(Noisy, 5, 8, 3), 20, 5, sites=[])
    whole = Forward(lambda self, x: self.slope(self.net(x)), net=toys.net, slope=nn.PReLU().double())
    toys.net = whole.train()
    whole.net.frozen.eval()
    toys.loss(toys.net(toys.inputs), toys.targets).mean().backward()
    optimizer = torch.optim.Adam([weight for weight in whole.parameters() if weight.requires_grad])
    optimizer.step()
    before, calls = snapshot(toys, optimizer), []

    def losses(outputs: Tensor, batch: Any) -> Tensor:
        torch.rand(1)
        calls.append(None)
        if fails and len(calls) == 3:
            raise KeyboardInterrupt
        return half_square(outputs, batch.targets)

    gram = GradientGram(toys, range(20), trainable(whole), budget=4000)
    if fails:
        with pytest.raises(KeyboardInterrupt):
            gram(whole, losses)
    else:
        gram(whole, losses)
        assert gram.exact == ["slope.weight"]
    assert len(calls) > 2
    after = snapshot(toys, optimizer)
    del before["python"], after["python"]  # which the checker of shapes draws from
    assert_same(after, before)


def test_a_loss_that_is_not_one_number_an_example_is_refused():
    workload = probe(layers(4, 3).double(), normal(9, 4), lambda outputs, targets: (outputs - targets).square())
    with pytest.raises(Refusal, match="one loss for each example"):
        found_gram(workload)


def test_a_loss_that_penalises_weights_itself_is_refused():
    net = layers(4, 3).double()
    workload = probe(net, normal(9, 4), lambda *both: half_square(*both) + net[0].weight.square().sum())
    with pytest.raises(Refusal, match=r"a loss that uses parameter '0\.weight' directly"):
        found_gram(workload)


def test_outputs_that_are_not_a_row_an_example_are_refused():
    workload = probe(layers(4, 3).double(), normal(9, 4))
    workload.call = lambda model, inputs: model(inputs).T
    with pytest.raises(Refusal, match=r"outputs of shape \(3, 4\) for 4 examples"):
        found_gram(workload)


@pytest.mark.parametrize("kind", ["autocast", "weights"])
def test_in_bfloat16_the_same_rules_cover_the_model_and_give_its_gram_matrix_as_far_as_that_type_goes(kind):
    parts = [nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)]
    workload = probe(scrambled(nn.Sequential(*parts)), normal(16, 4, 6))
    expected = expected_gram(workload)
    coarse = workload.network.float() if kind == "autocast" else workload.network.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        inputs, targets = (one.to(next(coarse.parameters())) for one in (workload.all.inputs, workload.all.targets))
        other = Probe(coarse, half_square, inputs, targets.float())
        gram = GradientGram(other, range(16), trainable(coarse))
        assert_close(gram(coarse), expected, 0.05)
    assert gram.exact == []
