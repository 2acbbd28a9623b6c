"""Rows of the first examples: which ones are stored, in how much memory, and what several processes have together."""

import pytest
import torch
from torch import Tensor

from nfa.measures import first_examples
from nfa.measures.first_examples import FEWEST, FirstExamples, joined
from nfa.parallel import World
from tests.measures.test_measures_of_processes import together


def rows_of(places: range, positions: int = 1) -> Tensor:
    """Two features of each example, the first of which is its place."""
    place = torch.tensor([float(place) for place in places])
    return torch.stack([place, -place], dim=1)[:, None].expand(-1, positions, -1).clone()


def stored(first: FirstExamples, sizes: list[int], *, series: int = 1) -> int:
    """Add batches of these sizes, and return how many examples they have."""
    start = 0
    for size in sizes:
        for one in range(series):
            first.add(rows_of(range(start, start + size)) + 1000 * one, one)
        start += size
    return start


@pytest.mark.parametrize("sizes", [[1] * 20, [20], [3, 9, 8], [0, 20, 0]])
@pytest.mark.parametrize("most", [1, 5, 20, 100])
def test_the_first_examples_are_stored_whatever_the_batches(sizes, most):
    first = FirstExamples(most)
    rows, places = first.collected(World(), stored(first, sizes))
    kept = min(most, 20)
    assert places.tolist() == list(range(kept))
    assert torch.equal(rows[:, 0], rows_of(range(kept)))


def test_several_rows_of_an_example_stay_together():
    first = FirstExamples(7)
    rows, places = first.collected(World(), stored(first, [3, 3, 3], series=2))
    assert rows.shape == (7, 2, 1, 2)
    assert torch.equal(rows[:, 1], rows[:, 0] + 1000)
    assert len(places) == 7


@pytest.mark.parametrize(("affordable", "kept"), [(1000, 200), (90, 90), (1, FEWEST)])
def test_memory_is_bounded_whatever_the_number_of_series(monkeypatch, affordable, kept):
    monkeypatch.setattr(first_examples, "BYTES", affordable * 3 * 2 * 4)
    first = FirstExamples(200)
    rows, _ = first.collected(World(), stored(first, [60] * 5, series=3))
    assert rows.shape == (kept, 3, 1, 2)


def test_nothing_is_stored_unless_asked_for():
    first = FirstExamples(0)
    assert first.collected(World(), stored(first, [3])) is None
    assert first.series == []


def test_without_examples_there_is_nothing():
    assert FirstExamples(5).collected(World(), 0) is None


def test_stored_rows_are_copies_without_a_graph():
    first, rows = FirstExamples(5), rows_of(range(3)).requires_grad_()
    first.add(rows)
    with torch.no_grad():
        rows.mul_(0)
    found, _ = first.collected(World(), 3)
    assert not found.requires_grad
    assert torch.equal(found[:, 0], rows_of(range(3)))


def test_shorter_examples_are_padded_by_zeros():
    first = FirstExamples(9)
    for size, positions in ((2, 1), (2, 3), (1, 2)):
        first.add(rows_of(range(1, 1 + size), positions))
    rows, _ = first.collected(World(), 5)
    assert rows.shape == (5, 1, 3, 2)
    assert rows[:, 0, :, 0].ne(0).sum(dim=1).tolist() == [1, 1, 3, 3, 2]
    assert joined([rows_of(range(2), 2), rows_of(range(1), 1)]).shape == (3, 2, 2)


@pytest.mark.parametrize("sizes", [(10, 10), (3, 12, 8), (2, 1, 9), (5, 5)])
def test_every_process_has_the_rows_that_one_alone_would_have(sizes):
    """Each stores the first of its share, and of these count the first of all; shares follow each other."""

    def of(world: World) -> tuple[Tensor, Tensor]:
        first, start = FirstExamples(5), sum(sizes[: world.rank])
        first.add(rows_of(range(start, start + sizes[world.rank]), 1 + world.rank))
        return first.collected(world, sizes[world.rank])

    for rows, places in together(len(sizes), of):
        assert places.tolist() == list(range(5))
        assert rows[:, 0, 0, 0].tolist() == list(range(5))


def test_a_process_without_examples_has_those_of_the_others():
    def of(world: World) -> tuple[Tensor, Tensor]:
        first = FirstExamples(5)
        if world.rank:
            first.add(rows_of(range(2)))
        return first.collected(world, 2 * world.rank)

    for rows, places in together(2, of):
        assert places.tolist() == [0, 1]
        assert torch.equal(rows[:, 0], rows_of(range(2)))
