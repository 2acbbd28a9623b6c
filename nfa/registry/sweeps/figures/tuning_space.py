"""Figures of a tuning study: objectives over its parameters, and over each other."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nfa.figures.style import add_legend, add_title, panels, style
from nfa.registry.sweeps.axis_importance import Importance
from nfa.registry.sweeps.figures import study_rows
from nfa.registry.sweeps.figures.study_rows import BEST, DEFAULTS, DONE, done, row_of, titled, value_scale, wanted
from nfa.registry.sweeps.space import Axis, Choice, Range
from nfa.registry.sweeps.study_table import StudyTable, TrialRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.tri import Triangulation

FEWEST = 8  # trials for an interpolated surface
APART = 22  # pixels between two trial numbers
MOST_NUMBERS = 3  # of trials whose points overlap


def slices(
    table: StudyTable, best: TrialRow | None, *, objective: int = 0, defaults: int | None = None
) -> "Figure | None":
    """Draw a panel per axis: the objective of finished trials against the parameter, coloured by trial number.

    None without finished trials or axes.
    """
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    drawn = [(axis, rows) for axis in table.axes if (rows := [r for r in done(table) if axis.name in r.parameters])]
    if not drawn:
        return None
    columns = min(3, len(drawn))
    figure, areas = panels(len(drawn), columns=columns, width=max(3.0, 5.2 / columns), height=2.7)
    norm = Normalize(0, max(1, *(row.number for row in table.rows)))
    with style():
        for index, (area, (axis, rows)) in enumerate(zip(areas, drawn, strict=True)):
            dots = _slice(area, axis, rows, objective, norm)
            for row, label, look in ((row_of(table, defaults), "defaults", DEFAULTS), (best, "best", BEST)):
                if row is not None and axis.name in row.parameters:
                    at = float(study_rows.places(axis, [*rows, row])[-1])
                    area.plot([at], [row.values[objective]], label=label, **look)
            if index % columns == 0:
                area.set_ylabel(wanted(table, objective))
        bar = figure.colorbar(dots, ax=areas, label="trial number", pad=0.02, aspect=18 * len(areas) / columns)
        bar.locator = MaxNLocator(integer=True, nbins=5)
        bar.update_ticks()
        add_title(figure, titled(table, "objective by parameter (the other parameters vary too)"))
        add_legend(figure)
    return figure


def _slice(area: "Axes", axis: Axis, rows: Sequence[TrialRow], objective: int, norm: "Normalize") -> Any:
    x, y = study_rows.places(axis, rows), np.array([row.values[objective] for row in rows])
    inside = np.array([row.feasible for row in rows])
    colours = np.array([row.number for row in rows])[inside]
    dots = area.scatter(
        x[inside], y[inside], c=colours, norm=norm, cmap="viridis", s=22, edgecolors="0.3", linewidths=0.4, zorder=3
    )
    if not inside.all():
        look: dict[str, Any] = {"facecolors": "none", "edgecolors": "0.5", "linewidths": 0.9}
        area.scatter(x[~inside], y[~inside], s=22, label="breaks a constraint", **look)
    value_scale(area.yaxis, list(y))
    if isinstance(axis, Choice):
        area.set_xlim(-0.5, max(len(axis.values) - 0.5, x.max() + 0.5))
    study_rows.parameter_scale(area.xaxis, axis, rows)
    return dots


def contour(
    table: StudyTable, importances: Mapping[str, Importance], best: TrialRow | None, *, objective: int = 0
) -> "Figure | None":
    """Draw the objective over the two most important numeric axes, interpolated linearly between trials.

    None for fewer than two numeric axes or 8 finished trials, and if the trials lie on one line.
    """
    rows, chosen = _surface(table, importances)
    if len(chosen) < 2 or len(rows) < FEWEST:
        return None
    x, y = (study_rows.places(axis, rows) for axis in chosen)
    values = np.array([row.values[objective] for row in rows])
    triangles = _triangles(x, y)
    if triangles is None or np.ptp(values) == 0:
        return None
    figure, (area,) = panels(1, columns=1, width=5.4, height=4.0)
    with style():
        low, high = np.quantile(values, [0.0, 0.9] if not table.maximise[objective] else [0.1, 1.0])
        levels = np.linspace(low, high if high > low else values.max(), 11)
        cmap = "viridis_r" if not table.maximise[objective] else "viridis"
        surface = area.tricontourf(
            triangles, values, levels=levels, cmap=cmap, extend="min" if table.maximise[objective] else "max"
        )
        area.use_sticky_edges = False
        area.margins(0.04)
        area.plot(x, y, linestyle="none", marker="o", color="black", markersize=3.5, label="finished trial")
        if best is not None and all(axis.name in best.parameters for axis in chosen):
            at = [float(study_rows.places(axis, [best])[0]) for axis in chosen]
            area.plot(at[:1], at[1:], label=f"best: trial {best.number}", **BEST)
        study_rows.parameter_scale(area.xaxis, chosen[0], rows)
        study_rows.parameter_scale(area.yaxis, chosen[1], rows)
        figure.colorbar(surface, ax=area, label=wanted(table, objective), format="%.3g")
        add_title(figure, titled(table, "interpolated between trials"))
        area.grid(False)
        add_legend(figure)
    return figure


def _surface(table: StudyTable, importances: Mapping[str, Importance]) -> tuple[list[TrialRow], list[Range]]:
    """Return the two most important numeric axes (axes without importance last) and the trials that have both."""
    numeric = [axis for axis in table.axes if isinstance(axis, Range)]
    ranked = sorted(numeric, key=lambda axis: -importances[axis.name].value if axis.name in importances else np.inf)
    rows = [row for row in done(table) if all(axis.name in row.parameters for axis in ranked[:2])]
    return rows, ranked[:2]


def _triangles(x: np.ndarray, y: np.ndarray) -> "Triangulation | None":
    """Triangulate points scaled to the unit square, so that all axes count equally; None if they lie on a line."""
    from matplotlib.tri import Triangulation

    if min(np.ptp(x), np.ptp(y)) == 0:
        return None
    scaled = [(each - each.min()) / np.ptp(each) for each in (x, y)]
    if np.linalg.svd(np.stack([each - each.mean() for each in scaled]), compute_uv=False)[1] < 1e-6:
        return None
    return Triangulation(x, y, Triangulation(*scaled).triangles)


def pareto_front(table: StudyTable, front: Sequence[TrialRow], *, defaults: int | None = None) -> "Figure | None":
    """Draw finished trials over the first two objectives, with the front joined and numbered.

    None for a single objective, and without finished trials.

    Trials that break a constraint are hollow.
    """
    rows = done(table)
    if len(table.objectives) < 2 or not rows:
        return None
    figure, (area,) = panels(1, columns=1, width=6.0, height=4.2)
    with style():
        for feasible, label in ((True, "finished"), (False, "breaks a constraint")):
            some = [row for row in rows if row.feasible == feasible]
            if some:
                face = DONE["color"] if feasible else "none"
                area.plot(*_points(some), linestyle="none", alpha=0.6, markerfacecolor=face, label=label, **DONE)
        _front(area, table, front)
        first = row_of(table, defaults)
        if first is not None:
            area.plot(*_points([first]), label="defaults", **DEFAULTS)
        for scale, objective in ((area.xaxis, 0), (area.yaxis, 1)):
            value_scale(scale, [row.values[objective] for row in rows])
        area.set(xlabel=wanted(table, 0), ylabel=wanted(table, 1))
        add_title(figure, titled(table, "the Pareto front (no trial is better in both)"))
        _numbers(area, table, front)
        _better(area, table)
        add_legend(figure)
    return figure


def _points(rows: Sequence[TrialRow]) -> tuple[list[float], list[float]]:
    return [row.values[0] for row in rows], [row.values[1] for row in rows]


def _front(area: "Axes", table: StudyTable, front: Sequence[TrialRow]) -> None:
    if not front:
        return
    drawstyle = "steps-pre" if table.maximise[0] else "steps-post"
    label = "Pareto front" if len(front) > 1 else "best in both"
    area.plot(*_points(front), color="tab:red", marker="o", drawstyle=drawstyle, label=label, zorder=4)


def _numbers(area: "Axes", table: StudyTable, front: Sequence[TrialRow]) -> None:
    """Write the trials' numbers on the side without better trials; those of points that overlap stand together."""
    sides = [1 if more else -1 for more in table.maximise[:2]]
    area.autoscale_view()  # fixes the scale, so that distances are known
    for group in _overlapping(area, front):
        numbers = ", ".join(str(row.number) for row in group[:MOST_NUMBERS])
        more = f" and {len(group) - MOST_NUMBERS} more" if len(group) > MOST_NUMBERS else ""
        place = (group[0].values[0], group[0].values[1])
        area.annotate(
            numbers + more, place, xytext=(4 * sides[0], 4 * sides[1]), fontsize=8,
            textcoords="offset points", ha="left" if sides[0] > 0 else "right", va="bottom" if sides[1] > 0 else "top",
        )  # fmt: skip


def _overlapping(area: "Axes", front: Sequence[TrialRow]) -> list[list[TrialRow]]:
    """Return the trials in groups whose points are too close for a number each."""
    found: list[list[TrialRow]] = []
    last = np.full(2, -np.inf)
    for row in front:
        at = area.transData.transform((row.values[0], row.values[1]))
        if np.abs(at - last).max() > APART:
            found.append([])
            last = at
        found[-1].append(row)
    return found


def _better(area: "Axes", table: StudyTable) -> None:
    """Draw an arrow towards the corner in which both objectives are best."""
    x, y = (0.97 if more else 0.03 for more in table.maximise[:2])
    back = [0.09 if place < 0.5 else -0.09 for place in (x, y)]
    area.annotate(
        "better", (x, y), xytext=(x + back[0], y + back[1]), xycoords="axes fraction", textcoords="axes fraction",
        ha="left" if x < 0.5 else "right", va="bottom" if y < 0.5 else "top", color="0.4",
        arrowprops={"arrowstyle": "->", "color": "0.4"},
    )  # fmt: skip
