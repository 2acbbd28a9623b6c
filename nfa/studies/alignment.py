"""How well the matrices of a site align, and how many directions matter in each."""

from collections.abc import Mapping, Sequence

from nfa.maths import spectrum
from nfa.maths.float32_products import full_float32
from nfa.maths.known_features import KnownFeatures
from nfa.maths.standard_errors import Matrix, Sampling
from nfa.measures.site_matrices import Conventions
from nfa.relations import TRAINING
from nfa.studies.result import Result
from nfa.studies.site_alignment import AlignmentOptions as AlignmentOptions
from nfa.studies.site_alignment import SiteAlignment

PLAIN = AlignmentOptions()
LEVELS = {
    "chance": "second matrix rotated",
    "shared": "S rotated in output space, or in the range of W if it has fewer inputs; H for out_h_vs_m; P for FACT",
}


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
        "norms": "unbiased" if options.unbiased else "as measured",
        **(LEVELS if options.chance else {}),
    }


@full_float32()
def alignment(
    measured: Mapping[str, Mapping[str, Matrix]],
    relations: Sequence[str] = TRAINING,
    options: AlignmentOptions = PLAIN,
    known: Mapping[str, KnownFeatures] = {},
    sampling: Sampling | None = None,
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
        sampling: How the examples were drawn; None where no standard errors are wanted.

    Returns:
        Scalars keyed <site>/<relation>, and beside them what nfa/levels.py lists: standard error, unbiased value,
        chance level and shared-weights level.
    """
    scalars: dict[str, float] = {}
    for site, matrices in measured.items():
        study = SiteAlignment(matrices, options, known.get(site), sampling)
        for relation in relations:
            for suffix, value in study.relation(relation).items():
                scalars[f"{site}/{relation}{suffix}"] = value
    return Result(scalars)
