"""Two-dimensional maps of directions that can be compared from one checkpoint to the next."""

import math

import numpy as np
from jaxtyping import Float, Int

from nfa.maths.exact_tsne import exact_tsne

SPREAD = 1e-4  # standard deviation of the first positions, as scikit-learn takes it
EXACT = 1024  # directions up to which all pairs take less time than a tree
ANEW = 1000  # iterations of a map that starts anew
CONTINUED = 500  # iterations from a map that is nearly right; more would only inflate it
FEWEST = 4  # the smallest number of directions in a map


def fitting_perplexity(n: int) -> float:
    """Return the default perplexity of a t-SNE map, min(30, (n − 1)/3).

    Args:
        n: The number of directions in the map.

    Returns:
        The perplexity.

    Example:
        >>> fitting_perplexity(10)
        3.0
    """
    return min(30.0, (n - 1) / 3)


def tsne(
    cosines: Float[np.ndarray, "n n"], *, perplexity: float, seed: int, start: Float[np.ndarray, "n 2"] | None = None
) -> Float[np.ndarray, "n 2"]:
    """Map directions to the plane by t-SNE on their chord distances √(2 − 2C).

    Van der Maaten and Hinton 2008: with all pairs for up to 1,024 directions, and for more with the approximation of
    Barnes and Hut, as implemented by scikit-learn. Given a starting map, early exaggeration is left out, so that the
    result can be compared with the map it started from.

    Args:
        cosines: Cosines C of all pairs of directions [n, n].
        perplexity: The effective number of neighbours; below n.
        seed: The seed of scikit-learn's optimiser.
        start: Starting positions [n, 2]; None starts from the two principal coordinates.

    Returns:
        Positions [n, 2] in float32.

    Raises:
        ValueError: There are fewer than 4 directions.
    """
    if len(cosines) < FEWEST:
        raise ValueError(f"a map of {len(cosines)} examples")
    squared = np.clip(2 - 2 * np.asarray(cosines, dtype=np.float64), 0, None)
    np.fill_diagonal(squared, 0)
    begin = principal(cosines) if start is None else np.asarray(start, dtype=np.float32)
    exaggeration, iterations = (12.0, ANEW) if start is None else (1.0, CONTINUED)
    if len(cosines) <= EXACT:
        return exact_tsne(squared, begin, perplexity=perplexity, exaggeration=exaggeration, iterations=iterations)
    from sklearn.manifold import TSNE  # its import changes the environment and draws random numbers

    method = TSNE(
        metric="precomputed",
        perplexity=perplexity,
        init=begin,
        early_exaggeration=exaggeration,
        max_iter=iterations,
        random_state=seed % 2**32,
    )
    found: Float[np.ndarray, "n 2"] = method.fit_transform(np.sqrt(squared))
    return found


def principal(cosines: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n 2"]:
    """Return the first two principal coordinates, scaled to a standard deviation of 1e-4.

    The sign of each coordinate makes its largest entry positive.

    Args:
        cosines: Cosines of all pairs of directions [n, n].

    Returns:
        Positions [n, 2] in float32.
    """
    centred = cosines - cosines.mean(axis=0) - cosines.mean(axis=1, keepdims=True) + cosines.mean()
    values, vectors = np.linalg.eigh(centred)
    places = vectors[:, -2:][:, ::-1] * np.sqrt(np.clip(values[-2:][::-1], 0, None))
    largest = places[np.abs(places).argmax(axis=0), [0, 1]]
    places = places * np.where(largest < 0, -1, 1)
    spread = float(places[:, 0].std())
    if not math.isfinite(spread) or spread == 0:
        spread = 1.0
    scaled: Float[np.ndarray, "n 2"] = (places / spread * SPREAD).astype(np.float32)
    return scaled


def continued(
    positions: Float[np.ndarray, "m 2"],
    before: Int[np.ndarray, " m"],
    now: Int[np.ndarray, " n"],
    cosines: Float[np.ndarray, "n n"],
) -> Float[np.ndarray, "n 2"]:
    """Return starting positions for a map that follows an earlier one.

    An example that the earlier map has starts where it was; a new example starts where its nearest neighbour was.

    Args:
        positions: Positions of the earlier map [m, 2].
        before: The ids of the examples in the earlier map [m].
        now: The ids of the examples in the new map [n].
        cosines: Cosines of all pairs of directions in the new map [n, n].

    Returns:
        Starting positions [n, 2].
    """
    place = {int(example): row for row, example in enumerate(before)}
    known = np.array([int(example) in place for example in now])
    nearest = np.where(known[None, :], cosines, -np.inf).argmax(axis=1)
    source = np.where(known, np.arange(len(now)), nearest)
    found: Float[np.ndarray, "n 2"] = positions[[place[int(now[row])] for row in source]]
    return found


def agreement(
    before: Float[np.ndarray, "m m"],
    there: Int[np.ndarray, " m"],
    now: Float[np.ndarray, "n n"],
    kept: Int[np.ndarray, " n"],
) -> float | None:
    """Return the Pearson correlation between two cosine matrices, over the pairs a ≠ b that both contain.

    Args:
        before: Cosines of the earlier directions [m, m].
        there: The ids of the examples in `before` [m].
        now: Cosines of the later directions [n, n].
        kept: The ids of the examples in `now` [n].

    Returns:
        The correlation; None where it is undefined: fewer than two common pairs, or constant cosines.
    """
    _, first, second = np.intersect1d(there, kept, return_indices=True)
    pairs = np.triu_indices(len(first), 1)
    x, y = before[np.ix_(first, first)][pairs], now[np.ix_(second, second)][pairs]
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x.astype(np.float64), y.astype(np.float64))[0, 1])
