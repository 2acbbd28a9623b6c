"""What the tests of trainings on EEG share: the smallest of them, in this process and through its entry point."""

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support import words

from nfa.config import TrainEEGConfig
from nfa.data import eeg
from nfa.data.simulated_eeg import Simulation, simulate
from nfa.jobs import eeg_examples
from nfa.workloads.eeg import EEGDecoder

RECORDINGS = {"subjects": 2, "stimuli": 2, "seconds": 40, "channels": 3}
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
    "batch_size": 4,
    "windows_per_recording": 3,
    "histograms_every": 4,
}
EVALUATED, CHECKPOINTS, STEPS_AN_EPOCH = [0, 2, 3, 4], [0, 2, 4], 3


def tiny_eeg(**parameters: Any) -> list[str]:
    """Words for the tiny training on EEG, changed where given."""
    return words(**{**TINY, **parameters})


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
    return EEGDecoder(config, data, eeg_examples.decide(data, config))
