"""A study as it comes from recorders, from its files to its gradient flow: every line that is printed is true."""

import re
from pathlib import Path

import numpy as np
import pytest

from nfa.registry.families.eeg import simulated
from nfa.registry.families.eeg.simulated import Simulation
from tests.support.eeg_file_formats import brainvision, edf, edf_gaps
from tests.support.eeg_trainings import TINY
from tests.support.processes import Ended, run, words
from tests.support.stores import Store

RATE, SECONDS, LOST, AFTER = 256, 75, 0.5, 20
NAMES = ("Fz", "Cz", "Pz", "Oz", "T7", "T8")
SETTINGS = Simulation(subjects=2, stimuli=3, seconds=SECONDS + 5, channels=len(NAMES), snr_db=0.0)
SIZES = {name: TINY[name] for name in ("window_seconds", "d_model", "d_inner", "n_layers", "conv_kernel_size")}
GAPPED, RENAMED = "sub-001_-_story-1_-_eeg.edf", "sub-001_-_story-2_-_eeg.vhdr"


def recorded(subject: int, stimulus: int) -> dict[str, np.ndarray]:
    """EEG in µV by channel at 256 Hz, and something that is none."""
    made = simulated.recording(SETTINGS, subject, stimulus)
    slow = np.arange(SETTINGS.samples) / 64
    fast = np.arange(SETTINGS.seconds * RATE) / RATE
    rows = zip(NAMES, (made.response + made.noise).T, strict=True)
    eeg = {name: 30 * np.interp(fast, slow, row) for name, row in rows}
    return {**eeg, "Resp": 100 * np.sin(2 * np.pi * 0.3 * fast)}


def write_study(folder: Path) -> None:
    """Two subjects who heard three stories: EDF+D with a gap, BDF+, BrainVision renamed and not, FIF."""
    import mne

    folder.mkdir(parents=True)
    for subject, story in ((s, k) for s in (0, 1) for k in (0, 1, 2)):
        name = f"sub-{subject + 1:03d}_-_story-{story + 1}"
        signals = {each: row[: SECONDS * RATE] for each, row in recorded(subject, story).items()}
        stem, seconds, stamps = folder / f"{name}_-_eeg", float(SECONDS), list(map(str, range(SECONDS)))
        if (subject, story) == (0, 0):
            keep = np.ones(round((SECONDS + LOST) * RATE), bool)
            keep[AFTER * RATE :][: round(LOST * RATE)] = False
            lasting = recorded(subject, story)
            stamps = [str(k) if k < AFTER else f"{k + LOST}" for k in range(SECONDS)]
            seconds = SECONDS + LOST
            edf(stem.with_suffix(".edf"), {e: row[: len(keep)][keep] for e, row in lasting.items()}, onsets=stamps)
        elif story == 2 - subject:
            info = mne.create_info([*signals], RATE, ["eeg"] * len(NAMES) + ["resp"])
            raw = mne.io.RawArray(1e-6 * np.stack([*signals.values()]), info, verbose="ERROR")
            raw.save(stem.with_suffix(".fif"), verbose="ERROR")
        elif subject and story:
            edf(stem.with_suffix(".bdf"), signals, onsets=stamps, label="BDF+C")
        else:
            called = "recording_0002" if not subject else ""
            brainvision(stem.with_suffix(".vhdr"), signals, interval="3906.25", called=called)
        heard = simulated.envelope(SETTINGS, story)
        np.save(folder / f"{name}_-_envelope.npy", heard[: round(64 * seconds)].astype(np.float32))


def act(store: Store, entrypoint: str, **parameters: object) -> Ended:
    return run(store, words(**parameters), entrypoint=entrypoint, NFA_CACHE=str(store.folder.parent / "cache"))


def line(output: str, stage: str) -> list[str]:
    """What was said under the name of a stage."""
    return re.findall(rf"^ *{re.escape(stage)}  (.*)$", output, re.MULTILINE)


@pytest.mark.slow
def test_a_study_of_four_formats_is_prepared_trained_on_and_diagnosed(fresh: Store, tmp_path: Path) -> None:
    pytest.importorskip("mne")
    source, target = tmp_path / "study", tmp_path / "prepared"
    write_study(source)
    assert edf_gaps(source / GAPPED, RATE, 1.0) == [(AFTER * RATE, LOST)]
    asked = {"source": source, "target": target, "envelope_rate": 64, "split": "recordings"}
    refused = act(fresh, "prepare_eeg", **asked)
    assert refused.code == 2
    assert f"{GAPPED} (0.5 s are missing at 20.000 s, sample 5120 counted from 0)" in refused.output
    assert not target.exists()

    made = act(fresh, "prepare_eeg", **asked, gaps="cut", run_name="prepared")
    assert made.code == 0, made.output
    assert line(made.output, "channels") == [
        "6 used: Fz, Cz, Pz, Oz, T7, T8; not used: Resp (breathing by its name)",
        "sub-001_-_story-3: 6 used: Fz, Cz, Pz, Oz, T7, T8; not used: Resp (resp)",
        "sub-002_-_story-2: 6 used: Fz, Cz, Pz, Oz, T7, T8; not used: Resp (resp)",
    ]
    assert line(made.output, "notice") == [
        f"{GAPPED}: cut at its gaps, 0.5 s in all",
        *(
            f"{RENAMED} points to recording_0002.{ending}, which does not exist, so {RENAMED[:-4]}{ending} is used"
            for ending in ("eeg", "vmrk")
        ),
    ]
    files = {split: [path.name for path in target.glob(f"{split}_-_*_-_eeg.npy")] for split in ("train", "val", "test")}
    stories = {split: {name.split("_-_")[2].partition("+")[0] for name in names} for split, names in files.items()}
    assert {len(each) for each in stories.values()} == {1}
    words_of_split = ", ".join(f"2 {split} ({next(iter(of))})" for split, of in stories.items())
    by = "is normalised by the training recordings of its subject"
    assert line(made.output, "split") == [f"whole recordings: {words_of_split}; each {by}"]
    assert sum(len(names) for names in files.values()) == 7, "one of them in two pieces"

    trained = act(fresh, "train_eeg", **SIZES, data_dir=target, epochs=12, eval_every=4, run_name="trained", lr=0.01)
    assert trained.code == 0, trained.output
    minutes = sum(len(np.load(target / name)) for name in files["train"]) / 64 / 60
    counted = "2 + 2 + 2 recordings (train + val + test) of 2 subjects, 6 channels"
    assert line(trained.output, "data") == [f"prepared: {counted}, {minutes:.1f} minutes to train on"]
    what = "2 whole recordings of training subjects"
    assert line(trained.output, "split") == [f"val = {what}, test = {what}; each recording {by}"]
    ids = fresh.named()
    results = fresh.json(ids["trained"], "results.json")
    said = line(trained.output, "test")[0]
    reached = (results["test"]["pearson"], results["test"]["baseline_pearson"], results["epoch"])
    assert said == "r {:.4f}, the linear baseline's {:.4f} (best epoch {})".format(*reached)
    assert results["test"]["baseline_pearson"] > 0.3, "EEG and speech go together in recordings that are held out"
    assert {name.partition("_-_")[2] for name in results["test"]["recordings"]} == stories["test"]

    flow = act(fresh, "gradient_flow", run_id=ids["trained"])
    assert flow.code == 0, flow.output
    values = fresh.json(next(run_id for run_id in fresh.runs() if run_id not in ids.values()), "gradient_flow.json")
    assert values
    assert "Traceback" not in made.output + trained.output + flow.output
