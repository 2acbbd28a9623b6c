"""The relations of one site, each with its chance level, its shared-weights level and its standard error."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch

from nfa.maths import spectrum
from nfa.maths.chance import EXACT, Level, Rotated, cosine_by_chance, overlap_by_chance, pearson_by_chance
from nfa.maths.congruence import Congruence
from nfa.maths.float_range import has_vanished, in_float64, needs_float64
from nfa.maths.known_features import KnownFeatures
from nfa.maths.replicates import Replicates
from nfa.maths.similarity import Similarity
from nfa.maths.standard_errors import Matrix, SampleMean, Sampling, cosine_error, mean_of, stable_rank_error
from nfa.relations import RELATIONS, Relation
from nfa.studies.rotated_levels import RotatedLevels
from nfa.studies.shared_levels import SharedLevels

Values = dict[str, float]  # by suffix; the value itself is at ""


@dataclass(frozen=True)
class AlignmentOptions:
    """How matrices are compared; `Conventions` says how they were measured.

    Args:
        centre: "none" for the cosine, "entry" for the Pearson correlation of the entries.
        agop_power: 1, or 0.5 for the matrix square root of AGOP.
        top_k: The dimension of the subspaces whose overlap is computed.
        chance: Whether chance levels and shared-weights levels are computed as well.
        unbiased: Whether the value is the one with unbiased norms, where there is one.
    """

    centre: Literal["none", "entry"] = "none"
    agop_power: float = 1
    top_k: int = 10
    chance: bool = True
    unbiased: bool = False


class SiteAlignment:
    """The relations of one site; what several of them need is computed once.

    Args:
        matrices: The matrices of the site by name.
        options: How they are compared.
        known: Known features of the site's input.
        sampling: How the examples were drawn; None where no standard errors are wanted.
    """

    def __init__(
        self,
        matrices: Mapping[str, Matrix],
        options: AlignmentOptions,
        known: KnownFeatures | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        self.options, self.known, self.sampling = options, known, sampling
        self.similarity = Similarity(options.centre)
        self.vanished = {name for name, matrix in matrices.items() if has_vanished(matrix)}
        if any(map(needs_float64, matrices.values())):
            matrices = in_float64(dict(matrices))
        self.measured, self.matrices = matrices, dict(matrices)
        if self.rooted:
            self.matrices = {name: _exact(matrix).double() for name, matrix in matrices.items()}
            if "agop" in matrices:
                self.matrices["agop"] = _exact(matrices["agop"]).sqrt()

    @property
    def rooted(self) -> bool:
        """Whether AGOP is replaced by its square root."""
        return self.options.agop_power == 0.5

    def relation(self, name: str) -> Values:
        """Return the values of a relation by suffix ("", "_se", "_unbiased", "_chance" …); none if it is undefined."""
        relation = RELATIONS[name]
        if self.vanished.intersection(relation.matrices):
            return {}
        kinds: dict[str, Callable[[Relation], Values]] = {
            "cosine": self._cosine, "exponent": self._exponent, "overlap": self._overlap, "stable rank": self._rank,
            "known share": self._known_share,
        }  # fmt: skip
        return kinds[relation.kind](relation)

    def _of(self, relation: Relation) -> list[Matrix]:
        return [self.matrices[name] for name in relation.matrices]

    # ---- the values

    def _cosine(self, relation: Relation) -> Values:
        a, b = self._of(relation)
        if isinstance(a, Replicates):
            estimate = a.cosine(_exact(b), self.similarity)
            found = {"": estimate.value, "_se": estimate.se} if estimate else {}
        else:
            found = _defined(self.similarity.cosine(mean_of(a), mean_of(b)))
        if found and self.sampling is not None:
            found = {"": found[""], **self._error(relation)}
        if self.options.unbiased and found:
            found[""] = found.pop("_unbiased", found[""])
        if not (found and self.options.chance):
            return found
        return {**found, **self._by_chance(relation), **self._shared(relation)}

    def _exponent(self, relation: Relation) -> Values:
        a, b = map(_exact, self._of(relation))
        fit = spectrum.exponent(b, a, similarity=self.similarity)
        return {"": fit.slope, "_se": fit.se, **self._shared(relation)} if fit else {}

    def _overlap(self, relation: Relation) -> Values:
        (a, b), k = map(_exact, self._of(relation)), self.options.top_k
        found = _defined(spectrum.subspace_overlap(a, b, k, self.similarity))
        if not (found and self.options.chance):
            return found
        return {**found, **_level("_chance", overlap_by_chance(a.size, k)), **self._shared(relation)}

    def _rank(self, relation: Relation) -> Values:
        (measured,), k = self._of(relation), self.options.top_k
        matrix = _exact(measured)
        found = _defined(spectrum.stable_rank(matrix, self.similarity, k=k))
        plain = self.options.centre == "none" and not self.rooted
        if not (found and plain and self.sampling and isinstance(measured, SampleMean)):
            return found
        leading = spectrum.leading(matrix, min(max(k, 2), matrix.size), self.similarity)
        assert leading is not None
        error = stable_rank_error(measured, leading[0][:2], leading[1][:, 0], self.similarity, self.sampling)
        return {**found, **({} if error is None else {"_se": error})}

    def _known_share(self, relation: Relation) -> Values:
        matrix = _exact(self._of(relation)[0])
        share = self.known.share(matrix.dense()) if self.known else None
        return {} if share is None else {"": share.value, "_chance": share.chance}

    # ---- what stands beside them

    def _error(self, relation: Relation) -> Values:
        """Return the standard error over examples and directions, and the unbiased cosine if examples are missing."""
        a, b = self._of(relation)
        sampling = self.sampling
        if sampling is None or self.rooted:
            return {}
        found = cosine_error(a, b, self.similarity, sampling)
        if found is None:
            return {}
        return {"_se": found.se, **({"_unbiased": found.unbiased} if sampling.unseen else {})}

    def _by_chance(self, relation: Relation) -> Values:
        a, b = self._of(relation)
        if self.options.centre == "none":
            return _level("_chance", cosine_by_chance(self._rotated(a), self._rotated(b)))
        first, second = mean_of(a), mean_of(b)
        trace = self.similarity.trace(first) - self.similarity.total(first) / first.size
        eigenvalues = torch.linalg.eigvalsh(second.double().dense()) if second.size <= EXACT else None
        centred = Rotated(first.size, trace, self._squared(a))
        plain = Rotated(second.size, self.similarity.trace(second), self.similarity.squared(second))
        return _level("_chance", pearson_by_chance(centred, plain, eigenvalues))

    def _rotated(self, matrix: Matrix) -> Rotated:
        mean = mean_of(matrix)
        return Rotated(mean.size, self.similarity.trace(mean), self._squared(matrix))

    def _squared(self, matrix: Matrix) -> float:
        if isinstance(matrix, Replicates):
            return matrix.squared_norm(self.similarity)
        return self.similarity.inner(mean_of(matrix), mean_of(matrix))

    def _shared(self, relation: Relation) -> Values:
        if not (self.options.chance and relation.shares_weights and "nfm" in self.measured):
            return {}
        root = self.rooted and "agop" in relation.matrices
        if relation.kind == "cosine" and self.options.centre == "none" and not root:
            return _level("_shared", self.shared.cosine(relation.name))
        return _level("_shared", self.by_rotations.level(relation))

    @cached_property
    def shared(self) -> SharedLevels:
        """The levels with a closed form."""
        plain = self.options.centre == "none" and not self.rooted
        return SharedLevels(self.measured, self.similarity if plain else Similarity())

    @cached_property
    def by_rotations(self) -> RotatedLevels:
        """The other levels."""
        options = self.options
        return RotatedLevels(self.shared, centred=options.centre == "entry", root=self.rooted, top_k=options.top_k)


def _level(suffix: str, level: Level | None) -> Values:
    if level is None or not math.isfinite(level.mean):
        return {}
    spread = {f"{suffix}_sd": level.sd} if math.isfinite(level.sd) else {}
    return {suffix: level.mean, **spread}


def _defined(value: float | None) -> Values:
    return {} if value is None else {"": value}


def _exact(matrix: Matrix) -> Congruence:
    if isinstance(matrix, Replicates):
        raise ValueError("this relation needs AGOP from all directions")
    return mean_of(matrix)
