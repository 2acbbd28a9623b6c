"""What an entry point says when it refuses."""

from pathlib import Path

import pytest

from nfa.registry import cli, signals
from tests.support.processes import HEAVY, imported, process


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
        first, *_, second, third = said.splitlines()
        assert first.startswith("error: cannot use ")
        assert second.startswith("  allowed: ")
        assert third.startswith("  do: ")
        return said


def assert_refused_before_anything_heavy(entrypoint: str, text: str, got: str, folder: Path) -> None:
    """In a process of its own: exit 2, the words, nothing heavy loaded and no file made."""
    ended = process(text.split(), folder, "-X", "importtime", entrypoint=entrypoint)
    assert ended.returncode == 2, ended.stderr
    assert f"error: cannot use {got}" in ended.stderr
    loaded = {name.split(".")[0] for name in imported(ended.stderr)}
    assert "nfa" in loaded
    assert not loaded & {*HEAVY, "sklearn", "matplotlib", "scipy"}
    assert list(folder.iterdir()) == []
