"""Per-example gradients of convolutions against those that autograd gives for one example at a time."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nfa.maths import image_gradients
from nfa.maths.example_gradients import Dense, GradientFactors, Piece
from nfa.maths.gradient_inner_products import inner
from nfa.maths.gradient_parts import joined
from nfa.maths.image_gradients import Geometry, ImageFactors, pairs_of_pixels

CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@st.composite
def convolutions(draw: Callable[..., Any], *, at_every_position: bool = False) -> tuple[Any, Tensor]:
    """A function that makes gradients of n examples, and γ [n, p] by autograd."""
    dims = draw(st.integers(1, 3))
    groups = 1 if at_every_position else draw(st.integers(1, 2))
    numbers = {name: tuple(draw(st.integers(low, high)) for _ in range(dims)) for name, low, high in (
        ("kernel", 1, 3), ("stride", 1, 1 if at_every_position else 3), ("padding", 0, 2), ("dilation", 1, 2),
    )}  # fmt: skip
    geometry = Geometry(**numbers, groups=groups)
    least = [d * (k - 1) + 1 for k, d in zip(geometry.kernel, geometry.dilation, strict=True)]
    size = [max(1, draw(st.integers(0, 3)) + one) for one in least]
    n, i, o = draw(st.integers(1, 4)), groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    random = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    image = torch.randn(n, i, *size, generator=random, dtype=torch.float64)
    kernel = torch.randn(o, i // groups, *geometry.kernel, generator=random, dtype=torch.float64, requires_grad=True)
    options = {name: getattr(geometry, name) for name in ("stride", "padding", "dilation", "groups")}
    outputs = CONVOLUTIONS[dims](image, kernel, **options)
    delta = torch.randn(outputs.shape, generator=random, dtype=torch.float64)
    rows = [torch.autograd.grad(one, kernel, d, retain_graph=True)[0] for one, d in zip(outputs, delta, strict=True)]
    return ImageFactors(delta, image, geometry), torch.stack(rows).flatten(1)


def assert_equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11 * max(1.0, float(expected.abs().max())))


@given(convolutions(), st.sampled_from([0, 2**18]))
@settings(max_examples=60, deadline=None)
def test_gradients_are_those_of_autograd_whichever_way_they_are_made(made, small):
    images, expected = made
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_gradients, "SMALL", small)
        assert_equal(images.dense().values, expected)
        assert_equal(images.factors().dense().values, expected)
        assert_equal(images.total(torch.ones(len(images), dtype=torch.float64)), expected.sum(dim=0))
        table = torch.full_like(expected, torch.nan)
        parts = slice(0, images.row), slice(images.row, images.entries)
        images.write([Piece(table[:, part], part) for part in parts])
        assert_equal(table, expected)
    assert images.entries == expected.shape[1]
    assert len(images) == len(expected)


@given(convolutions())
@settings(max_examples=30, deadline=None)
def test_weights_and_bounds_are_those_of_the_gradients(made):
    images, expected = made
    weights = torch.logspace(-12, 12, len(images), dtype=torch.float64)
    assert_equal(images.times(weights).dense().values / weights[:, None], expected)
    positions = images.delta[0, 0].numel()
    assert (images.largest() * positions >= expected.abs().amax(dim=1) * (1 - 1e-12)).all()


@given(convolutions(at_every_position=True))
@settings(max_examples=60, deadline=None)
def test_pairs_of_pixels_are_the_inner_products_of_gradients(made):
    images, expected = made
    assert_equal(pairs_of_pixels(images, images.of(slice(1))), expected @ expected[:1].T)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nfa.maths.gradient_inner_products.ENTRIES", 1)
        assert_equal(inner([images], [images]), expected @ expected.T)


@given(convolutions(), convolutions())
@settings(max_examples=30, deadline=None)
def test_a_kernel_that_is_used_twice_has_the_sum_of_its_gradients(first, second):
    (a, of_a), (b, of_b) = first, second
    if a.shape != b.shape or len(a) != len(b):
        b, of_b = a.times(torch.full((len(a),), 2.0, dtype=torch.float64)), 2 * of_a
    parts = joined([a, b])
    expected = of_a + of_b
    assert_equal(inner(parts, parts), expected @ expected.T)


def images(channels: int, size: int, *, stride: int = 1) -> ImageFactors:
    geometry = Geometry((3, 3), (stride, stride), (1, 1), (1, 1), 1)
    out = -(-size // stride)
    return ImageFactors(torch.ones(2, channels, out, out), torch.ones(2, channels, size, size), geometry)


@pytest.mark.parametrize(("made", "examples", "form"), [
    (images(512, 4), 32, ImageFactors),  # few pixels of many channels
    (images(64, 32), 32, None),  # many pixels of few channels
    (images(512, 4), 10**6, ImageFactors),
    (images(16, 32), 10**6, None),
    (images(512, 4, stride=2), 32, GradientFactors),  # pairs of patches, as pixels cannot be paired with a stride
])  # fmt: skip
def test_the_form_is_the_one_with_the_fewest_multiply_adds(made, examples, form):
    assert type(made.paired(examples)) is (form or type(None))


def test_another_geometry_is_not_multiplied_by_pixels():
    a, b = images(2, 4), images(2, 4)
    other = ImageFactors(b.delta, b.image, b.geometry._replace(padding=(1, 1), dilation=(2, 2)))
    assert a.alike(b)
    assert not a.alike(other)
    assert not images(2, 4, stride=2).alike(images(2, 4, stride=2))
    assert isinstance(a.dense(), Dense)
