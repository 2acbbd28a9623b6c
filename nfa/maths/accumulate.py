"""Sums of outer products over a stream of rows."""

import torch
from jaxtyping import Float
from torch import Tensor

_STRIP = 256


def add_gram(total: Float[Tensor, "o o"], rows: Float[Tensor, "m o"]) -> None:
    """total += rowsᵀ rows, in its upper block triangle only; read it back with `symmetric`.

    Only strips of 256 columns from the diagonal to the right are multiplied: 5/8 of the work at o = 1024.
    """
    for start in range(0, total.shape[0], _STRIP):
        stop = start + _STRIP
        total[start:stop, start:].addmm_(rows[:, start:stop].T, rows[:, start:])


def symmetric(total: Float[Tensor, "o o"]) -> Float[Tensor, "o o"]:
    """The full symmetric matrix of what `add_gram` accumulated.

    >>> total, rows = torch.zeros(2, 2), torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    >>> add_gram(total, rows)
    >>> symmetric(total)
    tensor([[1., 2.],
            [2., 5.]])
    """
    upper = torch.triu(total)
    return upper + torch.triu(upper, diagonal=1).T
