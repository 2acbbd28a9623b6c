"""A training of a named workload that was killed goes on to the same weights, whatever draws random numbers in it."""

import pytest

from tests.support.fault_injection import INT, KILL, During
from tests.support.processes import run, words
from tests.support.stores import Finished, Store, assert_same_run
from tests.support.workload_files import TINY, write_lab

WORDS = {**TINY, "workload": "my_lab:blurred", "workload_args": "width=4"}
LOOP = "nfa.registry.training.loop"


@pytest.fixture(scope="module")
def expected(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A training that was not interrupted, with dropout, batch statistics and a dataset that draws."""
    store = empty_store.copy(tmp_path_factory.mktemp("whole") / "store")
    write_lab(store.folder)
    ended = run(store, words(**WORDS))
    assert ended.code == 0, ended.output
    return Finished(store, store.runs()[0])


@pytest.mark.parametrize(
    "moment",
    [
        During(LOOP, "Training._update", KILL, 2),  # in the midst of an epoch
        During("nfa.registry.tracking", "save_state", KILL, 2),
        During(LOOP, "Training._update", INT, 5),
    ],
    ids=["killed between checkpoints", "killed at a checkpoint", "stopped by Ctrl-C in an epoch"],
)
def test_it_goes_on_to_bitwise_the_same_weights(moment: During, fresh: Store, expected: Finished) -> None:
    write_lab(fresh.folder)
    ended = run(fresh, words(**WORDS), before=moment)
    assert ended.code in (-9, 130), ended.output
    (run_id,) = fresh.runs()
    ended = run(fresh, words(resume=run_id))
    assert ended.code == 0, ended.output
    assert_same_run(fresh, run_id, expected)
