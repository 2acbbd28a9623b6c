"""Tables as plain text, for programs and for people."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return the content of a CSV file, without its last newline.

    >>> csv_text(["step", "series"], [(0, "a"), (1, "b, c")])
    'step,series\\n0,a\\n1,"b, c"'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def table_row(first: object, cells: Iterable[object], wide: int, widths: Iterable[int]) -> str:
    """Return a line of a table: the first cell left-aligned in `wide` letters, the others right-aligned in their
    `widths`.

    >>> table_row("q_proj", ["0.5", 12], 8, [5, 4])
    'q_proj    0.5  12'
    """
    return f"{first:<{wide}}" + "".join(f"{cell!s:>{width}}" for cell, width in zip(cells, widths, strict=True))


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun in the right number.

    >>> counted(1, "checkpoint"), counted(1200, "checkpoint"), counted(2, "batch", "batches")
    ('1 checkpoint', '1,200 checkpoints', '2 batches')
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


SPEAKING = ("optimizer", "loss")  # parameters whose values need no name


def rounded(value: Any) -> str:
    """Return a value of a parameter as names and legends show it; numbers with a fraction are rounded.

    >>> [rounded(value) for value in (0.0008732649, "0.0008732649", 64, "sgd", True, 0.0)]
    ['0.000873', '0.000873', '64', 'sgd', 'true', '0']
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+(e-?\d+)?|e-?\d+)", value):
        value = float(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def told(parameters: Mapping[str, Any]) -> str:
    """Return what parameters a run or a group of runs has, as legends name it.

    >>> told({"optimizer": "sgd", "lr": 0.1, "momentum": 0.0})
    'sgd lr 0.1 momentum 0'
    """
    return " ".join(rounded(of) if name in SPEAKING else f"{name} {rounded(of)}" for name, of in parameters.items())


LOSSES_IN_WORDS = {
    "crossentropy": "cross-entropy",
    "binarycrossentropy": "binary cross-entropy",
    "binarycrossentropywithlogits": "binary cross-entropy",
    "bce": "binary cross-entropy",
    "bcewithlogits": "binary cross-entropy",
    "mse": "mean squared error",
    "squarederror": "squared error",
    "l1": "mean absolute error",
    "nll": "negative log-likelihood",
    "lambda": "",
    "": "",  # of a function that is called loss
}


def loss_in_words(name: str) -> str:
    """Return what a loss is called, from the name of its function or class; a name that says nothing gives an empty
    text, and an unknown one stays.

    >>> [loss_in_words(name) for name in ("CrossEntropyLoss", "mse_loss", "my_loss", "<lambda>", "loss")]
    ['cross-entropy', 'mean squared error', 'my_loss', '', '']
    """
    plain = re.sub(r"[^a-z0-9]", "", name.lower()).removesuffix("loss")
    return LOSSES_IN_WORDS.get(plain, name)


def number(value: float | None, form: str) -> str:
    """Format a number; return an empty text for None.

    >>> number(0.25, ".4f"), number(None, ".4f")
    ('0.2500', '')
    """
    return "" if value is None else f"{value:{form}}"


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return one line per row, with every column as wide as its longest cell.

    >>> aligned([("site", "h_vs_m"), ("0", "0.5")])
    ['site  h_vs_m', '0     0.5']
    """
    table = [list(cells) for cells in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) for cells in table)
    return [line.rstrip() for line in lines]


def natural(text: str) -> list[str | int]:
    """Return a key that sorts numbers within texts as numbers.

    >>> sorted(["layer_10", "layer_2"], key=natural)
    ['layer_2', 'layer_10']
    """
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def apart(names: Sequence[str]) -> list[str]:
    """Return what sets names apart, for legends: the words that all of them share at both ends are left out.

    A number keeps the word before it.

    >>> apart(["digits mlp 64×2 sgd lr 0.1 seed 1", "digits mlp 64×2 adam lr 0.001 seed 1"])
    ['sgd lr 0.1', 'adam lr 0.001']
    >>> apart(["digits mlp 64×2 sgd lr 0.1 seed 1", "digits mlp 64×2 sgd lr 0.1 seed 2"])
    ['seed 1', 'seed 2']
    """
    words = [name.split() for name in names]
    first = _shared(words)
    while first and not all(map(_speaks, (one[first:] for one in words))):
        first -= 1
    rest = [one[first:] for one in words]
    last = _shared([one[:0:-1] for one in rest])
    return [" ".join(one[: len(one) - last]).rstrip(",") for one in rest]


def shared(names: Sequence[str]) -> str:
    """Return the words with which all names begin.

    >>> shared(["digits mlp 64×2 sgd lr 0.1", "digits mlp 64×2 adam lr 0.001"]), shared(["mine", "yours"]), shared([])
    ('digits mlp 64×2', '', '')
    """
    words = [name.split() for name in names]
    return " ".join(words[0][: _shared(words)]).rstrip(",:") if words else ""


def _shared(lists: Sequence[Sequence[str]]) -> int:
    """Return how many words all lists have in common at their beginning."""
    shortest = min(map(len, lists))
    return next((place for place in range(shortest) if len({one[place] for one in lists}) > 1), shortest)


def _speaks(words: Sequence[str]) -> bool:
    """Return whether there are words that do not begin with a number, which needs the word before it."""
    try:
        float(words[0].strip(",:") if words else "0")
    except ValueError:
        return True
    return False
