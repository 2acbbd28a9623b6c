"""How well the matrices of a site align, and how many directions matter in each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nfa.maths import spectrum
from nfa.maths.congruence import Congruence
from nfa.maths.known_features import KnownFeatures
from nfa.maths.replicates import Replicates
from nfa.maths.similarity import Similarity
from nfa.measures.site_matrices import Conventions, Matrix
from nfa.relations import RELATIONS, TRAINING
from nfa.studies.result import Result


@dataclass(frozen=True)
class AlignmentOptions:
    """How matrices are compared; `Conventions` says how they were measured.

    Args:
        centre: "none" for the cosine, "entry" for the Pearson correlation of the entries.
        agop_power: 1, or 0.5 for the matrix square root of AGOP.
        top_k: The dimension of the subspaces whose overlap is computed.
    """

    centre: Literal["none", "entry"] = "none"
    agop_power: float = 1
    top_k: int = 10


def conventions(measured: Conventions, options: AlignmentOptions) -> dict[str, str | float]:
    """Return everything that other programs define differently, to be logged beside the values.

    Args:
        measured: How the matrices were measured.
        options: How they are compared.

    Returns:
        The conventions by name.
    """
    count = measured.directions.count
    return {
        "centre": measured.centre if measured.centre != "none" else options.centre,
        "agop_power": options.agop_power,
        "positions": measured.positions,
        "precision": measured.precision,
        "directions": f"{count} random, seed {measured.directions.seed}" if count else "all",
        "top_k": options.top_k,
        "exponent_cutoff": spectrum.CUTOFF,
    }


def alignment(
    measured: Mapping[str, Mapping[str, Matrix]],
    relations: Sequence[str] = TRAINING,
    options: AlignmentOptions = AlignmentOptions(),
    known: Mapping[str, KnownFeatures] = {},
) -> Result:
    """Compute each relation at each site.

    Cosines are ⟨A, B⟩ / (‖A‖_F ‖B‖_F); the other relations are defined in nfa/maths/spectrum.py, and shares in known
    features in nfa/maths/known_features.py. A value that is undefined, such as the cosine with a zero matrix (W − W⁽⁰⁾
    before the first update), is absent.

    Args:
        measured: The matrices by site and name.
        relations: The names of the relations (keys of nfa.relations.RELATIONS).
        options: How the matrices are compared.
        known: Known features by site.

    Returns:
        Scalars keyed <site>/<relation>, with the standard error of an estimate at <key>_se and a chance level at
        <key>_chance.
    """
    scalars: dict[str, float] = {}
    for site, matrices in measured.items():
        study = _SiteAlignment(matrices, options, known.get(site))
        for relation in relations:
            for suffix, value in study.relation(relation).items():
                scalars[f"{site}/{relation}{suffix}"] = value
    return Result(scalars)


class _SiteAlignment:
    """The relations of one site; what several of them need is computed once."""

    def __init__(
        self, matrices: Mapping[str, Matrix], options: AlignmentOptions, known: KnownFeatures | None = None
    ) -> None:
        self.options, self.known = options, known
        self.similarity = Similarity(options.centre)
        self.matrices = dict(matrices)
        if options.agop_power == 0.5:
            self.matrices = {name: _exact(matrix).double() for name, matrix in matrices.items()}
            if "agop" in matrices:
                self.matrices["agop"] = _exact(matrices["agop"]).sqrt()

    def relation(self, name: str) -> dict[str, float]:
        """Return the values of a relation by suffix: "" and, where there is one, "_se" or "_chance"; none if undefined.
        """
        relation = RELATIONS[name]
        kinds: dict[str, Callable[..., dict[str, float]]] = {
            "cosine": self._cosine, "exponent": self._exponent, "overlap": self._overlap, "stable rank": self._rank,
            "known share": self._known_share,
        }  # fmt: skip
        return kinds[relation.kind](*(self.matrices[matrix] for matrix in relation.matrices))

    def _exponent(self, a: Matrix, b: Matrix) -> dict[str, float]:
        fit = spectrum.exponent(_exact(b), _exact(a))
        return {"": fit.slope, "_se": fit.se} if fit else {}

    def _overlap(self, a: Matrix, b: Matrix) -> dict[str, float]:
        return _defined(spectrum.subspace_overlap(_exact(a), _exact(b), self.options.top_k))

    def _rank(self, a: Matrix) -> dict[str, float]:
        return _defined(spectrum.stable_rank(_exact(a)))

    def _known_share(self, a: Matrix) -> dict[str, float]:
        share = self.known.share(_exact(a).dense()) if self.known else None
        return {} if share is None else {"": share.value, "_chance": share.chance}

    def _cosine(self, a: Matrix, b: Matrix) -> dict[str, float]:
        if isinstance(a, Replicates):
            estimate = a.cosine(_exact(b), self.similarity)
            return {"": estimate.value, "_se": estimate.se} if estimate else {}
        return _defined(self.similarity.cosine(a, _exact(b)))


def _defined(value: float | None) -> dict[str, float]:
    return {} if value is None else {"": value}


def _exact(matrix: Matrix) -> Congruence:
    if isinstance(matrix, Replicates):
        raise ValueError("this relation needs AGOP from all directions")
    return matrix
