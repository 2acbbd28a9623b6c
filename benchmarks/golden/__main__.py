"""`python -m benchmarks.golden` plays and compares with the record; `--write` stores it; `--quick` is one short group.

Words without dashes are names of groups, to play only those.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.golden.differences import differences
from benchmarks.golden.files import digest
from benchmarks.golden.groups import GROUPS, QUICK
from benchmarks.golden.masks import ROOT
from benchmarks.golden.plays import Group, empty_store, player_of
from benchmarks.golden.stores import Kinds

RECORD = ROOT / "benchmarks" / "results" / "golden.json"
AT_ONCE = 2
Found = dict[str, Kinds]


def main() -> int:
    """1 where anything is another than in the record."""
    words = sys.argv[1:]
    names = [word for word in words if not word.startswith("--")]
    groups = [group for group in GROUPS if not names or group.name in names]
    groups = [QUICK] if "--quick" in words else groups
    folder = Path(tempfile.mkdtemp(prefix="golden-"))
    found = play(groups, folder)
    if "--keep" in words:
        print(f"kept in {folder}")
    else:
        shutil.rmtree(folder)
    if "--write" in words:
        write(found, complete=groups == [*GROUPS])
        return 0
    return compare(found, groups)


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
    return found | {"project": {"files": {"MLproject": digest((ROOT / "MLproject").read_text(encoding="utf-8"))}}}


def write(found: Found, *, complete: bool) -> None:
    """Store the record; of some groups only their own part of it."""
    from benchmarks.record import machine

    results = found if complete else {**stored(), **found}
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


def compare(found: Found, groups: Sequence[Group]) -> int:
    """Print what is another."""
    chosen = (*(f"{group.name}: " for group in groups), "project")
    lines = differences(found, {name: kinds for name, kinds in stored().items() if name.startswith(chosen)})
    print("\n".join(lines) or f"{len(found)} runs and steps are as stored")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
