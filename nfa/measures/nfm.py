"""The neural feature matrix of a site: what its weights say about its input."""

from jaxtyping import Float
from torch import Tensor

from nfa.maths.congruence import Congruence


def nfm(weight: Float[Tensor, "o i"]) -> Congruence:
    """M = Wᵀ W [i i], formed where that is the smaller side. Radhakrishnan et al. 2024, arXiv 2212.13881."""
    o, i = weight.shape
    return Congruence(None, weight.T @ weight) if i < o else Congruence(weight, None)


def nfm_init_removed(weight: Float[Tensor, "o i"], initial: Float[Tensor, "o i"]) -> Congruence:
    """M₀ = (W − W⁽⁰⁾)ᵀ (W − W⁽⁰⁾) [i i]; neither argument is changed."""
    return nfm(weight - initial)
