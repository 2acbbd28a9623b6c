"""Attention with relative positions: equal to the reference, blind to where a sequence starts, not to its direction."""

import pytest
import torch
import torch.nn as nn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call, grad, jacrev, vmap

from nfa import reference
from nfa.observe.passes import site_weights
from nfa.registry.families.eeg.relative_attention import RelativeAttention, relative_attention
from tests.support.grams import check, expected_gram, found_gram, normal, probe, scrambled
from tests.support.toy_models import site_matrices, toy


def layer(d_model: int = 6, n_head: int = 2, *, block: int = 4, max_distance: int = 99, seed: int = 0):
    """In float64, with few queries in a block."""
    torch.manual_seed(seed)
    made = RelativeAttention(d_model, n_head, max_distance).double()
    made.block = block
    nn.init.normal_(made.positions)
    return made


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).detach().abs().max()) <= tolerance * float(expected.detach().abs().max())


def with_gradients(made: RelativeAttention, x: Tensor, by_reference: bool) -> dict[str, Tensor]:
    """Output and the gradients of a random function of it, in float64."""
    parameters = dict(made.named_parameters())
    x = x.clone().requires_grad_()
    z = reference.relative_attention(x, parameters, made.n_head) if by_reference else made(x)
    gradients = torch.autograd.grad(z, [x, *parameters.values()], normal(*z.shape, seed=5).to(z))
    return {name: value.double() for name, value in zip(["z", "x", *parameters], [z, *gradients], strict=True)}


def assert_equals_the_reference(made: RelativeAttention, x: Tensor, tolerance: float) -> None:
    found, expected = (with_gradients(made, x, by_reference) for by_reference in (False, True))
    scale = max(float(value.abs().max()) for name, value in expected.items() if name != "z")
    close(found.pop("z"), expected.pop("z"), tolerance)
    for name, value in found.items():  # a key's bias has no gradient: softmax does not feel it
        assert float((value - expected[name]).abs().max()) <= tolerance * scale, name


@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 3), st.integers(1, 3), st.integers(1, 20))
@example(1, 70, 2, 2, 64)
@example(1, 64, 1, 2, 64)
@example(2, 65, 2, 1, 64)
@settings(max_examples=25, deadline=None)
def test_output_and_all_gradients_equal_the_reference(n, length, n_head, d_k, block):
    made = layer(n_head * d_k, n_head, block=block, max_distance=length + block % 3 - 1)
    assert_equals_the_reference(made, normal(n, length, n_head * d_k), 1e-12)


def test_float32_is_within_1e_5():
    made = layer(16, 2, block=16).float()
    assert_equals_the_reference(made, normal(3, 50, 16).float(), 1e-5)


def test_bfloat16_autocast_is_near():
    made, x = layer(16, 2, block=16).float(), normal(3, 50, 16).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made(x)
    assert found.dtype == torch.bfloat16
    close(found.float(), made(x), 0.03)
    found.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())


def test_second_derivatives_are_those_of_differences():
    made = layer(2, 1, block=2, max_distance=2)
    x = normal(1, 3, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x, E: functional_call(made, {"positions": E}, x), (x, made.positions))


def test_examples_by_vmap_and_jacobians_are_those_of_a_loop():
    made, x = layer(block=3), normal(4, 7, 6)
    parameters = {name: parameter.detach() for name, parameter in made.named_parameters()}

    def loss(values: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(made, values, one[None]).sin().sum()

    together = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for index, one in enumerate(x):
        for name, value in grad(loss)(parameters, one).items():
            close(together[name][index] + 1, value + 1, 1e-12)
    jacobian = jacrev(made)(x)
    assert jacobian.shape == (*x.shape, *x.shape)
    close(jacobian[1, 2, 3], torch.autograd.functional.jacobian(lambda x: made(x)[1, 2, 3], x), 1e-12)


@pytest.mark.parametrize("n", [0, 1])
def test_batches_of_none_and_one(n):
    made, x = layer(), normal(5, 9, 6)
    found = made(x[:n])
    assert found.shape == (n, 9, 6)
    found.sum().backward()
    assert n or not made.positions.grad.any()
    if n:
        close(found, made(x)[:1], 1e-12)


def test_blocks_change_nothing():
    q, k, v, E = normal(2, 11, 3), normal(2, 11, 3, seed=1), normal(2, 11, 3, seed=2), normal(41, 3, seed=3)
    expected = relative_attention(q, k, v, E, block=1)
    for block in (2, 3, 10, 11, 12, 64):
        close(relative_attention(q, k, v, E, block=block), expected, 1e-12)


def test_the_table_may_be_longer_than_needed():
    """Rows beyond the distances in a sequence are not felt, and those within are, at both ends."""
    made, x = layer(max_distance=20), normal(2, 8, 6)
    expected = made(x)
    made(x).square().sum().backward()
    assert not made.positions.grad[: 20 - 7].any()
    assert not made.positions.grad[20 + 8 :].any()
    assert (made.positions.grad[20 - 7 : 20 + 8].abs().sum(dim=1) > 0).all()
    with torch.no_grad():
        made.positions[: 20 - 7], made.positions[20 + 8 :] = 7.0, -7.0
    assert torch.equal(made(x), expected)


def test_only_distances_count():
    """A row of the table that draws attention to what is three back does so from everywhere."""
    made = layer(4, 1, block=3, max_distance=9)
    with torch.no_grad():
        for part in (made.query, made.value, made.output):
            part.weight.copy_(torch.eye(4))
            part.bias.zero_()
        made.query.weight.zero_()
        made.query.bias.fill_(1.0)
        made.key.weight.zero_()
        made.positions.zero_()
        made.positions[9 - 3] = 100.0
    x = normal(1, 10, 4)
    close(made(x)[:, 3:], x[:, :-3], 1e-12)
    close(made(x)[:, :3], x.mean(dim=1, keepdim=True).expand(1, 3, 4), 1e-12)


def test_a_periodic_input_gives_outputs_that_differ_only_near_the_ends():
    """As far as attention reaches: nothing says where in a recording a window is."""
    made, period = layer(block=5), 6
    with torch.no_grad():
        made.query.weight.mul_(0.1)
        made.query.bias.fill_(3.0)
        made.positions[(torch.arange(-99, 100).abs() > 2)] = -60.0  # queries are positive: two steps are seen
        found = made(normal(1, period, 6).repeat(1, 4, 1))
    middle = found[:, 2:-2]
    close(middle[:, period:], middle[:, :-period], 1e-9)
    assert float((found[:, 0] - found[:, period]).abs().max()) > 1e-3


def test_time_has_a_direction_and_order_that_only_the_positions_see():
    made, x = layer(), normal(2, 9, 6)
    forwards, backwards = made(x), made(x.flip(1)).flip(1)
    assert float((forwards - backwards).detach().abs().max()) > 1e-3
    with torch.no_grad():
        made.positions.copy_(made.positions.flip(0))
    close(made(x.flip(1)).flip(1), forwards, 1e-12)
    with torch.no_grad():
        made.positions.zero_()
    order = torch.tensor([3, 1, 4, 0, 8, 5, 2, 7, 6])
    close(made(x[:, order]), made(x)[:, order], 1e-12)


def test_heads_share_the_table_and_nothing_else():
    """Exchanging the heads' parts of all layers changes nothing."""
    made, x = layer(6, 2), normal(2, 9, 6)
    expected, order = made(x), [3, 4, 5, 0, 1, 2]
    with torch.no_grad():
        for part in (made.query, made.key, made.value):
            part.weight.copy_(part.weight[order].clone())
            part.bias.copy_(part.bias[order].clone())
        made.output.weight.copy_(made.output.weight[:, order].clone())
    close(made(x), expected, 1e-12)


@pytest.mark.parametrize("length", [0, 6, 50])
def test_lengths_outside_the_table_are_refused_with_the_limits(length):
    made = layer(max_distance=4)
    made(normal(1, 5, 6))
    with pytest.raises(ValueError, match=f"{length} positions, where there may be 1 to 5"):
        made(normal(1, length, 6))


def test_heads_that_do_not_divide_the_features_are_refused():
    with pytest.raises(ValueError, match="6 does not divide into 4 heads"):
        RelativeAttention(6, 4)


def test_the_reference_layer_has_391_104_parameters():
    torch.manual_seed(0)
    made = RelativeAttention(256, 4)
    assert sum(parameter.numel() for parameter in made.parameters()) == 4 * (256 * 256 + 256) + 1999 * 64 == 391_104
    assert float(made.positions.detach().std()) == pytest.approx(1 / 8, rel=0.02)


def test_no_tensor_has_a_vector_for_each_pair_of_positions():
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            sizes.extend(one.numel() for one in (made if isinstance(made, tuple) else (made,)) if torch.is_tensor(one))
            return made

    made, length = layer(64, 1, block=16, max_distance=199), 200
    with Sizes():
        made(normal(1, length, 64)).sum().backward()
    assert max(sizes) <= length * length


@pytest.mark.parametrize("block", [3, 4, 64])
def test_gradients_of_examples_are_read_by_rule(block):
    """Also where the slices of the table for two blocks overlap."""
    check(nn.Sequential(nn.Linear(3, 4), layer(4, 2, block=block), nn.Tanh(), nn.Linear(4, 2)), normal(6, 10, 3))


def test_gradients_of_examples_are_the_same_at_any_budget():
    workload = probe(scrambled(layer(4, 2, max_distance=12)), normal(7, 10, 4))
    for budget in (1, 20_000):
        close(found_gram(workload, budget=budget), expected_gram(workload), 1e-9)


def test_the_four_layers_are_sites_of_an_alignment():
    net = nn.Sequential(nn.Linear(3, 4), layer(4, 2, block=3), nn.Tanh(), nn.Linear(4, 2))
    sites = ["1.query", "1.key", "1.value", "1.output"]
    toys = toy(net, 5, 7, 3, sites=sites)
    initial = site_weights(toys, net, sites)
    found = site_matrices(net, toys, toys.batches("train", batch_size=2), initial)
    for site in sites:
        expected = reference.agop(reference.jacobians(net, site, toys.inputs))
        close(found[site]["agop"].dense(), expected, 1e-9)
