"""`lora_experiment`: every step a run, chained seed by seed, done once, resumed, and compared."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nfa.errors import Refusal
from nfa.registry.families.language.comparison.arms import operations_of
from nfa.registry.families.language.comparison.compare_lora import compare_lora
from nfa.registry.families.language.config import CompareLoraConfig
from tests.support import lora_comparison_reference as reference
from tests.support.analyses import undrawn
from tests.support.fault_injection import TERM, During
from tests.support.lora_experiments import Experiment, experimenting
from tests.support.stores import Store

SEEDS = (1, 2)
NAMES = ("random", "teacher", "svd", "svd-residual", "svd-warm", "random at equal compute")


@pytest.fixture(scope="module")
def made(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Experiment, str]]:
    store = empty_store.copy(tmp_path_factory.mktemp("experiment"))
    with experimenting(store, tmp_path_factory.mktemp("base")) as experiment:
        yield experiment, experiment.make()


@pytest.fixture(scope="module")
def again(made: tuple[Experiment, str]) -> tuple[str, list[str]]:
    """The same experiment asked for again, and the entry points of the runs that this made."""
    experiment, _ = made
    before = experiment.entrypoints()
    parent = experiment.make()
    return parent, experiment.entrypoints()[len(before) :]


@pytest.fixture
def empty(fresh: Store, tmp_path: Path) -> Iterator[Experiment]:
    with experimenting(fresh, tmp_path / "place") as experiment:
        yield experiment


def test_every_step_is_a_finished_child(made):
    experiment, parent = made
    runs = experiment.runs(parent)
    assert set(runs) == {f"{name}, seed {seed}" for name in NAMES for seed in SEEDS}
    for run_id in runs.values():
        tags = experiment.store.tags(run_id)
        assert (tags["nfa.state"], tags["mlflow.parentRunId"]) == ("finished", parent)
    assert experiment.store.tags(parent)["nfa.trained"] == "true"


def test_its_time_is_that_of_its_trainings_and_that_of_its_other_steps(made):
    experiment, parent = made
    trained = [run_id for name, run_id in experiment.runs(parent).items() if not name.startswith(("teacher", "svd,"))]
    times = [experiment.store.json(run_id, "timing.json") for run_id in trained]
    whole = experiment.store.json(parent, "timing.json")
    assert whole["children"] == pytest.approx(sum(each["total"] for each in times), abs=1e-6)
    assert whole["total"] == pytest.approx(sum(whole.values()) - whole["total"], abs=1e-6)
    assert {"synthesize", "svd", "compare"} <= whole.keys()
    assert "training" not in whole


def test_each_seed_has_its_own_teacher_and_factors(made):
    experiment, parent = made
    runs = experiment.runs(parent)
    for seed in SEEDS:
        teacher, svd = (experiment.store.json(runs[f"{name}, seed {seed}"], "config.json") for name in NAMES[1:3])
        assert teacher["sources"] == [runs[f"random, seed {seed}"]]
        assert svd["sources"] == [runs[f"teacher, seed {seed}"]]
        for start in ("residual", "warm"):
            tuned = experiment.store.json(runs[f"svd-{start}, seed {seed}"], "config.json")
            assert tuned["factors"]["run_id"] == tuned["train"]["factors"] == runs[f"svd, seed {seed}"]
            assert (tuned["train"]["seed"], tuned["train"]["start"]) == (seed, start)


def test_random_adapters_also_train_for_what_the_others_starts_have_cost(made):
    experiment, parent = made
    runs = experiment.runs(parent)
    for seed in SEEDS:
        names = (f"{NAMES[5]}, seed {seed}", f"random, seed {seed}")
        long, short = (experiment.store.json(runs[name], "config.json") for name in names)
        assert long["steps"] >= 2 * short["steps"]
        spent = [operations_of(runs[f"{name}, seed {seed}"]) for name in (NAMES[5], "svd-residual")]
        assert spent[0] >= 0.98 * spent[1]  # type: ignore[operator]
        of_factors, of_short = operations_of(runs[f"svd, seed {seed}"]), operations_of(runs[f"random, seed {seed}"])
        assert of_factors
        assert of_short
        assert of_factors > of_short


def leaves(found: Any, place: str = "") -> dict[str, Any]:
    """Every number and word in it by where it stands."""
    if not isinstance(found, dict | list):
        return {place: found}
    inside = found.items() if isinstance(found, dict) else enumerate(found)
    return {where: leaf for key, one in inside for where, leaf in leaves(one, f"{place}/{key}").items()}


def test_every_number_of_the_comparison_follows_from_the_stored_losses(made):
    experiment, parent = made
    found = experiment.store.json(parent, "comparison.json")
    expected = reference.comparison(experiment.store, experiment.runs(parent), SEEDS, ("residual", "warm"))
    for text in ("conventions", "notes"):
        assert found.pop(text)
    known, said = leaves(expected), leaves(found)
    assert said.keys() == known.keys()
    for place, leaf in known.items():
        assert said[place] == (pytest.approx(leaf, rel=1e-9, abs=1e-11) if isinstance(leaf, float) else leaf), place


def test_differences_at_equal_steps_and_at_equal_compute_are_metrics_with_their_interval(made):
    experiment, parent = made
    compared = experiment.store.json(parent, "comparison.json")["comparisons"]
    numbers = [one[at] for one in compared for at in ("at_equal_steps", "at_equal_compute") if one[at]]
    logged = {key: value for key, _, value in experiment.store.metrics(parent) if key.startswith("comparison/")}
    for end, part in {"_low": "low", "_high": "high"}.items():
        assert {value for key, value in logged.items() if key.endswith(end)} == {of[part] for of in numbers}
    plain = {value for key, value in logged.items() if key.endswith(("_steps", "_compute"))}
    assert plain == {of["mean"] for of in numbers} != set()


def test_every_line_of_the_report_says_these_numbers(made):
    experiment, parent = made
    text = experiment.store.artifact(parent, "comparison_report.txt").read_text(encoding="utf-8")
    expected = reference.comparison(experiment.store, experiment.runs(parent), SEEDS, ("residual", "warm"))
    compared = [line for one in expected["comparisons"] for line in reference.lines(one)]
    _, _, after = text.partition("Final loss minus that of random adapters\n\n")
    said = [line for line in after.partition("\n\nCircular")[0].splitlines() if line.startswith("  ")]
    assert sorted(said) == sorted(compared)


def test_the_report_says_that_synthesised_teachers_are_circular(made):
    experiment, parent = made
    text = experiment.store.artifact(parent, "comparison_report.txt").read_text(encoding="utf-8")
    assert "Circular: the synthesised teachers" in text
    assert "nan" not in text


def test_asked_again_nothing_is_trained_again(made, again):
    experiment, parent = made
    other, entrypoints = again
    assert entrypoints == ["lora_experiment", "compare_lora"]
    assert experiment.runs(other) == experiment.runs(parent)
    first, second = (experiment.store.json(one, "comparison.json") for one in (parent, other))
    assert first == second


def test_an_experiment_s_trainings_are_compared_again_wherever_they_were_made(made, again):
    experiment, parent = made
    with undrawn():
        run = compare_lora(CompareLoraConfig(run_id=again[0]))
    assert experiment.store.json(run.run_id, "comparison.json") == experiment.store.json(parent, "comparison.json")


def test_a_further_start_and_a_further_seed_train_nothing_but_themselves(made):
    experiment, _ = made
    before = experiment.entrypoints()
    experiment.make(starts="svd-residual,pissa", seeds="1", equal_compute=False)
    new = experiment.entrypoints()[len(before) :]
    assert new == ["lora_experiment", "train_lora", "compare_lora"]


def test_steps_run_alone_and_use_what_is_done(empty):
    experiment = empty
    with pytest.raises(Refusal, match=r"svd needs base, but random, seed 1 is not done"):
        experiment.make(steps="3", seeds="1")
    assert experiment.entrypoints() == []
    experiment.make(steps="1,synthesize", seeds="1")
    assert experiment.entrypoints() == ["lora_experiment", "train_lora", "synthesize_teacher"]
    with pytest.raises(Refusal, match=r"svd-lora needs svd, but svd, seed 1 is not done"):
        experiment.make(steps="4", seeds="1")
    experiment.make(steps="svd", seeds="1")
    assert experiment.entrypoints()[3:] == ["lora_experiment", "lora_svd"]


def test_ended_in_a_training_it_goes_on_in_that_run(empty):
    experiment = empty
    options = {"seeds": "1", "starts": "svd-residual", "equal_compute": "false"}
    broken = During("nfa.registry.families.language.session", "score_answers", TERM, number=7)
    ended = experiment.launch(**options, before=broken)
    assert ended.code == 143, ended.output
    assert "finished steps are reused" in ended.output
    states = {one: experiment.store.tags(one)["nfa.state"] for one in experiment.store.runs()}
    (killed,) = [one for one, state in states.items() if state == "killed" and one not in experiment.parents()]
    before = experiment.entrypoints()
    again = experiment.launch(**options)
    assert again.code == 0, again.output
    assert experiment.entrypoints()[len(before) :] == ["lora_experiment", "compare_lora"]
    assert experiment.store.tags(killed)["nfa.state"] == "finished"
    rows = [row[:2] for row in experiment.store.metrics(killed)]
    assert len(rows) == len(set(rows))
    assert killed in experiment.runs(experiment.parents()[-1]).values()


def test_a_full_fine_tuning_is_the_teacher_of_all_seeds(empty):
    experiment = empty
    parent = experiment.make(mode="full", starts="svd-residual", equal_compute=False)
    runs = experiment.runs(parent)
    tuned = {f"{name}, seed {seed}" for name in ("random", "svd-residual") for seed in SEEDS}
    assert set(runs) == {"full teacher", "svd of the teacher", *tuned}
    text = experiment.store.artifact(parent, "comparison_report.txt").read_text(encoding="utf-8")
    assert "svd residual, real teacher" in text
    assert "All seeds share one real teacher" in text
    assert "Circular" not in text


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


def test_a_person_chooses_from_a_menu(empty, monkeypatch, capsys):
    typed = iter(["7", "1"])
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda _: next(typed))
    empty.make(steps="ask", seeds="1")
    shown = capsys.readouterr().out
    assert "  1  base        0 of 1 done" in shown
    assert "cannot use steps='7'" in shown
    assert empty.entrypoints() == ["lora_experiment", "train_lora"]


def test_without_a_terminal_there_is_no_menu(empty):
    ended = empty.launch(steps="ask")
    assert (ended.code, empty.entrypoints()) == (2, [])
    assert "steps=ask without a terminal" in ended.output
