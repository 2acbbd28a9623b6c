"""`python -m benchmarks.chaos` plays all scenarios and stores the record; with names only those, storing nothing."""

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import record
from benchmarks.chaos.campaign import Campaign, Scenario
from benchmarks.chaos.clock import Clock
from benchmarks.chaos.rounds import Bench, Round
from benchmarks.chaos.scenarios import ALL
from benchmarks.chaos.scenarios.disks import own_mounts

SECONDS = 570.0  # of ten minutes; the rest is for the end


def main() -> int:
    """1 where anything was seen that should not be."""
    own_mounts()
    named = sys.argv[1:]
    chosen = [scenario for scenario in ALL if not named or scenario.name in named]
    bench = Bench(Path(tempfile.mkdtemp(prefix="chaos-")), Clock(SECONDS))
    rows = play(bench, chosen)
    if named:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        store(rows)
    faulty = any(row["faults"] for row in rows.values())
    if faulty:
        print(f"the faulty rounds are in {bench.folder}", file=sys.stderr)
    else:
        shutil.rmtree(bench.folder)
    return int(faulty)


def play(bench: Bench, scenarios: Sequence[Scenario]) -> dict[str, dict[str, object]]:
    """What the scenarios have shown, by name."""
    maker = Round(bench, "maker")
    maker.ends(maker.launch([sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{bench.prepared}"]), {0})
    campaign = Campaign(bench, scenarios)
    campaign.play()
    return {row.scenario.name: row.record() for row in campaign.rows}


def store(rows: dict[str, dict[str, object]]) -> None:
    """Keep the record, from which docs/chaos.md is made."""
    record.store(
        "chaos",
        "Chaos: what becomes of runs when processes, servers and disks fail",
        rows,
        [
            "All rounds use real processes in new folders. The moments of failure are drawn with fixed seeds; what "
            "a process is doing at that moment depends on the machine.",
            "Equal: all checkpoints and all metric rows are bitwise those of the same command without any failure.",
            "Duplicates: metric rows with the same run, key and step, and checkpoints that are registered twice as "
            "models.",
            "Litter: files that the same command does not leave without a failure (in the folder where it was "
            "typed, the artifacts, TMPDIR, the cache or the home folder), truncated files, and processes that are "
            "still alive.",
            "Leaks: places (terminals, files, tables) that show the password, which is in the environment of every "
            "round.",
            "Seconds: the longest time from a signal to the end of the process while the store does not answer. 5 s "
            "are allowed, and 2 s more because the machine is busy with other things.",
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
