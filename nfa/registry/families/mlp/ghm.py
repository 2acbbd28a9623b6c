"""Gradient harmonisation: examples weigh less if many others have a gradient of similar size.

Li, Liu, Wang: Gradient Harmonized Single-stage Detector, AAAI 2019, arXiv 1811.05181.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nfa.maths.exact_losses import negative_log_likelihood, widened
from nfa.workload import Batch

MU = 0.02  # where ASL1 changes from quadratic to linear


class Terms(NamedTuple):
    """The weighted entries, one per example (GHM-C) or per output of an example (GHM-R): g in [0, 1], and the loss."""

    norms: Float[Tensor, " *n"]
    losses: Float[Tensor, " *n"]


def classification(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Terms:
    """GHM-C: g = |p_y − 1| of the softmax, and cross-entropy.

    >>> classification(torch.zeros(1, 4), torch.tensor([2])).norms
    tensor([0.7500], dtype=torch.float64)
    """
    losses = negative_log_likelihood(logits, labels)
    return Terms(-torch.expm1(-losses.detach()), losses)


def regression(outputs: Float[Tensor, "n k"], targets: Float[Tensor, "n k"]) -> Terms:
    """GHM-R: g = |d|/√(d² + μ²) and ASL1 = √(d² + μ²) − μ, d = output − target, μ = 0.02.

    >>> round(regression(torch.tensor([[0.02]]), torch.tensor([[0.0]])).norms.item(), 4)
    0.7071
    """
    distance = widened(outputs) - targets
    root = (distance.square() + MU**2).sqrt()
    return Terms((distance.abs() / root).detach(), root - MU)


def one_hot_regression(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Terms:
    """GHM-R for a classifier trained on one-hot targets."""
    return regression(logits, F.one_hot(labels, logits.shape[1]).to(logits.dtype))


TERMS: Mapping[str, Callable[[Tensor, Tensor], Terms]] = {"cross-entropy": classification, "mse": one_hot_regression}


def bin_of(norms: Tensor, bins: int) -> Int[Tensor, " *n"]:
    """Return which of `bins` equal parts of [0, 1] each g lies in; 1 lies in the last one."""
    return (norms * bins).long().clamp(0, bins - 1)


def bin_weights(counts: Float[Tensor, " b"], alpha: float, now: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Return weights ∝ counts^(−alpha) with mean 1 over a batch that has `now` entries in the bins; 0 for empty bins.

    With counts = now and alpha = 1 these are the paper's N / (R_j · number of non-empty bins).
    """
    raw = torch.where(now > 0, counts.clamp(min=torch.finfo(counts.dtype).tiny) ** -alpha, torch.zeros_like(counts))
    return raw * now.sum() / (raw * now).sum()


class Harmonised:
    """The training objective mean(w · ℓ); weights carry no gradient.

    With momentum m, counts are averaged as acc = m·acc + (1 − m)·R over the batches' counts R, starting at the first R.
    """

    def __init__(self, terms: Callable[[Tensor, Tensor], Terms], *, bins: int, momentum: float, alpha: float) -> None:
        self.terms, self.bins, self.momentum, self.alpha = terms, bins, momentum, alpha
        self.counts: Tensor | None = None
        self._next: Tensor | None = None

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the objective of a batch [scalar]; `step` adds its counts to the average."""
        norms, losses = self.terms(outputs, batch.targets)
        places = bin_of(norms, self.bins)
        ones = torch.ones_like(places).flatten()
        now = places.new_zeros(self.bins).index_add_(0, places.flatten(), ones).double()  # bincount looks at numbers
        before = now if self.counts is None else self.counts.to(now)
        self._next = self.momentum * before + (1 - self.momentum) * now
        weights = bin_weights(self._next, self.alpha, now)[places]
        return (weights.to(losses) * losses).mean()

    def share(self, part: Batch, parts: Sequence[Batch], examples: int) -> float:  # noqa: ARG002
        """Return the part's share of the examples."""
        return len(part) / examples

    def step(self) -> None:
        """Add the batch's counts to the average, after an optimizer step."""
        self.counts = self._next

    def state_dict(self) -> dict[str, Any]:
        """Return the state on which the next batch's weights depend."""
        return {} if self.counts is None else {"counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`."""
        self.counts = self._next = state.get("counts")

    def histogram(self) -> "Histogram":
        """Return an empty histogram of this objective's gradient norms."""
        return Histogram(self.terms, self.bins, self.alpha)

    def fixed(self, seen: Iterable[tuple[Tensor, Batch]]) -> Callable[[Tensor, Batch], Tensor]:
        """Return per-example losses [n] whose weights are fixed by the examples in `seen` (outputs and batches)."""
        histogram = self.histogram()
        for outputs, batch in seen:
            histogram.update(outputs, batch)
        return histogram.losses


class Histogram:
    """Counts and summed losses per bin of g; the result does not depend on the batch size."""

    def __init__(self, terms: Callable[[Tensor, Tensor], Terms], bins: int, alpha: float) -> None:
        self.terms, self.bins, self.alpha = terms, bins, alpha
        self.counts = torch.zeros(bins, dtype=torch.float64)
        self.sums = torch.zeros(bins, dtype=torch.float64)

    def update(self, outputs: Tensor, batch: Batch) -> None:
        """Add the entries of a batch."""
        norms, losses = self.terms(outputs.detach(), batch.targets)
        places = bin_of(norms, self.bins).flatten().cpu()
        self.counts += places.bincount(minlength=self.bins)
        self.sums.index_add_(0, places, losses.flatten().double().cpu())

    @property
    def weights(self) -> Float[Tensor, " b"]:
        """Return the weight of each bin, 0 for empty bins."""
        return bin_weights(self.counts, self.alpha, self.counts)

    def losses(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """Return w · ℓ of each example, a mean over its outputs, with the weights of this histogram."""
        norms, losses = self.terms(outputs, batch.targets)
        weights = self.weights.to(losses)[bin_of(norms, self.bins)]
        return (weights * losses).flatten(1).mean(dim=1) if losses.ndim > 1 else weights * losses

    def values(self) -> dict[str, float]:
        """Return metrics: the share of each bin, the weight of each non-empty bin, and the weighted loss."""
        total, weights = self.counts.sum(), self.weights
        found = {f"ghm/share_bin_{index}": float(count / total) for index, count in enumerate(self.counts)}
        held = [index for index, count in enumerate(self.counts) if count]
        found |= {f"ghm/weight_bin_{index}": float(weights[index]) for index in held}
        return {**found, "ghm/loss": float((weights * self.sums).sum() / total)}
