"""A fault of gradient programs: checkpoints were looked up by a file pattern, and their epochs by a regular expression,
that fitted no file, so that nothing or something else was analysed."""

import numpy as np
import pytest

from nfa.errors import Refusal
from nfa.registry.analyses.config import GradientDirectionsConfig
from nfa.registry.analyses.gradient_directions import GradientDirections
from tests.support.gradient_direction_runs import array, directed, example_gradients

DEFAULT = GradientDirectionsConfig().epochs
N = 12


def epochs_of(text: str, existing: list[int]) -> list[int]:
    return GradientDirections(GradientDirectionsConfig(epochs=text)).epochs(existing)


def test_the_default_list_stands_for_those_epochs_that_the_run_has_and_where_it_has_none_for_all():
    assert DEFAULT == "5-60/5"
    assert epochs_of(DEFAULT, [0, 1, 2, 5, 7, 20, 60, 100]) == [5, 20, 60]
    assert epochs_of(DEFAULT, [0, 1, 2, 4]) == [0, 1, 2, 4]


def test_an_epoch_that_was_asked_for_and_is_not_there_is_refused_and_the_ones_that_are_there_are_named():
    assert epochs_of("2,4", [0, 1, 2, 4]) == [2, 4]
    assert epochs_of("all", [0, 1, 2, 4]) == [0, 1, 2, 4]
    with pytest.raises(Refusal, match=r"(?s)there is no 3.*the run's checkpoints: 0, 1, 2, 4"):
        epochs_of("2-4", [0, 1, 2, 4])


def test_a_run_is_found_by_its_id_and_its_checkpoints_by_their_epoch_whatever_files_lie_about(changeable):
    store, source = changeable.store, changeable.run_id
    for name in ("epoch_0010.safetensors.tmp", "model_epoch_10.pth", "checkpoint_5.pt"):
        store.artifact(source, f"checkpoints/{name}").write_bytes(b"no weights")
        (store.folder / name).write_bytes(b"no weights")
    run_id = directed(store, run_id=source[:8], epochs="all", n=N, device="cpu")
    steps = [step for key, step, _ in store.metrics(run_id) if key == "gradient/mean_cosine"]
    assert steps == [0, 1, 2, 4]
    for epoch in (0, 4):
        norms = example_gradients(source, epoch, N).norm(dim=1)
        np.testing.assert_allclose(array(store, run_id, "norms", epoch), norms[norms > 0], rtol=1e-4)
