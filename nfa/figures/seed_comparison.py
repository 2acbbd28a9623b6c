"""Groups of runs that differ only in their seed: relations × layers, mean and interval, one colour for each group."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nfa.figures.relation_grid import relation_grid

Bands = Mapping[int, tuple[float, float, float]]  # epoch → mean, low, high


def seed_comparison(
    groups: Mapping[str, Mapping[str, Bands]],
    sites: Sequence[str],
    relations: Sequence[str],
    *,
    title: str = "",
    boundary: int | None = None,
    unit: str = "epoch",
) -> Figure:
    """A row for each relation, a column for each site; what is absent is not drawn."""
    return relation_grid(groups, sites, relations, _bands, title=title, boundary=boundary, unit=unit)


def _bands(place: Axes, label: str, group: Mapping[str, Bands], key: str, colour: Any) -> None:
    bands = group.get(key, {})
    epochs = sorted(bands)
    if not epochs:
        return
    mean, low, high = ([bands[epoch][index] for epoch in epochs] for index in range(3))
    place.plot(epochs, mean, label=label, color=colour, marker="o", markersize=3)
    place.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
