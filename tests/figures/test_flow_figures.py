"""Figures of gradient flow: the values given and no others, and room for what they are called."""

import io
import warnings
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nfa.figures.flow import CURVES, MAPS, MOST_ROWS, flow_curves, flow_map, intervals
from nfa.figures.style import site_label
from nfa.registry.analyses.arms import Arm

EPOCHS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 300, 400, 500)
GROUPS = ["cnn", "se", "subject", "block_0", "block_1", "gate", "head"]
ROLES = {"front": "block_0", "back": "block_1", "output": "head"}
RATIO = "flow/front_output_ratio"
Series = dict[str, dict[int, float]]


def series(groups: list[str], epochs: tuple[int, ...] = EPOCHS, seed: int = 0) -> Series:
    random = np.random.default_rng(seed)
    keys = [*(f"flow/{group}/{name}" for group in groups for name in MAPS), *CURVES]
    return {key: {epoch: float(np.exp(random.standard_normal())) for epoch in epochs} for key in keys}


def saved(figure: Figure) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(file, format="png", dpi=40, metadata={"Software": None})
    return file.getvalue()


def titled(figure: Figure) -> dict[str, Axes]:
    return {" ".join(axes.get_title().split()): axes for axes in figure.axes if axes.get_title()}


def notes(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text() for text in figure.texts).split())


def assert_inside(figure: Figure) -> None:
    """All that is drawn lies in the picture."""
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(drawn.x0, drawn.y0, width - drawn.x1, height - drawn.y1) > -0.02, (drawn, width, height)


@pytest.mark.parametrize(("groups", "epochs"), [(GROUPS, EPOCHS), (GROUPS[:1], (0,)), (GROUPS, (3,))])
def test_maps_show_every_value_in_its_place(groups: list[str], epochs: tuple[int, ...]) -> None:
    given = series(groups, epochs)
    maps = titled(flow_map(given, groups, title="a run"))
    assert list(maps) == list(MAPS.values())
    for name, label in MAPS.items():
        (image,) = maps[label].get_images()
        expected = [[given[f"flow/{group}/{name}"][epoch] for epoch in epochs] for group in groups]
        np.testing.assert_array_equal(image.get_array(), expected)
        assert [tick.get_text() for tick in maps[label].get_yticklabels()] in (groups, [])
    assert "White" not in notes(flow_map(given, groups))
    ticks = [tick.get_text() for tick in maps[MAPS["grad_rms"]].get_xticklabels()]
    assert ticks == [str(epoch) for epoch in epochs[:: -(-len(epochs) // 8)]]


def test_what_is_undefined_or_was_not_measured_stays_white() -> None:
    given = series(GROUPS)
    del given["flow/se/grad_rms"], given["flow/head/grad_rms"][5]
    given["flow/gate/grad_rms"][0] = 0.0
    given = {key: of_key for key, of_key in given.items() if not key.endswith("weight_change")}
    maps = titled(flow_map(given, GROUPS))
    assert set(maps) == {MAPS["grad_rms"], MAPS["update_ratio"]}
    shown = np.ma.masked_invalid(maps[MAPS["grad_rms"]].get_images()[0].get_array())
    white = np.ma.getmaskarray(shown)
    assert white[1].all()
    assert white[6, 3]
    assert white[5, 0]
    assert white.sum() == len(EPOCHS) + 2
    assert not shown.min() <= 0
    assert "White: zero, undefined or not measured." in notes(flow_map(given, GROUPS))


def test_nothing_measured_draws_an_empty_figure() -> None:
    for empty, words in ((flow_map({}, GROUPS), "nothing is measured"), (flow_curves({"": {}}, ROLES), "no ratio")):
        assert words in " ".join(" ".join(text.get_text() for text in empty.axes[0].texts).split())
        assert saved(empty)
    zeros = {f"flow/{group}/grad_rms": {0: 0.0} for group in GROUPS}
    assert saved(flow_map(zeros, GROUPS))
    assert saved(flow_map({key: {0: 0.25} for key in zeros}, GROUPS))


@pytest.mark.parametrize("count", [MOST_ROWS, 100])
def test_many_groups_with_long_names_have_room(count: int) -> None:
    groups = [f"model.layers.{index}.attention.query" for index in range(count)]
    figure = flow_map(series(groups, (0, 1)), groups, title="a run")
    assert_inside(figure)
    labels = [tick.get_text() for tick in titled(figure)[MAPS["grad_rms"]].get_yticklabels()]
    assert labels == [site_label(group) for group in groups][:: -(-count // MOST_ROWS)]
    assert ("One in 3 of 100 parts is named." in notes(figure)) == (count == 100)
    boxes = [tick.get_window_extent() for tick in titled(figure)[MAPS["grad_rms"]].get_yticklabels()]
    assert all(upper.y0 >= lower.y1 - 2 for upper, lower in pairwise(boxes))


def test_curves_are_the_values_given_without_zeros_and_named_by_their_parts() -> None:
    given = series(GROUPS)
    given[RATIO][5] = 0.0
    del given["flow/grad_norm"][0], given["flow/back_output_ratio"]
    panels = titled(flow_curves({"": given}, ROLES))
    assert list(panels) == ["gradient ratio, block_0 / head", "update ratio, block_0 / head", "gradient norm"]
    for title, key in (("gradient ratio, block_0 / head", RATIO), ("gradient norm", "flow/grad_norm")):
        line = next(line for line in panels[title].get_lines() if line.get_marker() == "o")
        drawn = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
        assert drawn == {epoch: value for epoch, value in given[key].items() if value > 0}
        assert panels[title].get_yscale() == "log"
    assert next(iter(titled(flow_curves({"": given}, {})))) == "gradient ratio, front / output"


@pytest.mark.parametrize(("built_in", "places"), [(1.0, [0.1]), (2.0, [0.2]), (4.0, []), (None, [])])
def test_thresholds_that_are_in_sight_are_named_where_they_are_for_a_scaled_gradient(
    built_in: float | None, places: list[float]
) -> None:
    given = {RATIO: {0: 0.05, 1: 0.3}}
    (axes,) = titled(flow_curves({"": given}, ROLES, built_in=built_in)).values()
    lines = [line.get_ydata()[0] for line in axes.get_lines() if line.get_marker() != "o"]
    assert lines == places
    assert [text.get_text() for text in axes.texts] == ["weak\nbelow"] * len(places)
    figure = flow_curves({"": given}, ROLES, built_in=built_in)
    assert_inside(figure)


def test_ten_arms_with_long_labels_are_told_apart_and_fit() -> None:
    arms = {f"preset=custom, use_residual=True, gradient_scale={i}.0": series(GROUPS, seed=i) for i in range(10)}
    figure = flow_curves(arms, ROLES, title="geometric mean over seeds")
    lines = [line for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert [line.get_label() for line in lines] == list(arms)
    assert len({(str(line.get_color()), line.get_linestyle()) for line in lines}) == 10
    assert_inside(figure)


def test_a_single_epoch_has_whole_numbers_on_its_axis() -> None:
    figure = flow_curves({"": series(GROUPS, (7,))}, ROLES)
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_xlim()
    assert [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high] == [7]


@pytest.mark.parametrize("count", [1, 10])
def test_intervals_reach_from_low_to_high_and_their_words_fit(count: int) -> None:
    given = {f"preset=custom, use_residual=True, gradient_scale={i}.0": (0.1, 0.05 - i, 0.3) for i in range(count)}
    figure = intervals(
        given, xlabel="difference in Pearson's r from preset=v1 (95 % over recordings and seeds)", zero=True
    )
    (axes,) = figure.axes
    for row, (container, (mean, low, high)) in enumerate(zip(axes.containers, given.values(), strict=True)):
        point, _, (bar,) = container.lines
        assert (point.get_xdata()[0], point.get_ydata()[0]) == (mean, row)
        np.testing.assert_allclose(bar.get_segments()[0][:, 0], [low, high])
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(given)
    assert axes.get_ylim() == (count - 0.5, -0.5)
    assert [list(line.get_xdata()) for line in axes.get_lines() if line.get_linestyle() == "-"] == [[0, 0]]
    assert_inside(figure)


def test_intervals_end_where_the_quantity_does_and_say_what_they_are_of() -> None:
    figure = intervals({"v1": (0.9, 0.5, 1.2)}, xlabel="r", title="Conformer v1 on simulated EEG", limits=(-1, 1))
    (container,) = figure.axes[0].containers
    np.testing.assert_allclose(container.lines[2][0].get_segments()[0][:, 0], [0.5, 1.0])
    assert figure.get_suptitle() == "Conformer v1 on simulated EEG"


def test_all_panels_of_curves_have_the_same_epochs_even_if_updates_begin_later() -> None:
    given = series(GROUPS, (0, 1, 2, 3))
    del given["flow/front_output_update_ratio"][0]
    assert len({axes.get_xlim() for axes in titled(flow_curves({"": given}, ROLES)).values()}) == 1


def test_the_same_numbers_are_the_same_file_and_leave_matplotlib_alone() -> None:
    before = dict(matplotlib.rcParams)
    assert saved(flow_map(series(GROUPS), GROUPS)) == saved(flow_map(series(GROUPS), GROUPS))
    assert dict(matplotlib.rcParams) == before


def test_checkpoints_counted_in_steps_are_called_steps() -> None:
    maps = titled(flow_map(series(GROUPS), GROUPS, unit="step"))
    assert list(maps)[1] == "relative weight change since step 0"
    curves = titled(flow_curves({"": series(GROUPS)}, ROLES, unit="step"))
    assert {axes.get_xlabel() for axes in (*maps.values(), *curves.values())} == {"optimizer step"}


def test_values_of_optimizer_steps_that_are_absent_at_the_start_are_explained() -> None:
    given = series(GROUPS)
    later = ("update_ratio", "grad_norm")
    given = {key: {at: v for at, v in of.items() if at or not key.endswith(later)} for key, of in given.items()}
    words = "at epoch 0: no optimizer step has been taken yet."
    assert f"No update ratio and no gradient norm {words}" in notes(flow_curves({"": given}, ROLES))
    assert f"No update {words}" in notes(flow_map(given, GROUPS))
    assert words not in notes(flow_curves({"": series(GROUPS)}, ROLES))
    assert words not in notes(flow_map(series(GROUPS), GROUPS))
    without = {key: {at: value for at, value in of.items() if at} for key, of in given.items()}
    assert words not in notes(flow_curves({"": without}, ROLES))


def test_means_over_seeds_have_bands_with_a_name() -> None:
    runs = [{RATIO: {0: low, 1: 2 * low}} for low in (1.0, 2.0, 4.0)]
    arm = Arm("sgd", [1, 2, 3], runs, [{}, {}, {}])
    figure = flow_curves({"sgd": arm.averaged([RATIO])}, ROLES, band="95 % t-interval")
    (axes,) = (axes for axes in figure.axes if axes.axison)
    band = axes.collections[0].get_paths()[0].vertices
    reach = 4.3026527 * np.log(2) / np.sqrt(3)
    np.testing.assert_allclose(max(y for x, y in band if x == 0), 2 * np.exp(reach))
    np.testing.assert_allclose(min(y for x, y in band if x == 0), 2 * np.exp(-reach))
    assert "95 % t-interval" in [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    two = Arm("sgd", [1, 2], runs[:2], [{}, {}])
    assert set(two.averaged([RATIO])) == {RATIO}, "an interval of two says nothing"
