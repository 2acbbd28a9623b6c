"""A sink that keeps series, texts and figures in memory."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Memory:
    """Keep everything in memory.

    Attributes:
        series: Step → value, by metric key.
        texts: Texts by name.
        figures: Figures by name.

    Example:
        >>> memory = Memory()
        >>> memory.log({"0/h_vs_m": 0.5}, step=3)
        >>> memory.series
        {'0/h_vs_m': {3: 0.5}}
    """

    def __init__(self) -> None:
        self.series: dict[str, dict[int, float]] = {}
        self.texts: dict[str, str] = {}
        self.figures: dict[str, Figure] = {}

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Store the values of a step."""
        for key, value in values.items():
            self.series.setdefault(key, {})[step] = value

    def text(self, name: str, content: str) -> None:
        """Store a text under its name."""
        self.texts[name] = content

    def figure(self, name: str, figure: "Figure") -> None:
        """Store a figure under its name."""
        self.figures[name] = figure
