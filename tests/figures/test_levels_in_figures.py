"""What figures draw around and below a curve: errors, the level of chance and that of shared weights."""

from collections.abc import Sequence

import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from nfa.figures.alignment_relations import alignment_relations
from nfa.figures.relation_grid import draw_run, draw_seeds, relation_grid
from nfa.figures.training_analysis import training_analyses, training_analysis
from nfa.figures.values_by_site import relations_by_site
from nfa.registry.training.figures.optimizer_comparison import optimizer_comparison
from tests.figures.test_alignment_figures import (
    EPOCHS,
    SITES,
    Series,
    assert_legend_is_apart,
    bands,
    legend_of,
    series,
    shown,
)

CHANCE = "chance ± 2 standard deviations"
WORDS = ["± 2 standard errors", "shared-weights level", CHANCE]


def with_levels(sites: Sequence[str], relation: str = "agop_nfm", **beside: float) -> Series:
    """A relation of 0.5 with these levels and errors at every site."""
    ends = {f"{site}/{relation}_{end}": dict.fromkeys(EPOCHS, of) for site in sites for end, of in beside.items()}
    return {**series(sites, [relation]), **ends}


def every_figure(values: Series, relation: str = "agop_nfm") -> list[Figure]:
    return [
        alignment_relations(values, SITES[:1], [relation]),
        relation_grid({"a run": values}, SITES[:1], [relation], draw_run),
        relation_grid({"all": values}, SITES[:1], [relation], draw_seeds),
        training_analyses({"a run": values}, SITES[:1], [relation]),
        optimizer_comparison({"a run": values}, SITES[:1], relation=relation),
    ]


def grey(figure: Figure) -> list[PolyCollection]:
    return [band for axes in shown(figure) for band in bands(axes) if str(band.get_label()).startswith(CHANCE)]


def heights(band: PolyCollection) -> set[float]:
    return {round(float(y), 6) for _, y in band.get_paths()[0].vertices}


def test_chance_is_a_grey_band_of_two_standard_deviations_in_every_figure() -> None:
    for figure in every_figure(with_levels(SITES, chance=0.2, chance_sd=0.05)):
        (band,) = grey(figure)
        assert heights(band) == {0.1, 0.3}
        red, green, blue, _ = band.get_facecolor()[0]
        assert red == green == blue


def test_the_grey_band_ends_where_the_relation_does() -> None:
    (low,) = grey(alignment_relations(with_levels(SITES, chance=0.05, chance_sd=0.1), SITES, ["agop_nfm"]))
    assert heights(low) == {0, 0.25}
    (signed,) = grey(alignment_relations(with_levels(SITES, "fact_nfm", chance=0, chance_sd=0.1), SITES, ["fact_nfm"]))
    assert heights(signed) == {-0.2, 0.2}
    (high,) = grey(alignment_relations(with_levels(SITES, chance=0.95, chance_sd=0.1), SITES, ["agop_nfm"]))
    assert heights(high) == {0.75, 1}


def test_one_grey_band_holds_the_levels_of_all_curves_of_a_panel_if_each_lies_above_it_as_above_its_own() -> None:
    below, above = ({"chance": level, "chance_sd": 0.05} for level in (0.1, 0.3))
    values = with_levels(SITES[:1], **below) | with_levels(SITES[1:], **above)
    (band,) = grey(alignment_relations(values, SITES, ["agop_nfm"]))
    assert heights(band) == {0, 0.4}
    runs = {"sgd": with_levels(SITES[:1], **below), "adam": with_levels(SITES[:1], **above)}
    for figure in (relation_grid(runs, SITES[:1], ["agop_nfm"], draw_run), optimizer_comparison(runs, SITES[:1])):
        (band,) = grey(figure)
        assert heights(band) == {0, 0.4}


def test_the_legend_says_that_a_band_of_several_levels_is_that_of_all_curves() -> None:
    below, above = ({"chance": level, "chance_sd": 0.05} for level in (0.1, 0.3))
    several = with_levels(SITES[:1], **below) | with_levels(SITES[1:], **above)
    (band,) = grey(alignment_relations(several, SITES, ["agop_nfm"]))
    assert band.get_label() == f"{CHANCE} (of all curves of a panel, from the lowest to the highest)"
    (one,) = grey(alignment_relations(with_levels(SITES, **below), SITES, ["agop_nfm"]))
    assert one.get_label() == CHANCE


def test_each_curve_has_its_own_level_where_a_common_band_would_hide_that_one_is_above_chance() -> None:
    below, above = ({"chance": level, "chance_sd": 0.05} for level in (0.2, 0.6))
    values = with_levels(SITES[:1], **below) | with_levels(SITES[1:], **above)
    runs = {"sgd": with_levels(SITES[:1], **below), "adam": with_levels(SITES[:1], **above)}
    figures = [
        alignment_relations(values, SITES, ["agop_nfm"]),
        relation_grid(runs, SITES[:1], ["agop_nfm"], draw_run),
        optimizer_comparison(runs, SITES[:1]),
    ]
    for figure in figures:
        drawn = [line for axes in figure.axes for line in axes.get_lines() if max(line.get_ydata(), default=1) < 1]
        curves = [line for line in drawn if set(line.get_ydata()) == {0.5}]
        tops = {max(line.get_ydata()): line for line in drawn if line.is_dashed()}
        assert sorted(round(top, 6) for top in tops) == [0.3, 0.7]
        assert {to_rgba(line.get_color()) for line in tops.values()} == {to_rgba(line.get_color()) for line in curves}
        assert grey(figure) == []
        assert "chance + 2 standard deviations" in [text.get_text() for text in legend_of(figure).get_texts()]


def test_a_run_that_ends_earlier_does_not_bend_the_level_of_another() -> None:
    long, short = with_levels(SITES[:1], chance=0.1, chance_sd=0.02), with_levels(SITES[:1], chance=0.2, chance_sd=0.02)
    runs = {"long": long, "short": {key: {0: of[0], 1: of[1]} for key, of in short.items()}}
    figure = relation_grid(runs, SITES[:1], ["agop_nfm"], draw_run)
    drawn = [line for line in shown(figure)[0].get_lines() if len(line.get_xdata())]
    tops = {round(max(line.get_ydata()), 6): list(line.get_xdata()) for line in drawn if max(line.get_ydata()) < 0.5}
    assert tops == {0.14: EPOCHS, 0.24: [0, 1]}
    assert grey(figure) == []


def test_a_shared_weights_level_is_dotted_in_the_colour_of_its_curve_in_every_figure() -> None:
    for figure in every_figure(with_levels(SITES, shared=0.4)):
        drawn = [line for axes in figure.axes for line in axes.get_lines()]
        (dotted,) = [line for line in drawn if line.get_linestyle() == ":" and len(line.get_xdata())]
        (curve,) = [line for line in drawn if len(line.get_ydata()) and set(line.get_ydata()) == {0.5}]
        assert set(dotted.get_ydata()) == {0.4}
        assert to_rgba(dotted.get_color()) == to_rgba(curve.get_color())
        assert (dotted.get_marker(), grey(figure)) == ("None", [])


def test_the_band_of_errors_lies_around_the_unbiased_value_and_within_the_limits() -> None:
    values = with_levels(SITES[:1], se=0.1, unbiased=0.45) | with_levels(SITES[1:], se=0.3)
    first, second = bands(shown(alignment_relations(values, SITES, ["agop_nfm"]))[0])
    assert (heights(first), heights(second)) == ({0.25, 0.65}, {0, 1})


def test_the_legend_names_levels_and_errors_once_after_the_curves() -> None:
    values = with_levels(SITES, chance=0.2, chance_sd=0.05, shared=0.4, se=0.01)
    for figure in (
        alignment_relations({**values, **{f"{key}x": {} for key in values}}, SITES, ["agop_nfm", "h_vs_m"]),
        relation_grid({"layer 0": values, "layer 1": values}, SITES, ["agop_nfm"], draw_run),
    ):
        texts = [text.get_text() for text in legend_of(figure).get_texts()]
        assert sorted(texts) == sorted(["layer 0", "layer 1", *WORDS])
        drawn = [label for label in shown(figure)[0].get_legend_handles_labels()[1] if label in WORDS]
        assert list(dict.fromkeys(drawn)) == WORDS
        assert_legend_is_apart(figure)


def test_nothing_is_drawn_or_named_where_there_are_no_levels() -> None:
    for figure in every_figure(series(SITES, ["agop_nfm"])):
        assert not [line for axes in figure.axes for line in axes.get_lines() if line.get_linestyle() == ":"]
        assert not [band for axes in figure.axes for band in bands(axes)]
        assert not {label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]} & {*WORDS, "chance"}


def test_levels_of_a_single_step_are_seen() -> None:
    values = {key: {3: of[4]} for key, of in with_levels(SITES[:1], chance=0.2, chance_sd=0.05, shared=0.4).items()}
    figure = alignment_relations(values, SITES[:1], ["agop_nfm"])
    (band,) = grey(figure)
    assert band.get_linewidth()[0] > 0
    (level,) = [line for line in shown(figure)[0].get_lines() if set(line.get_ydata()) == {0.4}]
    assert level.get_marker() == "_"


def test_chance_without_a_deviation_is_a_grey_line() -> None:
    for figure in every_figure(with_levels(SITES, "agop_known", chance=0.1), "agop_known"):
        (line,) = [line for axes in figure.axes for line in axes.get_lines() if line.get_label() == "chance"]
        assert (line.get_color(), set(line.get_ydata()), line.get_linestyle()) == ("0.5", {0.1}, "-")
        assert grey(figure) == []


def test_of_several_relations_in_a_panel_the_first_alone_has_a_grey_band_which_names_it() -> None:
    values = with_levels(SITES, chance=0.2, chance_sd=0.05) | with_levels(SITES, "h_vs_m", chance=0.6, chance_sd=0.05)
    (band,) = grey(training_analysis(values, SITES[:1], ["agop_nfm", "h_vs_m"]))
    assert (band.get_label(), heights(band)) == ("chance ± 2 standard deviations, AGOP vs NFM", {0.1, 0.3})


def test_the_rows_of_a_model_have_their_levels_beside_them() -> None:
    values = {key: of[4] for key, of in with_levels(SITES[:1], chance=0.2, chance_sd=0.05, shared=0.4).items()}
    figure = relations_by_site(values, SITES[:1], ["agop_nfm"])
    drawn = {str(line.get_label()): list(line.get_xdata()) for line in shown(figure)[0].get_lines()}
    assert drawn[CHANCE] == pytest.approx([0.1, 0.3])
    assert drawn["shared-weights level"] == [0.4]
    assert [text.get_text() for text in legend_of(figure).get_texts()] == [CHANCE, "shared-weights level", "value"]


def test_the_bar_of_an_error_is_named_lies_around_the_unbiased_value_and_ends_where_the_relation_does() -> None:
    values = {"layer_0/agop_nfm": 0.95, "layer_0/agop_nfm_se": 0.05, "layer_0/agop_nfm_unbiased": 0.93}
    figure = relations_by_site(values, SITES[:1], ["agop_nfm"])
    drawn = {str(line.get_label()): list(line.get_xdata()) for line in shown(figure)[0].get_lines()}
    assert drawn["± 2 standard errors around the unbiased value"] == pytest.approx([0.83, 1])
    assert drawn["value"] == [0.95]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_no_place_of_a_figure_is_empty_where_the_legend_fits_with_its_lines_broken(count: int) -> None:
    names = [f"layer_{index}" for index in range(count)]
    values = with_levels(names, se=0.05, chance=0.2, chance_sd=0.05, shared=0.3)
    figure = training_analysis(values, names)
    assert_legend_is_apart(figure)
    (free,) = (axes for axes in figure.axes if not axes.axison)
    assert free.get_legend() is not None
    assert not figure.legends
