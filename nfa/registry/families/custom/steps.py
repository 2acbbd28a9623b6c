"""Try training steps before a run is created, so that errors in the middle of an epoch are refused in advance."""

from torch import nn

from nfa.errors import NfaError, Refusal, reason
from nfa.plain_text import counted
from nfa.registry.families.custom.config import CustomConfig
from nfa.seeding import untouched
from nfa.workload import Workload


def check_steps(config: CustomConfig, workload: Workload) -> None:
    """Raise `Refusal` if a new model fails in training mode on a full batch or on the last, smaller one.

    Also if it gives gradients that the optimizer does not accept.
    """
    examples = len(workload.ids("train"))
    for size in {min(config.batch_size, examples), examples % config.batch_size} - {0}:
        with untouched():
            model = workload.model().train()
            _differentiate(model, workload, size, config.batch_size)
        _check_dense(model, config)


def _differentiate(model: nn.Module, workload: Workload, size: int, batch_size: int) -> None:
    ids = list(workload.ids("train"))
    try:
        for batch in workload.batches("train", batch_size=size, ids=ids[:size]):
            workload.objective()(workload.outputs(model, batch), batch).backward()
    except NfaError:
        raise
    except Exception as error:  # the user's code may raise anything
        asked = f"batch_size={batch_size} for {len(ids):,} examples"
        got = f"{asked}: a training step on {counted(size, 'example')} fails ({type(error).__name__}: {reason(error)})"
        others = (other for other in range(batch_size - 1, 1, -1) if len(ids) % other != size)
        remedy = f"batch_size={next(others, 1)}" if size == len(ids) % batch_size else "correct the model or its loss"
        allowed = "a model that can train on every batch of an epoch, including the last, smaller one"
        raise Refusal(got, allowed, remedy) from error


def _check_dense(model: nn.Module, config: CustomConfig) -> None:
    """Raise `Refusal` for sparse gradients, unless the optimizer is plain gradient descent."""
    plain = config.optimizer == "sgd" and not config.resolved().momentum and not config.weight_decay
    sparse = [name for name, of in model.named_parameters() if of.grad is not None and of.grad.is_sparse]
    if sparse and not plain:
        got = f"optimizer={config.optimizer} for {sparse[0]}, whose gradient is sparse"
        allowed = "dense gradients, or sgd without momentum and weight_decay"
        raise Refusal(got, allowed, "nn.Embedding(…, sparse=False)")
