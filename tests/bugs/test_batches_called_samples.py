"""A fault of gradient programs: the text spoke of the samples within a batch, and the program compared the gradients of
batches."""

import dataclasses

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from nfa import reference
from nfa.figures.gradient_pictures import DrawnDirections, gradient_similarities
from nfa.registry import tracking
from tests.support.gradient_direction_runs import array, directed, example_gradients

N, SIZE, EPOCH = 40, 8, 2
UNITS = {"sample": {}, f"batch of {SIZE}": {"unit": "batch", "batch_size": SIZE}}


@pytest.mark.parametrize("unit", UNITS)
def test_what_is_compared_is_what_is_said(changeable, monkeypatch, unit):
    figures: dict[str, Figure] = {}
    store, source = changeable.store, changeable.run_id
    monkeypatch.setattr(tracking, "save_picture", lambda _, figure, name, **__: figures.setdefault(name, figure))
    monkeypatch.setattr(tracking, "put_images", lambda *_: None)
    run_id = directed(store, pictures=True, run_id=source, epochs=str(EPOCH), n=N, device="cpu", **UNITS[unit])
    rows = example_gradients(source, EPOCH, N)
    if unit != "sample":
        rows = rows.unflatten(0, (-1, SIZE)).mean(dim=1)
    expected, kept = reference.cosines(reference.gradient_gram(rows))
    np.testing.assert_allclose(array(store, run_id, "cosines", EPOCH), expected, atol=1e-5)
    assert array(store, run_id, "kept", EPOCH).tolist() == kept
    for file in ("config.json", "gradient_directions.json"):
        assert store.json(run_id, file)["conventions"]["unit"] == unit
    for name in ("gradient_montage", "gradient_directions"):
        assert f"unit {unit}," in figures[name].get_suptitle()
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
    rows = torch.randn(N, 6, generator=torch.Generator().manual_seed(0)) + 1
    means = rows.unflatten(0, (-1, SIZE)).mean(dim=1)
    single, batch = (reference.cosines(reference.gradient_gram(part))[0] for part in (rows, means))
    assert batch.mean() > single.mean() + 0.3
