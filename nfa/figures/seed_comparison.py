"""Groups of runs that differ only in their seed: relations × layers, mean and interval, one colour for each group."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nfa.figures.alignment_relations import limits
from nfa.figures.run_comparison import colours
from nfa.figures.style import add_legend, epoch_axis, grid, relation_label, site_label, style

Bands = Mapping[int, tuple[float, float, float]]  # epoch → mean, low, high


def seed_comparison(
    groups: Mapping[str, Mapping[str, Bands]],
    sites: Sequence[str],
    relations: Sequence[str],
    *,
    title: str = "",
    boundary: int | None = None,
) -> Figure:
    """A row for each relation, a column for each site; what is absent is not drawn."""
    drawn = [name for name in relations if any(group.get(f"{s}/{name}") for group in groups.values() for s in sites)]
    figure, places = grid(max(1, len(drawn)), max(1, len(sites)))
    with style():
        for row, name in enumerate(drawn):
            for column, site in enumerate(sites):
                place = places[row][column]
                for (label, group), colour in zip(groups.items(), colours(len(groups)), strict=True):
                    _bands(place, group.get(f"{site}/{name}", {}), label, colour)
                limits(place, name)
                epoch_axis(place, boundary, "epoch" if row == len(drawn) - 1 else "")
                place.set(title=site_label(site) if row == 0 else "")
                place.set(ylabel=relation_label(name) if column == 0 else "")
        add_legend(figure)
        figure.suptitle(title)
    return figure


def _bands(place: Axes, bands: Bands, label: str, colour: Any) -> None:
    epochs = sorted(bands)
    if not epochs:
        return
    mean, low, high = ([bands[epoch][index] for epoch in epochs] for index in range(3))
    place.plot(epochs, mean, label=label, color=colour, marker="o", markersize=3)
    place.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
