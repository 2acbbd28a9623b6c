"""Several processes that share an analysis: the values of one process, one message, one end."""

import itertools
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from nfa.errors import Refusal
from nfa.measures.first_examples import MOST
from tests.support.analyses import CHECKPOINTS, series
from tests.support.fault_injection import KILL, TERM, During, Send
from tests.support.processes import Child, Ended, launch, run, words
from tests.support.stores import Finished, wrapper_in

SHARED = {"relations": "agop_nfm,agop_nfm_init_removed,g_vs_h,out_g_vs_m,out_h_vs_m,fact_nfm", "max_samples": 101}
VALUES = ("nfa.registry.analyses.alignment", "AlignmentOfRun.measure")


def made(finished: Finished) -> list[str]:
    return [run_id for run_id in finished.store.runs() if run_id != finished.run_id]


@dataclass(frozen=True)
class Refuse:
    """What a process meets that the others do not."""

    got: str

    def __call__(self) -> None:
        raise Refusal(self.got, "another", "another")


def started(finished: Finished, size: int, argv: list[str], befores: Sequence[During | None] = ()) -> list[Child]:
    """What the launcher starts, without the launcher; `befores` by process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = itertools.zip_longest(range(size), befores)
    argv = [*argv, *words(nproc=size)]
    return [
        launch(finished.store, argv, entrypoint="analyze", before=before, RANK=str(rank), **meeting)
        for rank, before in ranks
    ]


def together(finished: Finished, size: int, argv: list[str]) -> list[Ended]:
    return [child.end() for child in started(finished, size, argv)]


def forget(finished: Finished) -> None:
    finished.store.change("DELETE FROM tags WHERE key = 'nfa.analysis_digest'")


def assert_close(found: Mapping[str, dict[int, float]], expected: Mapping[str, dict[int, float]]) -> None:
    assert found.keys() == expected.keys()
    for key, of_key in expected.items():
        assert found[key] == pytest.approx(of_key, abs=1e-6), key


def test_three_processes_give_the_values_of_one(changeable: Finished) -> None:
    assert run(changeable.store, words(**SHARED), entrypoint="analyze").code == 0
    forget(changeable)
    first, *others = together(changeable, 3, words(**SHARED, batch_size=20))
    assert first.code == 0, first.output
    assert "epoch 4" in first.output
    assert [(other.code, other.output) for other in others] == [(0, "")] * 2
    alone, shared = made(changeable)
    assert_close(series(changeable.store, shared), series(changeable.store, alone))
    assert changeable.store.tags(shared)["nfa.state"] == "finished"


def test_two_processes_give_the_random_directions_and_errors_of_one(changeable: Finished) -> None:
    asked = words(directions=2, max_samples=2 * MOST + 101, epochs="2,4")  # each has more than are stored
    assert run(changeable.store, asked, entrypoint="analyze").code == 0
    forget(changeable)
    assert {ended.code for ended in together(changeable, 2, asked)} == {0}
    alone, shared = (series(changeable.store, run_id) for run_id in made(changeable))
    assert "layer_0/h_vs_m_se" in alone
    assert_close(shared, alone)


@pytest.mark.parametrize(
    ("argv", "got"),
    [
        (words(max_samples=1), "nproc=2 for 1 example"),
        (words(sites="conv"), "sites=conv"),
        (words(run_id="zzz"), "run id 'zzz'"),
    ],
)
def test_a_refusal_is_said_once_by_the_first_process(argv: list[str], got: str, changeable: Finished) -> None:
    """The others end without a word and without a failure, so that the launcher waits for the first one's."""
    first, second = together(changeable, 2, argv)
    assert first.code == 2, first.output
    assert first.output.count("error: cannot use") == 1
    assert got in first.output
    assert (second.code, second.output) == (0, "")
    assert made(changeable) == []


def test_a_refusal_of_another_process_alone_ends_the_analysis_with_its_message(changeable: Finished) -> None:
    unlucky = During("nfa.registry.analyses.alignment", "AlignmentOfRun._load", Refuse("device='cuda:1'"))
    first, second = (child.end() for child in started(changeable, 2, words(**SHARED), [None, unlucky]))
    assert second.code == 2, second.output
    assert "error: cannot use device='cuda:1'" in second.output
    assert first.code == 1, first.output
    (run_id,) = made(changeable)
    assert changeable.store.tags(run_id)["nfa.state"] == "failed"
    assert series(changeable.store, run_id) == {}


@pytest.mark.parametrize(
    ("act", "code", "state"), [(TERM, 143, "killed"), pytest.param(KILL, -9, "running", marks=pytest.mark.slow)]
)
def test_an_end_of_the_first_process_leaves_whole_checkpoints_that_one_process_completes(
    act: Send, code: int, state: str, changeable: Finished
) -> None:
    first, second = started(changeable, 2, words(**SHARED), [During(*VALUES, act, 3)])
    ended = first.end()
    assert ended.code == code, ended.output
    if second.process.is_alive():
        second.send(signal.SIGTERM)
    assert second.end().code != 0
    (run_id,) = made(changeable)
    assert changeable.store.tags(run_id)["nfa.state"] == state
    assert set(series(changeable.store, run_id)["layer_0/agop_nfm"]) == {0, 1}
    again = run(changeable.store, words(**SHARED), entrypoint="analyze")
    assert "2 of 4 checkpoints" in again.output
    assert list(series(changeable.store, made(changeable)[1])["layer_0/agop_nfm"]) == CHECKPOINTS


# ---- the real launcher: processes from nothing, half a minute each on a busy machine


@pytest.mark.slow
def test_nproc_starts_the_processes_and_gives_the_values_of_one(changeable: Finished) -> None:
    ended = run(changeable.store, words(**SHARED, nproc=2), entrypoint="analyze")
    assert ended.code == 0, ended.output
    forget(changeable)
    assert run(changeable.store, words(**SHARED), entrypoint="analyze").code == 0
    shared, alone = (series(changeable.store, run_id) for run_id in made(changeable))
    assert_close(shared, alone)


@pytest.mark.slow
@pytest.mark.parametrize("argv", [words(max_samples=1), words(sites="conv"), words(run_id="zzz")])
def test_a_refusal_of_the_processes_is_the_program_s_and_leaves_nothing(
    argv: list[str], changeable: Finished, temporary: Path
) -> None:
    ended = run(changeable.store, [*argv, "--nproc", "2"], entrypoint="analyze", TMPDIR=str(temporary))
    assert ended.code == 2, ended.output
    assert ended.output.count("error: cannot use") == 1
    assert "Traceback" not in ended.output
    assert made(changeable) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("adopted", [False, True])
def test_a_signal_to_the_program_ends_all_processes_and_the_run_killed(
    adopted: bool, signum: int, code: int, changeable: Finished
) -> None:
    env = {"MLFLOW_RUN_ID": wrapper_in(changeable.store), "MLFLOW_EXPERIMENT_ID": "0"} if adopted else {}
    child = launch(changeable.store, words(batch_size=1, nproc=2), entrypoint="analyze", **env)
    child.wait_for("epoch 0 ")
    child.send(signum)
    ended = child.end()
    assert ended.code == code, ended.output
    assert "Traceback" not in ended.output
    (run_id,) = made(changeable)
    assert changeable.store.tags(run_id)["nfa.state"] == "killed"
    assert changeable.store.status(run_id) == "KILLED"
    assert set(series(changeable.store, run_id)["layer_0/agop_nfm"]) < set(CHECKPOINTS)
