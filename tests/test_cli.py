"""The command line: what it accepts, what it refuses, and that refusing needs nothing heavy."""

import dataclasses
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from nfa.errors import NfaError, Refusal
from nfa.options import check_fields, option
from nfa.registry import cli, signals, tracking
from nfa.registry.families.mlp.config import TrainConfig
from tests.support.processes import HEAVY, imported, process
from tests.support.tiny_runs import tiny


@dataclass(frozen=True)
class Switches:
    """A job with a switch."""

    fast: bool = option(True, "whether to hurry")
    slow: bool = option(False, "whether not to")
    rate: float = option(1.0, "how much", above=0)

    def __post_init__(self) -> None:
        check_fields(self)


def test_help_names_every_parameter_with_default_help_and_choices(tmp_path: Path) -> None:
    ended = process(["--help"], tmp_path, "-X", "importtime")
    assert ended.returncode == 0
    for item in dataclasses.fields(TrainConfig):
        assert f"\n  --{item.name} (default " in ended.stdout
        assert item.metadata["help"] in ended.stdout
        assert ", ".join(item.metadata["choices"]) in ended.stdout
    assert not {name.split(".")[0] for name in imported(ended.stderr)} & set(HEAVY)


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("/usr/bin/nfa", "nfa train"),
        ("/lib/nfa/__main__.py", "python -m nfa train"),
        ("/project/entrypoints/train.py", "python -m entrypoints.train"),
    ],
)
def test_help_begins_with_the_command_that_was_typed(
    program: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [program])
    assert cli.help_text(TrainConfig, "train").startswith(f"{command} [--parameter value ...]\n")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_help_ends_without_a_traceback_where_its_reader_has_gone(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "nfa", *words]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_help_wins_over_words_that_are_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["train", "--lr", "nan", "-h"])
    monkeypatch.setattr(signals, "listen", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.run("train", TrainConfig, lambda _config: None)
    assert ended.value.code == 0
    assert "--optimizer (default sgd)" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("True", True), ("FALSE", False)])
def test_booleans_take_true_and_false(text: str, value: bool) -> None:
    assert cli.parse(Switches, ["--slow", text]).slow is value


@pytest.mark.parametrize("text", ["1", "0", "yes", "no", "", "on", "tru", "--fast"])
def test_booleans_take_nothing_else(text: str) -> None:
    with pytest.raises(Refusal, match="true, false"):
        cli.parse(Switches, ["--slow", text])


def test_words_become_values_of_the_declared_types() -> None:
    config = cli.parse(TrainConfig, ["--lr", "1e-2", "--epochs=7", "--schedule", "0-2,7", "--run_name", "a b=c"])
    assert (config.lr, config.epochs, config.schedule, config.run_name) == (0.01, 7, "0-2,7", "a b=c")
    assert type(config.epochs) is int
    assert type(config.lr) is float


def test_without_words_every_parameter_has_its_default() -> None:
    assert cli.parse(TrainConfig, []) == TrainConfig()


def test_words_that_mlflow_passes_for_the_defaults_give_the_defaults() -> None:
    words = [word for item in dataclasses.fields(TrainConfig) for word in (f"--{item.name}", str(item.default))]
    assert cli.parse(TrainConfig, words) == TrainConfig()


def test_auto_stays_auto_until_it_is_resolved() -> None:
    assert cli.parse(TrainConfig, ["--lr", "auto", "--momentum", "auto"]) == TrainConfig()


@pytest.mark.parametrize(
    ("error", "code", "traceback"),
    [
        (None, 0, False),
        (NfaError("no"), 1, False),
        (Refusal("a", "b", "c"), 2, False),
        (KeyError("x"), 1, True),
        (tracking.StoreError[0]("disk is full\n[SQL: UPDATE tags]"), 1, False),
        (OSError(28, "No space left on device"), 1, False),
    ],
)
def test_exit_code_and_traceback_follow_from_how_the_work_ended(
    error: Exception | None,
    code: int,
    traceback: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(_config: TrainConfig) -> None:
        if error:
            raise error

    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setattr("sys.argv", ["train", *tiny()])
    monkeypatch.setattr(signals, "listen", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.run("train", TrainConfig, work)
    assert ended.value.code == code
    said = capsys.readouterr().err
    assert ("Traceback" in said) is traceback
    assert "SQL" not in said


@pytest.mark.parametrize(("signum", "code"), [(2, 130), (15, 143)])
def test_interrupt_gives_the_shell_s_exit_code(signum: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(_config: TrainConfig) -> None:
        raise signals.Interrupted(signum)

    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setattr("sys.argv", ["train"])
    monkeypatch.setattr(signals, "listen", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.run("train", TrainConfig, work)
    assert ended.value.code == code
