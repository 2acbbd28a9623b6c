"""Slow, obvious versions of what the fast path computes: float64, one example at a time, dense matrices.

Tests and benchmarks compare with them, so nothing here comes from the rest of nfa. Axis letters: n example, s position,
i input, o output, k network output. A site is named as in `model.named_modules()` and computes z = W h (+ b);
where it is called several times in one forward pass, the calls' positions follow each other along s.
"""

import copy
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
    rows = [torch.cat([h.reshape(-1, h.shape[-1]) for h, _ in _calls(model, site, x)]) for x in inputs.double()]
    return torch.stack(rows)


def second_moment(
    x: Float[Tensor, "n s f"], y: Float[Tensor, "n s g"], *, positions: Literal["each", "sum"] = "each"
) -> Float[Tensor, "f g"]:
    """E[x yᵀ] = (1/n) Σ_n Σ_s x_ns y_nsᵀ; `positions="sum"` pairs Σ_s x_ns with Σ_s y_ns.

    H = E[h hᵀ] for inputs, G′ = E[δ δᵀ] for loss gradients, G = E[g gᵀ] for g = −Wᵀδ. arXiv 2410.03006.

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
    """M = Wᵀ W, the neural feature matrix. Radhakrishnan et al. 2024, arXiv 2212.13881.

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


def _calls(model: nn.Module, site: str, example: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Input and output of each call of the site in a forward pass of one example."""
    calls: list[tuple[Tensor, Tensor]] = []
    handle = model.get_submodule(site).register_forward_hook(lambda _, args, z: calls.append((args[0], z)))
    with _removed_afterwards(handle):
        model(example[None])
    if not calls:
        raise ValueError(f"the forward pass never calls {site!r}")
    return calls


@contextmanager
def _inputs_moved_by(module: nn.Module, offsets: list[Tensor]) -> Iterator[None]:
    """h + ε in place of h, one ε for each call."""
    remaining = iter(offsets)
    handle = module.register_forward_pre_hook(lambda _module, args: (args[0] + next(remaining),))
    with _removed_afterwards(handle):
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
