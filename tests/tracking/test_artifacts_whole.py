"""Artifacts are whole or not there, and nothing that a process had in hand stays when it has gone."""

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from PIL import Image

from nfa import unfinished
from nfa.errors import NfaError
from nfa.registry import tracking
from nfa.registry.tracking import artifacts, event_files
from tests.support.fault_injection import KILL, During
from tests.support.forks import files, fill_and_die, in_process, killed
from tests.support.processes import run, words
from tests.support.stores import Finished, Store
from tests.support.tiny_runs import tiny


@pytest.fixture
def elsewhere(changeable: Finished, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run whose artifacts are nowhere on this machine, as far as nfa knows: MLflow has to bring them."""
    monkeypatch.setattr(artifacts, "local_folder", lambda _: None)
    return tracking.find_run(changeable.run_id)


@pytest.mark.parametrize("number", [4, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 3, 6))])
def test_a_resumed_run_holds_no_more_than_one_that_was_never_killed(
    number: int, fresh: Store, finished: Finished
) -> None:
    """The fourth file is the first training state."""
    assert run(fresh, tiny(), before=During("os", "replace", KILL, number)).code == -signal.SIGKILL
    (run_id,) = fresh.runs()
    whole = files(finished.store.artifact(finished.run_id))
    assert set(files(fresh.artifact(run_id))) - set(whole)
    assert run(fresh, words(resume=run_id), pictures=True).code == 0
    assert files(fresh.artifact(run_id)) == whole


def test_what_is_left_in_any_folder_of_a_run_is_swept(changeable: Finished) -> None:
    info = tracking.find_run(changeable.run_id)
    root = changeable.store.artifact(changeable.run_id)
    whole = files(root)
    for path in ("a", "deep/er/b"):
        killed(tracking.put, info, path, fill_and_die)
    assert len(files(root)) > len(whole)
    artifacts.sweep_unfinished(info)
    assert files(root) == whole


def test_an_upload_and_a_download_are_gone_with_their_process(elsewhere: Any, temporary: Path) -> None:
    assert in_process(up_and_down, elsewhere, temporary) == 0
    assert files(temporary) == []


def up_and_down(run: Any, temporary: Path) -> None:
    tracking.put_text(run, "text.txt", "content")
    found = tracking.get(run.info.run_id, "text.txt")
    assert found.read_text() == "content\n"
    assert found.is_relative_to(temporary)


@pytest.mark.parametrize("path", ["text.txt", "deep/er/text.txt"])
def test_an_upload_that_is_killed_is_gone_with_the_next_process(path: str, elsewhere: Any, temporary: Path) -> None:
    killed(tracking.put, elsewhere, path, fill_and_die)
    assert [Path(left).name for left in files(temporary)] == [unfinished.LOCK, "text.txt"]
    assert in_process(up_and_down, elsewhere, temporary) == 0
    assert files(temporary) == []


def test_event_files_that_were_never_closed_are_gone_with_their_process(elsewhere: Any, temporary: Path) -> None:
    assert in_process(open_event_files, elsewhere) == 0
    assert files(temporary) == []


def open_event_files(run: Any) -> None:
    event_files.EventFiles(tracking.run_of_another(run.info.run_id)).scalars({"loss": 1.0}, 0)


def test_a_picture_that_is_killed_on_its_way_is_gone_with_the_next_process(
    changeable: Finished, elsewhere: Any, temporary: Path
) -> None:
    Image.new("RGB", (2, 2)).save(changeable.store.artifact(changeable.run_id, "a.png"))
    killed(put_images_and_die, elsewhere)
    assert list(temporary.rglob("*.png"))
    assert in_process(up_and_down, elsewhere, temporary) == 0
    assert files(temporary) == []


def put_images_and_die(run: Any) -> None:
    MlflowClient.log_artifact = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    tracking.put_images(run, "series", {0: "a.png"})


# ---- copies into a folder of the user's


def test_a_copy_for_which_there_is_no_room_leaves_nothing_and_says_so(
    changeable: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, copied = artifacts.shutil.copyfile, []

    def full(source: Path, target: Path) -> None:
        copied.append(source)
        if len(copied) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, target)

    monkeypatch.setattr(artifacts.shutil, "copyfile", full)
    with pytest.raises(NfaError, match=rf"(?s)a/b: .*No space left.*do: fix it .* run {changeable.run_id}"):
        tracking.copy_artifacts(changeable.run_id, tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


def test_a_copy_that_fails_leaves_the_one_before(
    changeable: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking.copy_artifacts(changeable.run_id, tmp_path / "out")
    before = {path: (tmp_path / "out" / path).read_bytes() for path in files(tmp_path / "out")}
    monkeypatch.setattr(artifacts, "get", lambda *_: tmp_path / "nowhere")
    with pytest.raises(NfaError, match="No such file"):
        tracking.copy_artifacts(changeable.run_id, tmp_path / "out")
    assert {path: (tmp_path / "out" / path).read_bytes() for path in files(tmp_path / "out")} == before


def test_a_copy_replaces_links_to_files_and_goes_through_none_to_a_folder(changeable: Finished, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.json").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").symlink_to(tmp_path / "other" / "mine.json")
    tracking.copy_artifacts(changeable.run_id, tmp_path / "out")
    assert (tmp_path / "other" / "mine.json").read_text() == "mine"
    assert not (tmp_path / "out" / "results.json").is_symlink()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "checkpoints").symlink_to(tmp_path / "other")
    with pytest.raises(NfaError, match="linked/checkpoints is a link"):
        tracking.copy_artifacts(changeable.run_id, tmp_path / "linked")
    assert files(tmp_path / "other") == ["mine.json"]
    assert os.listdir(tmp_path / "linked") == ["checkpoints"]
