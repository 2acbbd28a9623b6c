"""Check the chain of tags in FIF files: each tag holds the position of the next one, and MNE follows them."""

import gzip
import struct
from pathlib import Path

ENDINGS = (".fif", ".fif.gz")
HEADER = struct.Struct(">8xii")  # after its kind and type, a tag's size, and where the next one is: 0 = behind it


def check_chain(path: Path) -> None:
    """Raise ValueError if the chain of tags has a cycle, so that reading would never end."""
    seen: set[int] = set()
    position = 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while position >= 0:
            if position in seen:
                raise ValueError("its tags form a cycle")
            seen.add(position)
            file.seek(position)
            content = file.read(HEADER.size)
            if len(content) < HEADER.size:
                return
            size, following = HEADER.unpack(content)
            position = following or position + HEADER.size + size
