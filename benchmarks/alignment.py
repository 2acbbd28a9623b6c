"""All relations of a checkpoint, 3072-1024×5-10: one pass here, a pass for each layer and matrix otherwise."""

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.agop import CLASSES, EXAMPLES, simulated_workload
from benchmarks.baselines import agop_vmap_jacrev, cosine, gradient_moments, input_moments
from benchmarks.record import in_turn, peak_above_now, ratio, store
from nfa.measures.site_matrices import Conventions, SiteMeasures
from nfa.observe.directions import Directions
from nfa.observe.passes import BATCH_SIZE, Precision
from nfa.registry import stored_runs, tracking
from nfa.registry.families.mlp.session import stored_config
from nfa.registry.families.mlp.workload import MLPClassifier
from nfa.registry.families.stored import config_digest
from nfa.relations import needed
from nfa.studies.alignment import alignment

RELATIONS = ("agop_nfm", "g_vs_h", "g_vs_m", "h_vs_m")


def ours(
    workload: MLPClassifier,
    model: torch.nn.Module,
    *,
    n: int = EXAMPLES,
    precision: Precision = "float32",
    count: int = 0,
) -> Mapping[str, float]:
    """Every relation of every hidden layer; examples repeat beyond the pool, so that data does not grow with n."""
    sites = list(workload.sites(model))[:-1]
    conventions = Conventions(precision=precision, directions=Directions(count))
    measures = SiteMeasures(workload, sites, needed(RELATIONS), conventions)
    ids = [index % EXAMPLES for index in range(n)]
    return alignment(measures(model, workload.batches("train", batch_size=BATCH_SIZE, ids=ids)), RELATIONS).scalars


def straightforward(weights: list[Tensor], inputs: Tensor, onehot: Tensor) -> dict[str, float]:
    """The same with dense matrices, each from a pass of its own."""
    agops = agop_vmap_jacrev(weights, inputs)
    gs, hs = gradient_moments(weights, inputs, onehot), input_moments(weights, inputs)
    found: dict[str, float] = {}
    for index, (agop, g, h) in enumerate(zip(agops, gs, hs, strict=True)):
        nfm = weights[index].T @ weights[index]
        pairs = {"agop_nfm": (agop, nfm), "g_vs_h": (g, h), "g_vs_m": (g, nfm), "h_vs_m": (h, nfm)}
        found |= {f"layer_{index}/{name}": cosine(*pair) for name, pair in pairs.items()}
    return found


def largest_difference(a: Mapping[str, float], b: Mapping[str, float]) -> str:
    """Over the keys of the second."""
    return f"{max(abs(a[key] - b[key]) for key in b):.1e}"


def seconds(workload: MLPClassifier, model: torch.nn.Module, n: int) -> float:
    """The better of two passes over n examples."""
    found = []
    for _ in range(2):
        start = time.perf_counter()
        ours(workload, model, n=n)
        found.append(time.perf_counter() - start)
    return min(found)


def peak_memory(n: int) -> float:
    """MB at the peak of a pass over n examples, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.alignment", str(n)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def print_peak_memory(n: int) -> None:
    """Measure in this process."""
    workload = simulated_workload()
    model = workload.model()
    ours(workload, model, n=8)  # what the libraries allocate once
    with peak_above_now() as peak:
        ours(workload, model, n=n)
    print(peak())


def load_and_log_seconds(workload: MLPClassifier, model: torch.nn.Module, repeats: int = 7) -> float:
    """Median seconds to read a checkpoint into the model and to log its 25 values."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(folder, 'mlflow.db')}"
        os.chdir(folder)
        with tracking.open_run("train", "mlp", name="checkpoints") as run:
            stored = stored_config("train", dataclasses.asdict(workload.config), workload.data)
            tracking.put_json(run.info, "config.json", stored)
            tracking.save_checkpoint(run, model, epoch=0, step=0, config_digest=config_digest(stored))
            other = workload.model()
            for epoch in range(repeats):
                start = time.perf_counter()
                other.load_state_dict(stored_runs.weights(run.run_id, 0))
                run.metrics.log({f"layer_{index}/value": 0.5 for index in range(25)}, epoch)
                run.metrics.flush()
                found.append(time.perf_counter() - start)
        os.chdir("/")
    return statistics.median(found)


def main() -> None:
    """Time, compare and record."""
    workload = simulated_workload()
    model = workload.model()
    batch = next(workload.batches("train", batch_size=EXAMPLES))
    onehot = F.one_hot(batch.targets, CLASSES).float()
    weights = [weight.detach() for weight in model.matrices()]
    timed = in_turn(
        {
            "straightforward": lambda: straightforward(weights, batch.inputs, onehot),
            "float32": lambda: ours(workload, model),
            "bfloat16": lambda: ours(workload, model, precision="bfloat16"),
            "two directions, float32": lambda: ours(workload, model, count=2),
            "two directions, bfloat16": lambda: ours(workload, model, precision="bfloat16", count=2),
        },
        rounds=3,
    )
    exact = straightforward([w.double() for w in weights], batch.inputs.double(), onehot.double())
    two = ours(workload, model, precision="bfloat16", count=2)
    errors = [two[f"{key}_se"] for key in two if f"{key}_se" in two]
    few, many = (seconds(workload, model, n) for n in (EXAMPLES, 10 * EXAMPLES))
    logged = load_and_log_seconds(workload, model)
    results = {f"{name}, s": round(sorted(found)[1], 2) for name, found in timed.items()}
    results |= {
        f"{name}, times faster": round(ratio(timed["straightforward"], found), 2)
        for name, found in timed.items()
        if name != "straightforward"
    }
    store(
        "alignment",
        "AGOP, G, H, M and their four cosines at five layers, 3072-1024×5-10, 2,000 examples",
        {
            **results,
            "float32, largest |Δcos| against float64": largest_difference(ours(workload, model), exact),
            "bfloat16, largest |Δcos|": largest_difference(ours(workload, model, precision="bfloat16"), exact),
            "two directions, float32, largest |Δcos|": largest_difference(ours(workload, model, count=2), exact),
            "two directions, bfloat16, largest |Δcos|": largest_difference(two, exact),
            "two directions, standard errors": f"{min(errors):.1e} … {max(errors):.1e}",
            "time of 20,000 / 10 × time of 2,000 examples": round(many / few / 10, 3),
            "loading and logging a checkpoint, s": round(logged, 3),
            "the same, share of a checkpoint at 20,000 examples": f"{logged / (logged + many):.1%}",
            "peak memory above the model, 2,000 examples, MB": round(peak_memory(EXAMPLES)),
            "peak memory above the model, 20,000 examples, MB": round(peak_memory(10 * EXAMPLES)),
        },
        [
            "Straightforward means vmap(jacrev) + einsum for AGOP, vmap(grad) for G, one pass for each layer and "
            "matrix, and dense cosines, in chunks of 128 examples.",
            "All ways use the same simulated pixels and run in turn. Ratios are medians over rounds.",
            "bfloat16 is fast only if the processor has bfloat16 units. Otherwise nfa rounds the operands and "
            "multiplies them in float32.",
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print_peak_memory(int(sys.argv[1]))
    else:
        main()
