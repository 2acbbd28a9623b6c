"""How far the matrices of a site agree: cosines between AGOP, NFM and their kin."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from nfa.maths.congruence import Congruence
from nfa.maths.similarity import Similarity
from nfa.studies.result import Result

RELATIONS = {
    "agop_nfm": ("agop", "nfm"),
    "agop_nfm_init_removed": ("agop", "nfm_init_removed"),
}


@dataclass(frozen=True)
class AlignmentOptions:
    """Competing conventions of the literature, logged with the values.

    `centre`: "none" = cosine, "entry" = Pearson correlation of the entries, "jacobian" = AGOP of the centred Jacobian.
    `agop_power`: 1, or 0.5 for the matrix square root of AGOP. `positions`: outer products of each or of their sum.
    """

    centre: Literal["none", "entry", "jacobian"] = "none"
    agop_power: float = 1
    positions: Literal["each", "sum"] = "each"


def alignment(
    measured: Mapping[str, Mapping[str, Congruence]],
    options: AlignmentOptions = AlignmentOptions(),
    relations: Sequence[str] = tuple(RELATIONS),
) -> Result:
    """Cosine ⟨A, B⟩ / (‖A‖_F ‖B‖_F) of each relation at each site, from measured matrices by site and name.

    Where a matrix is zero (W − W⁽⁰⁾ before the first update) the cosine is undefined and absent.
    """
    scalars = {}
    for site, matrices in measured.items():
        similarity = Similarity("entry" if options.centre == "entry" else "none")
        if options.agop_power == 0.5:
            matrices = {name: matrix.sqrt() if name == "agop" else matrix.double() for name, matrix in matrices.items()}
        for relation in relations:
            a, b = RELATIONS[relation]
            value = similarity.cosine(matrices[a], matrices[b])
            if value is not None:
                scalars[f"{site}/{relation}"] = value
    return Result(scalars, conventions=asdict(options))
