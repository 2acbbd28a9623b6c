"""Names: the matrices of a site, and the relations between them that become metric series."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from nfa.errors import Refusal

MATRICES = {
    "agop": "E[Σₖ Jₖᵀ Jₖ], J = ∂f/∂h",
    "nfm": "Wᵀ W",
    "nfm_init_removed": "(W − W⁽⁰⁾)ᵀ (W − W⁽⁰⁾)",
    "g": "E[g gᵀ], g = −∂ℓ/∂h",
    "h": "E[h hᵀ]",
    "fact": "sym E[g hᵀ]",
    "out_g": "E[δ δᵀ], δ = ∂ℓ/∂z",
    "out_h": "E[z zᵀ]",
    "out_m": "W Wᵀ",
}
COSINES = {
    "agop_nfm": ("agop", "nfm"),
    "agop_nfm_init_removed": ("agop", "nfm_init_removed"),
    "g_vs_h": ("g", "h"),
    "g_vs_m": ("g", "nfm"),
    "h_vs_m": ("h", "nfm"),
    "out_g_vs_h": ("out_g", "out_h"),
    "out_g_vs_m": ("out_g", "out_m"),
    "out_h_vs_m": ("out_h", "out_m"),
    "fact_nfm": ("fact", "nfm"),
}
EXPONENT = {"agop_nfm_exponent": ("agop", "nfm")}
OVERLAPS = {f"{name}_overlap": pair for name, pair in COSINES.items()}
STABLE_RANKS = {f"{matrix}_stable_rank": (matrix,) for matrix in MATRICES}
RELATIONS: dict[str, tuple[str, ...]] = {**COSINES, **EXPONENT, **OVERLAPS, **STABLE_RANKS}
TRAINING = ("agop_nfm", "agop_nfm_init_removed")
DEFAULT = (*TRAINING, "g_vs_h", "g_vs_m", "h_vs_m")


def choose_relations(text: str) -> tuple[str, ...]:
    """Relations that comma-separated names or globs stand for, in the order of `RELATIONS`; `all` = every one.

    >>> choose_relations("g_vs_*,agop_nfm")
    ('agop_nfm', 'g_vs_h', 'g_vs_m', 'g_vs_h_overlap', 'g_vs_m_overlap')
    """
    globs = ["*"] if text.strip() == "all" else [part.strip() for part in text.split(",")]
    unused = [glob for glob in globs if not any(fnmatchcase(name, glob) for name in RELATIONS)]
    if unused:
        raise Refusal(f"relations={', '.join(unused)}", f"{', '.join(RELATIONS)}, globs, or all", "choose from these")
    return tuple(name for name in RELATIONS if any(fnmatchcase(name, glob) for glob in globs))


def needed(relations: Iterable[str]) -> frozenset[str]:
    """The matrices that relations are made of."""
    return frozenset(matrix for relation in relations for matrix in RELATIONS[relation])


def needs_all_directions(relation: str) -> bool:
    """Whether a relation is defined only for an exact AGOP: eigenvalues of a noisy matrix are biased."""
    return "agop" in RELATIONS[relation] and relation not in COSINES
