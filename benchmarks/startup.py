"""What a command takes before its work begins, against the floor: what any program would take for the same imports."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.record import ratio, store

ROUNDS = 5
PREPARED = ("--width", "64", "--depth", "3", "--epochs", "12", "--schedule", "0-12/2")
STORE = """
import mlflow
from mlflow import MlflowClient
MlflowClient().search_runs(["0"], max_results=1)
"""
STEP = """
import torch
from torch import nn
layers = [layer for _ in range(3) for layer in (nn.Linear(64, 64, bias=False), nn.ReLU())]
model = nn.Sequential(*layers, nn.Linear(64, 10, bias=False))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
nn.functional.mse_loss(model(torch.randn(128, 64)), torch.randn(128, 10)).backward()
optimizer.step()
import os
os._exit(0)
"""
# Ends in the midst of the training, at its first step.
TRAIN = """
import os, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os._exit(0))
from nfa.__main__ import main
sys.argv[1:] = ["train", "--width", "64", "--depth", "3"]
main()
"""


class Spent(NamedTuple):
    """Seconds of a process: on the clock, and of processors."""

    wall: float
    processor: float


WAYS: Mapping[str, Sequence[str]] = {
    "floor: torch, mlflow, the store opened, one optimizer step": ("-c", STORE + STEP),
    "train, to its first step": ("-c", TRAIN),
    "floor: mlflow, the store opened": ("-c", STORE),
    "a run id that is refused": ("-m", "nfa", "analyze", "--run_id", "nothing"),
    "an analysis that only copies": ("-m", "nfa", "analyze", "--run_id", "latest"),
}
FLOORS = {
    "train, to its first step": "floor: torch, mlflow, the store opened, one optimizer step",
    "a run id that is refused": "floor: mlflow, the store opened",
    "an analysis that only copies": "floor: mlflow, the store opened",
}


def spent(words: Sequence[str], prepared: Path) -> Spent:
    """Seconds of a fresh Python with these words, in a store of its own: a copy of the prepared one."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(prepared, folder)
        env = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/{prepared.name}"}
        before, start = _processor_seconds(), time.perf_counter()
        subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, check=False)
        return Spent(time.perf_counter() - start, _processor_seconds() - before)


def _processor_seconds() -> float:
    """Of all processes that this one has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def prepare(folder: Path) -> Path:
    """The database of a store in which there are a small training and its analysis."""
    database = folder / "mlflow.db"
    env = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{database}"}
    for words in (["train", *PREPARED], ["analyze", "--run_id", "latest"]):
        subprocess.run([sys.executable, "-m", "nfa", *words], cwd=folder, env=env, capture_output=True, check=True)
    return database


def rows(seconds: Mapping[str, Sequence[Spent]]) -> Iterator[tuple[str, float]]:
    """What the record says: medians of all ways, and of the ratios to their floors in the same round."""
    for name, of_rounds in seconds.items():
        yield f"{name}, s", round(median(one.wall for one in of_rounds), 2)
        yield f"{name}, s of processors", round(median(one.processor for one in of_rounds), 2)
    for name, floor in FLOORS.items():
        walls = ([one.wall for one in seconds[way]] for way in (name, floor))
        processors = ([one.processor for one in seconds[way]] for way in (name, floor))
        yield f"{name} / floor", round(ratio(*walls), 2)
        yield f"{name} / floor, processors", round(ratio(*processors), 2)


def main() -> None:
    """Time all ways in turn, and record."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(Path(folder))
        seconds: dict[str, list[Spent]] = {name: [] for name in WAYS}
        for turn in range(ROUNDS + 1):  # the first only warms the caches of files
            for name, words in WAYS.items():
                found = spent(words, prepared)
                seconds[name] += [found] if turn else []
    notes = [
        f"Fresh processes in turn, medians of {ROUNDS} rounds, ratios within a round; each opens a copy of one store.",
        "The training is of an MLP 64 × 3 on digits, with its checkpoint and analysis before the first step; it and "
        "its floor end at the step. The analysis copies 7 checkpoints and draws its two figures.",
        "PyTorch itself imports its compiler and sympy for an optimizer: that is part of the floor.",
        "nfa's commands switch Python's garbage collection off during large imports and at the end. In the floors it "
        "is on, and takes a fifth of their time, so a ratio can be below 1.",
    ]
    store("startup", "Starting up against what the same imports take", dict(rows(seconds)), notes)


if __name__ == "__main__":
    main()
