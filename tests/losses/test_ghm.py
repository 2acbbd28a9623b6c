"""GHM: weights, losses and gradients are the reference's; weights are constants of mean 1, whatever the batch is."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfa import reference
from nfa.registry.families.mlp.ghm import (
    MU,
    TERMS,
    Harmonised,
    Terms,
    bin_of,
    bin_weights,
    classification,
    regression,
)
from nfa.workload import Batch

EXACT = {"rtol": 1e-12, "atol": 1e-12}
SIZES = [12, 5, 1, 30]  # of the batches of a sequence
Example = tuple[Tensor, Tensor]
options = st.fixed_dictionaries({"bins": st.integers(1, 12), "alpha": st.sampled_from([0.0, 0.5, 0.75, 1.0, 2.5])})
many = settings(max_examples=15)


def examples(n: int, k: int = 4, *, seed: int = 0, scale: float = 3) -> Example:
    random = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, k, generator=random, dtype=torch.float64)
    return logits, torch.randint(k, (n,), generator=random)


def batch(labels: Tensor) -> Batch:
    return Batch(None, labels, torch.arange(len(labels)))


def objective(
    loss: str = "cross-entropy",
    *,
    bins: int = 10,
    momentum: float = 0.0,
    alpha: float = 1.0,
    terms: Callable | None = None,
) -> Harmonised:
    return Harmonised(terms or TERMS[loss], bins=bins, momentum=momentum, alpha=alpha)


def one_hot(labels: Tensor, k: int = 4) -> Tensor:
    return torch.eye(k, dtype=torch.float64)[labels]


def counted(loss: str, logits: Tensor, labels: Tensor, bins: int) -> Tensor:
    """Histogram of g, by numpy and the definitions."""
    if loss == "cross-entropy":
        norms = 1 - torch.softmax(logits, dim=1)[range(len(labels)), labels]
    else:
        d = logits - one_hot(labels, logits.shape[1])
        norms = d.abs() / (d.square() + 0.02**2).sqrt()
    return torch.tensor(np.histogram(norms.flatten(), bins=bins, range=(0, 1))[0], dtype=torch.float64)


def expected_loss(
    loss: str, labels: Tensor, logits: Tensor, *, bins: int, alpha: float, accumulated: Tensor | None = None
) -> Tensor:
    """By the reference."""
    if loss == "cross-entropy":
        return reference.ghm_c(logits, labels, bins, alpha, accumulated)[1]
    return reference.ghm_r(logits, one_hot(labels, logits.shape[1]), bins, alpha, accumulated=accumulated)[1]


def sequence(loss: str, bins: int, momentum: float, seed: int, sizes: Sequence[int]) -> Iterator[tuple[Tensor, ...]]:
    """Logits, labels and accumulated counts of batches of these sizes."""
    accumulated = None
    for number, n in enumerate(sizes):
        logits, labels = examples(n, seed=100 * seed + number)
        now = counted(loss, logits, labels, bins)
        accumulated = now if accumulated is None else momentum * accumulated + (1 - momentum) * now
        yield logits, labels, accumulated


def with_gradient(compute: Callable[[Tensor], Tensor], logits: Tensor) -> Example:
    logits = logits.clone().requires_grad_()
    value = compute(logits)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@pytest.mark.parametrize("loss", TERMS)
@given(options, st.integers(0, 99), st.integers(1, 40), st.integers(2, 6))
@many
def test_loss_and_gradient_of_a_batch_are_the_references(loss, option, seed, n, k):
    logits, labels = examples(n, k, seed=seed, scale=3 if loss == "cross-entropy" else 0.05)
    found = with_gradient(partial(objective(loss, **option), batch=batch(labels)), logits)
    wanted = with_gradient(partial(expected_loss, loss, labels, **option), logits)
    torch.testing.assert_close(found, wanted, **EXACT)


@pytest.mark.parametrize("loss", TERMS)
@given(options, st.integers(0, 99), st.sampled_from([0.0, 0.3, 0.75, 0.99]), st.permutations(SIZES))
@many
def test_counts_are_averaged_over_batches_from_the_first_ones_on(loss, option, seed, momentum, sizes):
    harmonised = objective(loss, momentum=momentum, **option)
    for logits, labels, counts in sequence(loss, option["bins"], momentum, seed, sizes):
        found = with_gradient(partial(harmonised, batch=batch(labels)), logits)
        wanted = with_gradient(partial(expected_loss, loss, labels, accumulated=counts, **option), logits)
        torch.testing.assert_close(found, wanted, **EXACT)
        harmonised.step()
        torch.testing.assert_close(harmonised.counts, counts, **EXACT)


@given(options, st.integers(0, 99), st.sampled_from([0.0, 0.75]))
@many
def test_weights_are_the_references_and_their_mean_over_each_batch_is_one(option, seed, momentum):
    """The objective of losses x is mean(w · x): its gradient shows w, its value for x = 1 their mean."""
    harmonised = objective(momentum=momentum, terms=lambda x, g: Terms(g, x), **option)
    for logits, labels, counts in sequence("cross-entropy", option["bins"], momentum, seed, SIZES):
        norms = 1 - torch.softmax(logits, dim=1)[range(len(labels)), labels]
        mean, shares = with_gradient(partial(harmonised, batch=batch(norms)), torch.ones_like(norms))
        assert float(mean) == pytest.approx(1, rel=1e-12)
        wanted, _ = reference.ghm_c(logits, labels, **option, accumulated=counts)
        torch.testing.assert_close(shares * len(labels), wanted, **EXACT)
        harmonised.step()


def test_without_momentum_and_with_alpha_one_it_is_the_formula_of_the_paper():
    """w = N / (R_j · non-empty bins)."""
    logits, labels = examples(50)
    now = counted("cross-entropy", logits, labels, 10)
    places = bin_of(classification(logits, labels).norms, 10)
    paper = 50 / (now[places] * (now > 0).sum())
    torch.testing.assert_close(bin_weights(now, 1.0, now)[places], paper, **EXACT)
    loss = (paper * F.cross_entropy(logits, labels, reduction="none")).sum() / 50
    torch.testing.assert_close(objective()(logits, batch(labels)), loss, **EXACT)


@pytest.mark.parametrize("momentum", [0.0, 0.75])
def test_with_alpha_zero_it_is_the_plain_mean(momentum):
    classify, regress = (objective(loss, alpha=0.0, momentum=momentum) for loss in TERMS)
    for n in SIZES:
        logits, labels = examples(n, seed=n)
        torch.testing.assert_close(classify(logits, batch(labels)), F.cross_entropy(logits, labels), **EXACT)
        asl1 = ((logits - one_hot(labels)).square() + MU**2).sqrt() - MU
        torch.testing.assert_close(regress(logits, batch(labels)), asl1.mean(), **EXACT)
        classify.step()
        regress.step()


@pytest.mark.parametrize("loss", TERMS)
def test_gradient_norms_and_weights_carry_no_gradient(loss):
    logits, labels = examples(9)
    norms, losses = TERMS[loss](logits.requires_grad_(), labels)
    assert losses.requires_grad
    assert not norms.requires_grad
    harmonised = objective(loss, momentum=0.5)
    harmonised(logits, batch(labels))
    harmonised.step()
    assert not harmonised.counts.requires_grad


@pytest.mark.parametrize(("loss", "k"), [("cross-entropy", 1), ("mse", 4)])
def test_the_gradient_norm_is_the_size_of_the_derivative_of_the_loss(loss, k):
    """Of cross-entropy by the label's logit, of ASL1 by the output."""
    logits, labels = examples(20, scale=1 if k == 1 else 0.05)
    norms, losses = TERMS[loss](logits.requires_grad_(), labels)
    slopes = torch.autograd.grad(losses.sum(), logits)[0].abs()
    torch.testing.assert_close(norms, slopes.gather(1, labels[:, None])[:, 0] if k == 1 else slopes, **EXACT)


@pytest.mark.parametrize("bins", [1, 2, 3, 7, 10, 30])
def test_a_gradient_norm_of_exactly_one_is_in_the_last_bin_and_of_zero_in_the_first(bins):
    for dtype in (torch.float32, torch.float64):
        assert bin_of(torch.tensor([0.0, 1.0], dtype=dtype), bins).tolist() == [0, bins - 1]
        logits = torch.tensor([[1e4, 0.0]], dtype=dtype)
        assert classification(logits, torch.tensor([1])).norms.tolist() == [1]
        assert regression(logits, torch.zeros_like(logits)).norms.tolist()[0][1] == 0


def test_regression_weighs_each_output_by_itself():
    """Bins of g < ½ and ≥ ½, d = 0 five times and 1 once: weights 6/10 and 3."""
    outputs = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    found, gradient = with_gradient(partial(objective("mse", bins=2), batch=batch(torch.zeros(2).long())), outputs)
    asl1 = (1 + MU**2) ** 0.5 - MU
    assert float(found) == pytest.approx(3 * asl1 / 6, rel=1e-12)
    slope = 3 / (1 + MU**2) ** 0.5 / 6
    torch.testing.assert_close(gradient, torch.tensor([[0, 0, 0], [0, slope, 0]], dtype=torch.float64), **EXACT)


def test_a_bin_that_was_empty_until_now_has_a_finite_weight():
    harmonised = objective(terms=lambda x, g: Terms(g, x), bins=2, momentum=0.75, alpha=2.0)
    losses, low, mixed = torch.ones(4), torch.zeros(4), torch.tensor([0.0, 0.0, 0.0, 1.0])
    harmonised(losses, batch(low))
    harmonised.step()
    _, shares = with_gradient(partial(harmonised, batch=batch(mixed)), losses)
    raw = torch.tensor([3.75**-2] * 3 + [0.25**-2])
    torch.testing.assert_close(shares * 4, raw / raw.mean())


def test_counts_change_with_steps_only():
    harmonised, (logits, labels) = objective(momentum=0.75), examples(9)
    first = harmonised(logits, batch(labels))
    assert harmonised.counts is None
    assert harmonised.state_dict() == {}
    assert harmonised(logits, batch(labels)) == first
    harmonised.step()
    kept = harmonised.state_dict()["counts"].clone()
    harmonised(logits[:5], batch(labels[:5]))
    assert torch.equal(harmonised.state_dict()["counts"], kept)


@pytest.mark.parametrize("loss", TERMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ["right", "wrong", "both", "equal", "negative"])
def test_extreme_logits_and_perfect_predictions_have_finite_values(loss, dtype, case):
    labels = torch.tensor([0, 1, 2, 1])
    hot = one_hot(labels, 3).to(dtype)
    logits = {
        "right": 1e4 * (2 * hot - 1),
        "wrong": 1e4 * (1 - 2 * hot),
        "both": 1e4 * hot * torch.tensor([[1], [-1], [1], [-1]]),
        "equal": hot,
        "negative": torch.full_like(hot, -1e4),
    }[case]
    harmonised = objective(loss, momentum=0.75)
    for _ in range(2):
        value, gradient = with_gradient(partial(harmonised, batch=batch(labels)), logits)
        harmonised.step()
        assert value.dtype is dtype
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()
    perfect = case == ("right" if loss == "cross-entropy" else "equal")
    assert (float(value) == 0 and not gradient.any()) is perfect
    histogram = harmonised.histogram()
    histogram.update(logits, batch(labels))
    assert np.isfinite(list(histogram.values().values())).all()
