"""Sums of outer products over a stream of rows."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

_STRIP = 256
_NARROW, _BLOCK = 16, 256


def add_gram(total: Float[Tensor, "o o"], rows: Float[Tensor, "m o"], *, least: int = _STRIP) -> None:
    """Add rowsᵀ rows to the upper triangle of a running total, in place; read the total with `symmetric`.

    On a processor, with one thread, BLAS multiplies one triangle of a total with more than `least` rows. Otherwise
    strips of 256 columns from the diagonal to the right are multiplied, which is 5/8 of the work at o = 1024.

    Args:
        total: The running total [o, o]; what is below its diagonal is not defined.
        rows: The m rows to add [m, o].
        least: The largest total of which BLAS does not multiply one triangle only.
    """
    if len(total) > least and total.is_contiguous() and total.dtype == rows.dtype and _blas_may(total, rows):
        _add_triangle(total.numpy().T, rows.numpy())
        return
    for start in range(0, total.shape[0], _STRIP):
        stop = start + _STRIP
        add_product(total[start:stop, start:], rows[:, start:stop], rows[:, start:])


def _blas_may(*tensors: Tensor) -> bool:
    """Tell whether BLAS can multiply them: numbers of a processor, whose products nothing, such as rounding to
    bfloat16, changes. With several threads it would take twice as long, because its own wait for those of PyTorch.
    """
    kinds = torch.float32, torch.float64
    plain = all(one.device.type == "cpu" and one.dtype in kinds and not one.requires_grad for one in tensors)
    return plain and all(map(len, tensors)) and torch.get_num_threads() == 1 and _get_current_dispatch_mode() is None


def _add_triangle(turned: np.ndarray, rows: np.ndarray) -> None:
    """Add rowsᵀ rows to the lower triangle of a total in the order of Fortran, which BLAS changes in place."""
    from scipy.linalg.blas import dsyrk, ssyrk

    by_columns = rows.flags.f_contiguous
    syrk = ssyrk if rows.dtype == np.float32 else dsyrk
    syrk(1.0, rows if by_columns else rows.T, beta=1.0, c=turned, trans=by_columns, lower=1, overwrite_c=1)


def add_product(total: Float[Tensor, "o i"], x: Float[Tensor, "m o"], y: Float[Tensor, "m i"]) -> None:
    """Add xᵀ y to a running total, in place.

    For a total with fewer than 16 rows or columns, BLAS would add row after row to the total. Rows are therefore summed
    in blocks of 256 first: in float32 the relative error then stays near 1e-7, where a plain sum over 100,000 rows is
    off by 1e-5 or more.

    Args:
        total: The running total [o, i].
        x: Left rows [m, o].
        y: Right rows [m, i].
    """
    if min(total.shape) >= _NARROW:
        total.addmm_(x.T, y)
        return
    whole = len(x) // _BLOCK * _BLOCK
    if whole:
        left, right = (part[:whole].unflatten(0, (-1, _BLOCK)) for part in (x, y))
        total += torch.bmm(left.transpose(1, 2), right).sum(dim=0)
    total += x[whole:].T @ y[whole:]


def symmetric(total: Float[Tensor, "o o"]) -> Float[Tensor, "o o"]:
    """Return the full symmetric matrix that `add_gram` has accumulated.

    Args:
        total: A total [o, o] of which only the upper triangle is read.

    Returns:
        The symmetric matrix [o, o].

    Example:
        >>> total, rows = torch.zeros(2, 2), torch.tensor([[1.0, 2.0], [0.0, 1.0]])
        >>> add_gram(total, rows)
        >>> symmetric(total)
        tensor([[1., 2.],
                [2., 5.]])
    """
    full = torch.empty_like(total)
    for start in range(0, len(total), _STRIP):  # in blocks, which stay in the cache when they are transposed
        own, right = slice(start, start + _STRIP), slice(start + _STRIP, None)
        upper = torch.triu(total[own, own])
        full[own, own] = upper + torch.triu(upper, diagonal=1).T
        full[own, right] = total[own, right]
        full[right, own] = total[own, right].T
    return full
