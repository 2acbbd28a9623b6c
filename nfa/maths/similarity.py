"""Cosine similarity of symmetric matrices."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from nfa.maths.accumulate import add_gram, symmetric
from nfa.maths.congruence import Congruence

Centre = Literal["none", "entry"]
NEAR_ONE = 2.0**-40, 2.0**40  # products of two such numbers, and sums of them, are far from the ends of float32


class Similarity:
    """Compute inner products and cosines of `Congruence` matrices, forming no product of their factors twice.

    Use one instance for the matrices of one site: W Wᵀ then serves every relation, and S W Wᵀ every relation of S. What
    else several relations need, such as eigenvectors, is remembered by `once`.

    Args:
        centre: "none" compares the matrices as they are; "entry" subtracts each matrix's mean entry first, which makes
            the cosine Pearson's r of the entries.
    """

    def __init__(self, centre: Centre = "none") -> None:
        self.centre = centre
        self._made: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def squared(self, a: Congruence) -> float:
        """Return ‖A‖² = tr(A²), without centring: a rotation does not change it."""
        squared: float = self.once(self._uncentred, a, a)
        return squared

    def trace(self, a: Congruence) -> float:
        """Return tr(A) = ⟨C, F Fᵀ⟩."""
        return float(self.once(self._trace, a))

    def total(self, a: Congruence) -> float:
        """Return the sum of all entries, in float64."""
        return float(self.once(_total, a))

    def _trace(self, a: Congruence) -> float:
        gram = self.cross(a.factor, a.factor)
        if gram is None:
            return float(a.dense().diagonal().double().sum())
        return float(gram.diagonal().double().sum()) if a.core is None else inner(a.core, gram)

    def inner(self, a: Congruence, b: Congruence) -> float:
        """Return ⟨A, B⟩ = tr(AᵀB); with centre="entry", return ⟨A − Ā, B − B̄⟩, where Ā is the mean entry of A.

        The centred product is a small difference of large numbers and is computed in float64.
        """
        product: float = self.once(self._uncentred if self.centre == "none" else _entry_centred, a, b)
        return product

    def cosine(self, a: Congruence, b: Congruence) -> float | None:
        """Return ⟨A, B⟩ / (‖A‖_F ‖B‖_F); None where it is undefined because a norm is zero or a value is not finite.

        >>> A, B = (Congruence(None, torch.diag(torch.tensor(d))) for d in ([1.0, 0.0], [1.0, 1.0]))
        >>> round(Similarity().cosine(A, B), 6)
        0.707107
        """
        norms = self.inner(a, a), self.inner(b, b)
        if not all(0 < norm < math.inf for norm in norms):  # NaN fails every comparison
            return None
        value = self.inner(a, b) / math.sqrt(norms[0]) / math.sqrt(norms[1])
        return value if math.isfinite(value) else None

    def _uncentred(self, a: Congruence, b: Congruence) -> float:
        """Return ⟨FᵀCF, EᵀDE⟩ = ⟨C F Eᵀ, (D E Fᵀ)ᵀ⟩."""
        if a.factor is None and b.factor is None:
            return inner(a.dense(), b.dense())
        for one, other in ((a, b), (b, a)):
            if one.core is None or other.core is not None or one.factor is other.factor:
                continue
            if one.factor is not None and other.factor is not None:
                return self._along(one.core, one.factor, other.factor)
        left = self.once(self._half, a.core, a.factor, b.factor)
        return inner(left, self.once(self._half, b.core, b.factor, a.factor).T)

    def _along(self, core: Tensor, own: Tensor, other: Tensor) -> float:
        """Return ⟨FᵀCF, EᵀE⟩ = ⟨C, X Xᵀ⟩ with X = F Eᵀ, which costs half a product."""
        cross = self.cross(own, other)
        return inner(core, self.once(_cross, cross, cross))

    def _half(self, core: Tensor | None, left: Tensor | None, right: Tensor | None) -> Tensor:
        """Return C F Eᵀ; None stands for the identity."""
        cross = self.cross(left, right)
        assert cross is not None
        return cross if core is None else core @ cross

    def cross(self, left: Tensor | None, right: Tensor | None) -> Tensor | None:
        """Return F Eᵀ of two factors; None stands for the identity."""
        if left is None or right is None:
            return left if right is None else right.T
        turned = self._made.get(_key(_cross, (right, left)))
        if turned is not None:
            self._made.setdefault(_key(_cross, (left, right)), ((left, right), turned[1].T))
        product: Tensor = self.once(_cross, left, right)
        return product

    def square(self, a: Tensor) -> Tensor:
        """Return A² of a symmetric matrix; only the upper triangle is multiplied."""
        product: Tensor = self.once(_cross, a, a)
        return product

    def once(self, make: Callable[..., Any], *parts: Any) -> Any:
        """Return `make(*parts)`, computed at the first call.

        The function and the parts are stored with the result, so that their ids are not reused.
        """
        key = _key(make, parts)
        if key not in self._made:
            self._made[key] = ((make, *parts), make(*parts))
        return self._made[key][1]


def _key(make: Callable[..., Any], parts: tuple[Any, ...]) -> tuple[int, ...]:
    """Return what tells calls apart; a bound method is a new object at every access, its function and owner are not."""
    return (id(getattr(make, "__func__", make)), id(getattr(make, "__self__", None)), *map(id, parts))


def _total(a: Congruence) -> float:
    return float(a.double().sum())


def _cross(left: Tensor, right: Tensor) -> Tensor:
    """Return F Eᵀ; for F Fᵀ only the upper triangle is multiplied."""
    if left is not right:
        return left @ right.T
    factor = left
    total = factor.new_zeros(len(factor), len(factor))
    add_gram(total, factor.T)
    return symmetric(total)


def inner(a: Tensor, b: Tensor) -> float:
    """Return ⟨A, B⟩.

    Args:
        a: The matrix A.
        b: The matrix B, of the same shape.

    Returns:
        The sum of the products of their entries, in float64.
    """
    products, scale = scaled_products(a, b)
    return float(products.sum(dtype=torch.float64)) * scale


def scaled_products(a: Tensor, b: Tensor) -> tuple[Tensor, float]:
    """Return the products of entries, to be added in float64, and the scale by which their sum is to be multiplied.

    Products are rounded to float32 at least. Entries are scaled so that no product overflows and none that counts
    underflows. Sums of 10⁶ terms would lose digits in float32.

    Args:
        a: The entries a.
        b: The entries b, of the same shape.

    Returns:
        The products, and the scale.
    """
    (first, of_first), (second, of_second) = scaled(a), scaled(b)
    return first * second, of_first * of_second


def scaled(a: Tensor) -> tuple[Tensor, float]:
    """Return entries divided by a power of two, where their largest magnitude is far from 1, and this power.

    Args:
        a: The entries.

    Returns:
        The entries, in float32 at least, and the power, which has a value in their type.
    """
    a = a if a.dtype == torch.float64 else a.float()
    if not a.numel():
        return a, 1.0
    largest = largest_magnitude(a)
    if not 0 < largest < math.inf or NEAR_ONE[0] < largest < NEAR_ONE[1]:
        return a, 1.0
    scale = 2.0 ** (math.frexp(largest)[1] - 1)  # the next larger power may be infinite
    return a / scale, scale


def largest_magnitude(entries: Tensor) -> float:
    """Return the largest |x|, which a device is asked for once; NaN where an entry is NaN.

    Args:
        entries: At least one number x.

    Returns:
        The largest magnitude.
    """
    low, high = torch.stack(torch.aminmax(entries)).tolist()
    largest: float = max(abs(low), abs(high))
    return largest


def _entry_centred(a: Congruence, b: Congruence) -> float:
    a, b = a.double(), b.double()
    product = Similarity().inner(a, b)
    centred = product - float(a.sum() * b.sum()) / a.size**2
    # A constant matrix has no centred part; the remainder is a rounding error.
    return 0.0 if abs(centred) <= 64 * torch.finfo(torch.float64).eps * abs(product) else centred
