"""Figures of a tuning study: its history, values during training, and parameter importances."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nfa.figures.bands import cut
from nfa.figures.style import add_legend, add_title, axis_label, panels, style
from nfa.registry.sweeps.axis_importance import Importance
from nfa.registry.sweeps.figures.study_rows import (
    DEFAULTS,
    DONE,
    called,
    done,
    row_of,
    titled,
    value_scale,
    wanted,
)
from nfa.registry.sweeps.study_table import StudyTable, TrialRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDED = {  # trials without a value, marked above the panel at their number
    "pruned": {"color": "0.55", "marker": "v", "markersize": 5},
    "failed": {"color": "tab:red", "marker": "x", "markersize": 5},
    "killed": {"color": "tab:purple", "marker": "s", "markersize": 4},
}
SHARES = (0.0, 1.0)
PALE, PRUNED, FAILED = "0.6", "#d3b98a", "tab:purple"


def optimization_history(
    table: StudyTable, so_far: Sequence[tuple[int, float]], *, objective: int = 0, defaults: int | None = None
) -> "Figure | None":
    """Draw the values of the finished trials by number and the best value so far; None without a finished trial.

    Trials without a value are marked above the panel; trials that break a constraint are hollow. `defaults` is the
    number of the trial with the default parameters.
    """
    from matplotlib.ticker import MaxNLocator

    rows = done(table)
    if not rows:
        return None
    figure, (axes,) = panels(1, columns=1, width=6.2, height=3.4)
    with style():
        for feasible, label in ((True, "finished"), (False, "breaks a constraint")):
            _dots(axes, [row for row in rows if row.feasible == feasible], objective, label, hollow=not feasible)
        if so_far:
            last = max(row.number for row in table.rows)
            numbers, values = zip(*so_far, (last, so_far[-1][1]), strict=True)
            axes.plot(numbers, values, color="tab:red", drawstyle="steps-post", label="best so far", zorder=1)
        value_scale(axes.yaxis, [row.values[objective] for row in rows])
        _without_value(axes, table)
        first = row_of(table, defaults)
        if first is not None:
            axes.plot([first.number], [first.values[objective]], label="defaults", **DEFAULTS)
        axes.set(xlabel="trial", ylabel=wanted(table, objective))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(" ", pad=8)  # room for the marks of trials without a value
        add_title(figure, titled(table, f"{len(rows)} of {len(table.rows)} trials finished"))
        add_legend(figure)
    return figure


def _dots(axes: "Axes", rows: Sequence[TrialRow], objective: int, label: str, *, hollow: bool) -> None:
    if rows:
        face = "none" if hollow else DONE["color"]
        numbers, values = [row.number for row in rows], [row.values[objective] for row in rows]
        axes.plot(numbers, values, linestyle="none", label=label, markerfacecolor=face, **DONE)


def _without_value(axes: "Axes", table: StudyTable) -> None:
    for state, look in ENDED.items():
        numbers = [row.number for row in table.rows if row.state == state]
        if numbers:
            at = axes.get_xaxis_transform()
            axes.plot(
                numbers, [1.03] * len(numbers), transform=at, clip_on=False, linestyle="none",
                label=f"{state} (no value)", **look,  # type: ignore[arg-type]
            )  # fmt: skip


def intermediate_values(table: StudyTable, best: TrialRow | None, *, unit: str = "epoch") -> "Figure | None":
    """Draw the first objective during each trial; pruned trials are pale and end in a cross. None without values."""
    from matplotlib.ticker import MaxNLocator

    rows = [row for row in table.rows if row.intermediate]
    if not rows:
        return None
    figure, (axes,) = panels(1, columns=1, width=6.2, height=3.4)
    with style():
        for row in rows:
            _course(axes, row, is_best=best is not None and row.number == best.number)
        for color, end, label in ((PALE, "", "finished"), (PRUNED, "x", "pruned at the cross"), (FAILED, "", "other")):
            states = {"finished": {"finished"}, "other": {"failed", "killed", "running"}}.get(label, {"pruned"})
            if any(row.state in states for row in rows):
                name = "failed, killed or running" if label == "other" else label
                axes.plot([], [], color=color, marker=end, linestyle=":" if label == "other" else "-", label=name)
        value_scale(axes.yaxis, [value for row in rows for value in row.intermediate.values()])
        axes.set(xlabel=axis_label(unit), ylabel=wanted(table))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        add_title(figure, titled(table, "the objective during each trial"))
        add_legend(figure)
    return figure


def _course(axes: "Axes", row: TrialRow, *, is_best: bool) -> None:
    steps = sorted(row.intermediate)
    values = [row.intermediate[step] for step in steps]
    if is_best:
        axes.plot(steps, values, color="tab:red", linewidth=2, zorder=4, label=f"best: trial {row.number}")
        return
    color = {"finished": PALE, "pruned": PRUNED}.get(row.state, FAILED)
    width, dashes = (1.5, ":") if color == FAILED else (1, "-")
    axes.plot(steps, values, color=color, linewidth=width, linestyle=dashes, zorder=2)
    if row.state == "pruned":
        axes.plot(steps[-1:], values[-1:], color=color, marker="x", markersize=6, zorder=3)
    elif len(steps) == 1:
        axes.plot(steps, values, color=color, marker=".", zorder=3)


def param_importances(table: StudyTable, importances: Sequence[Mapping[str, Importance]]) -> "Figure | None":
    """Draw a panel per objective: bars with 95 % intervals, and the 95th percentile under chance as a tick.

    Axes that did not matter beyond chance are pale. Estimates and intervals end at 0 and 1, as shares do. None if no
    objective has importances.
    """
    known = [(called(table, index), found) for index, found in enumerate(importances) if found]
    if not known:
        return None
    most = max(len(found) for _, found in known)
    figure, places = panels(len(known), columns=len(known), width=5.0, height=1.5 + 0.34 * most)
    with style():
        for axes, (name, found) in zip(places, known, strict=True):
            _bars(axes, found)
            axes.set(title=name, xlabel="share of its variance among finished trials", xlim=SHARES)
        handles = [
            places[0].barh([0], [0], color="tab:blue", label="mattered (p ≤ 0.05)"),
            places[0].barh([0], [0], color="0.85", label="not beyond chance"),
            *places[0].plot([], [], color="0.2", marker="o", markersize=3, label="estimate, 95 % interval over trials"),
            *places[0].plot([], [], color="tab:red", marker="|", markersize=11, markeredgewidth=2, linestyle="none",
                            label="95th percentile by chance"),
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside lower center", ncols=2 if len(known) == 1 else 4)
        add_title(figure, titled(table, "importance of the parameters"))
    return figure


def _bars(axes: "Axes", found: Mapping[str, Importance]) -> None:
    ordered = sorted(found.items(), key=lambda item: item[1].value, reverse=True)
    for place, (_, one) in enumerate(ordered):
        value, *ends = (cut(end, end, SHARES)[0] for end in (one.value, one.low, one.high))
        axes.barh(place, value, height=0.6, color="tab:blue" if one.mattered else "0.85", zorder=2)
        axes.plot(ends, [place, place], color="0.2", linewidth=1.2, zorder=3)
        axes.plot([value], [place], color="0.2", marker="o", markersize=3, zorder=3, clip_on=False)
        axes.plot([one.null], [place], color="tab:red", marker="|", markersize=15, markeredgewidth=2, zorder=4)
    axes.set_yticks(range(len(ordered)), [name for name, _ in ordered])
    axes.set_ylim(len(ordered) - 0.5, -0.5)
    axes.grid(False, axis="y")
