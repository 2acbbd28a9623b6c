"""`analyze` of a run with a checkpoint whose weights are not finite: what is undefined is absent, all else is there.

`train` keeps no such checkpoint; an imported run can have one.
"""

import math

import pytest

from nfa.levels import is_beside
from tests.support.analyses import CHECKPOINTS, SITES, analysed, series
from tests.support.processes import run, words
from tests.support.stores import Finished

SPOILT = 2  # the epoch
OF_INPUTS = {"h_vs_m", "out_h_vs_m", "nfm_stable_rank", "h_stable_rank", "nfm_init_removed_stable_rank"}


def spoil(finished: Finished, entry: float, *, layer: int = 1) -> None:
    """Fill a layer's weights at one checkpoint."""
    path = f"checkpoints/epoch_{SPOILT:04d}.safetensors"
    finished.store.change_tensors(finished.run_id, path, lambda weights: weights[f"layers.{layer}.weight"].fill_(entry))


@pytest.mark.parametrize(("entry", "directions"), [
    (math.nan, "all"),
    (math.inf, "2"),
    (1e30, "all"),
    pytest.param(math.inf, "all", marks=pytest.mark.slow),
    pytest.param(math.nan, "2", marks=pytest.mark.slow),
    pytest.param(1e30, "2", marks=pytest.mark.slow),
])  # fmt: skip
def test_undefined_values_of_that_checkpoint_are_absent_and_all_others_are_as_before(
    entry: float, directions: str, changeable: Finished
) -> None:
    store, options = changeable.store, {"relations": "all", "top_k": 2, "max_samples": 50, "directions": directions}
    expected = series(store, analysed(store, **options))
    store.change("DELETE FROM tags WHERE key = 'nfa.analysis_digest'")  # so that the next one computes
    spoil(changeable, entry)
    made = analysed(store, **options)
    found = series(store, made)
    for key, of_key in expected.items():
        others = {epoch: value for epoch, value in of_key.items() if epoch != SPOILT}
        assert {epoch: value for epoch, value in found[key].items() if epoch != SPOILT} == others
    at_it = {key for key, of_key in found.items() if SPOILT in of_key}
    assert {f"{SITES[0]}/{name}" for name in OF_INPUTS} <= at_it
    table = store.json(made, "similarities.json")
    if not math.isfinite(entry):
        assert table[str(SPOILT)]["1"]["agop_nfm"] is None
        of_the_other = {key for key in at_it if key.startswith(SITES[1]) and not is_beside(key)}
        assert of_the_other == {f"{SITES[1]}/h_stable_rank"}
    assert store.rows("SELECT count(*) FROM metrics WHERE is_nan OR abs(value) > 1e300") == [(0,)]
    assert list(map(int, table)) == CHECKPOINTS
    assert table[str(SPOILT)]["0"]["H_M"] == expected[f"{SITES[0]}/h_vs_m"][SPOILT]


def test_a_checkpoint_without_any_value_leaves_the_figures_of_the_others(changeable: Finished) -> None:
    spoil(changeable, math.nan, layer=0)
    argv = words(max_samples=50, relations="g_vs_m,h_vs_m")
    ended = run(changeable.store, argv, entrypoint="analyze", pictures=True)
    assert ended.code == 0, ended.output
    assert f"epoch {SPOILT}  no value is defined" in ended.output
    made = changeable.store.runs()[-1]
    found = series(changeable.store, made)
    assert sorted(found[f"{SITES[0]}/h_vs_m"]) == [epoch for epoch in CHECKPOINTS if epoch != SPOILT]
    assert changeable.store.artifact(made, "plots/enhanced_analysis.png").exists()
