"""What a model answers on a few examples: stored with its weights, it tells whether rebuilt code is still the same."""

import math
from collections.abc import Sequence

import torch
import torch.nn as nn

from nfa.errors import Refusal
from nfa.observe.door import few_of
from nfa.observe.inertness import inert
from nfa.workload import Batch, Workload

NUMBERS = 256
TOLERANCE = 1e-3  # of the largest number: what another machine or number of threads may change, and more


def answers(workload: Workload, model: nn.Module, batch: Batch | None = None) -> list[float]:
    """Outputs on a few examples, 256 numbers at most, evenly taken; the model is left as it was.

    `batch` are the examples; None = the first eight of the probe. Outputs that are not finite are no answers: empty.
    """
    with inert(model), torch.no_grad():
        found = workload.outputs(model, few_of(workload) if batch is None else batch).flatten()
    chosen = torch.linspace(0, len(found) - 1, min(NUMBERS, len(found))).long()
    numbers = found.cpu()[chosen].double()
    return numbers.tolist() if bool(numbers.isfinite().all()) else []


def differ(stored: Sequence[float], now: Sequence[float]) -> bool:
    """Whether answers are others than those that were `stored`; nothing stored, nothing known."""
    return bool(stored) and not _apart(stored, now) <= TOLERANCE * max(map(abs, stored))


def _apart(stored: Sequence[float], now: Sequence[float]) -> float:
    """The largest difference: infinite for another count, and not a number where one of them is none."""
    if len(now) != len(stored):
        return math.inf
    before, after = (torch.tensor(numbers, dtype=torch.float64) for numbers in (stored, now))
    return float((before - after).abs().max())


def check_answers(stored: Sequence[float], now: Sequence[float], where: str) -> None:
    """`Refusal` where a model with the stored weights answers otherwise than it did; `where` names the checkpoint."""
    if not differ(stored, now):
        return
    apart, largest = _apart(stored, now), max(map(abs, stored))
    seen = f"{len(now)} numbers, not {len(stored)}" if math.isinf(apart) else f"they differ by {apart:.3g}"
    raise Refusal(
        f"a model that answers otherwise than when {where} was stored ({seen}; the largest was {largest:.3g})",
        "code and data that give the stored answers to one part in a thousand",
        "go back to the code with which the run was trained",
    )
