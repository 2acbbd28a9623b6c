"""SVDs of LoRA updates: from their factors and randomised, against the full SVD of dense matrices."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.record import in_turn, peak_above_now, ratio, store
from nfa.maths.low_rank import FactorPair, LowRank, svd_of_matrix, svd_of_product

SHAPES = {  # SmolLM2-135M: [o i] of a layer's projections
    "q": (576, 576),
    "k": (192, 576),
    "v": (192, 576),
    "o": (576, 576),
    "gate": (1536, 576),
    "up": (1536, 576),
    "down": (576, 1536),
}
LAYERS, RANK, LARGE = 30, 16, (3584, 18944)
ROUNDS = 3
SLOW_FALL = 0.02  # singular values e^(−0.02 j): the first 16 hold half of the energy, less than in a real teacher
WAYS: Mapping[str, Callable[[Tensor], LowRank]] = {
    "randomised": lambda matrix: svd_of_matrix(matrix, RANK),
    "randomised as in lora_svd": lambda matrix: svd_of_matrix(matrix, 2 * RANK),
    "full": lambda matrix: LowRank(*torch.linalg.svd(matrix, full_matrices=False)),
}


def adapters(shapes: Sequence[tuple[int, int]]) -> list[FactorPair]:
    """Random factors of rank 16, with columns and rows of falling size, as a trained adapter has them."""
    random, sizes = torch.Generator().manual_seed(0), torch.exp(-0.2 * torch.arange(RANK))
    return [
        FactorPair(torch.randn(o, RANK, generator=random) * sizes, torch.randn(RANK, i, generator=random))
        for o, i in shapes
    ]


def teachers(shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Dense updates with a slowly falling spectrum."""
    random, found = torch.Generator().manual_seed(0), []
    for o, i in shapes:
        count = min(o, i)
        u, v = (torch.linalg.qr(torch.randn(side, count, generator=random)).Q for side in (o, i))
        found.append((u * torch.exp(-SLOW_FALL * torch.arange(count))) @ v.T)
    return found


def all_shapes() -> list[tuple[int, int]]:
    """Of the 210 adapted matrices."""
    return [shape for _ in range(LAYERS) for shape in SHAPES.values()]


def largest_error(found: Sequence[LowRank], expected: Sequence[LowRank]) -> float:
    """Of any of the first 16 singular values, relative to itself."""
    pairs = zip(found, expected, strict=True)
    return max(float((one.s[:RANK] / other.s[:RANK] - 1).abs().max()) for one, other in pairs)


def of_adapters() -> dict[str, object]:
    """All 210 updates."""
    made = adapters(all_shapes())
    dense = [b @ a for b, a in made]
    found: dict[str, list[LowRank]] = {}
    ways = {
        "factors": lambda: found.update(factors=[svd_of_product(one) for one in made]),
        "full": lambda: found.update(full=[WAYS["full"](one) for one in dense]),
    }
    timed = in_turn(ways, rounds=ROUNDS)
    return {
        "210 adapters of rank 16, from their factors: s": round(statistics.median(timed["factors"]), 4),
        "210 adapters of rank 16, full SVD of the products: s": round(statistics.median(timed["full"]), 2),
        "210 adapters: times faster": round(ratio(timed["full"], timed["factors"])),
        "210 adapters: largest relative error of a singular value": f"{largest_error(*found.values()):.1e}",
    }


def of_a_large_matrix() -> dict[str, object]:
    """One update of 3584 × 18944; its full SVD, which takes minutes, once."""
    (made,) = adapters([LARGE])
    fast = in_turn({"factors": lambda: svd_of_product(made)}, rounds=9)["factors"]
    dense = made.b @ made.a
    start = time.perf_counter()
    expected = WAYS["full"](dense)
    seconds = time.perf_counter() - start
    return {
        "3584 × 18944 of rank 16, from its factors: s": round(statistics.median(fast), 4),
        "3584 × 18944 of rank 16, full SVD: s": round(seconds, 1),
        "3584 × 18944: times faster": round(seconds / statistics.median(fast)),
        "3584 × 18944: largest relative error of a singular value": (
            f"{largest_error([svd_of_product(made)], [expected]):.1e}"
        ),
    }


def of_teachers() -> dict[str, object]:
    """210 dense updates."""
    made = teachers(all_shapes())
    found: dict[str, list[LowRank]] = {}

    def decompose(way: str) -> None:
        found[way] = [WAYS[way](one) for one in made]

    timed = in_turn({way: partial(decompose, way) for way in WAYS}, rounds=ROUNDS)
    results: dict[str, object] = {}
    for way, seconds in timed.items():
        results[f"210 dense teachers, {way} SVD: s"] = round(statistics.median(seconds), 2)
        results[f"210 dense teachers, {way} SVD: MB at the peak"] = round(peak_memory(way), 1)
        if way != "full":
            error = largest_error(found[way], found["full"])
            results[f"210 dense teachers, {way} SVD: times faster"] = round(ratio(timed["full"], seconds), 1)
            results[f"210 dense teachers, {way} SVD: largest relative error of the top 16 singular values"] = (
                f"{error:.1e}"
            )
    return results


def peak_memory(way: str) -> float:
    """MB above the matrices, at the peak over the seven shapes, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.low_rank", way]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # freed memory is given back, and not used again
    ended = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
    return float(ended.stdout.split()[-1])


def print_peak_memory(way: str) -> None:
    """Measure in this process."""
    made = teachers([*SHAPES.values()])
    WAYS[way](made[1][:90, :90])  # what the libraries allocate once
    with peak_above_now() as peak:
        for matrix in made:
            WAYS[way](matrix)
    print(peak())


def main() -> None:
    """Time, compare and record."""
    results: Mapping[str, object] = {**of_adapters(), **of_teachers(), **of_a_large_matrix()}
    notes = [
        f"Float32. Shapes of SmolLM2-135M: {LAYERS} layers of "
        + ", ".join(f"{name} {o} × {i}" for name, (o, i) in SHAPES.items())
        + "; the ways run in turn, and values are medians. The full SVD of the large matrix ran once.",
        f"Dense teachers have singular values e^(−{SLOW_FALL} j). The randomised SVD uses {RANK} + 16 directions "
        "and 4 power iterations. Memory does not include the matrices themselves.",
        "lora_svd takes max(rank, 32) + 16 directions, so that it can state the energy at ranks 4 to 32.",
    ]
    store("low_rank", "SVD of low-rank and dense updates", results, notes)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print_peak_memory(sys.argv[1])
    else:
        main()
