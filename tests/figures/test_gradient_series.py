"""Series of gradient directions and their differences: bands, axes, and nothing that is undefined."""

import io
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from nfa.figures.gradient_series import (
    COSINES,
    DASHED,
    LABELS,
    LIMITS,
    LOGARITHMIC,
    gradient_differences,
    gradient_series,
    noise_scale,
)

COSINE, NOISE = "gradient/mean_cosine", "gradient/noise_scale"
Series = dict[str, dict[int, float]]


def labelled(figure: Figure) -> dict[str, Axes]:
    """Panels by the label of each series in them."""
    panels = {" ".join(axes.get_title().split()): axes for axes in figure.axes if axes.get_title()}
    joint = {title: [LABELS[with_it], LABELS[key]] for key, (with_it, title) in DASHED.items()}
    return {label: axes for title, axes in panels.items() for label in joint.get(title, [title])}


def curve(axes: Axes) -> tuple[list[float], list[float]]:
    """The line with marks."""
    (line,) = (line for line in axes.get_lines() if line.get_marker() == "o" and line.get_linestyle() == "-")
    return list(line.get_xdata()), list(line.get_ydata())


def bands(axes: Axes) -> list[np.ndarray]:
    return [part.get_paths()[0].vertices for part in axes.collections if isinstance(part, PolyCollection)]


def saved(figure: Figure) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(file, format="png", dpi=40, metadata={"Software": None})
    return file.getvalue()


def series(epochs: tuple[int, ...] = (5, 10, 15), value: float = 0.5, error: float = 0.1) -> Series:
    found = {key: dict.fromkeys(epochs, value) for key in LABELS}
    found |= {f"{key}_se": dict.fromkeys(epochs, error) for key in LABELS}
    return found | {"nfa/seconds": dict.fromkeys(epochs, 1.0)}


def test_every_series_has_a_panel_and_a_band_of_two_errors_and_what_no_run_has_has_none() -> None:
    values = series()
    del values["gradient/silhouette"], values[f"{COSINE}_se"]
    panels = labelled(gradient_series({"": values}, title="a run"))
    assert set(panels) == {label for key, label in LABELS.items() if key != "gradient/silhouette"}
    assert bands(panels[LABELS[COSINE]]) == []
    (band,) = bands(panels[LABELS[NOISE]])
    assert {round(float(y), 6) for y in band[:, 1]} == {0.3, 0.7}
    assert {round(float(x)) for x in band[:, 0]} == {5, 10, 15}


@pytest.mark.parametrize("runs", [1, 3])
def test_one_grey_band_is_two_deviations_around_the_chance_levels_of_all_runs(runs: int) -> None:
    values = series()
    values |= {f"{COSINE}_chance": {5: 0.1, 15: 0.2}, f"{COSINE}_chance_sd": {5: 0.01, 15: 0.02}}
    figure = gradient_series({str(number): values for number in range(runs)})
    panels = labelled(figure)
    grey = [part for part in panels[LABELS[COSINE]].collections if len(set(part.get_facecolor()[0][:3])) == 1]
    (band,) = grey
    corners = {(round(float(x)), round(float(y), 6)) for x, y in band.get_paths()[0].vertices}
    assert corners == {(5, 0.08), (5, 0.12), (15, 0.16), (15, 0.24)}
    assert band.get_linewidth()[0] > 0  # so that a narrow one is seen
    assert band.get_zorder() < min(line.get_zorder() for line in panels[LABELS[COSINE]].get_lines())
    assert len(bands(panels[LABELS[NOISE]])) == runs  # those of standard errors
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    texts = [text.get_text() for legend in legends for text in legend.get_texts()]
    assert texts.count("chance ± 2 standard deviations") == 1


def test_undefined_values_are_not_drawn_and_epochs_that_were_not_analysed_neither() -> None:
    values = series()
    del values[NOISE][10]
    values["train/loss"] |= {0: 3.0, 11: 2.0}
    panels = labelled(gradient_series({"": values}))
    assert curve(panels[LABELS[NOISE]]) == ([5, 15], [0.5, 0.5])
    assert curve(panels["train loss"])[0] == [5, 10, 15]
    assert panels[LABELS[NOISE]].get_xlim() == panels[LABELS[COSINE]].get_xlim()
    drawn = noise_scale(values, title="a run")
    assert curve(labelled(drawn)[LABELS[NOISE]]) == ([5, 15], [0.5, 0.5])
    assert not [line for axes in noise_scale({}, title="").axes for line in axes.get_lines()]
    assert saved(noise_scale({}, title=""))


@pytest.mark.parametrize("smallest", [0.01, 0.0, -1e-9])
def test_an_axis_is_logarithmic_only_where_every_value_of_every_run_is_positive(smallest: float) -> None:
    one, other = series(), series()
    for key in LOGARITHMIC:
        other[key][10] = smallest
    panels = labelled(gradient_series({"a": one, "b": other}))
    for key, label in LABELS.items():
        scale = panels[label].get_yscale()
        assert scale == ("log" if key in LOGARITHMIC and smallest > 0 else "linear"), key


def test_several_runs_have_a_line_and_a_colour_each() -> None:
    figure = gradient_series({"sgd": series(), "adam": series(value=0.7)})
    lines = labelled(figure)[LABELS[COSINE]].get_lines()
    assert [line.get_label() for line in lines] == ["sgd", "adam"]
    assert len({str(line.get_color()) for line in lines}) == 2


def test_differences_have_a_line_at_zero_and_their_interval_and_undefined_ones_have_no_panel() -> None:
    given = {COSINE: {10: (0.1, -0.05, 0.3), 5: (-0.2, -0.3, -0.1)}, NOISE: {}}
    figure = gradient_differences(given, title="b − a")
    panels = labelled(figure)
    assert set(panels) == {LABELS[COSINE]}
    axes = panels[LABELS[COSINE]]
    assert curve(axes) == ([5, 10], [-0.2, 0.1])
    assert [list(line.get_ydata()) for line in axes.get_lines() if line.get_marker() != "o"] == [[0, 0]]
    (band,) = bands(axes)
    assert {(round(float(x)), round(float(y), 6)) for x, y in band} == {(5, -0.3), (5, -0.1), (10, -0.05), (10, 0.3)}
    assert axes.get_yscale() == "linear"
    assert figure.get_suptitle() == "b − a"
    assert saved(gradient_differences({}, title=""))


def test_the_interval_of_a_single_epoch_is_seen() -> None:
    """An area without a width needs a line."""
    one = labelled(gradient_differences({COSINE: {5: (0.1, -0.1, 0.2)}}, title=""))[LABELS[COSINE]]
    other = labelled(gradient_series({"": series((5,))}))[LABELS[COSINE]]
    for axes in (one, other):
        (area,) = (part for part in axes.collections if isinstance(part, PolyCollection))
        assert area.get_linewidth()[0] > 0
        assert area.get_edgecolor()[0][3] > 0
        assert len(curve(axes)[0]) == 1


def test_figures_are_the_same_file_for_the_same_numbers_and_leave_matplotlib_s_settings_alone() -> None:
    before = dict(matplotlib.rcParams)
    for draw in (
        lambda: noise_scale(series(), title="a run"),
        lambda: gradient_differences({COSINE: {5: (0.1, -0.1, 0.2), 10: (0.1, -0.1, 0.2)}}, title=""),
    ):
        assert saved(draw()) == saved(draw())
    assert dict(matplotlib.rcParams) == before


def notes(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text() for text in figure.texts).split())


def test_all_series_have_at_most_12_panels_the_second_auc_and_the_validation_loss_dashed() -> None:
    figure = gradient_series({"a": series(), "b": series()}, [key for key in LABELS if key != "eval/loss"])
    assert len([axes for axes in figure.axes if axes.get_title()]) == 12
    for key, (together, _) in DASHED.items():
        axes = labelled(figure)[LABELS[key]]
        assert axes is labelled(figure)[LABELS[together]]
        assert [line.get_linestyle() for line in axes.get_lines()] == ["-", "-", "--", "--"]


def test_bands_and_axes_end_where_the_quantity_does() -> None:
    values = series(value=1.0, error=5.0)
    panels = labelled(gradient_series({"": values}))
    for key, (low, high) in LIMITS.items():
        ends = np.array(panels[LABELS[key]].get_ylim()), bands(panels[LABELS[key]])[0][:, 1]
        for reached in ends:
            assert reached.min() >= low, key
            assert high is None or reached.max() <= high, key


def test_cosines_have_one_scale_in_all_panels() -> None:
    values = series()
    values["gradient/between_class_cosine"] = {5: -0.4, 10: 0.0}
    panels = labelled(gradient_series({"": values}))
    assert len({panels[LABELS[key]].get_ylim() for key in COSINES}) == 1
    given = {COSINES[0]: {5: (0.1, 0.0, 0.2)}, COSINES[1]: {5: (0.5, 0.4, 0.6)}}
    assert len({axes.get_ylim() for axes in labelled(gradient_differences(given, title="")).values()}) == 1


def test_words_below_say_what_abbreviations_mean_and_where_there_is_no_noise_scale() -> None:
    values = series()
    del values[NOISE][10]
    figure = gradient_series({"": values}, loss="cross-entropy")
    where = "No noise scale where the estimate of |G|² is not positive: epoch 10"
    for words in ("AUC: area under", "Σ: covariance", where):
        assert words in notes(figure)
    assert labelled(figure)["train loss"].get_ylabel() == "cross-entropy"
    (empty,) = gradient_series({"": {}}).axes
    assert "no value is defined" in " ".join(" ".join(text.get_text() for text in empty.texts).split())


def test_figures_say_why_the_first_checkpoint_has_no_correlation_with_the_previous() -> None:
    following, said = "gradient/correlation_with_previous", "No correlation with the previous checkpoint at epoch 5"
    given = series() | {following: {10: 0.5, 15: 0.5}, "train/loss": {0: 1.0, 5: 0.5}}
    differences = {following: {10: (0.1, -0.1, 0.2)}, COSINE: {5: (0.1, -0.1, 0.2), 10: (0.1, -0.1, 0.2)}}
    for figure in (
        gradient_series({"": given}),
        gradient_series({"a": given, "b": given}),
        gradient_differences(differences, title=""),
    ):
        assert f"{said}: it is the first." in " ".join(text.get_text() for text in figure.texts)
    for figure in (gradient_series({"": series()}), gradient_series({"": given}, [COSINE])):
        assert said not in " ".join(text.get_text() for text in figure.texts)
