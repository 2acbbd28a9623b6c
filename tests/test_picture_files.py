"""Files of figures: what matplotlib draws, in RGB, and the figure is as before."""

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from nfa.sinks.pictures import DPI, write_picture


def drawn() -> Figure:
    figure = Figure(figsize=(2.3, 1.57), layout="constrained")
    axes = figure.subplots()
    axes.plot([3, 1, 2], label="a line")
    axes.set(title="a figure", ylabel="values", facecolor=(1, 0.9, 0.8, 0.5))
    axes.legend()
    return figure


def test_a_png_file_has_the_pixels_of_matplotlib_in_rgb_and_its_resolution(tmp_path: Path) -> None:
    write_picture(drawn(), tmp_path / "a figure.png")
    expected = io.BytesIO()
    drawn().savefig(expected, format="png", dpi=DPI)
    with Image.open(tmp_path / "a figure.png") as picture:
        assert picture.mode == "RGB"
        assert [round(dots) for dots in picture.info["dpi"]] == [DPI, DPI]
        assert set(picture.info) == {"dpi"}
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(Image.open(expected).convert("RGB")))


def test_equal_figures_are_equal_files(tmp_path: Path) -> None:
    for kind in ("png", "pdf"):
        for number in range(2):
            write_picture(drawn(), tmp_path / f"{number}.{kind}")
        assert (tmp_path / f"0.{kind}").read_bytes() == (tmp_path / f"1.{kind}").read_bytes()


def test_a_figure_keeps_its_canvas_and_its_resolution(tmp_path: Path) -> None:
    figure = drawn()
    canvas, dpi = figure.canvas, figure.dpi
    write_picture(figure, tmp_path / "figure.png")
    assert figure.canvas is canvas
    assert figure.dpi == dpi
