"""Standard errors of similarities over the examples that were drawn, and similarities without the bias of few examples.

The population is the training set of N examples, of which n were measured. A function F of means of matrices a_n has
the first-order terms t_n = ⟨a_n, ∂F/∂A⟩, and SE² = (1 − n/N)/n · Σ_c p_c s_c², where s_c² is the variance of t within
class c, or the plain variance where examples were not drawn by class. Derivations are in docs/maths.md.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nfa.maths.congruence import Congruence
from nfa.maths.example_matrices import ExampleMatrices
from nfa.maths.replicates import Replicates
from nfa.maths.similarity import Similarity

FEWEST = 32  # examples below which no standard error is given: variances of so few are not known
NOISE = 0.5  # no unbiased cosine where sampling makes more than this part of a squared norm
NOISE_OF_RANKS = 0.1  # no standard error of a stable rank where it does so, since λ is then biased as well
CLEARLY = 2.0  # errors of an eigenvalue, by which it must exceed the next one
HALF = 0.5  # of a standard error, by which sampling may move a stable rank on average
FEW = 0.05  # of the stored examples: where these carry so much of the variance of t,
MOST_OF_IT = 0.6  # a few examples decide, and no standard error is given, because it would be too small


@dataclass(frozen=True)
class SampleMean:
    """A matrix that is a mean over examples, and the matrices of the first of these examples.

    Args:
        matrix: The mean over all examples.
        examples: The matrices of the first ones.
    """

    matrix: Congruence
    examples: ExampleMatrices


Matrix: TypeAlias = Congruence | SampleMean | Replicates


@dataclass(frozen=True)
class Sampling:
    """How examples were drawn.

    Args:
        examples: The number n of examples.
        population: The number N of examples that they were drawn from; None where it is unknown, that is very large.
        strata: The class of each of the first examples, where they were drawn by class [k].
    """

    examples: int
    population: int | None = None
    strata: Int[Tensor, " k"] | None = None

    @property
    def unseen(self) -> float:
        """The share 1 − n/N of the population that was not measured."""
        return 1.0 if self.population is None else 1 - self.examples / self.population

    def classes_of(self, stored: ExampleMatrices) -> Int[Tensor, " m"] | None:
        """Return the classes of stored examples, counted from 0; None where a class has only one of them."""
        if self.strata is None:
            return None
        found, classes, counts = self.strata[stored.numbers].unique(return_inverse=True, return_counts=True)
        return classes if len(found) and int(counts.min()) > 1 else None


class CosineError(NamedTuple):
    """The standard error of a cosine, and the cosine with unbiased norms and inner product."""

    se: float
    unbiased: float


def mean_of(matrix: Matrix) -> Congruence:
    """Return the measured matrix; of several estimates, their mean.

    Args:
        matrix: What was measured.

    Returns:
        The matrix.
    """
    if isinstance(matrix, Congruence):
        return matrix
    return matrix.matrix if isinstance(matrix, SampleMean) else matrix.mean


def cosine_error(a: Matrix, b: Matrix, similarity: Similarity, sampling: Sampling) -> CosineError | None:
    """Return the standard error of the cosine of A and B over examples and random directions.

    There is none for fewer than 32 examples, where a few examples decide, and where sampling makes half of a norm².

    Sampling adds (1 − n/N)/n times the variance of a_n to ‖Â‖² on average, and the covariance of a_n and b_n to ⟨Â, B̂⟩;
    within classes where examples were drawn by class. The unbiased cosine is without these.

    Args:
        a: The matrix A; only this one may be `Replicates`.
        b: The matrix B.
        similarity: The similarity.
        sampling: How the examples were drawn.

    Returns:
        The error and the unbiased cosine; None where there is no sampling error, where they are undefined, and where a
        few examples decide.
    """
    pair = _Pair(a, b, similarity, sampling)
    terms, n = pair.terms(), sampling.examples
    if terms is None or not (sampling.unseen > 0 or isinstance(a, Replicates)):
        return None
    variance, carried = _within(terms.mean(dim=1), pair.classes)
    if not math.isfinite(variance) or (sampling.unseen > 0 and (carried >= MOST_OF_IT or len(terms) < FEWEST)):
        return None
    directions = float(terms.var(dim=1).mean()) / terms.shape[1] if terms.shape[1] > 1 else 0.0
    squared = (sampling.unseen * variance + (1 - sampling.unseen) * directions) / n
    unbiased = pair.unbiased()
    return None if unbiased is None else CosineError(math.sqrt(squared), unbiased)


def stable_rank_error(
    matrix: SampleMean, values: Float[Tensor, " k"], vector: Float[Tensor, " i"], similarity: Similarity,
    sampling: Sampling,
) -> float | None:  # fmt: skip
    """Return the standard error of the stable rank ‖A‖²/λ² over examples.

    With the eigenvector v of the eigenvalue λ of largest magnitude, t_n = 2⟨a_n, A⟩/λ² − 2 (‖A‖²/λ³) vᵀa_n v. What
    sampling adds to ‖A‖² and to λ² nearly cancels where it is little, so the value itself is not corrected. It is not
    little where another eigenvalue λ′ is close: the largest one of a sample is too large by up to about
    (1 − n/N)/n · E‖(a_n − A) v‖²/(|λ| − |λ′|), or belongs to another direction than that of all examples.

    Args:
        matrix: The matrix A.
        values: λ and the next eigenvalue λ′, if there is one, by magnitude.
        vector: v.
        similarity: What computes and remembers products; it must not centre.
        sampling: How the examples were drawn.

    Returns:
        The error; None where there is no sampling error, where a few examples decide, where sampling makes more than a
        tenth of ‖A‖², and where the eigenvalue is not clearly the largest one.
    """
    square, largest = similarity.inner(matrix.matrix, matrix.matrix), float(values[0])
    if not (sampling.unseen > 0 and largest) or len(matrix.examples.numbers) < FEWEST:
        return None
    noise = _Pair(matrix, matrix.matrix, similarity, sampling).noise(0)
    if noise > NOISE_OF_RANKS:
        return None
    along = matrix.examples.along(Congruence(vector.to(_like(matrix))[None], None), similarity)
    itself = similarity.once(matrix.examples.along, matrix.matrix, similarity) / largest**2
    terms = 2 * itself - 2 * square / largest**3 * along
    variance, carried = _within(terms, sampling.classes_of(matrix.examples))
    if not math.isfinite(variance) or carried >= MOST_OF_IT:
        return None
    share = sampling.unseen / sampling.examples
    error, gap = math.sqrt(share * variance), abs(largest) - (float(values[1].abs()) if len(values) > 1 else 0.0)
    spread = share * float(along.var())
    if gap <= CLEARLY * math.sqrt(spread):
        return None
    mixed = share * float((matrix.examples.squared_through(vector) - along.square()).mean())
    moved = square / largest**2 * abs(noise - spread / largest**2 - 2 * mixed / (abs(largest) * gap))
    return error if moved <= HALF * error else None


def _like(matrix: SampleMean) -> Tensor:
    """Return a tensor of the matrix' type and device."""
    part = matrix.matrix.core if matrix.matrix.core is not None else matrix.matrix.factor
    assert part is not None
    return part


class _Pair:
    """Two matrices, their stored examples, and their products."""

    def __init__(self, a: Matrix, b: Matrix, similarity: Similarity, sampling: Sampling) -> None:
        self.similarity, self.sampling = similarity, sampling
        self.means = mean_of(a), mean_of(b)
        self.examples = _common(*(None if isinstance(matrix, Congruence) else matrix.examples for matrix in (a, b)))
        norm = a.squared_norm(similarity) if isinstance(a, Replicates) else similarity.inner(*self.means[:1] * 2)
        self.squares = norm, similarity.inner(*self.means[1:] * 2)
        self.inner = similarity.inner(*self.means)
        stored = next((examples for examples in self.examples if examples is not None), None)
        self.classes = None if stored is None else sampling.classes_of(stored)

    def terms(self) -> Float[Tensor, "m R"] | None:
        """Return t_n = ⟨a_n, ∂F/∂A⟩ + ⟨b_n, ∂F/∂B⟩ of the stored examples; None where the cosine is undefined."""
        if self.examples == (None, None) or not all(0 < square < math.inf for square in self.squares):
            return None
        norm = math.sqrt(self.squares[0] * self.squares[1])
        parts = []
        for own, examples in enumerate(self.examples):
            if examples is not None:
                across = examples.along(self.means[1 - own], self.similarity) / norm
                itself = self.similarity.once(examples.along, self.means[own], self.similarity) / self.squares[own]
                part = across - self.inner / norm * itself
                parts.append(part if part.ndim == 2 else part[:, None])
        total: Tensor = sum(parts[1:], parts[0])
        return total

    def unbiased(self) -> float | None:
        """Return the cosine with unbiased norms and inner product; None where a norm is too small for that."""
        if max(self.noise(0), self.noise(1)) > NOISE:
            return None
        first, second = (square * (1 - self.noise(place)) for place, square in enumerate(self.squares))
        inner = self.inner - self._bias(*self.examples, self.inner)
        value = inner / math.sqrt(first * second)
        return value if math.isfinite(value) else None

    def noise(self, place: int) -> float:
        """Return which part of the squared norm of A (0) or B (1) sampling has made."""
        examples, square = self.examples[place], self.squares[place]
        return self._bias(examples, examples, square) / square if square else 0.0

    def _bias(self, a: ExampleMatrices | None, b: ExampleMatrices | None, product: float) -> float:
        """Return what sampling adds to ⟨Â, B̂⟩ on average."""
        n, unseen = self.sampling.examples, self.sampling.unseen
        if a is None or b is None or not unseen:
            return 0.0
        if self.classes is not None:
            return unseen / n * float(self.similarity.once(_within_classes, a, b, self.sampling, self.similarity))
        return unseen / (n - 1) * (float(self.similarity.once(_mean_of_each, a, b, self.similarity)) - product)


def _within_classes(a: Any, b: Any, sampling: Sampling, similarity: Similarity) -> float:
    """Return Σ_c p_c times the covariance of a_n and b_n in class c: mean ⟨a_n, b_n⟩ minus that of other pairs."""
    classes = sampling.classes_of(a)
    assert classes is not None
    total = 0.0
    places = [(classes == one).nonzero().squeeze(1) for one in range(int(classes.max()) + 1)]
    for products in _mean_of_pairs(a, b, lambda x, y: [x.every(y, similarity, one) for one in places]):
        own, everyone, count = float(products.trace()), float(products.sum()), len(products)
        total += count / len(classes) * (own / count - (everyone - own) / (count * (count - 1)))
    return total


def _mean_of_each(a: Any, b: Any, similarity: Similarity) -> float:
    """Return the mean of ⟨a_n, b_n⟩."""
    return float(_mean_of_pairs(a, b, lambda x, y: [x.each(y, similarity)])[0].mean())


def _mean_of_pairs(a: Any, b: Any, products: Callable[[Any, Any], list[Tensor]]) -> list[Tensor]:
    """Return the mean products of independent estimates; of an only estimate, those with itself."""
    first, second = a.estimates(), b.estimates()
    if a is b and len(first) > 1:
        pairs = [(x, y) for place, x in enumerate(first) for y in first[:place]]
    else:
        pairs = [(x, y) for x in first for y in (first if a is b else second)]
    return [torch.stack(found).mean(dim=0) for found in zip(*(products(x, y) for x, y in pairs), strict=True)]


def _common(
    a: ExampleMatrices | None, b: ExampleMatrices | None
) -> tuple[ExampleMatrices | None, ExampleMatrices | None]:
    """Return the examples that both sides have stored."""
    if a is None or b is None:
        return a, b
    common = a.numbers[torch.isin(a.numbers, b.numbers)]
    return a.of(common), b.of(common)


def _within(terms: Float[Tensor, " m"], classes: Tensor | None) -> tuple[float, float]:
    """Return Σ_c p_c s_c², and which share of the squares 5 % of the examples carry; without classes, of all examples.
    """
    if len(terms) < 2:
        return math.nan, math.nan
    classes = torch.zeros(len(terms), dtype=torch.long) if classes is None else classes
    sizes = classes.bincount().double()
    means = torch.zeros_like(sizes).index_add(0, classes, terms.cpu()) / sizes
    rest = terms.cpu() - means[classes]
    spread = torch.zeros_like(sizes).index_add(0, classes, rest.square()) / (sizes - 1)
    squares = rest.square().sort(descending=True).values
    total, few = float(squares.sum()), float(squares[: max(1, round(FEW * len(squares)))].sum())
    return float((sizes / len(terms)) @ spread), few / total if total > 0 else 0.0
