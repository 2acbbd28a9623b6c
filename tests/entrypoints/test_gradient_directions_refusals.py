"""What `gradient_directions` refuses: exit 2, one message that says what to do, and no run in the store."""

import math
from pathlib import Path

import pytest

from nfa.errors import Refusal
from nfa.registry import cli
from nfa.registry.analyses.config import GradientDirectionsConfig
from nfa.registry.tracking.store import client
from tests.support.gradient_direction_runs import Trained, directed, fill, shorten
from tests.support.processes import words
from tests.support.refusals import Refused, assert_refused_before_anything_heavy
from tests.support.stores import Finished

EARLY = {
    "unit": ("--unit samples", "unit='samples'", "sample, batch", "unit=sample"),
    "loss": ("--loss ghm", "loss='ghm'", "run, plain", "loss=run"),
    "n": ("--n 1", "n=1", "a whole number ≥ 2 and < 20001", "default, 512"),
    "too many": ("--n 20001", "n=20001", "a whole number ≥ 2 and < 20001", "default, 512"),
    "not a number": ("--n few", "n='few'", "a whole number ≥ 2", "for example n=512"),
    "batch": ("--unit batch --batch_size 1", "batch_size=1", "a whole number ≥ 2", "default, 32"),
    "few for batches": (
        "--unit batch --n 60",
        "n=60 with unit=batch batch_size=32",
        "at least two whole batches",
        "n=512, or a smaller batch_size",
    ),
    "perplexity": (
        "--perplexity 40 --n 40",
        "perplexity=40.0 for 40 gradients",
        "a number below 40",
        "perplexity=auto",
    ),
    "perplexity of batches": (
        "--perplexity 16 --unit batch",
        "perplexity=16.0 for 16 gradients",
        "a number below 16",
        "perplexity=auto",
    ),
    "perplexity below 1": ("--perplexity 0.5", "perplexity=0.5", "a number ≥ 1 and < 10000, or auto", "default, auto"),
    "no perplexity": ("--perplexity nan", "perplexity=nan", "a number ≥ 1", "default, auto"),
    "epochs": ("--epochs 1,x", "epochs '1,x' (at 'x')", "a-b/step", "0-20"),
    "backwards": ("--epochs 4-1", "epochs '4-1'", "a ≤ b", "correct '4-1'"),
    "seed": ("--seed -1", "seed=-1", "a whole number ≥ 0", "default, 1717"),
    "parameter": ("--perplex 3", "parameter 'perplex'", "run_id, epochs", "did you mean --perplexity?"),
}


@pytest.mark.parametrize("case", EARLY)
def test_bad_words_are_refused_with_what_was_got_what_is_allowed_and_what_to_do(case: str) -> None:
    text, *parts = EARLY[case]
    with pytest.raises(Refusal) as refusal:
        cli.parse(GradientDirectionsConfig, text.split())
    assert refusal.value.exit_code == 2
    for part, line in zip(parts, str(refusal.value).splitlines(), strict=True):
        assert part in line


@pytest.mark.parametrize("case", ["few for batches", "perplexity"])
def test_refusing_them_in_a_real_process_loads_nothing_heavy(case: str, tmp_path: Path) -> None:
    text, got, *_ = EARLY[case]
    assert_refused_before_anything_heavy("gradient_directions", text, got, tmp_path)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    return Refused("gradient_directions", monkeypatch, capsys)


KNOWN = "layer_0, layer_1, layer_2, layers.0, layers.0.weight"
LATE = {
    "examples": ("--n 1150 --epochs 0", "n=1150", "2 to 1149, the run's training examples", "n=1149"),
    "missing epoch": ("--epochs 0-4", "epochs=0-4 (there is no 3)", "the run's checkpoints: 0, 1, 2, 4", "epochs=all"),
    "unknown site": ("--epochs 0 --sites conv*,layer_0", "sites=conv*", KNOWN, "name some, by globs such as"),
    "without parameters": ("--epochs 0 --sites layers", "sites=layers", KNOWN, "name some, by globs such as"),
    "no site": ("--epochs 0 --sites=", "sites=", "layers.0.weight, layers.1.weight", "name some, by globs such as"),
    "device": ("--epochs 0 --device gpu", "device='gpu'", "auto, cpu", "device=auto"),
    "unknown run": ("--run_id zzz", "run id 'zzz'", "a run in sqlite:", "copy the id from the MLflow UI"),
}


@pytest.mark.parametrize("case", LATE)
def test_what_the_run_does_not_have_is_refused_and_no_run_is_made(
    case: str, refused: Refused, changeable: Finished
) -> None:
    text, *parts = LATE[case]
    lines = refused(text.split()).splitlines()
    for part, line in zip(parts, lines, strict=True):
        assert part in line
    assert changeable.store.runs() == [changeable.run_id]


def test_a_run_without_checkpoints_is_refused(refused: Refused, changeable: Finished) -> None:
    bare = client().create_run("0").info.run_id
    said = refused(words(run_id=bare))
    assert f"run_id={bare} (it has no checkpoints)" in said
    assert "do: train first" in said
    assert len(changeable.store.runs()) == 2


def test_an_analysis_s_own_id_is_refused(refused: Refused, changeable: Finished) -> None:
    made = directed(changeable.store, n=10, epochs="0")
    said = refused(words(run_id=made))
    assert f"run_id={made} (an analysis)" in said
    assert f"do: run_id={changeable.run_id}" in said


def test_fewer_examples_than_the_default_refuse_what_so_few_do_not_allow(
    refused: Refused, changeable: Finished
) -> None:
    """The same words are fine for a run that has them."""
    shorten(changeable.store, changeable.run_id, 40)
    said = refused(words(epochs=0, unit="batch"))
    assert "n=40 with unit=batch batch_size=32" in said
    said = refused(words(epochs=0, perplexity=40))
    assert "perplexity=40.0 for 40 gradients" in said
    assert changeable.store.runs() == [changeable.run_id]


def test_weights_that_are_not_finite_at_the_first_epoch_are_refused(refused: Refused, runs: Trained) -> None:
    fill(runs.store, runs.ids["main"], 5, math.nan)
    known = runs.store.runs()
    said = refused(words(run_id=runs.ids["main"], n=10))
    assert "a model whose outputs or losses are not finite" in said
    assert "do: take a checkpoint from before the training diverged" in said
    assert runs.store.runs() == known


# ---- several runs


OF_ONE = {
    "epochs": ({"epochs": "20"}, "epochs=20 (there is no 20)"),
    "examples": ({"epochs": "0", "n": 41}, "n=41"),
    "batches": ({"epochs": "0", "unit": "batch"}, "n=40 with unit=batch"),
}


@pytest.mark.parametrize("case", OF_ONE)
def test_what_one_of_several_does_not_allow_is_refused_before_a_run_of_any_is_made(
    case: str, refused: Refused, runs: Trained
) -> None:
    """Neither a comparing run that failed is left, nor an analysis of those before it."""
    options, got = OF_ONE[case]
    main, last = runs.ids["main"], runs.ids["fast"]
    shorten(runs.store, last, 40)
    runs.store.artifact(last, "checkpoints/epoch_0005.safetensors").unlink()
    known = runs.store.runs()
    for both in (f"{main},{last}", f"{last},{main}"):
        assert got in refused(words(run_id=both, **options))
        assert runs.store.runs() == known
