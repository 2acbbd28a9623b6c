"""What is not whole yet lies apart; what killed processes leave of it the next one removes, and nothing else."""

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nfa import unfinished
from tests.support.forks import fill_and_die, in_process, killed

Making = Callable[[Path], object]


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


WAYS: dict[str, Callable[[Path, Making], object]] = {
    "file": lambda folder, make: unfinished.write(folder / "made", make),
    "folder": lambda folder, make: unfinished.made_once(folder / "made", lambda inner: make(inner / "file")),
}


def write_and_die(folder: Path, way: str = "file") -> None:
    WAYS[way](folder, fill_and_die)


@pytest.mark.parametrize("way", WAYS)
def test_what_a_killed_process_leaves_is_recognised_and_removed_by_the_next_one(way: str, tmp_path: Path) -> None:
    killed(write_and_die, tmp_path, way)
    (left,) = inside(tmp_path)
    assert left.startswith(unfinished.PREFIX)
    WAYS[way](tmp_path, Path.touch)
    assert inside(tmp_path) == ["made"]


def test_what_a_living_process_is_at_is_left_alone(tmp_path: Path) -> None:
    with unfinished.folder_in(tmp_path) as scratch:
        (scratch / "half").write_text("half")
        assert in_process(unfinished.sweep, tmp_path) == 0
        unfinished.sweep(tmp_path)
        assert (scratch / "half").read_text() == "half"


def test_only_what_is_unfinished_is_swept_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    (tmp_path / f"{unfinished.PREFIX}link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".hidden").mkdir()
    unfinished.sweep(tmp_path)
    assert inside(tmp_path) == [".hidden", f"{unfinished.PREFIX}link", "elsewhere"]
    assert inside(tmp_path / "elsewhere") == ["file"]


def test_what_is_somebody_else_s_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(write_and_die, tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    unfinished.sweep(tmp_path)
    assert len(inside(tmp_path)) == 1


def test_a_folder_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = tempfile.mkdtemp, []

    def swept(**where: Any) -> str:
        made.append(make(**where))
        if len(made) == 1:
            unfinished.sweep(tmp_path)
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", swept)
    with unfinished.folder_in(tmp_path) as scratch:
        assert str(scratch) == made[1]
        assert scratch.is_dir()


def test_where_the_file_system_has_no_locks_nothing_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    with unfinished.folder_in(tmp_path) as scratch:
        unfinished.sweep(tmp_path)
        assert scratch.is_dir()
    assert inside(tmp_path) == []


def test_folders_that_were_made_for_nothing_are_gone_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="full"), unfinished.folder_in(tmp_path / "there" / "a" / "b"):
        raise OSError("full")
    assert inside(tmp_path / "there") == []
    unfinished.write(tmp_path / "there" / "a" / "b" / "file", Path.touch)
    assert inside(tmp_path / "there" / "a" / "b") == ["file"]


def test_folders_of_which_only_some_could_be_made_are_gone(tmp_path: Path) -> None:
    with pytest.raises(OSError), unfinished.folder_in(tmp_path / "a" / ("long" * 100)):  # noqa: PT011
        pass
    assert inside(tmp_path) == []


def test_a_file_that_could_not_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before")

    def half(file: Path) -> None:
        file.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        unfinished.write(tmp_path / "file", half)
    assert inside(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "before"


# ---- the process's own place


def test_a_process_has_one_place_which_its_end_empties(temporary: Path) -> None:
    code = "from nfa.unfinished import place; (place() / 'file').touch(); assert place() == place()"
    code += "; print(place())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert Path(ended.stdout.strip()).parent == temporary
    assert inside(temporary) == []


def test_the_place_of_a_killed_process_is_removed_by_the_next(temporary: Path) -> None:
    killed(lambda: fill_and_die(unfinished.place() / "file"))
    assert len(inside(temporary)) == 1
    assert in_process(assert_alone, temporary) == 0
    assert inside(temporary) == []


def assert_alone(temporary: Path) -> None:
    own = unfinished.place()
    assert inside(temporary) == [own.name]


def test_a_fork_has_a_place_of_its_own_and_its_end_leaves_the_other_s(temporary: Path) -> None:
    assert in_process(fork_with_a_place) == 0
    assert inside(temporary) == []


def fork_with_a_place() -> None:
    own = unfinished.place()
    assert in_process(assert_another, own) == 0
    child = os.fork()
    if child == 0:
        sys.exit(unfinished.place() == own)
    assert os.waitpid(child, 0)[1] == 0
    assert own.is_dir()


def assert_another(own: Path) -> None:
    assert unfinished.place() != own


def test_temporary_files_of_libraries_lie_in_the_place_within_the_block(temporary: Path) -> None:
    assert in_process(assert_temporary_files) == 0
    assert inside(temporary) == []


def assert_temporary_files() -> None:
    with unfinished.temporary_files():
        assert Path(tempfile.mkdtemp()).parent == unfinished.place()
    assert Path(tempfile.gettempdir()) == unfinished.place().parent
