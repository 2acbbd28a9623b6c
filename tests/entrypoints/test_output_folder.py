"""`output_dir`: nothing is left there by a refusal, and nothing is written outside of it."""

import signal
from pathlib import Path
from typing import Any

import pytest

from nfa.errors import NfaError, Refusal
from nfa.registry.analyses.output_folders import output_folder
from tests.support.analyses import analysed
from tests.support.fault_injection import KILL, During
from tests.support.processes import run, words
from tests.support.stores import Finished

ASKED: dict[str, Any] = {"epochs": "4", "max_samples": 20}


def inside(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("wrong", [{"sites": "conv*"}, {"epochs": "99"}, {"max_samples": 1150}, {"device": "gpu"}])
def test_a_refused_analysis_leaves_neither_the_folder_nor_those_above_it(
    wrong: dict[str, Any], changeable: Finished, tmp_path: Path
) -> None:
    with pytest.raises(Refusal):
        analysed(changeable.store, **{**ASKED, **wrong}, output_dir=str(tmp_path / "out" / "below"))
    assert inside(tmp_path / "out") == []
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_as_it_was_after_a_refusal(changeable: Finished, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(Refusal):
        analysed(changeable.store, **{**ASKED, "device": "gpu"}, output_dir=str(tmp_path / "out"))
    assert inside(tmp_path / "out") == ["mine"]


@pytest.mark.parametrize("name", ["plots", "arrays", "images"])
@pytest.mark.parametrize("kind", ["link", "dangling", "file"])
def test_a_folder_in_it_that_is_a_link_or_none_is_refused_before_any_work(
    name: str, kind: str, changeable: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "other").mkdir()
    way = tmp_path / "out" / name
    way.touch() if kind == "file" else way.symlink_to(tmp_path / ("other" if kind == "link" else "nowhere"))
    monkeypatch.setattr("nfa.registry.analyses.alignment.AlignmentOfRun", None)
    with pytest.raises(Refusal, match=rf"out/{name} is a link or not a folder(.|\n)*do: remove it"):
        analysed(changeable.store, **ASKED, output_dir=str(tmp_path / "out"))
    assert changeable.store.runs() == [changeable.run_id]
    assert inside(tmp_path / "other") == []


@pytest.mark.parametrize("way", ["one", "one/plots", "other/arrays"])
def test_so_is_a_link_where_the_folder_of_one_of_several_runs_goes(way: str, tmp_path: Path) -> None:
    (tmp_path / "out" / way).parent.mkdir(parents=True)
    (tmp_path / "out" / way).symlink_to(tmp_path)
    with pytest.raises(Refusal, match=rf"out/{way} is a link"):
        output_folder(str(tmp_path / "out"), ["one", "other"])
    assert output_folder(str(tmp_path / "out")) == tmp_path / "out"


def test_links_to_files_are_replaced_and_what_they_led_to_stays(changeable: Finished, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "other.json").write_text("mine")
    for name in ("similarities.json", "config.json"):
        (tmp_path / "out" / name).symlink_to(tmp_path / "other.json")
    analysed(changeable.store, **ASKED, output_dir=str(tmp_path / "out"))
    assert (tmp_path / "other.json").read_text() == "mine"
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


def test_the_folder_itself_may_be_a_link(changeable: Finished, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    analysed(changeable.store, **ASKED, output_dir=str(tmp_path / "out"))
    assert inside(tmp_path / "real") == ["config.json", "similarities.csv", "similarities.json"]


def test_a_copy_that_cannot_be_made_is_said_in_a_message_and_the_analysis_is_there(
    changeable: Finished, tmp_path: Path
) -> None:
    (tmp_path / "out" / "config.json" / "below").mkdir(parents=True)
    with pytest.raises(NfaError, match=r"could not be copied to \S+/out: (.|\n)*copy from run [0-9a-f]{32}"):
        analysed(changeable.store, **ASKED, output_dir=str(tmp_path / "out"))
    made = changeable.store.runs()[-1]
    assert changeable.store.tags(made)["nfa.state"] == "finished"


def test_what_a_killed_copy_leaves_is_removed_by_the_next(changeable: Finished, tmp_path: Path) -> None:
    argv = words(**ASKED, output_dir=tmp_path / "out")
    ended = run(changeable.store, argv, entrypoint="analyze", before=During("shutil", "copyfile", KILL, 2))
    assert ended.code == -signal.SIGKILL
    assert inside(tmp_path / "out")
    assert run(changeable.store, argv, entrypoint="analyze").code == 0
    assert inside(tmp_path / "out") == ["config.json", "similarities.csv", "similarities.json"]
