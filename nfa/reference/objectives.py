"""Objectives of runs, row by row."""

from collections.abc import Iterable, Sequence

Row = tuple[str, int, float]


def objective(rows: Iterable[Row], keys: Iterable[str], how: str, *, more_is_better: bool) -> float | None:
    """`rows` are (key, step, value) of a run; `keys` those of the objective; `how` is last, best or mean:K."""
    curve = _curve(list(rows), list(keys))
    if not curve:
        return None
    if how == "best":
        return sorted(curve)[-1 if more_is_better else 0]
    count = 1 if how == "last" else min(int(how.split(":")[1]), len(curve))
    return sum(curve[len(curve) - count :]) / count


def _curve(rows: Sequence[Row], keys: Sequence[str]) -> list[float]:
    """Mean over the keys, in order of the steps that have all of them."""
    found = []
    for step in sorted({step for _, step, _ in rows}):
        there = {key: value for key, at, value in rows if at == step and key in keys}
        if keys and len(there) == len(keys):
            found.append(sum(there.values()) / len(keys))
    return found
