"""Prepare EEG recordings for training: checked, resampled, split, normalised, written all together or not at all."""

import dataclasses
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nfa import __version__, unfinished
from nfa.console import bar, stage
from nfa.content import json_digest
from nfa.errors import NfaError, Refusal
from nfa.plain_text import counted
from nfa.registry import tracking
from nfa.registry.commands import command
from nfa.registry.descriptions import describe_end
from nfa.registry.families.eeg.layout import KINDS, SPLITS
from nfa.registry.families.eeg.preparation import recordings as eeg_recordings
from nfa.registry.families.eeg.preparation.config import PrepareEEGConfig
from nfa.registry.families.eeg.preparation.filters import SHORTEST, FilterSettings, Span, spans_of
from nfa.registry.families.eeg.preparation.formats import OpenedRecording, open_recording
from nfa.registry.families.eeg.preparation.prepared_files import Written, normalise, write
from nfa.registry.families.eeg.preparation.recordings import Recording
from nfa.registry.families.eeg.preparation.signals import Signal
from nfa.registry.families.eeg.scales import normalised_by
from nfa.registry.folders import typed_folder
from nfa.registry.signals import shielded
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.tracking import DataInput

SPACE_MARGIN = 2**20
HEADER = 256  # bytes of a .npy file beside its values
Plans = Mapping[str, tuple[Span, ...]]  # what becomes of each recording


def prepare_eeg(config: PrepareEEGConfig, _: Stopwatch, found: tuple[list[Recording], Path]) -> None:
    """Check every file's header, then write the `split_data` layout into `config.target`, in a tracked run.

    The run gets `preparation.json`: for each recording rates, lengths, statistics and the SHA-256 of what was written.
    """
    recordings, target = found
    settings = FilterSettings(config.rate, config.train_share, config.val_share, config.highpass, config.lowpass)
    held = eeg_recordings.held_out(recordings, config)
    plans, channels = _checked(recordings, config, settings, held)
    _check_space(target, plans, channels)
    _say_split(recordings, config, held)
    called = f"{typed_folder(config.source).resolve().name} eeg prepared at {config.rate} Hz"
    with tracking.open_run("prepare_eeg", "eeg", name=config.run_name, otherwise=called) as run:
        run.log_params(dataclasses.asdict(config))
        stage("run", f"{run.run_id}, {len(recordings)} recording{'s' * (len(recordings) > 1)}")
        try:
            report = _written(recordings, config, settings, plans, held, target)
        except OSError as error:
            raise NfaError(f"{target} could not be written: {error}\n  do: fix it, then prepare again") from error
        run.log_datasets(_inputs(report, target))
        tracking.put_json(run.info, "preparation.json", report)
        after = command("train_eeg", data_dir=str(target))
        describe_end(run, f"{called}, {counted(len(recordings), 'recording')}", after=after)
    stage("next", after)
    stage("done", f"{target}  {run.link}")


def _checked(
    recordings: Sequence[Recording], config: PrepareEEGConfig, settings: FilterSettings, held: Mapping[str, str]
) -> tuple[Plans, int]:
    """Plans, and how many channels all have; raise `Refusal` for the first file that does not fit.

    What is to be said of files is said.
    """
    found, cuts, channels = {}, [], 0
    expected: OpenedRecording | None = None
    for recording in bar(recordings, "check", unit="recording"):
        opened = open_recording(recording, config)
        _say(recording, opened, expected)
        expected = expected or opened
        _check_channels(opened.eeg, expected.eeg)
        spans = spans_of(opened.eeg, opened.envelope, settings, held.get(recording.name, ""))
        _say_gaps(opened, spans, settings)
        found[recording.name], channels = spans, len(opened.eeg.channels)
        cuts.append(abs(opened.eeg.seconds - opened.envelope.seconds))
    cut = [seconds for seconds in cuts if seconds * settings.rate >= 1]
    if cut:
        which = f"{len(cut)} recording{'s' * (len(cut) > 1)}"
        stage("notice", f"{which} cut to the shorter of EEG and envelope, by up to {max(cut):.3f} s")
    return found, channels


def _say(recording: Recording, opened: OpenedRecording, first: OpenedRecording | None) -> None:
    """Print notes on a file, and its channels if they differ from those of the first file."""
    for note in opened.notes:
        stage("notice", note)
    if first is None:
        stage("channels", opened.channels)
    elif opened.channels != first.channels:
        stage("channels", f"{recording.name}: {opened.channels}")


def _say_gaps(opened: OpenedRecording, spans: Sequence[Span], settings: FilterSettings) -> None:
    """Print how a recording is cut at its gaps, and how much lies in pieces that are too short."""
    eeg = opened.eeg
    lasting = [(segment.onset, segment.onset + (segment.stop - segment.start) / eeg.rate) for segment in eeg.segments]
    missing = eeg.seconds - sum(end - begin for begin, end in lasting)
    if missing * eeg.rate < 0.5:
        return
    until = min(eeg.seconds, opened.envelope.seconds)
    used = sum(span.last - span.first for span in spans) / settings.rate
    left = sum(max(0.0, min(end, until) - begin) for begin, end in lasting) - used
    said = f"{Path(eeg.name).name}: cut at its gaps, {missing:.4g} s in all"
    if left * settings.rate > 2 * len(lasting):  # else edges between samples
        said += f"; {left:.3g} s are left out, in pieces below {SHORTEST:g} s"
    stage("notice", said)


def _say_split(recordings: Sequence[Recording], config: PrepareEEGConfig, held: Mapping[str, str]) -> None:
    """Print the split of the recordings, if whole ones are held out."""
    if not held:
        return
    place = 1 if config.split == "recordings" else 0
    counts = Counter(held.values())
    names = {split: sorted({each.heard[place] for each in recordings if held[each.name] == split}) for split in SPLITS}
    parts = [f"{counts[split]} {split} ({', '.join(names[split])})" for split in SPLITS]
    stage("split", f"whole recordings: {', '.join(parts)}; each is normalised by {_normalised_by(config)}")


def _normalised_by(config: PrepareEEGConfig) -> str:
    return normalised_by(config.split, config.unseen if config.split == "subjects" else "")


def _check_channels(eeg: Signal, expected: Signal) -> None:
    if eeg.channels != expected.channels:
        differing = sorted({*eeg.channels} ^ {*expected.channels}) or ["the same in another order"]
        raise Refusal(
            f"{eeg.name} ({len(eeg.channels)} channels; differing: {', '.join(differing[:5])})",
            f"the {len(expected.channels)} channels of {Path(expected.name).name}",
            "use the same channels in the same order for all recordings (see channels=), or prepare them into separate "
            "folders",
        )


def _check_space(target: Path, plans: Plans, channels: int) -> None:
    lengths = [span.last - span.first for spans in plans.values() for span in spans]
    needed = sum(4 * samples * (channels + 1) + 2 * HEADER for samples in lengths) + SPACE_MARGIN
    existing = next(folder for folder in (target, *target.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        got = f"{free / 2**20:.0f} MB free at {existing}"
        allowed = f"about {needed / 2**20:.0f} MB for the prepared files"
        raise Refusal(got, allowed, "free some space, or choose another target")


def _written(
    recordings: Sequence[Recording],
    config: PrepareEEGConfig,
    settings: FilterSettings,
    plans: Plans,
    held: Mapping[str, str],
    target: Path,
) -> dict[str, Any]:
    """Prepare into a hidden folder of the target and move the files once all are there; the report on them."""
    with unfinished.folder_in(target) as scratch:
        made: dict[str, dict[str, Written]] = {kind: {} for kind in KINDS}
        for recording in bar(recordings, "prepare", unit="recording"):
            opened = open_recording(recording, config)
            for kind, signal in zip(KINDS, (opened.eeg, opened.envelope), strict=True):
                spans = plans[recording.name]
                one = write(scratch, recording.name, kind, signal, spans, settings)
                if not held:
                    one.check("the train part")
                made[kind][recording.name] = one
        scales = {kind: normalise(made[kind], recordings, held, config) for kind in KINDS}
        report = {
            name: {
                "parts": {span.name: [span.first, span.last] for span in plans[name]},
                **{kind: made[kind][name].described(scales[kind][name]) for kind in KINDS},
            }
            for name in plans
        }
        with shielded():
            files = sorted(scratch.glob("*.npy"))
            for file in files:
                os.replace(file, target / file.name)
            for other in {*eeg_recordings.prepared_before(target, recordings)} - {target / file.name for file in files}:
                other.unlink()  # the same recordings, for other splits or in other pieces
    return {
        "nfa_version": __version__,
        "settings": dataclasses.asdict(settings),
        "split": config.split,
        "normalised_by": _normalised_by(config),
        "recordings": report,
    }


def _inputs(report: Mapping[str, Any], target: Path) -> list[DataInput]:
    """The prepared splits as datasets of the run, each with the digest of its files."""
    files = {
        name: digest
        for one in report["recordings"].values()
        for kind in KINDS
        for name, digest in one[kind]["files"].items()
    }
    of_split = {
        split: {name: digest for name, digest in files.items() if name.startswith(f"{split}_-_")} for split in SPLITS
    }
    return [DataInput(target.name, json_digest(own), str(target), split) for split, own in of_split.items()]
