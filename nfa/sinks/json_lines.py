"""Series in a file of JSON lines, texts and figures beside it."""

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
    """A folder: `series.jsonl` with a line {"step": 3, key: value, …} for each record, texts under their names, figures
    in `plots/`.

    `Refusal` for a folder that has series already: what was recorded before stays as it is.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.file = self.folder / SERIES
        if self.file.exists():
            raise Refusal(f"{self.file}, which is there", "a folder for each watched training", "give another folder")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")

    def text(self, name: str, content: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n", encoding="utf-8")

    def figure(self, name: str, figure: "Figure") -> None:
        write_pictures(figure, self.folder / "plots", name)
