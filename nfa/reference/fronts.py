"""Which points of a set no other point dominates."""

from collections.abc import Sequence


def non_dominated(costs: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices i for which no j has c_j ≤ c_i in every coordinate and c_j < c_i in one; smaller is better.

    Args:
        costs: The coordinates of each point.

    Returns:
        The indices in ascending order.

    Example:
        >>> non_dominated([(0, 2), (1, 1), (1, 2), (2, 0), (0, 2)])
        [0, 1, 3, 4]
    """

    def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
        pairs = list(zip(one, other, strict=True))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    return [i for i, cost in enumerate(costs) if not any(dominates(other, cost) for other in costs)]
