"""What figures say in words: what is missing, what abbreviations mean, which loss an axis is."""

import pytest
from matplotlib.figure import Figure

from nfa.figures.alignment_relations import alignment_relations
from nfa.figures.notes import abbreviations, missing, missing_in
from nfa.figures.relation_grid import draw_run, relation_grid
from nfa.figures.training_analysis import training_analyses, training_analysis
from nfa.registry.families.registry import family
from nfa.registry.training.figures.optimizer_comparison import optimizer_comparison
from nfa.relations import RELATIONS
from tests.figures.test_alignment_figures import EPOCHS, SITES, assert_legend_is_apart, legend_of, series, shown


def words(figure: Figure) -> str:
    """All that a figure says outside its panels."""
    return " ".join(text.get_text() for text in figure.texts).replace("\n", " ")


def test_every_matrix_in_the_label_of_a_relation_is_spelled_out() -> None:
    said = abbreviations(RELATIONS)
    for word in ("average gradient outer product", "neural feature matrix", "init removed", "G:", "H:", "FACT", "G′"):
        assert said.count(word) == 1, word
    assert abbreviations([]) == ""


def test_what_is_undefined_or_not_measured_is_said() -> None:
    values = series(SITES, ["agop_nfm_init_removed", "h_vs_m", "g_vs_m"])
    for site in SITES:
        del values[f"{site}/agop_nfm_init_removed"][0]
    del values["layer_1/h_vs_m"]
    values["layer_0/h_vs_m_chance"] = dict.fromkeys(EPOCHS, 0.1)
    assert missing(values, SITES, ["agop_nfm_init_removed", "h_vs_m", "g_vs_m", "g_vs_h"]) == [
        "No value, undefined or not measured: AGOP vs NFM (init removed) at epoch 0, where W is still W⁽⁰⁾; "
        "H vs M in layer 1; G vs H",
        "Without standard errors; without chance levels of AGOP vs NFM (init removed), G vs M",
    ]


def test_nothing_is_said_where_nothing_is_missing() -> None:
    beside = {f"{site}/h_vs_m_{end}": dict.fromkeys(EPOCHS, 0.1) for site in SITES for end in ("se", "chance")}
    assert missing({**series(SITES, ["h_vs_m"]), **beside}, SITES, ["h_vs_m"]) == ["", ""]


def test_a_figure_says_it_below_its_panels_and_the_legend_lies_between() -> None:
    values = series(SITES, ["agop_nfm", "g_vs_h", "h_vs_m"])
    for figure in (
        alignment_relations(values, SITES, ["agop_nfm", "g_vs_h", "h_vs_m"]),
        relation_grid({"sgd": values}, SITES, ["agop_nfm"], draw_run),
        training_analysis(values, SITES),
        optimizer_comparison({"sgd": values}, SITES),
    ):
        assert "AGOP: average gradient outer product" in words(figure)
        assert "Without standard errors" in words(figure)
        assert_legend_is_apart(figure)
        lines = figure.texts[-1].get_window_extent()
        assert not legend_of(figure).get_window_extent().overlaps(lines)
        assert figure.bbox.contains(lines.x0, lines.y0)
        assert not [axes for axes in shown(figure) if axes.get_tightbbox().overlaps(lines)]  # type: ignore[union-attr]


def test_a_panel_without_a_curve_says_why() -> None:
    values = series(SITES[:1], ["agop_nfm"])
    grid = shown(relation_grid({"sgd": values}, SITES, ["agop_nfm"], draw_run))
    assert [[text.get_text() for text in axes.texts] for axes in grid] == [[], ["undefined at every step"]]
    (empty,) = shown(alignment_relations({}, SITES, ["agop_nfm"]))
    assert [text.get_text().replace("\n", " ") for text in empty.texts] == ["no relation is defined at any step"]
    losses, *_ = shown(optimizer_comparison({"sgd": {}}, SITES))
    assert [text.get_text() for text in losses.texts] == ["no loss was logged"]


def test_an_axis_of_losses_names_the_loss() -> None:
    values = series(SITES, ["agop_nfm"])
    for figure in (
        training_analysis(values, SITES, loss="cross-entropy"),
        training_analyses({"sgd": values}, SITES, ["agop_nfm"], loss="cross-entropy"),
        optimizer_comparison({"sgd": values}, SITES, loss="cross-entropy"),
    ):
        assert shown(figure)[0].get_ylabel() == "cross-entropy\n(train, validation)"


@pytest.mark.parametrize(
    ("name", "stored", "loss"),
    [
        ("mlp", {"train": {"loss": "mse"}}, "mean squared error"),
        ("mlp", {"train": {"loss": "cross-entropy"}}, "cross-entropy"),
        ("eeg", {"train": {"pearson_weight": 0.5}}, "mean squared error + 0.5 (1 − r)²"),
        ("lora", {"train": {}}, "cross-entropy per answer token"),
        ("/labs/my_lab.py:make", {"train": {}, "loss": "cross_entropy"}, "cross-entropy"),
        ("/labs/my_lab.py:make", {"train": {}}, ""),
    ],
)
def test_every_family_knows_its_loss(name: str, stored: dict[str, object], loss: str) -> None:
    assert family(name).loss(stored) == loss


def test_rows_of_trainings_have_one_scale_of_losses() -> None:
    runs = {"sgd": series(SITES, ["agop_nfm"]), "muon": series(SITES, ["agop_nfm"])}
    runs["muon"]["train/loss"] = dict.fromkeys(EPOCHS, 1e-4)
    left = [axes for axes in shown(training_analyses(runs, SITES, ["agop_nfm"])) if axes.get_title()]
    ((low, high),) = {axes.get_ylim() for axes in left}
    assert low < 1e-4
    assert high > 1


def test_panels_of_a_stable_rank_have_one_scale_that_begins_at_1_and_holds_all_curves() -> None:
    values = series(SITES[:1], ["h_stable_rank"], 1.0) | series(SITES[1:], ["h_stable_rank"], 40.0)
    panels = shown(relation_grid({"sgd": values}, SITES, ["h_stable_rank"], draw_run))
    ((low, high),) = {axes.get_ylim() for axes in panels}
    assert low == 1
    assert high > 40
    for axes in panels:
        assert not [line for line in axes.get_lines() if line.get_clip_on()]  # a curve at 1 is drawn whole


def test_no_interval_over_seeds_reaches_beyond_what_is_possible() -> None:
    values = series(SITES[:1], ["agop_nfm"], 0.95)
    values |= {"layer_0/agop_nfm_lo": dict.fromkeys(EPOCHS, 0.8), "layer_0/agop_nfm_hi": dict.fromkeys(EPOCHS, 1.1)}
    for figure in (training_analysis(values, SITES[:1]), optimizer_comparison({"sgd": values}, SITES[:1])):
        (band,) = shown(figure)[-1].collections
        assert max(y for _, y in band.get_paths()[0].vertices) == 1


def test_what_only_one_run_lacks_is_said_with_its_name() -> None:
    runs = {"sgd": series(SITES, ["h_vs_m"]), "adam": series(SITES[:1], ["h_vs_m"])}
    assert missing_in(runs, SITES, ["h_vs_m"]) == [
        "Without standard errors; without chance levels",
        "adam: no value, undefined or not measured: H vs M in layer 1",
    ]


def test_a_band_of_errors_is_not_drawn_across_steps_without_one() -> None:
    values = series(SITES[:1], ["h_vs_m"])
    values["layer_0/h_vs_m_se"] = {0: 0.1, 1: 0.1, 4: 0.1}
    (axes,) = shown(alignment_relations(values, SITES[:1], ["h_vs_m"]))
    spans = [{x for x, _ in band.get_paths()[0].vertices} for band in axes.collections]
    assert spans == [{0, 1}, {4}]


def test_every_axis_says_what_it_measures() -> None:
    axes = shown(alignment_relations(series(SITES, list(RELATIONS)), SITES, list(RELATIONS)))
    assert {place.get_ylabel() for place in axes} == {
        "cosine similarity", "exponent", "overlap of leading eigenvectors", "stable rank", "share",
    }  # fmt: skip
