"""Matrices whose products would leave the range of float32 are compared in float64."""

import math
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from nfa.maths.similarity import largest_magnitude
from nfa.maths.standard_errors import Matrix, mean_of

T = TypeVar("T")
OF_FACTORS = 2.0**-20, 2.0**20  # with entries in between, sums of products of four stay within the range of float32
OF_CORES = 2.0**-40, 2.0**40  # the same for products of two
VANISHED = 2.0**-134  # float32 resolves 2⁻¹⁴⁹: sums of squares below this have lost their digits


def needs_float64(matrix: Matrix) -> bool:
    """Return whether products of a matrix would overflow or vanish in float32, as those of weights of 1e-15 do.

    Args:
        matrix: The matrix Fᵀ C F.

    Returns:
        Whether the largest entry of F or of C is far from 1; False for a matrix of zeros or one that is not finite.
    """
    mean = mean_of(matrix)
    return _far(mean.factor, *OF_FACTORS) or _far(mean.core, *OF_CORES)


def has_vanished(matrix: Matrix) -> bool:
    """Return whether what was summed in float32 is so small that its digits are lost, as with gradients of 1e-22.

    Args:
        matrix: The matrix Fᵀ C F.

    Returns:
        Whether the largest entry of C is below 2⁻¹³⁴; False for a matrix of zeros or one that is not finite.
    """
    return _far(mean_of(matrix).core, VANISHED, math.inf)


def _far(entries: Tensor | None, least: float, most: float) -> bool:
    if entries is None or entries.dtype == torch.float64 or not entries.numel():
        return False
    largest = largest_magnitude(entries)
    return 0 < largest < math.inf and not least < largest < most


def in_float64(of_float32: T) -> T:
    """Return the same with every float32 tensor in float64.

    Args:
        of_float32: A tensor, a dataclass, a list or a dictionary; what else is inside stays as it is.

    Returns:
        The copy.
    """
    found: Any = of_float32
    if isinstance(found, Tensor):
        found = found.double() if found.is_floating_point() else found
    elif isinstance(found, list):
        found = [in_float64(part) for part in found]
    elif isinstance(found, dict):
        found = {name: in_float64(part) for name, part in found.items()}
    elif is_dataclass(found) and not isinstance(found, type):
        found = replace(found, **{field.name: in_float64(getattr(found, field.name)) for field in fields(found)})
    return found  # type: ignore[no-any-return]
