"""Faults of programs that compare gradients of examples, and tests that fail with them."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from nfa import reference
from nfa.errors import Refusal
from nfa.figures.gradient_pictures import DrawnDirections, gradient_montage, gradient_similarities
from nfa.maths.embedding import fitting_perplexity, tsne
from nfa.measures.evaluation import record_outputs
from nfa.measures.gradient_gram import GradientGram, choose_parameters
from nfa.registry import tracking
from nfa.registry.analyses.config import GradientDirectionsConfig
from nfa.studies.gradient_directions import ProbeExamples, gradient_directions
from tests.support.gradient_direction_runs import array, directed, example_gradients
from tests.support.toy_models import Noisy, seeded, tiny_classifier, toy

# The text spoke of the samples within a batch, and the program compared the gradients of batches.

EXAMPLES, BATCH, EPOCH = 40, 8, 2
UNITS = {"sample": {}, f"batch of {BATCH}": {"unit": "batch", "batch_size": BATCH}}


@pytest.mark.parametrize("unit", UNITS)
def test_what_is_compared_is_what_is_said(changeable, monkeypatch, unit):
    figures: dict[str, Figure] = {}
    store, source = changeable.store, changeable.run_id
    monkeypatch.setattr(tracking, "save_picture", lambda _, figure, name, **__: figures.setdefault(name, figure))
    monkeypatch.setattr(tracking, "put_images", lambda *_: None)
    run_id = directed(store, pictures=True, run_id=source, epochs=str(EPOCH), n=EXAMPLES, device="cpu", **UNITS[unit])
    rows = example_gradients(source, EPOCH, EXAMPLES)
    if unit != "sample":
        rows = rows.unflatten(0, (-1, BATCH)).mean(dim=1)
    expected, kept = reference.cosines(reference.gradient_gram(rows))
    np.testing.assert_allclose(array(store, run_id, "cosines", EPOCH), expected, atol=1e-5)
    assert array(store, run_id, "kept", EPOCH).tolist() == kept
    for file in ("config.json", "gradient_directions.json"):
        assert store.json(run_id, file)["conventions"]["unit"] == unit
    for name in ("gradient_montage", "gradient_directions"):
        said = "40 examples" + ("" if unit == "sample" else " in batches of 8")
        assert " ".join(figures[name].get_suptitle().split()).endswith(said)  # lines are broken
    mean = float((expected.sum() - len(kept)) / (len(kept) * (len(kept) - 1)))
    found = [value for key, _, value in store.metrics(run_id) if key == "gradient/mean_cosine"]
    assert found == pytest.approx([mean], rel=1e-4)


@pytest.mark.parametrize("what", ["examples", "batches of 8"])
def test_a_picture_names_its_rows(what):
    shown = DrawnDirections(np.eye(4), np.zeros((4, 2)), np.ones(4), np.ones(4), what=what)
    assert gradient_similarities(shown, title="").axes[0].get_xlabel() == what
    by_class = dataclasses.replace(shown, classes=np.array([0, 0, 1, 1]))
    assert gradient_similarities(by_class, title="").axes[0].get_xlabel().startswith(what)


def test_the_two_are_different_numbers():
    """Means of 8 have less noise, so they point the same way more."""
    rows = torch.randn(EXAMPLES, 6, generator=torch.Generator().manual_seed(0)) + 1
    means = rows.unflatten(0, (-1, BATCH)).mean(dim=1)
    single, batch = (reference.cosines(reference.gradient_gram(part))[0] for part in (rows, means))
    assert batch.mean() > single.mean() + 0.3


# The analysis had a loss of its own and drew batches anew at each checkpoint, unseeded and in training mode, so that
# dropout and moving batch statistics were in what it compared.

PROBED = 24


@pytest.mark.parametrize("weighting", ["none", "ghm"])
@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
def test_the_mean_of_the_gradients_is_that_of_what_was_trained_on(loss, weighting):
    """1ᵀK1/n² = ‖∇ objective(probe)‖²."""
    workload = tiny_classifier(loss=loss, weighting=weighting)
    model, ids, seen = workload.model(), workload.ids("probe")[:PROBED], []
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)  # so that examples differ in their norms
    (batch,) = workload.batches("train", batch_size=PROBED, ids=ids)
    record_outputs(model, workload, [batch], lambda *heard: seen.append(heard))
    losses = workload.objective().fixed(seen)
    K = GradientGram(workload, ids, choose_parameters(workload, model))(model, losses)
    workload.objective()(workload.outputs(model, batch), batch).backward()
    squared = sum(float(parameter.grad.double().square().sum()) for parameter in model.parameters())
    assert float(K.mean()) == pytest.approx(squared, rel=1e-4)
    plain = GradientGram(workload, ids, choose_parameters(workload, model))(model)
    assert torch.allclose(plain, K, rtol=1e-3) == (weighting == "none")


def test_nothing_drops_out_and_no_batch_statistics_move_or_are_used():
    toys = toy(seeded(Noisy, 4, 6, 3), PROBED, 4, sites=["first"])
    toys.net.train()
    modes = {name: module.training for name, module in toys.net.named_modules()}
    state = {name: value.clone() for name, value in toys.net.state_dict().items()}
    gram = GradientGram(toys, range(PROBED), choose_parameters(toys, toys.net))
    found = [gram(toys.net) for _ in range(2)]
    assert torch.equal(*found)
    batch = next(toys.batches("train", batch_size=PROBED))
    exact = reference.gradient_gram(reference.example_gradients(toys.net, toys, batch))
    torch.testing.assert_close(found[0], exact, rtol=1e-9, atol=1e-12)
    assert {name: module.training for name, module in toys.net.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in toys.net.state_dict().items())


def test_the_examples_are_the_first_of_the_stored_probe_in_its_order_at_every_checkpoint(changeable):
    store, source, found = changeable.store, changeable.run_id, []
    asked = {"run_id": source, "n": PROBED, "device": "cpu"}
    for seed, epochs in enumerate(("1,2,4", "2,4")):  # another list is another analysis: nothing is copied
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        found.append(directed(store, epochs=epochs, **asked))
    probe = store.json(source, "example_ids.json")["probe"]
    assert [store.json(run_id, "config.json")["examples"] for run_id in found] == [probe[:PROBED]] * 2
    for epoch in (2, 4):
        for key in ("cosines", "norms", "losses", "kept", "draws"):
            np.testing.assert_array_equal(*(array(store, run_id, key, epoch) for run_id in found))


# A map "of directions" was made of the gradients themselves, so that an example lay where the size of its gradient
# put it.

MAPPED = 40


def mapped(rows: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and positions."""
    cosines = gradient_directions(rows @ rows.T, ProbeExamples(torch.zeros(MAPPED)), seed=0).arrays["cosines"]
    return cosines, tsne(cosines, perplexity=fitting_perplexity(MAPPED), seed=0)


def gradients() -> tuple[torch.Tensor, torch.Tensor]:
    """Two directions, by turns; and sizes between 2⁻⁸ and 2⁸, which float64 multiplies without rounding."""
    random = torch.Generator().manual_seed(0)
    directions = torch.randn(2, 12, dtype=torch.float64, generator=random)[torch.arange(MAPPED) % 2]
    rows = directions + 0.3 * torch.randn(MAPPED, 12, dtype=torch.float64, generator=random)
    return rows, 2.0 ** torch.randint(-8, 9, (MAPPED, 1), generator=random)


def test_sizes_of_gradients_move_nothing():
    rows, sizes = gradients()
    for plain, scaled in zip(mapped(rows), mapped(sizes * rows), strict=True):
        assert np.array_equal(plain, scaled)


def test_neighbours_are_those_of_one_direction_and_not_of_one_size():
    rows, sizes = gradients()
    _, positions = mapped(sizes * rows)
    apart = np.linalg.norm(positions[:, None] - positions, axis=2) + np.diag(np.full(MAPPED, np.inf))
    nearest = np.argsort(apart, axis=1)[:, :10]
    assert (nearest % 2 == np.arange(MAPPED)[:, None] % 2).mean() > 0.95
    raw = torch.cdist(sizes * rows, sizes * rows).fill_diagonal_(torch.inf)
    by_size = raw.argsort(dim=1)[:, :10].numpy()
    assert (by_size % 2 == np.arange(MAPPED)[:, None] % 2).mean() < 0.9


# The gradient noise scale was divided by the number of coordinates, and biased: what was published as 1e-5 is about
# 2, and says the opposite.


def noise_scale(rows: torch.Tensor) -> dict[str, float]:
    found = gradient_directions(rows @ rows.T, ProbeExamples(torch.zeros(len(rows))), seed=0).scalars
    names = ("noise_scale", "mean_gradient_squared", "gradient_variance")
    return {name: found[f"gradient/{name}"] for name in names if f"gradient/{name}" in found}


@pytest.mark.parametrize("coordinates", [3, 10, 20_000])
@pytest.mark.parametrize("copies", [1, 5])
def test_it_is_the_trace_over_the_squared_norm_however_many_coordinates_there_are(coordinates, copies):
    """Gradients (3, ±2, 0) and (3, 0, ±2): of n, tr Σ = 4n/(n − 1) and |G|² = 9 − tr Σ/n."""
    n = 4 * copies
    rows = torch.zeros(n, coordinates, dtype=torch.float64)
    rows[:, 0] = 3
    rows[:, 1:3] = torch.tensor([[2, 0], [-2, 0], [0, 2], [0, -2]]).repeat(copies, 1)
    variance = 4 * n / (n - 1)
    expected = {"mean_gradient_squared": 9 - variance / n, "gradient_variance": variance}
    found = noise_scale(rows)
    assert found == pytest.approx({**expected, "noise_scale": variance / expected["mean_gradient_squared"]}, rel=1e-12)
    plain = float(rows.var(dim=0, correction=0).sum() / rows.mean(dim=0).square().sum())
    assert found["noise_scale"] > 1.05 * plain  # the biased one is too small


def test_over_many_probes_it_is_that_of_the_distribution():
    """Normal gradients in 500 dimensions with |G|² = 250 and tr Σ = 500: the noise scale is 2."""
    random, mean = torch.Generator().manual_seed(0), torch.full((500,), 0.5**0.5, dtype=torch.float64)
    probes = [mean + torch.randn(24, 500, dtype=torch.float64, generator=random) for _ in range(40)]
    found = [noise_scale(rows) for rows in probes]
    for name, truth in (("mean_gradient_squared", 250), ("gradient_variance", 500), ("noise_scale", 2)):
        values = np.array([one[name] for one in found])
        assert values.mean() == pytest.approx(truth, abs=3 * values.std() / 40**0.5 + 1e-3)


# A probe of one batch crashed t-SNE; and the colour scale moved from picture to picture, so that no two could be
# compared.


@pytest.mark.parametrize(("n", "size"), [(32, 32), (63, 32), (10, 32), (2, 2)])
def test_one_batch_is_refused_with_what_to_do(n, size):
    said = rf"(?s)n={n} with unit=batch batch_size={size}.*at least two whole batches.*do: n="
    with pytest.raises(Refusal, match=said):
        GradientDirectionsConfig(unit="batch", n=n, batch_size=size)
    with pytest.raises(ValueError, match="two or more are needed"):
        ProbeExamples(torch.zeros(n), batch_size=size)
    assert GradientDirectionsConfig(unit="batch", n=2 * size, batch_size=size).units == 2


@pytest.mark.parametrize("batches", [2, 3, 4])
def test_a_few_batches_have_their_numbers_and_a_map_as_soon_as_there_can_be_one(changeable, batches):
    store, asked = changeable.store, {"unit": "batch", "batch_size": 5, "n": 5 * batches, "epochs": "1,2"}
    run_id = directed(store, maps=True, run_id=changeable.run_id, device="cpu", **asked)
    for epoch in (1, 2):
        assert array(store, run_id, "cosines", epoch).shape == (batches, batches)
        assert array(store, run_id, "map", epoch).shape == (batches if batches > 3 else 0, 2)
    keys = {key for key, _, _ in store.metrics(run_id)}
    assert {"gradient/mean_cosine", "gradient/effective_rank", "gradient/zero_fraction"} <= keys


def test_a_map_of_too_few_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="a map of 1 examples"):
        tsne(np.eye(1), perplexity=1.0, seed=0)


def test_colours_mean_the_same_in_every_picture():
    shown = [
        DrawnDirections(np.full((4, 4), value), np.eye(4)[:, :2], np.ones(4), np.ones(4)) for value in (1e-3, 0.5, -1.0)
    ]
    figures = [gradient_similarities(one, title="") for one in shown]
    figures.append(gradient_montage({"": dict(enumerate(shown))}, title=""))
    images = [image for figure in figures for axes in figure.axes for image in axes.images]
    assert len(images) == 6
    assert {image.get_clim() for image in images} == {(-1, 1)}
    for value in (-1.0, 0.0, 0.5):
        assert len({image.to_rgba(np.array([value])).tobytes() for image in images}) == 1
