"""What chance gives: a statistic computed again for labels that are permuted, or for directions with other signs."""

import itertools
import random
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def over_permutations(
    statistic: Callable[[list[int]], float], labels: Sequence[int], draws: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Return mean and standard deviation of a statistic of labels over their permutations.

    Args:
        statistic: A function of one label per example.
        labels: The labels.
        draws: How many permutations are drawn; None takes each of the n! once.
        seed: The seed of the draws.

    Returns:
        Mean and standard deviation; the latter is that of the population.

    Example:
        >>> over_permutations(lambda labels: float(labels[0]), [0, 0, 3])
        (1.0, 1.4142135623730951)
    """
    if draws is None:
        return _moments(statistic(list(permuted)) for permuted in itertools.permutations(labels))
    source = random.Random(seed)
    return _moments(statistic(source.sample(list(labels), len(labels))) for _ in range(draws))


def over_signs(cosines: Float[Tensor, "n n"]) -> tuple[float, float]:
    """Return mean and standard deviation of the mean of ε_a ε_b C_ab, a ≠ b, over all 2ⁿ choices of signs ε.

    Args:
        cosines: The cosines C [n, n].

    Returns:
        Mean and standard deviation; the latter is that of the population.

    Example:
        >>> over_signs(torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
        (0.0, 0.5)
    """
    rows = cosines.double()
    signs = itertools.product((1.0, -1.0), repeat=len(rows))
    turned = (rows * torch.outer(torch.tensor(e), torch.tensor(e)) for e in signs)
    return _moments(mean_of_pairs(values.tolist(), [0] * len(rows), same=True) for values in turned)


def mean_of_pairs(values: Sequence[Sequence[float]], labels: Sequence[int], *, same: bool) -> float:
    """Return the mean of the values of pairs a ≠ b with the same label, or with different ones.

    Args:
        values: The value of each pair [n, n].
        labels: The label of each example [n].
        same: Whether the labels of a pair are the same.

    Returns:
        The mean.

    Example:
        >>> mean_of_pairs([[9, 1, 2], [1, 9, 3], [2, 3, 9]], [0, 0, 1], same=False)
        2.5
    """
    places = range(len(labels))
    found = [values[a][b] for a in places for b in places if a != b and (labels[a] == labels[b]) == same]
    return sum(found) / len(found)


def area(scores: Sequence[float], positive: Sequence[int]) -> float:
    """Return how often a positive example scores higher than another one, a tie counting one half.

    Args:
        scores: The score of each example [n].
        positive: 1 for positive examples, 0 for the others [n].

    Returns:
        The area under the ROC curve.

    Example:
        >>> area([1.0, 2.0, 2.0], [0, 1, 0])
        0.75
    """
    high, low = ([s for s, p in zip(scores, positive, strict=True) if p == kind] for kind in (1, 0))
    return sum((h > other) + (h == other) / 2 for h in high for other in low) / (len(high) * len(low))


def _moments(values: Iterable[float]) -> tuple[float, float]:
    found = torch.tensor(list(values), dtype=torch.float64)
    return float(found.mean()), float(found.std(correction=0))
