"""Sums of outer products over few rows are never formed, and everything that is computed of them is the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfa import reference
from nfa.maths.accumulate import add_gram, symmetric
from nfa.maths.standard_errors import Sampling, mean_of
from nfa.measures import outer_sums
from nfa.measures.outer_sums import OuterSum
from nfa.relations import RELATIONS
from nfa.studies.site_alignment import AlignmentOptions, SiteAlignment
from tests.support.measured_sites import measured, site
from tests.support.rotations import gaussian

OF_ROWS = [name for name, relation in RELATIONS.items() if {"h", "out_g", "out_h"} & set(relation.matrices)]


def added(x: Tensor, batch_size: int) -> OuterSum:
    made = OuterSum(x.shape[1], x)
    for rows in x.split(batch_size):
        made.add(rows)
    return made


@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 41), st.integers(0, 99))
@settings(max_examples=40)
def test_the_mean_is_that_of_the_reference_at_every_number_of_rows_and_batch_size(rows, features, batch_size, seed):
    x = gaussian(rows, features, seed=seed)
    expected = reference.second_moment(x[:, None], x[:, None]) * rows / 7 if rows else torch.zeros(features, features)
    torch.testing.assert_close(added(x, batch_size).mean(7).dense(), expected.double(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("rows", "stays"), [(10, True), (11, False)])
def test_rows_stay_rows_up_to_half_of_the_side_and_only_up_to_there(rows, stays):
    found = added(gaussian(rows, 20), 3).mean(rows)
    assert (found.core is None) is stays
    assert (found.factor is None) is not stays


def test_a_matrix_of_many_rows_is_bitwise_what_it_is_without_ever_keeping_rows():
    x, total = gaussian(64, 20).float(), torch.zeros(20, 20)
    for rows in x.split(3):
        add_gram(total, rows)
    assert torch.equal(added(x, 3).mean(64).dense(), symmetric(total) / 64)


def test_rows_that_change_after_they_were_added_do_not_change_the_sum():
    x = gaussian(2, 9)
    made, expected = added(x, 2), x.T @ x
    x.zero_()
    torch.testing.assert_close(made.mean(1).dense(), expected)


def test_50257_outputs_need_no_matrix_of_50257_rows():
    made = OuterSum(50257, torch.zeros(1))
    made.add(torch.ones(3, 50257))
    mean = made.mean(3)
    assert mean.factor is not None
    assert mean.factor.numel() == 3 * 50257
    assert float(mean.sum()) == pytest.approx(50257**2)


@pytest.mark.parametrize("options", [{}, {"centre": "entry"}, {"agop_power": 0.5}, {"unbiased": True}], ids=str)
@pytest.mark.parametrize("shape", [(90, 12), (12, 90), (100, 98)], ids=["o > i", "i > o", "both"])
@pytest.mark.parametrize("positions", ["each", "sum"])
def test_relations_levels_and_standard_errors_are_those_of_formed_matrices(options, shape, positions, monkeypatch):
    made = site(*shape, n=40)
    options, sampling = AlignmentOptions(top_k=3, **options), Sampling(40, 1000)
    by_rows = measured(made, positions=positions)
    monkeypatch.setattr(outer_sums.OuterSum, "_fits", lambda *_: False)
    formed = measured(made, positions=positions)
    assert any(mean_of(by_rows[name]).core is None for name in ("h", "out_g", "out_h"))
    assert all(mean_of(formed[name]).core is not None for name in ("h", "out_g", "out_h"))
    one, other = (SiteAlignment(matrices, options, None, sampling) for matrices in (by_rows, formed))
    for name in [*OF_ROWS, "g_vs_m", "g_stable_rank"]:
        found, expected = one.relation(name), other.relation(name)
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, rel=1e-8)
