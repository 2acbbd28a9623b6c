"""The steps of a training, tried before there is a run: what would fail in the middle of an epoch is refused."""

from torch import nn

from nfa.errors import NfaError, Refusal, reason
from nfa.registry.families.custom.config import CustomConfig
from nfa.seeding import untouched
from nfa.workload import Workload


def check_steps(config: CustomConfig, workload: Workload) -> None:
    """`Refusal` where a new model fails in training mode on a batch of a size that an epoch has, the last one's too,
    or gives gradients that the optimizer does not take."""
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
    except Exception as error:  # whatever somebody's code raises
        asked = f"batch_size={batch_size} for {len(ids):,} examples"
        got = f"{asked}: a training step on {size} fails ({type(error).__name__}: {reason(error)})"
        others = (other for other in range(batch_size - 1, 1, -1) if len(ids) % other != size)
        remedy = f"batch_size={next(others, 1)}" if size == len(ids) % batch_size else "mend the model or its loss"
        allowed = "a model that learns from every batch of an epoch, the last one too, which holds what is left"
        raise Refusal(got, allowed, remedy) from error


def _check_dense(model: nn.Module, config: CustomConfig) -> None:
    """Only plain gradient descent takes sparse gradients."""
    plain = config.optimizer == "sgd" and not config.resolved().momentum and not config.weight_decay
    sparse = [name for name, of in model.named_parameters() if of.grad is not None and of.grad.is_sparse]
    if sparse and not plain:
        got = f"optimizer={config.optimizer} for {sparse[0]}, whose gradient is sparse"
        allowed = "dense gradients, or sgd without momentum and weight_decay"
        raise Refusal(got, allowed, "nn.Embedding(…, sparse=False)")
