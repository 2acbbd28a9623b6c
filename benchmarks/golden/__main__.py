"""Plays every entry point at tiny size and compares what comes of it with the record, in at most forty lines."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.golden.differences import LINES, differences
from benchmarks.golden.groups import GROUPS, QUICK
from benchmarks.golden.masks import ROOT
from benchmarks.golden.plays import Group, empty_store, player_of
from benchmarks.golden.stores import Kinds

RECORD = ROOT / "benchmarks" / "results" / "golden.json"
AT_ONCE = 2
NAMES = [group.name for group in GROUPS]
Found = dict[str, Kinds]


def main() -> int:
    """1 where anything is another than in the record."""
    asked = _asked()
    groups = [QUICK] if asked.quick else [group for group in GROUPS if group.name in (asked.group or NAMES)]
    folder = Path(tempfile.mkdtemp(prefix="golden-"))
    found = play(groups, folder)
    if asked.keep:
        print(f"kept in {folder}")
    else:
        shutil.rmtree(folder)
    if asked.write:
        write(found, groups)
        return 0
    return compare(found, groups, asked.lines)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.golden", description=__doc__)
    parser.add_argument("--group", action="append", choices=NAMES, help="play this group alone, or several of them")
    parser.add_argument("--keep", action="store_true", help="leave the folder with the stores")
    parser.add_argument("--lines", type=int, default=LINES, help="lines of differences at most")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--write", action="store_true", help="store the record of what is played")
    either.add_argument("--quick", action="store_true", help="play a part of a group, in half a minute")
    return parser.parse_args()


def play(groups: Sequence[Group], folder: Path) -> Found:
    """What came of each group, two groups at a time; and how long each took."""
    database = empty_store(folder)

    def one(group: Group) -> Found:
        player = player_of(group, folder / group.name.replace(" ", "-"), database)
        started = time.monotonic()
        found = player.play()
        parts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in player.seconds.items())
        print(f"{group.name}: {time.monotonic() - started:.0f} s ({parts})", flush=True)
        return {f"{group.name}: {name}": kinds for name, kinds in found.items()}

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = {name: kinds for made in pool.map(one, groups) for name, kinds in made.items()}
    return found | {"project": {"files": {"MLproject": (ROOT / "MLproject").read_text(encoding="utf-8")}}}


def write(found: Found, groups: Sequence[Group]) -> None:
    """Store the record; what it has of other groups stays."""
    from benchmarks.record import machine

    played = tuple(f"{group.name}: " for group in groups)
    results = {name: kinds for name, kinds in stored().items() if not name.startswith(played)} | found
    text = json.dumps(
        {
            "title": "What every entry point makes at tiny size",
            "command": "python -m benchmarks.golden --write",
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "results": results,
        },
        indent=0,
        ensure_ascii=False,
        sort_keys=True,
    )
    RECORD.write_text(text + "\n", encoding="utf-8")


def stored() -> Mapping[str, Kinds]:
    """The record's runs."""
    if not RECORD.exists():
        return {}
    results: dict[str, Kinds] = json.loads(RECORD.read_text(encoding="utf-8"))["results"]
    return results


def compare(found: Found, groups: Sequence[Group], most: int) -> int:
    """Print what is another in what these groups are to make."""
    names = [f"{group.name}: {step}" for group in groups for step in (group.name, *(one.name for one in group.steps))]
    chosen = (*names, "project")
    lines = differences(found, {name: kinds for name, kinds in stored().items() if name.startswith(chosen)}, most=most)
    print("\n".join(lines) or f"{len(found)} runs and steps are as stored")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
