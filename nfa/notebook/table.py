"""The table that a study of a model in a notebook returns."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from nfa.extras import check_extra
from nfa.levels import beside, is_beside
from nfa.plain_text import aligned, counted, number

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

SHOWN = 30  # rows that are printed
OPTIONAL = ("standard_error", "chance", "shared")  # columns of numbers that some values lack


class Row(NamedTuple):
    """A value: metric key, site or part of the model (empty = the whole model), quantity, value, standard error, chance
    level and shared-weights level.
    """

    key: str
    site: str
    quantity: str
    value: float
    standard_error: float | None = None
    chance: float | None = None
    shared: float | None = None


@dataclass(frozen=True, repr=False)
class Table:
    """The values of a study; undefined values have no row.

    Args:
        rows: The values.
        described: The conventions of the study, and how much of the model is seen.
        draw: A function that makes a figure with a given title.

    Example:
        >>> rows = [Row("0/h_vs_m", "0", "h_vs_m", 0.25), Row("2/h_vs_m", "2", "h_vs_m", 0.5)]
        >>> table = Table(rows, {"coverage": "watching 24 of 24 weights"}, draw=lambda title: None)
        >>> table
        site  quantity  value
        0     h_vs_m    0.25
        2     h_vs_m    0.5
        watching 24 of 24 weights
        >>> table["2/h_vs_m"], len(table), [row.site for row in table]
        (0.5, 2, ['0', '2'])
    """

    rows: list[Row]
    described: Mapping[str, Any]
    draw: Callable[[str], "Figure"]

    @classmethod
    def of(cls, scalars: Mapping[str, float], prefix: str, described: Mapping[str, Any], draw: Any) -> "Table":
        """Create a table from values by metric key, each of which begins with `prefix`; errors and levels have the
        suffixes of nfa/levels.py.
        """
        rows = []
        for key in [key for key in scalars if not is_beside(key)]:
            (site, _, quantity), by = key.removeprefix(prefix).rpartition("/"), beside(scalars, key)
            rows.append(Row(key, site, quantity, scalars[key], by.standard_error, by.chance, by.shared))
        return cls(rows, described, draw)

    def __getitem__(self, key: str) -> float:
        return {row.key: row.value for row in self.rows}[key]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def frame(self) -> "pandas.DataFrame":
        """Return the rows as a pandas DataFrame."""
        check_extra("frame()", "pandas", otherwise="take the rows one by one: for row in table")
        import pandas

        return pandas.DataFrame(self.rows, columns=Row._fields).astype(dict.fromkeys(OPTIONAL, float))

    def plot(self, title: str = "") -> "Figure":
        """Return a matplotlib figure of the values."""
        return self.draw(title)

    def __repr__(self) -> str:
        header = ("site", "quantity", "value", "standard error", "chance", "shared")
        cells = [header, *map(_cells, self.rows[:SHOWN])]
        columns = [column for column in zip(*cells, strict=True) if any(column[1:]) or column[0] == "value"]
        left = len(self.rows) - SHOWN
        more = [f"… {counted(left, 'more row')}; .frame() returns all"] if left > 0 else []
        return "\n".join([*aligned(zip(*columns, strict=True)), *more, self.described["coverage"]])


def _cells(row: Row) -> tuple[str, ...]:
    levels = [number(level, ".4g") for level in (row.chance, row.shared)]
    return row.site, row.quantity, f"{row.value:.4g}", number(row.standard_error, ".2g"), *levels
