"""The reference itself, against closed forms and finite differences; and that it shares nothing with the fast path."""

import ast
import itertools
import math
from pathlib import Path

import pytest
import torch
import torch.nn as nn

from nfa import reference
from tests.support.toy_models import Sequences, Tied, half_square, layers, seeded, toy

FILES = sorted(Path(reference.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_imports_nothing_of_nfa_but_the_reference(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {f"{'.' * node.level}{node.module}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported
    foreign = {name for name in imported if name.split(".")[0] in ("", "nfa")}
    assert {name for name in foreign if not name.startswith("nfa.reference.")} == set()


def test_jacobians_of_a_linear_network_are_the_product_of_the_later_matrices():
    net = seeded(layers, 4, 6, 5, 3, activation=nn.Identity).double()
    first, second, third = (net[index].weight.detach() for index in (0, 2, 4))
    for site, expected in {"0": third @ second @ first, "2": third @ second, "4": third}.items():
        J = reference.jacobians(net, site, torch.randn(2, 4))
        torch.testing.assert_close(J, expected.expand(2, 1, *expected.shape), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("build", "site"), [(Sequences, "first"), (Sequences, "readout"), (Tied, "shared")])
def test_jacobians_agree_with_finite_differences_along_every_position(build, site):
    """Moving every position's input by the same t·v changes f by t Σ_s J_s v: central differences, 1e-8."""
    net = seeded(build, 4, 5, 3).double().requires_grad_(False)
    x, step = torch.randn(1, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), 1e-5
    J = reference.jacobians(net, site, x)[0]
    v = torch.linspace(-1, 1, J.shape[-1], dtype=torch.float64)
    moved = []
    for sign in (1, -1):
        handle = net.get_submodule(site).register_forward_pre_hook(lambda _, args, sign=sign: args[0] + sign * step * v)
        moved.append(net(x)[0])
        handle.remove()
    torch.testing.assert_close(J.sum(dim=0) @ v, (moved[0] - moved[1]) / (2 * step), rtol=1e-7, atol=1e-8)


def test_loss_gradients_at_the_readout_are_the_residuals():
    toys = toy(seeded(layers, 4, 6, 3), 5, 4, sites=["2"])
    delta = reference.loss_gradients(toys.net, "2", toys.inputs, toys.targets, half_square)
    torch.testing.assert_close(delta[:, 0], (toys.net(toys.inputs) - toys.targets).detach(), rtol=1e-12, atol=1e-12)


def test_loss_gradients_and_jacobians_obey_the_chain_rule():
    """Wᵀ δ = J ᵀ ∂ℓ/∂f at every position of a nonlinear site."""
    toys = toy(seeded(Sequences, 4, 5, 3), 3, 2, 4, sites=["second"])
    delta = reference.loss_gradients(toys.net, "second", toys.inputs, toys.targets, half_square)
    J = reference.jacobians(toys.net, "second", toys.inputs)
    residual = (toys.net(toys.inputs) - toys.targets).detach()
    expected = torch.einsum("nski,nk->nsi", J, residual)
    torch.testing.assert_close(delta @ toys.net.second.weight.detach(), expected, rtol=1e-10, atol=1e-12)


def test_a_site_that_is_never_called_is_refused():
    net = seeded(Tied, 4, 6, 3)
    net.idle = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="never calls 'idle'"):
        reference.jacobians(net, "idle", torch.randn(2, 1, 4))


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="no such convention"):
        reference.agop(torch.randn(2, 1, 3, 4), power=2)


def test_the_cosine_with_a_zero_matrix_is_refused():
    with pytest.raises(ValueError, match="undefined"):
        reference.cosine(torch.zeros(2, 2), torch.eye(2))
    with pytest.raises(ValueError, match="undefined"):
        reference.cosine(torch.ones(2, 2), torch.eye(2), centre="entry")


def test_the_model_under_analysis_keeps_its_type_and_hooks():
    net = seeded(layers, 4, 6, 3)
    reference.jacobians(net, "0", torch.randn(2, 4))
    assert net[0].weight.dtype is torch.float32
    assert net.training
    assert net[0].weight.requires_grad
    assert not net[0]._forward_pre_hooks
    assert not net[0]._forward_hooks


def rotation(size: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))[
        0
    ]


@pytest.mark.parametrize("by_name", [False, True])
def test_inputs_and_outputs_are_those_of_the_call_though_the_model_goes_on_in_place(by_name):
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x):
            x = x.clone()
            z = self.linear(input=x) if by_name else self.linear(x)
            x.zero_()
            return z.relu_()

    net, x = seeded(InPlace).double(), torch.randn(4, 3, dtype=torch.float64)
    assert torch.equal(reference.site_inputs(net, "linear", x)[:, 0], x)
    torch.testing.assert_close(reference.site_outputs(net, "linear", x)[:, 0], net.linear(x), rtol=1e-12, atol=1e-12)
    J = reference.jacobians(net, "linear", x)[:, 0]
    torch.testing.assert_close(J, (net.linear(x) > 0).double()[:, :, None] * net.linear.weight, rtol=1e-12, atol=1e-12)


def test_outputs_include_the_bias():
    net = nn.Sequential(nn.Linear(2, 3)).double()
    z = reference.site_outputs(net, "0", torch.zeros(1, 2))
    assert torch.equal(z[0, 0], net[0].bias)
    torch.testing.assert_close(reference.second_moment(z, z), torch.outer(net[0].bias, net[0].bias))


def test_stable_rank_in_closed_form():
    assert reference.stable_rank(torch.eye(7)) == 7
    assert reference.stable_rank(torch.ones(4, 4)) == pytest.approx(1, abs=1e-12)
    assert reference.stable_rank(torch.diag(torch.tensor([-2.0, 1, 1, 0]))) == 1.5
    with pytest.raises(ValueError, match="undefined"):
        reference.stable_rank(torch.zeros(3, 3))


def test_subspace_overlap_in_closed_form():
    """The same subspace, orthogonal ones, and lines at an angle of 0.3."""
    Q = rotation(6, 0)
    mixed = Q[:, :3] @ rotation(3, 1)
    first, same = (basis @ torch.tensor([3.0, -2, 1]).double().diag() @ basis.T for basis in (Q[:, :3], mixed))
    assert reference.subspace_overlap(first, same, 3) == pytest.approx(1, abs=1e-12)
    assert reference.subspace_overlap(first, Q[:, 3:] @ Q[:, 3:].T, 3) == pytest.approx(0, abs=1e-12)
    lines = [torch.tensor([[math.cos(angle)], [math.sin(angle)]], dtype=torch.float64) for angle in (0.5, 0.8)]
    value = reference.subspace_overlap(*(line @ line.T for line in lines), k=1)
    assert value == pytest.approx(math.cos(0.3) ** 2, abs=1e-12)


def test_no_subspace_of_more_dimensions_than_a_matrix_has():
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"no {k} leading"):
            reference.subspace_overlap(torch.diag(torch.tensor([3.0, 2, 1, 1e-7])), torch.eye(4), k)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_exponent_of_a_balanced_deep_linear_network_is_one_over_the_matrices_from_there(depth):
    """W_l = U_l S U_{l−1}ᵀ have W_{l+1}ᵀW_{l+1} = W_l W_lᵀ, and M = AGOP^(1/(L−i)). Tansley, Massart, Cartis 2025."""
    sizes, values = [7, 5, 6, 4, 8][: depth + 1], torch.tensor([2.0, 1.5, 1.2, 0.9], dtype=torch.float64)
    bases = [rotation(size, seed)[:, :4] for seed, size in enumerate(sizes)]
    weights = [after @ values.diag() @ before.T for before, after in itertools.pairwise(bases)]
    net = layers(*sizes, activation=nn.Identity, bias=False).double()
    for index, weight in enumerate(weights):
        net[2 * index].weight.data.copy_(weight)
    for index, weight in enumerate(weights):
        agop, power = (
            reference.agop(reference.jacobians(net, str(2 * index), torch.randn(2, sizes[0]))),
            1 / (depth - index),
        )
        roots = bases[index] @ (values ** (2 * (depth - index) * power)).diag() @ bases[index].T
        torch.testing.assert_close(reference.nfm(weight), roots, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(agop, bases[index] @ (values ** (2 * (depth - index))).diag() @ bases[index].T)
        slope, error = reference.exponent(reference.nfm(weight), agop)
        assert slope == pytest.approx(power, abs=1e-9)
        assert error == pytest.approx(0, abs=1e-9)


def test_the_exponents_error_is_that_of_a_regression_line():
    """log A = 0, 1, 2 and log M = 0, 1, 5: slope 5/2, residuals ½, −1, ½, so its error is √(1.5 / 1 / 2)."""
    M, A = (torch.tensor(logs, dtype=torch.float64).exp().diag() for logs in ([0, 1, 5], [0, 1, 2]))
    assert reference.exponent(M, A) == pytest.approx((2.5, math.sqrt(0.75)), rel=1e-12)


def test_the_exponent_leaves_out_what_is_below_the_cutoff_of_either_matrix():
    M = torch.diag(torch.tensor([1.0, 2, 3, 1e-4, 2.5]))
    A = torch.diag(torch.tensor([1.0, 4, 9, 5, 1e-4]))
    assert reference.exponent(M, A, cutoff=1e-3)[0] == pytest.approx(0.5, abs=1e-7)
    assert abs(reference.exponent(M, A)[0] - 0.5) > 0.1


def test_no_exponent_without_three_vectors_or_with_equal_quotients():
    Q, two = rotation(5, 0), torch.diag(torch.tensor([1.0, 2, 0, 0, 0]))
    for M, A in ((two, torch.diag(torch.arange(1.0, 6))), (torch.diag(torch.arange(1.0, 6)), two), (Q @ Q.T, Q @ Q.T)):
        with pytest.raises(ValueError, match="no slope"):
            reference.exponent(M, A)


def test_the_mean_over_all_signs_is_the_agop():
    """Every combination of signs of two examples with three outputs: Σ_r A_r / R = AGOP, and so it is for each n."""
    J = torch.randn(2, 4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=6))).view(-1, 2, 3).transpose(0, 1)
    A = reference.directional_agop(J, signs)
    assert A.shape == (64, 5, 5)
    torch.testing.assert_close(A.mean(dim=0), reference.agop(J), rtol=1e-12, atol=1e-12)
    assert (A[0] - reference.agop(J)).norm() > 0.1


def test_over_all_pairs_of_signs_the_debiased_norm_is_the_norm():
    """E⟨A_r, A_q⟩ = ‖AGOP‖² over independent r and q; of all 8 sign vectors the 8 equal pairs are left out."""
    J = torch.randn(1, 4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)))[None]
    A, agop = reference.directional_agop(J, signs), reference.agop(J)
    pairs = torch.einsum("rij,qij->rq", A, A)
    torch.testing.assert_close(pairs.mean(), agop.square().sum())
    rho = (64 * agop.square().sum() - pairs.trace()) / 56
    M = reference.nfm(torch.randn(5, 5))
    assert reference.debiased_cosine(A, M) == pytest.approx(float((agop * M).sum() / M.norm() / rho.sqrt()), rel=1e-12)


def test_with_one_output_the_debiased_cosine_is_the_cosine():
    J = torch.randn(6, 2, 1, 5, dtype=torch.float64)
    signs = torch.randn(6, 3, 1).sign()
    M = reference.nfm(torch.randn(4, 5))
    expected = reference.cosine(reference.agop(J), M)
    assert reference.debiased_cosine(reference.directional_agop(J, signs), M) == pytest.approx(expected, abs=1e-12)


def test_the_debiased_cosine_may_exceed_one_and_is_refused_where_it_is_undefined():
    A = torch.stack([torch.diag(torch.tensor(entries)) for entries in ([2.0, 0.5], [0.5, 2.0])])
    assert reference.debiased_cosine(A, torch.eye(2)) == pytest.approx(1.25, abs=1e-12)
    orthogonal = torch.stack([torch.diag(torch.tensor(entries)) for entries in ([1.0, 0.0], [0.0, 1.0])])
    for directional, M in ((A[:1], torch.eye(2)), (orthogonal, torch.eye(2)), (A, torch.zeros(2, 2))):
        with pytest.raises(ValueError, match="undefined"):
            reference.debiased_cosine(directional, M)
