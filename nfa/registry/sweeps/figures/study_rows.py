"""Helpers of the figures of a tuning study."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nfa.figures.key_labels import key_label
from nfa.figures.style import plain_numbers
from nfa.registry.sweeps.space import Axis, Choice
from nfa.registry.sweeps.study_table import StudyTable, TrialRow

if TYPE_CHECKING:
    from matplotlib.axis import XAxis, YAxis

    Scale = XAxis | YAxis

LABEL = 38  # letters in a line beside an axis
MUCH = 30  # a positive objective with a larger max/min ratio is drawn on a logarithmic axis
DONE: dict[str, Any] = {"color": "tab:blue", "marker": "o"}
MARK: dict[str, Any] = {"linestyle": "none", "zorder": 5}  # a mark on top of the others
BEST = MARK | {"color": "tab:red", "marker": "*", "markersize": 12, "markeredgecolor": "white"}
DEFAULTS = MARK | {"color": "none", "marker": "D", "markersize": 9, "markeredgecolor": "black", "markeredgewidth": 1.3}


def done(table: StudyTable) -> list[TrialRow]:
    """Return the trials with values, feasible or not, by number."""
    return sorted((row for row in table.rows if row.state == "finished"), key=lambda row: row.number)


def row_of(table: StudyTable, number: int | None) -> TrialRow | None:
    """Return the finished trial of that number."""
    return next((row for row in done(table) if row.number == number), None)


def wanted(table: StudyTable, objective: int = 0) -> str:
    """Return the axis label of an objective, with the better direction."""
    words = f"{called(table, objective)} ({'higher' if table.maximise[objective] else 'lower'} is better)"
    return words if len(words) <= LABEL else words.replace(" (", "\n(")


def called(table: StudyTable, objective: int) -> str:
    """Return an objective in words; a loss with its name."""
    key = table.objectives[objective]
    return key_label(key) + (f": {table.loss}" if table.loss and key.endswith("/loss") else "")


def titled(table: StudyTable, words: str) -> str:
    """Return the title of a figure: what the trials train on what, what is shown, and the study's name."""
    return f"{table.subject}: {words} (study {table.name})" if table.subject else f"{table.name}: {words}"


def value_scale(scale: "Scale", values: Sequence[float]) -> None:
    """Use a logarithmic axis with plain numbers if positive values span a large factor."""
    if values and min(values) > 0 and max(values) > MUCH * min(values):
        scale.axes.set(**{f"{scale.axis_name}scale": "log"})
        plain_numbers(scale)


def places(axis: Axis, rows: Sequence[TrialRow]) -> np.ndarray:
    """Return the coordinates of trials along a parameter: base-10 logarithms on log axes, indices for choices."""
    values = [row.parameters[axis.name] for row in rows]
    if isinstance(axis, Choice):
        return np.array([shown_choices(axis, rows).index(str(value)) for value in values], dtype=float)
    numbers = np.array(values, dtype=float)
    return np.log10(numbers) if axis.log else numbers


def shown_choices(axis: Choice, rows: Sequence[TrialRow]) -> list[str]:
    """Return the choices as text, in order, followed by other values that trials had."""
    return list(dict.fromkeys([*map(str, axis.values), *(str(row.parameters[axis.name]) for row in rows)]))


def parameter_scale(scale: "Scale", axis: Axis, rows: Sequence[TrialRow]) -> None:
    """Set the ticks and the label that belong to `places`."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    scale.set_label_text(axis.name)
    if isinstance(axis, Choice):
        names = shown_choices(axis, rows)
        scale.set_ticks(range(len(names)), [name if len(name) < 13 else f"{name[:11]}…" for name in names])
        if sum(map(len, names)) > 24 and scale.axis_name == "x":
            scale.set_tick_params(labelrotation=30)
        return
    if axis.log:
        low, high = scale.get_view_interval()
        wide = high - low > 2
        ticks = np.asarray(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)).tick_values(10**low, 10**high))
        ticks = ticks[(ticks >= 10**low) & (ticks <= 10**high)]
        scale.set_ticks(list(np.log10(ticks)), [f"{tick:g}" for tick in ticks])
        scale.set_label_text(f"{axis.name} (logarithmic)")
    else:
        scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    scale.set_minor_formatter(NullFormatter())
