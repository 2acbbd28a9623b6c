"""Persyst recordings: the file that a header points to, and the times of its samples."""

from pathlib import Path, PureWindowsPath

from nfa.errors import Refusal
from nfa.registry.families.eeg.preparation.signals import Gap

ENDING = ".lay"
SLACK = 1e-6  # seconds, the last digit of a time


def check_pointed(path: Path) -> None:
    """Raise `Refusal` if the data that a header points to are missing; MNE takes them by that name alone."""
    named = next((value for name, value in _entries(path, "[fileinfo]") if name.lower() == "file"), "")
    if not (path.parent / PureWindowsPath(named).name).is_file():
        got = f"{path} (its File is {named or 'not named'}, which does not exist)"
        remedy = f"put it there, or write File={path.stem}.dat into the header for data of that name"
        raise Refusal(got, "a header beside the file that it points to", remedy)


def gaps_of(path: Path, rate: float) -> list[Gap]:
    """Between `sample=seconds` entries, one for each stretch of samples."""
    found = []
    last: tuple[int, float] | None = None
    for name, value in _entries(path, "[sampletimes]"):
        sample, seconds = int(name), float(value)
        missing = seconds - last[1] - (sample - last[0]) / rate if last else 0.0
        if abs(missing) > 0.5 / rate + SLACK:
            found.append(Gap(sample, missing))
        last = (sample, seconds)
    return found


def _entries(path: Path, section: str) -> list[tuple[str, str]]:
    """Names and values in a section of a header."""
    found, within = [], ""
    for line in map(str.strip, path.read_text(encoding="latin-1").splitlines()):
        if line.startswith("["):
            within = line.lower()
        elif within == section and "=" in line:
            name, _, value = line.partition("=")
            found.append((name.strip(), value.strip()))
    return found
