"""Negative log-likelihood of answers, token by token."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nfa.maths.exact_losses import negative_log_likelihood
from nfa.registry.families.language.answer_tokens import IGNORED
from nfa.workload import Batch


def answer_losses(
    logits: Float[Tensor, "n s v"], labels: Int[Tensor, "n s"]
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Σ_t −ln p(label_t) over each example's answer tokens, and how many they are; natural logarithm.

    `labels` [n s] stand where they are predicted and are −100 elsewhere. In float64 unless they are differentiated.
    """
    each = negative_log_likelihood(logits.flatten(0, 1), labels.flatten())
    return each.view(labels.shape).sum(dim=1), answer_tokens(labels)


def answer_tokens(labels: Int[Tensor, "n s"]) -> Int[Tensor, " n"]:
    """Return the number of tokens of each answer [n]."""
    return (labels != IGNORED).sum(dim=1)


class TokenMean:
    """The mean over all answer tokens of a step, every token weighing the same, however the step is divided."""

    def __call__(self, outputs: Tensor, batch: Batch) -> Tensor:
        sums, counts = answer_losses(outputs, batch.targets)
        return sums.sum() / counts.sum()

    def share(self, part: Batch, parts: Sequence[Batch], examples: int) -> float:  # noqa: ARG002 - one process
        """Its share of the answer tokens."""
        counts = torch.stack([answer_tokens(each.targets).sum() for each in (part, *parts)])
        own, *tokens = counts.tolist()  # at once: a device is waited for
        return float(own / sum(tokens))

    def step(self) -> None:
        """Nothing to remember."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing."""

    def fixed(self, seen: Iterable[tuple[Tensor, Batch]]) -> Callable[[Tensor, Batch], Tensor]:
        """Per-example losses [n] whose mean over the examples seen is the mean over their answer tokens."""
        counts = torch.cat([answer_tokens(batch.targets) for _, batch in seen])
        scale = len(counts) / float(counts.sum())
        return lambda outputs, batch: answer_losses(outputs, batch.targets)[0] * scale
