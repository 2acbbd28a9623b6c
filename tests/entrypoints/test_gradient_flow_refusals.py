"""What `gradient_flow` refuses: exit 2, one message that says what to do, and no run in the store."""

from pathlib import Path

import pytest

from nfa.registry.analyses.config import GradientFlowConfig
from nfa.registry.analyses.gradient_flow import GradientFlow
from tests.support.gradient_flow_runs import flow_of
from tests.support.processes import words
from tests.support.refusals import Refused, assert_refused_before_anything_heavy
from tests.support.stores import Finished

EARLY = {
    "loss": ("--loss ghm", "loss='ghm'", "run, plain", "loss=run"),
    "n": ("--n 0", "n=0", "a whole number ≥ 1", "default, 64"),
    "epochs": ("--epochs 1,x", "epochs '1,x' (at 'x')", "a-b/step", "0-20"),
    "batch": ("--batch_size 0", "batch_size=0", "a whole number ≥ 1", "default, 64"),
    "parameter": ("--epoch 3", "parameter 'epoch'", "run_id, epochs", "did you mean --epochs?"),
}
LATE = {
    "missing epoch": ("--epochs 0-4", "epochs=0-4 (there is no 3)", "the run's checkpoints: 0, 1, 2, 4", "epochs=all"),
    "examples": ("--n 1150", "n=1150", "1 to 1149, the run's training examples", "n=1149"),
    "device": ("--device gpu", "device='gpu'", "auto, cpu", "device=auto"),
    "unknown run": ("--run_id zzz", "run id 'zzz'", "a run in sqlite:", "copy the id from the MLflow UI"),
    "one of two": ("--run_id latest,zzz", "run id 'zzz'", "a run in sqlite:", "copy the id from the MLflow UI"),
}


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    return Refused("gradient_flow", monkeypatch, capsys)


@pytest.mark.parametrize("case", [*EARLY, *LATE])
def test_bad_words_and_what_the_run_does_not_have_are_refused_and_no_run_is_made(
    case: str, refused: Refused, changeable: Finished
) -> None:
    text, *parts = {**EARLY, **LATE}[case]
    for part, line in zip(parts, refused(text.split()).splitlines(), strict=True):
        assert part in line
    assert changeable.store.runs() == [changeable.run_id]


def test_refusing_in_a_real_process_loads_nothing_heavy(tmp_path: Path) -> None:
    text, got, *_ = EARLY["loss"]
    assert_refused_before_anything_heavy("gradient_flow", text, got, tmp_path)


def test_an_analysis_s_own_id_is_refused(refused: Refused, changeable: Finished) -> None:
    name = next(iter(changeable.store.named()))
    made = flow_of(changeable.store, name, n=4, epochs="0")
    said = refused(words(run_id=made))
    assert f"run_id={made} (an analysis)" in said
    assert f"do: run_id={changeable.run_id}" in said


OTHER = {"n": 31, "loss": "plain"}
SAME = {
    "run_id": "abc",
    "epochs": "5",
    "batch_size": 7,
    "seed": 1,
    "output_dir": "out",
    "data_dir": "data",
    "workload": "my_lab:make",
    "workload_args": "width=4",
    "device": "cpu",
    "run_name": "again",
}


def test_every_option_is_known_to_decide_values_or_not() -> None:
    assert {*OTHER, *SAME} == set(GradientFlowConfig.__dataclass_fields__)
    assert set(SAME) == GradientFlow.undecisive
    for name, value in {**OTHER, **SAME}.items():
        first, second = (GradientFlow(GradientFlowConfig(**options)).identity([0]) for options in ({}, {name: value}))
        assert (first != second) is (name in OTHER), name
