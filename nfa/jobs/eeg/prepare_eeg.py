"""Prepare EEG recordings for training: checked, resampled, split, normalised, written all together or not at all."""

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nfa import __version__, tracking, unfinished
from nfa.config.eeg_preparation import PrepareEEGConfig
from nfa.console import bar, stage
from nfa.content import write_array
from nfa.data import eeg_recordings
from nfa.data.eeg_formats import open_recording
from nfa.data.eeg_preparation import SPLITS, Prepared, Settings, Signal, part_edges, prepare
from nfa.data.eeg_recordings import Recording, prepared_name
from nfa.ends import shielded
from nfa.errors import NfaError, Refusal
from nfa.tracking import DataInput

SPACE_MARGIN = 2**20
HEADER = 256  # bytes of a .npy file beside its values
KINDS = ("eeg", "envelope")
Edges = Mapping[str, tuple[int, int]]


def prepare_eeg(config: PrepareEEGConfig) -> None:
    """Check every file's header, then write the `split_data` layout into `config.target`, in a tracked run.

    The run gets `preparation.json`: for each recording rates, lengths, statistics and the SHA-256 of what was written.
    """
    recordings, target = eeg_recordings.chosen(config)
    settings = Settings(config.rate, config.train_share, config.val_share, config.highpass, config.lowpass)
    edges = _checked(recordings, config, settings)
    _check_space(target, edges)
    with tracking.open_run("prepare_eeg", "eeg", name=config.run_name) as run:
        run.log_params(dataclasses.asdict(config))
        stage("run", f"{run.run_id}, {len(recordings)} recordings")
        try:
            report = _written(recordings, config, settings, {name: found for name, (found, _) in edges.items()}, target)
        except OSError as error:
            raise NfaError(f"{target} could not be written: {error}\n  do: mend it, then prepare again") from error
        run.log_datasets(_inputs(report, target))
        tracking.put_json(run.info, "preparation.json", report)
    stage("done", f"{target}  {run.link}")


def _checked(
    recordings: Sequence[Recording], config: PrepareEEGConfig, settings: Settings
) -> dict[str, tuple[dict[str, tuple[int, int]], int]]:
    """By recording: edges of its parts and number of channels; `Refusal` for the first file that does not fit."""
    found = {}
    cuts = []
    expected: Signal | None = None
    for recording in bar(recordings, "check", unit="recording"):
        eeg, envelope = open_recording(recording, config.eeg_rate, config.envelope_rate)
        expected = expected or eeg
        _check_channels(eeg, expected)
        found[recording.name] = part_edges(eeg, envelope, settings), len(eeg.channels)
        cuts.append(abs(eeg.seconds - envelope.seconds))
    cut = [seconds for seconds in cuts if seconds * settings.rate >= 1]
    if cut:
        stage("notice", f"{len(cut)} recordings cut to the shorter of EEG and envelope, by up to {max(cut):.3f} s")
    return found


def _check_channels(eeg: Signal, expected: Signal) -> None:
    if eeg.channels != expected.channels:
        differing = sorted({*eeg.channels} ^ {*expected.channels}) or ["the same in another order"]
        raise Refusal(
            f"{eeg.name} ({len(eeg.channels)} channels; differing: {', '.join(differing[:5])})",
            f"the {len(expected.channels)} channels of {Path(expected.name).name}",
            "give all recordings the same channels in the same order, or prepare them into folders of their own",
        )


def _check_space(target: Path, edges: Mapping[str, tuple[Edges, int]]) -> None:
    sizes = [4 * parts["test"][1] * (channels + 1) for parts, channels in edges.values()]
    needed = sum(sizes) + 2 * len(SPLITS) * HEADER * len(sizes) + SPACE_MARGIN
    existing = next(folder for folder in (target, *target.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise Refusal(
            f"{free / 2**20:.0f} MB free at {existing}",
            f"about {needed / 2**20:.0f} MB for the prepared files",
            "free some space, or give another target",
        )


def _written(
    recordings: Sequence[Recording],
    config: PrepareEEGConfig,
    settings: Settings,
    edges: Mapping[str, Edges],
    target: Path,
) -> dict[str, Any]:
    """Prepare into a hidden folder of the target and move the files once all are there; the report on them."""
    report: dict[str, Any] = {}
    with unfinished.folder_in(target) as scratch:
        for recording in bar(recordings, "prepare", unit="recording"):
            both = dict(zip(KINDS, open_recording(recording, config.eeg_rate, config.envelope_rate), strict=True))
            report[recording.name] = {"parts": {split: list(edge) for split, edge in edges[recording.name].items()}}
            for kind, signal in both.items():
                made = prepare(signal, edges[recording.name], settings, filtered=kind == "eeg")
                report[recording.name][kind] = _described(signal, made) | {
                    "files": _saved(made, scratch, recording.name, kind)
                }
        with shielded():
            for file in sorted(scratch.glob("*.npy")):
                os.replace(file, target / file.name)
    return {"nfa_version": __version__, "settings": dataclasses.asdict(settings), "recordings": report}


def _described(signal: Signal, made: Prepared) -> dict[str, Any]:
    return {
        "source": signal.name,
        "rate": signal.rate,
        "samples": signal.samples,
        "channels": list(signal.channels),
        "mean": made.mean.tolist(),
        "deviation": made.deviation.tolist(),
    }


def _saved(made: Prepared, folder: Path, recording: str, kind: str) -> dict[str, str]:
    """Write the parts; the SHA-256 of each file by its name."""
    digests = {}
    for split, part in made.parts.items():
        path = folder / prepared_name(split, recording, kind)
        write_array(path, part)
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _inputs(report: Mapping[str, Any], target: Path) -> list[DataInput]:
    """The prepared splits as datasets of the run, each with the digest of its files."""
    files = {
        name: digest
        for one in report["recordings"].values()
        for kind in KINDS
        for name, digest in one[kind]["files"].items()
    }
    return [
        DataInput(
            target.name,
            tracking.digest({name: digest for name, digest in files.items() if name.startswith(f"{split}_-_")}),
            str(target),
            split,
        )
        for split in SPLITS
    ]
