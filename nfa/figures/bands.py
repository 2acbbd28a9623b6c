"""What is drawn around and below curves: their errors, the level of chance and that of shared weights."""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nfa.relations import Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nfa.figures.training_analysis import Series

Curve = tuple[Mapping[str, "Series"], str, Any]  # series by key, the key of a curve, and its colour
MANY = 8  # curves; the dotted lines of more of them are thinner
CHANCE, SHARED, ERRORS = "chance ± 2 SD", "shared-weights level", "± 2 standard errors"


def beside_curves(place: "Axes", curves: "Collection[Curve]", limits: Limits | None) -> None:
    """Draw the errors of curves, and their shared-weights levels as dotted lines, and name both in the legend."""
    from matplotlib.patches import Rectangle

    thin: dict[str, Any] = {"linestyle": ":", "linewidth": 1 if len(curves) <= MANY else 0.6}
    for series, key, colour in curves:
        error_band(place, series, key, colour, limits)
        if f"{key}_se" in series:
            place.add_patch(Rectangle((0, 0), 0, 0, color="0.4", alpha=0.35, linewidth=0, label=ERRORS))
        if levels := series.get(f"{key}_shared"):
            _line(place, levels, color=colour, **thin)
            place.plot([], [], color="0.3", label=SHARED, **thin)


def error_band(
    place: "Axes", series: "Mapping[str, Series]", key: str, colour: Any, limits: Limits | None = None
) -> None:
    """Draw a band of two standard errors on each side of the unbiased value, or of the value where that is absent."""
    values, errors = {**series.get(key, {}), **series.get(f"{key}_unbiased", {})}, series.get(f"{key}_se", {})
    bands = {step: _cut(values[step], 2 * errors[step], limits) for step in sorted(values) if step in errors}
    _fill(place, bands, color=colour, alpha=0.2)


def chance_band(
    place: "Axes", curves: "Iterable[Curve]", limits: Limits | None, *, label: str = CHANCE
) -> None:
    """Draw one grey band under all curves of a panel, from the lowest to the highest chance level ± 2 SD.

    Levels without a standard deviation are grey lines.
    """
    bands: dict[int, list[tuple[float, float]]] = {}
    for series, key, _ in curves:
        levels, spreads = series.get(f"{key}_chance", {}), series.get(f"{key}_chance_sd", {})
        for step in levels.keys() & spreads.keys():
            bands.setdefault(step, []).append(_cut(levels[step], 2 * spreads[step], limits))
        if not spreads:
            _line(place, levels, color="0.5", linewidth=1, label="chance")
    hull = {step: (min(low for low, _ in of), max(high for _, high in of)) for step, of in sorted(bands.items())}
    _fill(place, hull, color="0.6", alpha=0.25, zorder=0.5, label=label, edge=1)  # a narrow one is seen too


def _line(place: "Axes", levels: "Series", **look: Any) -> None:
    if levels:
        steps = sorted(levels)
        look |= {"marker": "_", "markersize": 9} if len(steps) == 1 else {}  # one point has no line
        place.plot(steps, [levels[step] for step in steps], **look)


def _fill(place: "Axes", bands: Mapping[int, tuple[float, float]], *, edge: float = 0, **look: Any) -> None:
    if bands:
        low, high = zip(*bands.values(), strict=True)
        place.fill_between([*bands], low, high, linewidth=edge if len(bands) > 1 else 2, **look)


def _cut(middle: float, reach: float, limits: Limits | None) -> tuple[float, float]:
    """Return the ends of an interval, without what lies beyond the limits."""
    low, high = middle - reach, middle + reach
    if limits is None:
        return low, high
    lowest, highest = limits
    low, high = max(low, lowest), max(high, lowest)
    return (low, high) if highest is None else (min(low, highest), min(high, highest))
