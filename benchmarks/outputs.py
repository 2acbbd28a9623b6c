"""Networks with many outputs: AGOP through the readout's rows, relations of 4,096 outputs, memory of 50,257."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from benchmarks.agop import simulated_workload
from benchmarks.record import in_turn, one_thread, peak_above_now, ratio, store
from nfa.maths import accumulate
from nfa.maths.standard_errors import mean_of
from nfa.measures.outer_sums import OuterSum
from nfa.measures.site_matrices import Conventions, SiteMatrices, SiteMeasures
from nfa.observe.door import few_of, find_sites
from nfa.observe.passes import BATCH_SIZE, Precision
from nfa.observe.readouts import find_readout
from nfa.relations import needed
from nfa.studies.alignment import alignment
from nfa.workload import Batch, Workload

OUTPUT_SIDE = ("out_g_vs_h", "out_g_vs_m", "out_h_vs_m")
VOCABULARY, FEATURES = 50257, 768


@dataclass
class Random(Workload):
    """A network on random inputs with random classes."""

    sizes: Sequence[int]
    examples: int

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        parts: list[nn.Module] = []
        for pair in zip(self.sizes, self.sizes[1:], strict=False):
            parts += [nn.Linear(*pair), nn.Tanh()]
        return nn.Sequential(*parts[:-1])

    def ids(self, split: str) -> Sequence[int]:  # noqa: ARG002 - one split
        return range(self.examples)

    def batches(self, split: str, *, batch_size: int, ids: Any = None) -> Iterator[Batch]:
        for part in torch.as_tensor(list(self.ids(split)) if ids is None else ids).split(batch_size):
            made = torch.Generator().manual_seed(int(part[0]))
            inputs = torch.randn(len(part), self.sizes[0], generator=made)
            yield Batch(inputs, part % self.sizes[-1], part)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        result: Tensor = model(batch.inputs)
        return result

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs, batch.targets, reduction="none")

    def metrics(self, outputs: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"error": (outputs.argmax(dim=1) != batch.targets).float()}


def pass_over(
    workload: Workload, wanted: Sequence[str], *, last: bool, through: bool = True, precision: Precision = "float32"
) -> Callable[[], SiteMatrices]:
    """A pass over all examples, with the check of the model behind it; the last site alone, or all others."""
    model, few = workload.model(), few_of(workload)
    found = find_sites(model, workload, few)
    sites = [name for name in found.seen if (name == found.last) is last]
    readout = find_readout(model, workload, few, found) if through else None
    options: dict[str, Any] = {"found": found, "readout": readout}
    measures = SiteMeasures(workload, sites, frozenset(wanted), Conventions(precision=precision), **options)
    return lambda: measures(model, workload.batches("train", batch_size=BATCH_SIZE))


def agop(workload: Workload, rounds: int) -> dict[str, Any]:
    """AGOP of all sites but the readout, through its rows and as before."""
    through, each = (pass_over(workload, ["agop"], last=False, through=way) for way in (True, False))

    def before() -> SiteMatrices:
        with mock.patch.object(accumulate, "_blas_may", return_value=False):
            return each()

    exact = pass_over(workload, ["agop"], last=False, through=False, precision="float64")()
    seconds = in_turn({"before": before, "through": through}, rounds=rounds, clock=time.process_time)
    return {
        "one output after another, by strips, s": round(min(seconds["before"]), 3),
        "through the readout, by triangles, s": round(min(seconds["through"]), 3),
        "times faster": round(ratio(seconds["before"], seconds["through"]), 2),
        "largest relative error (Frobenius) before": _error(before(), exact),
        "largest relative error (Frobenius) through the readout": _error(through(), exact),
    }


def _error(found: SiteMatrices, exact: SiteMatrices) -> str:
    pairs = [(mean_of(found[site]["agop"]).dense().double(), mean_of(exact[site]["agop"]).dense()) for site in exact]
    return f"{max(float((a - b).norm() / b.norm()) for a, b in pairs):.1e}"


@contextmanager
def formed() -> Iterator[None]:
    """Form every matrix, whatever the number of rows."""
    with mock.patch.object(OuterSum, "_fits", return_value=False):
        yield


def relations(workload: Workload) -> Callable[[], Mapping[str, float]]:
    """Everything of the output side of the readout; the check of the model is behind it."""
    measured = pass_over(workload, sorted(needed(OUTPUT_SIDE)), last=True)
    return lambda: alignment(measured(), OUTPUT_SIDE).scalars


def output_side(workload: Workload, rounds: int) -> dict[str, Any]:
    """As rows, and with the matrices formed."""
    by_rows = relations(workload)

    def without_rows() -> Mapping[str, float]:
        with formed():
            return by_rows()

    seconds = in_turn({"formed": without_rows, "rows": by_rows}, rounds=rounds, clock=time.process_time)
    found, expected = by_rows(), without_rows()
    return {
        "matrices formed, s": round(min(seconds["formed"]), 3),
        "rows, s": round(min(seconds["rows"]), 3),
        "times faster": round(ratio(seconds["formed"], seconds["rows"]), 2),
        "largest difference of a cosine": f"{max(abs(found[key] - expected[key]) for key in expected):.1e}",
    }


def peak_memory() -> float:
    """MB at the peak of the relations of 50,257 outputs above the model, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.outputs", "memory"]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def print_peak_memory() -> None:
    """Measure in this process."""
    workload = Random((64, FEATURES, VOCABULARY), 256)
    relations(Random((64, 8, 16), 64))()  # what the libraries allocate once
    measured = relations(workload)
    with peak_above_now() as peak:
        measured()
    print(peak())


def main() -> None:
    """Time, compare and record; `quick` for a trial."""
    one_thread()
    rounds = 1 if "quick" in sys.argv else 5
    store(
        "outputs",
        "Networks with many outputs, one thread, CPU seconds",
        {
            "AGOP, 3072-1024×5-10, 2,000 examples": agop(simulated_workload(), rounds),
            "AGOP, 256-64×3-1000, 512 examples": agop(Random((256, 64, 64, 64, 1000), 512), rounds),
            "relations of the output side, 256-4096, 128 examples": output_side(Random((64, 256, 4096), 128), rounds),
            "the same, 768-50257, 256 examples, peak memory above the model, MB": round(peak_memory()),
        },
        [
            "One output after another is how AGOP of all outputs was measured before, and still is where outputs are "
            "not those of a linear readout. Strips are 5/8 of a product, triangles 1/2.",
            "Errors are those of all sites against float64.",
            "The model is checked before, once a run, and its check is not counted.",
        ],
    )


if __name__ == "__main__":
    if "memory" in sys.argv:
        print_peak_memory()
    else:
        main()
