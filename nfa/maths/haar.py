"""Random rotations with the Haar measure, the same at every layer and checkpoint."""

from collections.abc import Iterator
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

DRAWS = 200
BLOCK = 2**23  # numbers in the rows of rotations that are made at a time
KEPT = 2**21  # numbers in the rows that are kept for the next layer and checkpoint


def haar_rows(count: int, size: int, seed: int, draws: int = DRAWS) -> Iterator[Float[Tensor, "part count size"]]:
    """Yield orthonormal rows of random rotations, some rotations at a time: the transposed Q factors of Gaussian
    matrices.

    With the signs of the diagonal of R, Q has the Haar measure. Mezzadri 2007, arXiv math-ph/0609050.

    Args:
        count: The number of rows.
        size: Their length.
        seed: The seed.
        draws: The number of rotations.

    Yields:
        The rows, in float64.
    """
    if draws * count * size <= KEPT:
        yield _kept_rows(count, size, seed, draws)
        return
    yield from _made_rows(count, size, seed, draws)


@lru_cache(maxsize=8)
def _kept_rows(count: int, size: int, seed: int, draws: int) -> Tensor:
    """Return the rows of all rotations; layers of one size, and all checkpoints, have the same rotations."""
    return torch.cat(list(_made_rows(count, size, seed, draws)))


def _made_rows(count: int, size: int, seed: int, draws: int) -> Iterator[Tensor]:
    random, most = torch.Generator().manual_seed(seed), max(1, BLOCK // max(1, count * size))
    for start in range(0, draws, most):
        gaussian = torch.randn(min(most, draws - start), size, count, dtype=torch.float64, generator=random)
        q, r = torch.linalg.qr(gaussian)
        yield (q * r.diagonal(dim1=1, dim2=2).sign()[:, None]).transpose(1, 2)
