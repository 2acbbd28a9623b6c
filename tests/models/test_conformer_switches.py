"""Each switch of the Conformer changes what it is said to change, and nothing else."""

import pytest
import torch
import torch.nn as nn
from torch.func import grad, jvp, vmap

from nfa.registry.families.eeg.config import POSITIONS
from nfa.registry.families.eeg.conformer import Conformer, ConformerOptions, initialise, scale_gradient
from nfa.registry.training.shared_batch import SharedDropout
from tests.support.conformers import RESIDUALS, SMALL, gradients, small, windows

GROUPS = ("cnn", "se", "subject", "layer_stack", "gate", "head")
BEHIND = {  # the groups whose gradient passes the place where it is scaled, and all of whose gradient does
    "before_gate": {"layer_stack"},
    "before_head": {"cnn", "se", "subject", "layer_stack", "gate"},
    "before_stack": {"cnn", "se", "subject"},
}


def group(name: str) -> str:
    return name.split(".")[0]


def compared(left_out: set[str] = frozenset(), **options: object) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Gradients with and without `options`, by parameter, where the outputs are bitwise the same."""
    (outputs, found), (plain_outputs, plain) = (gradients(small(**each), *windows()) for each in (options, {}))
    assert torch.equal(outputs, plain_outputs)
    return [(name, found[name], plain[name]) for name in plain if group(name) not in left_out]


@pytest.mark.parametrize("position", POSITIONS)
def test_a_gradient_scale_of_2_doubles_what_is_behind_it_to_the_bit(position):
    """Before the gate, what goes around the stack is not scaled: what is before it lies between 1 and 2 times."""
    mixed = {"cnn", "se", "subject"} - BEHIND[position] if position == "before_gate" else set()
    for name, found, plain in compared(mixed, gradient_scale=2.0, gradient_scale_position=position):
        assert torch.equal(found, 2 * plain if group(name) in BEHIND[position] else plain), name


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("factor", [1.5, 3.0, 0.3])
def test_any_gradient_scale_multiplies_by_itself(position, factor):
    mixed = {"cnn", "se", "subject"} - BEHIND[position] if position == "before_gate" else set()
    for name, found, plain in compared(mixed, gradient_scale=factor, gradient_scale_position=position):
        expected = factor * plain if group(name) in BEHIND[position] else plain
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14, msg=name)


@pytest.mark.parametrize("residual", RESIDUALS)
def test_before_the_gate_the_front_has_the_scaled_gradient_through_the_stack_and_the_plain_one_around_it(residual):
    """So it is a straight line in the scale; without a way around, it is multiplied by it."""
    by_scale = [gradients(small(residual=residual, gradient_scale=s), *windows())[1] for s in (1.0, 2.0, 3.0)]
    for name, plain in by_scale[0].items():
        twice, thrice = (found[name] for found in by_scale[1:])
        torch.testing.assert_close(thrice - twice, twice - plain, rtol=1e-9, atol=1e-12, msg=name)
        if group(name) in ("cnn", "se", "subject"):
            assert torch.equal(twice, 2 * plain) is (residual == "none"), name


@pytest.mark.parametrize("use_mlp_head", [False, True])
@pytest.mark.parametrize("factor", [0.5, 0.3, 4.0])
def test_the_output_gradient_factor_multiplies_the_head_s_gradients_and_no_others(use_mlp_head, factor):
    options = {"use_mlp_head": use_mlp_head}
    (outputs, found), (plain_outputs, plain) = (
        gradients(small(**options, output_grad_scale=each), *windows()) for each in (factor, 1.0)
    )
    assert torch.equal(outputs, plain_outputs)
    for name, gradient in found.items():
        expected = factor * plain[name] if group(name) == "head" else plain[name]
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-14, msg=name)


def test_both_factors_together_multiply_each_its_own():
    scaled = {"gradient_scale": 2.0, "gradient_scale_position": "before_head", "output_grad_scale": 0.5}
    for name, found, plain in compared(**scaled):
        torch.testing.assert_close(found, (0.5 if group(name) == "head" else 2) * plain, rtol=1e-9, atol=1e-14)


# ---- switches that change the network


SWITCHED = {
    "use_gated_residual": ({}, RESIDUALS["sum"], {"gate"}),
    "use_residual": (RESIDUALS["sum"], RESIDUALS["none"], set()),
    "use_mlp_head": ({}, {"use_mlp_head": False}, {"head"}),
    "use_positions": ({}, {"use_positions": False}, set()),
    "use_se": ({}, {"use_se": False}, {"se"}),
    "use_subjects": ({}, {"use_subjects": False}, {"subject"}),
    "n_layers": ({"n_layers": 2}, {"n_layers": 1}, {"layer_stack.1"}),
    "conv_kernel_size": ({}, {"conv_kernel_size": 5}, {"layer_stack.0.convolution.depthwise"}),
}


def initialised(**options: object) -> Conformer:
    model = Conformer(ConformerOptions(**{**SMALL, **options})).eval()
    initialise(model, seed=5)
    return model


@pytest.mark.parametrize("name", SWITCHED)
def test_a_switch_changes_the_outputs_and_moves_no_other_module_s_initial_weights(name):
    on, off, own = SWITCHED[name]
    models = [initialised(**options) for options in (on, off)]
    states = [model.state_dict() for model in models]
    with torch.no_grad():
        for model in models:  # norms of ones and zeros hide constants
            for each in model.modules():
                if isinstance(each, nn.LayerNorm):
                    each.bias += 0.1
        eeg, subjects = windows()
        outputs = [model(eeg.float(), subjects) for model in models]
    assert not torch.allclose(*outputs, rtol=1e-3, atol=1e-6)
    only = {path for path in states[0].keys() | states[1].keys() if not _alike(path, *states)}
    assert all(any(path.startswith(f"{part}.") for part in own) for path in only)
    assert bool(only) is bool(own)


def _alike(path: str, one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return path in one and path in other and torch.equal(one[path], other[path])


def test_without_subjects_it_does_not_matter_whose_the_eeg_is():
    eeg, _ = windows(2)
    first, second = torch.tensor([0, 1]), torch.tensor([3, 2])
    without, with_them = small(use_subjects=False), small()
    assert torch.equal(without(eeg, first), without(eeg, second))
    assert not torch.allclose(with_them(eeg, first), with_them(eeg, second))


def test_every_parameter_has_a_gradient_whatever_is_switched_off():
    off = {"use_se": False, "use_subjects": False, "use_positions": False, "use_mlp_head": False}
    for options in ({}, off):
        for residual in RESIDUALS:
            _, found = gradients(small(residual=residual, d_model=32, **options), *windows())
            silent = {name for name, each in found.items() if not each.any()}
            assert silent <= {"layer_stack.0.attention.key.bias"}, "softmax does not feel it"


def test_dropout_is_in_training_alone_and_everywhere_of_the_asked_rate():
    eeg, subjects = windows()
    model, without = small(dropout=0.5), small()
    assert torch.equal(model(eeg, subjects), without(eeg, subjects))
    assert {part.rate for part in model.modules() if isinstance(part, SharedDropout)} == {0.5}
    torch.manual_seed(0)
    once, again = (model.train()(eeg, subjects) for _ in range(2))
    assert not torch.allclose(once, again)
    plain = without.train()(eeg, subjects)
    torch.testing.assert_close(without(eeg, subjects), plain, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(once, plain)


# ---- the factor itself


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0, 3.0, 1 / 3])
def test_scaling_a_gradient_leaves_the_value_to_the_bit(factor):
    x = torch.cat([torch.randn(100), torch.tensor([1e-44, -1e-44, 3e38, -3e38, 1.0])]).requires_grad_()
    scaled = scale_gradient(x, factor)
    assert torch.equal(scaled, x)
    (found,) = torch.autograd.grad(scaled.sum(), x)
    torch.testing.assert_close(found, torch.full_like(x, factor))


def test_scaling_a_gradient_works_under_torch_func():
    x = torch.randn(4, 3, dtype=torch.float64)

    def loss(row: torch.Tensor) -> torch.Tensor:
        return scale_gradient(row, 3.0).sin().sum()

    torch.testing.assert_close(vmap(grad(loss))(x), 3 * x.cos())
    value, derivative = jvp(loss, (x,), (torch.ones_like(x),))
    assert torch.equal(value, x.sin().sum())
    torch.testing.assert_close(derivative, 3 * x.cos().sum())
