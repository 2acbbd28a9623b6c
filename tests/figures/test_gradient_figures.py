"""Matrices and maps of gradient directions: fixed scales, the right rows and marks, no map where there is none."""

import dataclasses
import io
import warnings
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from nfa.figures.gradient_pictures import (
    DrawnDirections,
    gradient_map,
    gradient_montage,
    gradient_similarities,
    map_reach,
    montage_pages,
)

SIZES = (5, 2, 9)  # of classes


def made(sizes: tuple[int, ...] | None = SIZES, *, n: int = 16, spread: float = 1.0, seed: int = 0) -> DrawnDirections:
    """Random directions, by class; without `sizes` those of `n` batches."""
    random = np.random.default_rng(seed)
    classes = None if sizes is None else np.repeat(np.arange(len(sizes)), sizes)
    n = n if classes is None else len(classes)
    rows = random.normal(size=(n, 6))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines, positions = (rows @ rows.T).astype(np.float32), (spread * random.normal(size=(n, 2))).astype(np.float32)
    norms, losses = np.exp(random.normal(size=(2, n)))
    what = "examples" if sizes else "batches of 8"
    return DrawnDirections(cosines, positions, norms, losses, classes, np.arange(n) % 4 == 0 if sizes else None, what)


def without_map(shown: DrawnDirections) -> DrawnDirections:
    return dataclasses.replace(shown, positions=np.zeros((0, 2), dtype=np.float32))


def matrices(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.images]


def marks(figure: Figure) -> list[list[PathCollection]]:
    """Of each map, examples and then rings."""
    found = [[part for part in axes.collections if isinstance(part, PathCollection)] for axes in figure.axes]
    return [parts for parts in found if parts]


def saved(figure: Figure, dpi: int = 40) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()


# ---- matrices


@pytest.mark.parametrize("largest", [0.01, 1.0])
def test_colours_of_every_matrix_reach_from_minus_1_to_1_whatever_it_holds(largest: float) -> None:
    shown = dataclasses.replace(made(), cosines=largest * made().cosines)
    one, many = gradient_similarities(shown, title=""), gradient_montage({"": {5: shown, 10: made(seed=1)}}, title="")
    for axes in (*matrices(one), *matrices(many)):
        (image,) = axes.images
        assert image.get_clim() == (-1, 1)
        assert image.cmap(image.norm(-1.0))[2] > image.cmap(image.norm(-1.0))[0]  # blue
        assert image.cmap(image.norm(1.0))[0] > image.cmap(image.norm(1.0))[2]  # red
    for figure in (one, many):
        (bar,) = (axes for axes in figure.axes if axes.get_ylabel() == "cosine of gradients")
        assert bar.get_ylim() == (-1, 1)


def test_the_colours_of_a_matrix_are_those_of_its_cosines_and_no_mixtures() -> None:
    signs = np.where(np.random.default_rng(0).random((64, 64)) < 0.5, -1, 1).astype(np.float32)
    shown = dataclasses.replace(made(None, n=64), cosines=signs)
    figure = gradient_similarities(shown, title="")
    (axes,) = matrices(figure)
    figure.draw_without_rendering()
    pixels = np.asarray(Image.open(io.BytesIO(saved(figure, dpi=200))).convert("RGB"))
    place = axes.get_window_extent().padded(-4)
    inner = pixels[
        int(len(pixels) - place.y1 * 2) : int(len(pixels) - place.y0 * 2), int(place.x0 * 2) : int(place.x1 * 2)
    ]
    assert len(np.unique(inner.reshape(-1, 3), axis=0)) == 2


def test_lines_lie_between_the_classes_and_names_beside_their_rows() -> None:
    figure = gradient_similarities(made(), title="a run, epoch 5")
    (axes,) = matrices(figure)
    across, down = [[-0.5, 4.5], [15.5, 4.5]], [[-0.5, 6.5], [15.5, 6.5]]
    (lines,) = axes.collections
    found = [line.tolist() for line in lines.get_segments()]
    assert found == [across, down, *([point[::-1] for point in line] for line in (across, down))]
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 15.5), (15.5, -0.5))
    assert list(axes.get_yticks()) == [2.0, 5.5, 11.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1", "2"]
    assert (figure.get_suptitle(), axes.get_ylabel()) == ("a run, epoch 5", "class")
    assert axes.get_xlabel() == "examples by class, then by mean loss"
    np.testing.assert_array_equal(axes.images[0].get_array(), made().cosines)


def test_what_has_no_classes_has_no_lines_and_is_called_what_it_is() -> None:
    (axes,) = matrices(gradient_similarities(made(None), title="a run"))
    assert not axes.collections
    assert (axes.get_xlabel(), axes.get_ylabel(), list(axes.get_yticks())) == ("batches of 8", "batches of 8", [])


@pytest.mark.parametrize("classes", [20, 60])
def test_many_classes_have_lines_and_as_many_names_as_there_is_room_for(classes: int) -> None:
    (axes,) = matrices(gradient_similarities(made((2,) * classes), title=""))
    assert len(axes.collections[0].get_segments()) == 2 * (classes - 1)
    assert len(axes.get_yticks()) == (20 if classes == 20 else 0)


# ---- maps


def test_a_mark_lies_where_its_example_is_in_the_colour_of_its_class_and_grows_with_the_norm() -> None:
    shown = made()
    figure = gradient_map(shown, title="a run", reach=5.0)
    drawn, _ = marks(figure)[0]
    np.testing.assert_array_equal(drawn.get_offsets(), shown.positions)
    order = np.argsort(shown.norms)
    sizes = drawn.get_sizes()[order]
    assert (np.diff(sizes) >= 0).all()
    assert (np.diff(sizes)[:-2] > 0).all()  # the largest are drawn alike
    assert sizes[0] > 0
    legend = {text.get_text(): handle for text, handle in zip(*legend_parts(figure), strict=True)}
    assert list(legend) == ["0", "1", "2", "wrong label"]
    for colour, label in zip(drawn.get_facecolors(), shown.classes, strict=True):
        assert to_rgba(legend[str(label)].get_color())[:3] == tuple(colour[:3])
    assert len({tuple(colour) for colour in drawn.get_facecolors()}) == 3


def legend_parts(figure: Figure) -> tuple[list, list]:
    (legend,) = figure.legends
    return legend.get_texts(), legend.legend_handles


def test_rings_are_around_wrong_labels_and_around_nothing_else() -> None:
    shown = made()
    drawn, rings = marks(gradient_map(shown, title="", reach=5.0))[0]
    np.testing.assert_array_equal(rings.get_offsets(), shown.positions[shown.noisy])
    assert (rings.get_sizes() > drawn.get_sizes()[shown.noisy]).all()
    assert not len(rings.get_facecolors())
    for noisy in (None, np.zeros(16, dtype=bool)):
        figure = gradient_map(dataclasses.replace(shown, noisy=noisy), title="", reach=5.0)
        assert len(marks(figure)[0]) == 1
        assert [text.get_text() for text in legend_parts(figure)[0]] == ["0", "1", "2"]


def test_a_class_has_one_colour_in_every_picture_and_no_two_classes_have_the_same() -> None:
    whole = marks(gradient_map(made((3, 3, 3)), title="", reach=5.0))[0][0].get_facecolors()
    part = dataclasses.replace(made((3, 3)), classes=np.array([1, 1, 1, 2, 2, 2]))
    assert np.array_equal(marks(gradient_map(part, title="", reach=5.0))[0][0].get_facecolors(), whole[3:])
    far = dataclasses.replace(part, classes=np.array([3, 3, 3, 13, 13, 13]))
    figure = gradient_map(far, title="", reach=5.0)
    figure.draw_without_rendering()
    assert len({tuple(colour) for colour in marks(figure)[0][0].get_facecolors()}) == 2


@pytest.mark.parametrize(("sizes", "label"), [((2,) * 20, "class"), (None, "loss")])
def test_many_classes_and_none_have_a_scale_of_colours_instead_of_a_legend(sizes, label: str) -> None:
    shown = made(sizes)
    figure = gradient_map(shown, title="", reach=5.0)
    rings = ["wrong label"] if shown.noisy is not None else []
    assert [text.get_text() for legend in figure.legends for text in legend.get_texts()] == rings
    assert [axes.get_ylabel() for axes in figure.axes] == ["t-SNE 2", label]
    page = gradient_montage({"": {5: shown}}, title="")
    assert f"colour: {label} (" in " ".join(" ".join(text.get_text() for text in page.texts).split())
    np.testing.assert_array_equal(marks(figure)[0][0].get_array(), shown.losses if sizes is None else shown.classes)


def test_all_maps_of_a_run_have_one_scale_that_holds_them_all() -> None:
    run = {5: made(spread=0.1), 10: made(spread=20.0, seed=1), 15: without_map(made())}
    reach = map_reach(run.values())
    assert reach >= max(float(np.abs(one.positions).max()) for one in run.values() if len(one.positions))
    in_one_place = dataclasses.replace(made(), positions=np.zeros((16, 2)))
    assert map_reach([run[15]]) == map_reach([]) > 0
    assert map_reach([in_one_place]) > 0
    montage = gradient_montage({"": run}, title="")
    singles = [gradient_map(one, title="", reach=reach) for one in run.values()]
    maps = [axes for figure in (montage, *singles) for axes in figure.axes if axes.get_aspect() == 1]
    maps = [axes for axes in maps if not axes.images]
    assert len(maps) == 6
    for axes in maps:
        assert axes.get_xlim() == axes.get_ylim() == (-reach, reach)
    assert len(marks(montage)) == 2


def test_there_is_no_map_of_too_few_and_the_picture_says_so() -> None:
    figure = gradient_map(without_map(made((1, 2))), title="", reach=1.0)
    assert not marks(figure)
    assert [text.get_text() for text in figure.axes[0].texts] == ["too few gradients\nhave a direction"]
    assert saved(gradient_montage({"": {5: without_map(made((1, 2)))}}, title=""))


# ---- many on a page


def test_the_legend_of_a_page_names_what_any_of_its_checkpoints_has() -> None:
    first = dataclasses.replace(made((5, 2)), noisy=None)
    figure = gradient_montage({"": {5: first, 10: made()}}, title="")
    assert [text.get_text() for text in legend_parts(figure)[0]] == ["0", "1", "2", "wrong label"]


@pytest.mark.parametrize(("count", "pages"), [(1, [1]), (12, [12]), (30, [12, 12, 6]), (60, [12] * 4), (0, [])])
def test_pages_have_at_most_12_checkpoints_and_together_all_or_48_from_the_first_to_the_last(
    count: int, pages: list[int]
) -> None:
    run = {5 * index: made(seed=index) for index in range(count)}
    found = montage_pages(run)
    assert [len(page) for page in found] == pages
    epochs = [epoch for page in found for epoch in page]
    assert epochs == sorted(set(epochs))
    assert {*epochs[:1], *epochs[-1:]} == ({0, 5 * (count - 1)} if count else set())


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (2, 2), (12, 12), (30, 12)])
def test_a_page_has_every_checkpoint_or_12_from_the_first_to_the_last(count: int, shown: int) -> None:
    run = {5 * index: made(seed=index) for index in range(count)}
    figure = gradient_montage({"": run}, title="a run")
    titles = [axes.get_title() for axes in matrices(figure)]
    epochs = [int(title.removeprefix("epoch ")) for title in titles]
    assert len(epochs) == shown
    assert epochs == sorted(set(epochs))
    assert {epochs[0], epochs[-1]} == {0, 5 * (count - 1)}
    assert len(marks(figure)) == shown
    for axes, epoch in zip(matrices(figure), epochs, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), run[epoch].cosines)
    assert figure.get_suptitle() == "a run"
    assert len(figure.legends) == 1


def test_runs_lie_below_one_another_each_with_its_name() -> None:
    runs = {"sgd, ": {5: made(), 10: made()}, "adam, ": {5: made(None)}}
    figure = gradient_montage(runs, title="", most=6)
    assert [axes.get_title() for axes in matrices(figure)] == ["sgd, epoch 5", "sgd, epoch 10", "adam, epoch 5"]
    tops = [axes.get_position().y1 for axes in matrices(figure)]
    assert tops[0] == tops[1] > tops[2]
    assert saved(figure)


def test_long_names_above_matrices_do_not_run_into_one_another() -> None:
    runs = {f"optimizer=adam, lr={index}.001, momentum=0.9, ": {5: made(), 10: made(), 15: made()} for index in (1, 2)}
    figure = gradient_montage(runs, title="", most=3)
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in matrices(figure)]
    assert all(left.x1 <= right.x0 for left, right in pairwise(boxes) if left.y0 == right.y0)


def test_pictures_are_the_same_file_for_the_same_numbers_and_leave_matplotlib_s_settings_alone() -> None:
    before = dict(matplotlib.rcParams)
    for draw in (
        lambda: gradient_similarities(made((2,) * 20), title="a run"),
        lambda: gradient_map(made(), title="a run", reach=5.0),
        lambda: gradient_montage({"": {5: made(), 10: made(seed=1)}}, title="a run"),
    ):
        assert saved(draw()) == saved(draw())
    assert dict(matplotlib.rcParams) == before
