"""Choose the EEG channels of a recording by their type in the file, by their names, or as configured."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from nfa.errors import Refusal

AUTO = "auto"
INSIDE = ("eog", "ecg", "ekg", "emg")  # HEOG, VEOGL, chin EMG
WORDS = {  # by the first word of a name in lower case, without digits
    "eye": ("roc", "loc", "eye", "gaze", "pupil"),
    "breathing": (
        "resp", "respiration", "breath", "flow", "airflow", "nasal", "thor", "thorax", "abd", "abdo", "abdomen",
        "chest", "belt",
    ),
    "blood": ("sao", "spo", "pleth", "plethysmogram", "ppg", "pulse", "hr", "bvp"),
    "skin": ("gsr", "eda", "scr", "temp", "temperature"),
    "movement": ("acc", "accel", "accelerometer", "gyro", "position", "body"),
    "stimulus": (
        "event", "marker", "markers", "trigger", "triggers", "trig", "status", "sti", "stim", "ttl", "din", "digi",
    ),
    "sensor": ("light", "photo", "photodiode", "diode", "sound", "audio", "mic", "microphone", "snore", "joystick"),
    "extra input": ("exg", "erg", "ana", "aux", "misc", "dc", "bip", "counter"),
}  # fmt: skip
KINDS = {word: kind for kind, words in WORDS.items() for word in words}
SHOWN = 40


@dataclass(frozen=True)
class Chosen:
    """Places of the channels that are used, in the file's order, and why each of the others is not."""

    used: tuple[int, ...]
    unused: Mapping[str, str]

    def described(self, names: Sequence[str]) -> str:
        """Both in one line."""
        used = _listed([names[place] for place in self.used])
        left = _listed([f"{name} ({why})" for name, why in self.unused.items()])
        return f"{len(self.used)} used: {used}" + (f"; not used: {left}" if left else "")


def implied(name: str) -> str:
    """Return the type other than EEG that a channel's name implies; empty if there is none.

    >>> [implied(name) for name in ("Resp oro-nasal", "HEOGL", "EXG1", "Fp1", "EEG Fpz-Cz", "TP9")]
    ['breathing', 'eog', 'extra input', '', '', '']
    """
    words = re.findall("[a-z]+", name.casefold())
    if not words or words[0] == "eeg":
        return ""
    return next((kind for kind in INSIDE if any(kind in word for word in words)), KINDS.get(words[0], ""))


def choose(path: Path, names: Sequence[str], types: Sequence[str], asked: str) -> Chosen:
    """Channels by `asked`: names or globs, comma-separated, `!` before those to leave out; auto = the EEG channels.

    `types` are MNE's, "eeg" also where a file states none. `Refusal` for words that fit no channel, and where none is
    left.
    """
    words = [word.strip() for word in asked.split(",") if word.strip() not in ("", AUTO)]
    wanted = [_fitting(path, word, names, asked) for word in words if not word.startswith("!")]
    left_out = [_fitting(path, word[1:].strip(), names, asked) for word in words if word.startswith("!")]
    unused = {}
    for name, kind in zip(names, types, strict=True):
        why = _why_not(name, kind) if not wanted else "" if any(name in each for each in wanted) else "not asked for"
        why = "left out" if any(name in each for each in left_out) else why
        if why:
            unused[name] = why
    used = tuple(place for place, name in enumerate(names) if name not in unused)
    if not used:
        among = ", ".join(sorted(set(unused.values())))
        raise Refusal(f"{path} (no EEG channel among {among})", "EEG channels", "name those to use: channels=A*,B*")
    return Chosen(used, unused)


def _why_not(name: str, kind: str) -> str:
    return kind if kind != "eeg" else f"{said} by its name" if (said := implied(name)) else ""


def _fitting(path: Path, word: str, names: Sequence[str], asked: str) -> set[str]:
    found = {name for name in names if name == word or fnmatchcase(name, word)}
    if not found:
        near = difflib.get_close_matches(word, names, n=1, cutoff=0.4)
        remedy = f"did you mean {near[0]}?" if near else "names or globs, comma-separated, ! before those to leave out"
        raise Refusal(f"channels={asked!r} ({path.name} has no {word!r})", _listed(list(names)), remedy)
    return found


def _listed(names: Sequence[str]) -> str:
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more])
