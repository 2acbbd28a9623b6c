"""How much of a feature matrix lies in the features that are known to be right."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Share(NamedTuple):
    """A share of a matrix, and what chance gives."""

    value: float
    chance: float


class KnownFeatures(Protocol):
    """What is known of the right features of an input with `size` numbers."""

    size: int

    @abstractmethod
    def share(self, matrix: Float[Tensor, "i i"]) -> Share | None:
        """How much of a positive semidefinite matrix is as it has to be; None where that is undefined."""


class Subspace(KnownFeatures):
    """Only the part of the input in the span of k `directions` [k i] counts.

    The share of M is tr(PM)/tr(M), P the projection on the span. By chance, with M rotated at random, it is k/i on
    average. It is undefined for M = 0.

    >>> Subspace(torch.eye(4)[:2]).share(torch.diag(torch.tensor([3.0, 0.0, 1.0, 0.0])))
    Share(value=0.75, chance=0.5)
    """

    def __init__(self, directions: Float[Tensor, "k i"]) -> None:
        k, self.size = directions.shape
        if not 0 < torch.linalg.matrix_rank(directions.double()) == k:
            raise ValueError(f"{k} directions that do not span {k} dimensions")
        self.basis = torch.linalg.qr(directions.double().T).Q

    def share(self, matrix: Float[Tensor, "i i"]) -> Share | None:
        """tr(PM)/tr(M)."""
        matrix, basis = matrix.double(), self.basis.to(matrix.device)
        total, inside = float(matrix.trace()), float(((matrix @ basis) * basis).sum())
        if not (matrix.isfinite().all() and total > 0):
            return None
        return Share(inside / total, basis.shape[1] / self.size)


class SumModulo(KnownFeatures):
    """The input is one-hot a beside one-hot b, both below `modulus` p, and only a + b mod p counts.

    What depends on a + b alone stays what it is where a grows by s and b falls by s. So does its AGOP over all pairs,
    rows and columns moved along: in the blocks a×a and b×b an entry depends on i − j mod p alone (they are circulant),
    in the block a×b on i + j. The blocks' diagonals a×a and b×b, which are positive and about constant in any network,
    and the mean of what is left of each block are taken out; the share is that of the squared Frobenius norm of the
    rest that is left when every entry is replaced by the mean over those that have to equal it.

    By chance, with the entries of a block in random places (those of a×a and b×b in pairs, which keeps them symmetric),
    K groups among N entries hold (K − 1)/(N − 1) of their norm on average: (⌊p/2⌋ − 1)/(p(p − 1)/2 − 1) in a×a and b×b,
    1/(p + 1) in a×b; together, their mean weighted by the norms. It is undefined where nothing is left, as of M = 0.
    Mallinar et al. 2024, arXiv 2407.20199.
    """

    def __init__(self, modulus: int) -> None:
        if modulus < 4:
            raise ValueError(f"modulus={modulus}: below 4 every symmetric block is circulant")
        self.modulus, self.size = modulus, 2 * modulus

    def share(self, matrix: Float[Tensor, "i i"]) -> Share | None:
        """‖projection‖²/‖·‖² of what is left of the blocks."""
        blocks = [_Grouped.of(entries, groups) for entries, groups in self._blocks(matrix)]
        total = sum(block.total for block in blocks)
        if not (matrix.isfinite().all() and total > sum(block.rounding for block in blocks)):
            return None
        between = sum(block.between for block in blocks)
        return Share(between / total, sum(block.total * block.chance for block in blocks) / total)

    def _blocks(self, matrix: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        """Entries of a block that count once, and for each the group of those that have to be equal."""
        p, number = self.modulus, torch.arange(self.modulus, device=matrix.device)
        above = torch.triu_indices(p, p, 1, device=matrix.device).unbind()
        apart = above[1] - above[0]
        yield matrix[:p, :p][above], torch.minimum(apart, p - apart) - 1
        yield matrix[p:, p:][above], torch.minimum(apart, p - apart) - 1
        yield matrix[:p, p:].flatten(), ((number[:, None] + number) % p).flatten()


class _Grouped(NamedTuple):
    """Squares of entries about their mean: of all, between groups, and by chance; and what is nothing but rounding."""

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
