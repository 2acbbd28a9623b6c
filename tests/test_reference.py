"""The reference itself, against closed forms and finite differences; and that it shares nothing with the fast path."""

import ast
import inspect

import pytest
import torch
import torch.nn as nn
from toys import Sequences, Tied, half_square, layers, seeded, toy

from nfa import reference


def test_imports_nothing_of_nfa():
    tree = ast.parse(inspect.getsource(reference))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {f"{'.' * node.level}{node.module}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "torch" in imported
    assert not [name for name in imported if name.startswith((".", "nfa"))]


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
