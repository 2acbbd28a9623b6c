"""The gradient of a mean loss over examples, computed batch by batch."""

from collections.abc import Callable, Iterable

import torch
import torch.nn as nn
from torch import Tensor

from nfa.observe.inertness import inert
from nfa.observe.passes import per_example
from nfa.observe.single_examples import gradients
from nfa.workload import Batch, Workload

Losses = Callable[[Tensor, Batch], Tensor]


def mean_gradient(
    workload: Workload,
    model: nn.Module,
    batches: Iterable[Batch],
    losses: Losses | None = None,
    *,
    record_outputs: Callable[[Tensor, Batch], None] | None = None,
) -> dict[str, Tensor]:
    """Return ∇θ (1/n) Σ_a ℓ_a over all batches, in evaluation mode and accumulated in float64.

    Nothing in the model or the random number generators changes, `.grad` included.

    Args:
        workload: The workload that computes outputs and losses.
        model: The model.
        batches: The batches, with n examples in all.
        losses: A function that gives one loss per example; None takes the workload's own loss.
        record_outputs: A function that receives each batch's outputs, so that an evaluation needs no pass of its own.

    Returns:
        The gradient by parameter name, for trainable parameters only; 0 where the loss does not depend on a parameter.

    Raises:
        Refusal: The losses are not one number per example, or autograd cannot differentiate them.
    """
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    total = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in named.items()}
    examples = 0
    with inert(model), torch.enable_grad():
        for batch in batches:
            outputs = workload.outputs(model, batch)
            if record_outputs:
                record_outputs(outputs.detach(), batch)
            each = per_example((losses or workload.losses)(outputs, batch), batch)
            found = gradients(each, list(named.values()), torch.ones_like(each))
            for name, gradient in zip(named, found, strict=True):
                if gradient is not None:
                    total[name] += gradient
            examples += len(batch)
    return {name: gradient / examples for name, gradient in total.items()}
