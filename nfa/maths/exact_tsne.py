"""t-SNE with all pairs: of up to a thousand points faster than with a tree, and without its approximations.

Van der Maaten and Hinton 2008, "Visualizing data using t-SNE", with the optimiser of scikit-learn: momentum 0.5 and
then 0.8, gains between 0.01 and above, and the learning rate max(n / exaggeration / 4, 50) of Belkina et al. 2019.
"""

import numpy as np
from jaxtyping import Float

FIRST = 250  # iterations with exaggeration, and with the lower momentum
HALVINGS = 50
SMALLEST = 1e-12  # squared distance, below which points are equal up to rounding
ENOUGH = 1e-5  # of an entropy in nats


def affinities(squared: Float[np.ndarray, "n n"], perplexity: float) -> Float[np.ndarray, "n n"]:
    """Return p_ij = (p_j|i + p_i|j) / 2n with p_j|i ∝ exp(−β_i d²_ij) of the entropy log(perplexity).

    Where no β_i gives that entropy, as for more equal points than the perplexity, it is the last one that was tried.

    Args:
        squared: Squared distances of all pairs of points [n, n].
        perplexity: The effective number of neighbours.

    Returns:
        Affinities [n, n] in float64, which sum to 1; 0 on the diagonal.
    """
    n = len(squared)
    others = ~np.eye(n, dtype=bool)
    distances = squared[others].reshape(n, n - 1).astype(np.float64)
    distances -= distances.min(axis=1, keepdims=True)  # which changes nothing, and lets nothing underflow
    low, high = np.zeros((n, 1)), np.full((n, 1), np.inf)
    beta = 1 / np.maximum(distances.mean(axis=1, keepdims=True), SMALLEST)
    for _ in range(HALVINGS):
        weights = np.exp(-beta * distances)
        total = weights.sum(axis=1, keepdims=True)
        entropy = np.log(total) + beta * np.einsum("ij,ij->i", weights, distances)[:, None] / total
        too_wide = entropy > np.log(perplexity)
        low, high = np.where(too_wide, beta, low), np.where(too_wide, high, beta)
        if np.abs(entropy - np.log(perplexity)).max() < ENOUGH:
            break
        beta = np.where(np.isinf(high), 2 * beta, (low + high) / 2)
    found = np.zeros((n, n))
    found[others] = (weights / total).ravel()
    both: Float[np.ndarray, "n n"] = (found + found.T) / (2 * n)
    return both


class Gradient:
    """The gradient of KL(P‖Q) in the positions, with q_ij ∝ 1 / (1 + |y_i − y_j|²), in float32.

    All pairs are in two matrices that are overwritten each time: at n = 512 they stay in the processor's cache.

    Args:
        n: The number of points.
    """

    def __init__(self, n: int) -> None:
        self.kernel = np.empty((n, n), dtype=np.float32)
        self.pull = np.empty((n, n), dtype=np.float32)

    def __call__(
        self, affinity: Float[np.ndarray, "n n"], places: Float[np.ndarray, "n 2"]
    ) -> Float[np.ndarray, "n 2"]:
        """Return 4 Σ_j (p_ij − q_ij)(y_i − y_j) / (1 + |y_i − y_j|²)."""
        ones = np.ones((len(places), 1), dtype=np.float32)
        lengths = (places * places).sum(axis=1, keepdims=True)
        left, right = np.hstack([places, lengths, ones]), np.hstack([-2 * places, ones, lengths + 1])
        kernel = np.matmul(left, right.T, out=self.kernel)  # 1 + |y_i − y_j|²
        np.reciprocal(kernel, out=kernel)
        np.fill_diagonal(kernel, 0)
        pull = np.multiply(kernel, -1 / kernel.sum(), out=self.pull)
        pull += affinity
        pull *= kernel
        sums = pull @ np.hstack([places, ones])
        gradient: Float[np.ndarray, "n 2"] = 4 * (sums[:, 2:] * places - sums[:, :2])
        return gradient


def exact_tsne(
    squared: Float[np.ndarray, "n n"],
    start: Float[np.ndarray, "n 2"],
    *,
    perplexity: float,
    exaggeration: float,
    iterations: int,
) -> Float[np.ndarray, "n 2"]:
    """Return the map of points by t-SNE.

    Args:
        squared: Squared distances of all pairs of points [n, n].
        start: Starting positions [n, 2].
        perplexity: The effective number of neighbours.
        exaggeration: The factor of the affinities in the first 250 iterations.
        iterations: The number of all iterations.

    Returns:
        Positions [n, 2] in float32.
    """
    affinity = affinities(squared, perplexity).astype(np.float32)
    rate = max(len(start) / exaggeration / 4, 50)
    gradient, places = Gradient(len(start)), start.astype(np.float32)
    for factor, momentum, count in ((exaggeration, 0.5, FIRST), (1.0, 0.8, iterations - FIRST)):
        pulling = affinity * np.float32(factor)
        velocity, gains = np.zeros_like(places), np.ones_like(places)
        for _ in range(count):
            slope = gradient(pulling, places)
            gains = np.maximum(np.where(velocity * slope < 0, gains + np.float32(0.2), gains * np.float32(0.8)), 0.01)
            velocity = momentum * velocity - rate * gains * slope
            places = places + velocity
    return places
