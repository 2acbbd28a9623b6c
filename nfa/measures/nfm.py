"""The neural feature matrix (NFM) of a site: what its weights say about its input."""

from jaxtyping import Float
from torch import Tensor

from nfa.maths.congruence import Congruence


def nfm(weight: Float[Tensor, "o i"]) -> Congruence:
    """Return the neural feature matrix M = Wᵀ W, formed where [i, i] is the smaller side.

    Radhakrishnan et al. 2024, arXiv 2212.13881.

    Args:
        weight: The weight W [o, i].

    Returns:
        M, as a dense matrix or as its factor.
    """
    o, i = weight.shape
    return Congruence(None, weight.T @ weight) if i < o else Congruence(weight, None)


def nfm_init_removed(weight: Float[Tensor, "o i"], initial: Float[Tensor, "o i"]) -> Congruence:
    """Return the matrix of the weight change, M₀ = (W − W⁽⁰⁾)ᵀ (W − W⁽⁰⁾).

    Args:
        weight: The weight W [o, i].
        initial: The initial weight W⁽⁰⁾ [o, i].

    Returns:
        M₀, as a dense matrix or as its factor.
    """
    return nfm(weight - initial)
