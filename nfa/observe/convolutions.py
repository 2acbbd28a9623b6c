"""Convolutions as products: W times patches, and the transpose."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nfa.maths.example_gradients import Dense, GradientFactors, Part
from nfa.maths.image_gradients import Geometry, ImageFactors, patches
from nfa.observe.layouts import Layout, LayoutError
from nfa.observe.products import Product


class OfPatches(Product):
    """What both convolutions have in common: kernels [c, c, k, …] for images [n, c, …]."""

    @property
    def multiplies(self) -> bool:
        return self.data.ndim == self.used.ndim


@dataclass(frozen=True)
class Convolution(OfPatches):
    """W times the patch under the kernel at each output position, within each group of channels."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    def matrix(self) -> Float[Tensor, "o i"]:
        """Return W; with groups it is block diagonal, since outputs of a group see only that group's channels."""
        return _blocks(self.weight, self.groups)

    def inputs(self, at: Layout) -> Float[Tensor, "n s i"]:
        """Return patches, with channels before kernel offsets."""
        kernel = self.weight.shape[2:]
        stride, dilation = (each(value, len(kernel)) for value in (self.stride, self.dilation))
        image = F.pad(at.images(self.input), self._padding(tuple(kernel), dilation))
        return by_example(patches(image, tuple(kernel), stride, dilation), self.input, at)

    def outputs(self, z: Tensor, at: Layout) -> Float[Tensor, "n s o"]:
        if z.ndim != self.weight.ndim:
            raise LayoutError
        return by_example(at.images(z).flatten(2).transpose(1, 2), z, at)

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:
        images = at.images(delta)
        if delta.ndim != self.weight.ndim:
            raise LayoutError
        if name == "bias":
            return Dense(by_example(images.flatten(2).transpose(1, 2), delta, at).sum(dim=1))
        if len(images) == at.n:
            return self._gradient_of_images(images, at.images(self.input))
        sides = self.outputs(delta, at), self.inputs(at)
        return GradientFactors(*(side.unflatten(2, (self.groups, -1)) for side in sides))

    def _gradient_of_images(self, delta: Tensor, image: Tensor) -> Part:
        """Return gradients where each example is one image."""
        kernel = tuple(self.weight.shape[2:])
        stride, dilation = (each(value, len(kernel)) for value in (self.stride, self.dilation))
        before, after = self._padding(kernel, dilation)[::2], self._padding(kernel, dilation)[1::2]
        if before != after:
            image, before = F.pad(image, self._padding(kernel, dilation)), [0] * len(kernel)
        geometry = Geometry(kernel, stride, tuple(reversed(before)), dilation, self.groups)
        return ImageFactors(delta, image, geometry)

    def unfolded(self, z: Tensor, *, inputs: bool) -> int:
        if not inputs:
            return 0
        return z.numel() // self.weight.shape[0] * self.weight[0].numel() * self.groups

    def _padding(self, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> list[int]:
        """Return the padding as `F.pad` takes it: last dimension first, before and after."""
        if self.padding == "same":
            totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            return sides([(total // 2, total - total // 2) for total in totals])
        return sides([(p, p) for p in each(0 if self.padding == "valid" else self.padding, len(kernel))])


@dataclass(frozen=True)
class TransposedConvolution(OfPatches):
    """Each input pixel h times W̃ [c_out·kernel, c_in], added to the output under the kernel: δ are patches of the
    gradient.
    """

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: Any = 1
    padding: Any = 0
    output_padding: Any = 0
    groups: int = 1
    dilation: Any = 1

    def matrix(self) -> Float[Tensor, "o i"]:
        return _blocks(self.weight, self.groups).T

    def inputs(self, at: Layout) -> Float[Tensor, "n s i"]:
        if self.input.ndim != self.weight.ndim:
            raise LayoutError
        return by_example(at.images(self.input).flatten(2).transpose(1, 2), self.input, at)

    def outputs(self, z: Tensor, at: Layout) -> Float[Tensor, "n s o"]:
        kernel = tuple(self.weight.shape[2:])
        stride, padding, dilation = (each(x, len(kernel)) for x in (self.stride, self.padding, self.dilation))
        found = patches(F.pad(at.images(z), sides([(p, p) for p in padding])), kernel, stride, dilation)
        if found.shape[1] != self.input.shape[2:].numel():
            raise LayoutError  # output_padding of a stride or more
        return by_example(found, z, at)

    def values(self, z: Tensor, at: Layout) -> Float[Tensor, "n s o"]:
        del z
        return self.again(at)

    def again(self, at: Layout) -> Float[Tensor, "n s o"]:
        """Return W̃ h, which is added up in the output before the bias is added."""
        return self.inputs(at) @ self.matrix().T

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:
        if name == "bias":
            return Dense(by_example(at.images(delta).flatten(2).transpose(1, 2), delta, at).sum(dim=1))
        h, d = self.inputs(at), self.outputs(delta, at)
        return GradientFactors(h.unflatten(2, (self.groups, -1)), d.unflatten(2, (self.groups, -1)))

    def unfolded(self, z: Tensor, *, inputs: bool) -> int:
        del z, inputs
        return self.input.numel() // self.input.shape[1] * self.weight[0].numel() * self.groups


def _blocks(weight: Tensor, groups: int) -> Tensor:
    """Return the kernels as a matrix; groups are blocks on its diagonal."""
    flat = weight.flatten(1)
    return flat if groups == 1 else cast(Tensor, torch.block_diag(*flat.chunk(groups)))


def by_example(rows: Float[Tensor, "nk t f"], image: Tensor, at: Layout) -> Float[Tensor, "n s f"]:
    """Concatenate the images of one example along s."""
    k = len(image) // at.n
    return rows.reshape(len(rows) // k if k else 0, -1, rows.shape[-1])


def each(value: Any, dims: int) -> tuple[int, ...]:
    """Return a number for every dimension."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values


def sides(pairs: list[tuple[int, int]]) -> list[int]:
    """Return before and after of each pair, last dimension first, as `F.pad` takes them."""
    return [side for pair in reversed(pairs) for side in pair]


RULES: Mapping[Callable[..., Any], type[Product]] = {
    F.conv1d: Convolution,
    F.conv2d: Convolution,
    F.conv3d: Convolution,
    F.conv_transpose1d: TransposedConvolution,
    F.conv_transpose2d: TransposedConvolution,
    F.conv_transpose3d: TransposedConvolution,
}
