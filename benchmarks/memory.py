"""Peak memory of AGOP of all five layers of 3072-1024×5-10 above the model and its data, by number of examples."""

import subprocess
import sys

from benchmarks.agop import EXAMPLES, ours, simulated_workload
from benchmarks.record import peak_above_now, store
from nfa.observe.passes import site_weights

PROCESSES = 3


def peak_memory(n: int) -> float:
    """MB at the peak of a pass over n examples, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.memory", str(n)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def print_peak_memory(n: int) -> None:
    """Measure in this process."""
    workload = simulated_workload()
    model = workload.model()
    initial = site_weights(workload, model, list(workload.sites(model))[:-1])
    ours(workload, model, initial, "float32", 8)  # what the libraries allocate once
    with peak_above_now() as peak:
        ours(workload, model, initial, "float32", n)
    print(peak())


def main() -> None:
    """Measure for growing numbers of examples and record."""
    counts = (EXAMPLES, 4 * EXAMPLES)
    results = {f"{n:,} examples, MB": round(min(peak_memory(n) for _ in range(PROCESSES))) for n in counts}
    notes = [
        f"In float32. The examples repeat. The least of {PROCESSES} processes: what the C library keeps of free memory "
        "differs by 100 MB between them."
    ]
    store("memory", "Peak memory of AGOP of five layers above the model", results, notes)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print_peak_memory(int(sys.argv[1]))
    else:
        main()
