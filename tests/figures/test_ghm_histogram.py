"""The picture of a training with GHM: bins by checkpoints, on logarithmic colours; what is empty stays white."""

import io
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from nfa.registry.families.mlp.figures.ghm_histogram import ghm_histogram

BINS, EPOCHS, EMPTY = 4, [0, 1, 2, 4, 20], 2
Series = dict[str, dict[int, float]]


def series(bins: int = BINS, epochs: list[int] = EPOCHS) -> Series:
    """Bin 2 is empty at epoch 4: a share of 0, and no weight."""
    found: Series = {"val/loss": dict.fromkeys(range(21), 1.0)}
    for index in range(bins):
        shares = {epoch: (index + 1) / 10 + epoch / 100 for epoch in epochs}
        weights = {epoch: 1 / share for epoch, share in shares.items()}
        if index == EMPTY and 4 in epochs:
            shares[4] = 0.0
            del weights[4]
        found |= {f"ghm/share_bin_{index}": shares, f"ghm/weight_bin_{index}": weights}
    return found


def titled(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title(): axes for axes in figure.axes if axes.get_title()}


def mesh(axes: Axes) -> QuadMesh:
    (found,) = (part for part in axes.collections if isinstance(part, QuadMesh))
    return found


def shown(axes: Axes) -> np.ma.MaskedArray:
    """Values, bins by checkpoints."""
    values: np.ma.MaskedArray = mesh(axes).get_array()
    return values.reshape(-1, len(axes.get_xticks())) if values.ndim == 1 else values


def saved(figure: Figure, **options: int) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None}, **options)
    return file.getvalue()


def test_shares_are_left_and_weights_right_with_a_row_a_bin_and_a_column_a_checkpoint() -> None:
    figure, values = ghm_histogram(series(), BINS, title="digits, sgd"), series()
    left, right = titled(figure).items()
    assert (left[0], right[0]) == ("share of the entries in each bin", "weight of each bin")
    for (_, axes), kind in ((left, "share"), (right, "weight")):
        expected = [[values[f"ghm/{kind}_bin_{j}"].get(epoch, 0.0) for epoch in EPOCHS] for j in range(BINS)]
        np.testing.assert_array_equal(shown(axes).filled(0.0), expected)
        assert axes.get_xlabel() == "checkpoint epoch"
        assert axes.get_ylabel() == "gradient norm g"
    assert left[1].get_position().x0 < right[1].get_position().x0
    assert figure.get_suptitle() == "digits, sgd"


def test_rows_are_equal_parts_of_0_to_1_from_below_and_columns_bear_their_epochs() -> None:
    for axes in titled(ghm_histogram(series(), BINS)).values():
        corners = mesh(axes).get_coordinates()
        np.testing.assert_allclose(corners[:, 0, 1], [0, 0.25, 0.5, 0.75, 1])
        assert [label.get_text() for label in axes.get_xticklabels()] == [str(epoch) for epoch in EPOCHS]
        for tick, left, right in zip(axes.get_xticks(), corners[0, :-1, 0], corners[0, 1:, 0], strict=True):
            assert tick == (left + right) / 2


def test_what_is_empty_stays_white_and_colours_are_logarithmic_over_what_there_is() -> None:
    for axes in titled(ghm_histogram(series(), BINS)).values():
        drawn, values = mesh(axes), shown(axes)
        assert [tuple(place) for place in np.argwhere(np.ma.getmaskarray(values))] == [(EMPTY, EPOCHS.index(4))]
        assert isinstance(drawn.norm, LogNorm)
        assert (drawn.norm.vmin, drawn.norm.vmax) == (values.min(), values.max())
        assert drawn.get_cmap()(np.ma.masked)[3] == 0


@pytest.mark.parametrize("bins", [1, 3])
def test_equal_values_are_drawn_too(bins: int) -> None:
    same = {f"ghm/{kind}_bin_{j}": {0: 1.0, 1: 1.0} for kind in ("share", "weight") for j in range(bins)}
    figure = ghm_histogram(same, bins)
    assert [shown(axes).shape for axes in titled(figure).values()] == [(bins, 2)] * 2
    assert saved(figure)


def test_a_bin_that_never_had_an_example_has_a_row() -> None:
    values = series()
    del values["ghm/weight_bin_1"]
    right = titled(ghm_histogram(values, BINS))["weight of each bin"]
    assert np.ma.getmaskarray(shown(right))[1].all()
    assert shown(right).shape == (BINS, len(EPOCHS))


def test_labels_of_many_checkpoints_and_bins_do_not_run_into_one_another() -> None:
    figure = ghm_histogram(series(30, list(range(61))), 30)
    saved(figure, dpi=50)
    for axes in titled(figure).values():
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        assert len(boxes) >= 5
        assert not any(one.overlaps(other) for one, other in pairwise(boxes))


def test_the_picture_is_the_same_file_for_the_same_numbers() -> None:
    assert saved(ghm_histogram(series(), BINS), dpi=50) == saved(ghm_histogram(series(), BINS), dpi=50)


def test_drawing_it_leaves_matplotlib_s_settings_alone() -> None:
    before = dict(matplotlib.rcParams)
    ghm_histogram(series(), BINS)
    assert dict(matplotlib.rcParams) == before


def test_words_say_what_the_mechanism_is_and_why_there_are_no_cells() -> None:
    figure = ghm_histogram({}, BINS)
    below = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    assert "GHM: gradient harmonising mechanism" in below
    assert "White: no entry in the bin" in below
    assert all("no bin has a value" in " ".join(axes.texts[0].get_text().split()) for axes in figure.axes)
