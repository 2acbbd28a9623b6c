"""Commands that are refused, as rows of one table, and what is asked of every refusal."""

import hashlib
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import pytest

from nfa.registry import cli, signals
from tests.support.processes import HEAVY, imported, process
from tests.support.stores import Store


@dataclass(frozen=True)
class Scene:
    """Where a row's command is typed: a folder of its own, the store that is used, and names in its words."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    store: Store | None = None
    names: dict[str, str] = field(default_factory=dict)

    def stored(self) -> Store:
        """The store of a scene that has one."""
        assert self.store is not None
        return self.store

    def contents(self) -> Mapping[Path, str]:
        """Digests of all files, in the folder and in the store; folders are empty ones."""
        roots = [self.folder, *([self.store.folder] if self.store else [])]
        return {path: _digest(path) for root in roots for path in root.rglob("*")}


Prepare = Callable[[Scene], object]


@dataclass(frozen=True)
class Row:
    """A command, and a part of each of the three lines that refuse it: `…` in them is anything, `$name` the scene's.

    The scene is a fixture, which `prepare` changes first. In "nothing" there is neither a file nor a store: what is
    refused there is refused before anything heavy is imported.
    """

    command: str
    got: str
    allowed: str = ""
    remedy: str = ""
    scene: str = "nothing"
    prepare: Prepare | None = None
    name: str = ""  # of what is prepared

    def __str__(self) -> str:
        return f"{self.command} ({self.name or self.scene})"

    @property
    def is_early(self) -> bool:
        return self.scene == "nothing" and self.prepare is None

    def words(self, names: Mapping[str, str]) -> list[str]:
        return shlex.split(Template(self.command).substitute(names))


def table(text: str, prepared: Mapping[str, Prepare]) -> list[Row]:
    """A row a line, its cells between ` | `; a line that begins with `|` continues the one before.

    A line `[scene]` or `[scene: name in prepared]` is for the rows below it; the first ones are in "nothing".

    >>> table("train --lr 0 | lr=0 | a number > 0 | lr=auto", {})[0].remedy
    'lr=auto'
    """
    rows, scene, name = [], "nothing", ""
    for line in re.sub(r"\n\s*\|", " |", text).strip().splitlines():
        if line.startswith("["):
            scene, _, name = line.strip("[]").partition(": ")
        else:
            command, got, allowed, remedy = ([cell.strip() for cell in line.split(" | ")] + ["", ""])[:4]
            rows.append(Row(command, got, allowed, remedy, scene, prepared[name] if name else None, name))
    return rows


class Refused:
    """Ends an entry point in this process with some words; what it said."""

    def __init__(
        self,
        name: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.name = name
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, argv: list[str]) -> str:
        self.monkeypatch.setattr("sys.argv", [self.name, *argv])
        self.monkeypatch.setattr(signals, "listen", lambda: None)
        with pytest.raises(SystemExit) as ended:
            cli.main(self.name)
        said = self.capsys.readouterr().err
        assert ended.value.code == 2, said
        first, *more, second, third = said.splitlines()
        assert first.startswith("error: cannot use "), said
        assert all(line.startswith("    ") for line in more), said
        assert second.startswith("  allowed: "), said
        assert third.startswith("  do: "), said
        return said


def assert_refused(row: Row, scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, the row's three parts, nothing else on the error output, no password, and nothing written."""
    if row.prepare:
        row.prepare(scene)
    name, *argv = row.words(scene.names)
    before = scene.contents()
    capsys.readouterr()
    said = Refused(name, scene.monkeypatch, capsys)(argv)
    assert "secret" not in said
    got, rest = said.split("\n  allowed: ")
    allowed, remedy = rest.split("\n  do: ")
    for part, text in ((row.got, got), (row.allowed, allowed), (row.remedy, remedy)):
        assert re.search(_pattern(part, scene.names), text, re.DOTALL), f"not {part!r}, but:\n{said}"
    assert scene.contents() == before


def _pattern(part: str, names: Mapping[str, str]) -> str:
    return ".*".join(re.escape(Template(piece).safe_substitute(names)) for piece in part.split("…"))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def assert_refused_before_anything_heavy(entrypoint: str, text: str, got: str, folder: Path) -> None:
    """In a process of its own: exit 2, the words, nothing heavy loaded and no file made."""
    ended = process(text.split(), folder, "-X", "importtime", entrypoint=entrypoint)
    assert ended.returncode == 2, ended.stderr
    assert f"error: cannot use {got}" in ended.stderr
    loaded = {name.split(".")[0] for name in imported(ended.stderr)}
    assert "nfa" in loaded
    assert not loaded & {*HEAVY, "sklearn", "matplotlib", "scipy"}
    assert list(folder.iterdir()) == []
