"""Attention with relative positions, forward and backward: this, and vectors gathered for each pair of positions."""

import math
import subprocess
import sys
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from benchmarks.record import in_turn, peak_above_now, ratio, store
from nfa.registry.families.eeg.relative_attention import RelativeAttention

EXAMPLES, LENGTH, FEATURES, HEADS = 8, 640, 256, 4
ROUNDS = 15


class Gathered(RelativeAttention):
    """The same with E_{i−j} gathered into [T T d_k], and an einsum with the queries."""

    def forward(self, x: Tensor) -> Tensor:
        """As of `RelativeAttention`."""
        n, length, d_model = x.shape
        q, k, v = (
            layer(x).unflatten(2, (self.n_head, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        times = torch.arange(length)
        gathered = self.positions[self.max_distance - (times[:, None] - times)]
        scores = q @ k.transpose(2, 3) + torch.einsum("bhid,ijd->bhij", q, gathered)
        mixed = (scores / math.sqrt(q.shape[3])).softmax(dim=3) @ v
        z: Tensor = self.output(mixed.transpose(1, 2).reshape(n, length, d_model))
        return z


WAYS: Mapping[str, type[RelativeAttention]] = {"this": RelativeAttention, "gather + einsum": Gathered}


def build(way: str, dtype: torch.dtype = torch.float32) -> tuple[RelativeAttention, Tensor, Tensor]:
    """A layer with the same weights whatever the way, simulated inputs and cotangents."""
    torch.manual_seed(0)
    layer = WAYS[way](FEATURES, HEADS).to(dtype)
    x, cotangent = torch.randn(2, EXAMPLES, LENGTH, FEATURES).to(dtype)
    return layer, x.requires_grad_(), cotangent


def passes(layer: RelativeAttention, x: Tensor, cotangent: Tensor) -> dict[str, Tensor]:
    """Gradients by name of x and every parameter."""
    named = {"x": x, **dict(layer.named_parameters())}
    return dict(zip(named, torch.autograd.grad(layer(x), [*named.values()], cotangent), strict=True))


def peak_memory(way: str) -> float:
    """MB above the layer and its data at the peak, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.relative_attention", way]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak_memory(way: str) -> None:
    """Measure in this process."""
    layer, x, cotangent = build(way)
    passes(layer, x[:1, :8], cotangent[:1, :8])  # what the libraries allocate once
    with peak_above_now() as peak:
        passes(layer, x, cotangent)
    print(peak())


def largest_difference(dtype: torch.dtype) -> float:
    """Of any gradient, relative to the largest entry; a key's bias, whose gradient is zero, to that of its weight."""
    ours, others = (passes(*build(way, dtype)) for way in WAYS)
    return max(
        float((ours[name] - of).abs().max() / others[name.replace("key.bias", "key.weight")].abs().max())
        for name, of in others.items()
    )


def main() -> None:
    """Time, compare and record."""
    timed = in_turn({way: partial(passes, *build(way)) for way in WAYS}, rounds=ROUNDS)
    memory = {way: peak_memory(way) for way in WAYS}
    results: dict[str, object] = {f"{way}: s": round(sorted(seconds)[ROUNDS // 2], 3) for way, seconds in timed.items()}
    results["times faster than gather + einsum"] = round(ratio(timed["gather + einsum"], timed["this"]), 2)
    results |= {f"{way}: MB at the peak": round(peak) for way, peak in memory.items()}
    results["largest difference of a gradient, float32"] = f"{largest_difference(torch.float32):.1e}"
    results["largest difference of a gradient, float64"] = f"{largest_difference(torch.float64):.1e}"
    notes = [
        f"{EXAMPLES} examples, {LENGTH} positions, {HEADS} heads of {FEATURES // HEADS} features; whole layers with "
        "their four projections. The ways run in turn, and values are medians. Memory does not include layer and "
        "data.",
    ]
    store("relative_attention", "Attention with relative positions, forward and backward", results, notes)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print_peak_memory(sys.argv[1])
    else:
        main()
