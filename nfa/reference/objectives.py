"""Objectives of runs, row by row."""

from collections.abc import Iterable, Sequence

Row = tuple[str, int, float]


def objective(rows: Iterable[Row], keys: Iterable[str], how: str, *, more_is_better: bool) -> float | None:
    """Return the objective of a run.

    Args:
        rows: Key, step and value of everything that the run has logged.
        keys: The keys of the objective, which are averaged.
        how: "last", "best", or "mean:K" for the mean over the last K steps.
        more_is_better: Whether "best" is the largest value.

    Returns:
        The objective; None where no step has all keys.
    """
    curve = _curve(list(rows), list(keys))
    if not curve:
        return None
    if how == "best":
        return sorted(curve)[-1 if more_is_better else 0]
    count = 1 if how == "last" else min(int(how.split(":")[1]), len(curve))
    return sum(curve[len(curve) - count :]) / count


def _curve(rows: Sequence[Row], keys: Sequence[str]) -> list[float]:
    """Return the mean over the keys, in the order of the steps that have all of them."""
    found = []
    for step in sorted({step for _, step, _ in rows}):
        there = {key: value for key, at, value in rows if at == step and key in keys}
        if keys and len(there) == len(keys):
            found.append(sum(there.values()) / len(keys))
    return found
