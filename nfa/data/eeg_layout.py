"""Folders of recordings in the `split_data` layout: which files belong together, and everything that is wrong."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nfa.config.eeg import RATE
from nfa.data.eeg_facts import Facts
from nfa.errors import Refusal

SPLITS = ("train", "val", "test")
KINDS = ("eeg", "envelope")
RATES = (32, 50, 100, 125, 128, 200, 250, 256, 500, 512, 1000, 1024, 2048, 8000, 8192, 16000, 44100, 48000)
LINES = 8
Key = tuple[str, str, str]
Files = Mapping[Key, Mapping[str, Path]]


@dataclass(frozen=True)
class Part:
    """A pair of files, `{split}_-_{subject}_-_{stimulus}_-_{eeg|envelope}.npy`, each of `samples` samples.

    `first` is the place of its first sample when all parts stand one after the other: train, val, test, each by name.
    """

    split: str
    subject: str
    stimulus: str
    eeg: Path
    envelope: Path
    samples: int
    first: int

    @property
    def recording(self) -> str:
        """What its train, val and test parts have in common."""
        return f"{self.subject}_-_{self.stimulus}"


def found(folder: Path) -> tuple[dict[Key, dict[str, Path]], list[str]]:
    """Files of the layout by split, subject, stimulus and kind; and faults of the folder and of names in it."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        return {}, [f"{folder}: {error.strerror}"]
    files, faults = _sorted_out(paths)
    return files, faults if files or faults else ["no files of the layout"]


def _sorted_out(paths: list[Path]) -> tuple[dict[Key, dict[str, Path]], list[str]]:
    files: dict[Key, dict[str, Path]] = {}
    faults = []
    for path in paths:
        *words, kind = path.name.removesuffix(".npy").split("_-_")
        if path.suffix != ".npy" or kind not in KINDS or not words or path.name.startswith("."):
            continue
        if len(words) == 3 and words[0] in SPLITS and all(words):
            files.setdefault((words[0], words[1], words[2]), {})[kind] = path
        else:
            faults.append(
                f"{path.name}: not SPLIT_-_SUBJECT_-_STIMULUS_-_{kind}.npy with a split of {', '.join(SPLITS)}"
            )
    return dict(sorted(files.items(), key=lambda item: (SPLITS.index(item[0][0]), item[0]))), faults


def faults_of(files: Files, facts: Mapping[Path, Facts], window: int) -> list[str]:
    """Everything that is wrong with the files and with their being together; `window` in samples."""
    found = [*_of_the_set(files), *_of_channels(files, facts)]
    for key, pair in files.items():
        found += _of_names(key, pair, files)
        found += [f"{path.name}: {facts[path].fault}" for path in pair.values() if facts[path].fault]
        found += _of_a_part(key, {kind: path for kind, path in pair.items() if not facts[path].fault}, facts, window)
    return found


def refused(name: str, folder: Path, faults: list[str], window: int) -> Refusal:
    """All faults in one message, the first of them in words."""
    more = [f"and {len(faults) - LINES} more"] if len(faults) > LINES else []
    lines = "".join(f"\n    {line}" for line in [*faults[:LINES], *more])
    count = f"{len(faults)} fault" + "s" * (len(faults) > 1)
    return Refusal(
        f"{name}: {folder}: {count}{lines}",
        f"pairs {{{'|'.join(SPLITS)}}}_-_SUBJECT_-_STIMULUS_-_{{eeg|envelope}}.npy, [samples, channels] and "
        f"[samples, 1], finite floats, {RATE} samples a second, {window} samples ({window / RATE:g} s) or longer",
        "mend these files or take them out of the folder; every recording needs its train part, which normalises it",
    )


def _of_the_set(files: Files) -> Iterator[str]:
    splits = {split for split, _, _ in files}
    yield from (f"{split}_-_*: no such files" for split in SPLITS if split not in splits)


def _of_names(key: Key, pair: Mapping[str, Path], files: Files) -> Iterator[str]:
    split, subject, stimulus = key
    present = next(iter(pair.values())).name
    yield from (
        f"{present}: its partner {'_-_'.join((*key, kind))}.npy is missing" for kind in KINDS if kind not in pair
    )
    if not any(other[:2] == ("train", subject) for other in files) and split != "train":
        yield f"{present}: unknown subject {subject}, of whom there is no train part"
    elif ("train", subject, stimulus) not in files:
        yield f"{present}: the recording has no train part, so nothing normalises it"


def _of_a_part(key: Key, pair: Mapping[str, Path], facts: Mapping[Path, Facts], window: int) -> Iterator[str]:
    """Faults of a part's readable files."""
    for kind, path in pair.items():
        fact = facts[path]
        if kind == "envelope" and fact.channels != 1:
            yield f"{path.name}: shape {[fact.samples, fact.channels]}; [samples, 1] expected"
        if fact.samples < window:
            yield (
                f"{path.name}: {fact.samples} samples ({fact.samples / RATE:g} s), shorter than a window of {window} "
                f"({window / RATE:g} s)"
            )
        elif key[0] == "train" and (channel := fact.flat()) is not None:
            yield f"{path.name}: channel {channel} (counted from 0) has no variance, so it cannot be normalised"
    if len({facts[path].samples for path in pair.values()}) == 2:
        yield _lengths(pair["eeg"], *(facts[pair[kind]].samples for kind in KINDS))


def _lengths(path: Path, eeg: int, envelope: int) -> str:
    ratio = max(eeg, envelope) / max(1, min(eeg, envelope))
    rates = (candidate for rate in RATES for candidate in (rate / RATE, RATE / rate))
    seems = any(abs(ratio / candidate - 1) < 0.01 for candidate in rates)
    hint = f"; as of rates that differ by {ratio:.3g}; samples a second: {RATE} expected of both" if seems else ""
    return f"{path.name}: {eeg} samples, its envelope {envelope}{hint}"


def _of_channels(files: Files, facts: Mapping[Path, Facts]) -> Iterator[str]:
    sound = [pair["eeg"] for pair in files.values() if "eeg" in pair and not facts[pair["eeg"]].fault]
    counts = Counter(facts[path].channels for path in sound)
    usual = counts.most_common(1)[0][0] if counts else 0
    for path in sound:
        if facts[path].channels != usual:
            yield f"{path.name}: {facts[path].channels} channels; the other recordings have {usual}"
