"""Per-example gradients and their statistics, all in plain loops.

Letters: n example, P parameters that are differentiated, m examples with a gradient. γ_a is the gradient of example a.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

import torch
import torch.nn as nn
from jaxtyping import Float, Int
from torch import Tensor


class Examples(Protocol):
    """A batch that can be split into examples."""

    def __len__(self) -> int: ...

    def double(self) -> Self:
        """Return the same examples in float64."""

    def take(self, places: Sequence[int]) -> Self:
        """Return the examples at these positions."""


class PerExample(Protocol):
    """The part of a workload that is needed: outputs, and the loss of each example."""

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Return f(x) [n, …]."""

    def losses(self, outputs: Tensor, batch: Any) -> Tensor:
        """Return ℓ [n], never reduced."""


def example_gradients(
    model: nn.Module,
    workload: PerExample,
    batch: Examples,
    names: Sequence[str] | None = None,
    losses: Callable[[Tensor, Any], Tensor] | None = None,
) -> Float[Tensor, "n P"]:
    """Return γ_a = ∂ℓ_a/∂θ, one example at a time, in evaluation mode.

    Args:
        model: The model.
        workload: The workload that computes outputs and losses.
        batch: The examples.
        names: The parameters θ in order, frozen or not; None stands for those that require a gradient, in the order of
            `model.named_parameters()`.
        losses: A function of outputs and batch that replaces `workload.losses`.

    Returns:
        The flattened gradients [n, P]; 0 for a parameter that ℓ_a does not depend on.
    """
    model = copy.deepcopy(model).double().eval()
    if names is None:
        names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    parameters = [model.get_parameter(name).requires_grad_() for name in names]
    rows = []
    for place in range(len(batch)):
        example = batch.double().take([place])
        loss = (losses or workload.losses)(workload.outputs(model, example), example)
        rows.append(_flat_gradient(loss.squeeze(), parameters))
    return torch.stack(rows)


def gradient_gram(gradients: Float[Tensor, "n P"]) -> Float[Tensor, "n n"]:
    """Return the Gram matrix K_ab = ⟨γ_a, γ_b⟩.

    Args:
        gradients: The gradients [n, P].

    Returns:
        K [n, n].

    Example:
        >>> gradient_gram(torch.tensor([[1.0, 2.0], [3.0, -1.0]]))
        tensor([[ 5.,  1.],
                [ 1., 10.]], dtype=torch.float64)
    """
    rows = gradients.double()
    return torch.stack([torch.stack([a @ b for b in rows]) for a in rows])


def cosines(gram: Float[Tensor, "n n"]) -> tuple[Float[Tensor, "m m"], list[int]]:
    """Return K_ab / √(K_aa K_bb) of the examples with K_aa ≠ 0.

    Args:
        gram: The Gram matrix K [n, n].

    Returns:
        The cosines [m, m], and the indices of the m examples.

    Example:
        >>> cosines(torch.tensor([[4.0, 0.0, 3.0], [0.0, 0.0, 0.0], [3.0, 0.0, 9.0]]))
        (tensor([[1.0000, 0.5000],
                [0.5000, 1.0000]], dtype=torch.float64), [0, 2])
    """
    K = gram.double()
    kept = [a for a in range(len(K)) if K[a, a] != 0]
    values = [[float(K[a, b] / (K[a, a].sqrt() * K[b, b].sqrt())) for b in kept] for a in kept]
    return torch.tensor(values, dtype=torch.float64).reshape(len(kept), len(kept)), kept


def noise_scale(
    gradients: Float[Tensor, "n P"], classes: Int[Tensor, " n"] | None = None, shares: Mapping[int, float] | None = None
) -> tuple[float, float]:
    """Return unbiased |G|² and tr Σ, with G the mean gradient and Σ the covariance of single ones; their ratio is the
    noise scale.

    |G|² = Σ_c Σ_d p_c p_d m_cd, with m_cd the mean of ⟨γ_a, γ_b⟩ over a in class c, b in class d, a ≠ b; tr Σ = Σ_c p_c
    (mean of |γ_a|² over a in c) − |G|². |G|² may be negative. McCandlish et al. 2018, arXiv 1812.06162, app. A.1, with
    batches of 1 and n.

    Args:
        gradients: The gradients [n, P].
        classes: The class of each example [n]; None puts all into one class.
        shares: The share p_c of each class; None takes that among the examples.

    Returns:
        |G|² and tr Σ.

    Raises:
        ValueError: A class has one example, or `shares` names other classes.

    Example:
        >>> noise_scale(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        (0.0, 2.0)
    """
    rows, of = gradients.double(), [0] * len(gradients) if classes is None else classes.tolist()
    members = {c: [a for a in range(len(of)) if of[a] == c] for c in sorted(set(of))}
    p = {c: len(examples) / len(of) for c, examples in members.items()} if shares is None else shares
    if set(p) != set(members):
        raise ValueError(f"shares of the classes {sorted(p)}, but the examples are of {sorted(members)}")
    squared = sum(p[c] * p[d] * _mean_product(rows, members[c], members[d]) for c in members for d in members)
    second = sum(p[c] * sum(float(rows[a] @ rows[a]) for a in members[c]) / len(members[c]) for c in members)
    return squared, second - squared


def silhouette(distances: Float[Tensor, "n n"], classes: Int[Tensor, " n"]) -> float:
    """Return the mean over examples of (b − a) / max(a, b).

    a is the mean distance to the others of the same class, b the smallest mean distance to another class. The only
    example of a class counts as 0, and so does a = b = 0. Rousseeuw 1987, doi:10.1016/0377-0427(87)90125-7.

    Args:
        distances: The distances of all pairs [n, n].
        classes: The class of each example [n].

    Returns:
        The silhouette.

    Raises:
        ValueError: There are not 2 … n − 1 classes.

    Example:
        >>> points = torch.tensor([[0.0], [1.0], [4.0]])
        >>> silhouette(torch.cdist(points, points), torch.tensor([0, 0, 1]))
        0.47222222222222215
    """
    of = classes.tolist()
    if not 2 <= len(set(of)) < len(of):
        raise ValueError(f"the silhouette of {len(of)} examples in {len(set(of))} classes is undefined")
    rows = distances.double().tolist()
    return sum(_silhouette(rows[a], of, a) for a in range(len(of))) / len(of)


def participation_ratio(gram: Float[Tensor, "n n"]) -> float:
    """Return (Σ_j λ_j)² / Σ_j λ_j² of the eigenvalues of a positive semidefinite matrix.

    Args:
        gram: The matrix [n, n].

    Returns:
        The ratio, between 1 and the rank.

    Raises:
        ValueError: The matrix is zero.

    Example:
        >>> participation_ratio(torch.diag(torch.tensor([2.0, 2.0, 0.0])))
        2.0
    """
    values = torch.linalg.eigvalsh(gram.double())
    if values.abs().max() == 0:
        raise ValueError("the participation ratio of a zero matrix is undefined")
    return float(values.sum().square() / values.square().sum())


def _flat_gradient(loss: Tensor, parameters: list[Tensor]) -> Float[Tensor, " P"]:
    if not loss.requires_grad:  # it depends on none of them
        return torch.cat([torch.zeros_like(parameter).flatten() for parameter in parameters])
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if gradient is None else gradient).flatten() for gradient, p in pairs])


def _mean_product(rows: Float[Tensor, "n P"], left: list[int], right: list[int]) -> float:
    products = [float(rows[a] @ rows[b]) for a in left for b in right if a != b]
    if not products:
        raise ValueError("the mean product within a class needs two of its examples")
    return sum(products) / len(products)


def _silhouette(distances: list[float], classes: list[int], own: int) -> float:
    means = {}
    for c in set(classes):
        others = [distances[b] for b in range(len(classes)) if classes[b] == c and b != own]
        if others:
            means[c] = sum(others) / len(others)
    if classes[own] not in means:
        return 0.0
    a = means.pop(classes[own])
    b = min(means.values())
    return (b - a) / max(a, b) if max(a, b) > 0 else 0.0
