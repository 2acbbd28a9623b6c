"""The training loop: bitwise the same weights wherever it is resumed; one report an epoch; a stop on divergence."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from nfa.errors import DivergedError
from nfa.levels import is_beside
from nfa.measures.evaluation import evaluate
from nfa.observe.passes import site_weights
from nfa.registry.training.loop import Progress, Training
from nfa.registry.training.optimizers import Optimizers
from nfa.studies.alignment import alignment
from tests.support.toy_models import Noisy, Toy, seeded, site_matrices, toy
from tests.support.training_loops import (
    BATCHES,
    EPOCHS,
    Stopped,
    Stopping,
    assert_bitwise_equal,
    final,
    through_a_file,
    training_of,
)


def noisy_training(stop_at: int | None = None) -> Training:
    """Dropout and batch statistics: steps draw from the global generator and change buffers."""
    toys = toy(seeded(Noisy, 5, 8, 3), 48, 5, sites=["first"])
    model = toys.model()
    optimizer = Optimizers({"adam": torch.optim.Adam(model.parameters(), lr=0.01)})
    return Training(Stopping(toys, stop_at), model, optimizer, batch_size=10, seed=3)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "muon"])
@given(st.integers(0, EPOCHS - 1), st.integers(0, BATCHES))
@given_settings(max_examples=6)
def test_resumed_after_any_batch_it_ends_at_bitwise_the_same_weights(optimizer, epoch, batch):
    """And each epoch is reported once, counting both parts."""
    options = {"momentum": 0.9} if optimizer == "sgd" else {}
    expected, reports = final(training_of(optimizer, **options)), []
    stopped = training_of(optimizer, stop_at=epoch * (BATCHES + 1) + batch, **options)
    with pytest.raises(Stopped):
        stopped.run(EPOCHS, reports.append)
    assert stopped.progress == Progress(epoch, batch, reported=True)
    state = through_a_file(stopped.state())
    torch.rand(7)
    resumed = training_of(optimizer, **options)
    resumed.restore(state)
    assert_bitwise_equal(final(resumed, reports), expected)
    assert reports == [0, 1, 2, 3]
    assert stopped.workload.given + resumed.workload.given == given_uninterrupted(optimizer, **options)


def given_uninterrupted(optimizer: str, **options: object) -> list[list[int]]:
    training = training_of(optimizer, **options)
    final(training)
    return training.workload.given


@pytest.mark.parametrize("stop_at", [0, 3, 5, 14])
def test_dropout_and_batch_statistics_go_on_where_they_stopped(stop_at):
    expected = final(noisy_training())
    stopped = noisy_training(stop_at)
    with pytest.raises(Stopped):
        final(stopped)
    state = through_a_file(stopped.state())
    torch.rand(7)
    resumed = noisy_training()
    resumed.restore(state)
    assert_bitwise_equal(final(resumed), expected)


def test_a_state_saved_while_reporting_is_not_reported_again():
    """`reported=True`: what `after_epoch` has done by then is not done twice."""
    training, states = training_of("adam"), {}

    def save(epoch: int) -> None:
        states[epoch] = through_a_file(training.state(reported=True))

    training.run(EPOCHS, save)
    for epoch in range(EPOCHS + 1):
        resumed, reports = training_of("adam"), []
        resumed.restore(states[epoch])
        assert_bitwise_equal(final(resumed, reports), training.model.state_dict())
        assert reports == list(range(epoch + 1, EPOCHS + 1))


def test_a_report_that_failed_is_made_again():
    training = training_of("sgd")

    def fail(epoch: int) -> None:
        if epoch == 2:
            raise KeyError

    with pytest.raises(KeyError):
        training.run(EPOCHS, fail)
    resumed, reports = training_of("sgd"), []
    resumed.restore(through_a_file(training.state()))
    final(resumed, reports)
    assert reports == [2, 3]


def test_every_epoch_is_reported_exactly_once_and_epoch_0_before_any_update():
    training, seen = training_of("sgd"), []
    start = {name: weight.clone() for name, weight in training.model.state_dict().items()}

    def report(epoch: int) -> None:
        unchanged = all(torch.equal(weight, start[name]) for name, weight in training.model.state_dict().items())
        seen.append((epoch, unchanged))

    training.run(EPOCHS, report)
    assert seen == [(0, True), (1, False), (2, False), (3, False)]
    training.run(EPOCHS, report)
    assert len(seen) == 4


def test_after_every_batch_the_state_is_one_to_go_on_from():
    training, states = training_of("adam"), []
    training.run(EPOCHS, lambda _: None, lambda: states.append(through_a_file(training.state())))
    assert training.batches_per_epoch == BATCHES
    assert len(states) == EPOCHS * BATCHES
    for state in states[::4]:
        resumed = training_of("adam")
        resumed.restore(state)
        assert_bitwise_equal(final(resumed), training.model.state_dict())


def test_training_can_be_prolonged_to_the_weights_of_a_longer_one():
    longer, shorter = training_of("adam"), training_of("adam")
    final(longer)
    shorter.run(1, lambda _: None)
    assert_bitwise_equal(final(shorter), longer.model.state_dict())


def test_an_epoch_visits_every_training_example_once_in_an_order_of_its_own():
    training = training_of("sgd")
    torch.rand(5)
    final(training)
    given = [example for batch in training.workload.given for example in batch]
    epochs = [given[start : start + 48] for start in range(0, EPOCHS * 48, 48)]
    assert all(sorted(epoch) == list(range(48)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert training.workload.given == given_uninterrupted("sgd")
    assert training.workload.given != given_uninterrupted("sgd", seed=1)


def test_the_loss_is_a_mean_over_the_batch_and_the_model_is_in_training_mode():
    """One step of SGD by hand."""
    training = training_of("sgd", n=10, lr=0.5)
    training.model.eval()
    weights = [weight.detach().clone().requires_grad_() for weight in training.model.parameters()]
    batch = next(training.workload.workload.batches("train", batch_size=10))
    hidden = batch.inputs
    for weight in weights[:-1]:
        hidden = torch.relu(hidden @ weight.T)
    onehot = torch.eye(3)[batch.targets]
    (hidden @ weights[-1].T - onehot).square().mean().backward()
    training.run(1, lambda _: None)
    assert training.model.training
    for weight, before in zip(training.model.parameters(), weights, strict=True):
        torch.testing.assert_close(weight, before.detach() - 0.5 * before.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "muon"])
def test_analysing_after_every_epoch_changes_no_bit(optimizer):
    training = training_of(optimizer)
    sites = ["layer_0", "layer_1"]
    initial, heard = site_weights(training.workload, training.model, sites), []

    def analyse(_: int) -> None:
        batches = training.workload.workload.batches("train", batch_size=7)
        matrices = site_matrices(training.model, training.workload, batches, initial)
        heard.append([key for key in alignment(matrices).scalars if not is_beside(key)])
        evaluate(training.model, training.workload, training.workload.workload.batches("val", batch_size=7))

    training.run(EPOCHS, analyse)
    assert [len(values) for values in heard] == [2, 4, 4, 4]
    assert_bitwise_equal(training.model.state_dict(), final(training_of(optimizer)))


def test_analysing_a_network_with_dropout_and_batch_statistics_changes_no_bit():
    training = noisy_training()
    toys: Toy = training.workload.workload
    initial = site_weights(toys, training.model, ["first"])

    def analyse(_: int) -> None:
        site_matrices(training.model, toys, toys.batches("train", batch_size=7), initial)
        evaluate(training.model, toys, toys.batches("train", batch_size=7))

    training.run(EPOCHS, analyse)
    assert_bitwise_equal(training.model.state_dict(), final(noisy_training()))


def test_a_diverging_training_is_stopped_and_its_epoch_not_reported():
    reports = []
    training = training_of("sgd", lr=1e6)
    with pytest.raises(DivergedError, match=r"the training loss became (nan|inf) in epoch \d"):
        training.run(50, reports.append)
    assert reports == list(range(len(reports)))
    assert training.progress.epoch == reports[-1]


def test_one_bad_batch_is_enough_to_stop():
    toys = toy(seeded(Noisy, 5, 8, 3), 48, 5, sites=["first"])
    toys.targets[17] = float("nan")
    model = toys.model()
    optimizer = Optimizers({"sgd": torch.optim.SGD(model.parameters(), lr=0.0)})
    with pytest.raises(DivergedError, match="nan in epoch 1"):
        Training(toys, model, optimizer, batch_size=10, seed=0).run(1, lambda _: None)
