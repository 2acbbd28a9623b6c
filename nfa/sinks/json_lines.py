"""A sink that writes series to a file of JSON lines, with texts and figures beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nfa.errors import Refusal
from nfa.sinks.pictures import write_pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES = "series.jsonl"


class JsonLines:
    """Write to a folder: `series.jsonl` with one line {"step": 3, key: value, …} per record, texts under their names,
    and figures in `plots/`.

    Args:
        folder: The folder, which is created when it is needed.

    Raises:
        Refusal: The folder already has series; they are left as they are.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.file = self.folder / SERIES
        if self.file.exists():
            raise Refusal(f"{self.file}, which already exists", "a new folder for each training", "pass another folder")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Append one line with the values of a step."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")

    def text(self, name: str, content: str) -> None:
        """Write a text to a file of that name."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n", encoding="utf-8")

    def figure(self, name: str, figure: "Figure") -> None:
        """Write a figure as .png and .pdf to `plots/`."""
        write_pictures(figure, self.folder / "plots", name)
