"""A step of Muon on one matrix of 1024 × 1024, against its fifteen float32 products and against torch.optim.Muon."""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.record import in_turn, ratio, store
from nfa.registry.training import muon
from nfa.registry.training.muon import Muon

SIDE, ROUNDS = 1024, 9
PRODUCTS = 15  # three in each of the five rounds


def stepped(kind: type[torch.optim.Muon], **options: str) -> Callable[[], object]:
    """A function that makes one step."""
    weight = torch.nn.Parameter(torch.randn(SIDE, SIDE))
    weight.grad = torch.randn(SIDE, SIDE)
    optimizer = kind([weight], lr=0.01, weight_decay=0.0, **options)  # type: ignore[arg-type]
    return optimizer.step


def with_full_products(step: Callable[[], object]) -> None:
    """A step in float32 without use of the symmetry."""
    strips, muon.STRIP = muon.STRIP, SIDE
    try:
        step()
    finally:
        muon.STRIP = strips


def main() -> None:
    """Time and record."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)

    step = stepped(Muon, precision="float32")

    def products() -> list[Tensor]:
        return [a @ b for _ in range(PRODUCTS)]

    seconds = in_turn(
        {
            "fifteen float32 products": products,
            "ours, float32, lower triangles": step,
            "ours, float32, full products": lambda: with_full_products(step),
            "ours, polar-express, float32": stepped(Muon, precision="float32", coefficients="polar-express"),
            "ours, by itself": stepped(Muon),
            "torch.optim.Muon": stepped(torch.optim.Muon),
        },
        rounds=ROUNDS,
    )
    floor = seconds["fifteen float32 products"]
    results = {f"{name}, over the products": round(ratio(taken, floor), 3) for name, taken in seconds.items()}
    notes = [
        "one matrix of 1024 × 1024; the ratio is the median over rounds of seconds / seconds of the same round",
        "on a processor with bfloat16 units ours multiplies in bfloat16 by itself, as torch.optim.Muon does everywhere",
    ]
    store("muon", "One step of Muon on a matrix of 1024 × 1024", results, notes)


if __name__ == "__main__":
    main()
