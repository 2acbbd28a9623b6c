"""What a figure says in words below its panels, or inside an empty one."""

import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from nfa.figures.style import legend_height, site_label
from nfa.relations import RELATIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nfa.figures.training_analysis import Series

NOTE_SIZE, NOTE_LETTER, NOTE_LINE = 7.5, 0.056, 0.14  # points, inches, inches
KINDS = {
    "cosine": "cosine similarity",
    "exponent": "exponent",
    "overlap": "overlap of leading eigenvectors",
    "stable rank": "stable rank",
    "known share": "share",
}  # what the axis of a relation measures
FIRST = ", where W is still W⁽⁰⁾"
SPELLED = {
    "AGOP": "AGOP: average gradient outer product",
    "NFM": "NFM = M = WᵀW: neural feature matrix",
    "init removed": "init removed: W − W⁽⁰⁾ in place of W",
    "G": "G: second moment of gradients at the site's inputs",
    "H": "H: second moment of the inputs",
    "M": "M = WᵀW: neural feature matrix",
    "FACT": "FACT: mean of (g hᵀ + h gᵀ) / 2 of gradients g and inputs h",
    "G′": "G′, H′, M′: the same at the site's outputs",
}


def abbreviations(relations: Iterable[str]) -> str:
    """Return the meaning of the abbreviations in the labels of relations.

    >>> abbreviations(["h_vs_m"])
    'H: second moment of the inputs; M = WᵀW: neural feature matrix'
    """
    labels = " ".join(RELATIONS[name].label for name in relations)
    found = [word for word in SPELLED if re.search(rf"(?<!\w){word}(?!\w)", labels)]
    return "; ".join(SPELLED[word] for word in found if word != "M" or "NFM" not in found)


def add_notes(figure: "Figure", notes: Iterable[str]) -> None:
    """Add small lines below the panels and their legend; the figure grows by them. Empty notes are left out."""
    width, height = figure.get_size_inches()
    letters = max(30, int(width / NOTE_LETTER))
    lines = [line for note in notes for line in textwrap.wrap(note, letters)]
    if not lines:
        return
    room = NOTE_LINE * len(lines) + 0.1
    legends, grown = legend_height(figure), height + room
    figure.set_size_inches(width, grown)
    for legend in figure.legends:  # the layout makes room only for one at the edge, where the lines are
        legend.set_loc("lower center")
        legend.set_bbox_to_anchor((0.5, room / grown), transform=figure.transFigure)
    share = (room + legends) / grown
    figure.set_layout_engine("constrained", rect=(0, share, 1, 1 - share))
    words = "\n".join(lines)
    figure.text(0.5, 0.05 / grown, words, ha="center", va="bottom", fontsize=NOTE_SIZE, color="0.3")


def say_empty(place: "Axes", words: str) -> None:
    """Say in the middle of a panel why there is no curve in it."""
    lines = textwrap.fill(words, 28)
    place.text(0.5, 0.5, lines, transform=place.transAxes, ha="center", va="center", fontsize=8, color="0.4")


def missing(
    series: Mapping[str, "Series"], sites: Sequence[str], relations: Iterable[str], unit: str = "epoch"
) -> list[str]:
    """Return what is absent from curves of relations: undefined values, standard errors and levels of chance."""
    keys = {name: [f"{site}/{name}" for site in sites] for name in relations}
    steps = {step for of in keys.values() for key in of for step in series.get(key, {})}
    gaps = [words for name in keys if (words := _gaps(series, sites, name, steps, unit))]
    undefined = f"No value, undefined or not measured: {'; '.join(gaps)}" if gaps else ""
    beside = {"standard errors": "_se", "chance levels": "_chance"}
    without = [f"{word}{of}" for word, end in beside.items() if (of := _without(series, keys, end)) is not None]
    return [undefined, f"Without {'; without '.join(without)}" if without else ""]


def missing_in(
    groups: Mapping[str, Mapping[str, "Series"]], sites: Sequence[str], relations: Sequence[str], unit: str = "epoch"
) -> list[str]:
    """Return what is absent from several runs or groups; what only some of them lack is said with their names."""
    notes: dict[str, list[str]] = {}
    for label, series in groups.items():
        for note in filter(None, missing(series, sites, relations, unit)):
            notes.setdefault(note, []).append(label)
    some = {note: f"{_few(of)}: {note[0].lower()}{note[1:]}" for note, of in notes.items() if len(of) < len(groups)}
    return [some.get(note, note) for note in notes]


def _gaps(
    series: Mapping[str, "Series"], sites: Sequence[str], name: str, steps: Collection[int], unit: str
) -> str:
    """Return where a relation has no value, and why, as far as it is certain."""
    having = {site: set(series.get(f"{site}/{name}", ())) for site in sites}
    never = [site for site, of in having.items() if not of]
    label = RELATIONS[name].label
    if len(never) == len(sites):
        return label if steps else ""
    at = sorted(set(steps).difference(*having.values()))
    some = any(of < set(steps).difference(at) for of in having.values() if of)
    words = [f"in {_few([site_label(site) for site in never])}"] if never else []
    why = FIRST if at == [0] and "init_removed" in name else ""
    words += [f"at {unit} {_few(list(map(str, at)))}{why}"] if at else []
    words += ["at some steps of some sites"] if some else []
    return f"{label} {' and '.join(words)}" if words else ""


def _without(series: Mapping[str, "Series"], keys: Mapping[str, Sequence[str]], end: str) -> str | None:
    """Return which relations with values have nothing under this suffix, as " of …"; empty for all, None for none."""
    drawn = [name for name, of in keys.items() if any(series.get(key) for key in of)]
    lacking = [name for name in drawn if not any(series.get(f"{key}{end}") for key in keys[name])]
    if not lacking:
        return None
    return "" if lacking == drawn else f" of {_few([RELATIONS[name].label for name in lacking])}"


def _few(words: Sequence[str], most: int = 4) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
