"""What a similarities.csv or comparison.csv holds, as the series that it was made from."""

import csv

from nfa.levels import SUFFIXES, Beside

COLUMNS = ["site", "relation", "value", *Beside._fields]


def read_back(text: str) -> dict[tuple[str, int], float]:
    """Value by metric key and step, where errors and levels have their own keys; one that comes twice is an error."""
    found: dict[tuple[str, int], float] = {}
    for row in csv.DictReader(text.splitlines()):
        key = f"{row['site']}/{row['relation']}" if row["site"] else row["relation"]
        beside = dict(zip(SUFFIXES, (row[name] for name in Beside._fields), strict=True))
        cells = {f"{key}{end}": cell for end, cell in {"": row["value"], **beside}.items()}
        made = {(name, int(row.get("epoch") or row["step"])): float(cell) for name, cell in cells.items() if cell}
        assert found.keys().isdisjoint(made)
        found |= made
    return found
