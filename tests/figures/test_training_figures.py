"""The two figures of a training: what is drawn, where, and that undefined values are not."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nfa.checkpoint_schedule import fit
from nfa.figures.training_analysis import training_analysis
from nfa.registry.training import report as reports
from nfa.registry.training.figures.optimizer_comparison import optimizer_comparison

EPOCHS = fit("0-20,40,60,80,100", 100)
LOOKS = {
    "train loss": ("#0072B2", "o"),
    "validation loss": ("#D55E00", "s"),
    "AGOP vs NFM": ("#009E73", "^"),
    "G vs H": ("#CC79A7", "D"),
    "G vs M": ("#56B4E9", "v"),
    "H vs M": ("#E69F00", "*"),
}
RELATIONS = ("agop_nfm", "g_vs_h", "g_vs_m", "h_vs_m")
Series = dict[str, dict[int, float]]


def sites(depth: int) -> list[str]:
    return [f"layer_{index}" for index in range(depth)]


def series(depth: int, epochs: Sequence[int] = EPOCHS) -> Series:
    values: Series = {
        "train/loss": {epoch: 1 / (1 + epoch) for epoch in epochs},
        "val/loss": {epoch: 2 / (1 + epoch) for epoch in range(max(epochs) + 1)},
    }
    for site in sites(depth):
        values |= {f"{site}/{name}": dict.fromkeys(epochs, 0.5) for name in RELATIONS}
    return values


def sides(figure: Figure) -> list[tuple[Axes, Axes]]:
    """Left and right axes of each panel."""
    drawn = [axes for axes in figure.axes if axes.axison]
    left = [axes for axes in drawn if axes.get_title()]
    right = [axes for axes in drawn if not axes.get_title()]
    return list(zip(left, right, strict=True))


def lines(*places: Axes) -> dict[str, Line2D]:
    return {str(line.get_label()): line for axes in places for line in axes.get_lines()}


@pytest.mark.parametrize("depth", [1, 5, 6, 7])
def test_one_panel_a_layer_with_a_logarithmic_left_and_a_fixed_right_axis(depth: int) -> None:
    figure = training_analysis(series(depth), sites(depth), RELATIONS, boundary=20)
    assert [left.get_title() for left, _ in sides(figure)] == [f"layer {index}" for index in range(depth)]
    for left, right in sides(figure):
        assert left.get_yscale() == "log"
        assert right.get_ylim() == (0, 1)
        assert right.get_yscale() == "linear"


@pytest.mark.parametrize("depth", [1, 5, 6, 7])
def test_the_legend_lies_over_no_panel(depth: int) -> None:
    assert_legend_is_apart(training_analysis(series(depth), sites(depth), RELATIONS, boundary=20))


@pytest.mark.parametrize("depth", [1, 5])
def test_the_legend_of_a_comparison_lies_over_no_panel(depth: int) -> None:
    runs = dict.fromkeys(("sgd", "adam", "muon"), series(depth))
    assert_legend_is_apart(optimizer_comparison(runs, sites(depth), boundary=20))


def assert_legend_is_apart(figure: Figure) -> None:
    figure.savefig(io.BytesIO(), format="png", dpi=20)
    (legend,) = legends(figure)
    box = legend.get_window_extent()
    for axes in figure.axes:
        overlap = axes.axison and axes.get_window_extent().shrunk(0.99, 0.99).overlaps(box)
        assert not overlap, f"legend over {axes.get_title()}"
    assert figure.bbox.padded(2).contains(box.x0, box.y0)
    assert figure.bbox.padded(2).contains(box.x1, box.y1)


def legends(figure: Figure) -> list[matplotlib.legend.Legend]:
    found = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return [legend for legend in found if legend is not None]


def test_every_series_has_its_colour_and_marker() -> None:
    figure = training_analysis(series(5), sites(5), RELATIONS)
    for left, right in sides(figure):
        drawn = lines(left, right)
        assert set(drawn) == set(LOOKS)
        for label, (colour, marker) in LOOKS.items():
            assert to_rgba(drawn[label].get_color()) == to_rgba(colour)
            assert drawn[label].get_marker() == marker
        assert set(lines(left)) == {"train loss", "validation loss"}


def test_legend_names_every_series_once() -> None:
    figure = training_analysis(series(5), sites(5), RELATIONS, boundary=20)
    (legend,) = legends(figure)
    assert [text.get_text() for text in legend.get_texts()][:2] == ["train loss", "validation loss"]
    assert len({text.get_text() for text in legend.get_texts()}) == len(legend.get_texts()) == 7


def test_a_value_that_does_not_exist_is_not_drawn_as_zero() -> None:
    values = series(2)
    del values["layer_0/agop_nfm"][0]
    del values["layer_1/agop_nfm"]
    (first, second) = sides(training_analysis(values, sites(2)))
    line = lines(first[1])["AGOP vs NFM"]
    assert list(line.get_xdata()) == EPOCHS[1:]
    assert set(line.get_ydata()) == {0.5}
    assert "AGOP vs NFM" not in lines(second[1])


def test_shares_in_known_features_are_drawn_with_chance_at_the_sites_that_have_them() -> None:
    values = series(2)
    for key, value in {"agop_known": 0.7, "agop_known_chance": 0.1, "nfm_known": 0.4}.items():
        values[f"layer_1/{key}"] = dict.fromkeys(EPOCHS, value)
    first, second = sides(reports.training_figure(values, sites(2), "title"))
    drawn = {label: set(line.get_ydata()) for label, line in lines(second[1]).items()}
    assert drawn == {
        "AGOP vs NFM": {0.5}, "AGOP in the known features": {0.7}, "chance": {0.1}, "NFM in the known features": {0.4},
    }  # fmt: skip
    assert lines(second[1])["chance"].get_color() == "0.5"
    assert lines(first[1]).keys() == {"AGOP vs NFM"}
    assert second[1].get_ylabel() == "cosine similarity, share"


def test_an_axis_without_losses_says_so() -> None:
    """As of a loop of somebody's own that has logged none."""
    values = {key: of_key for key, of_key in series(1).items() if not key.endswith("/loss")}
    ((left, right),) = sides(training_analysis(values, sites(1), boundary=20))
    assert (list(left.get_yticks()), left.get_ylabel()) == ([], "no loss was logged")
    assert lines(right).keys() == {"AGOP vs NFM"}


def test_validation_loss_is_drawn_at_checkpoint_epochs_only() -> None:
    ((left, _),) = sides(training_analysis(series(1), sites(1)))
    assert list(lines(left)["validation loss"].get_xdata()) == EPOCHS


def test_default_schedule_has_its_dashed_boundary_at_epoch_20() -> None:
    figure = reports.training_figure(series(5), sites(5), "title")
    for left, _ in sides(figure):
        boundary = lines(left)["end of every-epoch checkpoints"]
        assert list(boundary.get_xdata()) == [20, 20]
        assert boundary.get_linestyle() == "--"


def test_schedule_of_one_phase_has_no_boundary() -> None:
    figure = reports.training_figure(series(1, range(6)), sites(1), "title")
    assert "end of every-epoch checkpoints" not in lines(*figure.axes)


def test_figures_are_the_same_file_for_the_same_numbers() -> None:
    def picture() -> bytes:
        file = io.BytesIO()
        training_analysis(series(1), sites(1)).savefig(file, format="png", dpi=50, metadata={"Software": None})
        return file.getvalue()

    assert picture() == picture()


def test_drawing_leaves_matplotlib_s_settings_alone() -> None:
    before = dict(matplotlib.rcParams)
    training_analysis(series(1), sites(1))
    optimizer_comparison({"sgd": series(1)}, sites(1))
    assert dict(matplotlib.rcParams) == before


def test_comparison_draws_every_run_in_its_own_colour() -> None:
    runs = {name: series(2) for name in ("sgd", "adam", "muon")}
    figure = optimizer_comparison(runs, sites(2), boundary=20)
    losses, *panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == 2
    assert losses.get_yscale() == "log"
    for panel in panels:
        assert panel.get_ylim() == (0, 1)
        drawn = {name: lines(panel)[name] for name in runs}
        assert len({line.get_color() for line in drawn.values()}) == 3
        assert len({line.get_marker() for line in drawn.values()}) == 3


def test_comparison_draws_what_there_is_of_a_run_that_failed() -> None:
    runs: Mapping[str, Series] = {"sgd": series(1), "adam": {}, "muon": {"val/loss": {0: 1.0}}}
    figure = optimizer_comparison(runs, sites(1), title="three")
    assert figure.get_suptitle() == "three"
    assert set(lines(figure.axes[1])) == {"sgd"}
    assert reports.comparison_figure(runs, sites(1), "three")


def test_results_give_null_for_what_is_undefined() -> None:
    values = series(1, [0, 1, 2]) | {"layer_0/agop_nfm_init_removed": {1: 0.25, 2: 0.75}}
    report = reports.results(values, sites(1), {"centre": "none"})
    assert report["epochs"] == [0, 1, 2]
    assert report["layer_correlations"] == {"0": [0.5, 0.5, 0.5]}
    assert report["layer_correlations_init_removed"] == {"0": [None, 0.25, 0.75]}
    assert report["val_losses"] == [2.0, 1.0, 2 / 3]
    assert "layer_levels" not in report


def test_results_have_levels_in_the_form_of_the_correlations() -> None:
    levels = {"layer_0/agop_nfm_chance": {0: 0.25, 2: 0.125}, "layer_1/agop_nfm_init_removed_shared_sd": {1: 0.01}}
    report = reports.results(series(2, [0, 1, 2]) | levels, sites(2), {})
    assert report["layer_levels"] == {
        "agop_nfm_chance": {"0": [0.25, None, 0.125], "1": [None] * 3},
        "agop_nfm_init_removed_shared_sd": {"0": [None] * 3, "1": [None, 0.01, None]},
    }
