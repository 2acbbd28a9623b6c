"""What one batch says about one site."""

from dataclasses import dataclass
from enum import Enum

from jaxtyping import Float
from torch import Tensor


class Source(Enum):
    """Which pass a measure listens to."""

    INPUT = "input"  # the forward pass alone
    LOSS = "loss"  # gradients of the per-example loss
    OUTPUT = "output"  # one record for each output direction


@dataclass(frozen=True)
class Record:
    """Inputs h [n s i] of a site and, by source, δ = ∂ℓ/∂z or K_k = ∂f_k/∂z, both [n s o].

    `direction` is k for output directions and 0 otherwise.
    """

    inputs: Float[Tensor, "n s i"]
    gradient: Float[Tensor, "n s o"] | None
    direction: int = 0
