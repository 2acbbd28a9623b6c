"""The matrices a_n of single examples, whose mean a measured matrix is, stored as rows.

Products with a matrix B need no [i, i] matrix of an example: ⟨Σ_s Fᵀ x xᵀ F, B⟩ = Σ_s (F B Fᵀ x) · x.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nfa.maths.congruence import Congruence
from nfa.maths.similarity import Similarity, scaled, scaled_products

MANY = 2**23  # entries of a temporary tensor, which are 64 MiB in float64


@dataclass(frozen=True)
class OuterProducts:
    """The matrices a_n = Σ_s Fᵀ x xᵀ F of some examples, with rows x [..., s, r] of each.

    Args:
        rows: The rows x, with the examples first [m, ..., s, r]; a dimension between holds independent estimates.
        factor: F [r, i]; None stands for the identity.
        numbers: The place of each example in the order of the analysis [m].
    """

    rows: Float[Tensor, "m ..."]
    factor: Float[Tensor, "r i"] | None
    numbers: Int[Tensor, " m"]

    def of(self, numbers: Int[Tensor, " k"]) -> "OuterProducts":
        """Return the examples with these numbers."""
        return self if len(numbers) == len(self.numbers) else replace(self, **_of(self, numbers, "rows"))

    def along(self, matrix: Congruence, similarity: Similarity) -> Float[Tensor, "m ..."]:
        """Return ⟨a_n, B⟩ in float64: for B = EᵀDE it is Σ_s yᵀDy with y = E Fᵀ x."""
        through, of_rows = scaled(self._through(matrix.factor, similarity))
        core, of_core = (None, 1.0) if matrix.core is None else scaled(matrix.core)
        products, scale = scaled_products(through if core is None else through @ core, through)
        values = products.sum(dim=(-2, -1), dtype=torch.float64) * scale * of_rows**2 * of_core
        if similarity.centre == "entry":
            values = values - self._entries() * matrix.double().sum() / matrix.size
        return values

    def each(self, other: "OuterProducts", similarity: Similarity) -> Float[Tensor, " m"]:
        """Return ⟨a_n, b_n⟩ = ‖X̃ Yᵀ‖² in float64, where X̃ = X F Eᵀ; both hold the same examples, one estimate each."""
        x, y = self._through(other.factor, similarity).double(), other.rows.double()
        if _has_many(x, y, len(x)):
            values = torch.stack([(a.T @ a * (b.T @ b)).sum() for a, b in zip(x, y, strict=True)])
        else:
            parts = _parts(x, y, y.shape[1])
            values = torch.cat([(a @ b.transpose(-2, -1)).square().sum(dim=(-2, -1)) for a, b in parts])
        return values - self._entries() * other._entries() if similarity.centre == "entry" else values

    def every(
        self, other: "OuterProducts", similarity: Similarity, chosen: Int[Tensor, " k"] | None = None
    ) -> Float[Tensor, "k k"]:
        """Return ⟨a_n, b_k⟩ of all pairs in float64, or of those among the examples at the chosen places."""
        one = torch.arange(len(self.rows)) if chosen is None else chosen
        left, right = self._through(other.factor, similarity)[one], other.rows[one]
        s, t = left.shape[1], right.shape[1]
        if _has_many(left, right, len(one) ** 2):
            squares = [torch.stack([(x.T @ x).flatten() for x in side.double()]) for side in (left, right)]
            values = squares[0] @ squares[1].T
        else:
            crossed = (left.flatten(0, 1) @ right.flatten(0, 1).T).double().square()
            values = crossed.view(len(one), s, len(one), t).sum(dim=(1, 3))
        if similarity.centre == "entry":
            values = values - torch.outer(self._entries()[one], other._entries()[one])
        return values

    def squared_through(self, vector: Float[Tensor, " i"]) -> Float[Tensor, " m"]:
        """Return ‖a_n v‖² in float64."""
        rows, factor = self.rows.double(), None if self.factor is None else self.factor.double()
        along = rows @ (vector if factor is None else factor @ vector)
        mapped = (along[..., None] * rows).sum(dim=-2)
        return (mapped if factor is None else mapped @ factor).square().sum(dim=-1)

    def estimates(self) -> "list[OuterProducts]":
        """Return the independent estimates one by one."""
        return [self] if self.rows.ndim == 3 else [replace(self, rows=part) for part in self.rows.unbind(dim=1)]

    @property
    def size(self) -> int:
        """The number i of rows of the matrices."""
        return self.rows.shape[-1] if self.factor is None else self.factor.shape[1]

    def _through(self, factor: Tensor | None, similarity: Similarity) -> Tensor:
        """Return X F Eᵀ for a factor E."""
        cross = similarity.cross(self.factor, factor)
        return self.rows if cross is None else similarity.once(torch.matmul, self.rows, cross)

    def _entries(self) -> Tensor:
        """Return 1ᵀ a_n 1 / i."""
        rows = self.rows.double()
        totals = rows.sum(dim=-1) if self.factor is None else rows @ self.factor.double().sum(dim=1)
        return totals.square().sum(dim=-1) / self.size


@dataclass(frozen=True)
class PairedProducts:
    """The matrices a_n = −½ Σ_s (Wᵀ δ hᵀ + h δᵀ W) of some examples, whose mean is FACT.

    Args:
        gradients: δ [m, s, o].
        inputs: h [m, s, i].
        weight: W [o, i].
        numbers: The place of each example in the order of the analysis [m].
    """

    gradients: Float[Tensor, "m s o"]
    inputs: Float[Tensor, "m s i"]
    weight: Float[Tensor, "o i"]
    numbers: Int[Tensor, " m"]

    def of(self, numbers: Int[Tensor, " k"]) -> "PairedProducts":
        """Return the examples with these numbers."""
        if len(numbers) == len(self.numbers):
            return self
        return replace(self, **_of(self, numbers, "gradients", "inputs"))

    def along(self, matrix: Congruence, similarity: Similarity) -> Float[Tensor, " m"]:
        """Return ⟨a_n, B⟩ = −Σ_s δᵀ W B h in float64."""
        pulled: Tensor = similarity.once(torch.matmul, self.gradients, self.weight).double()
        through = matrix.times(self.inputs.flatten(0, 1).T).T.reshape(self.inputs.shape)
        values = -(pulled * through.double()).sum(dim=(1, 2))
        if similarity.centre == "entry":
            values = values - self._entries(pulled) * matrix.double().sum() / matrix.size
        return values

    def each(self, other: "PairedProducts", similarity: Similarity) -> Float[Tensor, " m"]:  # noqa: ARG002
        """Return ‖a_n‖² = ½ (⟨G Gᵀ, H Hᵀ⟩ + tr(G Hᵀ G Hᵀ)), with rows G = δᵀW and H of each example."""
        pulled: Tensor = similarity.once(torch.matmul, self.gradients, self.weight).double()
        inputs = self.inputs.double()
        values = torch.cat([_each_of_pairs(g, h) for g, h in _parts(pulled, inputs, inputs.shape[1])])
        return values - self._entries(pulled).square() if similarity.centre == "entry" else values

    def every(
        self,
        other: "PairedProducts",  # noqa: ARG002
        similarity: Similarity,
        chosen: Int[Tensor, " k"] | None = None,
    ) -> Float[Tensor, "k k"]:
        """Return ⟨a_n, a_k⟩ = ½ Σ (G_n G_kᵀ ∘ H_n H_kᵀ + G_n H_kᵀ ∘ H_n G_kᵀ) of all or of chosen pairs in float64."""
        one = torch.arange(len(self.inputs)) if chosen is None else chosen
        everyone: Tensor = similarity.once(torch.matmul, self.gradients, self.weight).double()
        left, right = everyone[one], self.inputs[one].double()
        all_left, all_right, (k, s, _) = left.flatten(0, 1), right.flatten(0, 1), right.shape
        rows = []
        for some in _parts(left, right, k * s):
            g, h = (side.flatten(0, 1) for side in some)
            products = (g @ all_left.T) * (h @ all_right.T) + (g @ all_right.T) * (h @ all_left.T)
            rows.append(products.view(-1, s, k, s).sum(dim=(1, 3)) / 2)
        values = torch.cat(rows)
        if similarity.centre == "entry":
            entries = self._entries(everyone)[one]
            values = values - torch.outer(entries, entries)
        return values

    def squared_through(self, vector: Float[Tensor, " i"]) -> Float[Tensor, " m"]:
        """Return ‖a_n v‖² in float64."""
        pulled, inputs = (self.gradients @ self.weight).double(), self.inputs.double()
        mapped = ((inputs @ vector)[..., None] * pulled + (pulled @ vector)[..., None] * inputs).sum(dim=1) / 2
        return mapped.square().sum(dim=1)

    def estimates(self) -> "list[PairedProducts]":
        """Return the independent estimates one by one: there is one."""
        return [self]

    def _entries(self, pulled: Tensor) -> Tensor:
        """Return 1ᵀ a_n 1 / i."""
        return -(pulled.sum(dim=2) * self.inputs.double().sum(dim=2)).sum(dim=1) / self.inputs.shape[2]


ExampleMatrices: TypeAlias = OuterProducts | PairedProducts


def _each_of_pairs(g: Float[Tensor, "m s i"], h: Float[Tensor, "m s i"]) -> Float[Tensor, " m"]:
    crossed = g @ h.transpose(1, 2)
    grams = (g @ g.transpose(1, 2)) * (h @ h.transpose(1, 2))
    return (grams + crossed * crossed.transpose(1, 2)).sum(dim=(1, 2)) / 2


def _parts(
    x: Float[Tensor, "m s r"], y: Float[Tensor, "m t q"], columns: int
) -> Iterator[tuple[Float[Tensor, "k s r"], Float[Tensor, "k t q"]]]:
    """Split examples so that the products of the rows of some, with so many columns, are not too many."""
    size = max(1, MANY // max(1, x.shape[1] * columns))
    return zip(x.split(size), y.split(size), strict=True)


def _has_many(x: Float[Tensor, "m s r"], y: Float[Tensor, "m t r"], pairs: int) -> bool:
    """Tell whether products of so many pairs of examples are too large [s, t], and smaller as [r, r].

    An image of 32 × 32 positions with ten outputs has 10,240 rows.
    """
    s, t, r = x.shape[1], y.shape[1], x.shape[2]
    return pairs * s * t > MANY and r * r < s * t


def _of(examples: ExampleMatrices, numbers: Tensor, *names: str) -> dict[str, Tensor]:
    chosen = torch.isin(examples.numbers, numbers)
    return {"numbers": numbers, **{name: getattr(examples, name)[chosen] for name in names}}
