"""Maps of directions: by chord distance, the same each time, and continued so that examples stay where they were."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from nfa.maths import embedding
from nfa.maths.embedding import agreement, continued, fitting_perplexity, principal, tsne

N, CLUSTERS = 48, 3
OF = np.arange(N) % CLUSTERS


def cosines(rows: np.ndarray) -> np.ndarray:
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.clip(units @ units.T, -1, 1)


def clustered(spread: float = 0.5, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(CLUSTERS, 20))[OF] + spread * random.normal(size=(N, 20))


def mapped(C: np.ndarray, start: np.ndarray | None = None, seed: int = 1) -> np.ndarray:
    return tsne(C, perplexity=fitting_perplexity(len(C)), seed=seed, start=start)


def centres(positions: np.ndarray) -> np.ndarray:
    return np.stack([positions[cluster == OF].mean(axis=0) for cluster in range(CLUSTERS)])


@pytest.fixture(scope="module")
def first() -> np.ndarray:
    return mapped(cosines(clustered()))


def nearest(distances: np.ndarray, count: int) -> np.ndarray:
    """Of each row, which others are nearest."""
    return np.argsort(distances + np.diag(np.full(len(distances), np.inf)), axis=1)[:, :count]


@pytest.mark.parametrize(("n", "expected"), [(4, 1), (10, 3), (90, 89 / 3), (91, 30), (92, 30), (512, 30)])
def test_the_perplexity_fits_the_number_of_examples(n, expected):
    assert fitting_perplexity(n) == expected
    assert fitting_perplexity(n) < n


def test_examples_of_one_direction_are_nearest_in_the_map(first):
    assert first.shape == (N, 2)
    assert first.dtype == np.float32
    assert (OF[nearest(squareform(pdist(first)), 10)] == OF[:, None]).mean() > 0.95


@pytest.mark.parametrize("exact", [0, N])
def test_the_distance_is_the_chord_between_directions_and_magnitudes_are_nowhere(exact, monkeypatch):
    seen = []

    class Listening:
        def __init__(self, **options):
            assert options["metric"] == "precomputed"

        def fit_transform(self, distances):
            seen.append(distances)
            return np.zeros((len(distances), 2), dtype=np.float32)

    def listening(squared, start, **_):
        seen.append(np.sqrt(squared))
        return start

    monkeypatch.setattr(embedding, "EXACT", exact)
    monkeypatch.setattr(embedding, "exact_tsne", listening)
    monkeypatch.setattr("sklearn.manifold.TSNE", Listening)
    rows = clustered()
    mapped(cosines(rows * np.exp(np.random.default_rng(2).normal(size=(N, 1)))))
    mapped(cosines(rows).astype(np.float32) + np.float32(1e-6))  # a cosine may be above 1 by rounding
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert len(seen) == 2
    for distances in seen:
        np.testing.assert_allclose(distances, squareform(pdist(units)), atol=2e-3)
        assert not distances.diagonal().any()
        assert distances.min() == 0


def test_maps_of_many_directions_have_the_same_clusters(first, monkeypatch):
    monkeypatch.setattr(embedding, "EXACT", N - 1)  # so that scikit-learn makes this one
    other = mapped(cosines(clustered()))
    assert not np.array_equal(other, first)
    assert np.array_equal(
        nearest(squareform(pdist(other)), 10) % CLUSTERS, nearest(squareform(pdist(first)), 10) % CLUSTERS
    )


def test_the_map_is_the_same_each_time_and_nothing_global_is_drawn_or_seeded(first):
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    assert np.array_equal(mapped(cosines(clustered())), first)
    assert np.array_equal(np.random.get_state()[1], before)
    assert np.array_equal(mapped(cosines(clustered()), seed=2**40 + 1), first)  # it starts from no random place


def test_the_matrix_is_not_edited():
    C = cosines(clustered())
    kept = C.copy()
    mapped(C)
    principal(C)
    assert np.array_equal(C, kept)


@pytest.mark.parametrize("change", [0.0, 0.02, 0.1])
def test_a_map_that_continues_keeps_every_example_with_its_cluster_and_every_cluster_in_its_place(first, change):
    moved = clustered() + change * np.random.default_rng(5).normal(size=(N, 20))
    again = mapped(cosines(moved), start=first)
    apart = pdist(centres(first)).min()
    assert np.linalg.norm(centres(again) - centres(first), axis=1).max() < apart / 4
    to_old = np.linalg.norm(again[:, None] - centres(first), axis=2)
    assert np.array_equal(to_old.argmin(axis=1), OF)
    alike = np.corrcoef(pdist(first), pdist(again))[0, 1]
    assert alike > 0.95
    assert not np.array_equal(again, first)


def test_a_map_of_the_same_matrix_moves_much_less_than_one_that_starts_anew_elsewhere(first):
    C = cosines(clustered())
    turned = first[:, ::-1] * np.array([1, -1])  # as another run might have it

    def distance(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.sqrt(np.square(one - other).sum(axis=1).mean()))

    radius = float(np.sqrt(np.square(first).sum(axis=1).mean()))
    assert distance(mapped(C, start=first), first) < 0.4 * radius
    assert distance(mapped(C, start=turned), turned) < 0.4 * radius
    assert distance(mapped(C, start=turned), first) > radius


def test_an_example_that_changes_sides_moves_and_the_others_stay(first):
    rows = clustered()
    rows[0] = rows[1] + 0.1 * np.random.default_rng(6).normal(size=20)
    again = mapped(cosines(rows), start=first)
    to_old = np.linalg.norm(again[:, None] - centres(first), axis=2).argmin(axis=1)
    assert OF[0] != OF[1]
    assert to_old.tolist() == [OF[1], *OF[1:]]


def test_known_examples_start_where_they_were_and_new_ones_where_their_nearest_known_one_was():
    before, now = np.array([7, 3, 20, 11]), np.array([3, 5, 20, 4, 7])
    positions = np.arange(8, dtype=np.float32).reshape(4, 2)
    C = np.eye(5)
    C[1], C[3] = [0.1, 1, 0.2, 0.9, 0.3], [0.4, 0.9, -0.5, 1, -1]  # 5 and 4 are nearest to each other, and both new
    found = continued(positions, before, now, C)
    assert found.tolist() == positions[[1, 0, 2, 1, 0]].tolist()
    assert np.array_equal(continued(positions, before, before, np.eye(4)), positions)
    assert np.array_equal(positions, np.arange(8).reshape(4, 2))


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_fewer_than_four_examples_have_no_map(n):
    with pytest.raises(ValueError, match=f"a map of {n} examples"):
        tsne(np.eye(n), perplexity=1.0, seed=0)


E4 = np.eye(4)


@pytest.mark.parametrize(
    "rows",
    [
        np.ones((6, 3)),
        np.repeat(E4, 4, axis=0),
        np.concatenate([E4, -E4]),
        np.concatenate([np.ones((5, 2)), -np.ones((4, 2))]),
        E4,
    ],
    ids=["one direction", "duplicates", "opposites", "one line", "the fewest"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_and_opposite_directions_have_a_finite_map_that_can_be_continued(rows, dtype):
    C = cosines(rows).astype(dtype)
    found = mapped(C)
    again = mapped(C, start=found)
    assert np.isfinite(found).all()
    assert np.isfinite(again).all()
    assert found.shape == again.shape == (len(rows), 2)


def test_examples_that_start_from_one_place_come_apart():
    """As two new ones do whose nearest is the same."""
    C = cosines(clustered())
    start = mapped(C)
    start[4] = start[1]
    again = mapped(C, start=start)
    assert np.linalg.norm(again[4] - again[1]) > 1e-3


def test_principal_coordinates_are_small_and_their_signs_are_decided():
    C = cosines(clustered())
    found = principal(C)
    assert found.std(axis=0)[0] == pytest.approx(1e-4, rel=1e-5)
    assert found.std(axis=0)[1] <= found.std(axis=0)[0]
    assert (found[np.abs(found).argmax(axis=0), [0, 1]] > 0).all()
    order = np.random.default_rng(0).permutation(N)
    np.testing.assert_allclose(principal(C[np.ix_(order, order)]), found[order], atol=1e-9)
    assert not principal(np.ones((5, 5))).any()


def test_agreement_is_the_correlation_over_pairs_that_both_have() -> None:
    random = np.random.default_rng(5)
    before, now = (random.uniform(-1, 1, (6, 6)) for _ in range(2))
    before, now = before + before.T, now + now.T
    there, kept = np.array([0, 2, 3, 5, 7, 8]), np.array([8, 1, 2, 3, 5, 9])[[1, 2, 3, 4, 0, 5]]
    pairs = [(2, 3), (2, 5), (2, 8), (3, 5), (3, 8), (5, 8)]
    of_before = [before[list(there).index(a), list(there).index(b)] for a, b in pairs]
    of_now = [now[list(kept).index(a), list(kept).index(b)] for a, b in pairs]
    found = agreement(before, there, now, kept)
    assert found == pytest.approx(np.corrcoef(of_before, of_now)[0, 1], abs=1e-12)


def test_agreement_is_undefined_without_pairs_or_where_nothing_varies() -> None:
    one, two = np.ones((1, 1)), np.ones((3, 3))
    assert agreement(one, np.array([0]), one, np.array([0])) is None
    assert agreement(two, np.arange(3), two, np.arange(3)) is None
