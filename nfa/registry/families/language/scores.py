"""Negative log-likelihood of held-out answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from nfa.measures.evaluation import record_outputs
from nfa.registry.families.language.losses import answer_losses
from nfa.registry.families.language.workload import LanguageModel
from nfa.workload import Batch

BATCH, TOKENS = 16, 2048  # at a time, at most: logits are wide


@dataclass(frozen=True)
class AnswerScores:
    """The summed loss (float64) and number of answer tokens of each question, in the order of `ids`."""

    ids: Sequence[int]
    sums: Tensor
    tokens: Tensor

    @property
    def loss(self) -> float:
        """Mean over all answer tokens, natural logarithm."""
        return float(self.sums.sum() / self.tokens.sum())


def score_answers(workload: LanguageModel, model: nn.Module, ids: Sequence[int]) -> AnswerScores:
    """Scores of questions of any split; those of a length are read together, which changes no value."""
    order = sorted(range(len(ids)), key=lambda place: len(workload.questions.ids[ids[place]]))
    size = max(1, min(BATCH, TOKENS // max(len(workload.questions.ids[item]) for item in ids)))
    recorded: list[tuple[Tensor, Tensor]] = []

    def record(outputs: Tensor, batch: Batch) -> None:
        recorded.append(answer_losses(outputs, batch.targets))

    batches = workload.batches("val", batch_size=size, ids=[ids[place] for place in order])
    with workload.autocast():
        record_outputs(model, workload, batches, record)
    back = torch.tensor(order).argsort()
    sums, tokens = (torch.cat([pair[part].cpu() for pair in recorded])[back] for part in (0, 1))
    return AnswerScores(list(ids), sums.double(), tokens)
