"""The whole default job as a user types it, in an empty folder: digits, 100 epochs, 25 checkpoints with analysis."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import store

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run it once and record the split that the run itself has stored."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            str(Path(sys.executable).with_name("mlflow")),
            "run",
            str(ROOT),
            "-e",
            "train",
            "-P",
            "optimizer=sgd",
        ]
        start = time.perf_counter()
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall = time.perf_counter() - start
        split = json.loads(next(Path(folder).glob("mlruns/*/*/artifacts/timing.json")).read_text())
    results = {"mlflow run, wall, s": round(wall, 1)}
    results |= {f"{name}, s": round(value, 1) for name, value in split.items() if name != "digest"}
    store("job", "The default job: digits, 100 epochs, 25 checkpoints", results, ["One run, the database made anew."])


if __name__ == "__main__":
    main()
