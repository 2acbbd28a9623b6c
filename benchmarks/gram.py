"""Gram matrices of per-example gradients: this, vmap(grad) with a product, TorchJD's engine and Opacus, on one thread.

The check at the door runs once for all checkpoints of a run, and is stated apart.
"""

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from benchmarks.baselines import gram_vmap_grad
from benchmarks.gram_floor import floor_parts
from benchmarks.networks import CASES, Case, Examples, losses
from benchmarks.record import KEPT, in_turn, one_thread, peak_above_now, ratio, store
from nfa.measures.gradient_gram import GradientGram, choose_parameters
from nfa.workloads.probe import Probe

SIZES = {32: 5, 128: 3}  # examples, and rounds of measuring
ROUNDS = 3
CHECKPOINTS = 12  # of a default training
FRESH = 5  # checks, of which the fastest counts
SMOOTH: Mapping[str, Any] = {"ResNet": F.gelu, "ConvNet": nn.GELU, "MLP": nn.GELU}  # in place of ReLU
Way = Callable[[nn.Module, Examples], Callable[[], Tensor]]


def build(case: str, n: int, *, smooth: bool = False) -> tuple[nn.Module, Examples]:
    """Model in evaluation mode, and simulated examples; `smooth` has no ReLU, whose kinks float32 may miss."""
    of, activation = CASES[case], SMOOTH.get(case.split()[0])
    if smooth and activation:
        network: Any = of.network
        of = Case(partial(network, activation=activation), of.examples)
    return of.build(n)


def gram_of(model: nn.Module, examples: Examples) -> GradientGram:
    """This project's, before the first matrix."""
    probe = Probe(model, losses, *examples)
    return GradientGram(probe, range(len(examples.inputs)), choose_parameters(probe, model))


def ours(model: nn.Module, examples: Examples) -> Callable[[], Tensor]:
    """This project's, at the second and every further checkpoint."""
    gram = gram_of(model, examples)
    gram(model)
    return partial(gram, model)


def by_vmap(model: nn.Module, examples: Examples) -> Callable[[], Tensor]:
    """Per-example gradients by torch.func, and their product."""
    return partial(gram_vmap_grad, model, losses, *examples)


def by_torchjd(model: nn.Module, examples: Examples) -> Callable[[], Tensor]:
    """TorchJD's autogram engine."""
    from torchjd.autogram import Engine

    engine = Engine(model, batch_dim=0)

    def gramian() -> Tensor:
        found: Tensor = engine.compute_gramian(losses(model(examples.inputs), examples.targets))
        return found

    return gramian


def by_opacus(model: nn.Module, examples: Examples) -> Callable[[], Tensor]:
    """Opacus' gradients of single examples, and their product."""
    from opacus import GradSampleModule

    wrapped = GradSampleModule(model, loss_reduction="sum").train()  # Opacus records nothing in evaluation mode

    def gram() -> Tensor:
        wrapped.zero_grad()
        losses(wrapped(examples.inputs), examples.targets).sum().backward()
        total = torch.zeros(len(examples.inputs), len(examples.inputs))
        for parameter in wrapped.parameters():
            rows = parameter.grad_sample.flatten(1)
            total += rows @ rows.T
        return total

    return gram


WAYS: Mapping[str, Way] = {"this": ours, "vmap(grad)": by_vmap, "TorchJD": by_torchjd, "Opacus": by_opacus}


def cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def usable(case: str, n: int) -> dict[str, Callable[[], Tensor]]:
    """The ways that can do it; Opacus has no rule for parameters outside layers, such as a class token."""
    found = {}
    for name, way in WAYS.items():
        work = way(*build(case, n))
        try:
            work()
        except Exception as error:  # a peer's limit is a result, too
            print(f"{name} on {case}: {error!r}"[:200], file=sys.stderr)
            continue
        found[name] = work
    return found


def measured(case: str, n: int, rounds: int) -> dict[str, Any]:
    """CPU seconds and ratios of one case."""
    timed = in_turn(usable(case, n), rounds=rounds, clock=time.process_time)
    gc.collect()  # peers keep gradients of all examples, gigabytes beside those of the child below
    label = f"{case}, {n} examples"
    found: dict[str, Any] = {f"{label}: CPU s": round(min(timed["this"]), 3)}
    for other in WAYS:
        if other != "this":
            faster = round(ratio(timed[other], timed["this"]), 2) if other in timed else "–"
            found[f"{label}: times faster than {other}"] = faster
    kept = in_child("kept", case, n, KEPT)
    found[f"{label}: times faster than vmap(grad), freed memory kept"] = round(kept, 2)
    floor = sum(floor_parts(*build(case, n)).values())
    found[f"{label}: times the floor"] = round(min(timed["this"]) / floor, 2)
    return found


def error(case: str, n: int = 32) -> str:
    """Largest difference from vmap in float64, relative to the largest entry, with a smooth activation."""
    model, examples = build(case, n, smooth=True)
    found = gram_of(model, examples)(model)
    inputs = examples.inputs.double() if examples.inputs.is_floating_point() else examples.inputs
    exact = gram_vmap_grad(build(case, n, smooth=True)[0].double(), losses, inputs, examples.targets)
    return f"{float((found - exact).abs().max() / exact.abs().max()):.1e}"


def door_share(case: str, n: int = 128) -> float:
    """The check before the first matrix, as a share of the matrices of 12 checkpoints: the least CPU seconds of each.

    The first matrix takes longer for another reason, too: the memory of its tables is new.
    """
    model, examples = build(case, n)
    grams = [gram_of(model, examples) for _ in range(FRESH)]
    first, further = (min(cpu_seconds(partial(gram.open, model)) for gram in grams) for _ in range(2))
    matrix = ours(model, examples)
    return (first - further) / (CHECKPOINTS * min(cpu_seconds(matrix) for _ in range(ROUNDS)))


def in_child(what: str, case: str, n: int, settings: Mapping[str, str] = {}) -> float:
    """A number of CHILD, measured in a process of its own with other settings of its environment."""
    words = [sys.executable, "-m", "benchmarks.gram", what, case, str(n)]
    made = subprocess.run(words, check=True, capture_output=True, text=True, env={**os.environ, **settings})
    return float(made.stdout.split()[-1])


def peak_memory(way: Way, case: str, n: int) -> float:
    """MB above the model and its data at the peak."""
    way(*build(case, 2))()  # what the libraries allocate once
    model, examples = build(case, n)
    with peak_above_now() as peak:
        way(model, examples)()
    return peak()


def kept_ratio(case: str, n: int) -> float:
    """Times faster than vmap(grad)."""
    model, examples = build(case, n)
    ways = {"this": ours(model, examples), "vmap(grad)": by_vmap(model, examples)}
    timed = in_turn(ways, rounds=SIZES[n], clock=time.process_time)
    return ratio(timed["vmap(grad)"], timed["this"])


CHILD: Mapping[str, Callable[[str, int], float]] = {
    "peak": partial(peak_memory, ours),
    "peak of vmap": partial(peak_memory, by_vmap),
    "kept": kept_ratio,
}


def main() -> None:
    """Time, compare and record."""
    results: dict[str, Any] = {}
    for case in CASES:
        for n, rounds in SIZES.items():
            results |= measured(case, n, rounds)
        share = in_child("peak", case, 128) / in_child("peak of vmap", case, 128)
        results[f"{case}, 128 examples: peak memory, share of vmap's"] = round(share, 2)
        results[f"{case}: relative error"] = error(case)
        results[f"{case}: the check at the door, share of 12 checkpoints"] = f"{100 * door_share(case):.1f}%"
        print(case, {name: value for name, value in results.items() if name.startswith(case)}, file=sys.stderr)
    notes = [
        "One thread; CPU seconds; all ways use the same simulated examples and run in turn in one process. Ratios are "
        "medians over rounds. vmap(grad) differentiates all examples at once; a product for each parameter follows.",
        "A part of what vmap(grad) loses is new memory for the gradients of all weights and examples, which the "
        "system hands out page by page. With freed memory kept in the process (MALLOC_TRIM_THRESHOLD_ and "
        "MALLOC_MMAP_THRESHOLD_, which few set) only the rest is left; both ratios are given.",
        "The floor: a forward pass, a backward pass to the outputs of the layers, and the multiply-adds of γ and of "
        "one triangle of the Gram matrix in the cheapest of the ways, at the rate of this machine's float32 products.",
        "The error is against vmap(grad) in float64 with GELU in place of ReLU: one input of a ReLU near 0 that is "
        "positive in float32 and negative in float64 alone makes 1e-4.",
        "–: Opacus has no rule for a parameter outside layers. PyTorch's fused attention has no batching rule for "
        "vmap, which therefore runs it example by example.",
    ]
    store("gram", "Gram matrix of per-example gradients of all parameters", results, notes)


if __name__ == "__main__":
    one_thread()
    if len(sys.argv) > 1:
        print(CHILD[sys.argv[1]](sys.argv[2], int(sys.argv[3])))
    else:
        main()
