"""Figures of a tuning study show its numbers, and are absent where they would be empty."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nfa.registry.sweeps.axis_importance import Importance
from nfa.registry.sweeps.figures import tuning, tuning_space
from nfa.registry.sweeps.space import Choice
from nfa.registry.sweeps.study_figures import study_figures
from nfa.registry.sweeps.study_table import StudyTable, TrialRow, best, best_so_far, finished, pareto_front
from tests.support.study_tables import LR, WIDTH, classifier, two_objectives

FOUND = {
    "lr": Importance(0.6, 0.4, 0.8, 0.2, 0.005, True),
    "optimizer": Importance(-0.02, -0.1, 0.1, 0.15, 0.6, False),
    "width": Importance(0.1, -0.1, 0.3, 0.2, 0.2, False),
}
EMPTY = StudyTable("none", ("val/loss",), (False,), (LR, WIDTH), (TrialRow(0, "waiting", {}),))


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    return figure


def line(axes: Axes, label: str) -> tuple[list[float], list[float]]:
    (found,) = [one for one in axes.get_lines() if one.get_label() == label]
    return list(found.get_xdata()), list(found.get_ydata())


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_history_shows_every_trial_and_the_best_so_far() -> None:
    table = classifier()
    figure = drawn(tuning.optimization_history(table, best_so_far(table), defaults=0))
    (axes,) = figure.axes
    assert line(axes, "finished") == ([r.number for r in finished(table)], [r.values[0] for r in finished(table)])
    assert line(axes, "failed (no value)")[0] == [5, 13]
    assert line(axes, "pruned (no value)")[0] == [row.number for row in table.rows if row.state == "pruned"]
    numbers, values = line(axes, "best so far")
    assert numbers[-1] == 23  # to the last trial, whatever became of it
    assert values == [value for _, value in [*best_so_far(table), best_so_far(table)[-1]]]
    assert line(axes, "defaults")[0] == [0]


def test_history_has_no_mark_of_defaults_that_have_no_value() -> None:
    table = classifier()
    for number in (None, 5, 99):
        figure = drawn(tuning.optimization_history(table, best_so_far(table), defaults=number))
        assert "defaults" not in labels(figure)


def test_trials_that_break_a_constraint_are_hollow() -> None:
    table = two_objectives()
    history = drawn(tuning.optimization_history(table, best_so_far(table)))
    front = drawn(tuning_space.pareto_front(table, pareto_front(table)))
    for figure in (history, front):
        faces = {one.get_label(): one.get_markerfacecolor() for one in figure.axes[0].get_lines()}
        assert faces["breaks a constraint"] == "none" != faces["finished"]


def test_curves_end_where_trials_ended_and_the_best_is_named() -> None:
    table = classifier()
    chosen = best(table)
    assert chosen
    (axes,) = drawn(tuning.intermediate_values(table, chosen, unit="epoch")).axes
    assert line(axes, f"best: trial {chosen.number}") == ([*chosen.intermediate], [*chosen.intermediate.values()])
    crosses = {
        float(one.get_xdata()[0]) for one in axes.get_lines() if one.get_marker() == "x" and len(one.get_xdata())
    }
    assert crosses == {3.0}
    assert axes.get_xlabel() == "epoch"


def test_importances_are_bars_with_intervals_and_chance_and_pale_if_they_did_not_matter() -> None:
    table = classifier()
    (axes,) = drawn(tuning.param_importances(table, [FOUND])).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["lr", "width", "optimizer"]
    bars = axes.patches[:3]
    assert [bar.get_width() for bar in bars] == [0.6, 0.1, 0.0]  # a share is not negative, though its estimate may be
    assert axes.get_xlim() == (0, 1)
    assert bars[0].get_facecolor() != bars[1].get_facecolor() == bars[2].get_facecolor()
    spans = [tuple(one.get_xdata()) for one in axes.get_lines() if len(one.get_xdata()) == 2]
    assert {(0.4, 0.8), (0.0, 0.3), (0.0, 0.1)} <= set(spans)
    ticks = [one.get_xdata()[0] for one in axes.get_lines() if one.get_marker() == "|" and len(one.get_xdata())]
    assert ticks == [0.2, 0.2, 0.15]


def test_importances_have_a_panel_for_each_objective_that_has_any() -> None:
    table = two_objectives()
    assert len(drawn(tuning.param_importances(table, [FOUND, FOUND])).axes) == 2
    (axes,) = drawn(tuning.param_importances(table, [{}, FOUND])).axes
    assert axes.get_title() == "seconds"
    assert tuning.param_importances(table, [{}, {}]) is None


def test_slices_have_a_panel_for_each_axis_with_logarithms_and_choices() -> None:
    table = classifier()
    figure = drawn(tuning_space.slices(table, best(table), defaults=0))
    rows = finished(table)
    panels = {axes.get_xlabel(): axes for axes in figure.axes if axes.get_xlabel()}
    assert set(panels) == {"lr (logarithmic)", "optimizer", "width"}
    lr = np.asarray(panels["lr (logarithmic)"].collections[0].get_offsets())
    np.testing.assert_allclose(lr, [(np.log10(row.parameters["lr"]), row.values[0]) for row in rows])
    choices = panels["optimizer"]
    assert [text.get_text() for text in choices.get_xticklabels()] == ["sgd", "adam", "muon"]
    order = ["sgd", "adam", "muon"]
    columns = np.asarray(choices.collections[0].get_offsets())[:, 0]
    assert list(columns) == [order.index(row.parameters["optimizer"]) for row in rows]
    assert set(labels(figure)) == {"defaults", "best"}


def test_a_choice_that_is_not_in_the_list_has_a_column_of_its_own() -> None:
    rows = [TrialRow(i, "finished", {"act": act}, (float(i),)) for i, act in enumerate(["relu", "gelu", "tanh"])]
    table = StudyTable("t", ("y",), (False,), (Choice("act", ("relu", "gelu")),), tuple(rows))
    axes = drawn(tuning_space.slices(table, None)).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["relu", "gelu", "tanh"]
    assert axes.get_xlim() == (-0.5, 2.5)


def test_a_contour_is_over_the_two_most_important_numeric_axes() -> None:
    table = classifier()
    for found in (FOUND, {}):
        axes = drawn(tuning_space.contour(table, found, best(table))).axes[0]
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("lr (logarithmic)", "width")
        assert len(line(axes, "finished trial")[0]) == len(finished(table))
    turned = {**FOUND, "width": replace(FOUND["width"], value=0.9)}
    assert drawn(tuning_space.contour(table, turned, None)).axes[0].get_xlabel() == "width"


def test_there_is_no_contour_of_few_trials_one_numeric_axis_or_points_on_a_line() -> None:
    table = classifier()
    assert tuning_space.contour(replace(table, rows=table.rows[:8]), FOUND, None) is None  # one of them has failed
    assert tuning_space.contour(replace(table, axes=table.axes[:2]), FOUND, None) is None
    on_a_line = [
        replace(row, parameters={"lr": row.parameters["lr"], "width": np.log10(row.parameters["lr"])})
        for row in finished(table)
    ]
    assert tuning_space.contour(replace(table, rows=tuple(on_a_line)), FOUND, None) is None
    same = [replace(row, values=(1.0,)) for row in finished(table)]
    assert tuning_space.contour(replace(table, rows=tuple(same)), FOUND, None) is None


@pytest.mark.parametrize("maximise", [(False, False), (False, True), (True, False), (True, True)])
def test_the_front_bounds_what_has_been_reached(maximise: tuple[bool, bool]) -> None:
    """Between two trials of the front the step is at the worse second objective: nothing beyond it was reached."""
    table = replace(two_objectives(), maximise=maximise)
    front = pareto_front(table)
    (axes,) = drawn(tuning_space.pareto_front(table, front, defaults=0)).axes
    (drawn_line,) = [one for one in axes.get_lines() if one.get_label() in ("Pareto front", "best in both")]
    assert list(drawn_line.get_xdata()) == [row.values[0] for row in front]
    assert drawn_line.get_drawstyle() == ("steps-pre" if maximise[0] else "steps-post")
    ways = ["higher is better" if more else "lower is better" for more in maximise]
    assert axes.get_xlabel() == f"validation accuracy ({ways[0]})"
    assert axes.get_ylabel() == f"seconds ({ways[1]})"


@pytest.mark.parametrize(("near", "words"), [(2, "1, 2"), (5, "1, 2, 3 and 2 more")])
def test_trials_of_the_front_whose_points_overlap_have_their_numbers_together(near: int, words: str) -> None:
    table = two_objectives()
    ends = TrialRow(0, "finished", {}, (0.5, 1.0)), TrialRow(9, "finished", {}, (0.9, 9.0))
    close = [TrialRow(1 + index, "finished", {}, (0.7 + 1e-4 * index, 5.0 + 1e-4 * index)) for index in range(near)]
    front = [ends[0], *close, ends[1]]
    (axes,) = drawn(tuning_space.pareto_front(replace(table, rows=tuple(front)), front)).axes
    assert {"0", words, "9"} <= {text.get_text() for text in axes.texts}


def test_values_over_a_large_factor_are_on_a_logarithmic_axis_and_others_are_not() -> None:
    rows = tuple(TrialRow(i, "finished", {"lr": 0.1**i}, (10.0**i,)) for i in range(1, 5))
    table = StudyTable("t", ("val/loss",), (False,), (LR,), rows)
    assert drawn(tuning.optimization_history(table, best_so_far(table))).axes[0].get_yscale() == "log"
    assert drawn(tuning_space.slices(table, best(table))).axes[0].get_yscale() == "log"
    table = classifier()
    assert drawn(tuning.optimization_history(table, best_so_far(table))).axes[0].get_yscale() == "linear"


def test_figures_that_would_be_empty_are_none() -> None:
    assert tuning.optimization_history(EMPTY, []) is None
    assert tuning.intermediate_values(EMPTY, None) is None
    assert tuning.param_importances(EMPTY, [{}]) is None
    assert tuning_space.slices(EMPTY, None) is None
    assert tuning_space.contour(EMPTY, {}, None) is None
    assert tuning_space.pareto_front(EMPTY, []) is None
    assert tuning_space.pareto_front(classifier(), []) is None


def test_any_rows_of_that_shape_are_drawn() -> None:
    """Figures ask for attributes, not for classes."""
    row = SimpleNamespace(
        number=0, state="finished", parameters={"lr": 0.1}, values=(1.0,), intermediate={}, feasible=True
    )
    known = {"name": "t", "objectives": ("y",), "maximise": (False,), "subject": "", "loss": ""}
    table = SimpleNamespace(**known, axes=(LR,), rows=[row])
    assert len(drawn(tuning.optimization_history(table, [(0, 1.0)])).axes) == 1


def test_every_figure_says_what_the_trials_train_on_what_and_with_which_loss() -> None:
    table = replace(classifier(), subject="mlp on digits, epochs=10", loss="cross-entropy")
    figures = study_figures(table, [FOUND], defaults=0)
    assert len(figures) == 5
    for figure in figures.values():
        assert " ".join(figure.get_suptitle().split()).startswith("mlp on digits, epochs=10: ")
        assert "(study digits-lr)" in " ".join(figure.get_suptitle().split())
    words = {axes.get_ylabel() for axes in figures["optimization_history"].axes}
    assert words == {"validation loss: cross-entropy\n(lower is better)"}  # as long as the axis is high
