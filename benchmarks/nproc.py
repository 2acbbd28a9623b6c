"""Two processes of one thread against one of one thread: an analysis of 20,000 examples, start-up not counted."""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.record import store
from nfa.registry import tracking
from nfa.registry.analyses.config import AnalyzeConfig
from nfa.registry.datasets import image_files
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.training.start import train

EXAMPLES = 20_000
TRAINING = TrainConfig(dataset="fashion-mnist", epochs=2, schedule="all", max_samples=16, width=512, depth=3)


def analysed(source: str, nproc: int) -> dict[str, dict[int, float]]:
    """Series of an analysis made in a process (or two) of its own, each with one thread."""
    # Another top_k, which no default relation uses, keeps one analysis from being copied for the other.
    words = {"run_id": source, "nproc": nproc, "max_samples": EXAMPLES, "directions": "all", "top_k": 10 + nproc}
    command = [sys.executable, "-m", "nfa", "analyze"]
    command += [word for name, value in words.items() for word in (f"--{name}", str(value))]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    output = subprocess.run(command, check=True, env=env, capture_output=True, text=True).stdout
    run_id = next(word for word in output.split() if "/runs/" in word).split("/runs/")[1].split("?")[0]
    return tracking.history(run_id)


def main() -> None:
    """Time, compare and record."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(folder, 'mlflow.db')}"
        os.chdir(folder)
        image_files.locate(TRAINING.dataset)
        train(TRAINING, Stopwatch(), None)
        source = tracking.find_run("latest").info.run_id
        one, two = analysed(source, 1), analysed(source, 2)
        os.chdir("/")
    # The first checkpoint also pays for starting up.
    seconds = [statistics.mean(list(series["nfa/seconds"].values())[1:]) for series in (one, two)]
    keys = [key for key in one if key.startswith("layer_")]
    difference = max(abs(one[key][step] - two[key][step]) for key in keys for step in one[key])
    store(
        "nproc",
        "Analysis of 20,000 Fashion-MNIST images, MLP 512 × 3, in one and in two processes of one thread",
        {
            "nproc=1, s per checkpoint": round(seconds[0], 2),
            "nproc=2, s per checkpoint": round(seconds[1], 2),
            "times faster": round(seconds[0] / seconds[1], 2),
            "largest difference of a value": f"{difference:.1e}",
        },
        [
            f"Default relations ({AnalyzeConfig.relations}), all outputs. Values are means over all checkpoints but "
            "the first."
        ],
    )


if __name__ == "__main__":
    main()
