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
from tests.support.refusals import Prepare, Scene, table

TABLE = """
prepare_eeg --targt x | parameter 'targt' | source, target, overwrite, eeg_rate | did you mean --target?
prepare_eeg --target out | source='' | a folder (folder with pairs | give source=FOLDER
prepare_eeg --source nowhere --target out | source=…nowhere (No such file or directory)
    | a readable folder with recordings | check the path; relative paths start at the
train_eeg --seeds 1-2 --nproc 2 | seeds=1-2 with nproc=2 | nproc=1 for several trainings | n_workers=2 instead of
ablate_eeg --presets v1 --switches none --seeds 1 --n_workers 2 | n_workers=2 for a single training | n_workers=1
    | leave n_workers out
train_eeg --conv_kernel_size 6 | conv_kernel_size=6 | an odd number | conv_kernel_size=7
train_eeg --d_model 10 --n_head 4 | d_model=10 with n_head=4 | a width that is a multiple of n_head | d_model=256
train_eeg --preset v1 --use_mlp_head true | preset=v1 with use_mlp_head=True
    | use_mlp_head=False, which is the preset's, or auto | preset=custom
train_eeg --preset full --gradient_scale 3 | preset=full with gradient_scale=3.0 | gradient_scale=2.0 | preset=custom
train_eeg --preset custom --use_gated_residual true --use_residual false
    | use_gated_residual=true with use_residual=false | use_gated_residual only with a residual | use_residual=true
train_eeg --optimizer adam --momentum 0.9 | momentum=0.9 with optimizer=adam | momentum for sgd | leave momentum=auto
train_eeg --batch_size 5 --nproc 2 | batch_size=5 with nproc=2 | a batch size that is a multiple of nproc
    | batch_size=
train_eeg --window_seconds 15.7 | window_seconds=15.7 | a number > 0 and < 15.625, or auto | window_seconds
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
ablate_eeg --seeds 1,x | seeds='1,x' (at 'x') | ranges a-b | seeds=1-3
ablate_eeg --seeds 1,1 | seeds='1,1' (at '1') | each once | seeds=1-3
ablate_eeg --seeds= | seeds='' | ranges a-b | seeds=1-3
ablate_eeg --d_model 9 --n_head 2 | d_model=9 with n_head=2 | a width that is a multiple of n_head | d_model=128
ablate_eeg --seed 1 | parameter 'seed' | presets, switches | did you mean --seeds or --data_seed?
train_eeg --nproc 5 --batch_size 30 --subjects 4 --stimuli 2 | nproc=5 with 32 windows an epoch
    | at least one window per process in every | another batch_size or windows_per_recording
[store]
train_eeg --split subjects --subjects 2 --stimuli 2 | split=subjects with 4 recordings of 2 subjects and 2 stimuli
    | at least three subjects | split=time
train_eeg --seconds 10 --window_seconds 5 | simulated | 320 samples (5 s) or longer | correct or remove these files;
[recorded]
prepare_eeg $rates --source recorded | target='' | a folder (folder for the prepared files | give target=FOLDER
prepare_eeg $rates --source . --target out | (no recording in it) | pairs SUBJECT_-_STIMULUS_-_eeg.npy (.bdf
    | name the files like this
prepare_eeg $rates --source recorded --target recorded/notes.txt/below | target=…below (…notes.txt is not a folder)
    | a writable folder | choose another one
prepare_eeg $rates --source recorded --target $long_name | target=…xxx (File name too long) | a writable folder
    | choose another one
prepare_eeg --source recorded --target out --eeg_rate 0 --envelope_rate 128 | eeg.npy with eeg_rate=0
    | the rate of .npy files, which do not state it | for example eeg_rate=1024
prepare_eeg --source recorded --target out --envelope_rate 0.5 | envelope_rate=0.5 | 0, or 1 to 1000000 Hz
    | leave envelope_rate out
prepare_eeg $asked --train_share 0.9 | train_share=0.9 with val_share=0.1 | shares that leave something to test on: a
    | train_share=0.8 val_share=0.1
prepare_eeg $asked --val_share 0.0 | val_share=0.0 | a number > 0 and < 1
    | leave val_share out to use its default, 0.1
prepare_eeg $asked --highpass 8.0 --lowpass 2.0 | highpass=8.0 | a cut-off below lowpass=2.0
    | highpass=0.5, or 0 for none
prepare_eeg $asked --highpass 32.0 | highpass=32.0 | a cut-off below 32.0 Hz, half of rate=64
    | highpass=0.5, or 0 for none
prepare_eeg $asked --gaps join | gaps='join' | refuse, cut | gaps=refuse
prepare_eeg $asked --split stories | split='stories' | time, recordings, subjects | split=time
prepare_eeg $asked --unseen population | unseen=population with split=time | unseen with split=subjects
    | leave unseen out
prepare_eeg $asked --split recordings | split=recordings with 3 recordings of 2 subjects and 2 stimuli
    | at least two recordings to hold out, of | split=time, which divides each recording
prepare_eeg $asked --split subjects | 2 subjects and 2 stimuli | at least three subjects
    | split=time, which divides each recording
prepare_eeg $asked --channels 0,Fp1 | channels='0,Fp1' (sub-001_-_story_-_eeg.npy has no 'Fp1') | 0, 1, 2, 3
    | did you mean 1?
prepare_eeg $asked --channels '!*' | eeg.npy (no EEG channel among left out) | EEG channels
    | name those to use: channels=A*,B*
prepare_eeg $asked --lowpass 125.0 | lowpass=125.0 for …eeg.npy at 250 Hz | a cut-off below 125 Hz
    | a smaller lowpass, or 0 for none
[recorded: no partner]
prepare_eeg $asked | recorded: sub-001_-_story_-_eeg.npy without a matching file
[recorded: no EEG]
prepare_eeg $asked | sub-001_-_story_-_envelope.npy without a matching file
[recorded: two]
prepare_eeg $asked | sub-001_-_story_-_eeg.bdf beside sub-001_-_story_-_eeg.npy
[recorded: no array]
prepare_eeg $asked | sub-001_-_story_-_eeg.npy (
[recorded: empty]
prepare_eeg $asked | sub-001_-_story_-_eeg.npy (
[recorded: cut short]
prepare_eeg $asked | sub-001_-_story_-_eeg.npy (
[recorded: objects]
prepare_eeg $asked | sub-001_-_story_-_eeg.npy (
[recorded: words]
prepare_eeg $asked | eeg.npy (<U1, shape [1, 1]) | real numbers [T, C] | save the array in this shape
[recorded: flat EEG]
prepare_eeg $asked | (float64, shape [5000]) | real numbers [T, C] | save the array in this shape
[recorded: transposed]
prepare_eeg $asked | [4, 5000]: fewer samples than channels | [samples, channels] | save the transposed array
[recorded: two envelopes]
prepare_eeg $asked | shape [2560, 2]) | real numbers [T] or [T, 1] | save the array in this shape
[recorded: other length]
prepare_eeg $asked | eeg.npy (5000 samples at 250 Hz = 20.00 s) with …envelope.npy (3000 samples at 128 Hz = 23.44 s)
    | lengths that differ by at most 0.5 s | check eeg_rate and envelope_rate, and
[recorded: too short]
prepare_eeg $asked | story_-_eeg.npy (5.00 s, of it 0.50 s for val) | at least 1.0 s in each part
    | leave the recording out, or change
[recorded: channels]
prepare_eeg $asked | sub-002_-_story_-_eeg.npy (3 channels; differing: 3) | the 4 channels of sub-001_-_story_-_eeg
    | use the same channels in the same order for
[recorded: companions]
prepare_eeg $asked | sub-001_-_story_-_eeg.vhdr (
[recorded: without MNE]
prepare_eeg $asked | bdf without mne, which is not installed | with the packages of nfa[eeg]
    | pip install 'nfa[eeg]', or save it as .npy
[recorded: full disk]
prepare_eeg $asked | MB free at | for the prepared files | free some space, or choose another target
[recorded: of MNE, 500 Hz]
prepare_eeg $asked | eeg_rate=250 with …eeg.fif | …500 Hz | leave eeg_rate out
[recorded: of MNE, no EEG]
prepare_eeg --source recorded --target out --envelope_rate 128 | eeg.fif (no EEG channel among misc, stim)
    | EEG channels | name those to use: channels=A*,B*
[recorded: damaged file of MNE]
prepare_eeg --source recorded --target out --envelope_rate 128 | eeg.fif ( | whole files | copy or export it again
[recorded: prepared already]
prepare_eeg $rates --source already --target out | … | pairs SUBJECT_-_STIMULUS_-_eeg.npy (.bdf
    | these are already prepared: pass the folder
[stories: NaN]
train_eeg $tiny --window_seconds 0.5 --data_dir stories | val_-_sub-001_-_story-1_-_eeg.npy:
[stories: no variance]
train_eeg $tiny --window_seconds 0.5 --data_dir stories | channel 2 (counted from 0) has no variance | pairs
    | correct or remove these files;
[stories: stranger]
train_eeg $tiny --window_seconds 0.5 --data_dir stories | unknown subject sub-009, who has no train part | pairs
    | correct or remove these files;
[stories: short]
train_eeg $tiny --window_seconds 0.5 --data_dir stories | 20 samples (0.3125 s), shorter than a window of 32 | pairs
    | correct or remove these files;
[stories: no EEG of val]
train_eeg $tiny --window_seconds 0.5 --data_dir stories
    | the matching file val_-_sub-001_-_story-1_-_eeg.npy is missing
[store: slow in bfloat16]
train_eeg $tiny --precision bfloat16 | precision=bfloat16 on cpu | a device with bfloat16 units | precision=float32
[store: launched, 1 process]
train_eeg $tiny --nproc 2 | nproc=2 in 1 process | as many processes as nproc | nproc=1, or no launcher
[store: launched, 3 processes]
train_eeg $tiny --nproc 3 | WORLD_SIZE=3 in the environment without MASTER_ADDR, MASTER_PORT
    | processes that a launcher such as torchrun | start with nproc=N
"""
FIRST = raw.RECORDINGS[0]
TRAIN, VAL = prepared.stem("train"), prepared.stem("val")


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


def slow_in_bfloat16(scene: Scene) -> None:
    scene.monkeypatch.setattr("nfa.workloads.devices.has_bfloat16_units", lambda _: False)


def launched(**environment: str) -> Callable[[Scene], object]:
    """As a launcher starts it."""

    def say(scene: Scene) -> None:
        for name, value in environment.items():
            scene.monkeypatch.setenv(name, value)

    return say


PREPARED: dict[str, Prepare] = {
    "no partner": files(lambda f: (f / f"{FIRST}_-_envelope.npy").unlink()),
    "no EEG": files(lambda f: (f / f"{FIRST}_-_eeg.npy").unlink()),
    "two": files(lambda f: (f / f"{FIRST}_-_eeg.bdf").touch()),
    "no array": files(lambda f: (f / f"{FIRST}_-_eeg.npy").write_bytes(b"?")),
    "empty": files(lambda f: (f / f"{FIRST}_-_eeg.npy").write_bytes(b"")),
    "cut short": files(lambda f: os.truncate(f / f"{FIRST}_-_eeg.npy", 5000)),
    "objects": eeg(np.array([{}, {}])),
    "words": eeg(np.array([["a"]])),
    "flat EEG": eeg(raw.signals(0)[0][:, 0]),
    "transposed": eeg(raw.signals(0)[0].T),
    "two envelopes": envelope(np.ones((2560, 2))),
    "other length": envelope(np.ones(3000)),
    "too short": files(five_seconds),
    "channels": files(lambda f: raw.save(f, "sub-002_-_story_-_eeg.npy", raw.signals(0)[0][:, :3])),
    "companions": files(companions),
    "without MNE": without_mne,
    "full disk": no_space,
    "of MNE, 500 Hz": of_mne(rate=500.0),
    "of MNE, no EEG": of_mne(kinds=["misc", "stim"]),
    "damaged file of MNE": damaged_of_mne,
    "prepared already": prepared_already,
    "NaN": spoiled(VAL, without_a_number),
    "no variance": spoiled(TRAIN, without_variance),
    "stranger": of_a_stranger,
    "short": spoiled(VAL, lambda a: a[:20]),
    "no EEG of val": lambda scene: (scene.folder / f"stories/{VAL}_-_eeg.npy").unlink(),
    "slow in bfloat16": slow_in_bfloat16,
    "launched, 1 process": launched(WORLD_SIZE="1", RANK="0"),
    "launched, 3 processes": launched(WORLD_SIZE="3", RANK="0"),
}
ROWS = table(TABLE, PREPARED)
