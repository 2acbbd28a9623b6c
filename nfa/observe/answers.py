"""A model's answers on a few examples: stored with its weights, they show whether rebuilt code still computes the same.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn as nn

from nfa.errors import Refusal
from nfa.observe.door import few_of
from nfa.observe.inertness import inert
from nfa.workload import Batch, Workload

NUMBERS = 256
TOLERANCE = 1e-3  # relative to the largest number; another machine or number of threads changes less


def answers(workload: Workload, model: nn.Module, batch: Batch | None = None) -> list[float]:
    """Return at most 256 evenly spaced numbers of the outputs on a few examples; the model is not changed.

    `batch` holds the examples; None stands for the first eight of the probe. The result is empty if outputs are not
    finite.
    """
    with inert(model), torch.no_grad():
        found = workload.outputs(model, few_of(workload) if batch is None else batch).flatten()
    chosen = torch.linspace(0, len(found) - 1, min(NUMBERS, len(found))).long()
    numbers = found.cpu()[chosen].double()
    return numbers.tolist() if bool(numbers.isfinite().all()) else []


def differ(stored: Sequence[float], now: Sequence[float]) -> bool:
    """Tell whether answers differ from those that were `stored`; false if none were stored."""
    return bool(stored) and not _apart(stored, now) <= TOLERANCE * max(map(abs, stored))


def _apart(stored: Sequence[float], now: Sequence[float]) -> float:
    """Return the largest difference: infinite for different lengths, NaN where a number is NaN."""
    if len(now) != len(stored):
        return math.inf
    before, after = (torch.tensor(numbers, dtype=torch.float64) for numbers in (stored, now))
    return float((before - after).abs().max())


def check_answers(stored: Sequence[float], now: Sequence[float], where: str) -> None:
    """Raise `Refusal` if a model with the stored weights gives other answers; `where` names the checkpoint."""
    if not differ(stored, now):
        return
    apart, largest = _apart(stored, now), max(map(abs, stored))
    seen = f"{len(now)} numbers, not {len(stored)}" if math.isinf(apart) else f"they differ by {apart:.3g}"
    raise Refusal(
        f"a model whose answers are not those stored with {where} ({seen}; the largest stored one is {largest:.3g})",
        "code and data that reproduce the stored answers to one part in a thousand",
        "go back to the code with which the run was trained",
    )
