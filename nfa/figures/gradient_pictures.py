"""Cosine matrices and maps of gradients: one checkpoint, or many on a page."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nfa.figures.notes import add_notes
from nfa.figures.style import add_title, axis_label, by_rows, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

COLUMNS = 6  # checkpoints in a row of a page
ON_PAGE, ON_PAGES = 12, 48  # most checkpoints on a page, and on all pages of a run
FEW_CLASSES, NAMED_CLASSES = 10, 30
TITLE = 27  # letters in a line above a matrix of a page
NARROWEST = 4.6  # inches of a page, for its title and legend
SPELLED = "t-SNE: t-distributed stochastic neighbour embedding"
PIXELS = 720  # across the matrix of a single checkpoint
AREA = 42.0  # area of the largest mark, in points²


@dataclass(frozen=True)
class DrawnDirections:
    """Gradients that have a direction, by row: cosines [m, m], positions [m, 2] (empty: no map), norms and losses.

    `classes` is None where there are none; `noisy` marks wrong labels; `what` names the rows.
    """

    cosines: np.ndarray
    positions: np.ndarray
    norms: np.ndarray
    losses: np.ndarray
    classes: np.ndarray | None = None
    noisy: np.ndarray | None = None
    what: str = "examples"

    @classmethod
    def in_order(
        cls,
        arrays: Mapping[str, np.ndarray],
        order: np.ndarray,
        losses: np.ndarray,
        what: str,
        classes: np.ndarray | None = None,
        noisy: np.ndarray | None = None,
    ) -> "DrawnDirections":
        """Return the rows of a study's arrays in an order of all examples; losses, classes and noisy are those of all
        examples.
        """
        kept = arrays["kept"]
        rank = np.empty(len(order), dtype=int)
        rank[order] = np.arange(len(order))
        rows = np.argsort(rank[kept])
        places = kept[rows]
        return cls(
            arrays["cosines"][np.ix_(rows, rows)],
            arrays["map"][rows] if len(arrays["map"]) else arrays["map"],
            arrays["norms"][rows],
            losses[places],
            None if classes is None else classes[places],
            None if noisy is None else noisy[places],
            what,
        )


def gradient_similarities(shown: DrawnDirections, *, title: str) -> "Figure":
    """Draw cosines from −1 (blue) to 1 (red), rows by class and then from easy to difficult, with lines between
    classes.
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(5.2, 4.6), layout="compressed")
        axes = figure.subplots()
        image = _matrix(axes, shown)
        add_title(figure, title)
        rows = shown.what if shown.classes is None else f"{shown.what} by class, then by mean loss"
        axes.set(xlabel=rows, ylabel=_named(shown))
        figure.colorbar(image, ax=axes, label="cosine of gradients")
    return figure


def _named(shown: DrawnDirections) -> str:
    """Return what the rows of a matrix are called; many classes have no names beside them."""
    if shown.classes is None:
        return shown.what
    count = len(np.unique(shown.classes))
    return "class" if count <= NAMED_CLASSES else f"{count} classes in order"


def gradient_map(shown: DrawnDirections, *, title: str, reach: float) -> "Figure":
    """Draw t-SNE of the chord distances: colour = class (or loss), area = gradient norm, rings = wrong labels."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(5.6, 4.6), layout="compressed")
        axes = figure.subplots()
        marks = _map(axes, shown, reach, 1.0)
        add_title(figure, title)
        axes.set(xlabel="t-SNE 1 (mark area: gradient norm)\n" + SPELLED, ylabel="t-SNE 2")
        handles = _legend(shown)
        if handles:
            where: Any = "outside right center" if _few(shown) else "outside lower center"
            figure.legend(handles=handles, loc=where, title="class" if _few(shown) else None)
        if marks is not None and not _few(shown):
            figure.colorbar(marks, ax=axes, label="loss" if shown.classes is None else "class")
    return figure


def gradient_montage(
    runs: Mapping[str, Mapping[int, DrawnDirections]],
    *,
    title: str,
    most: int = ON_PAGE,
    unit: str = "epoch",
    reach: float | None = None,
) -> "Figure":
    """Draw checkpoints of every run on one page, at most `most` of each: a matrix with its map below, on common scales.

    `reach` is the largest coordinate of the maps; None = that of a run's maps on this page.
    """
    from matplotlib.figure import Figure

    with style():
        shown = {name: _some(of_run, most) for name, of_run in runs.items()}
        columns = min(COLUMNS, max(len(of_run) for of_run in shown.values()))
        rows = sum(2 * math.ceil(len(of_run) / columns) for of_run in shown.values())
        figure = Figure(figsize=(max(NARROWEST, 1.9 * columns + 0.8), 2.0 * rows + 0.5), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False)
        for place in places.flat:
            place.axis("off")
        image, top = None, 0
        for name, of_run in shown.items():
            end = map_reach(of_run.values()) if reach is None else reach
            for index, (epoch, directions) in enumerate(of_run.items()):
                row, column = top + 2 * (index // columns), index % columns
                image = _matrix(places[row, column], directions, labels=False)
                _map(places[row + 1, column], directions, end, 0.25)
                called = textwrap.fill(f"{name}{axis_label(unit)} {epoch}", TITLE)
                places[row, column].set_title(called, fontsize=8)
            top += 2 * math.ceil(len(of_run) / columns)
        if image is not None:
            figure.colorbar(image, ax=list(places.flat), label="cosine of gradients", shrink=0.5, aspect=40)
        if handles := max((_legend(one) for of_run in shown.values() for one in of_run.values()), key=len):
            wide = max(1, int(figure.get_size_inches()[0] / 0.75))
            beside = min(len(handles), wide)
            named = "class" if any(_few(one) for of_run in shown.values() for one in of_run.values()) else None
            figure.legend(handles=by_rows(handles, beside), loc="outside lower center", ncols=beside, title=named)
        add_title(figure, title)
        add_notes(figure, _explained([one for of_run in shown.values() for one in of_run.values()]))
    return figure


def _explained(shown: Sequence[DrawnDirections]) -> list[str]:
    """Return what the matrices and maps of a page are."""
    what = " and ".join(dict.fromkeys(one.what for one in shown))
    ordered = any(one.classes is not None for one in shown)
    colours = "class" if ordered else "loss (light: high)"
    if ordered and not all(map(_few, shown)):
        colours = "class (dark: the first)"
    return [
        f"Matrices: cosines between the gradients of {what}{', by class, then by mean loss' if ordered else ''}. "
        f"Maps: t-SNE of their directions; colour: {colours}, mark area: gradient norm.",
        SPELLED,
    ]


def montage_pages(of_run: Mapping[int, DrawnDirections]) -> list[dict[int, DrawnDirections]]:
    """Return the checkpoints of each page of a run: all of them, or if there are many, evenly spaced ones."""
    shown = [*_some(of_run, ON_PAGES).items()]
    return [dict(shown[start : start + ON_PAGE]) for start in range(0, len(shown), ON_PAGE)]


def map_reach(shown: Any) -> float:
    """Return the largest coordinate of all maps, so that they are drawn on one scale."""
    return 1.05 * max((float(np.abs(one.positions).max()) for one in shown if len(one.positions)), default=1.0) or 1.0


def _some(of_run: Mapping[int, DrawnDirections], most: int) -> dict[int, DrawnDirections]:
    """Return all checkpoints, or at most `most`, evenly spaced."""
    epochs = sorted(of_run)
    if len(epochs) > most:
        epochs = [epochs[round(index * (len(epochs) - 1) / (most - 1))] for index in range(most)]
    return {epoch: of_run[epoch] for epoch in epochs}


def _matrix(axes: "Axes", shown: DrawnDirections, *, labels: bool = True) -> Any:
    axes.axis("on")
    axes.grid(visible=False)
    # A mixture of red and blue is purple, the colour of no cosine. Only where several cosines share a pixel they mix.
    interpolation = "nearest" if labels and len(shown.cosines) <= PIXELS else "antialiased"
    image = axes.imshow(shown.cosines, cmap="RdBu_r", vmin=-1, vmax=1, interpolation=interpolation)
    axes.set(xticks=[], yticks=[])
    if shown.classes is None:
        return image
    edges = np.flatnonzero(np.diff(shown.classes)) + 1
    axes.add_collection(_lines_between(edges - 0.5, len(shown.classes)), autolim=False)
    if labels and len(edges) < NAMED_CLASSES:
        starts = np.concatenate([[0], edges, [len(shown.classes)]])
        names = [str(shown.classes[start]) for start in starts[:-1]]
        size = 9 if len(names) <= NAMED_CLASSES // 2 else 7
        axes.set_yticks((starts[:-1] + starts[1:] - 1) / 2, names, fontsize=size)
        axes.tick_params(length=0)
    return image


def _lines_between(edges: np.ndarray, size: int) -> "LineCollection":
    """Return lines across a matrix at these rows and columns, as one artist, however many there are."""
    from matplotlib.collections import LineCollection

    reach = (-0.5, size - 0.5)
    rows = [[(end, edge) for end in reach] for edge in edges]
    columns = [[(edge, end) for end in reach] for edge in edges]
    return LineCollection(rows + columns, colors="0.2", linewidths=0.4)


def _map(axes: "Axes", shown: DrawnDirections, reach: float, scale: float) -> Any:
    axes.axis("on")
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[], xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    if not len(shown.positions):
        axes.text(0, 0, "too few gradients\nhave a direction", ha="center", va="center", fontsize=8)
        return None
    top = float(np.percentile(shown.norms, 95)) or 1.0
    area = scale * (3 + AREA * np.clip(shown.norms / top, 0, 1))
    values = shown.losses if shown.classes is None else shown.classes
    colours: dict[str, Any] = {"c": [_colour(c) for c in values]} if _few(shown) else {"c": values, "cmap": "viridis"}
    x, y = shown.positions.T
    marks = axes.scatter(x, y, s=area, linewidths=0, alpha=0.8, **colours)
    if shown.noisy is not None and shown.noisy.any():
        ring, size = shown.noisy, 1.6 * area[shown.noisy] + 4 * scale
        axes.scatter(x[ring], y[ring], s=size, facecolors="none", edgecolors="k", linewidths=0.6)
    return marks


def _few(shown: DrawnDirections) -> bool:
    """Tell whether each class has a colour of its own, the same in every picture."""
    return shown.classes is not None and max(shown.classes, default=0) < FEW_CLASSES


def _colour(label: int) -> Any:
    from matplotlib import color_sequences

    return color_sequences["petroff10"][int(label)]  # ten colours that colour-blind people tell apart


def _legend(shown: DrawnDirections) -> "Sequence[Line2D]":
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 5}
    classes = [] if shown.classes is None or not _few(shown) else sorted(set(shown.classes.tolist()))
    handles = [Line2D([], [], color=_colour(c), label=str(c), **look) for c in classes]
    if shown.noisy is not None and shown.noisy.any():
        ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": "k"}
        handles.append(Line2D([], [], label="wrong label", **look, **ring))
    return handles
