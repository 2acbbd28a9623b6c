"""A file of somebody's own that makes workloads, and trainings of them in this process."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nfa.registry.families.by_name import TrainAnyConfig, training_of
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.training.start import train
from tests.support.analyses import undrawn
from tests.support.stores import Finished, Store

LAB = '''
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import Dataset, TensorDataset

import nfa

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


class Blurred(Dataset):
    """Draws noise for each example."""

    def __init__(self, data, noise):
        self.data, self.noise = data, noise

    def __len__(self):
        return len(self.data)

    def __getitem__(self, place):
        x, y = self.data[place]
        return x + self.noise * torch.randn(x.shape), y


def examples(count, seed):
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


def loss(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


def accuracy(outputs, targets):
    return (outputs.argmax(dim=1) == targets).float()


def network(width, activation):
    return nn.Sequential(nn.Linear(6, width), ACTIVATIONS[activation](), nn.Linear(width, width), nn.ReLU(),
                         nn.Linear(width, 3))


def drawing(width):
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 3))


def supervised(model, train=None, **more):
    options = {"loss": loss, "val": examples(16, 1), "test": examples(16, 2), "metrics": {"accuracy": accuracy}}
    return nfa.Supervised(model=model, train=train or examples(48, 0), **{**options, **more})


def make(width: int = 6, activation="relu"):
    return supervised(lambda: network(width, activation))


def blurred(width: int = 8, noise: float = 0.1):
    return supervised(lambda: drawing(width), Blurred(examples(48, 0), noise))
'''
TINY: dict[str, Any] = {"epochs": 3, "schedule": "0-3", "batch_size": 16}


def write_lab(folder: Path, more: str = "", *, name: str = "my_lab.py", old: str = "", new: str = "") -> Path:
    """The file, with `more` below it, and `old` in it changed to `new`."""
    assert old in LAB
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(LAB.replace(old, new) + more if old else LAB + more, encoding="utf-8")
    return file


@contextmanager
def imports() -> Iterator[None]:
    """Files of that name are imported anew inside and forgotten afterwards, as are folders to import from."""
    path = [*sys.path]
    _forget()
    try:
        yield
    finally:
        sys.path[:] = path
        _forget()


def _forget() -> None:
    for name, module in [*sys.modules.items()]:
        if Path(getattr(module, "__file__", None) or "").name.startswith("my_lab"):
            del sys.modules[name]


def train_lab(store: Store, workload: str = "my_lab:make", **parameters: Any) -> str:
    """Id of the run that a training in this process makes: with several, of the parent."""
    known = store.runs()
    with undrawn():
        train(training_of(TrainAnyConfig(**{**TINY, "workload": workload, **parameters})), Stopwatch())
    return next(run_id for run_id in store.runs() if run_id not in known)


def change_config(run: Finished, changes: Mapping[str, Mapping[str, Any]], **plain: Any) -> None:
    """Another config.json, as if the run had been made with it; checkpoints know nothing of it."""
    stored = run.store.json(run.run_id, "config.json")
    parts = {part: {**stored[part], **values} for part, values in changes.items()}
    run.store.write_json(run.run_id, "config.json", {**stored, **parts, **plain})
