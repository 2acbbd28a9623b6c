"""Everything that a careless observer would disturb, to be compared bitwise."""

import copy
import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tests.support.toy_models import Toy


def snapshot(toys: Toy, optimizer: torch.optim.Optimizer | None = None) -> dict[str, object]:
    """The model, its optimizer, all generators, the data and what PyTorch itself can be changed in; copied."""
    modules = dict(toys.net.named_modules())
    state: dict[str, object] = {
        "weights and buffers": toys.net.state_dict(),
        "versions": {name: tensor._version for name, tensor in toys.net.state_dict().items()},
        "gradients": {name: weight.grad for name, weight in toys.net.named_parameters()},
        "requires_grad": {name: weight.requires_grad for name, weight in toys.net.named_parameters()},
        "optimizer": optimizer.state_dict() if optimizer else None,
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "python": random.getstate(),
        "training": {name: module.training for name, module in modules.items()},
        "hooks": {
            name: [len(getattr(module, kind)) for kind in vars(module) if kind.endswith("_hooks")]
            for name, module in modules.items()
        },
        "grad mode": torch.is_grad_enabled(),
        "F.linear": F.linear,
        "fused attention": torch.backends.mha.get_fastpath_enabled(),
        "inputs": toys.inputs,
        "targets": toys.targets,
    }
    return copy.deepcopy(state)


def assert_same(found: Any, expected: Any, path: str = "") -> None:
    """Bitwise equal, through nested containers."""
    assert type(found) is type(expected), path
    if isinstance(found, torch.Tensor):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), path
        assert torch.equal(*(tensor.detach().reshape(-1).view(torch.uint8) for tensor in (found, expected))), path
    elif isinstance(found, np.ndarray):
        assert np.array_equal(found, expected), path
    elif isinstance(found, dict):
        assert found.keys() == expected.keys(), path
        for key in found:
            assert_same(found[key], expected[key], f"{path}/{key}")
    elif isinstance(found, list | tuple):
        assert len(found) == len(expected), path
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{path}/{index}")
    else:
        assert found == expected, path
