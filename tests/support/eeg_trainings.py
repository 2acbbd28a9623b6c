"""What the tests of trainings on EEG share: the smallest of them, in this process and through its entry point."""

import os
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from nfa.registry.families.eeg import data as eeg
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.eeg.simulated import Simulation, simulate
from nfa.registry.families.eeg.training import decide
from nfa.registry.families.eeg.workload import EEGDecoder
from tests.support.processes import Ended, run, words
from tests.support.stores import Finished, Store

RECORDINGS: dict[str, Any] = {"subjects": 2, "stimuli": 2, "seconds": 40, "channels": 3}
TINY = {
    **RECORDINGS,
    "window_seconds": 2.0,
    "d_model": 8,
    "d_inner": 12,
    "n_layers": 1,
    "conv_kernel_size": 5,
    "epochs": 4,
    "schedule": "0,2",
    "eval_every": 3,
    "batch_size": 6,
    "windows_per_recording": 4,
    "histograms_every": 4,
}
EVALUATED, CHECKPOINTS = [0, 2, 3, 4], [0, 2, 4]
STEPS_AN_EPOCH = 3  # of 16 windows: 6, 6 and 4


def tiny_eeg(**parameters: Any) -> list[str]:
    """Words for the tiny training on EEG, changed where given."""
    return words(**{**TINY, **parameters})


def decode(store: Store, argv: list[str], **more: Any) -> Ended:
    """A training on EEG in a process of its own; simulated recordings are kept beside the store."""
    return run(store, argv, entrypoint="train_eeg", NFA_CACHE=str(store.folder.parent / "cache"), **more)


def decoded_run(store: Store) -> Finished:
    """The tiny training on EEG, with its figures."""
    ended = decode(store, tiny_eeg(), pictures=True)
    assert ended.code == 0, ended.output
    return Finished(store, store.runs()[0])


@dataclass(frozen=True)
class Event:
    """What TensorBoard itself reads of a run's event files: scalars by tag and step; whatever else has been written."""

    scalars: dict[str, dict[int, float]]
    histograms: dict[str, dict[int, Any]]
    images: dict[str, list[int]]


def events(store: Store, run_id: str) -> Event:
    """Asserts that nothing has been written twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    everything = {"scalars": 0, "histograms": 0, "images": 0, "compressedHistograms": 1}
    read = EventAccumulator(str(store.artifact(run_id, "tensorboard")), everything, purge_orphaned_data=False).Reload()
    scalars = {tag: [(item.step, item.value) for item in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    histograms = {
        tag: [(item.step, item.histogram_value) for item in read.Histograms(tag)] for tag in read.Tags()["histograms"]
    }
    images = {tag: [item.step for item in read.Images(tag)] for tag in read.Tags()["images"]}
    for rows in (*scalars.values(), *histograms.values()):
        assert len(dict(rows)) == len(rows)
    one, two = ({tag: dict(sorted(rows)) for tag, rows in each.items()} for each in (scalars, histograms))
    return Event(one, two, {tag: sorted(steps) for tag, steps in images.items()})


@cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@cache
def recordings(window: int = 128) -> eeg.EEGData:
    """The simulated recordings of the tiny training."""
    folder = Path(_kept().name) / "recordings"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "NFA_CACHE", str(Path(_kept().name) / "cache"))
        if not folder.exists():
            simulate(Simulation(**RECORDINGS), folder)
        return eeg.load(folder, window=window, name="simulated")


def tiny_decoder(**options: Any) -> EEGDecoder:
    """The workload of the tiny training."""
    config = TrainEEGConfig(**{**TINY, **options}).resolved()
    data = recordings(config.window)
    return EEGDecoder(config, data, decide(data, config))
