"""Any series through training: a panel for each key, and in it a line for each run or group of runs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nfa.figures.bands import within
from nfa.figures.gradient_series import LABELS, LOGARITHMIC
from nfa.figures.notes import abbreviations, add_notes, missing_in
from nfa.figures.relation_grid import Group, draw_groups, draw_seeds
from nfa.figures.style import DECADES, add_legend, add_title, epoch_axis, panels, plain_numbers, site_label, style
from nfa.figures.training_analysis import Series
from nfa.relations import RELATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RATE = "/learning_rate"  # how the key of a value that holds until the next step ends


def series_by_key(
    groups: Mapping[str, Group], keys: Sequence[str], *, title: str = "", unit: str = "epoch", loss: str = ""
) -> "Figure":
    """Draw the series of each key, with errors and levels; means over seeds have a band from <key>_lo to <key>_hi.

    A panel of a relation has the limits of that relation and is named after its site; panels of one relation have one
    scale, and so have those of losses. Losses and noise scales have a logarithmic axis; `loss` is the name of the loss.
    A learning rate holds until the next step. What is absent is said below the panels.
    """
    figure, places = panels(max(1, len(keys)), columns=min(4, max(2, len(keys))))  # the legend of one is beside it
    with style():
        for place, key in zip(places, keys, strict=False):
            site, _, relation = key.rpartition("/")
            known = RELATIONS.get(relation)
            draw_groups(place, groups, key, draw_seeds, known.limits if known else None)
            ylabel = known.label if known else loss if _is_loss(key) else ""
            place.set(title=site_label(site) if known else LABELS.get(key, key), ylabel=ylabel)
            epoch_axis(place, None, unit)
            if key.endswith(RATE):
                _hold(place)
        _scale(dict(zip(keys, places, strict=False)), groups)
        add_legend(figure)
        add_title(figure, title)
        add_notes(figure, _notes(groups, keys, unit))
    return figure


def _is_loss(key: str) -> bool:
    return key.endswith("/loss")


def _notes(groups: Mapping[str, Group], keys: Sequence[str], unit: str) -> list[str]:
    pairs = [key.rpartition("/")[::2] for key in keys if key.rpartition("/")[2] in RELATIONS]
    sites, relations = (list(dict.fromkeys(of)) for of in zip(*pairs, strict=True)) if pairs else ([], [])
    return [abbreviations(relations), *missing_in(groups, sites, relations, unit)]


def _scale(places: "Mapping[str, Axes]", groups: Mapping[str, Group]) -> None:
    """Give panels of one relation, and those of losses, one scale; positive losses and noise scales a logarithmic one.
    """
    same: dict[str, list[str]] = {}
    for key in places:
        relation = key.rpartition("/")[2]
        same.setdefault("loss" if _is_loss(key) else relation if relation in RELATIONS else key, []).append(key)
    for name, keys in same.items():
        panels_of = [places[key] for key in keys]
        if name in RELATIONS:
            within(panels_of, RELATIONS[name].limits)
        elif name == "loss" or name in LOGARITHMIC:
            _logarithmic(panels_of, [group.get(key, {}) for group in groups.values() for key in keys])


def _logarithmic(places: "Sequence[Axes]", series: Sequence[Series]) -> None:
    positive = all(value > 0 for of in series for value in of.values())
    for place in places:
        place.set_yscale("log" if positive else "linear")
    ends = [place.get_ylim() for place in places]
    for place in places:
        place.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
        low, high = place.get_ylim()
        if positive and high < DECADES * low:
            plain_numbers(place.yaxis)


def _hold(place: "Axes") -> None:
    """Draw values that hold until the next step as steps."""
    for line in place.get_lines():
        line.set_drawstyle("steps-post")
