"""Series as a page holds them: few enough points, as base64, and means over the runs of a group."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nfa.figures.training_analysis import Series
from nfa.levels import LEVELS, SUFFIXES
from nfa.maths.statistics import Interval
from nfa.registry.analyses.seed_groups import together
from nfa.registry.report.page_data import Curve, Numbers
from nfa.registry.report.reported import exists
from nfa.registry.training.over_seeds import FEWEST

if TYPE_CHECKING:
    from numpy.typing import NDArray

BESIDE: dict[str, Any] = {end: end.removeprefix("_") for end in SUFFIXES}  # the names in a curve
MOST_VALUES = 1_600_000  # of all curves of a page together
ROUNDING = 1e-5  # a cosine in float32 may be as much above 1
FEWEST_POINTS, MOST_POINTS = 20, 2000  # of a curve


Limits = Sequence[float | None]  # the least and the greatest possible value


class Steps:
    """The lists of steps of a page, each once."""

    def __init__(self) -> None:
        self.lists: list[list[int]] = []
        self._places: dict[tuple[int, ...], int] = {}

    def place(self, steps: Sequence[int]) -> int:
        """Return the place of a list of steps, which is added if it is new."""
        key = tuple(steps)
        if key not in self._places:
            self._places[key] = len(self.lists)
            self.lists.append(list(key))
        return self._places[key]


def encoded(values: Iterable[float | None]) -> Numbers:
    """Return numbers as a page holds them; None becomes NaN. Whole numbers stay what they are.

    >>> encoded([1.0, None]), encoded([16777217])
    ('AACAPwAAwH8=', '8:AAAAEAAAcEE=')
    """
    array = np.array([np.nan if value is None else value for value in values], dtype="<f8")
    single = array.astype("<f4")
    if np.any((single != array) & (np.floor(array) == array)):
        return f"8:{base64.b64encode(array.tobytes()).decode('ascii')}"
    return base64.b64encode(single.tobytes()).decode("ascii")


def kept(values: "NDArray[np.float64]", most: int) -> "NDArray[np.intp]":
    """Return the places of at most `most` values: all, or else the first, the last, and the lowest and the highest of
    each of equally long stretches between them.

    >>> kept(np.array([0.0, 1.0, 5.0, 2.0, -3.0, 1.0, 0.0, 4.0, 9.0]), 6).tolist()
    [0, 1, 2, 4, 7, 8]
    """
    if len(values) <= most:
        return np.arange(len(values))
    starts = np.linspace(1, len(values) - 1, max(1, (most - 2) // 2), endpoint=False).astype(int)
    stops = np.append(starts[1:], len(values) - 1)
    ends = [
        start + of(values[start:stop])
        for start, stop in zip(starts, stops, strict=True)
        for of in (np.argmin, np.argmax)
    ]
    return np.unique([0, len(values) - 1, *ends])


def points_of(curves: int) -> int:
    """Return how many points each of so many curves may have."""
    return min(MOST_POINTS, max(FEWEST_POINTS, MOST_VALUES // max(1, curves)))


def existing(series: Mapping[str, Series]) -> dict[str, dict[int, float]]:
    """Return series without values that are not finite."""
    return {key: {step: value for step, value in of.items() if exists(value)} for key, of in series.items()}


def curve(series: Mapping[str, Series], key: str, steps: Steps, most: int, of: int = 0) -> Curve | None:
    """Return a series of a run, logged by its holder at the place `of`; None if it has no value."""
    values = series.get(key)
    if not values:
        return None
    beside = {name: series[f"{key}{end}"] for end, name in BESIDE.items() if series.get(f"{key}{end}")}
    found = _curve(values, beside, steps, most)
    return {**found, "of": of} if of else found


def _curve(values: Series, beside: Mapping[Any, Series], steps: Steps, most: int) -> Curve:
    order = sorted(values)
    places = kept(np.array([values[step] for step in order]), most)
    at = [order[place] for place in places]
    found: Curve = {"steps": steps.place(at), "values": encoded(values[step] for step in at)}
    for name, level in beside.items():
        found[name] = encoded(level.get(step) for step in at)  # type: ignore[literal-required]
    return {**found, "points": len(order)} if len(at) < len(order) else found


def kept_by(limits: Limits, values: Iterable[float]) -> list[float | None]:
    """Return those of the limits that all values keep, up to rounding; values of another scale have other limits.

    >>> kept_by([0, 1], [0.2, 0.9]), kept_by([0, 1], [50.0, 95.0])
    ([0, 1], [0, None])
    """
    known = [*values]
    if not known:
        return [*limits]
    (least, greatest), low, high = limits, min(known), max(known)
    return [
        None if least is None or low < least - ROUNDING else least,
        None if greatest is None or high > greatest + ROUNDING else greatest,
    ]


def within(interval: Interval, limits: Limits) -> Interval:
    """Return an interval that does not reach beyond what is possible."""
    low, high = (-np.inf if limits[0] is None else limits[0]), (np.inf if limits[1] is None else limits[1])
    return interval._replace(low=max(interval.low, low), high=min(interval.high, high))


def mean_curves(
    runs: Sequence[Mapping[str, Series]], limits: Mapping[str, Limits], steps: Steps, most: int
) -> dict[str, Curve | None]:
    """Return the means over the runs of a group by key; None where the runs share no step.

    From `FEWEST` runs on, the ends of the 95 % t-interval stand beside them, cut off at the limits of the key.
    """
    wanted = {f"{key}{end}" for key in limits for end in ("", *LEVELS)}
    found = together([{key: of for key, of in run.items() if key in wanted} for run in runs])
    return {key: _mean_curve(found, key, of_key, steps, most) for key, of_key in limits.items()}


def _mean_curve(
    found: Mapping[str, Mapping[int, Interval]], key: str, limits: Limits, steps: Steps, most: int
) -> Curve | None:
    if key not in found:
        return None
    parts: dict[str, Series] = {
        BESIDE[end]: {step: one.mean for step, one in found[f"{key}{end}"].items()}
        for end in LEVELS
        if f"{key}{end}" in found
    }
    of_key = found[key]
    if next(iter(of_key.values())).n >= FEWEST:
        cut = {step: within(one, limits) for step, one in of_key.items()}
        parts |= {"low": {step: one.low for step, one in cut.items()}, "high": {s: one.high for s, one in cut.items()}}
    parts["n"] = {step: one.n for step, one in of_key.items()}
    return _curve({step: one.mean for step, one in of_key.items()}, parts, steps, most)
