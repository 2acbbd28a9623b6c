"""Assign whole recordings to training, validation and testing."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from nfa.errors import Refusal

Recorded = tuple[str, str]  # subject and stimulus
HELD_OUT = ("test", "val")


def assigned(recordings: Sequence[Recorded], split: str, shares: Mapping[str, float], seed: int) -> dict[Recorded, str]:
    """The split of each recording, by `shares` of val and test as nearly as whole recordings or subjects allow.

    "recordings": recordings of one stimulus stay together, so that no speech that is held out is heard in training, and
    every subject keeps recordings to train on; with only one stimulus to spare, val and test have different subjects'
    recordings of it. "subjects": all recordings of a subject stay together. Which ones are held out is decided by the
    seed and their names alone. Raises `Refusal` if there are too few.
    """
    place = 1 if split == "recordings" else 0
    groups = sorted({each[place] for each in recordings}, key=lambda name: _order(seed, name))
    held = _held_out(recordings, groups, place, shares)
    if split == "recordings" and len(set(held.values())) < 2:
        held_recordings = _of_one_stimulus(recordings, groups)
    else:
        held_recordings = {each: held[each[place]] for each in recordings if each[place] in held}
    found = {each: held_recordings.get(each, "train") for each in recordings}
    if set(found.values()) != {"train", *HELD_OUT}:
        raise _too_few(recordings, split)
    return found


def _held_out(
    recordings: Sequence[Recorded], groups: Iterable[str], place: int, shares: Mapping[str, float]
) -> dict[str, str]:
    """Stimuli or subjects by the split that they are held out for: at least one each, and no more than its share."""
    sizes, taken, found = Counter(each[place] for each in recordings), Counter[str](), dict[str, str]()
    for group in groups:
        for split in HELD_OUT:
            fits = not taken[split] or taken[split] + sizes[group] <= shares[split] * len(recordings) + 1e-9
            if fits and _leaves(recordings, {*found, group}, place):
                found[group], taken[split] = split, taken[split] + sizes[group]
                break
    return found


def _leaves(recordings: Sequence[Recorded], held: set[str], place: int) -> bool:
    """Return whether recordings are left to train on; of every subject, if stimuli are held out."""
    left = {each[0] for each in recordings if each[place] not in held}
    return bool(left) and (place == 0 or left == {each[0] for each in recordings})


def _of_one_stimulus(recordings: Sequence[Recorded], groups: Iterable[str]) -> dict[Recorded, str]:
    """The recordings of a stimulus that every subject can spare, half of them for each split."""
    for stimulus in groups:
        own = sorted(each for each in recordings if each[1] == stimulus)
        if len(own) > 1 and _leaves(recordings, {stimulus}, 1):
            return {each: HELD_OUT[index % 2] for index, each in enumerate(own)}
    return {}


def _order(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def _too_few(recordings: Sequence[Recorded], split: str) -> Refusal:
    subjects, stimuli = (len({each[place] for each in recordings}) for place in (0, 1))
    got = f"split={split} with {len(recordings)} recordings of {subjects} subjects and {stimuli} stimuli"
    allowed = {
        "recordings": "at least two recordings to hold out, of stimuli that are not trained on, and one of every "
        "subject to train on",
        "subjects": "at least three subjects",
    }[split]
    return Refusal(got, allowed, "split=time, which divides each recording")
