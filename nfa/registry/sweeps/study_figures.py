"""All figures of a study."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nfa.registry.sweeps.axis_importance import Importance
from nfa.registry.sweeps.figures import tuning, tuning_space
from nfa.registry.sweeps.study_table import StudyTable, best, best_so_far
from nfa.registry.sweeps.study_table import pareto_front as front_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def study_figures(
    table: StudyTable,
    importances: Sequence[Mapping[str, Importance]],
    *,
    defaults: int | None = None,
    unit: str = "epoch",
) -> "dict[str, Figure]":
    """Return all figures by file name, without those that would be empty.

    `importances` has one mapping per objective, `defaults` is the number of the trial with the default parameters, and
    `unit` is the unit of steps (epoch or step). For several objectives the history, slices and contour are drawn for
    each, named …_1, …_2.
    """
    drawn: dict[str, Figure | None] = {
        "param_importances": tuning.param_importances(table, importances),
        "intermediate_values": tuning.intermediate_values(table, best(table), unit=unit),
        "pareto_front": tuning_space.pareto_front(table, front_of(table), defaults=defaults),
    }
    for index in range(len(table.objectives)):
        end = "" if len(table.objectives) == 1 else f"_{index + 1}"
        found, first = importances[index] if index < len(importances) else {}, best(table, index)
        drawn |= {
            f"optimization_history{end}": tuning.optimization_history(
                table, best_so_far(table, index), objective=index, defaults=defaults
            ),
            f"slices{end}": tuning_space.slices(table, first, objective=index, defaults=defaults),
            f"contour{end}": tuning_space.contour(table, found, first, objective=index),
        }
    return {name: figure for name, figure in drawn.items() if figure is not None}
