"""Series of several runs: a panel for each site or key, and runs that differ only in their seed as their mean."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from nfa.errors import Refusal
from nfa.maths.statistics import t_interval
from nfa.registry.results.run_series import RunSeries
from nfa.registry.results.run_table import RunTable

Values = Mapping[str, Mapping[int, float]]


def run(number: int, series: Values, variant: str = "", seed: int | None = None) -> RunSeries:
    return RunSeries(str(number), f"run {number}", variant, number if seed is None else seed, "epoch", series)


def seeds(count: int, variant: str = "") -> list[RunSeries]:
    return [run(n, {"a/agop_nfm": {0: 0.1 * n, 4: 0.2 * n}}, variant) for n in range(1, count + 1)]


def drawn(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.axison]


def lines(axes: Axes) -> dict[str, list[float]]:
    return {str(line.get_label()): list(line.get_ydata()) for line in axes.get_lines() if len(line.get_ydata())}


def bands(axes: Axes) -> list[PolyCollection]:
    return [one for one in axes.collections if isinstance(one, PolyCollection)]


def test_each_run_is_a_line_in_the_panel_of_a_site() -> None:
    runs = [run(n, {"a/agop_nfm": {0: n / 4}, "b/agop_nfm": {0: n / 8}, "val/loss": {0: 9}}, f"lr={n}") for n in (1, 2)]
    panels = drawn(RunTable(runs).plot("agop_nfm", "a title"))
    assert [panel.get_title() for panel in panels] == ["a", "b"]
    assert [lines(panel) for panel in panels] == [{"lr=1": [0.25], "lr=2": [0.5]}, {"lr=1": [0.125], "lr=2": [0.25]}]
    assert {panel.get_ylim() for panel in panels} == {(0, 1)}
    assert {panel.get_ylabel() for panel in panels} == {"AGOP vs NFM"}


def test_three_seeds_are_their_mean_with_its_interval_and_the_title_says_so() -> None:
    figure = RunTable(seeds(3)).plot("agop_nfm", "a title")
    (panel,) = drawn(figure)
    np.testing.assert_allclose(lines(panel)["mean of 3 seeds"], [0.2, 0.4])
    (band,) = bands(panel)
    expected = t_interval([0.1, 0.2, 0.3])
    assert expected
    heights = {round(float(y), 9) for x, y in band.get_paths()[0].vertices if x == 0}
    assert expected.low < 0, "the band is cut where the relation ends"
    assert heights == {0, round(expected.high, 9)}
    assert figure.get_suptitle() == "a title; means, bands: 95 % t-interval over seeds"


def test_two_seeds_are_their_mean_without_an_interval() -> None:
    figure = RunTable(seeds(2, "sgd")).plot("agop_nfm")
    (panel,) = drawn(figure)
    np.testing.assert_allclose(lines(panel)["sgd, 2 seeds"], [0.15, 0.3])
    assert not bands(panel)
    assert figure.get_suptitle() == "run; means over seeds"


def test_the_axis_of_a_free_series_holds_its_values_and_little_more() -> None:
    (panel,) = drawn(RunTable([run(1, {"val/loss": {0: 0.1, 1: 0.005}})]).plot("val/loss"))
    low, high = panel.get_ylim()
    assert 0.003 < low <= 0.005
    assert 0.1 <= high < 0.2


def test_losses_have_a_logarithmic_axis_unless_a_value_is_not_positive() -> None:
    table = RunTable([run(1, {"val/loss": {0: 1.0, 1: 0.1}, "train/loss": {0: 0.0}, "val/accuracy": {0: 0.5}})])
    scales = {panel.get_title(): panel.get_yscale() for panel in drawn(table.plot("*"))}
    assert scales == {"train loss": "linear", "val/accuracy": "linear", "validation loss": "linear"}
    (panel,) = drawn(table.plot("val/loss"))
    assert panel.get_yscale() == "log"


def test_panels_of_losses_and_of_a_relation_have_one_scale() -> None:
    values = {"val/loss": {0: 2.0, 1: 0.5}, "train/loss": {0: 2.0, 1: 0.01}}
    ranks = {"a/h_stable_rank": {0: 1.0, 1: 2.0}, "b/h_stable_rank": {0: 1.0, 1: 9.0}}
    table = RunTable([run(1, {**values, **ranks})])
    for keys in ("*/loss", "h_stable_rank"):
        (limits,) = {panel.get_ylim() for panel in drawn(table.plot(keys))}
    assert limits[0] == 1
    assert limits[1] > 9


def test_a_learning_rate_is_drawn_as_steps() -> None:
    (panel,) = drawn(RunTable([run(1, {"train/learning_rate": {0: 0.1, 5: 0.05}})]).plot("train/learning_rate"))
    (line,) = [line for line in panel.get_lines() if len(line.get_xdata())]
    assert line.get_drawstyle() == "steps-post"


def test_many_sites_are_drawn_as_means_over_blocks_or_some_of_them_in_at_most_twelve_panels() -> None:
    blocks = {f"layers.{n}.{part}/agop_nfm": {0: n / 60} for n in range(30) for part in ("up", "down")}
    figure = RunTable([run(1, blocks)]).plot("agop_nfm")
    assert [panel.get_title() for panel in drawn(figure)] == ["down, all blocks", "up, all blocks"]
    assert figure.get_suptitle() == "run 1; means over the blocks of 60 sites"
    flat = {f"layer_{n}/agop_nfm": {0: 0.5} for n in range(60)}
    figure = RunTable([run(1, flat)]).plot("agop_nfm")
    assert len(drawn(figure)) == 12
    assert figure.get_suptitle() == "run 1; 12 of 60 sites"
    figure = RunTable([run(1, {f"flow/{n}/grad_rms": {0: 0.5} for n in range(13)})]).plot("flow/*")
    assert (len(drawn(figure)), figure.get_suptitle()) == (12, "run 1; 12 of 13 series")


def test_a_key_that_no_run_has_is_refused() -> None:
    with pytest.raises(Refusal, match=r"keys=\*/g_vs_h \(no run logs it\)"):
        RunTable(seeds(1)).plot("g_vs_h")


def test_a_panel_of_losses_names_the_loss() -> None:
    one = run(1, {"val/loss": {0: 1.0}})
    for losses, label in ((["cross-entropy"], "cross-entropy"), (["a", "b"], "a or b"), ([""], "")):
        runs = [replace(one, run=str(number), loss=loss) for number, loss in enumerate(losses)]
        (panel,) = drawn(RunTable(runs).plot("val/loss"))
        assert panel.get_ylabel() == label
