"""The tables that calls in a notebook return."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from nfa.extras import check_extra
from nfa.levels import beside, is_beside
from nfa.plain_text import aligned, counted, number

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

SHOWN = 30  # rows that are printed
LEVELS = ("standard error", "chance", "shared")  # heads of columns


class ValueRow(NamedTuple):
    """A value: metric key, site or part of the model (empty = the whole model), quantity, value, standard error, chance
    level and shared-weights level.
    """

    key: str
    site: str
    quantity: str
    value: float
    se: float | None = None
    chance: float | None = None
    shared: float | None = None


Row = TypeVar("Row", bound=NamedTuple)


class Table(ABC, Generic[Row]):
    """Values with their standard errors and levels, one row each; undefined values have no row."""

    rows: Sequence[Row]
    kinds: ClassVar[Mapping[str, str]] = dict.fromkeys(("value", "se", "chance", "shared"), "float64")  # of columns
    columns: ClassVar[tuple[str, ...]]

    @abstractmethod
    def _printed(self) -> tuple[Sequence[str], Callable[[Row], Sequence[str]], str]:
        """Return the heads of the printed columns, what a row has in them, and the last line."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def frame(self) -> "pandas.DataFrame":
        """Return the rows as a pandas DataFrame."""
        check_extra("frame()", "pandas", otherwise="take the rows one by one: for row in table")
        import pandas

        return pandas.DataFrame(self.rows, columns=self.columns).astype(self.kinds)

    def _shown(self) -> tuple[list[tuple[str, ...]], list[str]]:
        """Return the printed cells, without empty columns, and the lines below them."""
        heads, cells_of, said = self._printed()
        cells = [tuple(heads), *(tuple(cells_of(row)) for row in self.rows[:SHOWN])]
        columns = [column for column in zip(*cells, strict=True) if any(column[1:]) or column[0] == "value"]
        left = len(self) - SHOWN
        more = [f"… {counted(left, 'more row')}; .frame() returns all"] if left > 0 else []
        return list(zip(*columns, strict=True)), [*more, said]

    def __repr__(self) -> str:
        cells, lines = self._shown()
        return "\n".join([*aligned(cells), *lines])

    def _repr_html_(self) -> str:
        (heads, *rows), lines = self._shown()
        body = [_html(heads, "th"), *(_html(row, "td") for row in rows)]
        return f"<table>{''.join(body)}</table>{'<br>'.join(map(escape, lines))}"


def _html(cells: Sequence[str], kind: str) -> str:
    return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"


def numbers(value: float, se: float | None, chance: float | None, shared: float | None) -> tuple[str, ...]:
    """Return a value, its error and its levels as they are printed.

    Args:
        value: The value.
        se: Its standard error.
        chance: Its chance level.
        shared: Its shared-weights level.

    Returns:
        The cells; what does not exist is an empty text.
    """
    return f"{value:.4g}", number(se, ".2g"), number(chance, ".4g"), number(shared, ".4g")


@dataclass(frozen=True, repr=False)
class ValueTable(Table[ValueRow]):
    """The values of a study of one model.

    Args:
        rows: The values.
        described: The conventions of the study, and how much of the model is seen.
        draw: A function that makes a figure with a given title.

    Example:
        >>> rows = [ValueRow("0/h_vs_m", "0", "h_vs_m", 0.25), ValueRow("2/h_vs_m", "2", "h_vs_m", 0.5)]
        >>> table = ValueTable(rows, {"coverage": "watching 24 of 24 weights"}, draw=lambda title: None)
        >>> table
        site  quantity  value
        0     h_vs_m    0.25
        2     h_vs_m    0.5
        watching 24 of 24 weights
        >>> table["2/h_vs_m"], len(table), [row.site for row in table]
        (0.5, 2, ['0', '2'])
    """

    columns = ValueRow._fields
    rows: list[ValueRow]
    described: Mapping[str, Any]
    draw: Callable[[str], "Figure"]

    @classmethod
    def of(cls, scalars: Mapping[str, float], prefix: str, described: Mapping[str, Any], draw: Any) -> "ValueTable":
        """Create a table from values by metric key, each of which begins with `prefix`; errors and levels have the
        suffixes of nfa/levels.py.
        """
        rows = []
        for key in [key for key in scalars if not is_beside(key)]:
            (site, _, quantity), by = key.removeprefix(prefix).rpartition("/"), beside(scalars, key)
            rows.append(ValueRow(key, site, quantity, scalars[key], by.standard_error, by.chance, by.shared))
        return cls(rows, described, draw)

    def __getitem__(self, key: str) -> float:
        return {row.key: row.value for row in self.rows}[key]

    def plot(self, title: str = "") -> "Figure":
        """Return a matplotlib figure of the values; without a title it is named by model, loss and examples."""
        return self.draw(title)

    def _printed(self) -> tuple[Sequence[str], Callable[[ValueRow], Sequence[str]], str]:
        return ("site", "quantity", "value", *LEVELS), _cells, self.described["coverage"]


def _cells(row: ValueRow) -> tuple[str, ...]:
    return row.site, row.quantity, *numbers(row.value, row.se, row.chance, row.shared)
