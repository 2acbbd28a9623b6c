"""The look that all figures share: quiet frames, colour-blind-safe marks, vector text."""

import math
import re
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Entry = TypeVar("Entry")
RC: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}
# Okabe and Ito 2008: colours that people with any colour vision tell apart.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK = "#CC79A7", "#56B4E9", "#000000"
LOSSES = {
    "train/loss": {"label": "train loss", "color": BLUE, "marker": "o"},
    "val/loss": {"label": "validation loss", "color": VERMILLION, "marker": "s"},
    "eval/loss": {"label": "loss of held-out answers", "color": VERMILLION, "marker": "s"},
}
_IN_BLOCK = re.compile(r"(?:\w+\.)*layers\.(\d+|\*)\.(?:self_attn\.|mlp\.)?(.+)")
DECADES = 100  # a logarithmic axis that spans this factor has enough ticks at powers of ten
LONG = 6  # a logarithmic axis that spans this factor has enough ticks at 1, 2 and 5
LINES_BESIDE, LETTERS_BESIDE = 12, 34  # the room for a legend in the place of a panel
TITLE_LETTER, TITLE_LINE, LEGEND_LINE = 0.085, 0.18, 0.19  # inches


def site_label(site: str) -> str:
    """Return a site as it is written in a figure; paths without a list of layers are unchanged, and a mere number is a
    module.

    >>> site_label("layer_3"), site_label("model.layers.12.self_attn.q_proj"), site_label("model.layers.*.mlp.up_proj")
    ('layer 3', 'block 12 q_proj', 'up_proj, all blocks')
    >>> site_label("0")
    'module 0'
    """
    if site.isdecimal():
        return f"module {site}"
    match = _IN_BLOCK.fullmatch(site)
    if match is None:
        return re.sub(r"\blayer_(?=\d)", "layer ", site)
    return f"{match[2]}, all blocks" if match[1] == "*" else f"block {match[1]} {match[2]}"


def axis_label(unit: str) -> str:
    """Return the label of an axis of checkpoints."""
    return "optimizer step" if unit == "step" else unit


def style() -> AbstractContextManager[None]:
    """Draw in this look within the block; matplotlib's own settings are restored after it."""
    import matplotlib

    return matplotlib.rc_context(RC)  # type: ignore[arg-type]


def panels(count: int, *, columns: int = 3, width: float = 3.6, height: float = 2.7) -> "tuple[Figure, list[Axes]]":
    """Return a figure with `count` panels in rows of `columns`; the remaining places stay empty. A single row has at
    most one such place, for the legend.
    """
    from matplotlib.figure import Figure

    columns = min(columns, count + 1)
    rows = math.ceil(count / columns)
    with style():
        figure = Figure(figsize=(width * columns, height * rows + 0.4), layout="constrained")
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
    for place in places[count:]:
        place.axis("off")
    return figure, places[:count]


def grid(rows: int, columns: int, *, width: float = 2.6, height: float = 2.0) -> "tuple[Figure, list[list[Axes]]]":
    """Return a figure of rows × columns panels that share their axes along rows and columns."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(width * columns + 0.6, height * rows + 0.6), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey="row")
    return figure, [list(row) for row in places]


def add_legend(figure: "Figure") -> None:
    """Add one legend for all panels: in an empty place if there is one, otherwise below the panels, in rows that fit.
    """
    drawn = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    spare = [axes for axes in figure.axes if not axes.axison]
    beside = [textwrap.fill(label, LETTERS_BESIDE) for label in drawn]
    if spare and sum(label.count("\n") + 1 for label in beside) <= LINES_BESIDE:
        spare[0].legend([*drawn.values()], beside, loc="center", fontsize=10)
        return
    longest = max(map(len, drawn), default=0)
    width, height = figure.get_size_inches()
    columns = _columns([len(label) for label in drawn], width)
    more_rows = max(0, math.ceil(len(drawn) / columns) - 2)  # there is room for two
    figure.set_size_inches(max(width, _entry(longest)), height + LEGEND_LINE * more_rows)
    figure.legend(handles=by_rows([*drawn.values()], columns), loc="outside lower center", ncols=columns)


def _entry(letters: int) -> float:
    return 0.65 + 0.075 * letters  # inches


def _columns(letters: Sequence[int], width: float) -> int:
    """Return in how many columns entries of so many letters fit into a width in inches, when read in rows.

    >>> _columns([10, 10, 10], 5.0), _columns([40, 40], 5.0), _columns([], 5.0)
    (3, 1, 1)
    """
    for columns in range(min(len(letters), 5), 1, -1):
        if sum(_entry(max(letters[column::columns])) for column in range(columns)) <= width:
            return columns
    return 1


def legend_height(figure: "Figure") -> float:
    """Return how many inches the legend below the panels needs; 0 if there is none."""
    rows: list[int] = [math.ceil(len(legend.get_texts()) / legend._ncols) for legend in figure.legends]  # type: ignore[attr-defined]
    titles = sum(bool(legend.get_title().get_text()) for legend in figure.legends)
    return math.fsum(LEGEND_LINE * count + 0.2 for count in rows) + LEGEND_LINE * titles


def by_rows(entries: Sequence[Entry], columns: int) -> list[Entry]:
    """Order the entries of a legend so that matplotlib, which fills its columns first, fills its rows first.

    >>> by_rows("abcde", 3)  # read as a b c, d e
    ['a', 'd', 'b', 'e', 'c']
    """
    return [entry for column in range(columns) for entry in entries[column::columns]]


def add_title(figure: "Figure", title: str) -> None:
    """Add a title above all panels, in as many lines as the figure's width needs; the figure grows by them."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(title, max(20, int(width / TITLE_LETTER)), break_long_words=False, break_on_hyphens=False)
    figure.set_size_inches(width, height + TITLE_LINE * max(0, len(lines) - 1))
    figure.suptitle("\n".join(lines))


def plain_numbers(axis: "Axis") -> None:
    """Give a logarithmic axis a few ticks, at 1, 2 and 5 if it is long, as decimal numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=7) if high > LONG * low else MaxNLocator(5))
    digits = _digits(low, high)
    axis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value, digits)))
    axis.set_minor_formatter(NullFormatter())


def _plain(value: float, digits: int) -> str:
    """Return a number with so many digits; of usual size without a power of ten.

    >>> _plain(1000.0, 3), _plain(0.25, 3), _plain(2e7, 3)
    ('1000', '0.25', '2e+07')
    """
    return f"{value:.{digits}g}" if abs(value) < 10**digits or abs(value) >= 1e6 else f"{value:.0f}"


def _digits(low: float, high: float) -> int:
    """Return how many digits tell the ticks of an axis apart.

    >>> _digits(0.1, 10.0), _digits(2.300, 2.303)
    (3, 6)
    """
    size, span = max(abs(low), abs(high)), abs(high - low)
    return 3 + max(0, math.ceil(math.log10(size / span / 2))) if span else 3


def epoch_axis(axes: "Axes", boundary: int | None, unit: str = "epoch") -> None:
    """Label whole epochs, or another `unit`, and draw a dashed line where checkpoints at every epoch end."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
    if boundary is not None:
        axes.axvline(boundary, color="0.5", linestyle="--", linewidth=0.9, label="end of every-epoch checkpoints")
