"""What the tests of every entry point share: the smallest run of each family and of workloads that files name."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from nfa.errors import NfaError
from nfa.registry import cli
from nfa.registry.entry_points import entry_points
from nfa.registry.training.tracked import TrackedTraining
from tests.support import analyses, gradient_direction_runs, gradient_flow_runs
from tests.support.eeg_trainings import TINY as EEG
from tests.support.fine_tunings import Place, used_place
from tests.support.processes import words
from tests.support.stores import Store, used
from tests.support.tiny_runs import TINY as MLP
from tests.support.workload_files import imports

MY_LAB = '''
import torch
from torch import nn
from torch.utils.data import TensorDataset

import nfa


def make(width: int = 6, items: int = 24):
    """A small network on numbers."""
    x = torch.randn(items, 4, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, (x[:, 0] > 0).long())
    net = lambda: nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))
    return nfa.Supervised(model=net, loss=nn.CrossEntropyLoss(reduction="none"), train=data, val=data, test=data)
'''
NAMED = "my_lab:make"
TRAINS = {"mlp": "train", "eeg": "train_eeg", "lora": "train_lora", NAMED: "train"}


@contextmanager
def undrawn() -> Iterator[None]:
    """Drawing and mapping takes longer than everything else here."""
    with ExitStack() as without:
        for leave_out in (
            analyses.undrawn,
            gradient_flow_runs.undrawn,
            gradient_direction_runs.undrawn,
            gradient_direction_runs.unmapped,
        ):
            without.enter_context(leave_out())
        yield


@dataclass(frozen=True)
class Runs:
    """A store with a finished run of each family, by the family's name, and what they were trained with."""

    store: Store
    place: Place
    ids: Mapping[str, str]

    def options(self, family: str) -> dict[str, Any]:
        """Parameters of the family's smallest training."""
        own = {
            "mlp": {**MLP, "epochs": 2, "schedule": "0,2"},
            "eeg": {**EEG, "epochs": 2},
            "lora": self.place.options(steps=2),
            NAMED: {"workload": NAMED, "epochs": 2, "schedule": "0,2", "batch_size": 8},
        }
        return own[family]

    @property
    def cache(self) -> str:
        """Where fetched and simulated data are."""
        return str(self.place.folder / "cache")

    def do(self, entrypoint: str, **parameters: Any) -> None:
        """What `python -m nfa NAME` does once its words are there, in this process; nothing is drawn."""
        with undrawn():
            cli.starter(entrypoint)(cli.parse(entry_points()[entrypoint].parameters, words(**parameters)))

    def made(self, entrypoint: str, **parameters: Any) -> str:
        """Id of the first run that an entry point makes."""
        known = self.store.runs()
        self.do(entrypoint, **parameters)
        return next(run_id for run_id in self.store.runs() if run_id not in known)


@contextmanager
def used_runs(runs: Runs) -> Iterator[Runs]:
    """This process uses their store and what their trainings have read; it imports their file anew."""
    with imports(), pytest.MonkeyPatch.context() as patch, used(runs.store, patch), used_place(runs.place):
        yield runs


def train_all(store: Store) -> Runs:
    """A run of each family."""
    (store.folder / "my_lab.py").write_text(MY_LAB, encoding="utf-8")
    runs, ids = Runs(store, Place.made(store.folder / "place"), {}), {}
    with used_runs(runs):
        for family, entrypoint in TRAINS.items():
            ids[family] = runs.made(entrypoint, **runs.options(family))
    return Runs(store, runs.place, ids)


def failed(runs: Runs, family: str) -> str:
    """Id of a run of the family's smallest training that has failed when its last checkpoint was to be stored."""
    known, save = runs.store.runs(), TrackedTraining.save

    def until_the_last(training: TrackedTraining, epoch: int) -> str:
        if epoch:
            raise NfaError("the disk is full")
        return save(training, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrackedTraining, "save", until_the_last)
        with pytest.raises(NfaError, match="the disk is full"):
            runs.do(TRAINS[family], **runs.options(family))
    (run_id,) = set(runs.store.runs()) - set(known)
    return run_id
