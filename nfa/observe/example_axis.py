"""Find the axis of the examples by running a model with one example fewer; the values of the others must not change."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nfa.observe.layouts import Axis, LayoutError

NEAR = 1e-3  # relative to the largest entry: rounding changes less, other examples change more


def axis(many: Sequence[Tensor], fewer: Sequence[Tensor], n: int) -> Axis | None:
    """Return the axis along which the first n − 1 of n examples agree with a pass over them alone, in all tensors."""
    shapes = zip(many[0].shape, fewer[0].shape, strict=True) if many[0].ndim == fewer[0].ndim else ()
    changed = [dim for dim, (a, b) in enumerate(shapes) if a != b]
    if len(changed) != 1:
        return None
    each = many[0].shape[changed[0]] // n
    between = [(each // after, after) for after in range(2, each) if each % after == 0]
    for before, after in [(1, 0), (0, 1), *between]:
        found = Axis(n, changed[0], before, after)
        if all(_agree(found, a, b) for a, b in zip(many, fewer, strict=True)):
            return found
    return None


def _agree(found: Axis, many: Tensor, fewer: Tensor) -> bool:
    try:
        a, b = found.of(slice(0, found.n - 1)).examples(many), replace(found, n=found.n - 1).examples(fewer)
    except LayoutError:
        return False
    return near(a, b)


def near(a: Tensor, b: Tensor, least: float = 0.0) -> bool:
    """Tell whether two tensors are equal up to rounding, and up to differences of `least`."""
    if a.shape != b.shape:
        return False
    if not a.is_floating_point() and not a.is_complex():
        return torch.equal(a, b)
    tolerance = max(NEAR, 16 * torch.finfo(a.dtype).eps)
    if bool(((a - b).abs() <= max(least, tolerance * _largest(b))).all()):
        return True
    finite = a.isfinite() & b.isfinite()
    a, b = (torch.where(finite, one, 0) for one in (a, b))  # values that are not finite cannot be compared
    return bool(((a - b).abs() <= max(least, tolerance * _largest(b))).all())


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0
