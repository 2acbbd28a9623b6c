"""Muon's orthogonalisation by a singular value decomposition, and the coefficients of Polar Express."""

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

CUSHION = 0.02407327424182761  # the share of an interval below which no polynomial is fitted (Amsel et al. 2025, §3.4)
POINTS = 2_001


def orthogonalised(matrix: Tensor, rounds: list[tuple[float, float, float]]) -> Tensor:
    """Return U p(S / ‖S‖) Vᵀ of a matrix U S Vᵀ, where p maps s to a s + b s³ + c s⁵ in each round.

    Args:
        matrix: The matrix [o, i].
        rounds: The coefficients a, b and c of each round.

    Returns:
        The result [o, i].
    """
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    for a, b, c in rounds:
        values = a * values + b * values**3 + c * values**5
    found: Tensor = left @ values.diag() @ right
    return found


def polar_express(rounds: int, lowest: float = 1e-3) -> list[tuple[float, float, float]]:
    """Return the coefficients with which each round maps [l, u], initially [`lowest`, 1], closest to 1.

    Amsel et al. 2025, arXiv 2505.16932.

    Args:
        rounds: The number of rounds.
        lowest: The lower end of the first interval.

    Returns:
        The coefficients a, b and c of each round.
    """
    low, high, found = lowest, 1.0, []
    for _ in range(rounds):
        a, b, c = _fitted(max(low, CUSHION * high), high)
        at_ends = [a * x + b * x**3 + c * x**5 for x in (low, high)]
        scale = 2 / sum(at_ends)  # both ends are equally far from 1
        found.append((scale * a, scale * b, scale * c))
        low = scale * at_ends[0]
        high = 2 - low
    return found


def _fitted(low: float, high: float) -> tuple[float, float, float]:
    """Return the odd polynomial of degree 5 whose largest distance from 1, on many points of an interval, is smallest.
    """
    x = np.concatenate([np.geomspace(low, high, POINTS), np.linspace(low, high, POINTS)])
    terms, ones = np.stack([x, x**3, x**5], 1), np.ones((len(x), 1))
    above, below = np.hstack([terms, -ones]), np.hstack([-terms, -ones])
    made = linprog([0, 0, 0, 1], np.vstack([above, below]), np.concatenate([ones, -ones])[:, 0], bounds=(None, None))
    a, b, c, _ = made.x
    return float(a), float(b), float(c)
