"""Objectives of runs, row by row."""

from collections.abc import Iterable

Row = tuple[str, int, float]


def objective(rows: Iterable[Row], keys: Iterable[str], how: str, *, more_is_better: bool) -> float | None:
    """`rows` are (key, step, value) of a run; `keys` those of the objective; `how` is last, best or mean:K."""
    wanted = list(keys)
    table: dict[int, dict[str, float]] = {}
    for key, step, value in rows:
        if key in wanted:
            table.setdefault(step, {})[key] = value
    curve = []
    for step in sorted(table):
        if len(table[step]) == len(wanted):
            total = 0.0
            for key in wanted:
                total += table[step][key]
            curve.append(total / len(wanted))
    if not curve:
        return None
    if how == "best":
        best = curve[0]
        for value in curve:
            best = value if (value > best) == more_is_better and value != best else best
        return best
    count = 1 if how == "last" else min(int(how.split(":")[1]), len(curve))
    total = 0.0
    for value in curve[len(curve) - count :]:
        total += value
    return total / count
