"""Floating-point operations of training steps, counted from shapes.

A multiply-add counts as two. Counted are products of matrices, convolutions and attention, of the forward pass, the
backward pass and the update; operations on single elements, reductions, Fourier transforms and decompositions count
nothing, as is usual (Kaplan et al. 2020, arXiv 2001.08361, section 2.1).

A step is counted on fake tensors, which have shapes and no numbers, with copies of the model, the objective and the
optimizers: real tensors are not touched, and no generator moves. (An observer of the real step would be simpler, but
PyTorch takes other ways through some operations while one is there, so that the last bits of results may differ.)
"""

import copy
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from math import prod
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from nfa.bookkeeping import FLOPS
from nfa.registry.training.optimizers import Optimizers
from nfa.seeding import untouched
from nfa.workload import Batch, Objective, Workload

MOST_SHAPES = 16  # steps of more different shapes are not counted, because each takes some milliseconds
OWN = ("aten", "prim", "prims", "profiler")  # operations of other namespaces may compute anything
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "linear", "matmul", "einsum"}
PRODUCTS |= {"bilinear", "trilinear", "conv", "convolution", "attention", "rnn", "lstm", "gru", "cdist"}
aten = torch.ops.aten


class StepFlops:
    """The operations of the steps that a training has made; `total` is None if one of them could not be counted."""

    def __init__(
        self,
        workload: Workload,
        model: nn.Module,
        optimizers: Optimizers,
        objective: Objective,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        *,
        counted: bool = True,
    ) -> None:
        self.total: float | None = 0.0 if counted else None
        self._passes = partial(flops_of_passes, workload, model, objective, autocast)
        self._update = cache(partial(flops_of_update, optimizers))
        self._of_shapes: dict[Any, float | None] = {}

    def add(self, parts: Sequence[Batch]) -> None:
        """Add a step on these batches, after it was made, so that what a model keeps by shape is there and is real."""
        if self.total is None:
            return
        passes, update = self._counted(parts), self._update()
        self.total = None if passes is None or update is None else self.total + passes + update

    def values(self) -> dict[str, float]:
        """Return the total as a metric, if it is known and there has been a step."""
        return {FLOPS: self.total} if self.total else {}

    def _counted(self, parts: Sequence[Batch]) -> float | None:
        shapes = tuple(_shapes(part) for part in parts)
        if shapes not in self._of_shapes:
            known = len(self._of_shapes) < MOST_SHAPES
            self._of_shapes[shapes] = self._passes(parts) if known else None
        return self._of_shapes[shapes]


def _shapes(batch: Batch) -> tuple[torch.Size, ...]:
    found: list[torch.Size] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor.shape)
        return tensor

    batch.map(note)
    return tuple(found)


def flops_of_passes(
    workload: Workload,
    model: nn.Module,
    objective: Objective,
    autocast: Callable[[], AbstractContextManager[Any]],
    parts: Sequence[Batch],
) -> float | None:
    """Return the operations of forward and backward passes over `parts`; None if they cannot be counted."""

    def passes(fake: Any, tally: Tally) -> None:
        weights: dict[int, Any] = {id(each): fake.from_tensor(each) for each in (*model.parameters(), *model.buffers())}
        other = copy.copy(workload)
        twin, aim = copy.deepcopy(model, weights), copy.deepcopy(objective, {id(workload): other})
        with fake, tally:
            for part in (each.map(fake.from_tensor) for each in parts):
                with autocast():
                    outputs = other.outputs(twin, part)
                aim(outputs, part).backward()

    return _counted(passes)


def flops_of_update(optimizers: Optimizers) -> float | None:
    """Return the operations of an update with gradients where there are some now; None if they cannot be counted."""

    def update(fake: Any, tally: Tally) -> None:
        twins = [_twin(optimizer, fake) for optimizer in optimizers.parts.values()]
        with fake, tally:
            for twin in twins:
                type(twin).step(twin)  # not its own step, which a schedule has bound to the real one

    return _counted(update)


def _twin(optimizer: torch.optim.Optimizer, fake: Any) -> torch.optim.Optimizer:
    """Return an optimizer before its first step that updates fake weights in place of the real ones."""
    twin = object.__new__(type(optimizer))
    vars(twin).update(vars(optimizer), state=defaultdict(dict))
    twin.param_groups = [
        {**group, "params": [_with_gradient(fake, weight) for weight in group["params"]]}
        for group in optimizer.param_groups
    ]
    return twin


def _with_gradient(fake: Any, weight: Tensor) -> Tensor:
    twin: Tensor = fake.from_tensor(weight)
    twin.grad = None if weight.grad is None else fake.from_tensor(weight.grad)
    return twin


def _counted(work: "Callable[[Any, Tally], None]") -> float | None:
    """Return the operations that `work` does with fake tensors; None if one is unknown, or needs numbers."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # slow, but torch.optim has imported it by now

    tally = Tally()
    try:
        with untouched(), _silence(), torch.compiler.set_stance("force_eager"):
            work(FakeTensorMode(allow_non_fake_inputs=True), tally)
    except Exception:  # a model may do anything with numbers, which fake tensors do not have
        return None
    return None if tally.unknown else float(tally.flops)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep PyTorch from printing what fails on fake tensors."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


class Tally(TorchDispatchMode):
    """Counts the operations in its `with` block; `unknown` names products that have no formula."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.unknown: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = getattr(func, "_overloadpacket", None)
        if formula := FORMULAS.get(packet) or flop_registry.get(packet):
            self.flops += formula(*args, **kwargs, out_val=result)
        elif packet is None or func.namespace not in OWN or PRODUCTS & set(packet.__name__.strip("_").split("_")):
            self.unknown.add(str(func))
        return result


def _convolution_backward(gradient: Tensor, _inputs: Tensor, weight: Tensor, *more: Any, **_: Any) -> int:
    """Each gradient that is asked for takes as many operations as the convolution; PyTorch's formula ignores groups."""
    transposed, asked = more[4], more[7]
    positions = _inputs if transposed else gradient
    forward = 2 * positions.shape[0] * prod(positions.shape[2:]) * weight.numel()
    return int(forward * sum(asked[:2]))


def _vector_products(matrix: Tensor, _vector: Tensor, **_: Any) -> int:
    return 2 * matrix.numel()


def _added_vector_products(_added: Tensor, matrix: Tensor, _vector: Tensor, **_: Any) -> int:
    return 2 * matrix.numel()


FORMULAS: dict[Any, Callable[..., int]] = {
    aten.convolution_backward: _convolution_backward,
    aten.mv: _vector_products,
    aten.dot: _vector_products,
    aten.vdot: _vector_products,
    aten.addmv: _added_vector_products,
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}
