"""Chance levels of statistics of labelled directions: their mean and standard deviation if the labels are permuted.

Every permutation of the labels among the examples is equally likely. Means and standard deviations are exact, except
those of the silhouette, for which permutations are drawn.
"""

from math import perm, sqrt

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PERMUTATIONS = 200
CELLS = 2**22  # entries of a temporary tensor
Moments = tuple[float, float]  # mean and standard deviation


def can_differ(labels: Int[Tensor, " n"]) -> bool:
    """Return whether permuting the labels can change which examples have the same one.

    Args:
        labels: The label of each example [n].

    Returns:
        False with one label, or a different one for each example.

    Example:
        >>> [can_differ(torch.tensor(labels)) for labels in ([0, 0, 1], [0, 0, 0], [0, 1, 2])]
        [True, False, False]
    """
    return 1 < len(labels.unique()) < len(labels)


def mean_cosines(cosines: Float[Tensor, "n n"], classes: Int[Tensor, " n"]) -> tuple[Moments, Moments]:
    """Return the moments of the mean of C_ab over pairs within a class, and over pairs between classes.

    Both have the mean of C over all pairs a ≠ b as their mean. Let A_ab = C_ab − this mean, A₁ = Σ A_ab², A₂ = Σ_a (Σ_b
    A_ab)² (a ≠ b throughout), and B₁, B₂ the same sums of S_ab = 1 for two examples of a class, B₁ = Σ_c n_c(n_c − 1)
    and B₂ = Σ_c n_c(n_c − 1)². Then Σ_ab A_ab S_ab has mean 0 and, with n_(k) = n(n − 1)…(n − k + 1), the variance

        2 A₁B₁/n_(2) + 4 (A₂ − A₁)(B₂ − B₁)/n_(3) + (2A₁ − 4A₂)(B₁² + 2B₁ − 4B₂)/n_(4).

    The sum over pairs between classes is minus this one. Mantel 1967, Cancer Research 27, 209.

    Args:
        cosines: The cosine matrix C [n, n]; its diagonal has no influence.
        classes: The class of each example [n], where `can_differ(classes)`.

    Returns:
        Mean and standard deviation within, and between classes.
    """
    n, sizes = len(cosines), classes.unique(return_counts=True)[1].tolist()
    pairs = sum(size * (size - 1) for size in sizes)
    mean = float(cosines.sum() - cosines.trace()) / perm(n, 2)
    deviation = sqrt(_variance((cosines.double() - mean).fill_diagonal_(0), sizes))
    return (mean, deviation / pairs), (mean, deviation / (perm(n, 2) - pairs))


def _variance(centred: Float[Tensor, "n n"], sizes: list[int]) -> float:
    """Return the variance of the sum over pairs within a class, of entries whose sum is zero."""
    n = len(centred)
    a1, a2 = float(centred.square().sum()), float(centred.sum(dim=1).square().sum())
    b1, b2 = (sum(size * (size - 1) ** power for size in sizes) for power in (1, 2))
    products = (2 * a1 * b1, 4 * (a2 - a1) * (b2 - b1), (2 * a1 - 4 * a2) * (b1**2 + 2 * b1 - 4 * b2))
    found = sum(product / perm(n, k) for k, product in zip((2, 3, 4), products, strict=True) if k <= n)
    return max(found, 0.0)


def silhouette(cosines: Float[Tensor, "n n"], classes: Int[Tensor, " n"], generator: torch.Generator) -> Moments:
    """Return the moments of the mean silhouette of the classes on the distance 1 − C, from `PERMUTATIONS` permutations.

    Args:
        cosines: The cosine matrix C [n, n].
        classes: The class of each example [n], where `can_differ(classes)`.
        generator: The source of random numbers.

    Returns:
        Mean and standard deviation.
    """
    _, places, counts = classes.unique(return_inverse=True, return_counts=True)
    permuted = torch.stack([places[torch.randperm(len(places), generator=generator)] for _ in range(PERMUTATIONS)])
    size = max(1, CELLS // (len(places) * len(counts)))
    values = torch.cat([silhouettes(cosines, part, counts) for part in permuted.split(size)])
    return float(values.mean()), float(values.std())


def silhouettes(
    cosines: Float[Tensor, "n n"], labellings: Int[Tensor, "p n"], counts: Int[Tensor, " k"]
) -> Float[Tensor, " p"]:
    """Return the mean silhouette of labellings that all have `counts` examples in the classes 0 … k − 1.

    Sums are in float32, of the deviations from the mean distance, so that nearly equal distances keep their precision.

    Args:
        cosines: The cosine matrix C [n, n]; the distance is 1 − C.
        labellings: The class of each example in each labelling [p, n].
        counts: The number of examples of each class [k].

    Returns:
        The silhouettes [p].
    """
    distances, n = 1 - cosines, len(cosines)
    mean = float(distances.sum() - distances.trace()) / perm(n, 2)
    own = labellings.T[:, :, None]
    members = torch.zeros(*own.shape[:2], len(counts)).scatter_(2, own, 1)
    sums = ((distances - mean).fill_diagonal_(0).float() @ members.flatten(1)).view_as(members)
    inside = sums.gather(2, own).squeeze(2) / (counts[labellings.T] - 1)
    outside = sums.div_(counts).scatter_(2, own, torch.inf).amin(dim=2)
    scores = (outside - inside) / (mean + torch.maximum(outside, inside))
    return torch.where(scores.isfinite(), scores, 0).double().mean(dim=0)


def separation(scores: Float[Tensor, " n"], positive: Bool[Tensor, " n"]) -> Moments | None:
    """Return the moments of the area under the ROC curve if it is permuted at random which examples are positive.

    The mean is 1/2. The variance is (n₁ + n₀ + 1 − Σ (t³ − t)/((n₁ + n₀)(n₁ + n₀ − 1)))/(12 n₁n₀), the sum over groups
    of t equal scores. Hollander and Wolfe 1999, eq. 4.13.

    Args:
        scores: The score of each example [n]; an example without a finite one is left out.
        positive: True for the positive examples [n].

    Returns:
        Mean and standard deviation; None if there are not both kinds of examples.

    Example:
        >>> separation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([False, False, True]))  # 0, 1/2 or 1
        (0.5, 0.408248290463863)
    """
    given = scores.isfinite()
    n, yes = int(given.sum()), int(positive[given].sum())
    if yes in (0, n):
        return None
    ties = sum(size**3 - size for size in scores[given].unique(return_counts=True)[1].tolist())
    return 0.5, sqrt(max(0.0, n + 1 - ties / perm(n, 2)) / (12 * yes * (n - yes)))


def random_signs(cosines: Float[Tensor, "n n"]) -> Moments:
    """Return the moments of the mean of C_ab over all pairs if each direction is as likely as its opposite.

    With independent random signs εₐ, the mean of εₐε_b C_ab has mean 0 and variance 2 Σ C_ab²/(n(n − 1))², a ≠ b.

    Args:
        cosines: The cosine matrix C [n, n] of at least two directions.

    Returns:
        Mean and standard deviation.

    Example:
        >>> random_signs(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))  # 0.5 or −0.5
        (0.0, 0.5)
    """
    squares = float(cosines.square().sum() - cosines.diagonal().square().sum())
    return 0.0, sqrt(2 * max(squares, 0.0)) / perm(len(cosines), 2)
