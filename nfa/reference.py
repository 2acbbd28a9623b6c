"""Slow, obvious versions of what the fast path computes: float64, one example at a time, dense matrices.

Tests and benchmarks compare with them, so nothing here comes from the rest of nfa. Axis letters: n example, s position,
i input, o output, k network output. A site is named as in `model.named_modules()`, is an nn.Linear
(nfa/linear_twin.py makes one of every other layer) and computes z = W h (+ b); where it is called several times in one
forward pass, the calls' positions follow each other along s.
"""

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

Centre = Literal["none", "entry"]
Loss = Callable[[Tensor, Tensor], Tensor]


def jacobians(model: nn.Module, site: str, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n s k i"]:
    """J = ∂f/∂h, f = model(x) flattened, h the site's input: J[n, s, k] = ∂f_k(h + ε)/∂ε_s at ε = 0.

    By reverse differentiation (torch.func.jacrev) with respect to an ε added to h. Raises `ValueError` where the
    forward pass never calls the site, `AttributeError` where the model has no such module.
    """
    model = _double(model)
    return torch.stack([_jacobian(model, site, example) for example in inputs.double()])


def loss_gradients(
    model: nn.Module, site: str, inputs: Float[Tensor, "n ..."], targets: Tensor, loss: Loss
) -> Float[Tensor, "n s o"]:
    """δ = ∂ℓ/∂z of each example's own loss ℓ = loss(model(x), y), z the site's output.

    `loss` gets outputs [1 …] and targets [1 …] of one example; its value has one entry. By torch.func.grad with
    respect to an ε added to z. Raises like `jacobians`.
    """
    model = _double(model)
    pairs = zip(inputs.double(), targets, strict=True)
    return torch.stack([_loss_gradient(model, site, x, y, loss) for x, y in pairs])


def site_inputs(model: nn.Module, site: str, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n s i"]:
    """h, what goes into the site, one example at a time. Raises like `jacobians`."""
    model = _double(model)
    return torch.stack([torch.cat([_rows(h) for h, _ in _calls(model, site, x)]) for x in inputs.double()])


def site_outputs(model: nn.Module, site: str, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n s o"]:
    """z, what comes out of the site, bias included, one example at a time. Raises like `jacobians`."""
    model = _double(model)
    return torch.stack([torch.cat([_rows(z) for _, z in _calls(model, site, x)]) for x in inputs.double()])


def second_moment(
    x: Float[Tensor, "n s f"], y: Float[Tensor, "n s g"], *, positions: Literal["each", "sum"] = "each"
) -> Float[Tensor, "f g"]:
    """E[x yᵀ] = (1/n) Σ_n Σ_s x_ns y_nsᵀ; `positions="sum"` pairs Σ_s x_ns with Σ_s y_ns.

    H = E[h hᵀ] for inputs, H′ = E[z zᵀ] for outputs, G′ = E[δ δᵀ] for loss gradients, G = E[g gᵀ] for g = −Wᵀδ.
    Ziyin et al. 2024, arXiv 2410.03006.

    >>> second_moment(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0], [4.0]]]), positions="sum")
    tensor([[21.]], dtype=torch.float64)
    """
    matrix = torch.zeros(x.shape[-1], y.shape[-1], dtype=torch.float64)
    for a, b in zip(x.double(), y.double(), strict=True):
        pairs = [(a.sum(dim=0), b.sum(dim=0))] if positions == "sum" else zip(a, b, strict=True)
        matrix += sum(torch.outer(u, v) for u, v in pairs)
    return matrix / len(x)


def fact(W: Float[Tensor, "o i"], h: Float[Tensor, "n s i"], delta: Float[Tensor, "n s o"]) -> Float[Tensor, "i i"]:
    """FACT = ½(E[g hᵀ] + E[h gᵀ]) with g = −Wᵀδ. arXiv 2507.05644."""
    g = -delta.double() @ W.double()
    matrix = second_moment(g, h)
    return (matrix + matrix.T) / 2


def agop(
    J: Float[Tensor, "n s k i"],
    *,
    positions: Literal["each", "sum"] = "each",
    centre: Literal["none", "jacobian"] = "none",
    power: float = 1,
) -> Float[Tensor, "i i"]:
    """AGOP = (1/n) Σ_n Σ_s Σ_k J_nskᵀ J_nsk, rows J_nsk [i]; `positions="sum"` replaces J_n by Σ_s J_ns first.

    `centre="jacobian"` first subtracts from each J_k its mean over examples and positions; `power=0.5` gives the
    positive semidefinite square root. Radhakrishnan et al., Science 2024, arXiv 2212.13881; centred: Beaglehole et
    al. 2024, arXiv 2402.05271. Raises `ValueError` for other option values.

    >>> agop(torch.tensor([[[[1.0, 2.0]]], [[[3.0, 0.0]]]]))
    tensor([[5., 1.],
            [1., 2.]], dtype=torch.float64)
    """
    if positions not in ("each", "sum") or centre not in ("none", "jacobian") or power not in (1, 0.5):
        raise ValueError(f"positions={positions}, centre={centre}, power={power}: no such convention")
    J = J.double()
    if positions == "sum":
        J = J.sum(dim=1, keepdim=True)
    if centre == "jacobian":
        J = J - J.mean(dim=(0, 1))
    matrix = torch.zeros(J.shape[-1], J.shape[-1], dtype=torch.float64)
    for row in J.flatten(0, 2):
        matrix += torch.outer(row, row)
    matrix /= len(J)
    return square_root(matrix) if power == 0.5 else matrix


def square_root(A: Float[Tensor, "i i"]) -> Float[Tensor, "i i"]:
    """A^½ = V diag(√λ) Vᵀ of a positive semidefinite A = V diag(λ) Vᵀ; eigenvalues below 0 count as 0.

    >>> square_root(torch.tensor([[4.0, 0.0], [0.0, 9.0]])).round(decimals=12)
    tensor([[2., 0.],
            [0., 3.]], dtype=torch.float64)
    """
    values, vectors = torch.linalg.eigh(A.double())
    root: Tensor = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    return root


def nfm(W: Float[Tensor, "o i"]) -> Float[Tensor, "i i"]:
    """M = Wᵀ W, the neural feature matrix; M′ = W Wᵀ is that of Wᵀ. Radhakrishnan et al. 2024, arXiv 2212.13881.

    >>> nfm(torch.tensor([[1.0, 2.0]]))
    tensor([[1., 2.],
            [2., 4.]], dtype=torch.float64)
    """
    W = W.double()
    return W.T @ W


def nfm_init_removed(W: Float[Tensor, "o i"], initial: Float[Tensor, "o i"]) -> Float[Tensor, "i i"]:
    """M₀ = (W − W⁽⁰⁾)ᵀ (W − W⁽⁰⁾).

    >>> nfm_init_removed(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([[0., 0.],
            [0., 4.]], dtype=torch.float64)
    """
    return nfm(W.double() - initial.double())


def cosine(A: Float[Tensor, "i i"], B: Float[Tensor, "i i"], *, centre: Centre = "none") -> float:
    """⟨A, B⟩ / (‖A‖_F ‖B‖_F); `centre="entry"` first subtracts each matrix' mean entry (Pearson's r).

    Raises `ValueError` where it is undefined: a zero matrix, or with `centre="entry"` a constant one.

    >>> cosine(torch.eye(2), torch.ones(2, 2)), cosine(torch.eye(2), torch.eye(2), centre="entry")
    (0.7071067811865475, 1.0)
    """
    a, b = A.double().flatten(), B.double().flatten()
    if centre == "entry":
        a, b = a - a.mean(), b - b.mean()
    norms = torch.linalg.vector_norm(a), torch.linalg.vector_norm(b)
    if min(norms) == 0:
        raise ValueError("the cosine with a zero matrix is undefined")
    return float((a / norms[0]) @ (b / norms[1]))


def directional_agop(J: Float[Tensor, "n s k i"], signs: Float[Tensor, "n r k"]) -> Float[Tensor, "r i i"]:
    """A_r = (1/n) Σ_n Σ_s (Σ_k v_nrk J_nsk)ᵀ (Σ_k v_nrk J_nsk): AGOP of one random combination of the outputs.

    Its expectation over independent signs v = ±1 is AGOP.

    >>> J = torch.tensor([[[[1.0, 0.0], [0.0, 2.0]]]])
    >>> directional_agop(J, torch.tensor([[[1.0, 1.0], [1.0, -1.0]]])).mean(dim=0)
    tensor([[1., 0.],
            [0., 4.]], dtype=torch.float64)
    """
    combined = torch.einsum("nrk,nski->rnsi", signs.double(), J.double())
    return torch.stack([agop(rows[:, :, None]) for rows in combined])


def debiased_cosine(directional: Float[Tensor, "r i i"], M: Float[Tensor, "i i"]) -> float:
    """⟨Ā, M⟩ / (‖M‖ √ρ), Ā the mean of independent estimates A_r of AGOP, ρ the mean of ⟨A_r, A_q⟩ over r ≠ q.

    E ρ = ‖AGOP‖², where E ‖Ā‖² is larger; the value may exceed 1. `ValueError` for one estimate, ρ ≤ 0 or M = 0.

    >>> debiased_cosine(torch.stack([torch.eye(2)] * 3), torch.ones(2, 2))
    0.7071067811865475
    """
    A, M = directional.double(), M.double()
    pairs = [(A[r] * A[q]).sum() for r, q in itertools.permutations(range(len(A)), 2)]
    if not pairs or sum(pairs) <= 0 or not M.any():
        raise ValueError("the debiased cosine is undefined: it needs two estimates, ρ > 0 and a nonzero matrix")
    return float((A.mean(dim=0) * M).sum() / M.norm() / torch.stack(pairs).mean().sqrt())


def stable_rank(A: Float[Tensor, "i i"]) -> float:
    """‖A‖_F² / ‖A‖₂² = Σ_j λ_j² / max_j λ_j², between 1 and the rank, of a symmetric A; `ValueError` for A = 0.

    >>> stable_rank(torch.diag(torch.tensor([2.0, -1.0, 0.0])))
    1.25
    """
    values = torch.linalg.eigvalsh(A.double()).abs()
    if values.max() == 0:
        raise ValueError("the stable rank of a zero matrix is undefined")
    return float((values / values.max()).square().sum())


def subspace_overlap(A: Float[Tensor, "i i"], B: Float[Tensor, "i i"], k: int) -> float:
    """‖U_kᵀ V_k‖_F² / k, U_k and V_k the eigenvectors of the k eigenvalues of A and B that are largest in magnitude.

    1 where both span the same subspace, 0 where these are orthogonal, on average k/i for random ones. `ValueError`
    where a matrix has fewer than k eigenvalues above 10⁻⁶ of its largest.

    >>> A, B = (torch.diag(torch.tensor(d)) for d in ([3.0, 2.0, 1.0], [-3.0, 1.0, 2.0]))
    >>> [round(subspace_overlap(A, B, k), 12) for k in (1, 2, 3)]
    [1.0, 0.5, 1.0]
    """
    return float((_leading(A, k).T @ _leading(B, k)).square().sum() / k)


def exponent(M: Float[Tensor, "i i"], A: Float[Tensor, "i i"], *, cutoff: float = 1e-6) -> tuple[float, float]:
    """p in M ∝ Aᵖ: the slope (with intercept) of log uᵀMu against log uᵀAu over eigenvectors u of M; and its error.

    Of all u those count whose uᵀMu exceeds `cutoff` × the largest, and of these the m whose uᵀAu does. The standard
    error is √(RSS / (m − 2) / Sxx). Eigenvectors of a repeated eigenvalue are not unique, and so the slope is not
    where A is not a multiple of the identity among them. `ValueError` where m < 3 or all uᵀAu are equal. A deep linear
    network of L balanced matrices has p = 1/(L − i) at matrix i, counted from 0: Tansley, Massart, Cartis 2025.

    >>> A = torch.diag(torch.tensor([1.0, 4.0, 9.0]))
    >>> [round(value, 12) for value in exponent(5 * A.sqrt(), A)]
    [0.5, 0.0]
    """
    vectors = torch.linalg.eigh(M.double()).eigenvectors.T
    quotients = torch.stack([torch.stack([u @ M.double() @ u, u @ A.double() @ u]) for u in vectors])
    for matrix in (0, 1):
        quotients = quotients[quotients[:, matrix] > cutoff * quotients[:, matrix].max()]
    y, x = quotients.log().unbind(dim=1)
    if len(x) < 3 or x.max() - x.min() < 1e-9:
        raise ValueError(f"no slope through {len(x)} points: it needs three, and different quotients of A")
    sxx = (x - x.mean()).square().sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / sxx
    residuals = y - y.mean() - slope * (x - x.mean())
    return float(slope), float((residuals.square().sum() / (len(x) - 2) / sxx).sqrt())


def _leading(A: Float[Tensor, "i i"], k: int) -> Float[Tensor, "i k"]:
    values, vectors = torch.linalg.eigh(A.double())
    order = values.abs().argsort(descending=True)
    if not 1 <= k <= int((values.abs() > 1e-6 * values.abs().max()).sum()):
        raise ValueError(f"no {k} leading eigenvectors: too few eigenvalues above 1e-6 of the largest")
    leading: Tensor = vectors[:, order[:k]]
    return leading


def _double(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).double().eval().requires_grad_(False)


def _jacobian(model: nn.Module, site: str, example: Tensor) -> Float[Tensor, "s k i"]:
    def outputs(offsets: list[Tensor]) -> Tensor:
        with _inputs_moved_by(model.get_submodule(site), offsets):
            result: Tensor = model(example[None])
        return result.flatten()

    calls = torch.func.jacrev(outputs)([torch.zeros_like(h) for h, _ in _calls(model, site, example)])
    return torch.cat([J.reshape(J.shape[0], -1, J.shape[-1]) for J in calls], dim=1).transpose(0, 1)


def _loss_gradient(model: nn.Module, site: str, example: Tensor, target: Tensor, loss: Loss) -> Float[Tensor, "s o"]:
    def value(offsets: list[Tensor]) -> Tensor:
        with _outputs_moved_by(model.get_submodule(site), offsets):
            return loss(model(example[None]), target[None]).squeeze()

    calls = torch.func.grad(value)([torch.zeros_like(z) for _, z in _calls(model, site, example)])
    return torch.cat([delta.reshape(-1, delta.shape[-1]) for delta in calls])


def _rows(x: Float[Tensor, "... f"]) -> Float[Tensor, "s f"]:
    return x.reshape(-1, x.shape[-1])


def _calls(model: nn.Module, site: str, example: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Input and output of each call of the site in a forward pass of one example."""
    calls: list[tuple[Tensor, Tensor]] = []

    def keep(_module: nn.Module, args: Any, named: Any, z: Tensor) -> None:
        calls.append(((*args, *named.values())[0].clone(), z.clone()))  # the model may go on in place

    with _removed_afterwards(model.get_submodule(site).register_forward_hook(keep, with_kwargs=True)):
        model(example[None])
    if not calls:
        raise ValueError(f"the forward pass never calls {site!r}")
    return calls


@contextmanager
def _inputs_moved_by(module: nn.Module, offsets: list[Tensor]) -> Iterator[None]:
    """h + ε in place of h, one ε for each call."""
    remaining = iter(offsets)

    def move(_module: nn.Module, args: Any, named: Any) -> tuple[Any, Any]:
        return ((*args, *named.values())[0] + next(remaining),), {}

    with _removed_afterwards(module.register_forward_pre_hook(move, with_kwargs=True)):
        yield


@contextmanager
def _outputs_moved_by(module: nn.Module, offsets: list[Tensor]) -> Iterator[None]:
    """z + ε in place of z, one ε for each call."""
    remaining = iter(offsets)
    handle = module.register_forward_hook(lambda _module, _args, z: z + next(remaining))
    with _removed_afterwards(handle):
        yield


@contextmanager
def _removed_afterwards(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
