"""Histograms of gradient norms: the same however examples are batched; their weights are constants of all of them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from nfa import reference
from nfa.registry.families.mlp.ghm import TERMS, Harmonised, Histogram
from nfa.workload import Batch, MeanLoss

EXACT = {"rtol": 1e-12, "atol": 1e-12}
N, K, BINS = 60, 4, 8


def outputs_and_batch(loss: str) -> tuple[Tensor, Batch]:
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(K, (N,), generator=random)
    outputs = torch.randn(N, K, generator=random, dtype=torch.float64)
    outputs = 2 * outputs if loss == "cross-entropy" else torch.eye(K)[labels] + outputs / 50
    return outputs, Batch(None, labels, torch.arange(N))


def in_batches(outputs: Tensor, batch: Batch, size: int) -> list[tuple[Tensor, Batch]]:
    return [(outputs[part], batch.take(part.tolist())) for part in torch.arange(N).split(size)]


def harmonised(loss: str, alpha: float = 1.0) -> Harmonised:
    return Harmonised(TERMS[loss], bins=BINS, momentum=0.75, alpha=alpha)


def filled(loss: str, size: int = N, alpha: float = 1.0) -> Histogram:
    histogram = harmonised(loss, alpha).histogram()
    for outputs, batch in in_batches(*outputs_and_batch(loss), size):
        histogram.update(outputs, batch)
    return histogram


def by_reference(loss: str, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """g, weights and the weighted loss."""
    outputs, batch = outputs_and_batch(loss)
    hot = torch.eye(K, dtype=torch.float64)[batch.targets]
    if loss == "cross-entropy":
        norms = 1 - (torch.softmax(outputs, dim=1) * hot).sum(dim=1)
        return norms, *reference.ghm_c(outputs, batch.targets, BINS, alpha)
    d = outputs - hot
    return (d / (d.square() + 0.02**2).sqrt()).abs(), *reference.ghm_r(outputs, hot, BINS, alpha)


@pytest.mark.parametrize("alpha", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("loss", TERMS)
def test_shares_weights_and_loss_are_the_references(loss, alpha):
    values, (norms, weights, weighted) = filled(loss, alpha=alpha).values(), by_reference(loss, alpha)
    counts, _ = np.histogram(norms.flatten(), bins=BINS, range=(0, 1))
    assert [values[f"ghm/share_bin_{j}"] for j in range(BINS)] == pytest.approx(counts / counts.sum(), rel=1e-12)
    assert values["ghm/loss"] == pytest.approx(float(weighted), rel=1e-12)
    places = np.minimum(norms.flatten().numpy() * BINS, BINS - 1).astype(int)
    found = [values[f"ghm/weight_bin_{j}"] for j in places]
    assert found == pytest.approx(weights.flatten().tolist(), rel=1e-12)


@pytest.mark.parametrize("size", [1, 7, 59])
@pytest.mark.parametrize("loss", TERMS)
def test_values_do_not_depend_on_the_batches(loss, size):
    found, whole = filled(loss, size).values(), filled(loss).values()
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        assert found[name] == (pytest.approx(value, rel=1e-12) if name == "ghm/loss" else value)


@pytest.mark.parametrize("loss", TERMS)
def test_shares_and_the_mean_weight_are_one_altogether(loss):
    values = filled(loss).values()
    shares = {j: values[f"ghm/share_bin_{j}"] for j in range(BINS)}
    assert sum(shares.values()) == pytest.approx(1, rel=1e-12)
    mean = sum(share * values[f"ghm/weight_bin_{j}"] for j, share in shares.items() if share)
    assert mean == pytest.approx(1, rel=1e-12)


def test_an_empty_bin_has_a_share_of_zero_and_no_weight():
    histogram = harmonised("cross-entropy").histogram()
    histogram.update(torch.zeros(5, 2), Batch(None, torch.tensor([0, 1, 0, 1, 1]), torch.arange(5)))
    values = histogram.values()
    assert {name for name in values if "weight" in name} == {f"ghm/weight_bin_{BINS // 2}"}
    assert [values[f"ghm/share_bin_{j}"] for j in range(BINS)] == [float(j == BINS // 2) for j in range(BINS)]
    assert values[f"ghm/weight_bin_{BINS // 2}"] == 1
    assert values["ghm/loss"] == pytest.approx(np.log(2), rel=1e-6)


@pytest.mark.parametrize("size", [1, 7, N])
@pytest.mark.parametrize("loss", TERMS)
def test_fixed_losses_of_examples_are_weighted_by_constants_of_all_that_were_seen(loss, size):
    """Whatever batch an example comes in; they add up to the loss over all."""
    outputs, batch = outputs_and_batch(loss)
    losses = harmonised(loss, 0.75).fixed(in_batches(outputs, batch, size))
    whole = losses(outputs, batch)
    assert whole.shape == (N,)
    _, weights, weighted = by_reference(loss, 0.75)
    torch.testing.assert_close(whole.mean(), weighted, **EXACT)
    plain = TERMS[loss](outputs, batch.targets).losses
    expected = weights * plain if loss == "cross-entropy" else (weights * plain).mean(dim=1)
    torch.testing.assert_close(whole, expected, **EXACT)
    for part in in_batches(outputs, batch, 13):
        torch.testing.assert_close(losses(*part), whole[part[1].ids], **EXACT)


@pytest.mark.parametrize("loss", TERMS)
def test_fixed_losses_have_the_weighted_gradients_of_single_examples(loss):
    outputs, batch = outputs_and_batch(loss)
    losses = harmonised(loss).fixed([(outputs, batch)])
    _, weights, _ = by_reference(loss, 1.0)
    leaf = outputs.clone().requires_grad_()
    (found,) = torch.autograd.grad(losses(leaf, batch).sum(), leaf)
    leaf = outputs.clone().requires_grad_()
    (plain,) = torch.autograd.grad(TERMS[loss](leaf, batch.targets).losses.sum(), leaf)
    scale = weights[:, None] if loss == "cross-entropy" else weights / K
    torch.testing.assert_close(found, scale * plain, **EXACT)


def test_a_histogram_neither_changes_the_training_s_counts_nor_depends_on_them():
    objective, (outputs, batch) = harmonised("cross-entropy"), outputs_and_batch("cross-entropy")
    objective(outputs[:9], batch.take(range(9)))
    objective.step()
    before = objective.counts.clone()
    objective.fixed([(outputs, batch)])
    histogram = objective.histogram()
    histogram.update(outputs, batch)
    assert torch.equal(objective.counts, before)
    assert histogram.values() == filled("cross-entropy").values()


def test_the_plain_objective_fixes_nothing():
    losses = MeanLoss(lambda outputs, batch: (outputs - batch.targets).square())
    batch = Batch(None, torch.tensor([1.0, 2.0]), torch.arange(2))
    assert losses.fixed([])(torch.zeros(2), batch).tolist() == [1, 4]
    assert losses(torch.zeros(2), batch) == 2.5
    assert losses.state_dict() == {}
