"""What is drawn around and below curves: their errors, the level of chance and that of shared weights."""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nfa.relations import Limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nfa.figures.training_analysis import Series

Curve = tuple[Mapping[str, "Series"], str, Any]  # series by key, the key of a curve, and its colour
Bands = dict[int, tuple[float, float]]  # step → the ends
MANY = 8  # curves; the dotted lines of more of them are thinner
CHANCE, SHARED, ERRORS = "chance ± 2 standard deviations", "shared-weights level", "± 2 standard errors"
OWN_CHANCE = "chance + 2 standard deviations"
TOGETHER = " (of all curves of a panel, from the lowest to the highest)"


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
    values, errors = _unbiased(series, key), series.get(f"{key}_se", {})
    steps = sorted(values)
    ends = {at: (values[at] - 2 * errors[at], values[at] + 2 * errors[at]) for at in steps if at in errors}
    bands = {at: cut(*ends[at], limits) for at in ends}
    for part in _parts(bands, steps):
        _fill(place, part, color=colour, alpha=0.2)


def chance_band(place: "Axes", curves: "Iterable[Curve]", limits: Limits | None, *, label: str = CHANCE) -> None:
    """Draw the levels of chance ± 2 SD under all curves of a panel.

    They are one grey band, from the lowest to the highest, which the legend says, if every curve lies above it exactly
    where it lies above its own level, and all levels have the same steps. Otherwise the upper end of each is dashed in
    the colour of its curve, so that a curve is never seen within the level of another. Levels without a standard
    deviation are lines, and one grey line if they are equal.
    """
    found = list(curves)
    spread = [(curve, of) for curve in found if (of := _levels(curve, limits))]
    hull = _hull([of for _, of in spread])
    if all(_agrees(curve, of, hull) for curve, of in spread):
        together = TOGETHER if any(of != hull for _, of in spread) else ""
        look: dict[str, Any] = {"color": "0.6", "alpha": 0.25, "zorder": 0.5, "edge": 1}  # a narrow one is seen too
        _fill(place, hull, label=f"{label}{together}", **look)
    else:
        tops = [({step: high for step, (_, high) in of.items()}, curve[2]) for curve, of in spread]
        _dashes(place, tops, label.replace(CHANCE, OWN_CHANCE))
    plain = [(series[f"{key}_chance"], colour) for series, key, colour in found if _is_plain(series, key)]
    if plain and all(levels == plain[0][0] for levels, _ in plain):
        _line(place, plain[0][0], color="0.5", linewidth=1, label="chance")
    else:
        _dashes(place, plain, "chance")


def _parts(bands: Bands, steps: Collection[int]) -> list[Bands]:
    """Return bands without gaps: a band that is absent at one of the `steps` is not drawn across it.

    >>> _parts({0: (0, 1), 1: (0, 1), 5: (0, 1)}, [0, 1, 3, 5])
    [{0: (0, 1), 1: (0, 1)}, {5: (0, 1)}]
    """
    parts: list[Bands] = [{}]
    for step in steps:
        if step in bands:
            parts[-1][step] = bands[step]
        elif parts[-1]:
            parts.append({})
    return [part for part in parts if part]


def _is_plain(series: "Mapping[str, Series]", key: str) -> bool:
    return bool(series.get(f"{key}_chance")) and not series.get(f"{key}_chance_sd")


def _unbiased(series: "Mapping[str, Series]", key: str) -> "Series":
    return {**series.get(key, {}), **series.get(f"{key}_unbiased", {})}


def _levels(curve: Curve, limits: Limits | None) -> Bands:
    """Return the ends of the level of chance ± 2 SD by step."""
    series, key, _ = curve
    levels, spreads = series.get(f"{key}_chance", {}), series.get(f"{key}_chance_sd", {})
    steps = sorted(levels.keys() & spreads.keys())
    return {at: cut(levels[at] - 2 * spreads[at], levels[at] + 2 * spreads[at], limits) for at in steps}


def _hull(several: Collection[Bands]) -> Bands:
    steps = sorted(set().union(*several))
    ends = {step: [of[step] for of in several if step in of] for step in steps}
    return {step: (min(low for low, _ in of), max(high for _, high in of)) for step, of in ends.items()}


def _agrees(curve: Curve, own: Bands, hull: Bands) -> bool:
    """Return whether a curve is above the common band where it is above its own, with the same steps."""
    series, key, _ = curve
    values = {step: value for step, value in _unbiased(series, key).items() if step in own}
    return own.keys() == hull.keys() and all((v > own[at][1]) == (v > hull[at][1]) for at, v in values.items())


def _dashes(place: "Axes", lines: "Collection[tuple[Series, Any]]", label: str) -> None:
    """Draw the level of each curve dashed in its colour."""
    look: dict[str, Any] = {"linestyle": (0, (5, 2)), "linewidth": 0.9}
    for levels, colour in lines:
        _line(place, levels, color=colour, **look)
    if lines:
        place.plot([], [], color="0.3", label=label, **look)


def _line(place: "Axes", levels: "Series", **look: Any) -> None:
    if levels:
        steps = sorted(levels)
        look |= {"marker": "_", "markersize": 9} if len(steps) == 1 else {}  # one point has no line
        place.plot(steps, [levels[step] for step in steps], **look)


def _fill(place: "Axes", bands: Bands, *, edge: float = 0, **look: Any) -> None:
    if bands:
        low, high = zip(*bands.values(), strict=True)
        place.fill_between([*bands], low, high, linewidth=edge if len(bands) > 1 else 2, **look)


def cut(low: float, high: float, limits: Limits | None) -> tuple[float, float]:
    """Return the ends of an interval, without what lies beyond the limits.

    >>> cut(-0.1, 0.3, (0, 1)), cut(0.5, 3.0, (1, None)), cut(-5.0, 5.0, None)
    ((0, 0.3), (1, 3.0), (-5.0, 5.0))
    """
    if limits is None:
        return low, high
    lowest, highest = limits
    low, high = max(low, lowest), max(high, lowest)
    return (low, high) if highest is None else (min(low, highest), min(high, highest))


def within(places: "Iterable[Axes]", limits: Limits | None) -> None:
    """Give panels of one quantity one scale, which ends where the quantity does; curves at its ends are drawn whole.

    It is called after everything is drawn, because an axis with limits grows no more.
    """
    panels = list(places)
    if limits is None or not panels:
        return
    low, high = limits
    top = max(place.get_ylim()[1] for place in panels) if high is None else high
    for place in panels:
        place.set_ylim(low, max(top, low + 0.1))
        for line in place.get_lines():
            line.set(clip_on=False)
