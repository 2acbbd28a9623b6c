"""How far a function of mean matrices over n examples is from its value over all N examples of the population."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor


def influences(of: Callable[..., float], *examples: Float[Tensor, "n i i"], step: float = 1e-5) -> Float[Tensor, " n"]:
    """Return t_n = ⟨a_n, ∂F/∂A⟩ + ⟨b_n, ∂F/∂B⟩ + … at the means, each by a central difference along (a_n, b_n, …).

    Args:
        of: The function F of the means.
        examples: The matrices a_n of each example, then b_n, … [n, i, i].
        step: How far F moves, relative to the means.

    Returns:
        t [n].

    Example:
        >>> influences(torch.trace, torch.stack([torch.eye(2), 4 * torch.eye(2)])).round(decimals=9)
        tensor([2., 8.], dtype=torch.float64)
    """
    means = [matrices.double().mean(dim=0) for matrices in examples]
    values = []
    for one in zip(*(matrices.double() for matrices in examples), strict=True):
        largest = max(float(a.norm() / A.norm()) for a, A in zip(one, means, strict=True))
        t = step / max(largest, 1.0)
        ahead = of(*(A + t * a for a, A in zip(one, means, strict=True)))
        behind = of(*(A - t * a for a, A in zip(one, means, strict=True)))
        values.append((float(ahead) - float(behind)) / (2 * t))
    return torch.tensor(values, dtype=torch.float64)


def standard_error(t: Float[Tensor, " n"], population: int, classes: Int[Tensor, " n"] | None = None) -> float:
    """Return √((1 − n/N)/n · Σ_c p_c s_c²), with s_c² the variance of t within a class: Σ (t − mean)² / (n_c − 1).

    Args:
        t: The influence of each example [n].
        population: The number N of examples of which the n were drawn without replacement, p_c n of them from class c.
        classes: The class of each example [n]; None puts all into one class.

    Returns:
        The standard error.

    Raises:
        ValueError: A class has one example.

    Example:
        >>> t, classes = torch.tensor([1.0, 3.0, 11.0, 13.0]), torch.tensor([0, 0, 1, 1])
        >>> round(standard_error(t, 8) ** 2, 9), round(standard_error(t, 8, classes) ** 2, 9)
        (4.333333333, 0.25)
    """
    variance, n = 0.0, len(t)
    for members in _members(n, classes):
        variance += len(members) / n * sum(r * r for r in _residuals(t, members)) / (len(members) - 1)
    return float(((1 - n / population) / n * variance) ** 0.5)


def kurtosis(t: Float[Tensor, " n"], classes: Int[Tensor, " n"] | None = None) -> float:
    """Return n Σ r⁴ / (Σ r²)² of the residuals r of t about its mean, or that of its class; 3 for a Gaussian.

    Args:
        t: The influence of each example [n].
        classes: The class of each example [n]; None puts all into one class.

    Returns:
        The kurtosis.

    Raises:
        ValueError: All residuals are 0, or a class has one example.

    Example:
        >>> kurtosis(torch.tensor([0.0, 0.0, 0.0, 4.0])), kurtosis(torch.tensor([1.0, 3.0]))
        (2.3333333333333335, 1.0)
    """
    residuals = [r for members in _members(len(t), classes) for r in _residuals(t, members)]
    second = sum(r**2 for r in residuals)
    if second == 0:
        raise ValueError("the kurtosis of equal numbers is undefined")
    return len(residuals) * sum(r**4 for r in residuals) / second**2


def unbiased_cosine(
    a: Float[Tensor, "n i i"], b: Float[Tensor, "n i i"], population: int, classes: Int[Tensor, " n"] | None = None
) -> float:
    """Return the cosine of the means A and B, with ⟨A, B⟩ − (1 − n/N)(Σ_n ⟨a_n, b_n⟩ − n⟨A, B⟩)/((n − 1) n) for ⟨A, B⟩
    and the same for ‖A‖² and ‖B‖².

    Each of the three is then right on average over samples that are drawn without replacement. With classes, of which
    p_c n examples each are drawn, the subtrahend is (1 − n/N)/n · Σ_c p_c times the covariance within the class.

    Args:
        a: The matrix of each example [n, i, i].
        b: The matrix of each example to compare with [n, i, i]; one that does not depend on examples is repeated.
        population: The number N of examples of which the n were drawn.
        classes: The class of each example [n]; None puts all into one class.

    Returns:
        The corrected cosine, which may exceed 1.

    Raises:
        ValueError: A corrected squared norm is not above 0, or a class has one example.

    Example:
        >>> a = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
        >>> round(unbiased_cosine(a, torch.eye(2).expand(2, 2, 2), 4), 6) == round(1.5 / (2 * 1.125) ** 0.5, 6)
        True
    """
    squares = [_unbiased_product(x, x, population, classes) for x in (a, b)]
    if min(squares) <= 0:
        raise ValueError("the cosine is undefined: noise explains the norm of a mean")
    return float(_unbiased_product(a, b, population, classes) / (squares[0] * squares[1]) ** 0.5)


def _unbiased_product(
    a: Float[Tensor, "n i i"], b: Float[Tensor, "n i i"], population: int, classes: Int[Tensor, " n"] | None
) -> float:
    a, b, n, covariance = a.double(), b.double(), len(a), 0.0
    for members in _members(n, classes):
        A, B = a[members].mean(dim=0), b[members].mean(dim=0)
        products = sum(float(((a[m] - A) * (b[m] - B)).sum()) for m in members)
        covariance += len(members) / n * products / (len(members) - 1)
    return float((a.mean(dim=0) * b.mean(dim=0)).sum()) - (1 - n / population) / n * covariance


def _members(n: int, classes: Int[Tensor, " n"] | None) -> list[list[int]]:
    """Return the places of the examples of each class."""
    of = [0] * n if classes is None else classes.tolist()
    found = [[place for place in range(n) if of[place] == one] for one in sorted(set(of))]
    if min(len(members) for members in found) == 1:
        raise ValueError("a class has one example: the variance within it is undefined")
    return found


def _residuals(t: Float[Tensor, " n"], members: list[int]) -> list[float]:
    """Return by how much t differs from its mean over the class."""
    values = [float(t[n]) for n in members]
    return [value - sum(values) / len(values) for value in values]
