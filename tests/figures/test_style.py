"""What all figures share: titles that fit, legends that are read line by line, ticks that tell values apart."""

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from nfa.figures.gradient_pictures import DrawnDirections, gradient_map, gradient_montage, gradient_similarities
from nfa.figures.gradient_series import gradient_series
from nfa.figures.style import add_legend, panels
from nfa.figures.training_analysis import training_analysis
from nfa.registry.families.mlp.figures.ghm_histogram import ghm_histogram
from nfa.registry.sweeps.figures.tuning_space import slices
from nfa.registry.sweeps.space import Choice
from nfa.registry.sweeps.study_table import StudyTable, TrialRow
from tests.support.processes import NFA

LONG = "digits, sgd, 5 layers of 1024: unit batch of 32, 512 examples, loss cross entropy, all 2,568 parameters"


def drawn(figure: Figure) -> Figure:
    figure.savefig(io.BytesIO(), format="png", dpi=50)
    return figure


def directions(n: int = 8) -> DrawnDirections:
    random = np.random.default_rng(0)
    ones = np.ones(n)
    return DrawnDirections(np.eye(n), random.standard_normal((n, 2)), ones, ones, np.arange(n) % 4)


def assert_title_is_inside(figure: Figure, title: str = LONG) -> None:
    box, whole = drawn(figure)._suptitle.get_window_extent(), figure.bbox  # type: ignore[attr-defined]
    assert whole.x0 <= box.x0
    assert box.x1 <= whole.x1
    assert box.y1 <= whole.y1
    assert " ".join(figure.get_suptitle().split()) == title


def test_a_long_title_is_not_cut_at_the_edge_of_a_page_with_one_checkpoint() -> None:
    assert_title_is_inside(gradient_montage({"": {5: directions()}}, title=LONG))


def test_a_long_title_is_not_cut_above_one_matrix_or_one_map() -> None:
    assert_title_is_inside(gradient_similarities(directions(), title=LONG))
    assert_title_is_inside(gradient_map(directions(), title=LONG, reach=3))


def test_a_long_title_is_not_cut_above_the_two_panels_of_weights() -> None:
    bins = {f"ghm/{kind}_bin_{b}": {0: 0.5, 5: 0.5} for kind in ("share", "weight") for b in range(2)}
    title = f"{LONG}, {LONG}"
    assert_title_is_inside(ghm_histogram(bins, 2, title=title), title)


def test_a_long_name_of_a_study_is_not_cut_above_its_parameters() -> None:
    rows = tuple(TrialRow(i, "finished", {"act": act}, (float(i),)) for i, act in enumerate(("relu", "gelu")))
    figure = slices(StudyTable(LONG, ("y",), (False,), (Choice("act", ("relu", "gelu")),), rows), None)
    assert figure is not None
    assert_title_is_inside(figure, f"{LONG}: objective by parameter (the other parameters vary too)")


def test_only_the_style_adds_titles_above_all_panels() -> None:
    """`Figure.suptitle` itself cuts those that are too long."""
    calls = [file.name for file in Path(NFA).rglob("*.py") if ".suptitle(" in file.read_text(encoding="utf-8")]
    assert calls == ["style.py"]


@pytest.mark.parametrize("count", [5, 7, 12])
def test_a_legend_below_the_panels_is_read_line_by_line(count: int) -> None:
    figure, (axes,) = panels(1, columns=1, width=4.2)
    labels = [f"run {index}" for index in range(count)]
    for label in labels:
        axes.plot([0, 1], label=label)
    add_legend(figure)
    (legend,) = drawn(figure).legends
    boxes = {text.get_text(): text.get_window_extent() for text in legend.get_texts()}
    assert sorted(boxes, key=lambda label: (-round(boxes[label].y0), boxes[label].x0)) == labels


def test_ticks_of_a_loss_that_hardly_moves_differ_from_each_other() -> None:
    series = {"train/loss": {0: 2.3026, 1: 2.3018, 2: 2.3011}, "layer_0/agop_nfm": {0: 0.5, 2: 0.6}}
    left = drawn(training_analysis(series, ["layer_0"])).axes[0]
    labels = [tick.label1.get_text() for tick in left.yaxis.get_major_ticks()]
    assert len(labels) > 1
    assert len(set(labels)) == len(labels)


def test_the_axis_of_a_share_does_not_go_below_zero() -> None:
    figure = gradient_series({"": {"gradient/zero_fraction": {0: 0.0, 5: 0.0, 10: 0.02}}})
    assert figure.axes[0].get_ylim()[0] == 0
