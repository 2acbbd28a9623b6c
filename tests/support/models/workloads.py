"""Networks of one's own, with a few examples, as workloads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nfa.reference.linear_twin import linear_twin
from nfa.testing import Conformance, check_workload
from nfa.workload import Batch, Workload
from nfa.workloads.examples import call
from nfa.workloads.probe import Probe

EXAMPLES = 6


@dataclass(frozen=True)
class Foreign:
    """A model of somebody else's: what makes its workload, what is not seen of it, and its twin of linear maps.

    `quick`: checked by every run of the tests, and not only by that of all; `examples` that it is checked on.
    """

    make: Callable[[], Workload]
    unseen: tuple[str, ...] = ()
    twin: Callable[[nn.Module], nn.Module] = linear_twin
    quick: bool = field(default=False, kw_only=True)
    examples: int = field(default=EXAMPLES, kw_only=True)

    def check(self) -> Conformance:
        """Every study."""
        return check_workload(self.make, twin=self.twin, examples=self.examples)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole(high: int, *shape: int, seed: int = 2) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def texts(vocabulary: int, *shape: int, seed: int = 2) -> Tensor:
    """Tokens other than 0, which pads; the last ones differ, so that nothing looks like padding."""
    tokens = 1 + whole(vocabulary - 1, *shape, seed=seed)
    tokens[:, -2:] = 1 + torch.stack([torch.arange(len(tokens)), torch.arange(1, len(tokens) + 1)], 1) % (
        vocabulary - 1
    )
    return tokens


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Of each example."""
    return F.cross_entropy(outputs, labels, reduction="none")


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """½‖f − y‖² of each example."""
    return (outputs - targets).square().flatten(1).sum(dim=1) / 2


def next_tokens(logits: Tensor, tokens: Tensor) -> Tensor:
    """The mean over an example's own tokens but the first; −100 stands where there is none."""
    each = F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none", ignore_index=-100)
    return each.sum(dim=1) / (tokens[:, 1:] != -100).sum(dim=1)


def classifier(network: nn.Module, inputs: Any, classes: int) -> Probe:
    """A network that gives logits, with labels."""
    return Probe(network, cross_entropy, inputs, whole(classes, EXAMPLES))


class Padded:
    """A workload whose examples are of different lengths: `present` [n s] marks an example's own positions."""

    def __init__(self, workload: Probe, present: Tensor) -> None:
        self.workload, self.present = workload, present

    def batches(self, split: str, **options: Any) -> Iterator[Batch]:
        for batch in self.workload.batches(split, **options):
            yield replace(batch, present=self.present[batch.ids])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.workload, name)


LENGTHS = (5, 3, 2, 4)


def mask_of(lengths: tuple[int, ...], longest: int) -> Tensor:
    """Which positions are an example's own [n s]."""
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


def own_logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Logits [n s v], 0 where a position only pads its example."""
    return call(model, inputs) * inputs["attention_mask"][:, :, None]


def padded_language(network: nn.Module, vocabulary: int, longest: int, lengths: tuple[int, ...] = LENGTHS) -> Padded:
    """A causal language model on examples of these lengths, padded to `longest`; the loss ignores padding."""
    present = mask_of(lengths, longest)
    tokens = texts(vocabulary, len(lengths), longest).masked_fill(~present, 0)
    inputs = {"input_ids": tokens, "attention_mask": present.long()}
    probe = Probe(network, next_tokens, inputs, tokens.masked_fill(~present, -100), own_logits)
    return Padded(probe, present)


def language(network: nn.Module, vocabulary: int, length: int = 4) -> Probe:
    """A causal language model on examples of one length."""
    tokens = texts(vocabulary, EXAMPLES, length)
    return Probe(network, next_tokens, {"input_ids": tokens}, tokens)


def alone(workload: Workload) -> list[Batch]:
    """Every example by itself, in float64."""
    (batch,) = workload.batches("train", batch_size=10**4)
    return [batch.double().take([place]) for place in range(len(batch))]
