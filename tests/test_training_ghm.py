"""Training with GHM: accumulated counts are part of the state, and those of steps that were made, each once."""

import pytest
import torch

from tests.support.training_loops import (
    BATCHES,
    EPOCHS,
    Stopped,
    assert_bitwise_equal,
    final,
    through_a_file,
    training_of,
)

GHM = {"weighting": "ghm", "ghm_momentum": 0.75, "ghm_bins": 50, "lr": 0.05}


@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
@pytest.mark.parametrize("stop_at", [0, 3, 5, 14])
def test_counts_of_gradient_norms_go_on_where_they_stopped(loss, stop_at):
    """And begun anew they would lead to other weights."""
    expected, stopped = training_of("adam", loss=loss, **GHM), training_of("adam", stop_at=stop_at, loss=loss, **GHM)
    weights = final(expected)
    with pytest.raises(Stopped):
        final(stopped)
    state = through_a_file(stopped.state())
    resumed = training_of("adam", loss=loss, **GHM)
    resumed.restore(state)
    assert_bitwise_equal(final(resumed), weights)
    assert torch.equal(resumed.objective.counts, expected.objective.counts)
    if stop_at:
        forgetful = training_of("adam", loss=loss, **GHM)
        forgetful.restore({**state, "objective": {}})
        assert any(not torch.equal(weight, weights[name]) for name, weight in final(forgetful).items())


@pytest.mark.parametrize("step", [1, 4, 7])
def test_a_batch_whose_step_was_not_made_is_counted_once(step):
    expected, stopped = training_of("adam", **GHM), training_of("adam", **GHM)
    weights, left, begin = final(expected), iter(range(1, step)), stopped.optimizer.zero_grad

    def zero_grad() -> None:
        """After the loss, before the step."""
        if next(left, None) is None:
            raise Stopped
        begin()

    stopped.optimizer.zero_grad = zero_grad
    with pytest.raises(Stopped):
        final(stopped)
    resumed = training_of("adam", **GHM)
    resumed.restore(through_a_file(stopped.state()))
    assert_bitwise_equal(final(resumed), weights)
    assert torch.equal(resumed.objective.counts, expected.objective.counts)


def test_the_counts_are_those_of_as_many_batches_as_steps():
    """Their sum is the average of the batches' sizes: 10, 10, 10, 10 and 8 an epoch."""
    training, sums, size = training_of("adam", loss="cross-entropy", **GHM), [], 10.0
    training.run(EPOCHS, lambda _: None, lambda: sums.append(float(training.objective.counts.sum())))
    for step, found in enumerate(sums):
        size = 0.75 * size + 0.25 * (8 if step % BATCHES == BATCHES - 1 else 10)
        assert found == pytest.approx(size, rel=1e-12)
    assert len(sums) == EPOCHS * BATCHES


def test_weighing_changes_the_weights_and_weighing_equally_does_not():
    plain, ghm, equal = (
        final(training_of("adam", loss="cross-entropy", **options))
        for options in ({"lr": 0.05}, GHM, {**GHM, "ghm_alpha": 0.0})
    )
    assert all(not torch.equal(ghm[name], weight) for name, weight in plain.items())
    assert_bitwise_equal(equal, plain)
