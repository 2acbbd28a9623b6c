"""The campaign of `make chaos` sees what should not be: each of its eyes is shown what it looks for."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.chaos import files
from benchmarks.chaos.clock import Clock, OutOfTime
from benchmarks.chaos.judgement import judge, look_for_litter, tree
from benchmarks.chaos.rounds import Bench, Round
from benchmarks.chaos.seen import Clean, Content

RUNS = "CREATE TABLE runs (run_uuid, name, status, artifact_uri, start_time)"
TAGS = "CREATE TABLE tags (run_uuid, key, value)"
METRICS = "CREATE TABLE metrics (run_uuid, key, step, value)"
MODELS = "CREATE TABLE logged_models (source_run_id, name)"
WEIGHTS = {"w": np.ones(3, np.float32)}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Round]:
    """A round with a finished run of one checkpoint and one metric row, and what an undisturbed one leaves."""
    found = Round(Bench(tmp_path, Clock(60)), "round")
    artifacts = found.work / "mlruns"
    (artifacts / "checkpoints").mkdir(parents=True)
    save_file(WEIGHTS, artifacts / "checkpoints" / "epoch_0000.safetensors")
    for query in (RUNS, TAGS, METRICS, MODELS, "INSERT INTO metrics VALUES ('r', 'val/loss', 0, 0.5)"):
        change(found, query)
    change(found, "INSERT INTO runs VALUES ('r', 'training', 'FINISHED', ?, 0)", str(artifacts))
    change(found, "INSERT INTO tags VALUES ('r', 'nfa.state', 'finished')")
    content = Content(files.weights(artifacts), [("val/loss", 0, 0.5)])
    found.clean = Clean({"training": content}, tree(found), 1)
    yield found
    found.close()


def change(here: Round, query: str, *values: str) -> None:
    with closing(sqlite3.connect(here.work / "mlflow.db")) as connection, connection:
        connection.execute(query, values)


def test_a_round_like_an_undisturbed_one_is_good(here: Round) -> None:
    judge(here, once=True)
    assert here.seen.good
    assert (here.seen.equal, here.seen.trained) == (1, 1)


def test_a_metric_row_that_is_there_twice_is_a_duplicate(here: Round) -> None:
    change(here, "INSERT INTO metrics VALUES ('r', 'val/loss', 0, 0.5)")
    judge(here, once=False)
    assert here.seen.duplicates == ["val/loss at 0"]


def test_a_checkpoint_that_is_twice_among_the_models_is_a_duplicate(here: Round) -> None:
    for name in ("epoch_0000", "epoch_0000", "epoch_0001"):
        change(here, "INSERT INTO logged_models VALUES ('r', ?)", name)
    judge(here, once=False)
    assert here.seen.duplicates == ["model epoch_0000"]


@pytest.mark.parametrize("query", ["DELETE FROM metrics", "INSERT INTO metrics VALUES ('r', 'val/loss', 1, 0.4)"])
def test_a_lost_or_an_added_metric_row_is_a_fault(here: Round, query: str) -> None:
    change(here, query)
    judge(here, once=False)
    assert "rows of an undisturbed run" in here.seen.faults[0]


def test_other_weights_are_not_equal(here: Round) -> None:
    other = {"w": np.nextafter(WEIGHTS["w"], np.float32(2))}
    save_file(other, here.work / "mlruns" / "checkpoints" / "epoch_0000.safetensors")
    judge(here, once=False)
    assert (here.seen.equal, here.seen.trained) == (0, 1)
    assert not here.seen.good


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("DELETE FROM runs", "training is lost"),
        ("UPDATE tags SET value = 'killed'", "training is lost"),
        ("UPDATE runs SET status = 'RUNNING'", "left saying RUNNING"),
        ("INSERT INTO runs SELECT 'other', name, status, artifact_uri, 1 FROM runs", "training has 2 runs"),
    ],
)
def test_a_run_that_is_lost_or_left_or_there_twice_is_a_fault(here: Round, query: str, fault: str) -> None:
    change(here, query)
    judge(here, once=True)
    assert fault in str(here.seen.faults)


@pytest.mark.parametrize("place", ["work", "tmp", "cache", "home"])
def test_a_file_that_undisturbed_commands_do_not_leave_is_litter_and_an_empty_folder_too(
    here: Round, place: str
) -> None:
    folder: Path = getattr(here, place)
    (folder / "file").touch()
    (folder / "empty").mkdir()
    (here.work.parent / "work%20elsewhere").mkdir()
    look_for_litter(here)
    assert here.seen.litter == ["beside/work%20elsewhere", f"{place}/empty", f"{place}/file"]


@pytest.mark.parametrize(
    ("name", "content"), [("a.json", b'{"a": 1'), ("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.pt", b"PK")]
)
def test_a_file_that_is_cut_off_is_half(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert files.half_files(tmp_path) == [name]


def test_weights_that_are_cut_off_are_half(here: Round) -> None:
    file = here.work / "mlruns" / "checkpoints" / "epoch_0000.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert files.half_files(here.work) == ["mlruns/checkpoints/epoch_0000.safetensors"]


def test_the_password_is_seen_in_files_tables_and_terminals_also_in_a_header_or_an_address(here: Round) -> None:
    change(here, "INSERT INTO tags VALUES ('r', 'address', ?)", f"postgresql://tester:{files.MARK}%2F9@host")
    (here.tmp / "header").write_bytes(b"Authorization: Basic " + files.SIGNS[1])
    (here.terminals / "0").write_text(files.PASSWORD)
    here.database = here.store()
    judge(here, once=False)
    assert here.seen.leaks == ["terminals/0", "tmp/header", "typed-in/work/mlflow.db", "table tags"]


def test_a_process_that_outlives_what_started_it_is_litter(here: Round) -> None:
    process = here.launch(["sh", "-c", "sleep 60 & exit 3", "-m", "nfa", "sleeper"])
    assert here.ends(process, {0}) == 3
    assert here.seen.faults == ["sleeper ended with 3, not 0: nothing"]
    assert not process.alone(seconds=0)
    process.kill()
    assert process.alone(seconds=1)


def test_nothing_is_waited_for_beyond_the_campaign_s_end() -> None:
    clock = Clock(0)
    with pytest.raises(OutOfTime):
        clock.wait(lambda: False, 60)
