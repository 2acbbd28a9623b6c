"""Statistics of the directions of per-example gradients, computed from their Gram matrix, also under resampling.

Every statistic takes `draws` [d, n], which say how often each example occurs in each of d samples; one row of ones is
the sample itself. An example is never paired with itself, nor with its own copy in a sample.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CELLS = 2**24  # entries of a temporary tensor


def cosines(gram: Float[Tensor, "n n"]) -> tuple[Float[Tensor, "n n"], Bool[Tensor, " n"]]:
    """Return the cosine matrix C_ab = K_ab / √(K_aa K_bb), and which examples have a direction.

    Args:
        gram: The Gram matrix K of the gradients [n, n].

    Returns:
        The cosines [n, n], and a mask [n] that is true for examples whose gradient is finite and not zero. Rows and
        columns of the other examples are 0 and have no meaning.

    Example:
        >>> cosines(torch.tensor([[4.0, -2.0, 0.0], [-2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))[0][0]
        tensor([ 1., -1.,  0.])
    """
    squares = gram.diagonal()
    kept = (squares > 0) & squares.isfinite()
    kept &= (gram.isfinite() | ~kept).all(dim=1)  # a gradient that is not finite must not affect the others
    roots = torch.where(kept, squares, 1).sqrt()
    found = torch.where(kept[:, None] & kept, gram / roots[:, None] / roots, 0)
    clipped: Tensor = found.fill_diagonal_(1).mul_(kept[:, None]).clamp_(-1, 1)
    return clipped, kept


def block_means(gram: Float[Tensor, "n n"], size: int) -> Float[Tensor, "b b"]:
    """Return the Gram matrix of the mean gradients of consecutive batches.

    Args:
        gram: The Gram matrix of single examples [n, n].
        size: The number of examples in a batch; examples left over from whole batches are not used.

    Returns:
        The Gram matrix of the b = n // size batches [b, b].
    """
    batches = len(gram) // size
    whole = gram[: batches * size, : batches * size]
    means: Tensor = whole.unflatten(0, (batches, size)).unflatten(2, (batches, size)).mean(dim=(1, 3))
    return means


@dataclass(frozen=True)
class CosineStatistics:
    """Statistics of a cosine matrix.

    Args:
        cosines: The cosine matrix C [n, n].
        kept: True for examples that have a direction [n].
        classes: The class of each example [n], or None.
        strata: The stratum within which each example is resampled [n].
    """

    cosines: Float[Tensor, "n n"]
    kept: Bool[Tensor, " n"]
    classes: Int[Tensor, " n"] | None
    strata: Int[Tensor, " n"]

    def means(self, draws: Float[Tensor, "d n"]) -> dict[str, Float[Tensor, " d"]]:
        """Return the mean of C_ab over all pairs a ≠ b, over those within a class and over those between classes.

        A mean over no pairs is NaN.
        """
        every = _pairs(self.kept) * _fair(self.strata, draws)
        found = {"mean_cosine": _mean(self.cosines, every, draws)}
        if self.classes is not None:
            same = (self.classes[:, None] == self.classes).to(every)
            found["within_class_cosine"] = _mean(self.cosines, every * same, draws)
            found["between_class_cosine"] = _mean(self.cosines, every * (1 - same), draws)
        return found

    def silhouette(self, draws: Float[Tensor, "d n"]) -> Float[Tensor, " d"]:
        """Return the mean silhouette of the classes on the distance 1 − C; the only example of a class counts as 0.

        It is NaN unless there are at least two classes and one of them has two examples. Rousseeuw 1987.
        """
        if self.classes is None:
            return draws.new_full((len(draws),), torch.nan)
        _, places = self.classes.unique(return_inverse=True)
        onehot = torch.nn.functional.one_hot(places).to(draws) * self.kept[:, None]
        size = max(1, CELLS // onehot.numel())
        return torch.cat([self._silhouettes(part, onehot) for part in draws.split(size)])

    def _silhouettes(self, draws: Tensor, onehot: Tensor) -> Tensor:
        weighted = draws[:, :, None] * onehot
        distances = (1 - self.cosines).fill_diagonal_(0)
        sums = torch.einsum("ab,dbk->dak", distances, weighted)
        counts = weighted.sum(dim=1, keepdim=True).expand_as(sums)
        own = onehot.bool()
        inside = (sums * onehot).sum(dim=2) / ((counts * onehot).sum(dim=2) - draws)
        outside = torch.where(own | (counts == 0), torch.inf, sums / counts).amin(dim=2)
        score = (outside - inside) / torch.maximum(outside, inside)
        score = torch.where(inside.isfinite() & score.isfinite(), score, 0)
        weights = draws * self.kept
        held = (weighted.sum(dim=1) > 0).sum(dim=1)
        paired = (inside.isfinite() & (weights > 0)).any(dim=1)
        return torch.where((held > 1) & paired, (weights * score).sum(dim=1) / weights.sum(dim=1), torch.nan)

    def to_own_class(self, draws: Float[Tensor, "d n"]) -> Float[Tensor, "d n"]:
        """Return each example's mean cosine to the others of its class.

        It is NaN for an example that has no direction or is alone in its class.
        """
        assert self.classes is not None
        same = (self.classes[:, None] == self.classes) * _pairs(self.kept)
        return (draws @ (self.cosines * same)) / (draws @ same)


def participation_ratio(
    gram: Float[Tensor, "n n"],
    draws: Float[Tensor, "d n"],
    strata: Int[Tensor, " n"],
    shifts: Float[Tensor, "g n n"] | None = None,
) -> Float[Tensor, " d"]:
    """Return the participation ratio (Σ λ)² / Σ λ² = tr(K)² / ‖K‖²_F of the eigenvalues of a Gram matrix.

    It is the number of directions over which the gradients spread, at most n. The squares of a sketched K are too large
    on average, by its squared standard errors; these are subtracted from tr(K)² and from ‖K‖².

    Args:
        gram: The Gram matrix K [n, n].
        draws: How often each example occurs in each sample [d, n].
        strata: The stratum of each example [n].
        shifts: Independent shifts of K, whose squares are unbiased for its squared standard errors [g, n, n]; None for
            an exact K.

    Returns:
        The ratio in each sample [d]; NaN where errors leave nothing of ‖K‖² or tr(K)².
    """
    size = gram.diagonal().mean()
    scaled = gram / size
    squares, traces = scaled.square(), (draws @ scaled.diagonal()).square()
    if shifts is not None:
        moved = shifts / size
        squares = squares - moved.square().sum(dim=0)
        traces = traces - (draws @ moved.diagonal(dim1=1, dim2=2).T).square().sum(dim=1)
    pairs = _pairs(torch.ones(len(gram), dtype=torch.bool)) * _fair(strata, draws)
    total = ((draws @ (squares * pairs)) * draws).sum(dim=1) + draws @ squares.diagonal()
    return torch.where((total > 0) & (traces > 0), traces / total, torch.nan)


def noise(
    gram: Float[Tensor, "n n"], draws: Float[Tensor, "d n"], strata: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Return unbiased estimates of |G|² and tr Σ for a stratified sample.

    G is the mean gradient and Σ the covariance of the gradient of one example. |G|² = Σ_cd p_c p_d m_cd with p_c =
    n_c/n, m_cc the mean of K off the diagonal within stratum c and m_cd the mean of the block; tr Σ = mean of K_aa −
    |G|². With one stratum these are the plain U-statistics. McCandlish et al. 2018, arXiv 1812.06162.

    Args:
        gram: The Gram matrix K [n, n].
        draws: How often each example occurs in each sample [d, n].
        strata: The stratum of each example [n].

    Returns:
        |G|² [d] and tr Σ [d]; NaN where a stratum has only one example. With larger strata every sample has a value.
    """
    n, resampled = len(gram), not bool((draws == 1).all())
    every = ((draws @ gram) * draws).sum(dim=1)
    squared = torch.zeros_like(every)
    for stratum in strata.unique():
        inside = strata == stratum
        part, weights, m = gram[inside][:, inside], draws[:, inside], inside.sum().double()
        mean = (part.sum() - part.trace()) / (m * (m - 1))
        apart = (part - mean).fill_diagonal_(0)  # so that the number of pairs in a draw has no influence
        moved = ((weights @ apart) * weights).sum(dim=1) / ((m - 1) ** 2 if resampled else m * (m - 1))
        squared += (m / n) ** 2 * (mean + moved)
        every = every - ((weights @ part) * weights).sum(dim=1)
    squared = squared + every / n**2
    return squared, draws @ gram.diagonal() / n - squared


def resamples(strata: Int[Tensor, " n"], count: int, generator: torch.Generator) -> Float[Tensor, "d n"]:
    """Draw bootstrap samples: every stratum is resampled from itself with replacement.

    Args:
        strata: The stratum of each example [n].
        count: The number d of samples.
        generator: The source of random numbers.

    Returns:
        How often each example occurs in each sample [d, n].
    """
    draws = torch.zeros(count, len(strata), dtype=torch.float64)
    for stratum in strata.unique():
        members = (strata == stratum).nonzero().squeeze(1)
        picked = members[torch.randint(len(members), (count, len(members)), generator=generator)]
        draws.scatter_add_(1, picked, torch.ones_like(picked, dtype=torch.float64))
    return draws


def standard_errors(draws: Mapping[str, Float[Tensor, " d"]]) -> dict[str, float]:
    """Return robust standard errors from bootstrap values.

    The error is half the width of the central 68.27 % of the values, which a few outliers do not move.

    Args:
        draws: Bootstrap values [d] by name.

    Returns:
        The standard error by name; a name is absent if any of its values is not finite.
    """
    tails = torch.tensor([0.158655, 0.841345], dtype=torch.float64)
    defined = {name: values for name, values in draws.items() if values.isfinite().all()}
    return {name: float(values.double().quantile(tails).diff()) / 2 for name, values in defined.items()}


def _pairs(kept: Bool[Tensor, " n"]) -> Float[Tensor, "n n"]:
    return (kept[:, None] & kept).double().fill_diagonal_(0)


def _fair(strata: Int[Tensor, " n"], draws: Tensor) -> Float[Tensor, "n n"]:
    """Return weights that undo how much rarer a pair within a stratum of m examples is in a sample: by 1 − 1/m."""
    if bool((draws == 1).all()):
        return torch.ones(len(strata), len(strata), dtype=torch.float64)
    same = strata[:, None] == strata
    size = same.sum(dim=1).double()
    return torch.where(same & (size > 1), size / (size - 1).clamp(min=1), 1.0)


def _mean(values: Tensor, weights: Float[Tensor, "n n"], draws: Tensor) -> Float[Tensor, " d"]:
    total, count = (((draws @ part) * draws).sum(dim=1) for part in (values * weights, weights))
    return total / count


def separation(
    scores: Float[Tensor, "#d n"], positive: Bool[Tensor, " n"], draws: Float[Tensor, "d n"]
) -> Float[Tensor, " d"]:
    """Return the area under the ROC curve: the probability that a positive example scores higher than a negative one.

    Ties count as one half.

    Args:
        scores: Scores that are the same in every sample [1, n], or each sample's own [d, n]; an example without a
            finite score is left out.
        positive: True for the positive examples [n].
        draws: How often each example occurs in each sample [d, n].

    Returns:
        The area in each sample [d].
    """
    weights = draws * scores.isfinite()
    given = scores.nan_to_num().expand_as(draws).contiguous()
    (yes, counted), (no, other) = ((given[:, part], weights[:, part]) for part in (positive, ~positive))
    ordered, order = no.sort(dim=1)
    below = torch.nn.functional.pad(other.gather(1, order).cumsum(dim=1), (1, 0))
    places = (torch.searchsorted(ordered, yes.contiguous(), right=right) for right in (False, True))
    won = sum(below.gather(1, place) for place in places) / 2
    return (counted * won).sum(dim=1) / (counted.sum(dim=1) * other.sum(dim=1))
