"""Times until something happens, of which some are only known to be longer than the observation."""

from collections.abc import Sequence


def restricted_mean(times: Sequence[float | None], horizon: float) -> float:
    """∫₀^τ S(t) dt, the area below Kaplan and Meier's estimate of the share that has not arrived by t; τ the horizon.

    None = observed up to the horizon, where it had not happened. S is a step function: at each time it is multiplied by
    the share of those still waiting that do not arrive then. Kaplan, Meier 1958; Royston, Parmar 2013.

    >>> restricted_mean([2.0, None], 10.0), restricted_mean([0.0], 10.0), restricted_mean([None, None], 10.0)
    (6.0, 0.0, 10.0)
    """
    arrivals = sorted({time for time in times if time is not None and time < horizon})
    area, before, share = 0.0, 0.0, 1.0
    for arrival in arrivals:
        area += share * (arrival - before)
        waiting = sum(time is None or time >= arrival for time in times)
        share *= 1 - sum(time == arrival for time in times) / waiting
        before = arrival
    return area + share * (horizon - before)
