"""A stored run never makes this process import a name by itself, unless that is registered, or lies here unchanged."""

import os
import py_compile
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nfa
from nfa import content
from nfa.errors import Refusal
from nfa.registry.families.custom.maker import find
from nfa.registry.families.custom.trust import imported
from tests.families.custom.test_maker import install
from tests.support.refusals import Refused
from tests.support.stores import Finished, Store
from tests.support.workload_files import LAB, change_config, train_lab, write_lab

SPY = "open('imported', 'w').close()\n"
HARM = "command=touch harmed"
Act = Callable[[str], str]


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, Act]:
    """Everything that makes a stored run's workload again; gives what is said where it refuses."""

    def door(name: str, parameter: str = "--run_id") -> Act:
        return lambda run_id: Refused(name, monkeypatch, capsys)([parameter, run_id])

    def load(run_id: str) -> str:
        with pytest.raises(Refusal) as refusal:
            nfa.load_checkpoint(run_id, "last")
        return str(refusal.value)

    analyses = {name: door(name) for name in ("analyze", "gradient_directions", "gradient_flow")}
    return {**analyses, "resume": door("train", "--resume"), "load_checkpoint": load}


@pytest.fixture
def killed(trained: Finished) -> Finished:
    """As if it could be continued."""
    trained.store.change("UPDATE tags SET value = 'killed' WHERE key = 'nfa.state'")
    return trained


def trained_by(run: Finished, workload: str, **train: Any) -> None:
    """As if the run had been trained with another function."""
    change_config(run, {"train": {"workload": workload, **train}}, workload=workload)
    run.store.change("UPDATE tags SET value = ? WHERE key = 'nfa.workload'", workload)
    for file in run.store.artifact(run.run_id, "checkpoints").iterdir():
        tensors, metadata = content.read_tensors(file).content
        kept = {name: tensor.clone() for name, tensor in tensors.items()}
        del metadata["config_digest"]
        file.unlink()
        content.write_tensors(file, kept, metadata)


def assert_refused(run: Finished, ways: dict[str, Act], *parts: str) -> None:
    """Everywhere, with these words; nothing is imported or called, and the store is as it was."""

    def stored() -> object:
        return run.store.rows("SELECT * FROM tags ORDER BY run_uuid, key"), run.store.json(run.run_id, "config.json")

    before = stored()
    for way, act in ways.items():
        said = act(run.run_id)
        for part in parts:
            assert part in said, (way, said)
    assert not [file for file in ("imported", "harmed") if Path(file).exists()]
    assert stored() == before


# ---- what is refused


@pytest.mark.parametrize("workload", ["os:system", "subprocess:run", "builtins:exec", "sklearn:clone", "my_other:make"])
def test_a_run_that_names_another_module_is_refused_and_says_what_to_type(
    workload: str, killed: Finished, ways: dict[str, Act]
) -> None:
    Path("my_other.py").write_text(SPY + LAB)
    trained_by(killed, workload, workload_args=HARM)
    assert_refused(killed, ways, workload, "if you trust the code, ", "workload=")


@pytest.mark.parametrize("name", ["os:system", "subprocess:run", "shutil:rmtree"])
def test_one_that_is_typed_has_to_be_a_function_that_can_be_read_and_takes_the_arguments(
    name: str, killed: Finished
) -> None:
    trained_by(killed, name, workload_args=HARM)
    with pytest.raises(Refusal):
        nfa.load_checkpoint(killed.run_id, "last", workload=name)
    assert not Path("harmed").exists()


@pytest.mark.parametrize("change", [" ", "\n", SPY])
def test_a_file_that_has_changed_is_refused(change: str, killed: Finished, ways: dict[str, Act]) -> None:
    write_lab(killed.store.folder, change)
    assert_refused(killed, ways, "my_lab.py is not the file that the run was trained with", "workload=my_lab:make")


def test_a_file_that_is_not_here_is_refused(killed: Finished, ways: dict[str, Act]) -> None:
    Path("my_lab.py").unlink()
    assert_refused(killed, ways, f"my_lab:make, which is not in {killed.store.folder}")


def test_a_link_that_leads_out_of_the_folder_is_refused(killed: Finished, ways: dict[str, Act], tmp_path: Path) -> None:
    Path("my_lab.py").rename(tmp_path / "my_lab.py")
    Path("my_lab.py").symlink_to(tmp_path / "my_lab.py")
    assert_refused(killed, ways, "is not in")


def test_a_linked_folder_of_a_package_is_refused(killed: Finished, ways: dict[str, Act], tmp_path: Path) -> None:
    (tmp_path / "labs").mkdir()
    Path("my_lab.py").rename(tmp_path / "labs/my_lab.py")
    Path("linked").symlink_to(tmp_path / "labs")
    trained_by(killed, "linked.my_lab:make")
    assert_refused(killed, ways, "is not in")


@pytest.mark.parametrize("function", ["network", "Blurred", "F", "nothing"])
def test_another_name_of_the_same_file_with_arguments_it_does_not_take_is_refused(
    function: str, killed: Finished, ways: dict[str, Act]
) -> None:
    trained_by(killed, f"my_lab:{function}", workload_args=HARM)
    assert_refused(killed, ways, f"my_lab:{function}")


def test_a_path_elsewhere_is_refused_though_the_same_file_is_here(
    killed: Finished, ways: dict[str, Act], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere" / "my_lab.py"
    elsewhere.parent.mkdir()
    elsewhere.write_text(SPY + LAB)
    trained_by(killed, f"{elsewhere}:make")
    assert_refused(killed, ways, f"workload={elsewhere}:make")


@pytest.mark.parametrize("arguments", [["width", 8], {"width": 8}, None, 8])
def test_arguments_that_are_no_text_are_refused(arguments: object, killed: Finished, ways: dict[str, Act]) -> None:
    change_config(killed, {"train": {"workload_args": arguments}})
    assert_refused(killed, ways, "config.json", "workload_args is")


@pytest.mark.parametrize("code", [None, {}, {"file_digest": None}, {"file_digest": 3}, "gone"])
def test_a_config_json_that_does_not_say_its_code_is_refused(
    code: object, killed: Finished, ways: dict[str, Act]
) -> None:
    change_config(killed, {}, code=code)
    assert_refused(killed, ways)


# ---- what is taken


def loaded(run: Finished, **named: str) -> nfa.workload.Workload:  # type: ignore[name-defined]
    return nfa.load_checkpoint(run.run_id, "last", **named).workload


def test_a_run_of_this_folder_is_loaded_by_itself(trained: Finished) -> None:
    assert len(loaded(trained).ids("train")) == 48


def test_a_file_that_has_changed_and_is_named_is_taken_if_it_answers_as_before(trained: Finished) -> None:
    write_lab(trained.store.folder, "# a remark\n")
    assert len(loaded(trained, workload="my_lab:make").ids("train")) == 48


@pytest.mark.parametrize("place", ["elsewhere/my_lab.py", "random.py", "labs/deep/my_lab.py"])
def test_a_file_elsewhere_that_is_named_by_its_path_is_taken(place: str, trained: Finished) -> None:
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Path("my_lab.py").rename(place)
    assert len(loaded(trained, workload=f"{place}:make").ids("train")) == 48
    assert len(loaded(trained, workload=f"{Path(place).absolute()}:make").ids("train")) == 48


@pytest.mark.parametrize(("place", "name"), [("labs/my_lab.py", "labs.my_lab"), ("my_labs/__init__.py", "my_labs")])
def test_a_module_of_a_package_in_the_folder_is_trained_and_loaded(place: str, name: str, store: Store) -> None:
    write_lab(store.folder, name=place)
    run = Finished(store, train_lab(store, f"{name}:make"))
    assert len(loaded(run).ids("train")) == 48
    Path(place).write_text(LAB + "#")
    with pytest.raises(Refusal, match="has changed since"):
        loaded(run)


def test_a_registered_name_is_imported_by_itself_from_its_package(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "mynet = somebodys_nets.vision:make")
    write_lab(tmp_path / "site", name="somebodys_nets/vision.py")
    (tmp_path / "site/somebodys_nets/__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "site")
    run = Finished(store, train_lab(store, "mynet", workload_args="width=5"))
    assert store.tags(run.run_id)["nfa.workload"] == "mynet"
    assert len(loaded(run).ids("train")) == 48
    write_lab(tmp_path / "site", "#", name="somebodys_nets/vision.py")  # another version of the package
    assert len(loaded(run).ids("train")) == 48


# ---- the module is that of the file


def written(folder: Path, number: int, name: str = "my_lab.py") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"def make(): return {number}")
    return f"{folder / name}:make"


def test_files_of_one_name_from_several_folders_are_told_apart(tmp_path: Path) -> None:
    names = [written(tmp_path / str(number), number) for number in range(3)]
    assert [imported(find(name))() for name in [*names, *names]] == [0, 1, 2, 0, 1, 2]
    assert imported(find(names[1])) is imported(find(names[1]))


def test_a_file_whose_name_is_that_of_an_imported_module_leaves_that_alone(tmp_path: Path) -> None:
    import random

    assert imported(find(written(tmp_path, 4, "random.py")))() == 4
    assert sys.modules["random"] is random


def test_a_file_that_is_changed_in_the_same_process_is_imported_again(tmp_path: Path) -> None:
    assert imported(find(written(tmp_path, 1)))() == 1
    assert imported(find(written(tmp_path, 2)))() == 2


def test_bytecode_of_another_text_with_the_same_length_and_second_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = Path(written(tmp_path, 1).partition(":")[0])
    py_compile.compile(str(file))
    before = file.stat()
    name = written(tmp_path, 2)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert imported(find(name))() == 2


def test_a_package_of_the_folder_whose_name_is_taken_gives_its_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NFA_CALLER_DIR", raising=False)
    written(tmp_path / "json", 5, "decoder.py")
    assert imported(find("json.decoder:make"))() == 5
    assert "json.decoder" in sys.modules
    assert "python" in str(sys.modules["json.decoder"].__file__)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def make(): ...\nmake = print", "builtin_function_or_method"),
        ("def make(): ...\nmake = __import__('json').dumps", "a function once"),
        ("def make(): ...\ndel make", "NoneType"),
        ("def make(): ...\nraise SystemExit(0)", "SystemExit"),
        ("def make(): ...\nimport nothing_of_that_name", "No module named"),
        ("def make(): ...\n1 / 0", "ZeroDivisionError: division by zero"),
        ("def make(): ...\nimport sys; sys.exit()", "SystemExit"),
    ],
)
def test_a_file_that_fails_or_changes_its_function_is_refused(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "my_lab.py").write_text(text)
    with pytest.raises(Refusal, match=why):
        imported(find(f"{tmp_path / 'my_lab.py'}:make"))
    assert "my_lab" not in sys.modules or why in ("a function once", "NoneType", "builtin_function_or_method")
