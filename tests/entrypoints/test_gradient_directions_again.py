"""The same gradient analysis asked again: what is there is copied, arrays too; what was left undone is computed."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nfa.measures.gradient_gram import GradientGram
from nfa.registry.analyses.config import GradientDirectionsConfig
from nfa.registry.analyses.gradient_directions import DirectionsOfRun, GradientDirections
from tests.support.analyses import SECONDS, series
from tests.support.fault_injection import TERM, During
from tests.support.gradient_direction_runs import NAMES, Trained, array, array_names, directed
from tests.support.processes import run, words
from tests.support.stores import Finished, Store, used

EPOCHS = [0, 5]
ASKED: dict[str, Any] = {"n": 30, "epochs": "0,5", "device": "cpu"}  # of the run in which some gradients are zero


@pytest.fixture(scope="module")
def whole(trained_runs: Trained, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The analysis that nothing disturbed."""
    store = trained_runs.store.copy(tmp_path_factory.mktemp("whole") / "store")
    with pytest.MonkeyPatch.context() as monkeypatch, used(store, monkeypatch):
        made = directed(store, run_id=trained_runs.ids["dying"], **ASKED, maps=True)
    return Finished(store, made)


@pytest.fixture
def asked_before(whole: Finished, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Finished]:
    """The same in a store that may be changed and that this process uses."""
    with used(whole.store.copy(tmp_path / "store"), monkeypatch) as store:
        yield Finished(store, whole.run_id)


def assert_same(store: Store, run_id: str, expected: Finished) -> None:
    """Values, arrays and reports are those of an undisturbed analysis, to the bit."""
    assert series(store, run_id) == series(expected.store, expected.run_id)
    for path in (*array_names(EPOCHS), "gradient_directions.json", "gradient_directions.csv"):
        ours, theirs = store.artifact(run_id, path), expected.store.artifact(expected.run_id, path)
        assert ours.read_bytes() == theirs.read_bytes(), path
    assert {file.name for file in store.artifact(run_id, "arrays").iterdir()} == {
        path.removeprefix("arrays/") for path in array_names(EPOCHS)
    }
    assert (store.tags(run_id)["nfa.state"], store.status(run_id)) == ("finished", "FINISHED")


def done(store: Store, run_id: str) -> list[int]:
    return [step for key, step, _ in store.metrics(run_id) if key == SECONDS]


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("computed")


def test_the_same_analysis_again_computes_nothing_and_copies_values_and_arrays(
    asked_before: Finished, whole: Finished, trained_runs: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the data are gone."""
    monkeypatch.setattr(GradientGram, "__call__", refuse)
    monkeypatch.setattr("nfa.registry.stored_runs.load_workload", refuse)
    again = directed(asked_before.store, run_id=trained_runs.ids["dying"], **ASKED, maps=True)
    assert again != asked_before.run_id
    assert_same(asked_before.store, again, whole)
    assert asked_before.store.metrics(again) == whole.store.metrics(whole.run_id)  # the seconds too
    ours, theirs = (asked_before.store.json(made, "config.json") for made in (again, whole.run_id))
    assert ours == theirs
    digests = {asked_before.store.tags(made)["nfa.analysis_digest"] for made in (again, whole.run_id)}
    assert len(digests) == 1


def test_analysis_that_failed_after_the_first_checkpoint_goes_on_to_the_same_maps(
    runs: Trained, whole: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, computed = DirectionsOfRun.values, []

    def counted(self: DirectionsOfRun, epoch: int, run: Any) -> dict[str, float]:
        computed.append(epoch)
        if computed == EPOCHS:
            raise RuntimeError("injected")
        return values(self, epoch, run)

    monkeypatch.setattr(DirectionsOfRun, "values", counted)
    with pytest.raises(RuntimeError, match="injected"):
        directed(runs.store, run_id=runs.ids["dying"], **ASKED, maps=True)
    first = runs.store.runs()[-1]
    assert (runs.store.tags(first)["nfa.state"], done(runs.store, first)) == ("failed", [0])
    again = directed(runs.store, run_id=runs.ids["dying"], **ASKED, maps=True)
    assert computed == [0, 5, 5]
    assert_same(runs.store, again, whole)
    kept = [array(runs.store, again, "kept", epoch) for epoch in EPOCHS]
    assert len(kept[0]) < 30  # so that a map has to be continued by examples that were not in the one before


def test_analysis_that_a_signal_ended_goes_on_where_it_was(runs: Trained, whole: Finished) -> None:
    values = "nfa.registry.analyses.gradient_directions", "DirectionsOfRun.values"
    argv = words(run_id=runs.ids["dying"], **ASKED)
    ended = run(runs.store, argv, entrypoint="gradient_directions", before=During(*values, TERM, 2))
    assert ended.code == 143, ended.output
    assert "run the same command again to continue" in ended.output
    assert "Traceback" not in ended.output
    first = runs.store.runs()[-1]
    assert (runs.store.tags(first)["nfa.state"], done(runs.store, first)) == ("killed", [0])
    assert_same(runs.store, directed(runs.store, run_id=runs.ids["dying"], **ASKED, maps=True), whole)


# ---- what makes an analysis another one


OTHER = {
    "n": 31,
    "unit": "batch",
    "batch_size": 7,
    "loss": "plain",
    "sites": "layer_0",
    "perplexity": 5.0,
    "sketch": "4",
    "chance": False,
    "seed": 1,
}
SAME = {
    "run_id": "latest",
    "epochs": "all",
    "output_dir": "out",
    "data_dir": "data",
    "workload": "my_lab:make",
    "workload_args": "width=4",
    "device": "cpu",
    "run_name": "again",
}


def test_every_option_is_known_to_decide_values_or_not() -> None:
    assert {*OTHER, *SAME} == set(GradientDirectionsConfig.__dataclass_fields__)


@pytest.mark.parametrize(("name", "value"), [*OTHER.items(), *(item for item in SAME.items() if item[0] != "epochs")])
def test_an_option_makes_another_analysis_where_it_decides_values(name: str, value: Any) -> None:
    first, second = (
        GradientDirections(GradientDirectionsConfig(**options)).identity(EPOCHS) for options in ({}, {name: value})
    )
    assert (first != second) is (name in OTHER)


def test_other_epochs_are_another_analysis_because_maps_go_on_from_one_to_the_next() -> None:
    kind = GradientDirections(GradientDirectionsConfig())
    assert kind.identity([5]) != kind.identity(EPOCHS)


def test_the_same_epochs_in_other_words_are_the_same_analysis(
    asked_before: Finished, trained_runs: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GradientGram, "__call__", refuse)
    other_words = {**ASKED, "epochs": "all", "device": "auto", "run_name": "again"}
    made = directed(asked_before.store, run_id=trained_runs.ids["dying"], **other_words)
    assert done(asked_before.store, made) == EPOCHS


def test_another_option_computes_anew(asked_before: Finished, trained_runs: Trained) -> None:
    made = directed(asked_before.store, run_id=trained_runs.ids["dying"], **{**ASKED, "n": 20, "epochs": "5"})
    assert done(asked_before.store, made) == [5]
    assert len(array(asked_before.store, made, "losses", 5)) == 20
    ours, theirs = (array(asked_before.store, run_id, "draws", 5) for run_id in (made, asked_before.run_id))
    assert not np.array_equal(ours, theirs)
    assert len(NAMES) == len(list(asked_before.store.artifact(made, "arrays").iterdir()))
