"""Figures as files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfa.masking import masked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("png", "pdf")
DPI = 200
COMPRESSION = 3  # of zlib's 9: 6 takes twice as long for noise, such as cosines, and saves a tenth


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

    if file.suffix == ".pdf":
        figure.savefig(file, dpi=DPI, metadata={"CreationDate": None})
    else:
        _write_png(figure, file)
    unset = {"figure.autolayout": False, "figure.constrained_layout.use": False}
    with matplotlib.rc_context(unset):  # type: ignore[arg-type]
        figure.set_layout_engine(None)  # "none" would keep a placeholder, for which all is drawn once more


def _write_png(figure: "Figure", file: Path) -> None:
    """Write a .png file without the channel for transparency, of which figures have none: half of the time."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas, dpi = figure.canvas, figure.dpi
    try:
        figure.dpi = DPI
        drawing: Any = FigureCanvasAgg(figure)  # whose methods have no types
        drawing.draw()  # once; savefig draws twice where a layout is computed
        picture = Image.fromarray(np.asarray(drawing.buffer_rgba())).convert("RGB")
    finally:
        figure.set_canvas(canvas)
        figure.dpi = dpi
    picture.save(file, format="PNG", dpi=(DPI, DPI), compress_level=COMPRESSION)


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
