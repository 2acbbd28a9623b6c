"""Folders of recordings in the `split_data` layout: which files belong together, and everything that is wrong."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nfa.errors import Refusal
from nfa.registry.families.eeg.config import RATE
from nfa.registry.families.eeg.prepared_names import piece_of, recording_of
from nfa.registry.families.eeg.recording_files import Facts

SPLITS = ("train", "val", "test")
KINDS = ("eeg", "envelope")
RATES = (32, 50, 100, 125, 128, 200, 250, 256, 500, 512, 1000, 1024, 2048, 8000, 8192, 16000, 44100, 48000)
LINES = 8
Key = tuple[str, str, str]
Files = Mapping[Key, Mapping[str, Path]]


@dataclass(frozen=True)
class RecordingPart:
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
        """The name that train, val and test parts of a recording, and pieces of a part, share."""
        return recording_of(self.subject, self.stimulus)

    @property
    def piece(self) -> int:
        """The number of the piece within its part, counted from 1."""
        return piece_of(self.stimulus)


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


def split_of(files: Iterable[Key], asked: str) -> str:
    """Return how val and test are held out: as `asked`, or for "auto" by the files, ignoring unknown subjects."""
    whole = _recordings(files, *SPLITS[1:]) - _recordings(files, "train")
    return ("recordings" if whole else "time") if asked == "auto" else asked


def _recordings(files: Iterable[Key], *splits: str) -> set[str]:
    return {recording_of(subject, stimulus) for split, subject, stimulus in files if split in splits}


def _subjects(files: Iterable[Key], *splits: str) -> set[str]:
    return {subject for split, subject, _ in files if split in splits}


def faults_of(files: Files, facts: Mapping[Path, Facts], window: int, split: str) -> list[str]:
    """Everything that is wrong with the files and with their being together; `window` in samples.

    `split` says how val and test are held out: "time", "recordings" or "subjects". Of the pieces of a part one has to
    hold a window.
    """
    found = [*_of_the_set(files, split), *_of_channels(files, facts)]
    trained, trained_subjects = _recordings(files, "train"), _subjects(files, "train")
    longest = _longest(files, facts)
    for key, pair in files.items():
        partner = {kind: "_-_".join((*key, kind)) for kind in KINDS if kind not in pair}
        found += [f"{_present(pair)}: the matching file {name}.npy is missing" for name in partner.values()]
        if split != "subjects" and key[1] not in trained_subjects:
            found.append(f"{_present(pair)}: unknown subject {key[1]}, who has no train part")
        elif split == "time" and recording_of(*key[1:]) not in trained:
            found.append(f"{_present(pair)}: the recording has no train part, so it cannot be normalised")
        found += [f"{path.name}: {facts[path].fault}" for path in pair.values() if facts[path].fault]
        least = window if longest[_part(key)] < window else 1
        found += _of_a_part({kind: path for kind, path in pair.items() if not facts[path].fault}, facts, least)
    return found


def _part(key: Key) -> tuple[str, str]:
    """Split and recording, which the pieces of a part have in common."""
    return key[0], recording_of(*key[1:])


def _longest(files: Files, facts: Mapping[Path, Facts]) -> dict[tuple[str, str], int]:
    """Samples of the longest piece of each part."""
    found: dict[tuple[str, str], int] = {}
    for key, pair in files.items():
        samples = min(facts[path].samples for path in pair.values())
        found[_part(key)] = max(found.get(_part(key), 0), samples)
    return found


def sound(files: Files, facts: Mapping[Path, Facts]) -> Files:
    """Pairs of readable files that have as many channels as most."""
    whole = {key: pair for key, pair in files.items() if len(pair) == len(KINDS)}
    readable = {key: pair for key, pair in whole.items() if not any(facts[path].fault for path in pair.values())}
    usual = _usual(facts[pair["eeg"]].channels for pair in readable.values())
    return {
        key: pair
        for key, pair in readable.items()
        if facts[pair["eeg"]].channels == usual and facts[pair["envelope"]].channels == 1
    }


def refused(name: str, folder: Path, faults: list[str], window: int) -> Refusal:
    """Return a refusal that lists the faults, the first ones in full."""
    more = [f"and {len(faults) - LINES} more"] if len(faults) > LINES else []
    lines = "".join(f"\n    {line}" for line in [*faults[:LINES], *more])
    count = f"{len(faults)} fault" + "s" * (len(faults) > 1)
    return Refusal(
        f"{name}: {folder}: {count}{lines}",
        f"pairs {{{'|'.join(SPLITS)}}}_-_SUBJECT_-_STIMULUS_-_{{eeg|envelope}}.npy, [samples, channels] and "
        f"[samples, 1], finite floats, {RATE} samples a second, {window} samples ({window / RATE:g} s) or longer",
        "correct or remove these files; split=recordings allows recordings without a train part, "
        "split=subjects subjects without one",
    )


def _of_the_set(files: Files, split: str) -> Iterator[str]:
    splits = {each for each, _, _ in files}
    yield from (f"{each}_-_*: no such files" for each in SPLITS if each not in splits)
    if split == "recordings" and not _recordings(files, *SPLITS[1:]) - _recordings(files, "train"):
        yield "split=recordings: all recordings of val and test also have train parts"
    if split == "subjects" and not _subjects(files, *SPLITS[1:]) - _subjects(files, "train"):
        yield "split=subjects: all subjects of val and test also have train parts"


def _present(pair: Mapping[str, Path]) -> str:
    return next(iter(pair.values())).name


def _of_a_part(pair: Mapping[str, Path], facts: Mapping[Path, Facts], window: int) -> Iterator[str]:
    """Yield faults of a part's readable files, which need at least `window` samples."""
    for kind, path in pair.items():
        fact = facts[path]
        if kind == "envelope" and fact.channels != 1:
            yield f"{path.name}: shape {[fact.samples, fact.channels]}; [samples, 1] expected"
        if fact.samples < window:
            yield (
                f"{path.name}: {fact.samples} samples ({fact.samples / RATE:g} s), shorter than a window of {window} "
                f"({window / RATE:g} s)"
            )
    if len({facts[path].samples for path in pair.values()}) == 2:
        yield _lengths(pair["eeg"], *(facts[pair[kind]].samples for kind in KINDS))


def _lengths(path: Path, eeg: int, envelope: int) -> str:
    ratio = max(eeg, envelope) / max(1, min(eeg, envelope))
    rates = (candidate for rate in RATES for candidate in (rate / RATE, RATE / rate))
    seems = any(abs(ratio / candidate - 1) < 0.01 for candidate in rates)
    hint = f"; the rates seem to differ by a factor {ratio:.3g}, but both must be {RATE} Hz" if seems else ""
    return f"{path.name}: {eeg} samples, its envelope {envelope}{hint}"


def _of_channels(files: Files, facts: Mapping[Path, Facts]) -> Iterator[str]:
    readable = [pair["eeg"] for pair in files.values() if "eeg" in pair and not facts[pair["eeg"]].fault]
    usual = _usual(facts[path].channels for path in readable)
    for path in readable:
        if facts[path].channels != usual:
            yield f"{path.name}: {facts[path].channels} channels; the other recordings have {usual}"


def _usual(counts: Iterable[int]) -> int:
    return max([(number, count) for count, number in Counter(counts).items()], default=(0, 0))[1]
