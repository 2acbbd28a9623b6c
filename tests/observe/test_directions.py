"""Random signs are a function of seed, example, direction and output alone, and look like coin tosses."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nfa.observe.directions import Directions, signs

seeds = st.integers(0, 2**63 - 1)
ids_of_batches = st.lists(st.integers(0, 2**40), min_size=1, max_size=8, unique=True)
MASK = 2**64 - 1


def splitmix64(state: int) -> int:
    """The next number after `state`, in Python's exact integers. Steele, Lea, Flood 2014."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_the_generator_here_is_the_published_one():
    """Its first outputs for seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    states = [(1234567 + index * 0x9E3779B97F4A7C15) & MASK for index in range(3)]
    assert [splitmix64(state) for state in states] == published


@given(ids_of_batches, st.integers(1, 3), st.integers(1, 5), seeds)
def test_signs_are_top_bits_of_splitmix64_at_a_counter_seeded_by_the_example(ids, count, size, seed):
    """So they are the same on every machine, by every version of NumPy."""
    found = signs(np.array(ids), count, size, seed)
    places = [direction * 2**40 + output for direction in range(count) for output in range(size)]
    for row, example in zip(found.reshape(len(ids), -1), ids, strict=True):
        start = splitmix64((seed + 0x9E3779B97F4A7C15 * example) & MASK)
        drawn = [splitmix64((start + 0x9E3779B97F4A7C15 * place) & MASK) for place in places]
        assert row.tolist() == [1 if number >> 63 else -1 for number in drawn]


@given(ids_of_batches, st.integers(1, 4), st.integers(1, 6), seeds)
def test_signs_are_plus_or_minus_one_by_example_direction_and_output(ids, count, size, seed):
    found = signs(np.array(ids), count, size, seed)
    assert found.shape == (len(ids), count, size)
    assert found.dtype == np.int8
    assert set(np.unique(found)) <= {-1, 1}


@given(ids_of_batches, st.integers(1, 4), st.integers(1, 6), seeds, st.data())
def test_an_examples_signs_depend_on_no_other_example_and_on_no_order(ids, count, size, seed, data):
    """Nor a direction's on how many more there are, nor an output's: a longer answer padded the others."""
    whole = signs(np.array(ids), count, size, seed)
    chosen = data.draw(st.permutations(range(len(ids))))[: data.draw(st.integers(1, len(ids)))]
    assert np.array_equal(signs(np.array(ids)[chosen], count, size, seed), whole[chosen])
    assert np.array_equal(signs(np.array(ids), count + 2, size, seed)[:, :count], whole)
    assert np.array_equal(signs(np.array(ids), count, size + 3, seed)[:, :, :size], whole)


def test_drawing_moves_no_generator_and_is_moved_by_none():
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed), np.random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        found.append(signs(np.arange(50), 2, 10, 3))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])
    assert np.array_equal(*found)


N = 4096
BOUND = 5 / math.sqrt(N)  # five standard errors of a mean of N independent signs


def columns() -> np.ndarray:
    """Signs [N, ·] of every direction and output under neighbouring seeds, and of the next example under the first."""
    drawn = [signs(np.arange(N), 2, 6, seed).reshape(N, -1) for seed in (0, 1, 2**32)]
    return np.concatenate([*drawn, signs(np.arange(1, N + 1), 2, 6, 0).reshape(N, -1)], axis=1).astype(float)


def test_means_and_pairwise_products_vanish_between_outputs_directions_seeds_and_neighbouring_examples():
    """1,176 of them, each within five standard errors of zero: which also says that no two are the same."""
    drawn = columns()
    assert np.abs(drawn.mean(axis=0)).max() < BOUND
    products = drawn.T @ drawn / N - np.eye(drawn.shape[1])
    assert np.abs(products).max() < BOUND


def test_products_of_four_vanish():
    """On which the variance of an estimate depends; over all fours of the twelve signs of an example."""
    drawn = columns()[:, :12]
    fours = [drawn[:, list(four)].prod(axis=1).mean() for four in itertools.combinations(range(12), 4)]
    assert np.abs(fours).max() < BOUND


def test_the_bound_notices_what_is_not_random():
    """A bit of the counter itself, or one sign for all outputs of an example."""
    counter = 2.0 * (np.arange(N) & 1) - 1
    assert abs((counter * np.roll(counter, 1)).mean()) > BOUND
    drawn = signs(np.arange(N), 1, 1, 0).repeat(2, axis=2).astype(float)
    assert abs((drawn[:, 0, 0] * drawn[:, 0, 1]).mean()) > BOUND


@pytest.mark.parametrize("shape", [(3, 1), (3, 5), (3, 2, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_count_every_output_is_taken_alone_and_in_order(shape, dtype):
    outputs = torch.zeros(shape, dtype=dtype)
    size = outputs[0].numel()
    found = list(Directions().cotangents(outputs, torch.arange(3)))
    assert Directions().passes(outputs) == len(found) == size
    for index, cotangent in enumerate(found):
        assert cotangent.shape == outputs.shape
        assert cotangent.dtype == dtype
        expected = torch.zeros(3, size, dtype=dtype)
        expected[:, index] = 1
        assert torch.equal(cotangent.flatten(1), expected)


@pytest.mark.parametrize("shape", [(3, 1), (3, 5), (3, 2, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_directions_are_the_signs_of_the_examples_ids(shape, dtype):
    outputs, ids = torch.zeros(shape, dtype=dtype), torch.tensor([7, 0, 123456])
    directions = Directions(4, seed=9)
    found = list(directions.cotangents(outputs, ids))
    assert directions.passes(outputs) == len(found) == 4
    expected = signs(ids.numpy(), 4, outputs[0].numel(), 9)
    for index, cotangent in enumerate(found):
        assert cotangent.shape == outputs.shape
        assert cotangent.dtype == dtype
        assert np.array_equal(cotangent.flatten(1).numpy(), expected[:, index])


def test_a_negative_seed_is_a_seed_like_any_other():
    assert not np.array_equal(signs(np.arange(20), 1, 5, -1), signs(np.arange(20), 1, 5, 1))
