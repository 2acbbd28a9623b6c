"""The matrices of a site and the table of relations between them; relations are named, measured, computed, drawn and
documented from this table.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from nfa.errors import Refusal

Limits = tuple[float, float | None]


@dataclass(frozen=True)
class SiteMatrix:
    """The label of a matrix in figures, and its formula."""

    label: str
    formula: str


@dataclass(frozen=True)
class Relation:
    """A number computed from matrices of a site: its `kind`, the matrices, and how it is drawn."""

    name: str
    kind: Literal["cosine", "exponent", "overlap", "stable rank", "known share"]
    matrices: tuple[str, ...]
    label: str
    limits: Limits | None = (0, 1)  # for positive matrices; None = free

    @property
    def shares_weights(self) -> bool:
        """Whether the same W stands in both matrices, and it is not a stable rank, which a rotation does not change."""
        return self.kind in ("cosine", "exponent", "overlap") and self.matrices in SHARING

    @property
    def needs_all_outputs(self) -> bool:
        """Whether it is defined only for an exact AGOP: eigenvalues of a noisy matrix are biased."""
        return "agop" in self.matrices and self.kind != "cosine"


MATRICES = {
    "agop": SiteMatrix("AGOP", "E[Σₖ Jₖᵀ Jₖ], J = ∂f/∂h"),
    "nfm": SiteMatrix("NFM", "Wᵀ W"),
    "nfm_init_removed": SiteMatrix("NFM (init removed)", "(W − W⁽⁰⁾)ᵀ (W − W⁽⁰⁾)"),
    "g": SiteMatrix("G", "E[g gᵀ], g = −∂ℓ/∂h"),
    "h": SiteMatrix("H", "E[h hᵀ]"),
    "fact": SiteMatrix("FACT", "½(E[g hᵀ] + E[h gᵀ])"),
    "out_g": SiteMatrix("G′", "E[δ δᵀ], δ = ∂ℓ/∂z"),
    "out_h": SiteMatrix("H′", "E[z zᵀ]"),
    "out_m": SiteMatrix("M′", "W Wᵀ"),
}
# Pairs of matrices that contain the same W, and what their shared-weights level needs in addition.
SHARING: dict[tuple[str, ...], tuple[str, ...]] = {
    ("agop", "nfm"): (),
    ("agop", "nfm_init_removed"): ("nfm",),
    ("g", "nfm"): (),
    ("out_h", "out_m"): ("h", "nfm"),
    ("fact", "nfm"): (),
}
COSINES = (
    Relation("agop_nfm", "cosine", ("agop", "nfm"), "AGOP vs NFM"),
    Relation("agop_nfm_init_removed", "cosine", ("agop", "nfm_init_removed"), "AGOP vs NFM (init removed)"),
    Relation("g_vs_h", "cosine", ("g", "h"), "G vs H"),
    Relation("g_vs_m", "cosine", ("g", "nfm"), "G vs M"),
    Relation("h_vs_m", "cosine", ("h", "nfm"), "H vs M"),
    Relation("out_g_vs_h", "cosine", ("out_g", "out_h"), "G′ vs H′"),
    Relation("out_g_vs_m", "cosine", ("out_g", "out_m"), "G′ vs M′"),
    Relation("out_h_vs_m", "cosine", ("out_h", "out_m"), "H′ vs M′"),
    Relation("fact_nfm", "cosine", ("fact", "nfm"), "FACT vs NFM", (-1, 1)),
)
_ALL = (
    *COSINES,
    Relation("agop_nfm_exponent", "exponent", ("agop", "nfm"), "AGOP vs NFM, exponent", None),
    *(Relation(f"{of.name}_overlap", "overlap", of.matrices, f"{of.label}, overlap") for of in COSINES),
    *(
        Relation(f"{name}_stable_rank", "stable rank", (name,), f"stable rank of {matrix.label}", (1, None))
        for name, matrix in MATRICES.items()
    ),
    *(
        Relation(f"{name}_known", "known share", (name,), f"{MATRICES[name].label} in the known features")
        for name in ("agop", "nfm")
    ),
)
RELATIONS = {relation.name: relation for relation in _ALL}
TRAINING = ("agop_nfm", "agop_nfm_init_removed")
DEFAULT = (*TRAINING, "g_vs_h", "g_vs_m", "h_vs_m")
KNOWN = tuple(relation.name for relation in _ALL if relation.kind == "known share")
OF_ANY_MODEL = tuple(name for name in RELATIONS if name not in KNOWN)


def choose_relations(text: str) -> tuple[str, ...]:
    """Return the relations that comma-separated names or globs match, in the order of `RELATIONS`; `all` = every one.

    Relations in `KNOWN` are not chosen by name: they are added wherever a workload declares known features.

    >>> choose_relations("g_vs_*,agop_nfm")
    ('agop_nfm', 'g_vs_h', 'g_vs_m', 'g_vs_h_overlap', 'g_vs_m_overlap')
    """
    globs = ["*"] if text.strip() == "all" else [part.strip() for part in text.split(",")]
    unused = [glob for glob in globs if not any(fnmatchcase(name, glob) for name in OF_ANY_MODEL)]
    if unused:
        allowed = f"{', '.join(OF_ANY_MODEL)}, globs, or all"
        raise Refusal(f"relations={', '.join(unused)}", allowed, "choose some of these")
    return tuple(name for name in OF_ANY_MODEL if any(fnmatchcase(name, glob) for glob in globs))


def with_known(relations: Iterable[str], known: Collection[str], sites: Iterable[str]) -> tuple[str, ...]:
    """Add the shares in known features if one of the sites has known features."""
    return (*relations, *(KNOWN if not set(known).isdisjoint(sites) else ()))


def needed(relations: Iterable[str], *, levels: bool = False) -> frozenset[str]:
    """Return the matrices that relations are computed from, with those for their levels if asked for."""
    found = [RELATIONS[name].matrices for name in relations]
    beside = [SHARING.get(matrices, ()) for matrices in found] if levels else []
    return frozenset(matrix for matrices in (*found, *beside) for matrix in matrices)
