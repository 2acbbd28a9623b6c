"""A fine-tuning's first model, and the check that it starts where it is said to."""

import torch
import torch.nn as nn
from torch import Tensor

from nfa.console import stage
from nfa.errors import NfaError
from nfa.measures.evaluation import record_outputs
from nfa.registry.families.language import adapters
from nfa.registry.families.language.base.models import load_model
from nfa.registry.families.language.workload import DTYPES, LanguageModel

QUESTIONS = 2
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}  # of the largest |logit|
HALF_TOLERANCE = 0.05


def start(workload: LanguageModel) -> nn.Module:
    """The model at step 0; `NfaError` where its logits are not those of the base (warm: with the update)."""
    base = load_model(workload.base, DTYPES[workload.config.base_precision])
    if workload.config.init == "full":
        return workload.adapted(base).to(workload.device)
    expected = _logits(workload, _with_update(workload, base))
    model = workload.adapted(base).to(workload.device)
    apart = float((_logits(workload, model) - expected).abs().max() / expected.abs().max())
    if not apart <= TOLERANCE.get(expected.dtype, HALF_TOLERANCE):
        raise NfaError(
            f"the model does not start where init={workload.config.init} says: its logits differ by {apart:.1e} of the "
            "largest; please report this with the versions of peft and transformers"
        )
    stage("start", f"logits differ from {_said(workload)} by {apart:.1e} of the largest")
    return model


def _with_update(workload: LanguageModel, base: nn.Module) -> nn.Module:
    """What the model is to start as: the base, or for a warm start a second one with its update."""
    config = workload.config
    if config.init != "svd" or config.residual or workload.initial is None:
        return base
    other = load_model(workload.base, DTYPES[config.base_precision])
    adapters.put_in(other, workload.initial, workload.scaling)
    return other


def _said(workload: LanguageModel) -> str:
    warm = workload.config.init == "svd" and not workload.config.residual
    return "the base with the update" if warm else "the base"


def _logits(workload: LanguageModel, model: nn.Module) -> Tensor:
    """Of the shortest held-out questions, without mixed precision."""
    shortest = sorted(workload.ids("val"), key=lambda item: len(workload.questions.ids[item]))[:QUESTIONS]
    found: list[Tensor] = []
    batches = workload.batches("val", batch_size=QUESTIONS, ids=shortest)
    record_outputs(model.to(workload.device), workload, batches, lambda outputs, _: found.append(outputs))
    return found[0]
