"""What an ablation has found, in sentences, from its stored table."""

import csv
from collections.abc import Iterator, Mapping

from nfa.registry import tracking

FILE = "ablation.csv"


def verdicts_of(run_id: str) -> Iterator[str]:
    """Yield the score of each arm, and its difference from the first one."""
    rows = list(csv.DictReader(tracking.get(run_id, FILE).read_text(encoding="utf-8").splitlines()))
    for row in rows:
        yield f"{row['arm']}, {row['seeds']} seeds: Pearson's r {_span(row, 'pearson', 'low', 'high')}"
    for row in rows[1:]:
        apart = _span(row, "difference", "difference_low", "difference_high")
        yield f"{row['arm']} minus {rows[0]['arm']}: {apart}{_said(row)}"


def _span(row: Mapping[str, str], *names: str) -> str:
    if not all(row[name] for name in names):
        return "no interval" + (f", mean {float(row[names[0]]):.4f}" if row[names[0]] else "")
    value, low, high = (float(row[name]) for name in names)
    return f"{value:.4f} ({low:.4f}, {high:.4f}, 95 % over recordings and seeds)"


def _said(row: Mapping[str, str]) -> str:
    if not (row["difference_low"] and row["difference_high"]):
        return ""
    low, high = float(row["difference_low"]), float(row["difference_high"])
    return ", cannot be told apart" if low <= 0 <= high else ", worse" if high < 0 else ", better"
