"""Names stand for what they say: relations chosen by name or glob, the matrices they need, what needs every output."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfa.errors import Refusal
from nfa.relations import (
    COSINES,
    DEFAULT,
    KNOWN,
    MATRICES,
    OF_ANY_MODEL,
    RELATIONS,
    TRAINING,
    choose_relations,
    needed,
    with_known,
)
from tests.support.analyses import PAIRS


def of_kind(kind):
    """Matrices of such relations by name."""
    return {name: one.matrices for name, one in RELATIONS.items() if one.kind == kind}


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("agop_nfm", ["agop_nfm"]),
        ("h_vs_m, agop_nfm", ["agop_nfm", "h_vs_m"]),
        ("agop_nfm,agop_nfm", ["agop_nfm"]),
        ("out_?_vs_?", ["out_g_vs_h", "out_g_vs_m", "out_h_vs_m"]),
        ("?_vs_[hm]", ["g_vs_h", "g_vs_m", "h_vs_m"]),
        ("fact_*", ["fact_nfm", "fact_nfm_overlap", "fact_stable_rank"]),
        ("*_exponent,agop_nfm", ["agop_nfm", "agop_nfm_exponent"]),
        ("all", list(OF_ANY_MODEL)),
        (" all ", list(OF_ANY_MODEL)),
        ("*", list(OF_ANY_MODEL)),
        (",".join(DEFAULT), list(DEFAULT)),
    ],
)
def test_relations_are_chosen_by_names_and_globs_each_once_in_a_fixed_order(text, chosen):
    assert list(choose_relations(text)) == chosen


@given(st.lists(st.sampled_from(OF_ANY_MODEL), min_size=1, unique=True))
def test_any_names_choose_themselves_in_any_order(names):
    assert set(choose_relations(",".join(names))) == set(names)
    assert choose_relations(",".join(names)) == choose_relations(",".join(reversed(names)))


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("agop_nmf", "agop_nmf"),
        ("agop_nfm,nope,zz_*", r"nope, zz_\*"),
        ("AGOP_NFM", "AGOP_NFM"),
        ("", ""),
        ("agop_nfm,", ""),
        ("all,nope", "all, nope"),
    ],
)
def test_what_fits_no_relation_is_refused_with_all_that_there_are(text, got):
    """Each unknown part by itself, though others are known; `all` stands alone."""
    with pytest.raises(
        Refusal, match=rf"(?s)cannot use relations={got}\n.*allowed: agop_nfm, .*_stable_rank, globs, or all"
    ):
        choose_relations(text)


def test_needed_are_the_matrices_on_both_sides_of_each_relation():
    assert needed(["g_vs_h"]) == {"g", "h"}
    assert needed(TRAINING) == {"agop", "nfm", "nfm_init_removed"}
    assert needed(["out_h_vs_m", "fact_stable_rank"]) == {"out_h", "out_m", "fact"}
    assert needed(RELATIONS) == set(MATRICES)
    assert needed([]) == frozenset()


def test_relations_are_between_the_matrices_of_their_definitions():
    """AGOP against NFM (arXiv 2212.13881), the six of arXiv 2410.03006, FACT against NFM (arXiv 2507.05644)."""
    assert {one.name: one.matrices for one in COSINES} == PAIRS
    assert RELATIONS["agop_nfm_exponent"].matrices == ("agop", "nfm")


def test_every_relation_is_made_of_known_matrices_and_every_pair_has_an_overlap():
    assert all(set(one.matrices) <= set(MATRICES) for one in RELATIONS.values())
    assert {f"{one.name}_overlap": one.matrices for one in COSINES} == of_kind("overlap")
    assert {f"{matrix}_stable_rank": (matrix,) for matrix in MATRICES} == of_kind("stable rank")
    assert set(DEFAULT) <= of_kind("cosine").keys()
    assert {name: (name.removesuffix("_known"),) for name in KNOWN} == of_kind("known share")


def test_shares_in_known_features_are_added_where_a_site_has_them_and_not_chosen():
    assert (*OF_ANY_MODEL, *KNOWN) == tuple(RELATIONS)
    assert with_known(TRAINING, {"0": None}, ["0", "2"]) == (*TRAINING, *KNOWN)
    assert with_known(TRAINING, {"4": None}, ["0", "2"]) == with_known(TRAINING, {}, ["0", "2"]) == TRAINING
    with pytest.raises(Refusal, match="relations=agop_known"):
        choose_relations("agop_known")


def test_of_relations_with_agop_only_cosines_do_without_every_direction():
    """Their bias is known and mended; eigenvalues of a noisy matrix are biased."""
    needy = {name for name, one in RELATIONS.items() if one.needs_all_outputs}
    overlaps = {"agop_nfm_overlap", "agop_nfm_init_removed_overlap"}
    assert needy == {"agop_nfm_exponent", *overlaps, "agop_stable_rank", "agop_known"}
    assert not needy & of_kind("cosine").keys()
