"""Means over seeds: what gets one, at which steps, and with what beside it."""

from typing import Any

import pytest

from nfa.figures.training_analysis import training_analysis
from nfa.maths.statistics import t_interval
from nfa.registry.training.figures.optimizer_comparison import optimizer_comparison
from nfa.registry.training.over_seeds import last_values, means, said

RUNS = [{"val/loss": {0: 2.0 + seed, 1: 1.0 + seed}, "layer_0/agop_nfm": {0: 0.1 * seed}} for seed in (1, 2, 3)]


def test_three_runs_have_a_mean_with_its_interval_and_their_number() -> None:
    found, interval = means(RUNS), t_interval([0.1, 0.2, 0.1 * 3])
    assert interval is not None
    beside = [found[f"layer_0/agop_nfm{end}"][0] for end in ("", "_lo", "_hi", "_n")]
    assert beside == list(interval)
    assert found["val/loss"] == {0: 4.0, 1: 3.0}


def test_two_runs_have_a_mean_alone_and_one_run_its_own_values() -> None:
    assert means(RUNS[:2]) == {"val/loss": {0: 3.5, 1: 2.5}, "layer_0/agop_nfm": {0: pytest.approx(0.15)}}
    assert means(RUNS[:1]) == RUNS[0]


def test_a_step_or_a_series_that_one_run_lacks_has_no_mean() -> None:
    assert means([*RUNS, {"val/loss": {1: 1.0}}]).keys() == {"val/loss", "val/loss_lo", "val/loss_hi", "val/loss_n"}
    assert list(means([*RUNS, {"val/loss": {1: 1.0}}])["val/loss"]) == [1]
    assert means([*RUNS, {}]) == {}


def test_what_every_run_has_once_has_a_mean_whatever_its_step() -> None:
    assert means([{"test/loss": {5: 1.0}}, {"test/loss": {9: 2.0}}]) == {"test/loss": {9: 1.5}}
    assert means([{"test/loss": {5: 1.0}}, {"test/loss": {9: 2.0, 10: 3.0}}]) == {}


def test_levels_have_means_without_intervals_and_errors_spreads_and_bookkeeping_have_none() -> None:
    beside = ("_chance", "_shared", "_chance_sd", "_shared_sd", "_se", "_unbiased")
    run = {**{f"layer_0/agop_nfm{end}": {0: 0.5} for end in beside}, "nfa/seconds": {0: 1.0}, "system/cpu": {0: 1.0}}
    assert means([run] * 3) == {"layer_0/agop_nfm_chance": {0: 0.5}, "layer_0/agop_nfm_shared": {0: 0.5}}


def test_results_hold_the_last_value_of_each_mean_with_its_interval() -> None:
    found = last_values(means(RUNS), [1, 2, 3])
    assert found["seeds"] == [1, 2, 3]
    assert found["last"].keys() == {"val/loss", "layer_0/agop_nfm"}
    loss = found["last"]["val/loss"]
    assert (loss["step"], loss["mean"], loss["mean_n"]) == (1, 3.0, 3)
    assert loss["mean_lo"] < 3.0 < loss["mean_hi"]


@pytest.mark.parametrize(
    ("seeds", "words"),
    [([4], "mean of 1 seed"), ([1, 2], "mean of 2 seeds"), ([1, 2, 3], "mean of 3 seeds, bands: 95 % t-interval")],
)
def test_a_figure_says_how_many_seeds_it_is_of_and_what_its_bands_are(seeds: list[int], words: str) -> None:
    assert said(seeds).startswith(words)
    assert ("bands" in said(seeds)) == (len(seeds) > 2)


def bands(axes: Any) -> list[tuple[float, float]]:
    """The lowest and highest value of every band in a panel."""
    heights = [path.vertices[:, 1] for band in axes.collections for path in band.get_paths() if len(path)]
    return [(float(of_band.min()), float(of_band.max())) for of_band in heights]


def test_bands_of_losses_and_similarities_lie_between_the_ends_of_their_intervals() -> None:
    series = means([{**run, "train/loss": run["val/loss"]} for run in RUNS])
    figure = training_analysis(series, ["layer_0"], band="95 % t-interval over seeds")
    left, right = (axes for axes in figure.axes if axes.axison)
    expected = (series["val/loss_lo"][1], series["val/loss_hi"][0])
    assert bands(left)[:2] == [pytest.approx(expected)] * 2
    assert left.get_ylim()[0] <= expected[0] < expected[1] <= left.get_ylim()[1]
    (similarity,) = bands(right)
    assert series["layer_0/agop_nfm_lo"][0] < 0, "the interval reaches beyond what is possible"
    assert similarity == pytest.approx((0, series["layer_0/agop_nfm_hi"][0]))
    legends = [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]
    assert "95 % t-interval over seeds" in [text.get_text() for legend in legends for text in legend.get_texts()]


def test_an_interval_of_a_loss_that_reaches_below_zero_does_not_stretch_the_axis() -> None:
    series = {"train/loss": {0: 1.0, 1: 0.5}, "val/loss": {0: 1.0, 1: 0.5}}
    wide = {**series, "val/loss_lo": {0: -5.0, 1: -5.0}, "val/loss_hi": {0: 7.0, 1: 6.0}}
    one = optimizer_comparison({"sgd": series}, []).axes[0].get_ylim()
    low, high = optimizer_comparison({"sgd": wide}, []).axes[0].get_ylim()
    assert low == pytest.approx(one[0] / 10)
    assert high == 7.0


def test_every_optimizer_of_a_comparison_has_its_band() -> None:
    series = means([{**run, "train/loss": run["val/loss"]} for run in RUNS])
    losses, site, *_ = optimizer_comparison({"sgd": series, "adam": series}, ["layer_0"]).axes
    assert len(bands(losses)) == len(bands(site)) == 2


def test_metrics_of_a_user_under_the_names_of_intervals_are_not_mixed_with_them() -> None:
    runs = [{"val/hits": {0: hits}, "val/hits_n": {0: 7.0}, "val/loss": {0: hits}} for hits in (1.0, 2.0, 6.0)]
    found = means(runs)
    assert (found["val/hits"], found["val/hits_n"]) == ({0: 3.0}, {0: 7.0})
    assert not {"val/hits_lo", "val/hits_hi"} & set(found)
    assert found["val/loss_n"] == {0: 3}
