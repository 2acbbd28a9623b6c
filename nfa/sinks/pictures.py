"""Figures as files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfa.masking import masked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("png", "pdf")


def mask_texts(figure: "Figure") -> None:
    """Mask passwords in all texts of a figure, in place.

    Args:
        figure: The figure.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if masked(text.get_text()) != text.get_text():
            text.set_text(masked(text.get_text()))


def write_picture(figure: "Figure", file: Path) -> None:
    """Write a .png or .pdf file without a date inside, so that equal numbers give an equal file.

    The figure is laid out once, so that all its files look the same.

    Args:
        figure: The figure.
        file: The path of the file.
    """
    import matplotlib

    dateless: dict[str, Any] = {"CreationDate": None} if file.suffix == ".pdf" else {"Software": None}
    figure.savefig(file, dpi=200, metadata=dateless)
    unset = {"figure.autolayout": False, "figure.constrained_layout.use": False}
    with matplotlib.rc_context(unset):  # type: ignore[arg-type]
        figure.set_layout_engine(None)  # "none" would keep a placeholder, for which all is drawn once more


def write_pictures(figure: "Figure", folder: Path, name: str) -> None:
    """Write a figure to `folder`/`name`.png and .pdf.

    Args:
        figure: The figure.
        folder: The folder, which is created if it is missing.
        name: The name without an ending; it may contain folders.
    """
    for kind in KINDS:
        file = folder / f"{name}.{kind}"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_picture(figure, file)
