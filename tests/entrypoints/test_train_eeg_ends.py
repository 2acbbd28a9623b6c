"""Trainings on EEG that ended early go on to bitwise the same run; several processes give the values of one."""

import signal
import socket
from pathlib import Path

import pytest

from nfa.bookkeeping import FLOPS
from tests.support.eeg_trainings import STEPS_AN_EPOCH, Event, decode, events, tiny_eeg
from tests.support.fault_injection import KILL, TERM, During
from tests.support.processes import launch, run, words
from tests.support.stores import Finished, Store, assert_same_run


@pytest.fixture(scope="module")
def written(decoded: Finished) -> Event:
    return events(decoded.store, decoded.run_id)


ENDS = {
    "inside a checkpoint": ("nfa.registry.tracking", "save_state", KILL, 2),
    "after a checkpoint": ("nfa.registry.training.loop", "Training._epoch", KILL, 3),
    "inside an epoch": ("nfa.registry.training.optimizers", "Optimizers.step", TERM, 2 * STEPS_AN_EPOCH + 2),
    "inside the reports": ("nfa.registry.families.eeg.report", "report", KILL, 1),
}


QUICK = ("inside an epoch", "inside the reports")


@pytest.mark.parametrize(
    "moment", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ENDS]
)
def test_resumed_after_an_end_it_is_the_same_run_for_mlflow_and_tensorboard(
    moment: str, fresh: Store, decoded: Finished, written: Event
) -> None:
    module, name, act, number = ENDS[moment]
    ended = decode(fresh, tiny_eeg(), before=During(module, name, act, number))
    assert ended.code == (143 if act is TERM else -signal.SIGKILL), ended.output
    (run_id,) = fresh.runs()
    resumed = decode(fresh, words(resume=run_id))
    assert resumed.code == 0, resumed.output
    assert_same_run(fresh, run_id, decoded)
    again = events(fresh, run_id)
    assert again.scalars == written.scalars
    assert again.images == written.images
    assert again.histograms.keys() == written.histograms.keys()
    for tag, by_step in written.histograms.items():
        assert list(again.histograms[tag]) == list(by_step), tag
        for step, histogram in by_step.items():
            assert list(again.histograms[tag][step].bucket) == list(histogram.bucket), tag


def test_two_processes_give_the_values_of_one(
    fresh: Store, empty_store: Store, decoded: Finished, tmp_path: Path
) -> None:
    """With dropout, BatchNorm and a last batch that is smaller; by SGD, since Adam enlarges the roundings of sums."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    cache = {"NFA_CACHE": str(decoded.store.folder.parent / "cache")}
    single = empty_store.copy(tmp_path / "single")
    assert run(single, tiny_eeg(optimizer="sgd"), entrypoint="train_eeg", **cache).code == 0
    argv = tiny_eeg(nproc=2, optimizer="sgd")
    started = [launch(fresh, argv, entrypoint="train_eeg", RANK=str(rank), **meeting, **cache) for rank in range(2)]
    first, second = (child.end() for child in started)
    assert first.code == 0, first.output
    assert (second.code, second.output) == (0, "")
    (run_id,), (single_id,) = fresh.runs(), single.runs()
    shared, alone = fresh.metrics(run_id), [row for row in single.metrics(single_id) if row[0] != FLOPS]
    assert [row[:2] for row in shared] == [row[:2] for row in alone]
    for (key, step, value), (_, _, expected) in zip(shared, alone, strict=True):
        assert value == pytest.approx(expected, rel=1e-5, abs=1e-6), (key, step)
    assert events(fresh, run_id).histograms.keys() == events(single, single_id).histograms.keys()
