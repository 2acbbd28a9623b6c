"""Refusals at the door: what has no per-example matrices is found on a few examples before the work starts."""

import torch
import torch.nn as nn
from torch import Tensor

from nfa.errors import Refusal
from nfa.observe.inertness import inert
from nfa.observe.passes import per_example
from nfa.protocols import Batch, Workload

TOLERANCE = 1e-4  # of the largest entry: rounding differs a little between batch sizes, coupling differs a lot
EXAMPLES = 8


def check_model(model: nn.Module, workload: Workload, batch: Batch) -> int:
    """Outputs of an example; `Refusal` where examples see each other in model or loss, or answers differ each time.

    `batch` is cut to 8 examples; the model is run three times in evaluation mode and left as it was.
    """
    few = batch.take(range(min(EXAMPLES, len(batch))))
    with inert(model), torch.no_grad():
        _check_modules(model)
        outputs, losses = _run(model, workload, few)
        _check_finite(outputs, losses)
        again, _ = _run(model, workload, few)
        _check_repeats(outputs, again)
        if len(few) > 1:
            # The second half, backwards: whether an example sees all others, those before it or those after it.
            places = list(range(len(few)))[: (len(few) - 1) // 2 : -1]
            _check_separate(outputs[places], losses[places], *_run(model, workload, few.take(places)))
    return outputs[0].numel()


def _run(model: nn.Module, workload: Workload, batch: Batch) -> tuple[Tensor, Tensor]:
    outputs = workload.outputs(model, batch)
    return outputs, per_example(workload.losses(outputs, batch), batch)


def _check_modules(model: nn.Module) -> None:
    for name, module in model.named_modules():
        batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if batch_norm and (module.training or not module.track_running_stats):
            raise Refusal(
                f"{name!r}, a {type(module).__name__} that uses the statistics of the batch in evaluation mode",
                "layers that treat each example alone",
                "track_running_stats=True and evaluation mode, or GroupNorm or LayerNorm instead",
            )
        if module.training:
            raise Refusal(
                f"{name!r}, a {type(module).__name__} that stays in training mode after model.eval()",
                "modules that follow model.eval()",
                "do not override train() or set training by hand",
            )


def _check_finite(outputs: Tensor, losses: Tensor) -> None:
    if not (outputs.isfinite().all() and losses.isfinite().all()):
        raise Refusal(
            "a model whose outputs or losses are not finite",
            "finite weights, inputs and targets",
            "take a checkpoint from before the training diverged",
        )


def _check_repeats(outputs: Tensor, again: Tensor) -> None:
    if not _close(outputs, again):
        raise Refusal(
            "a model whose outputs differ when it is run twice on the same inputs",
            "models that are deterministic in evaluation mode",
            "use nn.Dropout (off in evaluation) instead of F.dropout(x) or torch.rand in forward",
        )


def _check_separate(outputs: Tensor, losses: Tensor, part_outputs: Tensor, part_losses: Tensor) -> None:
    if not _close(outputs, part_outputs):
        raise Refusal(
            "a model whose outputs for an example depend on the others in the batch",
            "models that treat each example alone",
            "1. normalise by GroupNorm or LayerNorm, or freeze batch statistics; "
            "2. keep the examples in the first dimension; 3. pad to a fixed length",
        )
    if not _close(losses, part_losses):
        raise Refusal(
            "a loss in which examples are coupled: an example's loss depends on the others in the batch",
            "losses that are one number for each example alone",
            "divide by nothing that depends on the batch; contrastive and ranking losses have no per-example gradient",
        )


def _close(a: Tensor, b: Tensor) -> bool:
    scale = float(b.abs().max()) if b.numel() else 0.0
    return a.shape == b.shape and bool(torch.allclose(a, b, rtol=0, atol=TOLERANCE * scale))
