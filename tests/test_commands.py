"""Commands to copy are spelled as the user starts programs."""

import sys

import pytest

from nfa.registry.commands import command

STARTED = {
    "/usr/bin/nfa": "nfa analyze --run_id abc",
    "/lib/nfa/__main__.py": "python -m nfa analyze --run_id abc",
    "/nfa/entrypoints/train.py": "python -m entrypoints.analyze --run_id abc",
    "my_training.py": "nfa analyze --run_id abc",
}


@pytest.mark.parametrize(("program", "expected"), STARTED.items())
def test_a_command_is_spelled_as_the_one_that_was_started(
    program: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NFA_CALLER_DIR", raising=False)
    monkeypatch.setattr(sys, "argv", [program])
    assert command("analyze", run_id="abc") == expected


def test_under_mlflow_run_a_command_is_one_of_mlflow_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NFA_CALLER_DIR", "/somewhere")
    said = command("train_eeg", data_dir="/my data", seed="3")
    assert said == "mlflow run . -e train_eeg -P data_dir='/my data' -P seed=3"
