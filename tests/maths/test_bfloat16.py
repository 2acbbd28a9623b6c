"""Products in bfloat16_products(): operands rounded by hand give the same, sums stay float32, nothing leaks out."""

import pytest
import torch
from torch import Tensor

from nfa.maths.bfloat16 import bfloat16_products


def rounded(tensor: Tensor) -> Tensor:
    return tensor.bfloat16().double()


@pytest.fixture
def operands() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(5, 7, generator=random), torch.randn(7, 4, generator=random)


# Products of rounded operands are exact in float32; the sums of 7 terms round at 2⁻²⁴ each.
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def test_mm_rounds_its_operands_and_nothing_else(operands):
    a, b = operands
    with bfloat16_products():
        product = a @ b
    assert product.dtype is torch.float32
    torch.testing.assert_close(product.double(), rounded(a) @ rounded(b), **CLOSE)
    assert (product - a @ b).abs().max() > 1e-4


def test_bmm_and_baddbmm_round_their_operands(operands):
    a, b = (operand.expand(3, *operand.shape) for operand in operands)
    total = torch.ones(3, 5, 4)
    with bfloat16_products():
        product, added = torch.bmm(a, b), torch.baddbmm(total, a, b, beta=2, alpha=3)
    expected = torch.bmm(rounded(a), rounded(b))
    torch.testing.assert_close(product.double(), expected, **CLOSE)
    torch.testing.assert_close(added.double(), 2 + 3 * expected, **CLOSE)


def test_addmm_rounds_its_operands_but_not_what_is_added_to(operands):
    a, b = operands
    bias = torch.full((4,), 1 + 2**-20)
    with bfloat16_products():
        added = torch.addmm(bias, a, b, beta=2, alpha=0.5)
        zero = torch.addmm(bias, torch.zeros_like(a), b)
    torch.testing.assert_close(added.double(), 2 * bias.double() + 0.5 * (rounded(a) @ rounded(b)), **CLOSE)
    assert torch.equal(zero, bias.expand(5, 4))


def test_in_place_sums_over_batches_stay_float32():
    """1 + 2⁻¹² many times: a bfloat16 sum would stand still at 1."""
    total, a = torch.ones(1, 1), torch.full((1, 1), 2**-6)
    view = total[:, :]
    with bfloat16_products():
        for _ in range(4096):
            view.addmm_(a, a)
    assert total.item() == 2.0


def test_linear_layers_with_and_without_bias_and_with_positions_are_covered(operands):
    a, b = operands
    for inputs in (a, a.expand(2, 5, 7)):
        for bias in (None, torch.ones(4)):
            with bfloat16_products():
                outputs = torch.nn.functional.linear(inputs, b.T, bias)
            expected = rounded(inputs) @ rounded(b) + (0 if bias is None else 1)
            torch.testing.assert_close(outputs.double(), expected, **CLOSE)


def test_the_products_of_the_backward_pass_are_rounded_too(operands):
    a, b = (operand.clone().requires_grad_() for operand in operands)
    gradient = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    with bfloat16_products():
        (a @ b).backward(gradient)
    torch.testing.assert_close(a.grad.double(), rounded(gradient) @ rounded(b.detach()).T, **CLOSE)
    torch.testing.assert_close(b.grad.double(), rounded(a.detach()).T @ rounded(gradient), **CLOSE)


def test_accumulation_is_float32_over_long_sums():
    """4096 ones: a bfloat16 accumulator would stop at 256."""
    with bfloat16_products():
        assert (torch.ones(1, 4096) @ torch.ones(4096, 1)).item() == 4096


def test_float64_and_bfloat16_operands_keep_their_type(operands):
    a, b = operands
    for dtype in (torch.float64, torch.bfloat16):
        with bfloat16_products():
            product = a.to(dtype) @ b.to(dtype)
        assert product.dtype is dtype
        tolerance = 1e-6 if dtype is torch.float64 else 2**-7
        torch.testing.assert_close(product.double(), rounded(a) @ rounded(b), rtol=tolerance, atol=tolerance)


def test_integer_products_are_exact():
    with bfloat16_products():
        assert (torch.tensor([[257]]) @ torch.tensor([[1]])).item() == 257


def test_outside_the_block_nothing_changes(operands):
    a, b = operands
    before = a @ b
    with pytest.raises(ZeroDivisionError), bfloat16_products():
        raise ZeroDivisionError
    assert torch.equal(a @ b, before)


def test_blocks_can_be_nested(operands):
    a, b = operands
    with bfloat16_products():
        with bfloat16_products():
            inner = a @ b
        outer = a @ b
    assert torch.equal(inner, outer)
    assert not torch.equal(outer, a @ b)


def test_other_operations_are_not_rounded(operands):
    a, _ = operands
    expected = a * a, a.sum(), a.mv(a[0]), a.exp()
    with bfloat16_products():
        found = a * a, a.sum(), a.mv(a[0]), a.exp()
    for value, other in zip(found, expected, strict=True):
        assert torch.equal(value, other)
