"""The figures of analyses: a panel for each relation, its limits, bands of errors, and nothing that is absent."""

from collections.abc import Sequence

import matplotlib
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from nfa.figures.alignment_relations import alignment_relations
from nfa.figures.relation_grid import draw_run, draw_seeds, relation_grid
from nfa.figures.training_analysis import training_analyses
from nfa.relations import RELATIONS

EPOCHS = [0, 1, 2, 4]
SITES = ["layer_0", "layer_1"]
Series = dict[str, dict[int, float]]


def of_kind(kind):
    """Matrices of such relations by name."""
    return {name: one.matrices for name, one in RELATIONS.items() if one.kind == kind}


def series(sites: Sequence[str], relations: Sequence[str], value: float = 0.5) -> Series:
    values: Series = {key: {epoch: 1 / (1 + epoch) for epoch in EPOCHS} for key in ("train/loss", "val/loss")}
    return values | {f"{site}/{name}": dict.fromkeys(EPOCHS, value) for site in sites for name in relations}


def shown(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.axison]


def lines(axes: Axes) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in axes.get_lines()}


def bands(axes: Axes) -> list[PolyCollection]:
    return [item for item in axes.collections if isinstance(item, PolyCollection)]


def legend_of(figure: Figure) -> Legend:
    found = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    (legend,) = found
    return legend


def assert_legend_is_apart(figure: Figure) -> None:
    figure.draw_without_rendering()
    box = legend_of(figure).get_window_extent()
    for axes in shown(figure):
        assert not axes.get_window_extent().shrunk(0.99, 0.99).overlaps(box), f"legend over {axes.get_title()}"
    assert figure.bbox.padded(2).contains(box.x0, box.y0)
    assert figure.bbox.padded(2).contains(box.x1, box.y1)


# ---- one run


@pytest.fixture(scope="module")
def everything() -> Figure:
    """All relations, each with the value 3."""
    return alignment_relations(series(SITES, list(RELATIONS), 3.0), SITES, list(RELATIONS))


def test_every_relation_has_one_panel_with_its_name(everything: Figure) -> None:
    titles = [axes.get_title() for axes in shown(everything)]
    assert titles == [RELATIONS[name].label for name in RELATIONS]
    assert len(set(titles)) == len(RELATIONS)
    for axes in shown(everything):
        assert set(lines(axes)) == {"layer 0", "layer 1"}
        assert axes.get_xlabel() == "epoch"


def test_cosines_and_overlaps_reach_from_0_to_1_fact_from_minus_1_and_ranks_from_1(
    everything: Figure,
) -> None:
    limits = {name: axes.get_ylim() for name, axes in zip(RELATIONS, shown(everything), strict=True)}
    for name in {*of_kind("cosine"), *of_kind("overlap")} - {"fact_nfm"}:
        assert limits[name] == (0, 1), name
    assert limits["fact_nfm"] == (-1, 1)
    for name in of_kind("stable rank"):
        assert limits[name][0] == 1
        assert limits[name][1] > 3
    for name in of_kind("exponent"):
        assert limits[name][0] < 3 < limits[name][1]


def test_what_is_absent_is_not_drawn() -> None:
    values = series(SITES, ["agop_nfm", "agop_nfm_init_removed", "h_vs_m"])
    for site in SITES:
        del values[f"{site}/agop_nfm_init_removed"][0], values[f"{site}/h_vs_m"]
    del values["layer_1/agop_nfm"]
    figure = alignment_relations(values, SITES, ["agop_nfm", "agop_nfm_init_removed", "h_vs_m"])
    first, second = shown(figure)
    assert set(lines(first)) == {"layer 0"}
    assert list(lines(first)["layer 0"].get_xdata()) == EPOCHS
    for line in lines(second).values():
        assert list(line.get_xdata()) == EPOCHS[1:]
        assert set(line.get_ydata()) == {0.5}


def test_nothing_at_all_is_an_empty_figure() -> None:
    figure = alignment_relations({}, SITES, ["agop_nfm"])
    assert not [line for axes in figure.axes for line in axes.get_lines()]
    figure.draw_without_rendering()


def test_a_band_of_two_standard_errors_is_drawn_where_there_are_some_and_nowhere_else() -> None:
    values = series(SITES, ["agop_nfm", "h_vs_m"])
    values["layer_1/agop_nfm_se"] = {1: 0.1, 2: 0.2}
    first, second = shown(alignment_relations(values, SITES, ["agop_nfm", "h_vs_m"]))
    (band,) = bands(first)
    assert bands(second) == []
    corners = band.get_paths()[0].vertices
    assert {round(float(x)) for x, _ in corners} == {1, 2}
    assert {round(float(y), 6) for x, y in corners if round(float(x)) == 2} == {0.1, 0.9}
    assert {round(float(y), 6) for x, y in corners if round(float(x)) == 1} == {0.3, 0.7}
    assert band.get_label().startswith("_")
    assert tuple(band.get_facecolor()[0][:3]) == lines(first)["layer 1"].get_color()[:3]


def test_sites_keep_their_colour_in_every_panel_and_differ_among_each_other() -> None:
    sites = [f"layer_{index}" for index in range(12)]
    first, second = shown(alignment_relations(series(sites, ["agop_nfm", "h_vs_m"]), sites, ["agop_nfm", "h_vs_m"]))
    colours = {name: line.get_color() for name, line in lines(first).items()}
    assert len(set(colours.values())) == 12
    assert {name: line.get_color() for name, line in lines(second).items()} == colours


def test_boundary_title_and_unit_are_shown() -> None:
    figure = alignment_relations(series(SITES, ["h_vs_m"]), SITES, ["h_vs_m"], title="a run", boundary=2, unit="step")
    (axes,) = shown(figure)
    assert list(lines(axes)["end of every-epoch checkpoints"].get_xdata()) == [2, 2]
    assert axes.get_xlabel() == "step"
    assert figure.get_suptitle() == "a run"


@pytest.mark.parametrize(("relations", "sites"), [(1, 2), (2, 3), (3, 6), (5, 5), (4, 40)])
def test_the_legend_names_each_site_once_and_lies_over_no_panel(relations: int, sites: int) -> None:
    names, chosen = [f"layer_{index}" for index in range(sites)], list(RELATIONS)[:relations]
    figure = alignment_relations(series(names, chosen), names, chosen, title="a run", boundary=2)
    texts = [text.get_text() for text in legend_of(figure).get_texts()]
    assert sorted(texts) == sorted([*(f"layer {index}" for index in range(sites)), "end of every-epoch checkpoints"])
    assert_legend_is_apart(figure)


@pytest.mark.parametrize("count", [4, 30])
def test_the_legend_has_room_for_the_names_of_modules(count: int) -> None:
    names = [f"encoder.layers.{index}.self_attention.q_proj" for index in range(count)]
    assert_legend_is_apart(alignment_relations(series(names, ["h_vs_m"]), names, ["h_vs_m"]))


# ---- several runs


def runs(count: int, relations: Sequence[str] = ("agop_nfm", "fact_nfm")) -> dict[str, Series]:
    return {f"run {index}": series(SITES, relations, index / 100) for index in range(count)}


def test_comparison_has_a_row_for_each_relation_and_a_column_for_each_site() -> None:
    figure = relation_grid(runs(3), SITES, ["agop_nfm", "fact_nfm"], draw_run, boundary=2)
    panels = shown(figure)
    assert len(panels) == 4
    assert [axes.get_title() for axes in panels] == ["layer 0", "layer 1", "", ""]
    assert [axes.get_ylabel() for axes in panels] == ["AGOP vs NFM", "", "FACT vs NFM", ""]
    assert [axes.get_xlabel() for axes in panels] == ["", "", "epoch", "epoch"]
    assert [axes.get_ylim() for axes in panels] == [(0, 1), (0, 1), (-1, 1), (-1, 1)]
    for axes in panels:
        assert {name for name in lines(axes) if name.startswith("run")} == set(runs(3))


@pytest.mark.parametrize("count", [2, 10, 11, 25])
def test_every_run_has_a_colour_of_its_own_in_every_panel(count: int) -> None:
    panels = shown(relation_grid(runs(count), SITES, ["agop_nfm", "fact_nfm"], draw_run))
    for axes in panels:
        drawn = lines(axes)
        assert list(drawn) == list(runs(count))
        assert len({line.get_color() for line in drawn.values()}) == count
        assert [line.get_color() for line in drawn.values()] == [line.get_color() for line in lines(panels[0]).values()]


def test_comparison_draws_what_there_is() -> None:
    given = runs(3)
    given["run 1"] = {}
    del given["run 2"]["layer_1/agop_nfm"]
    first, second = shown(relation_grid(given, SITES, ["agop_nfm", "h_vs_m"], draw_run))
    assert set(lines(first)) == {"run 0", "run 2"}
    assert set(lines(second)) == {"run 0"}


def test_comparison_has_bands_for_the_runs_with_standard_errors() -> None:
    given = runs(2)
    given["run 1"]["layer_0/agop_nfm_se"] = dict.fromkeys(EPOCHS, 0.1)
    figure = relation_grid(given, SITES, ["agop_nfm", "fact_nfm"], draw_run)
    assert [len(bands(axes)) for axes in shown(figure)] == [1, 0, 0, 0]


@pytest.mark.parametrize(("count", "sites"), [(1, 1), (3, 1), (25, 1), (3, 2), (25, 2), (12, 5)])
def test_the_legend_of_a_comparison_lies_over_no_panel(count: int, sites: int) -> None:
    names = [f"layer_{index}" for index in range(sites)]
    given = {f"a run of an optimizer {index}": series(names, ["agop_nfm"]) for index in range(count)}
    figure = relation_grid(given, names, ["agop_nfm"], draw_run)
    assert {text.get_text() for text in legend_of(figure).get_texts()} == given.keys()
    assert_legend_is_apart(figure)


def of_seeds(mean: float) -> Series:
    """A mean with an interval of ± 0.1 at every site."""
    ends = {"": mean, "_lo": mean - 0.1, "_hi": mean + 0.1}
    return {f"{site}/agop_nfm{end}": dict.fromkeys(EPOCHS, value) for site in SITES for end, value in ends.items()}


def test_groups_of_seeds_are_drawn_in_the_same_grid_with_an_interval_for_each() -> None:
    groups = {label: of_seeds(mean) for label, mean in (("sgd", 0.4), ("adam", 0.7))}
    groups["adam"] = {key: of_key for key, of_key in groups["adam"].items() if "layer_1" not in key}
    figure = relation_grid(groups, SITES, ["agop_nfm", "h_vs_m"], draw_seeds, title="over seeds")
    first, second = shown(figure)
    assert figure.get_suptitle() == "over seeds"
    assert (first.get_title(), first.get_ylabel(), first.get_xlabel()) == ("layer 0", "AGOP vs NFM", "epoch")
    assert {name: set(line.get_ydata()) for name, line in lines(first).items()} == {"sgd": {0.4}, "adam": {0.7}}
    assert (len(bands(first)), len(bands(second)), set(lines(second))) == (2, 1, {"sgd"})
    assert {round(float(y), 6) for _, y in bands(second)[0].get_paths()[0].vertices} == {0.3, 0.5}


# ---- several trainings as they are


SIX = ("agop_nfm", "g_vs_h", "g_vs_m", "h_vs_m")


def test_analyses_of_several_trainings_have_a_row_for_each_with_both_axes() -> None:
    given = {name: series(SITES, SIX) for name in ("sgd", "adam", "muon")}
    figure = training_analyses(given, SITES, SIX, title="three")
    panels = shown(figure)
    left = [axes for axes in panels if axes.get_title()]
    right = [axes for axes in panels if not axes.get_title()]
    assert [axes.get_title() for axes in left] == [f"{name}, layer {index}" for name in given for index in (0, 1)]
    assert figure.get_suptitle() == "three"
    for axes in left:
        assert axes.get_yscale() == "log"
        assert set(lines(axes)) == {"train loss", "validation loss"}
    for axes in right:
        assert axes.get_ylim() == (0, 1)
        assert set(lines(axes)) == {"AGOP vs NFM", "G vs H", "G vs M", "H vs M"}
    assert len(left) == len(right) == 6


@pytest.mark.parametrize("depth", [1, 2])
def test_the_legend_of_several_trainings_lies_over_no_panel(depth: int) -> None:
    sites = [f"layer_{index}" for index in range(depth)]
    figure = training_analyses({name: series(sites, SIX) for name in ("sgd", "adam")}, sites, SIX, title="two")
    assert len(legend_of(figure).get_texts()) == 6
    assert_legend_is_apart(figure)


def test_drawing_leaves_matplotlib_s_settings_alone() -> None:
    before = dict(matplotlib.rcParams)
    alignment_relations(series(SITES, ["agop_nfm"]), SITES, ["agop_nfm"])
    relation_grid(runs(2), SITES, ["agop_nfm"], draw_run)
    training_analyses(runs(2), SITES, ["agop_nfm"])
    assert dict(matplotlib.rcParams) == before
