"""The Gram matrix of a small model's gradients beside the reference's, for tests."""

from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nfa import reference
from nfa.measures.gradient_gram import BUDGET, GradientGram
from nfa.workload import Batch
from nfa.workloads.probe import Probe

TOLERANCE = 1e-9  # of the largest entry, in float64


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    """½‖f − y‖² of each example, also where f is one number."""
    return (outputs - targets).square().reshape(len(outputs), -1).sum(dim=1) / 2


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens(*shape: int, below: int, seed: int = 0) -> Tensor:
    """Whole numbers from 0."""
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


class Forward(nn.Module):
    """`forward(self, inputs)` with modules, and parameters made of tensors, as attributes."""

    def __init__(self, forward: Callable[["Forward", Any], Tensor], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            setattr(self, name, part if isinstance(part, nn.Module | nn.Parameter) else nn.Parameter(part))

    def forward(self, inputs: Any) -> Tensor:
        return self.function(self, inputs)


def scrambled(net: nn.Module, seed: int = 0) -> nn.Module:
    """In float64, with normal numbers for every parameter and statistic, so that none is 0 or 1 by convention."""
    random = torch.Generator().manual_seed(seed)
    net = net.double()
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.randn(value.shape, generator=random, dtype=torch.float64) / 2)
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
                module.running_var.abs_().add_(0.1)
    return net.train()


def probe(net: nn.Module, inputs: Tensor, loss: Callable[[Tensor, Tensor], Tensor] = half_square) -> Probe:
    """`net` on `inputs` with normal targets."""
    training = net.training
    outputs = net.eval()(inputs).detach()
    net.train(training)
    present = None if inputs.is_floating_point() or inputs.ndim != 2 else torch.ones_like(inputs, dtype=torch.bool)
    return Probe(net, loss, inputs, normal(*outputs.shape, seed=9).to(outputs), present=present)


def everything(workload: Probe) -> Batch:
    return next(workload.batches("train", batch_size=len(workload.all)))


def trainable(net: nn.Module) -> list[str]:
    return [name for name, parameter in net.named_parameters() if parameter.requires_grad]


def expected_gram(workload: Probe, names: list[str] | None = None) -> Tensor:
    """K by the reference, one example at a time."""
    return reference.gradient_gram(
        reference.example_gradients(workload.network, workload, everything(workload), names or None)
    )


def found_gram(workload: Probe, names: list[str] | None = None, *, budget: int = BUDGET) -> Tensor:
    """K by the rules."""
    gram = GradientGram(workload, range(len(workload.all)), names or trainable(workload.network), budget=budget)
    return gram(workload.network)


def assert_close(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    assert expected.abs().max() > 0
    error = float((found - expected).abs().max() / expected.abs().max())
    assert error <= tolerance, f"K differs by {error:.1e} of its largest entry"


def check(
    net: nn.Module, inputs: Tensor, exact: Collection[str] = (), *, budget: int = BUDGET, scramble: bool = True
) -> None:
    """K equals the reference, and `exact` are the parameters whose gradients no rule gave."""
    workload = probe(scrambled(net) if scramble else net.double(), inputs)
    gram = GradientGram(workload, range(len(inputs)), trainable(net), budget=budget)
    found = gram(net)
    assert_close(found, expected_gram(workload))
    assert set(gram.exact) == set(exact)
