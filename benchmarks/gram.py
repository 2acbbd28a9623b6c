"""Gram matrices of per-example gradients: this, vmap(grad) with a product, and TorchJD's Gramian engine."""

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from itertools import pairwise
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, vmap

from benchmarks.record import in_turn, peak_above_now, ratio, store
from nfa.figures.gradient_pictures import DrawnDirections, gradient_map, gradient_similarities, map_reach
from nfa.maths.embedding import tsne
from nfa.measures.gradient_gram import FEW, GradientGram, choose_parameters
from nfa.observe.example_gradients import ExampleGradients
from nfa.studies.gradient_directions import ProbeExamples, gradient_directions
from nfa.workloads.probe import Probe

CLASSES = 10


class ConvNet(nn.Module):
    """A small residual-free image network: five convolutions with GroupNorm, 32 × 32 pixels."""

    def __init__(self) -> None:
        super().__init__()
        sizes, layers = (3, 32, 64, 64, 128, 128), []
        for index, (c_in, c_out) in enumerate(pairwise(sizes)):
            layers += [nn.Conv2d(c_in, c_out, 3, stride=1 + index % 2, padding=1), nn.GroupNorm(8, c_out), nn.ReLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(128, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).mean(dim=(2, 3)))
        return logits


class Attention(nn.Module):
    """Two attention blocks of a Conformer's size: 256 features, 4 heads, inner 1,024."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True) for _ in range(2)]
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(256, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(x).mean(dim=1))
        return logits


def _mlp() -> nn.Module:
    sizes = (3072, *[1024] * 5, CLASSES)
    layers: list[nn.Module] = []
    for i, o in pairwise(sizes):
        layers += [nn.Linear(i, o, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


CASES: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "MLP 3072-1024×5-10": (_mlp, (3072,), 128),
    "Conv2d network": (ConvNet, (3, 32, 32), 128),
    "attention blocks, 160 positions": (Attention, (160, 256), 128),
}


def build(case: str, n: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    """Model in evaluation mode, simulated inputs and labels."""
    make, shape, few = CASES[case]
    torch.manual_seed(0)
    inputs, labels = torch.randn(n or few, *shape), torch.randint(0, CLASSES, (n or few,))
    return make().eval(), inputs, labels


def ours(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """This project's, with its checks at the door."""
    probe = Probe(model, lambda outputs, y: F.cross_entropy(outputs, y, reduction="none"), inputs, labels)
    return GradientGram(probe, range(len(inputs)), choose_parameters(probe, model))(model)


def by_vmap(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Per-example gradients by torch.func, and their product."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        outputs: Tensor = functional_call(model, values, (x.unsqueeze(0),))
        return F.cross_entropy(outputs, y.unsqueeze(0))

    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, inputs, labels)
    total = torch.zeros(len(inputs), len(inputs), dtype=inputs.dtype)
    for gradients in found.values():
        total += gradients.flatten(1) @ gradients.flatten(1).T
    return total


def by_torchjd(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """TorchJD's autogram engine."""
    from torchjd.autogram import Engine

    engine = Engine(model, batch_dim=0)
    losses = F.cross_entropy(model(inputs), labels, reduction="none")
    gramian: Tensor = engine.compute_gramian(losses)
    return gramian


WAYS = {"this": ours, "vmap(grad)": by_vmap, "TorchJD": by_torchjd}


def peak_memory(way: str, case: str, n: int = 0) -> float:
    """MB above the model and its data at the peak, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.gram", way, case, str(n)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak_memory(way: str, case: str, n: int) -> None:
    """Measure in this process."""
    model, inputs, labels = build(case, n)
    WAYS[way](model, inputs[:2], labels[:2])  # what the libraries allocate once
    with peak_above_now() as peak:
        WAYS[way](model, inputs, labels)
    print(peak())


def checkpoint_seconds(n: int = 512) -> dict[str, float]:
    """What the second checkpoint of the MLP costs in `gradient_directions`, part by part."""
    model, inputs, labels = build("MLP 3072-1024×5-10", n)
    probe = ProbeExamples(torch.rand(n), labels)
    found: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        made = work()
        found[f"one checkpoint, {n} examples: {name}, s"] = round(time.perf_counter() - start, 2)
        return made

    start: Any = None
    for _ in range(2):
        gram = timed("Gram matrix", lambda: ours(model, inputs, labels))
        arrays = timed("series and bootstrap", partial(gradient_directions, gram, probe, seed=0)).arrays
        cosines = arrays["cosines"]
        start = timed("map", partial(tsne, cosines, perplexity=30, seed=0, start=start))
    classes = labels.numpy()[arrays["kept"]]
    order = classes.argsort(kind="stable")  # as reports draw them; lines between classes are drawn at every change
    norms = arrays["norms"][order]
    shown = DrawnDirections(cosines[order][:, order], start[order], norms, norms, classes[order])
    timed("two pictures", lambda: _pictures(shown))
    return found


def _pictures(shown: DrawnDirections) -> None:
    for figure in (gradient_similarities(shown, title=""), gradient_map(shown, title="", reach=map_reach([shown]))):
        figure.savefig(BytesIO(), dpi=200)


def door_seconds() -> float:
    """What the check at the door costs for the MLP."""
    model, inputs, labels = build("MLP 3072-1024×5-10", FEW)
    own = Probe(model, lambda outputs, y: F.cross_entropy(outputs, y, reduction="none"), inputs, labels)
    batch, names = next(own.batches("train", batch_size=FEW)), choose_parameters(own, model)
    return min(in_turn({"door": lambda: ExampleGradients(model, own, names, batch)})["door"])


def error(found: Tensor, exact: Tensor) -> float:
    """Largest difference, relative to the largest entry."""
    return float((found.double() - exact).abs().max() / exact.abs().max())


def measured(case: str, rounds: int) -> dict[str, Any]:
    """Ratios of one case; float64 gradients by vmap are the truth."""
    model, inputs, labels = build(case)
    exact = by_vmap(build(case)[0].double(), inputs.double(), labels)
    timed = in_turn({name: partial(way, model, inputs, labels) for name, way in WAYS.items()}, rounds=rounds)
    label = f"{case}, {len(inputs)} examples"
    memory = {name: peak_memory(name, case) for name in WAYS}
    found: dict[str, Any] = {f"{label}: s": round(sorted(timed["this"])[rounds // 2], 3)}
    for other in ("vmap(grad)", "TorchJD"):
        found[f"{label}: times faster than {other}"] = round(ratio(timed[other], timed["this"]), 1)
        found[f"{label}: memory of {other} / ours"] = round(memory[other] / memory["this"], 1)
    found[f"{label}: relative error"] = f"{error(ours(model, inputs, labels), exact):.1e}"
    return found


def main() -> None:
    """Time, compare and record."""
    results: dict[str, Any] = {}
    for case, rounds in zip(CASES, (3, 3, 3), strict=True):
        results |= measured(case, rounds)
        print(results, file=sys.stderr)
    results["MLP, of this the check before it starts, s"] = round(door_seconds(), 3)
    many = build("MLP 3072-1024×5-10", 2000)
    results["MLP, 2,000 examples: s"] = round(min(in_turn({"this": lambda: ours(*many)}, rounds=3)["this"]), 2)
    results["MLP, 2,000 examples: MB above model and data"] = round(peak_memory("this", "MLP 3072-1024×5-10", 2000))
    results |= checkpoint_seconds()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    notes = [
        "All ways use the same simulated inputs and run in turn. Values are medians of ratios. The check of nfa "
        "before it starts is included.",
        "vmap(grad) differentiates all examples at once.",
        f"The largest of these processes took {peak:,.0f} MB.",
    ]
    store("gram", "Gram matrix of per-example gradients of all parameters", results, notes)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print_peak_memory(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main()
