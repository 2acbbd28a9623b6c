"""Figures of a run as artifacts."""

from functools import partial
from pathlib import Path
from typing import Any

from mlflow.entities import Run

from nfa.registry.tracking import artifacts
from nfa.registry.tracking.runs import TrackedRun
from nfa.sinks.pictures import KINDS, mask_texts, write_picture

WIDEST = 1000  # pixels, beside which the UI has room for its own column


def save_picture(run: TrackedRun | Run, figure: Any, name: str, *, also_pdf: bool = True) -> None:
    """Store a matplotlib figure as plots/<name>.png and .pdf; do nothing in a thrifty run."""
    if isinstance(run, TrackedRun) and run.thrifty:
        return
    info = run.info if isinstance(run, TrackedRun) else run
    mask_texts(figure)
    for kind in KINDS if also_pdf else ("png",):
        artifacts.put(info, f"plots/{name}.{kind}", partial(write_picture, figure))


def preview(run: TrackedRun, path: str) -> str:
    """Return the path of a smaller copy of a picture, because MLflow's UI shows pictures in their own size; of the
    picture itself if it is small.
    """
    from PIL import Image

    with Image.open(artifacts.get(run.run_id, path)) as picture:
        if picture.width <= WIDEST:
            return path
        smaller = picture.convert("RGB").resize((WIDEST, round(picture.height * WIDEST / picture.width)))
    artifacts.put(run.info, artifacts.PREVIEW, lambda file: _saved(smaller, file))
    return artifacts.PREVIEW


def _saved(picture: Any, file: Path) -> None:
    picture.save(file, format="PNG")
