"""Muon for the matrices of hidden layers, fast on any processor.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks". The momentum of the gradients is replaced
by the nearest semi-orthogonal matrix: U Vᵀ, if its singular value decomposition is U S Vᵀ. An iteration of matrix
products approaches U Vᵀ. torch.optim.Muon runs the same iteration always in bfloat16, which on a processor without
units for bfloat16 takes about thirteen times as long as float32.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nfa.maths.bfloat16 import has_bfloat16_units

Coefficients = tuple[tuple[float, float, float], ...]
ROUNDS = 5
SAFETY = 1.01  # keeps singular values that rounding has made too large inside the interval of Polar Express
_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
COEFFICIENTS: dict[str, Coefficients] = {
    "quintic": ((3.4445, -4.7750, 2.0315),) * ROUNDS,
    "polar-express": tuple((a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in _EXPRESS),
}
STRIP = 128  # rows of a symmetric product that are computed at a time
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Muon(torch.optim.Muon):
    """Muon whose orthogonalisation runs in bfloat16 where a device has units for it, and in float32 elsewhere.

    Args:
        params: The matrices to train, or groups of them.
        coefficients: "quintic" (Jordan's, the same in each of the five rounds), or "polar-express" (Amsel et al. 2025,
            arXiv 2505.16932: different in each round, with the smallest error for singular values from 0.001 to 1).
        precision: The precision of the iteration: "float32", "bfloat16", or "auto" (by device).
        nesterov: Whether the momentum looks one step ahead.
        lr, momentum, weight_decay: As in torch.optim.Muon. Its other arguments are not taken, because they belong to
            the iteration that this one replaces.

    Raises:
        ValueError: There are no such coefficients, or there is no such precision.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        *,
        nesterov: bool = True,
        coefficients: str = "quintic",
        precision: str = "auto",
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)
        if coefficients not in COEFFICIENTS:
            raise ValueError(f"coefficients={coefficients}, which are quintic or polar-express")
        if precision not in ("auto", *PRECISIONS):
            raise ValueError(f"precision={precision}, which is auto, float32 or bfloat16")
        self.coefficients, self.precision = COEFFICIENTS[coefficients], precision

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every matrix W [o, i]: W ← (1 − lr λ) W − lr √max(1, o/i) · orthogonalised momentum."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        update = orthogonalised(direction, self.coefficients, self._precision(weight))
        tall = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
        weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * tall)

    def _precision(self, weight: Tensor) -> torch.dtype:
        if self.precision == "auto":
            return torch.bfloat16 if has_bfloat16_units(weight.device) else torch.float32
        return PRECISIONS[self.precision]


def orthogonalised(matrix: Tensor, coefficients: Coefficients, precision: torch.dtype) -> Tensor:
    """Move the singular values of a matrix towards 1, by rounds of X ← a X + (b A + c A²) X with A = X Xᵀ.

    Args:
        matrix: The matrix [o, i]; it is first divided by its norm, so that its singular values are at most 1.
        coefficients: The numbers a, b and c of each round.
        precision: The type in which the products are computed.

    Returns:
        The result [o, i] in that precision. Its singular values are between about 0.7 and 1.2, except those that are
        negligible in `matrix`.
    """
    wide: Tensor = matrix.to(precision) if matrix.shape[0] <= matrix.shape[1] else matrix.to(precision).T
    x: Tensor = wide / wide.norm().clamp(min=1e-7)
    by_strips = precision is torch.float32 and x.device.type == "cpu"
    for a, b, c in coefficients:
        if by_strips:
            gram = _symmetric_product(x, x.T)
            update = _symmetric_product(gram, gram).mul_(c).add_(gram, alpha=b)
        else:
            gram = x @ x.T
            update = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, update, x, beta=a)
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def _symmetric_product(x: Tensor, y: Tensor) -> Tensor:
    """Return x y [n, n], which is known to be symmetric, by multiplying only its lower triangle, in strips of rows."""
    n = len(x)
    if n < 2 * STRIP:
        return x @ y
    out = x.new_empty(n, n)
    for begin in range(0, n, STRIP):
        end = min(begin + STRIP, n)
        torch.mm(x[begin:end], y[:, :end], out=out[begin:end, :end])
        out[:begin, begin:end] = out[begin:end, :begin].T
    return out
