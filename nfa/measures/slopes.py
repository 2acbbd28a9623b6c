"""AGOP's core of a site whose output a function turns into the readout's input entry by entry."""

from jaxtyping import Float
from torch import Tensor

from nfa.maths.accumulate import add_gram, symmetric
from nfa.maths.similarity import Similarity
from nfa.measures.sides import PulledBack
from nfa.observe.readouts import FEW
from nfa.parallel import World


def slopes_cost_less(o: int, i: int, passes: int) -> bool:
    """Tell whether one product of slopes [o, o], and the test of them, cost less than a sum for each direction.

    Args:
        o: The number of outputs of the site.
        i: The number of its inputs.
        passes: The number of directions.

    Returns:
        Whether they do, and take no more than four times the memory.
    """
    return o <= 2 * i and FEW * o * o < passes * PulledBack.cost(o, i)


class SlopeSum:
    """Accumulate S = (WᵀW) ∘ Σ σ′σ′ᵀ [o, o] over rows σ′, which is Σ_k K_kᵀ K_k with K_k = W_k ∘ σ′.

    One product of rows takes the place of one for each output k.

    Args:
        features: The number o of entries of σ′.
        like: A tensor whose type and device are used.
    """

    def __init__(self, features: int, like: Tensor) -> None:
        self.total = like.new_zeros(features, features)
        self.readout: Tensor | None = None

    def add(self, slopes: Float[Tensor, "n o"], readout: Float[Tensor, "r o"]) -> None:
        """Add rows σ′; W, which may be replaced by R of W = Q R, is the same for all."""
        add_gram(self.total, slopes)
        self.readout = readout

    def reduce(self, world: World) -> None:
        """Sum over processes."""
        if world.size == 1:
            return
        readouts = world.gather(None if self.readout is None else self.readout.cpu())
        known = next((one for one in readouts if one is not None), None)
        self.total = world.sum(self.total)
        self.readout = None if known is None else known.to(self.total)

    def value(self) -> Float[Tensor, "o o"] | None:
        """Return S; None where no rows were added."""
        if self.readout is None:
            return None
        gram = Similarity().cross(turned := self.readout.T.contiguous(), turned)
        assert gram is not None
        return gram * symmetric(self.total)
