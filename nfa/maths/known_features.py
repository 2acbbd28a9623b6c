"""How much of a feature matrix lies in the features that are known to be right."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Share(NamedTuple):
    """A share of a matrix, and the share that chance would give."""

    value: float
    chance: float


class KnownFeatures(Protocol):
    """What is known of the right features of an input with `size` entries."""

    size: int

    @abstractmethod
    def share(self, matrix: Float[Tensor, "i i"]) -> Share | None:
        """Return how much of a positive semidefinite matrix [i, i] has the right form; None where that is undefined."""


class Subspace(KnownFeatures):
    """Known features of which only the part of the input in a subspace matters.

    The share of M is tr(PM)/tr(M), where P projects onto the span of the directions. With M rotated at random, the
    expected share is k/i. It is undefined for M = 0.

    Args:
        directions: k linearly independent directions that span the subspace [k, i].

    Raises:
        ValueError: The directions are linearly dependent.

    Example:
        >>> Subspace(torch.eye(4)[:2]).share(torch.diag(torch.tensor([3.0, 0.0, 1.0, 0.0])))
        Share(value=0.75, chance=0.5)
    """

    def __init__(self, directions: Float[Tensor, "k i"]) -> None:
        k, self.size = directions.shape
        if not 0 < torch.linalg.matrix_rank(directions.double()) == k:
            raise ValueError(f"{k} directions that do not span {k} dimensions")
        self.basis = torch.linalg.qr(directions.double().T).Q

    def share(self, matrix: Float[Tensor, "i i"]) -> Share | None:
        """Return tr(PM)/tr(M)."""
        matrix, basis = matrix.double(), self.basis.to(matrix.device)
        total, inside = float(matrix.trace()), float(((matrix @ basis) * basis).sum())
        if not (matrix.isfinite().all() and total > 0):
            return None
        return Share(inside / total, basis.shape[1] / self.size)


class SumModulo(KnownFeatures):
    """Known features of modular addition: the input is a one-hot a beside a one-hot b, and only a + b mod p matters.

    A function of a + b alone does not change when a grows by s and b falls by s. Neither does its AGOP over all pairs,
    with rows and columns moved along: in the blocks a×a and b×b an entry depends on i − j mod p alone (the blocks are
    circulant), in the block a×b on i + j mod p. Two things are removed first: the diagonals of the blocks a×a and b×b,
    which are positive and about constant in any network, and then the mean of the remaining entries of each block. The
    share is the part of the squared Frobenius norm that remains when every entry is replaced by the mean over the
    entries that ought to be equal.

    For entries in random places within their block (in pairs in a×a and b×b, which keeps these symmetric), K groups
    among N entries hold (K − 1)/(N − 1) of the squared norm on average: (⌊p/2⌋ − 1)/(p(p − 1)/2 − 1) in a×a and b×b,
    and 1/(p + 1) in a×b. The chance level is their mean weighted by the squared norms. The share is undefined where
    nothing remains, as for M = 0. Mallinar et al. 2024, arXiv 2407.20199.

    Args:
        modulus: The modulus p, at least 4.

    Raises:
        ValueError: The modulus is below 4, where every symmetric block is circulant.
    """

    def __init__(self, modulus: int) -> None:
        if modulus < 4:
            raise ValueError(f"modulus={modulus}: below 4 every symmetric block is circulant")
        self.modulus, self.size = modulus, 2 * modulus

    def share(self, matrix: Float[Tensor, "i i"]) -> Share | None:
        """Return the part of the squared norm that has the right form."""
        blocks = [_Grouped.of(entries, groups) for entries, groups in self._blocks(matrix)]
        total = sum(block.total for block in blocks)
        if not (matrix.isfinite().all() and total > sum(block.rounding for block in blocks)):
            return None
        between = sum(block.between for block in blocks)
        return Share(between / total, sum(block.total * block.chance for block in blocks) / total)

    def _blocks(self, matrix: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        """Yield the entries of each block that count once, and the group of entries that ought to be equal for each."""
        p, number = self.modulus, torch.arange(self.modulus, device=matrix.device)
        above = torch.triu_indices(p, p, 1, device=matrix.device).unbind()
        apart = above[1] - above[0]
        yield matrix[:p, :p][above], torch.minimum(apart, p - apart) - 1
        yield matrix[p:, p:][above], torch.minimum(apart, p - apart) - 1
        yield matrix[:p, p:].flatten(), ((number[:, None] + number) % p).flatten()


class _Grouped(NamedTuple):
    """Squared deviations of entries from their mean: of all entries, between groups, by chance, and by rounding alone.
    """

    total: float
    between: float
    chance: float
    rounding: float

    @classmethod
    def of(cls, entries: Float[Tensor, " n"], groups: Int[Tensor, " n"]) -> "_Grouped":
        eps = torch.finfo(entries.dtype).eps
        values = entries.double()
        centred = values - values.mean()
        counts = groups.bincount()
        sums = centred.new_zeros(len(counts)).index_add(0, groups, centred)
        chance = (len(counts) - 1) / (len(values) - 1)
        rounding = (64 * eps) ** 2 * float(values.square().sum())
        return cls(float(centred.square().sum()), float((sums.square() / counts).sum()), chance, rounding)
