"""Figures as files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfa.masking import masked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("png", "pdf")


def mask_texts(figure: "Figure") -> None:
    """Take the passwords out of all texts of a figure."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if masked(text.get_text()) != text.get_text():
            text.set_text(masked(text.get_text()))


def write_picture(figure: "Figure", file: Path) -> None:
    """A .png or .pdf file without dates inside, so that the same numbers give the same file.

    A figure is laid out once, so that all its files look the same.
    """
    dateless: dict[str, Any] = {"CreationDate": None} if file.suffix == ".pdf" else {"Software": None}
    figure.savefig(file, dpi=200, metadata=dateless)
    figure.set_layout_engine("none")


def write_pictures(figure: "Figure", folder: Path, name: str) -> None:
    """`folder`/`name`.png and .pdf."""
    for kind in KINDS:
        file = folder / f"{name}.{kind}"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_picture(figure, file)
