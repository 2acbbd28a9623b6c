"""Times until an event, some of which are only known to exceed the observation."""

from collections.abc import Sequence


def restricted_mean(times: Sequence[float | None], horizon: float) -> float:
    """Return ∫₀^τ S(t) dt, the area under the Kaplan–Meier estimate of the share without the event at t; τ is the
    horizon.

    S is a step function: at each time it is multiplied by the share of those still waiting whose event does not happen
    then. Kaplan and Meier 1958; Royston and Parmar 2013.

    Args:
        times: The time of each event; None if it had not happened by the horizon.
        horizon: The horizon τ, in the unit of the times.

    Returns:
        The restricted mean time.

    Example:
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
