"""Paragraphs and tables of the generated pages."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any


def paragraph(text: str) -> list[str]:
    """Lines of a text, and an empty one after it."""
    return [*textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False), ""]


def cell(value: Any) -> str:
    """A value as it is written in a table."""
    return str(value).replace("|", "\\|")


def table(heads: Iterable[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    heads = list(heads)
    return [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *(f"| {' | '.join(row)} |" for row in rows)]
