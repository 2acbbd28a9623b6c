"""What `train_eeg`, `ablate_eeg` and `prepare_eeg` refuse."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import prepared_recordings as prepared
from tests.support import raw_recordings as raw
from tests.support.refusals import Scene, cases, table

WORDS = table("""
prepare_eeg --targt x | parameter 'targt' | … | did you mean --target?
prepare_eeg --target out | source=''
prepare_eeg --source nowhere --target out | source=…nowhere (No such file or directory)
train_eeg --conv_kernel_size 6 | conv_kernel_size=6 | an odd number | conv_kernel_size=7
train_eeg --d_model 10 --n_head 4 | d_model=10 with n_head=4 | heads divides | d_model=256
train_eeg --preset v1 --use_mlp_head true | preset=v1 with use_mlp_head=True
    | use_mlp_head=False, which is the preset's, or auto | preset=custom
train_eeg --preset full --gradient_scale 3 | preset=full with gradient_scale=3.0 | gradient_scale=2.0 | preset=custom
train_eeg --preset custom --use_gated_residual true --use_residual false
    | use_gated_residual=true with use_residual=false | a gate where there is a residual | use_residual=true
train_eeg --optimizer adam --momentum 0.9 | momentum=0.9 with optimizer=adam | momentum for sgd | leave momentum out
train_eeg --batch_size 5 --nproc 2 | batch_size=5 with nproc=2 | share equally | batch_size=
train_eeg --window_seconds 15.7 | window_seconds=15.7 | … | window_seconds
train_eeg --window_seconds 0.01 | window_seconds=0.01 (1 samples) | 2 to 1000 samples | =5
train_eeg --use_se yes | use_se='yes' | true, false | use_se=true
train_eeg --use_llrd 1 | use_llrd='1' | true, false | use_llrd=false
train_eeg --dropout 1.0 | dropout=1.0 | ≥ 0 and < 1 | leave dropout out
train_eeg --preset custom --gradient_scale 0 | gradient_scale=0.0 | > 0 | leave gradient_scale out
train_eeg --gradient_scale_position after_gate | gradient_scale_position='after_gate'
    | before_gate, before_head, before_stack | gradient_scale_position=before_gate
train_eeg --preset v2 | preset='v2' | v1, full, conservative, aggressive, custom | preset=v1
train_eeg --unseen population | unseen=population with split=auto | unseen with split=subjects | leave unseen out
train_eeg --device gpu | device='gpu' | auto, cpu | device=auto
ablate_eeg --presets v1,v3 | presets='v1,v3' (at 'v3') | v1, full, conservative, aggressive | presets=v1
ablate_eeg --switches use_gate | switches='use_gate' (at 'use_gate') | gradient_scale | switches=use_residual
ablate_eeg --seeds 1,x | seeds='1,x' | different whole numbers | seeds=1,2,3
ablate_eeg --seeds 1,1 | seeds='1,1' | different whole numbers | seeds=1,2,3
ablate_eeg --seeds= | seeds='' | different whole numbers | seeds=1,2,3
ablate_eeg --d_model 9 --n_head 2 | d_model=9 with n_head=2 | divides | d_model=128
ablate_eeg --seed 1 | parameter 'seed' | presets, switches | did you mean --seeds?
train_eeg --nproc 5 --batch_size 30 --subjects 4 --stimuli 2 | nproc=5 with 32 windows an epoch
""")
SIMULATED = table(
    """
train_eeg --split subjects --subjects 2 --stimuli 2
    | split=subjects with 4 recordings of 2 subjects and 2 stimuli | three subjects or more | split=time
train_eeg --seconds 10 --window_seconds 5 | simulated | 320 samples (5 s) or longer | mend
""",
    scene="store",
)
RECORDED = table(
    """
prepare_eeg $rates --source recorded | target=''
prepare_eeg $rates --source . --target out | (no recording in it)
prepare_eeg $rates --source recorded --target recorded/notes.txt/below | target=…below (…notes.txt is not a folder)
prepare_eeg $rates --source recorded --target $long_name | target=…xxx (File name too long)
prepare_eeg --source recorded --target out --eeg_rate 0 --envelope_rate 128
    | eeg.npy with eeg_rate=0 | … | eeg_rate=1024, say
prepare_eeg --source recorded --target out --envelope_rate 0.5 | envelope_rate=0.5 | 0, or 1 to 1000000 Hz
prepare_eeg $asked --train_share 0.9 | train_share=0.9 with val_share=0.1
prepare_eeg $asked --val_share 0.0 | val_share=0.0 | a number > 0 and < 1
prepare_eeg $asked --highpass 8.0 --lowpass 2.0 | highpass=8.0 | a cut-off below lowpass=2.0
prepare_eeg $asked --highpass 32.0 | highpass=32.0 | a cut-off below 32.0 Hz, half of rate=64
prepare_eeg $asked --gaps join | gaps='join' | refuse, cut
prepare_eeg $asked --split stories | split='stories' | time, recordings, subjects
prepare_eeg $asked --unseen population | unseen=population with split=time | … | leave unseen out
prepare_eeg $asked --split recordings | split=recordings with 3 recordings of 2 subjects and 2 stimuli
prepare_eeg $asked --split subjects | 2 subjects and 2 stimuli | three subjects or more
prepare_eeg $asked --channels 0,Fp1 | channels='0,Fp1' (sub-001_-_story_-_eeg.npy has no 'Fp1')
prepare_eeg $asked --channels '!*' | eeg.npy (no EEG channel among left out)
prepare_eeg $asked --lowpass 125.0 | lowpass=125.0 for …eeg.npy at 250 Hz
""",
    scene="recorded",
)

FIRST = raw.RECORDINGS[0]


def files(change: Callable[[Path], object]) -> Callable[[Scene], object]:
    """Recordings that are changed."""
    return lambda scene: change(scene.folder / "recorded")


def eeg(array: np.ndarray) -> Callable[[Scene], object]:
    return files(lambda folder: raw.save(folder, f"{FIRST}_-_eeg.npy", array))


def envelope(array: np.ndarray) -> Callable[[Scene], object]:
    return files(lambda folder: raw.save(folder, f"{FIRST}_-_envelope.npy", array))


def five_seconds(folder: Path) -> None:
    for kind, array in zip(("eeg", "envelope"), raw.signals(0, 5), strict=True):
        raw.save(folder, f"{FIRST}_-_{kind}.npy", array)


def of_mne(**made: Any) -> Callable[[Scene], object]:
    def write(scene: Scene) -> None:
        shutil.rmtree(scene.folder / "recorded")
        raw.mne_file(scene.folder / "recorded", "sub-009_-_story", **made)

    return write


def damaged_of_mne(scene: Scene) -> None:
    of_mne()(scene)
    (scene.folder / "recorded/sub-009_-_story_-_eeg.fif").write_bytes(b"not EEG at all")


def companions(folder: Path) -> None:
    """Of BrainVision files the header is the recording."""
    pytest.importorskip("mne")
    for ending in ("vhdr", "eeg", "vmrk"):
        (folder / f"{FIRST}_-_eeg.{ending}").touch()
    (folder / f"{FIRST}_-_eeg.npy").unlink()


def without_mne(scene: Scene) -> None:
    folder = scene.folder / "recorded"
    (folder / f"{FIRST}_-_eeg.npy").rename(folder / f"{FIRST}_-_eeg.bdf")
    scene.monkeypatch.setitem(sys.modules, "mne", None)


def no_space(scene: Scene) -> None:
    scene.monkeypatch.setattr("nfa.registry.families.eeg.preparation.prepare_eeg.SPACE_MARGIN", 2**60)


def prepared_already(scene: Scene) -> None:
    prepared.write(scene.folder / "already", prepared.small())


HEADERS = cases(
    "prepare_eeg $asked",
    {
        "no partner": (
            files(lambda f: (f / f"{FIRST}_-_envelope.npy").unlink()),
            f"recorded: {FIRST}_-_eeg.npy without partner",
        ),
        "no EEG": (
            files(lambda f: (f / f"{FIRST}_-_eeg.npy").unlink()),
            f"{FIRST}_-_envelope.npy without partner",
        ),
        "two": (
            files(lambda f: (f / f"{FIRST}_-_eeg.bdf").touch()),
            f"{FIRST}_-_eeg.bdf beside {FIRST}_-_eeg.npy",
        ),
        "no array": (files(lambda f: (f / f"{FIRST}_-_eeg.npy").write_bytes(b"?")), f"{FIRST}_-_eeg.npy ("),
        "empty": (files(lambda f: (f / f"{FIRST}_-_eeg.npy").write_bytes(b"")), f"{FIRST}_-_eeg.npy ("),
        "cut short": (files(lambda f: os.truncate(f / f"{FIRST}_-_eeg.npy", 5000)), f"{FIRST}_-_eeg.npy ("),
        "objects": (eeg(np.array([{}, {}])), f"{FIRST}_-_eeg.npy ("),
        "words": (eeg(np.array([["a"]])), "eeg.npy (<U1, shape [1, 1])"),
        "flat EEG": (eeg(raw.signals(0)[0][:, 0]), "(float64, shape [5000])"),
        "transposed": (eeg(raw.signals(0)[0].T), "[4, 5000]: fewer samples than channels"),
        "two envelopes": (envelope(np.ones((2560, 2))), "shape [2560, 2])"),
        "other length": (
            envelope(np.ones(3000)),
            "eeg.npy (5000 samples at 250 Hz = 20.00 s) with …envelope.npy (3000 samples at 128 Hz = 23.44 s)",
        ),
        "too short": (files(five_seconds), "story_-_eeg.npy (5.00 s, of it 0.50 s for val)"),
        "channels": (
            files(lambda f: raw.save(f, "sub-002_-_story_-_eeg.npy", raw.signals(0)[0][:, :3])),
            "sub-002_-_story_-_eeg.npy (3 channels; differing: 3) | the 4 channels of sub-001_-_story_-_eeg",
        ),
        "companions": (files(companions), f"{FIRST}_-_eeg.vhdr ("),
        "without MNE": (
            without_mne,
            "bdf (MNE is not installed) | … | pip install -c constraints.txt -e '.[eeg]'",
        ),
        "full disk": (no_space, "MB free at | for the prepared files"),
    },
    scene="recorded",
)
OF_MNE = [
    *table("prepare_eeg $asked | eeg_rate=250 with …eeg.fif | …500 Hz", scene="recorded", prepare=of_mne(rate=500.0)),
    *table(
        "prepare_eeg --source recorded --target out --envelope_rate 128 | eeg.fif (no EEG channel among misc, stim)",
        scene="recorded",
        prepare=of_mne(kinds=["misc", "stim"]),
    ),
    *table(
        "prepare_eeg --source recorded --target out --envelope_rate 128 | eeg.fif ( | whole files",
        scene="recorded",
        prepare=damaged_of_mne,
    ),
    *table(
        "prepare_eeg $rates --source already --target out | … | … | prepared already: give the folder to train_eeg",
        scene="recorded",
        prepare=prepared_already,
    ),
]

# ---- train_eeg

TRAIN, VAL = prepared.stem("train"), prepared.stem("val")


def spoiled(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Scene], object]:
    def spoil(scene: Scene) -> None:
        file = scene.folder / f"stories/{name}_-_eeg.npy"
        np.save(file, change(np.load(file)))

    return spoil


def without_a_number(array: np.ndarray) -> np.ndarray:
    array[5, 1] = np.nan
    return array


def without_variance(array: np.ndarray) -> np.ndarray:
    array[:, 2] = 3
    return array


def of_a_stranger(scene: Scene) -> None:
    heard = prepared.signals(np.random.default_rng(0), 90, 3)
    prepared.save(scene.folder / "stories", prepared.stem("test", subject=9), *heard)


STORIES = cases(
    "train_eeg $tiny --window_seconds 0.5 --data_dir stories",
    {
        "NaN": (spoiled(VAL, without_a_number), f"{VAL}_-_eeg.npy: "),
        "no variance": (spoiled(TRAIN, without_variance), "channel 2 (counted from 0) has no variance"),
        "stranger": (of_a_stranger, "unknown subject sub-009, of whom there is no train part"),
        "short": (spoiled(VAL, lambda a: a[:20]), "20 samples (0.3125 s), shorter than a window of 32"),
        "no partner": (
            lambda scene: (scene.folder / f"stories/{VAL}_-_eeg.npy").unlink(),
            f"its partner {VAL}_-_eeg.npy is missing",
        ),
    },
    scene="stories",
)


def slow_in_bfloat16(scene: Scene) -> None:
    scene.monkeypatch.setattr("nfa.workloads.devices.has_bfloat16_units", lambda _: False)


def launched(**environment: str) -> Callable[[Scene], object]:
    """As a launcher starts it."""

    def say(scene: Scene) -> None:
        for name, value in environment.items():
            scene.monkeypatch.setenv(name, value)

    return say


PREPARED = [
    *table(
        "train_eeg $tiny --precision bfloat16 | precision=bfloat16 on cpu | … | precision=float32",
        scene="store",
        prepare=slow_in_bfloat16,
    ),
    *table(
        "train_eeg $tiny --nproc 2 | nproc=2 in 1 process | … | nproc=1, or no launcher",
        scene="store",
        prepare=launched(WORLD_SIZE="1", RANK="0"),
    ),
    *table(
        "train_eeg $tiny --nproc 3 | WORLD_SIZE=3 in the environment without MASTER_ADDR, MASTER_PORT",
        scene="store",
        prepare=launched(WORLD_SIZE="3", RANK="0"),
    ),
]
ROWS = [*WORDS, *SIMULATED, *RECORDED, *HEADERS, *OF_MNE, *STORIES, *PREPARED]
