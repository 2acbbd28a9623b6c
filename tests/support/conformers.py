"""Small Conformers with weights that leave nothing at zero or one, and windows for them."""

from typing import Any

import torch
from torch import Tensor

from nfa.registry.families.eeg.conformer import Conformer, ConformerOptions

SMALL = {"channels": 3, "subjects": 4, "d_model": 8, "d_inner": 12, "n_head": 2, "n_layers": 1, "conv_kernel_size": 3}
PLAIN = {"gradient_scale": 1.0, "output_grad_scale": 1.0, "dropout": 0.0}
RESIDUALS = {
    "none": {"use_residual": False, "use_gated_residual": False},
    "sum": {"use_residual": True, "use_gated_residual": False},
    "gate": {"use_residual": True, "use_gated_residual": True},
}


def small(*, residual: str = "gate", seed: int = 0, **options: Any) -> Conformer:
    """In float64 and evaluation mode, every parameter and running statistic drawn at random."""
    model = Conformer(ConformerOptions(**{**SMALL, **PLAIN, **RESIDUALS[residual], **options})).double().eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(model.state_dict().items()):
            if value.is_floating_point():
                drawn = torch.randn(value.shape, generator=random, dtype=torch.float64)
                value.copy_(drawn.exp() if name.endswith("running_var") else drawn / max(1, value[0].numel()) ** 0.5)
    return model


def windows(n: int = 2, length: int = 9, channels: int = 3, subjects: int = 4, seed: int = 1) -> tuple[Tensor, Tensor]:
    """EEG and whose it is."""
    random = torch.Generator().manual_seed(seed)
    eeg = torch.randn(n, length, channels, generator=random, dtype=torch.float64)
    return eeg, torch.randint(subjects, (n,), generator=random)


def gradients(model: Conformer, eeg: Tensor, subjects: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs, and the gradient of a random function of them by every parameter."""
    outputs = model(eeg, subjects)
    random = torch.Generator().manual_seed(7)
    direction = torch.randn(outputs.shape, generator=random, dtype=torch.float64).to(outputs)
    named = dict(model.named_parameters())
    found = torch.autograd.grad(outputs, list(named.values()), direction)
    return outputs.detach(), dict(zip(named, found, strict=True))
