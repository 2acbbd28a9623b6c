"""What one batch contributes to one site."""

from dataclasses import dataclass
from enum import Enum

from jaxtyping import Float
from torch import Tensor


class Source(Enum):
    """The pass whose results a measure receives."""

    FORWARD = "forward"  # the forward pass alone
    LOSS = "loss"  # gradients of the per-example loss
    OUTPUT = "output"  # one record for each output direction


class Part(Enum):
    """What a measure reads of the forward pass; nothing is stored or unfolded that no measure reads."""

    INPUTS = "inputs"
    OUTPUTS = "outputs"
    SLOPES = "slopes"  # σ′ in place of K_r, where a function turns z into the readout's input entry by entry


@dataclass(frozen=True)
class Record:
    """Inputs h [n, s, i] and outputs z [n, s, o] of a site where asked for, and by source δ = ∂ℓ/∂z or K_r = ∂f_r/∂z.

    `direction` is r for output directions and 0 otherwise. `fixed` says that h depends on no trainable parameter.
    Where a measure needs slopes, `gradient` may be σ′ [n, 1, o] with K_r = W_r ∘ σ′ of all directions r, and `readout`
    is W.
    """

    inputs: Float[Tensor, "n s i"] | None = None
    outputs: Float[Tensor, "n s o"] | None = None
    gradient: Float[Tensor, "n s o"] | None = None
    direction: int = 0
    fixed: bool = False
    readout: Float[Tensor, "r o"] | None = None
