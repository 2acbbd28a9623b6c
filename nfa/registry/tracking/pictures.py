"""Pictures of a run as artifacts."""

from functools import partial
from pathlib import Path
from typing import Any

from mlflow.entities import Run

from nfa.masking import masked
from nfa.registry.tracking import artifacts
from nfa.registry.tracking.runs import TrackedRun


def save_picture(run: TrackedRun | Run, figure: Any, name: str, *, also_pdf: bool = True) -> None:
    """A matplotlib figure as plots/<name>.png and .pdf; not drawn in a thrifty run."""
    if isinstance(run, TrackedRun) and run.thrifty:
        return
    info = run.info if isinstance(run, TrackedRun) else run
    _mask(figure)
    for kind in ("png", "pdf") if also_pdf else ("png",):
        artifacts.put(info, f"plots/{name}.{kind}", partial(_draw, figure, kind))
        figure.set_layout_engine("none")  # laid out once, so both files look the same


def _mask(figure: Any) -> None:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if masked(text.get_text()) != text.get_text():
            text.set_text(masked(text.get_text()))


def _draw(figure: Any, kind: str, file: Path) -> None:
    # No dates inside, so that the same numbers give the same file.
    dateless = {"CreationDate": None} if kind == "pdf" else {"Software": None}
    figure.savefig(file, format=kind, dpi=200, metadata=dateless)
