"""Sketches of the per-example gradients of one parameter, which keep their inner products on average.

A gradient γ [o, i] is replaced by its products γ u_j with r vectors u_j of random signs (or by γᵀ u_j). E[u uᵀ] = 1, so
E ⟨γ_a u, γ_b u⟩ = ⟨γ_a, γ_b⟩ for every pair, a = b too, and the mean over j has a variance of 1/r of that of one
vector. γ u = Σ_s δ_s ⟨h_s, u⟩ needs no γ. docs/maths.md derives the error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nfa.maths.example_gradients import Dense, GradientFactors, Part
from nfa.maths.gram import cosines
from nfa.maths.image_gradients import ImageFactors
from nfa.maths.lookup_gradients import Rows
from nfa.seeding import generator

BLOCKS = 8  # independent sketches that the random vectors are divided into, at most


def whole_blocks(vectors: int | float) -> int:
    """Return the next number of random vectors that divides into an even number of blocks.

    Args:
        vectors: How many are wanted.

    Returns:
        2, 4, 6, 8 or a multiple of 8.

    Example:
        >>> [whole_blocks(vectors) for vectors in (0, 3, 8, 8.5)]
        [2, 4, 8, 16]
    """
    step = 2 if vectors <= BLOCKS else BLOCKS
    return max(1, math.ceil(vectors / step)) * step


@dataclass(frozen=True)
class Projection:
    """A random projection of the gradients γ [o, i] of a parameter.

    Args:
        shape: The size (o, i) of γ; all dimensions of a parameter but the first are i.
        vectors: Random signs [i r], or [o r] if `of_rows`; r is even.
        of_rows: Whether the o rows of γ are combined (γᵀ u), and not its i columns (γ u).
    """

    shape: tuple[int, int]
    vectors: Float[Tensor, "d r"]
    of_rows: bool

    @classmethod
    def drawn(cls, shape: tuple[int, int], vectors: int, *, of_rows: bool, seed: int, purpose: str) -> "Projection":
        """Draw the signs; they depend on seed and purpose only."""
        size = shape[0] if of_rows else shape[1]
        signs = torch.randint(2, (size, vectors), generator=generator(seed, purpose), dtype=torch.int8) * 2 - 1
        return cls(shape, signs.float(), of_rows)

    @property
    def blocks(self) -> int:
        """The number of independent sketches, which is even."""
        return min(BLOCKS, self.vectors.shape[1])

    @property
    def kept(self) -> int:
        """The size of γ u."""
        return self.shape[1] if self.of_rows else self.shape[0]

    def __call__(self, parts: Sequence[Part]) -> Dense:
        """Return the sketches of gradients that are sums of parts, Σ parts: γ u_j/√r, one vector after the other."""
        found = [self._of(part).flatten(1) for part in parts]
        return Dense(sum(found[1:], found[0]) / math.sqrt(self.vectors.shape[1]))

    def products(self, a: Dense, b: Dense) -> Float[Tensor, "b n m"]:
        """Return what each block of random vectors contributes to the inner products ⟨γ_a, γ_b⟩, their sum.

        Args:
            a: The sketches of the first n gradients.
            b: The sketches of the other m gradients.

        Returns:
            The contributions [b, n, m].
        """
        left, right = (side.values.unflatten(1, (self.blocks, -1)) for side in (a, b))
        return torch.stack([left[:, place] @ right[:, place].T for place in range(self.blocks)])

    def _of(self, part: Part) -> Float[Tensor, "n r k"]:
        part = part.factors() if isinstance(part, ImageFactors) else part
        signs = self.vectors.to(part.tensors[-1])
        if isinstance(part, GradientFactors) and self._fits(part):
            return self._of_factors(part, signs)
        if isinstance(part, Rows) and self.of_rows:
            return torch.einsum("nsr,nsd->nrd", signs[part.index], part.values)
        found = part.dense().values.unflatten(1, self.shape)
        return torch.einsum("noi,or->nri" if self.of_rows else "noi,ir->nro", found, signs)

    def _fits(self, part: GradientFactors) -> bool:
        return (part.left.shape[2:].numel(), part.right.shape[3]) == self.shape

    def _of_factors(self, part: GradientFactors, signs: Tensor) -> Float[Tensor, "n r k"]:
        if self.of_rows:
            groups = signs.unflatten(0, part.left.shape[2:])
            return torch.einsum("nsgr,nsgq->nrq", torch.einsum("nsgp,gpr->nsgr", part.left, groups), part.right)
        return torch.einsum("nsgp,nsgr->nrgp", part.left, part.right @ signs).flatten(2)


def paired_differences(products: Float[Tensor, "b n m"]) -> Float[Tensor, "p n m"]:
    """Return the differences between the two blocks of each pair; their squares are unbiased for the variance of sums.

    Args:
        products: What each block contributes [b, n, m].

    Returns:
        The differences [b/2, n, m].
    """
    return products[0::2] - products[1::2]


def cosine_error(gram: Float[Tensor, "n n"], shifts: Float[Tensor, "g n n"]) -> float | None:
    """Return the standard error of a cosine C_ab, a ≠ b, of a sketched Gram matrix: the root mean square over pairs.

    Args:
        gram: The Gram matrix K [n, n].
        shifts: Its independent shifts [g, n, n].

    Returns:
        The error; None if fewer than two gradients have a direction.
    """
    kept = cosines(gram)[1]
    if kept.sum() < 2:
        return None
    moved = cosine_changes(gram[kept][:, kept], shifts[:, kept][:, :, kept])
    apart = ~torch.eye(moved.shape[1], dtype=torch.bool)
    return math.sqrt(float(moved.square().sum(dim=0)[apart].mean()))


def cosine_changes(gram: Float[Tensor, "n n"], shifts: Float[Tensor, "g n n"]) -> Float[Tensor, "g n n"]:
    """Return how shifts of a Gram matrix move its cosines: dC = dK_ab/N_ab − C (dK_aa/K_aa + dK_bb/K_bb)/2.

    Args:
        gram: The Gram matrix K, with a positive diagonal [n, n].
        shifts: The shifts dK [g, n, n].

    Returns:
        The changes dC to first order [g, n, n].
    """
    roots = gram.diagonal().sqrt()
    own = shifts.diagonal(dim1=1, dim2=2) / gram.diagonal()
    return (shifts / roots[:, None] - gram / roots[:, None] * (own[:, :, None] + own[:, None]) / 2) / roots
