"""How large a similarity is because the same weight W stands in both matrices: what is in between is rotated at random.

AGOP = WᵀSW and NFM = WᵀW agree partly because W stands in both. With C = WWᵀ and a random rotation Q (Haar measure) of
the output space, WᵀXW with X = QSQᵀ is what W alone explains. All similarities that have W on both sides are
⟨X, B⟩ / (√tr(XCXC) · norm) with a symmetric matrix B, which is C² for AGOP and NFM. Derivations are in docs/maths.md.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nfa.maths.chance import Level
from nfa.maths.haar import haar_rows
from nfa.maths.similarity import Similarity, inner

FLAT, FLAT_SQUARES = 32, 16  # a spectrum of C, and of C², of such participation ratios averages itself
NEGLIGIBLE = 1e-12  # of a trace

Number = TypeVar("Number", float, Tensor)


class Powers(NamedTuple):
    """The traces of S, S², S³ and S⁴."""

    one: float
    two: float
    three: float
    four: float

    @classmethod
    def of(cls, estimates: Sequence[Float[Tensor, "r r"]], similarity: Similarity | None = None) -> "Powers":
        """Return the traces of a symmetric matrix, from independent estimates if there are several."""
        if len(estimates) == 1:
            (s,) = estimates
            square = (similarity or Similarity()).square(s)
            return cls(float(s.diagonal().double().sum()), inner(s, s), inner(square, s), inner(square, square))
        mean, product = torch.stack(list(estimates)).mean(dim=0), estimates[0] @ estimates[-1]
        squared = mean_product(estimates, inner)
        return cls(float(mean.diagonal().double().sum()), squared, inner(product.T, mean), inner(product, product.T))

    @property
    def ratio(self) -> float:
        """The participation ratio (tr S)²/tr S², which is at most the rank."""
        return _ratio(self.one, self.two)

    @property
    def flat(self) -> bool:
        """Whether no eigenvalue stands out, so that sums over directions are close to their means."""
        return self.ratio >= FLAT and _ratio(self.two, self.four) >= FLAT_SQUARES


class Target(NamedTuple):
    """tr B, ⟨B, C⟩, ⟨B, C²⟩ and ‖B‖², and the Frobenius norm of the other matrix of the similarity."""

    trace: float
    with_c: float
    with_square: float
    squared: float
    norm: float


class Spectrum(NamedTuple):
    """The eigenvalues of C in descending order [m], where missing ones are 0, and B in their eigenvectors [m, m]."""

    values: Float[Tensor, " m"]
    target: Float[Tensor, "m m"]


def closed_form(size: int, s: Powers, c: Powers, b: Target) -> Level | None:
    """Return the level where the spectrum of C is flat.

    The mean of the quotient is replaced by the quotient of the means E⟨X, B⟩ = tr S tr B / r and
    E tr(XCXC) = (p + q) tr C² + q (tr C)². The standard deviation is that of the logarithm's linear part.

    Args:
        size: The number r of dimensions.
        s: The traces of the powers of S.
        c: The traces of the powers of C.
        b: What is known of B.

    Returns:
        The level; None where it is undefined.
    """
    if size < 2:
        return None
    over, under = _means(size, s, c, b)
    if not (over and 0 < under < math.inf and 0 < b.norm < math.inf):
        return None
    mean = over / math.sqrt(under) / b.norm
    variance = _variance(size, s, c, b, over, under)
    return Level(mean, abs(mean) * math.sqrt(variance) if variance >= 0 else math.nan)


def _means(size: int, s: Powers, c: Powers, b: Target) -> tuple[float, float]:
    """Return E⟨X, B⟩ and E tr(XCXC), both of them exact."""
    p, q = _fourth_moments(size, s.one, s.two)
    return s.one * b.trace / size, (p + q) * c.two + q * c.one**2


def _fourth_moments(size: int, trace: Number, squared: Number) -> tuple[Number, Number]:
    """Return p and q in E[X_ij X_kl] = p δ_ij δ_kl + q (δ_ik δ_jl + δ_il δ_jk) for X = QSQᵀ in r > 1 dimensions.

    They solve p r² + 2 q r = (tr S)² and p r + q (r² + r) = tr S².
    """
    determinant = size * (size - 1) * (size + 2)
    square = trace * trace
    return (square * (size + 1) - 2 * squared) / determinant, (size * squared - square) / determinant


def _variance(r: int, s: Powers, c: Powers, b: Target, over: float, under: float) -> float:
    """Return the variance of log⟨X, B⟩ − ½ log tr(XCXC) to first order in uᵀBu, uᵀC²u and uᵀCu of eigenvectors u of X.

    With x_k = u_kᵀC²u_k and c_k = u_kᵀCu_k, tr(XCXC) ≈ Σ s_k² c_k² + Σ s_k (tr S − s_k)(x_k − c_k²)/(r − 1). Each of
    the three forms has a coefficient linear in s_k and s_k²; their covariances are 2/(r (r + 2)) times the inner
    products of the traceless matrices.
    """
    mean_c, share = c.one / r, 1 / (r - 1)
    coefficients = (  # of s_k and of s_k²
        (1 / over, 0.0),
        (-s.one * share / (2 * under), share / (2 * under)),
        (s.one * share * mean_c / under, -(1 + share) * mean_c / under),
    )
    products = (
        (b.squared - b.trace**2 / r, b.with_square - b.trace * c.two / r, b.with_c - b.trace * c.one / r),
        (0.0, c.four - c.two**2 / r, c.three - c.two * c.one / r),
        (0.0, 0.0, c.two - c.one**2 / r),
    )
    spread, skew = s.two - s.one**2 / r, s.three - s.one * s.two / r
    if spread <= NEGLIGIBLE * s.two:
        return 0.0 if spread >= -NEGLIGIBLE * s.two else math.nan
    # Estimates from random directions may contradict the inequality of Cauchy and Schwarz, and variances be negative.
    spreads, total = (spread, skew, max(s.four - s.two**2 / r, skew**2 / spread)), 0.0
    for row, (a1, a2) in enumerate(coefficients):
        for column, (b1, b2) in enumerate(coefficients[row:], row):
            weight = a1 * b1 * spreads[0] + (a1 * b2 + a2 * b1) * spreads[1] + a2 * b2 * spreads[2]
            total += (1 if row == column else 2) * weight * products[row][column]
    return 2 / (r * (r + 2)) * total


def by_rotations(
    estimates: Sequence[Float[Tensor, "r r"]], s: Powers, c: Powers, spectrum: Spectrum, b: Target, *, seed: int = 0
) -> Level | None:
    """Return mean and SD over 200 seeded rotations.

    The means of ⟨X, B⟩ and of tr(XCXC) are known, so the mean of the similarity is that of what remains when it is
    regressed on their deviations (control variates). Only the eigenvectors of C that stand out are rotated one by one:
    the first m, so many that the spectrum of the rest is flat. Given these, X between the others is again a random
    rotation of r − m dimensions, and its contribution is replaced by its mean.

    Args:
        estimates: S, or independent estimates of it.
        s: The traces of its powers.
        c: The traces of the powers of C.
        spectrum: Its eigenvalues, and B in its eigenvectors.
        b: What is known of B.
        seed: The seed of the rotations.

    Returns:
        The level; None where it is undefined.
    """
    size = len(estimates[0])
    if size < 2:
        return None
    count = outstanding(spectrum.values, size)
    missing = max(0, count - len(spectrum.values))
    values = F.pad(spectrum.values.double(), (0, missing))
    target = F.pad(spectrum.target.double(), (0, missing, 0, missing))[:count, :count]
    parts = (_rotated(estimates, s, values, target, b.trace, rows) for rows in haar_rows(count, size, seed))
    over, under = map(torch.cat, zip(*parts, strict=True))
    levels = over / under.clamp(min=0).sqrt() / b.norm
    if not levels.isfinite().all():
        return None
    known = _means(size, s, c, b)
    controls = torch.stack([torch.ones_like(over), over / known[0] - 1, under / known[1] - 1], dim=1)
    fit = torch.linalg.lstsq(controls.cpu(), levels.cpu()[:, None], driver="gelsd").solution
    mean, rest = float(fit[0]), _variance_of_rest(size, s, spectrum, count, b, known)
    return Level(mean, math.sqrt(float(levels.var()) + mean**2 * rest))


def _variance_of_rest(
    size: int, s: Powers, spectrum: Spectrum, count: int, b: Target, known: tuple[float, float]
) -> float:
    """Return the variance of the logarithm that rotations of the other r − m directions would add.

    S has the share (r − m)/r of its trace among these on average, and its eigenvalues are taken to be smaller by it.
    """
    tail, among = spectrum.values[count:].double(), spectrum.target[count:, count:].double()
    if size - count < 2 or not len(tail):
        return 0.0
    share, diagonal = (size - count) / size, among.diagonal()
    s = Powers(*(trace * share**power for power, trace in enumerate(s, start=1)))
    c = Powers(*(float(tail.pow(power).sum()) for power in (1, 2, 3, 4)))
    traces = float(diagonal.sum()), float(diagonal @ tail), float(diagonal @ tail.square()), inner(among, among)
    found = _variance(size - count, s, c, Target(*traces, b.norm), *known)
    return found if found > 0 else 0.0


def _rotated(
    estimates: Sequence[Tensor], s: Powers, values: Tensor, target: Tensor, target_trace: float, rows: Tensor
) -> tuple[Float[Tensor, " draws"], Float[Tensor, " draws"]]:
    """Return ⟨X, B⟩ and tr(XCXC) for eigenvectors of C turned into `rows` [draws, m, r], in means over the others."""
    _, count, size = rows.shape
    rows = rows.to(estimates[0])
    through = [rows @ estimate for estimate in estimates]
    inner_parts = [(part @ rows.transpose(1, 2)).double() for part in through]
    top, tail, left = values[:count], values[count:], size - count
    square = mean_product(inner_parts, torch.mul)
    mean = inner_parts[0] if len(inner_parts) == 1 else torch.stack(inner_parts).mean(dim=0)
    over, under = mean.flatten(1) @ target.flatten(), square.flatten(1) @ torch.outer(top, top).flatten()
    if not left:
        return over, under
    beside = mean_product(through, lambda x, y: (x.double() * y.double()).sum(dim=2)) - square.sum(dim=2)
    rest = s.one - mean.diagonal(dim1=1, dim2=2).sum(dim=1)
    rest_squared = s.two - square.sum(dim=(1, 2)) - 2 * beside.sum(dim=1)
    p, q = _fourth_moments(left, rest, rest_squared)
    over = over + rest / left * (target_trace - float(target.diagonal().sum()))
    under = under + 2 * (beside @ top) * float(tail.sum()) / left
    return over, under + (p + q) * float(tail.square().sum()) + q * float(tail.sum()) ** 2


def outstanding(values: Float[Tensor, " m"], size: int) -> int:
    """Return how many of the eigenvalues, in descending order, are to be rotated one by one; never all but one.

    Args:
        values: The eigenvalues [m].
        size: The number r of dimensions.

    Returns:
        Their number.
    """
    values = values.double().clamp(min=0)
    one, two, four = (values.pow(power).flip(0).cumsum(0).flip(0).tolist() for power in (1, 2, 4))
    left = (
        count
        for count in range(len(values))
        if one[count] <= NEGLIGIBLE * one[0]
        or (_ratio(one[count], two[count]) >= FLAT and _ratio(two[count], four[count]) >= FLAT_SQUARES)
    )
    count = next(left, len(values))
    return size if size - count < 2 else count


def mean_product(estimates: Sequence[Tensor], product: Callable[[Tensor, Tensor], Any]) -> Any:
    """Return the mean product of two different estimates, or of the only one with itself.

    Args:
        estimates: Independent estimates of one matrix.
        product: The product of two of them.

    Returns:
        The mean.
    """
    if len(estimates) == 1:
        return product(estimates[0], estimates[0])
    found = [product(a, b) for place, a in enumerate(estimates) for b in estimates[:place]]
    return sum(found[1:], found[0]) / len(found)


def _ratio(trace: float, squared: float) -> float:
    """Return the participation ratio (Σ λ)²/Σ λ², the number of eigenvalues that count."""
    return trace**2 / squared if squared > 0 else 0.0
