"""A fault of gradient programs: a probe of one batch crashed t-SNE; and the colour scale moved from picture to picture,
so that no two could be compared."""

import numpy as np
import pytest
import torch

from nfa.errors import Refusal
from nfa.figures.gradient_pictures import DrawnDirections, gradient_montage, gradient_similarities
from nfa.maths.embedding import tsne
from nfa.registry.analyses.config import GradientDirectionsConfig
from nfa.studies.gradient_directions import ProbeExamples
from tests.support.gradient_direction_runs import array, directed


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
