"""Maps of directions in the plane that can be compared from one checkpoint to the next."""

import math

import numpy as np
from jaxtyping import Float, Int

SPREAD = 1e-4  # standard deviation of the first positions, as scikit-learn takes it
CONTINUED = 500  # iterations from a map that is nearly right; more only blow it up
FEWEST = 4  # directions that make a map


def fitting_perplexity(n: int) -> float:
    """min(30, (n − 1)/3).

    >>> fitting_perplexity(10)
    3.0
    """
    return min(30.0, (n - 1) / 3)


def tsne(
    cosines: Float[np.ndarray, "n n"], *, perplexity: float, seed: int, start: Float[np.ndarray, "n 2"] | None = None
) -> Float[np.ndarray, "n 2"]:
    """t-SNE on the chord distances √(2 − 2C), van der Maaten and Hinton 2008.

    It starts from `start`, without early exaggeration, so that a map can be compared with the one it came from; else
    from the two principal directions. Positions are float32. ValueError for fewer than 4 examples.
    """
    from sklearn.manifold import TSNE  # its import changes the environment and draws random numbers

    if len(cosines) < FEWEST:
        raise ValueError(f"a map of {len(cosines)} examples")
    chord = np.sqrt(np.clip(2 - 2 * np.asarray(cosines, dtype=np.float64), 0, None))
    np.fill_diagonal(chord, 0)
    method = TSNE(
        metric="precomputed",
        perplexity=perplexity,
        init=principal(cosines) if start is None else np.asarray(start, dtype=np.float32),
        early_exaggeration=12 if start is None else 1,
        max_iter=1000 if start is None else CONTINUED,
        random_state=seed % 2**32,
    )
    found: Float[np.ndarray, "n 2"] = method.fit_transform(chord)
    return found


def principal(cosines: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n 2"]:
    """The first two principal coordinates, scaled down; an eigenvector's sign is that of its largest entry."""
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
    """Where the examples `now` start: where they were, or, for one that was not there, where its nearest was."""
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
    """Pearson correlation of the cosines of all pairs a ≠ b that both matrices have; None where it is undefined."""
    _, first, second = np.intersect1d(there, kept, return_indices=True)
    pairs = np.triu_indices(len(first), 1)
    x, y = before[np.ix_(first, first)][pairs], now[np.ix_(second, second)][pairs]
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x.astype(np.float64), y.astype(np.float64))[0, 1])
