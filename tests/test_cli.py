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


REFUSED = {
    "unknown optimizer": (["--optimizer", "sdg"], "optimizer='sdg'", "sgd, adam, adamw, muon, all", "optimizer=sgd"),
    "unknown dataset": (["--dataset", "digit"], "dataset='digit'", "digits, svhn", "dataset=digits"),
    "unknown parameter": (["--widht", "8"], "parameter 'widht'", "width, depth", "did you mean --width?"),
    "nothing like it": (["--zzzzzz", "8"], "parameter 'zzzzzz'", "optimizer, lr", "see --help"),
    "a bare word": (["lr=0.1"], "word 'lr=0.1'", "optimizer, lr", "did you mean --lr?"),
    "negative": (["--width", "-3"], "width=-3", "a whole number ≥ 1", "default, 1024"),
    "negative, separate words": (["--lr", "-1e-3"], "lr=-0.001", "a number > 0, or auto", "default, auto"),
    "negative, one word": (["--lr=-1e-3"], "lr=-0.001", "a number > 0, or auto", "default, auto"),
    "zero": (["--lr", "0"], "lr=0", "a number > 0", "default, auto"),
    "no epochs": (["--epochs", "0"], "epochs=0", "a whole number ≥ 1", "default, 100"),
    "not a number": (["--lr", "fast"], "lr='fast'", "a number > 0, or auto", "for example lr=0.1"),
    "not whole": (["--epochs", "2.5"], "epochs='2.5'", "a whole number ≥ 1", "for example epochs=100"),
    "nan": (["--lr", "nan"], "lr=nan", "a number > 0", "default, auto"),
    "infinite": (["--weight_decay", "inf"], "weight_decay=inf", "a number ≥ 0", "default, 0.0"),
    "nan epochs": (["--epochs", "nan"], "epochs='nan'", "a whole number ≥ 1", "for example epochs=100"),
    "auto where there is none": (["--epochs", "auto"], "epochs='auto'", "a whole number", "for example epochs=100"),
    "huge": (["--epochs", "1" * 30], "epochs=1111", "a whole number ≥ 1 and < 10000000", "default, 100"),
    "huge width": (["--width", "9" * 18], "width=9999", "a whole number ≥ 1 and <", "default, 1024"),
    "beyond floats": (["--width", "1" * 400], "width=1111", "a whole number ≥ 1 and <", "default, 1024"),
    "beyond Python's digits": (["--width", "1" * 5000], "width='1111", "a whole number ≥ 1", "for example width=1024"),
    "huge seed": (["--seed", str(2**63)], f"seed={2**63}", f"< {2**63}", "default, 1717"),
    "label noise of one": (["--label_noise", "1"], "label_noise=1.0", "≥ 0 and < 1", "default, 0.0"),
    "given twice": (["--lr", "1", "--lr", "2"], "--lr given twice", "each parameter once", "keep one --lr"),
    "no value": (["--lr"], "--lr without a value", "--lr VALUE", "add a value after --lr"),
    "empty number": (["--epochs", ""], "epochs=''", "a whole number ≥ 1", "for example epochs=100"),
    "empty choice": (["--optimizer="], "optimizer=''", "sgd, adam, adamw, muon, all", "optimizer=sgd"),
    "empty schedule": (["--schedule", ""], "schedule ''", "a-b/step", "0-20,40,60,80,100"),
    "schedule of words": (["--schedule", "0-20,x"], "schedule '0-20,x' (at 'x')", "a-b/step", "0-20,40"),
    "schedule backwards": (["--schedule", "20-0"], "schedule '20-0'", "a ≤ b", "correct '20-0'"),
    "schedule without step": (["--schedule", "0-20/0"], "schedule '0-20/0'", "step of at least 1", "correct '0-20/0'"),
    "momentum with adam": (
        ["--optimizer", "adam", "--momentum", "0.9"],
        "momentum=0.9 with optimizer=adam",
        "momentum for sgd and muon",
        "leave momentum=auto",
    ),
    "missing folder": (
        ["--dataset", "fashion-mnist", "--data_dir", "nowhere"],
        "nowhere lacks train-images-idx3-ubyte.gz",
        "a folder with train-images-idx3-ubyte.gz",
        "data_dir=FOLDER",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_with_what_was_got_what_is_allowed_and_what_to_do(
    case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words, got, allowed, remedy = REFUSED[case]
    code, output = refusal(words, monkeypatch, capsys, tmp_path)
    assert code == 2
    first, second, third = output.splitlines()
    assert first.startswith("error: cannot use ")
    assert got in first
    assert second.startswith("  allowed: ")
    assert allowed in second
    assert third.startswith("  do: ")
    assert remedy in third
    assert list(tmp_path.iterdir()) == []


def refusal(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> tuple[object, str]:
    """Exit code and message of the entry point, up to where it would load anything heavy."""
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setattr("sys.argv", ["train", *words])
    monkeypatch.setattr(signals, "listen", lambda: None)
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        cli.main("train")
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--optimizer", "sdg"],
        ["--foo", "1"],
        ["--schedule", "x"],
        ["--dataset", "cifar10", "--data_dir", "nowhere"],
        ["--dataset", "fashion-mnist", "--data_dir", "."],
    ],
)
def test_refusal_in_a_real_process_imports_neither_torch_nor_mlflow(words: list[str], tmp_path: Path) -> None:
    ended = process(words, tmp_path, "-X", "importtime")
    assert ended.returncode == 2, ended.stderr
    assert "allowed: " in ended.stderr
    assert "Traceback" not in ended.stderr
    loaded = {name.split(".")[0] for name in imported(ended.stderr)}
    assert "nfa" in loaded
    assert not loaded & set(HEAVY)
    assert list(tmp_path.iterdir()) == []


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
