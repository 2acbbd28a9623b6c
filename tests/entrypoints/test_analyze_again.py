"""The same analysis asked again: what is there is copied, what a signal or kill left undone is computed."""

import itertools
import signal
from collections.abc import Sequence
from typing import Any

import pytest
from mlflow.entities import Metric

from nfa.levels import is_beside
from nfa.parallel import World
from nfa.registry.analyses.alignment import Alignment, AlignmentOfRun
from nfa.registry.analyses.config import AnalyzeConfig
from nfa.registry.tracking import history, sources
from nfa.registry.tracking.store import client
from tests.support.analyses import CHECKPOINTS, SECONDS, SITES, analysed, series
from tests.support.fault_injection import INT, KILL, TERM, AtCall, Count, During, Raise, Send
from tests.support.processes import Ended, run, words
from tests.support.stores import Finished, Store

RELATIONS = "agop_nfm,agop_nfm_init_removed,h_vs_m"
ASKED = words(relations=RELATIONS, max_samples=60)
VALUES = ("nfa.registry.analyses.alignment", "AlignmentOfRun.values")
NO_DATA = During("nfa.registry.stored_runs", "load_workload", Raise("the data are gone"))


def made(store: Store, source: str) -> list[str]:
    """Analyses, oldest first."""
    return [run_id for run_id in store.runs() if run_id != source]


def asked(finished: Finished, argv: list[str] = ASKED, **more: object) -> Ended:
    return run(finished.store, argv, entrypoint="analyze", **more)


@pytest.fixture(scope="module")
def whole(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The analysis that nothing disturbed."""
    copied = Finished(finished.store.copy(tmp_path_factory.mktemp("whole") / "store"), finished.run_id)
    ended = asked(copied)
    assert ended.code == 0, ended.output
    return Finished(copied.store, made(copied.store, finished.run_id)[0])


def assert_same(store: Store, run_id: str, expected: Finished) -> None:
    """The run has exactly the rows and reports of an undisturbed one."""
    assert series(store, run_id) == series(expected.store, expected.run_id)
    assert [row[:2] for row in store.metrics(run_id)] == [row[:2] for row in expected.store.metrics(expected.run_id)]
    for report in ("similarities.json", "similarities.csv"):
        ours, theirs = store.artifact(run_id, report), expected.store.artifact(expected.run_id, report)
        assert ours.read_bytes() == theirs.read_bytes()
    ours, theirs = (of.json(run, "config.json") for of, run in ((store, run_id), (expected.store, expected.run_id)))
    assert {**ours, "analyze": theirs["analyze"]} == theirs
    assert (store.tags(run_id)["nfa.state"], store.status(run_id)) == ("finished", "FINISHED")


def assert_whole_checkpoints(store: Store, run_id: str) -> None:
    """Every checkpoint with a value has all of them."""
    found = {key: of_key for key, of_key in series(store, run_id).items() if not is_beside(key)}
    assert set(found) <= {
        "train/loss",
        "val/loss",
        *(f"{site}/{name}" for site in SITES for name in RELATIONS.split(",")),
    }
    done = {step for key, step, _ in store.metrics(run_id) if key == SECONDS}
    for key, steps in found.items():
        assert set(steps) == done - ({0} if "init_removed" in key else set()), key


def test_the_same_analysis_again_computes_nothing_and_gives_the_same_rows(
    whole: Finished, changeable: Finished
) -> None:
    """Even where the data are gone."""
    assert asked(changeable).code == 0
    again = asked(changeable, before=NO_DATA)
    assert again.code == 0, again.output
    assert "4 of 4 checkpoints, from an earlier run of this analysis" in again.output
    first, second = made(changeable.store, changeable.run_id)
    assert changeable.store.metrics(first) == changeable.store.metrics(second)  # the seconds too
    for run_id in (first, second):
        assert_same(changeable.store, run_id, whole)


def test_fewer_epochs_are_copied_and_more_are_added(whole: Finished, changeable: Finished) -> None:
    assert asked(changeable, [*ASKED, "--epochs", "1,4"]).code == 0
    fewer = asked(changeable, [*ASKED, "--epochs", "4"], before=NO_DATA)
    assert fewer.code == 0, fewer.output
    more = asked(changeable, before=During(*VALUES, Raise("computed too much"), 3))
    assert more.code == 0, more.output
    assert "2 of 4 checkpoints" in more.output
    steps = [
        set(series(changeable.store, run_id)["layer_0/h_vs_m"]) for run_id in made(changeable.store, changeable.run_id)
    ]
    assert steps == [{1, 4}, {4}, set(CHECKPOINTS)]
    assert_same(changeable.store, made(changeable.store, changeable.run_id)[-1], whole)


@pytest.mark.parametrize(
    ("act", "code", "state"),
    [(TERM, 143, "killed"), pytest.param(INT, 130, "killed", marks=pytest.mark.slow), (KILL, -9, "running")],
)
def test_analysis_that_was_ended_in_the_middle_goes_on_where_it_was(
    act: Send, code: int, state: str, whole: Finished, changeable: Finished
) -> None:
    ended = asked(changeable, before=During(*VALUES, act, 3))
    assert ended.code == code, ended.output
    (first,) = made(changeable.store, changeable.run_id)
    assert changeable.store.tags(first)["nfa.state"] == state
    assert_whole_checkpoints(changeable.store, first)
    assert set(series(changeable.store, first)["layer_0/h_vs_m"]) == {0, 1}
    assert "Traceback" not in ended.output
    assert ("run the same command again to continue" in ended.output) is (act is not KILL)
    again = asked(changeable, before=During(*VALUES, Raise("computed too much"), 3))
    assert again.code == 0, again.output
    assert "2 of 4 checkpoints" in again.output
    assert changeable.store.tags(first)["nfa.state"] == "killed"
    assert changeable.store.status(first) == "KILLED"
    assert_same(changeable.store, made(changeable.store, changeable.run_id)[1], whole)


def test_analysis_that_failed_in_the_middle_goes_on_where_it_was(whole: Finished, changeable: Finished) -> None:
    ended = asked(changeable, before=During(*VALUES, Raise("injected"), 2))
    assert ended.code == 1
    assert "RuntimeError: injected" in ended.output
    (first,) = made(changeable.store, changeable.run_id)
    assert (changeable.store.tags(first)["nfa.state"], changeable.store.status(first)) == ("failed", "FAILED")
    assert_whole_checkpoints(changeable.store, first)
    assert asked(changeable, before=During(*VALUES, Raise("computed too much"), 4)).code == 0
    assert_same(changeable.store, made(changeable.store, changeable.run_id)[1], whole)


def test_signal_while_a_checkpoint_is_logged_leaves_it_whole(changeable: Finished) -> None:
    ended = asked(changeable, before=During("nfa.registry.tracking.metrics", "Metric", TERM, 5))
    assert ended.code == 143, ended.output
    (first,) = made(changeable.store, changeable.run_id)
    assert_whole_checkpoints(changeable.store, first)
    assert set(series(changeable.store, first)["layer_0/h_vs_m"]) == {0}


def test_source_can_still_be_analysed_and_latest_is_still_the_training_after_a_kill(changeable: Finished) -> None:
    assert asked(changeable, before=During(*VALUES, KILL, 2)).code == -signal.SIGKILL
    assert set(series(changeable.store, analysed(changeable.store, run_id="latest", epochs="4", max_samples=9)))


# ---- any moment


@pytest.fixture(scope="module")
def moments(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Calls of nfa's functions in the analysis from start to end."""
    store = finished.store.copy(tmp_path_factory.mktemp("moments") / "store")
    assert asked(Finished(store, finished.run_id), before=Count(str(store.folder / "calls"))).code == 0
    return int((store.folder / "calls").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("act", [TERM, KILL])
@pytest.mark.parametrize("share", [number / 40 for number in range(40)])
def test_ended_at_any_moment_it_leaves_whole_checkpoints_and_the_next_one_completes_them(
    share: float, act: Send, moments: int, whole: Finished, changeable: Finished
) -> None:
    store = changeable.store
    ended = asked(changeable, before=AtCall(10 + round(share * moments), act))
    assert ended.code == (143 if act is TERM else -signal.SIGKILL), ended.output
    left = made(store, changeable.run_id)
    for run_id in left:
        assert_whole_checkpoints(store, run_id)
        assert store.tags(run_id)["nfa.state"] in ({"killed", "finished"} if act is TERM else {"running", "finished"})
    done = {step for run_id in left for key, step, _ in store.metrics(run_id) if key == SECONDS}
    again = asked(changeable, before=During(*VALUES, Raise("computed too much"), len(CHECKPOINTS) - len(done) + 1))
    assert again.code == 0, again.output
    assert_same(store, made(store, changeable.run_id)[-1], whole)


def test_copies_are_whole_too_where_a_checkpoint_has_more_values_than_one_write_takes(
    changeable: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark of a finished checkpoint is written last, also by a run that copies, in whatever order it reads."""
    analysed(changeable.store, epochs="4", max_samples=9)
    backwards = dict(reversed(history(changeable.store.runs()[-1]).items()))
    assert next(iter(backwards)) == SECONDS
    monkeypatch.setattr(sources, "histories", lambda run_ids: {run_id: dict(backwards) for run_id in run_ids})
    monkeypatch.setattr("nfa.registry.tracking.metrics.BATCH", 5)
    monkeypatch.setattr(
        "nfa.registry.tracking.runs._unended", {}
    )  # the run whose end cannot be written is this test's own
    log_batch, writes = client().log_batch, itertools.count(1)

    def failing(run_id: str, metrics: Sequence[Metric] = (), **more: Any) -> None:
        if metrics and next(writes) > 1:
            raise RuntimeError("power cut")
        log_batch(run_id, metrics=metrics, **more)

    monkeypatch.setattr(client(), "log_batch", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        analysed(changeable.store, epochs="4", max_samples=9)
    rows = changeable.store.metrics(made(changeable.store, changeable.run_id)[1])
    assert len(rows) == 5
    assert SECONDS not in {key for key, _, _ in rows}


# ---- what makes an analysis another one


OTHER = {
    "relations": "agop_nfm",
    "sites": "layer_0",
    "centre": "entry",
    "agop_power": "0.5",
    "positions": "sum",
    "max_samples": 21,
    "precision": "float64",
    "directions": "all",
    "top_k": 3,
    "chance": False,
    "target_se": 0.05,
    "seed": 1,
}
SAME = {
    "run_id": "latest",
    "epochs": "1",
    "batch_size": 7,
    "nproc": 2,
    "output_dir": "out",
    "data_dir": "data",
    "workload": "my_lab:make",
    "workload_args": "width=4",
    "device": "cpu",
    "run_name": "again",
}


def test_every_option_is_known_to_decide_values_or_not() -> None:
    assert {*OTHER, *SAME} == set(AnalyzeConfig.__dataclass_fields__)


@pytest.mark.parametrize(("name", "value"), [*OTHER.items(), *SAME.items()])
def test_an_option_makes_another_analysis_where_it_decides_values(name: str, value: Any) -> None:
    first, second = (Alignment(AnalyzeConfig(**options), World()).identity([]) for options in ({}, {name: value}))
    assert (first != second) is (name in OTHER)


def test_another_analysis_is_computed_anew_and_another_order_of_names_is_no_other(
    changeable: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, original = [], AlignmentOfRun.values
    monkeypatch.setattr(
        AlignmentOfRun, "values", lambda self, epoch, run: computed.append(epoch) or original(self, epoch, run)
    )
    asked_for = {"relations": "agop_nfm,h_vs_m,g_vs_h", "epochs": "1,4", "max_samples": 20}
    first = analysed(changeable.store, **asked_for)
    again = analysed(changeable.store, **{**asked_for, "relations": "h_vs_m, g_vs_?,agop_nfm", "epochs": "4"})
    assert computed == [1, 4, 4]  # g_vs_? is more than g_vs_h
    again = analysed(changeable.store, **{**asked_for, "relations": "h_vs_m, g_vs_h ,agop_nfm", "batch_size": 7})
    assert computed == [1, 4, 4]
    assert series(changeable.store, again) == series(changeable.store, first)
    digests = {changeable.store.tags(run_id)["nfa.analysis_digest"] for run_id in (first, again)}
    assert len(digests) == 1
    analysed(changeable.store, **asked_for, centre="entry")
    assert computed == [1, 4, 4, 1, 4]
