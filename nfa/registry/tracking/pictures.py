"""Figures of a run as artifacts."""

from functools import partial
from typing import Any

from mlflow.entities import Run

from nfa.registry.tracking import artifacts
from nfa.registry.tracking.runs import TrackedRun
from nfa.sinks.pictures import KINDS, mask_texts, write_picture


def save_picture(run: TrackedRun | Run, figure: Any, name: str, *, also_pdf: bool = True) -> None:
    """Store a matplotlib figure as plots/<name>.png and .pdf; do nothing in a thrifty run."""
    if isinstance(run, TrackedRun) and run.thrifty:
        return
    info = run.info if isinstance(run, TrackedRun) else run
    mask_texts(figure)
    for kind in KINDS if also_pdf else ("png",):
        artifacts.put(info, f"plots/{name}.{kind}", partial(write_picture, figure))
