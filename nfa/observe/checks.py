"""Checks on a few examples before work starts: models and losses without per-example matrices are refused."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.parameter import is_lazy

from nfa.errors import Refusal, reason
from nfa.observe.door import EXAMPLES
from nfa.observe.inertness import inert, without_fused_attention
from nfa.observe.moved import moved
from nfa.observe.parameter_regions import Region, Regions
from nfa.observe.passes import per_example
from nfa.observe.recording import ParameterRecorder
from nfa.observe.single_examples import gradients
from nfa.workload import Batch, Workload

TOLERANCE = 1e-4  # relative to the largest entry: rounding depends a little on the batch size, coupling changes a lot


def check_model(model: nn.Module, workload: Workload, batch: Batch) -> int:
    """Return the number of outputs per example; `Refusal` if examples influence each other or answers differ between
    calls.

    `batch` is cut to 8 examples. The model runs three times in evaluation mode, and once more if trained parameters are
    zero, because a gate at zero hides whatever is behind it. It is not changed.
    """
    check_weights(model)
    few = batch.take(range(min(EXAMPLES, len(batch))))
    with inert(model), torch.no_grad():
        _check_modules(model)
        outputs, losses = _run(model, workload, few)
        _check_finite(outputs, losses)
        with moved(model, frozen=False) as changed:
            if other := _with_other_weights(model, workload, few) if changed else None:
                _check_examples(model, workload, few, *other)
        if not other:
            _check_examples(model, workload, few, outputs, losses)
    if not outputs[0].numel():
        got = f"outputs of shape {tuple(outputs.shape)}, which hold no number"
        raise Refusal(got, "at least one output for each example", "outputs=lambda model, inputs: … to select some")
    return outputs[0].numel()


def _with_other_weights(model: nn.Module, workload: Workload, few: Batch) -> tuple[Tensor, Tensor] | None:
    """Return outputs and losses; None where the model can compute with no other weights than its own."""
    try:
        outputs, losses = _run(model, workload, few)
    except Exception:  # whatever it raises
        return None
    return (outputs, losses) if outputs.isfinite().all() and losses.isfinite().all() else None


def _check_examples(model: nn.Module, workload: Workload, few: Batch, outputs: Tensor, losses: Tensor) -> None:
    again, _ = _run(model, workload, few)
    _check_repeats(outputs, again)
    if len(few) > 1:
        # In reverse order, the second half shows whether an example is influenced by any others.
        places = list(range(len(few)))[: (len(few) - 1) // 2 : -1]
        _check_separate(outputs[places], losses[places], *_run_part(model, workload, few.take(places)))


def check_weights(model: nn.Module) -> None:
    """Raise `Refusal` for a model whose weights do not exist yet."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            remedy = "call the model on one batch first, as the first step of training does"
            raise Refusal(f"parameter {name!r}, whose shape is not known yet", "a model that has run once", remedy)
        if tensor.is_meta:
            remedy = "model.to_empty(device='cpu'), and then load its weights"
            raise Refusal(f"{name!r} on the meta device, which holds no data", "a model with its weights", remedy)


def check_trained(model: nn.Module, workload: Workload, batch: Batch) -> None:
    """Raise `Refusal` if torch.autograd.grad misses a gradient that training has, and if nothing is trainable.

    Re-entrant checkpoints run parts of a model inside torch.no_grad() and differentiate them in a separate call.
    """
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not trained:
        raise Refusal("a model without trainable parameters", "at least one trainable parameter", "set requires_grad")
    if unread := [name for name, weight in trained.items() if weight.is_complex()]:
        got = f"parameter {unread[0]!r}, which is complex"
        raise Refusal(got, "real parameters", "requires_grad_(False), or the alignment study without its layer")
    recorder = _Silent(Regions(trained), len(batch))
    with inert(model), torch.enable_grad(), without_fused_attention(), recorder:
        outputs = workload.outputs(model, batch)
    names = sorted(recorder.silent)
    made = gradients(outputs, [trained[name] for name in names], torch.ones_like(outputs))
    for name, found in zip(names, made, strict=True):
        if found is None:
            got = f"parameter {name!r}, which is used only inside torch.no_grad()"
            remedy = "1. use checkpoint(…, use_reentrant=False); 2. requires_grad_(False) if it is not to be trained"
            raise Refusal(got, "parameters whose gradients torch.autograd.grad finds", remedy)


class _Silent(ParameterRecorder):
    """Record which parameters are used where no gradient flows."""

    def __init__(self, regions: Regions, n: int) -> None:
        super().__init__(regions, n)
        self.silent: set[str] = set()

    def wants(self, rule: Any, regions: Mapping[str, Region]) -> Hashable:  # noqa: ARG002 - whatever uses them
        if not torch.is_grad_enabled():
            self.silent |= {region.parameter for region in regions.values()}
        return None


def _run(model: nn.Module, workload: Workload, batch: Batch) -> tuple[Tensor, Tensor]:
    outputs = workload.outputs(model, batch)
    return outputs, per_example(workload.losses(outputs, batch), batch)


def _run_part(model: nn.Module, workload: Workload, batch: Batch) -> tuple[Tensor, Tensor]:
    try:
        return _run(model, workload, batch)
    except Refusal:
        raise
    except Exception as error:  # for example, targets that are positions in the batch
        got = f"a model or loss that fails on a part of a batch that it accepts as a whole ({reason(error)})"
        remedy = "replace contrastive losses, which have no per-example gradient; keep batch sizes out of forward"
        raise Refusal(got, "models and losses that treat each example alone", remedy) from error


def _check_modules(model: nn.Module) -> None:
    for name, module in model.named_modules():
        batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if batch_norm and (module.training or not module.track_running_stats):
            got = f"{name!r}, a {type(module).__name__} that uses the statistics of the batch in evaluation mode"
            remedy = "use track_running_stats=True in evaluation mode, or GroupNorm or LayerNorm"
            raise Refusal(got, "layers that treat each example alone", remedy)
        if module.training:
            got = f"{name!r}, a {type(module).__name__} that stays in training mode after model.eval()"
            raise Refusal(got, "modules that follow model.eval()", "do not override train() or set training by hand")


def _check_finite(outputs: Tensor, losses: Tensor) -> None:
    if not (outputs.isfinite().all() and losses.isfinite().all()):
        got = "a model whose outputs or losses are not finite"
        raise Refusal(got, "finite weights, inputs and targets", "take a checkpoint from before the training diverged")


def _check_repeats(outputs: Tensor, again: Tensor) -> None:
    if not _close(outputs, again):
        got = "a model whose outputs differ when it is run twice on the same inputs"
        remedy = "use nn.Dropout (off in evaluation) instead of F.dropout(x) or torch.rand in forward"
        raise Refusal(got, "models that are deterministic in evaluation mode", remedy)


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
            "do not divide by a quantity of the batch; contrastive and ranking losses have no per-example gradient",
        )


def _close(a: Tensor, b: Tensor) -> bool:
    scale = float(b.abs().max()) if b.numel() else 0.0
    return a.shape == b.shape and bool(torch.allclose(a, b, rtol=0, atol=TOLERANCE * scale))
