"""Operations of analyses are logged for each checkpoint, and are no result."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nfa.bookkeeping import FLOPS
from nfa.registry.analyses import flops
from nfa.registry.analyses.config import GradientFlowConfig
from nfa.registry.analyses.gradient_flow import gradient_flow
from tests.support import gradient_flow_runs
from tests.support.analyses import CHECKPOINTS, analysed, series
from tests.support.gradient_direction_runs import directed
from tests.support.stores import Finished, Store, used


def relations(store: Store) -> str:
    return analysed(store, max_samples=100)


def directions(store: Store) -> str:
    return directed(store, n=20, epochs="all")


def flow(store: Store) -> str:
    known = store.runs()
    with gradient_flow_runs.undrawn():
        gradient_flow(GradientFlowConfig())
    return next(run_id for run_id in store.runs() if run_id not in known)


KINDS: dict[str, tuple[str, Callable[[Store], str]]] = {
    "analyze": ("alignment_flops", relations),
    "gradient_directions": ("directions_flops", directions),
    "gradient_flow": ("flow_flops", flow),
}


def logged(store: Store, run_id: str) -> dict[int, float]:
    return {step: value for key, step, value in store.metrics(run_id) if key == FLOPS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_checkpoint_has_its_operations_also_a_copied_one_and_the_same_values_as_without_them(
    kind: str, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, analysis = KINDS[kind]
    with used(finished.store.copy(tmp_path / "counted"), monkeypatch) as counted:
        run_id, again = analysis(counted), analysis(counted)
    monkeypatch.setattr(flops, name, lambda *_: None)
    with used(finished.store.copy(tmp_path / "plain"), monkeypatch) as plain:
        other = analysis(plain)
    assert list(logged(counted, run_id)) == CHECKPOINTS
    assert logged(counted, again) == logged(counted, run_id)
    assert not logged(plain, other)
    assert series(counted, run_id) == series(plain, other)
    for report in counted.artifact(run_id).glob("*.csv"):
        assert report.read_bytes() == plain.artifact(other, report.name).read_bytes()


def test_only_the_first_checkpoint_sums_a_matrix_of_fixed_inputs(changeable: Finished) -> None:
    first, *others = logged(changeable.store, relations(changeable.store)).values()
    assert {first - one for one in others} == {2 * 100 * 64 * 64}


def test_a_search_for_the_number_of_examples_has_none(changeable: Finished) -> None:
    run_id = analysed(changeable.store, target_se=0.5, epochs="4")
    assert series(changeable.store, run_id)
    assert not logged(changeable.store, run_id)
