"""Find the recordings in a folder, and files that have been prepared from them before.

Nothing heavy is imported here, so a missing partner or package is known before a program has started in earnest.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nfa.errors import Refusal, reading
from nfa.extras import check_extra
from nfa.registry.families.eeg.preparation.config import PrepareEEGConfig
from nfa.registry.families.eeg.prepared_names import NAME, PREPARED, recording_of
from nfa.registry.families.eeg.splits import assigned
from nfa.registry.folders import COUNTS, typed_folder

RECORDED = re.compile(rf"(?P<name>{NAME}_-_{NAME})_-_(?P<kind>eeg|envelope)\.(?P<ending>.+)")
COMPANIONS = {"vmrk", "amrk", "fdt", "json", "tsv", "pnt", "log", "21e"}  # what some formats keep beside the main file
BESIDE = {"vhdr": {"eeg", "dat", "avg", "seg"}, "ahdr": {"eeg"}, "lay": {"dat"}}  # beside a header of their own only
ALLOWED = "pairs SUBJECT_-_STIMULUS_-_eeg.npy (.bdf, .edf, .fif, .vhdr, .set, …) and SUBJECT_-_STIMULUS_-_envelope.npy"


@dataclass(frozen=True)
class Recording:
    """Files of what one subject listened to; `name` is SUBJECT_-_STIMULUS."""

    name: str
    eeg: Path
    envelope: Path

    @property
    def heard(self) -> tuple[str, str]:
        """Subject and stimulus."""
        subject, _, stimulus = self.name.partition("_-_")
        return subject, stimulus

    @property
    def needs_mne(self) -> bool:
        """Whether the EEG file is not a .npy file, so that MNE must read it."""
        return self.eeg.suffix != ".npy"


def chosen(config: PrepareEEGConfig) -> tuple[list[Recording], Path]:
    """Recordings in `config.source`, sorted by name, and the folder to write.

    `Refusal` for a folder that cannot be read or written, a missing partner, two files for one signal, an unknown rate,
    a format that needs MNE where that is not installed, too few recordings to hold some out, and prepared files in the
    target without `overwrite`.
    """
    recordings = find(typed_folder(config.source).resolve())
    held_out(recordings, config)
    _check_readable(recordings, config.eeg_rate)
    target = typed_folder(config.target).resolve()
    _check_target(target, config.overwrite)
    return recordings, target


def held_out(recordings: Sequence[Recording], config: PrepareEEGConfig) -> dict[str, str]:
    """The split of each recording by its name; empty if each is divided in time."""
    if config.split == "time":
        return {}
    shares = {"val": config.val_share, "test": 1 - config.train_share - config.val_share}
    found = assigned([each.heard for each in recordings], config.split, shares, config.seed)
    return {each.name: found[each.heard] for each in recordings}


def find(folder: Path) -> list[Recording]:
    """Recordings in a folder, sorted by name; files with other names are passed over."""
    with reading(f"source={folder}", "a readable folder with recordings", COUNTS):
        files = sorted(path for path in folder.iterdir() if path.is_file())
    eeg, envelopes = _by_name(files, "eeg"), _by_name(files, "envelope")
    if not eeg and not envelopes:
        prepared = any(PREPARED.fullmatch(path.name) for path in files)
        remedy = "these are already prepared: pass the folder to train_eeg" if prepared else "name the files like this"
        raise Refusal(f"source={folder} (no recording in it)", ALLOWED, remedy)
    odd = eeg.keys() ^ envelopes.keys()
    lonely = [found[name].name for found in (eeg, envelopes) for name in sorted(found) if name in odd]
    if lonely:
        got = f"{folder}: {', '.join(lonely)} without a matching file"
        raise Refusal(got, ALLOWED, "add the other file, or remove this one")
    return [Recording(name, eeg[name], envelopes[name]) for name in sorted(eeg)]


def prepared_before(target: Path, recordings: Iterable[Recording]) -> list[Path]:
    """Prepared files of these recordings in a folder, whatever split they were for."""
    names = {recording.name for recording in recordings}
    files = ((path, PREPARED.fullmatch(path.name)) for path in target.iterdir())
    return [path for path, name in files if name and recording_of(name["subject"], name["stimulus"]) in names]


def _by_name(files: Iterable[Path], kind: str) -> dict[str, Path]:
    """The file to open for each recording; raise `Refusal` for two."""
    found: dict[str, Path] = {}
    matches = [(path, match) for path in files if (match := RECORDED.fullmatch(path.name)) and match["kind"] == kind]
    headed = {(match["name"], ending) for _, match in matches for ending in BESIDE.get(match["ending"].lower(), ())}
    for path, match in matches:
        name, ending = match["name"], match["ending"].lower()
        if ending in COMPANIONS or (name, ending) in headed or (kind == "envelope" and ending != "npy"):
            continue
        if name in found:
            raise Refusal(f"{found[name]} beside {path.name}", "one EEG file per recording", "remove one of the two")
        found[name] = path
    return found


def _check_readable(recordings: Iterable[Recording], eeg_rate: float) -> None:
    for recording in recordings:
        if not recording.needs_mne and not eeg_rate:
            got = f"{recording.eeg} with eeg_rate=0"
            raise Refusal(got, "the rate of .npy files, which do not state it", "for example eeg_rate=1024")
        if recording.needs_mne:
            check_extra(str(recording.eeg), "eeg", "mne", otherwise="save it as .npy")


def _check_target(target: Path, overwrite: bool) -> None:
    with reading(f"target={target}", "a writable folder", "choose another one"):
        existing = next(folder for folder in (target, *target.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        trouble = "not writable" if existing.is_dir() else "not a folder"
        raise Refusal(f"target={target} ({existing} is {trouble})", "a writable folder", "choose another one")
    held = sorted(path.name for path in target.iterdir() if PREPARED.fullmatch(path.name)) if target.exists() else []
    if held and not overwrite:
        got = f"target={target} (it holds {held[0]}{f' and {len(held) - 1} more' if len(held) > 1 else ''})"
        allowed = "a folder without prepared files"
        raise Refusal(got, allowed, "choose another folder, or overwrite=true to replace files of the same recordings")
