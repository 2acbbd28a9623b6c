"""The reference's gradients of single examples and what is made of them, against closed forms and hand calculation."""

import itertools
import math

import pytest
import torch
import torch.nn as nn
from sklearn.metrics import silhouette_score

from nfa import reference
from nfa.workload import Batch
from tests.support.toy_models import Noisy, Sequences, Toy, half_square, layers, seeded, tiny_classifier, toy

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def batch_of(toys: Toy) -> Batch:
    return next(toys.batches("train", batch_size=len(toys.inputs)))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- gradients


def test_gradients_of_a_linear_model_with_squared_loss_are_residual_times_input():
    """ℓ = ½‖W x + b − y‖²: ∂ℓ/∂W = r xᵀ, ∂ℓ/∂b = r."""
    toys = toy(nn.Sequential(nn.Linear(4, 3)), 5, 4, sites=["0"])
    residual = (toys.net(toys.inputs) - toys.targets).detach()
    weight = residual[:, :, None] * toys.inputs[:, None, :]
    found = reference.example_gradients(toys.net, toys, batch_of(toys))
    torch.testing.assert_close(found, torch.cat([weight.flatten(1), residual], dim=1), **EXACT)


@pytest.mark.parametrize("build", [lambda: layers(4, 6, 3), lambda: Sequences(4, 5, 3)])
def test_they_add_up_to_the_gradient_of_the_summed_loss(build):
    toys = toy(seeded(build), 3, 2, 4, sites=[])
    found = reference.example_gradients(toys.net, toys, batch_of(toys))
    half_square(toys.net(toys.inputs), toys.targets).sum().backward()
    whole = torch.cat([parameter.grad.flatten() for parameter in toys.net.parameters()])
    torch.testing.assert_close(found.sum(dim=0), whole, **EXACT)


def test_they_agree_with_finite_differences():
    toys, step = toy(seeded(Sequences, 4, 5, 3), 2, 3, 4, sites=[]), 1e-5
    direction = normal(sum(parameter.numel() for parameter in toys.net.parameters()), seed=1)
    found, losses = reference.example_gradients(toys.net, toys, batch_of(toys)) @ direction, []
    start = nn.utils.parameters_to_vector(toys.net.parameters()).detach()
    for sign in (1, -1):
        nn.utils.vector_to_parameters(start + sign * step * direction, toys.net.parameters())
        losses.append(half_square(toys.net(toys.inputs), toys.targets).detach())
    torch.testing.assert_close(found, (losses[0] - losses[1]) / (2 * step), rtol=1e-7, atol=1e-8)


def test_frozen_parameters_are_left_out_unless_they_are_named():
    toys = toy(seeded(Noisy, 4, 6, 3), 5, 4, sites=[])
    whole = reference.example_gradients(toys.net, toys, batch_of(toys))
    trainable = {name: p.numel() for name, p in toys.net.named_parameters() if p.requires_grad}
    assert whole.shape == (5, sum(trainable.values()))
    parts = dict(zip(trainable, whole.split(list(trainable.values()), dim=1), strict=True))
    named = reference.example_gradients(toys.net, toys, batch_of(toys), ["frozen.weight", "readout.bias", "norm.bias"])
    torch.testing.assert_close(named[:, 36:], torch.cat([parts["readout.bias"], parts["norm.bias"]], dim=1), **EXACT)
    assert named[:, :36].abs().max() > 0


def test_a_parameter_that_a_loss_does_not_reach_has_zeros():
    net = nn.Sequential(nn.Linear(4, 3))
    net[0].idle = nn.Linear(2, 2)
    toys = toy(net, 5, 4, sites=[])
    found = reference.example_gradients(net, toys, batch_of(toys))
    assert found.shape == (5, 15 + 6)
    assert (found[:, :15] != 0).all()
    assert not found[:, 15:].any()
    net[0].requires_grad_(False)
    assert not reference.example_gradients(net, toys, batch_of(toys), ["0.idle.weight"]).any()


def test_another_loss_can_be_given_one_example_at_a_time():
    toys, seen = toy(seeded(layers, 4, 3), 5, 4, sites=[]), []

    def first_output(outputs, batch):
        seen.append((tuple(outputs.shape), batch.ids.tolist()))
        return outputs[:, 0]

    found = reference.example_gradients(toys.net, toys, batch_of(toys), ["0.weight"], first_output)
    torch.testing.assert_close(found, torch.cat([toys.inputs, torch.zeros(5, 8)], dim=1), **EXACT)
    assert seen == [((1, 3), [place]) for place in range(5)]


def test_a_real_workload_in_float32_is_differentiated_in_float64_and_stays_as_it_was():
    workload = tiny_classifier()
    model, batch = workload.model(), next(workload.batches("train", batch_size=7))
    before = [parameter.clone() for parameter in model.parameters()]
    found = reference.example_gradients(model, workload, batch)
    assert found.dtype is torch.float64
    workload.losses(workload.outputs(model, batch), batch).sum().backward()
    whole = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    torch.testing.assert_close(found.sum(dim=0).float(), whole, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))
    assert batch.inputs.dtype is torch.float32
    assert model.training


# ---- Gram matrix and cosines


def test_the_gram_matrix_and_its_cosines():
    gradients = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0], [-6.0, -8.0]])
    gram = reference.gradient_gram(gradients)
    expected = torch.tensor([[1, 0.8, -1], [0.8, 1, -0.8], [-1, -0.8, 1]], dtype=torch.float64)
    assert gram.tolist() == [[25, 0, 8, -50], [0, 0, 0, 0], [8, 0, 4, -16], [-50, 0, -16, 100]]
    values, kept = reference.cosines(gram)
    assert kept == [0, 2, 3]
    torch.testing.assert_close(values, expected, **EXACT)


def test_tiny_gradients_have_cosines_and_zero_ones_have_none():
    values, _ = reference.cosines(torch.full((2, 2), 1e-200, dtype=torch.float64))
    torch.testing.assert_close(values, torch.ones(2, 2).double(), **EXACT)
    assert reference.cosines(torch.zeros(3, 3))[0].shape == (0, 0)


# ---- noise scale


def test_the_noise_scale_of_gradients_of_batches_of_1_and_n():
    """|G|² = (n |ḡ|² − mean|γ|²) / (n − 1), tr Σ = (mean|γ|² − |ḡ|²) n / (n − 1): McCandlish et al. 2018, app. A.1."""
    gradients, n = normal(6, 4), 6
    mean, second = gradients.mean(dim=0).square().sum(), gradients.square().sum(dim=1).mean()
    expected = ((n * mean - second) / (n - 1), (second - mean) * n / (n - 1))
    assert reference.noise_scale(gradients) == pytest.approx(tuple(map(float, expected)), rel=1e-12)
    assert reference.noise_scale(gradients)[1] == pytest.approx(float(gradients.T.cov().trace()), rel=1e-12)
    assert reference.noise_scale(torch.tensor([[3.0, 4.0]] * 3)) == (25, 0)


def test_the_noise_scale_has_no_bias():
    """Its mean over all samples of 3 from 4 gradients, drawn with replacement, is that of the 4 themselves."""
    population = normal(4, 3)
    found = [reference.noise_scale(population[list(drawn)]) for drawn in itertools.product(range(4), repeat=3)]
    G = population.mean(dim=0)
    assert sum(g for g, _ in found) / 64 == pytest.approx(float(G.square().sum()), rel=1e-9)
    trace = (population - G).square().sum() / 4
    assert sum(noise for _, noise in found) / 64 == pytest.approx(float(trace), rel=1e-9)


CLASSED = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
CLASSES = torch.tensor([7, 7, 2, 2, 2])


def test_the_noise_scale_by_class_by_hand():
    """m₇₇ = 3, m₂₂ = (1 + 1 + 3)/3, m₇₂ = (2+3+4+0+3+6)/6 = 3; mean squares 7 and (1+2+5)/3; shares 2/5 and 3/5."""
    squared = 0.16 * 3 + 0.36 * 5 / 3 + 2 * 0.24 * 3
    expected = (squared, 0.4 * 7 + 0.6 * 8 / 3 - squared)
    assert reference.noise_scale(CLASSED, CLASSES) == pytest.approx(expected, rel=1e-12)
    assert reference.noise_scale(CLASSED, CLASSES, {7: 0.4, 2: 0.6}) == pytest.approx(expected, rel=1e-12)


def test_shares_of_the_classes_may_be_others_than_those_of_the_examples():
    assert reference.noise_scale(CLASSED, CLASSES, {7: 1.0, 2: 0.0}) == pytest.approx((3, 4), rel=1e-12)
    squared = (3 + 5 / 3 + 6) / 4
    expected = (squared, 3.5 + 4 / 3 - squared)
    assert reference.noise_scale(CLASSED, CLASSES, {7: 0.5, 2: 0.5}) == pytest.approx(expected, rel=1e-12)


def test_one_class_is_no_classes_and_two_classes_are_not():
    plain = reference.noise_scale(CLASSED)
    assert reference.noise_scale(CLASSED, torch.ones(5, dtype=torch.long)) == plain
    assert reference.noise_scale(CLASSED, CLASSES)[0] != pytest.approx(plain[0], rel=1e-3)


def test_where_the_noise_scale_is_undefined_it_is_refused():
    with pytest.raises(ValueError, match="needs two"):
        reference.noise_scale(CLASSED[:1])
    with pytest.raises(ValueError, match="needs two"):
        reference.noise_scale(CLASSED[:3], CLASSES[:3])
    with pytest.raises(ValueError, match=r"classes \[2\], but the examples are of \[2, 7\]"):
        reference.noise_scale(CLASSED, CLASSES, {2: 1.0})


# ---- silhouette and participation ratio


@pytest.mark.parametrize("classes", [[0, 0, 0, 1, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2, 0, 3], [5, 5, 5, 5, 5, 5, 5, 1]])
def test_the_silhouette_is_scikit_learns(classes):
    points = normal(8, 3)
    distances = torch.cdist(points, points).fill_diagonal_(0)
    expected = silhouette_score(distances.numpy(), classes, metric="precomputed")
    assert reference.silhouette(distances, torch.tensor(classes)) == pytest.approx(expected, abs=1e-12)


def test_the_silhouette_of_examples_that_are_all_the_same_is_0():
    assert reference.silhouette(torch.zeros(4, 4), torch.tensor([0, 0, 1, 1])) == 0


@pytest.mark.parametrize("classes", [[0, 0, 0], [0, 1, 2]])
def test_no_silhouette_of_one_class_or_of_a_class_for_each_example(classes):
    with pytest.raises(ValueError, match="undefined"):
        reference.silhouette(torch.ones(3, 3), torch.tensor(classes))


def test_the_participation_ratio_in_closed_form():
    Q = torch.linalg.qr(normal(5, 5)).Q
    for eigenvalues, expected in (([1, 1, 1, 1, 1], 5), ([4, 0, 0, 0, 0], 1), ([3, 1, 0, 0, 0], 1.6)):
        gram = Q @ torch.tensor(eigenvalues).double().diag() @ Q.T
        assert reference.participation_ratio(gram) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="undefined"):
        reference.participation_ratio(torch.zeros(3, 3))


# ---- GHM


def two_logits(*probabilities: float) -> torch.Tensor:
    """Logits [n 2] whose first class has these probabilities."""
    return torch.tensor([[math.log(p / (1 - p)), 0.0] for p in probabilities], dtype=torch.float64)


def test_ghm_c_by_hand():
    """g = 0.1, 0.05, 0.9, 0.45 in four bins of 0.25: counts 2, 2, 1, 1; 1/count of mean 3/4."""
    labels = torch.tensor([0, 0, 1, 0])
    weights, loss = reference.ghm_c(two_logits(0.9, 0.95, 0.9, 0.55), labels, bins=4, alpha=1)
    torch.testing.assert_close(weights, torch.tensor([2, 2, 4, 4]).double() / 3, **EXACT)
    expected = -sum(w * math.log(p) for w, p in zip((2 / 3, 2 / 3, 4 / 3, 4 / 3), (0.9, 0.95, 0.1, 0.55), strict=True))
    assert float(loss) == pytest.approx(expected / 4, rel=1e-12)


def test_ghm_c_with_alpha_one_weighs_every_occupied_bin_equally_and_with_alpha_zero_every_example():
    logits, labels = normal(40, 5), torch.arange(40) % 5
    g = 1 - torch.softmax(logits, dim=1)[torch.arange(40), labels]
    weights, _ = reference.ghm_c(logits, labels, bins=7, alpha=1)
    sums = torch.zeros(7).double().index_add(0, (g * 7).long(), weights)
    torch.testing.assert_close(sums[sums > 0], torch.full_like(sums[sums > 0], 40 / int((sums > 0).sum())), **EXACT)
    weights, loss = reference.ghm_c(logits, labels, bins=7, alpha=0)
    assert weights.tolist() == [1] * 40
    torch.testing.assert_close(loss, nn.functional.cross_entropy(logits, labels), **EXACT)


def test_a_larger_alpha_flattens_more_and_the_mean_weight_stays_one():
    logits, labels = two_logits(0.9, 0.95, 0.9, 0.55), torch.zeros(4, dtype=torch.long)
    weights, _ = reference.ghm_c(logits, labels, bins=2, alpha=0.5)
    torch.testing.assert_close(weights, torch.ones(4).double(), **EXACT)
    for alpha in (0.5, 2):
        weights, _ = reference.ghm_c(logits, labels, bins=4, alpha=alpha)
        assert float(weights[3] / weights[0]) == pytest.approx(3**alpha, rel=1e-12)
        assert float(weights.mean()) == pytest.approx(1, rel=1e-12)


def test_a_gradient_norm_of_one_lies_in_the_last_bin_and_of_zero_in_the_first():
    logits, labels = torch.tensor([[1000.0, 0.0], [1000.0, 0.0], [0.0, 2.0]]), torch.tensor([1, 0, 0])
    weights, loss = reference.ghm_c(logits, labels, bins=3, alpha=1, accumulated=torch.tensor([1.0, 2.0, 4.0]))
    torch.testing.assert_close(weights, torch.tensor([1, 4, 1]).double() / 2, **EXACT)
    assert float(loss) == pytest.approx((1000 + math.log(1 + math.e**2)) / 6, rel=1e-12)


def test_a_gradient_norm_on_an_edge_lies_above_it():
    """g = 4 / √(4² + 3²) = 0.8, the lower edge of the last of five bins."""
    counts = torch.tensor([0.0, 0, 0, 0, 5])
    weights, _ = reference.ghm_r(torch.full((1, 2), 4.0), torch.zeros(1, 2), 5, 1, 3, counts)
    assert weights.tolist() == [[1, 1]]


def test_accumulated_counts_take_the_place_of_the_batchs_own_and_must_not_be_zero():
    logits, labels = two_logits(0.9, 0.4), torch.zeros(2, dtype=torch.long)
    weights, _ = reference.ghm_c(logits, labels, 2, 1, torch.tensor([0.3, 0.1]))
    torch.testing.assert_close(weights, torch.tensor([0.5, 1.5]).double(), rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="count is 0"):
        reference.ghm_c(logits, labels, 2, 1, torch.tensor([0.0, 1.0]))


def test_the_weights_are_constants_to_differentiation():
    logits, labels = normal(6, 3).requires_grad_(), torch.arange(6) % 3
    weights, loss = reference.ghm_c(logits, labels, 5, 0.75)
    (found,) = torch.autograd.grad(loss, logits)
    residual = torch.softmax(logits, dim=1) - torch.eye(3, dtype=torch.float64)[labels]
    torch.testing.assert_close(found, weights[:, None] * residual.detach() / 6, **EXACT)


def test_ghm_r_by_hand():
    """μ = 3 and d = 4, 0, −4, 1.25: g = 0.8, 0, 0.8, 5/13 in bins of 1/2, counts 2 and 2; ASL₁ = 2, 0, 2, 0.25."""
    outputs, targets = torch.tensor([[4.0, 1.0], [-3.0, 1.25]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    weights, loss = reference.ghm_r(outputs, targets, bins=2, alpha=1, mu=3)
    assert weights.tolist() == [[1, 1], [1, 1]]
    assert float(loss) == pytest.approx(4.25 / 4, rel=1e-12)
    weights, loss = reference.ghm_r(outputs, targets, bins=4, alpha=1, mu=3)
    torch.testing.assert_close(weights, torch.tensor([[2, 4], [2, 4]]).double() / 3, **EXACT)
    assert float(loss) == pytest.approx((2 * 2 + 0 + 2 * 2 + 4 * 0.25) / 3 / 4, rel=1e-12)


def test_ghm_r_has_the_derivative_of_its_gradient_norm_and_mu_of_the_paper():
    outputs, targets = (normal(5, 3) / 50).requires_grad_(), torch.zeros(5, 3)
    weights, loss = reference.ghm_r(outputs, targets, 10, 0.75)
    assert weights.shape == (5, 3)
    assert float(weights.mean()) == pytest.approx(1, rel=1e-12)
    (found,) = torch.autograd.grad(loss, outputs)
    d = outputs.detach()
    torch.testing.assert_close(found, weights * d / (d.square() + 0.02**2).sqrt() / 15, **EXACT)
