"""Any series through training: a panel for each key, and in it a line for each run or group of runs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nfa.figures.gradient_series import LABELS, LOGARITHMIC
from nfa.figures.relation_grid import Group, draw_groups, draw_seeds
from nfa.figures.style import LOSSES, add_legend, add_title, epoch_axis, panels, plain_numbers, site_label, style
from nfa.relations import RELATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def series_by_key(
    groups: Mapping[str, Group], keys: Sequence[str], *, title: str = "", unit: str = "epoch"
) -> "Figure":
    """Draw the series of each key, with errors and levels; means over seeds have a band from <key>_lo to <key>_hi.

    A panel of a relation has the limits of that relation and is named after its site. Losses and noise scales have a
    logarithmic axis.
    """
    figure, places = panels(max(1, len(keys)), columns=min(4, max(2, len(keys))))  # the legend of one is beside it
    with style():
        for place, key in zip(places, keys, strict=False):
            site, _, relation = key.rpartition("/")
            known = RELATIONS.get(relation)
            draw_groups(place, groups, key, draw_seeds, known.limits if known else None)
            place.set(title=site_label(site) if known else LABELS.get(key, key), ylabel=known.label if known else "")
            epoch_axis(place, None, unit)
            _scale(place, key, groups)
        add_legend(figure)
        add_title(figure, title)
    return figure


def _scale(place: "Axes", key: str, groups: Mapping[str, Group]) -> None:
    positive = all(value > 0 for group in groups.values() for value in group.get(key, {}).values())
    if (key in LOSSES or key.endswith("/loss") or key in LOGARITHMIC) and positive:
        place.set_yscale("log")
        plain_numbers(place.yaxis)
