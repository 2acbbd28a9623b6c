"""Names of prepared files: split, subject and stimulus, and the piece of a part that a gap divides."""

import re

NAME = r"((?!_-_).)+"
PREPARED = re.compile(rf"(?P<split>train|val|test)_-_(?P<subject>{NAME})_-_(?P<stimulus>{NAME})_-_(eeg|envelope)\.npy")
PIECE = re.compile(r"(.+)\+(\d+)of\d+")


def prepared_name(split: str, recording: str, kind: str, piece: str = "") -> str:
    """File name of a prepared array, `kind` eeg or envelope; `piece` where gaps divide the part.

    >>> prepared_name("val", "sub-001_-_story", "eeg"), prepared_name("val", "sub-001_-_story", "eeg", "+1of2")
    ('val_-_sub-001_-_story_-_eeg.npy', 'val_-_sub-001_-_story+1of2_-_eeg.npy')
    """
    return f"{split}_-_{recording}{piece}_-_{kind}.npy"


def recording_of(subject: str, stimulus: str) -> str:
    """The recording that a part of a stimulus, or a piece of one, belongs to.

    >>> recording_of("sub-001", "story"), recording_of("sub-001", "story+2of3")
    ('sub-001_-_story', 'sub-001_-_story')
    """
    found = PIECE.fullmatch(stimulus)
    return f"{subject}_-_{found[1] if found else stimulus}"


def piece_of(stimulus: str) -> int:
    """Return the number of the piece within its part, counted from 1.

    >>> piece_of("story"), piece_of("story+2of3")
    (1, 2)
    """
    found = PIECE.fullmatch(stimulus)
    return int(found[2]) if found else 1
