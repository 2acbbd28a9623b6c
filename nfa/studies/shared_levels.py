"""The shared-weights level of each relation at one site; nfa/maths/shared_weights.py says what it is."""

import math
from collections.abc import Callable, Mapping
from functools import cached_property

from torch import Tensor

from nfa.maths import shared_weights
from nfa.maths.chance import Level
from nfa.maths.congruence import Congruence, PairedMean
from nfa.maths.replicates import Replicates
from nfa.maths.shared_weights import Powers, Spectrum, Target
from nfa.maths.similarity import Similarity, inner
from nfa.maths.spectrum import eigenvectors
from nfa.maths.standard_errors import Matrix, mean_of

CUTOFF = 1e-5  # relative to the largest eigenvalue of M; what lies below is not divided by
SAME = 1e-3  # relative; E|z|² differs from E|Wh|² by more where a site has a bias


class SharedLevels:
    """The levels of one site.

    Args:
        matrices: The matrices of the site by name.
        similarity: What computes and remembers products; it must not centre.
    """

    def __init__(self, matrices: Mapping[str, Matrix], similarity: Similarity) -> None:
        self.matrices, self.similarity = matrices, similarity
        self.means = {name: mean_of(matrix) for name, matrix in matrices.items()}
        self._powers: dict[str, Powers] = {}
        self._estimates: dict[str, list[Tensor]] = {}

    def cosine(self, name: str) -> Level | None:
        """Return the level of a relation's cosine.

        Args:
            name: The name of the relation.

        Returns:
            The level; None where W stands on one side only, and where the level is undefined.
        """
        levels: dict[str, Callable[[], Level | None]] = {
            "agop_nfm": lambda: self._of_core("agop", "nfm"),
            "agop_nfm_init_removed": lambda: self._of_core("agop", "nfm_init_removed"),
            "g_vs_m": lambda: self._of_core("g", "nfm"),
            "out_h_vs_m": self._of_inputs,
            "fact_nfm": self._of_pairs,
        }
        return levels[name]() if name in levels else None

    # ---- AGOP and G: S is rotated in output space, or inside the range of W where there are fewer inputs

    def _of_core(self, rotated: str, other: str) -> Level | None:
        estimates = self.estimates(rotated)
        size, c = len(estimates[0]), self.c
        if rotated not in self._powers:
            self._powers[rotated] = Powers.of(estimates, self.similarity)
        target = self._target(other)
        if c.flat:
            return shared_weights.closed_form(size, self._powers[rotated], c, target)
        spectrum = Spectrum(self.spectrum[0], self._turned(other))
        return shared_weights.by_rotations(estimates, self._powers[rotated], c, spectrum, target)

    def estimates(self, rotated: str) -> list[Tensor]:
        """Return what is rotated [r, r], or independent estimates of it: S of AGOP or G.

        Args:
            rotated: "agop" or "g".

        Returns:
            The matrices.
        """
        if rotated not in self._estimates:
            self._estimates[rotated] = self._narrow(rotated) if self.is_narrow else self._wide(rotated)
        return self._estimates[rotated]

    @property
    def is_narrow(self) -> bool:
        """Whether the site has fewer inputs than outputs, so that NFM is dense."""
        return self.means["nfm"].factor is None

    def _wide(self, rotated: str) -> list[Tensor]:
        """Return S [o, o], or its independent estimates."""
        return [core for core in (one.core for one in _estimates(self.matrices[rotated])) if core is not None]

    def _narrow(self, rotated: str) -> list[Tensor]:
        """Return Σ⁻¹VᵀAVΣ⁻¹ for A = AGOP or G, with W = UΣVᵀ, so that A = VΣ(…)ΣVᵀ."""
        found = []
        for one in _estimates(self.matrices[rotated]):
            assert one.core is not None
            halves = self._halves if one.factor is None else self.similarity.once(_through, one.factor, self._halves)
            found.append(halves.T @ (one.core.to(halves) @ halves))
        return found

    @cached_property
    def _halves(self) -> Tensor:
        """VΣ⁻¹ [i, m]."""
        values, vectors = self.spectrum
        return vectors / values.sqrt()

    @cached_property
    def c(self) -> Powers:
        """The traces of the powers of C = WWᵀ, or of M where there are fewer inputs."""
        return Powers.of([self._gram], self.similarity)

    @cached_property
    def _gram(self) -> Tensor:
        """WWᵀ, or M where there are fewer inputs."""
        nfm = self.means["nfm"]
        gram = nfm.dense() if self.is_narrow else self.similarity.cross(nfm.factor, nfm.factor)
        assert gram is not None
        return gram

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """The eigenvalues of C in descending order [m] and their eigenvectors [r, m], in float64; m = 0 where C is not
        finite.
        """
        values, vectors = self.similarity.once(eigenvectors, self.means["nfm"])
        if not len(values):
            return values, vectors
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        counted = values > (CUTOFF if self.is_narrow else 0) * values[0]
        return values[counted], vectors[:, counted]

    def _target(self, other: str) -> Target:
        """Return what the closed form needs of B = C² or B = (W Δᵀ)(Δ Wᵀ)."""
        c, norm = self.c, math.sqrt(max(0.0, self.similarity.squared(self.means[other])))
        if other == "nfm":
            return Target(c.two, c.three, c.four, c.four, norm)
        gram, square = self._gram, self.similarity.square(self._gram)
        if self.is_narrow:  # tr Bᵏ is that of (M₀ M)ᵏ
            removed = self.means[other].dense()
            product = removed @ gram
            traces = inner(removed, gram), inner(product, gram), inner(product, square), inner(product, product.T)
            return Target(*traces, norm)
        half = self._half(other)
        b = self.similarity.cross(half, half)
        assert b is not None
        return Target(inner(half, half), inner(b, gram), inner(b, square), inner(b, b), norm)

    def _half(self, other: str) -> Tensor:
        """Return W Δᵀ."""
        cross = self.similarity.cross(self.means["nfm"].factor, self.means[other].factor)
        assert cross is not None
        return cross

    def _turned(self, other: str) -> Tensor:
        """Return B in the eigenvectors of C."""
        values, vectors = self.spectrum
        if other == "nfm":
            return values.square().diag()
        if self.is_narrow:
            scaled = vectors * values.sqrt()
            return scaled.T @ (self.means[other].dense().double() @ scaled)
        half = vectors.T @ self._half(other).double()
        return half @ half.T

    # ---- H′ and M′: H is rotated in input space

    def _of_inputs(self) -> Level | None:
        """Return the level of H′ = W H Wᵀ with rotated H; None where a bias is added to W h."""
        h = self.means["h"]
        if not self.without_bias:
            return None
        estimates, target = [h.dense()], self._target("nfm")
        if "h" not in self._powers:
            self._powers["h"] = Powers.of(estimates, self.similarity)
        if self.c.flat:
            return shared_weights.closed_form(h.size, self._powers["h"], self.c, target)
        spectrum = Spectrum(self.spectrum[0], self._turned("nfm"))
        return shared_weights.by_rotations(estimates, self._powers["h"], self.c, spectrum, target)

    @property
    def without_bias(self) -> bool:
        """Whether E|z|² is that of W h."""
        through = self.similarity.inner(self.means["h"], self.means["nfm"])
        return abs(self.similarity.trace(self.means["out_h"]) - through) <= SAME * abs(through)

    # ---- FACT: P is rotated

    def _of_pairs(self) -> Level | None:
        """Return 0, by symmetry, and the SD ‖P WᵀC‖ / (√(½ (tr C ‖P‖² + ‖P Wᵀ‖²)) ‖C‖)."""
        fact, nfm = self.means["fact"], self.means["nfm"]
        assert isinstance(fact, PairedMean)
        through = nfm.times(fact.pairs.T).T  # P WᵀW
        again = nfm.times(through.T).T
        squares = self.similarity.trace(nfm) * inner(fact.pairs, fact.pairs) + inner(fact.pairs, through)
        norm = math.sqrt(max(0.0, squares / 2 * self.similarity.squared(nfm)))
        return Level(0.0, math.sqrt(max(0.0, inner(through, again))) / norm) if norm > 0 else None


def _through(weight: Tensor, halves: Tensor) -> Tensor:
    """Return U = W V Σ⁻¹, which is orthonormal, multiplied in float64."""
    return (weight.double() @ halves).to(weight)


def _estimates(matrix: Matrix) -> list[Congruence]:
    return matrix.parts if isinstance(matrix, Replicates) else [mean_of(matrix)]
