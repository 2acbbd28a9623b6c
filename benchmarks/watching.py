"""How long a record of `nfa.watch` takes, in training steps on the same examples."""

import itertools
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import nfa
from benchmarks.record import in_turn, ratio, store
from nfa.console import muted
from nfa.sinks import Memory

CLASSES, POSITIONS, WIDTH = 10, 64, 128
STUDIES: Mapping[str, dict[str, Any]] = {"alignment": {"directions": 2}, "flow": {}, "directions": {}}
PAIRS = 1024  # examples up to which directions is timed: its matrices hold every pair


class Encoder(nn.Module):
    """Four layers of a transformer over 64 positions, read by the mean."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.readout = nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.readout(self.encoder(inputs).mean(dim=1))
        return outputs


def mlp() -> nn.Module:
    """784-512×3-10."""
    sizes = [784, 512, 512, 512]
    hidden = [part for pair in itertools.pairwise(sizes) for part in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(512, CLASSES))


def losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of each example."""
    return F.cross_entropy(outputs, targets, reduction="none")


def timed(model: nn.Module, inputs: Tensor, rounds: int = 5) -> dict[str, list[float]]:
    """Seconds of a step of SGD and of a record of each study, in turn."""
    targets = torch.randint(CLASSES, (len(inputs),))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        losses(model(inputs), targets).mean().backward()
        optimizer.step()

    def recording(study: str) -> Callable[[], object]:
        watch = nfa.watch(model, losses, (inputs, targets), studies=study, sink=Memory(), **STUDIES[study])
        steps = itertools.count(1)
        return lambda: watch.record(next(steps))

    chosen = [study for study in STUDIES if study != "directions" or len(inputs) <= PAIRS]
    return in_turn({"step": step, **{study: recording(study) for study in chosen}}, rounds=rounds)


def main() -> None:
    """Time and record."""
    torch.manual_seed(0)
    cases: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]
    cases = {f"784-512×3-10, {n:,} rows": (mlp, (n, 784)) for n in (256, 1024, 4096)}
    cases[f"transformer of width {WIDTH}, 64 × {POSITIONS} rows"] = (Encoder, (64, POSITIONS, WIDTH))
    results: dict[str, float] = {}
    with muted():
        for name, (build, shape) in cases.items():
            seconds = timed(build(), torch.randn(shape))
            results[f"{name}: a training step, ms"] = round(1000 * statistics.median(seconds["step"]), 1)
            results |= {
                f"{name}: {study} / step": round(ratio(seconds[study], seconds["step"]), 1)
                for study in STUDIES
                if study in seconds
            }
    notes = [
        "A step of SGD on the examples of the probe and a record into memory, with the default relations, run in turn.",
        "Alignment was timed with `directions=2`, which the default takes for more than 32 outputs: one forward and "
        "three backward passes. For the ten outputs of these models the default is exact, with a backward pass for "
        "each output, and takes longer. The cosines also need some products of matrices as wide as the layers, however "
        "few the rows are.",
        "Directions computes the Gram matrix of all pairs of examples, and its statistics.",
    ]
    store("watching", "How long a record of `nfa.watch` takes, in training steps on the same examples", results, notes)


if __name__ == "__main__":
    main()
