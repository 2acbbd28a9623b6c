"""Functions that multiply by a weight: each is one linear map z = W h + b at s positions of n examples.

A rule is a dataclass whose fields are the arguments of the function. From h [n s i], W [o i] and δ = ∂ℓ/∂z [n s o] come
all matrices of a site, and the gradient of W for each example, Σ_s δ_s h_sᵀ. `at` says where the examples are.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nfa.maths.example_gradients import Dense, Factors, Part
from nfa.observe.layouts import Layout, LayoutError


class Product:
    """What all have in common."""

    DATA: ClassVar[str] = "input"  # names of arguments: what the examples are in, what W is made of, and b
    WEIGHT: ClassVar[str] = "weight"
    BIAS: ClassVar[str] = "bias"
    PARAMETERS: ClassVar[tuple[str, ...]] = ("weight", "bias")

    @property
    def data(self) -> Tensor:
        """What the examples are in."""
        return cast(Tensor, getattr(self, self.DATA))

    @property
    def used(self) -> Tensor:
        """What W is made of."""
        return cast(Tensor, getattr(self, self.WEIGHT))

    @property
    def added(self) -> Tensor | None:
        """b, where there is one."""
        return cast(Tensor | None, getattr(self, self.BIAS)) if self.BIAS else None

    @property
    def multiplies(self) -> bool:
        """Whether it is a matrix that is multiplied by, and not one for each example."""
        return isinstance(self.used, Tensor) and self.used.ndim == 2

    def matrix(self) -> Float[Tensor, "o i"]:
        """W."""
        raise NotImplementedError

    def inputs(self, at: Layout) -> Float[Tensor, "n s i"]:
        """h."""
        return at.rows(self.data)

    def outputs(self, z: Tensor, at: Layout) -> Float[Tensor, "n s o"]:
        """Rows of what is shaped like the function's output: z itself, or δ."""
        return at.rows(z)

    def values(self, z: Tensor, at: Layout) -> Float[Tensor, "n s o"]:
        """W h + b, as the function has given it."""
        return self.outputs(z, at)

    def again(self, at: Layout) -> Float[Tensor, "n s o"]:
        """W h + b from its parts."""
        z = self.inputs(at) @ self.matrix().T
        return z if self.added is None else z + self.added

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:
        """Per-example gradients of an argument."""
        d = self.outputs(delta, at)
        return Dense(d.sum(dim=1)) if name == self.BIAS else Factors(d.unsqueeze(2), self.inputs(at).unsqueeze(2))

    def offset(self, delta: Tensor, at: Layout) -> Float[Tensor, " n"]:
        """⟨δ, b⟩ of each example."""
        if self.added is None:
            return delta.new_zeros(())
        sums = self.gradient(self.BIAS, delta, at).dense().values
        return (sums * self.added.flatten()).sum(dim=1)

    def unfolded(self, z: Tensor, *, inputs: bool) -> int:
        """Numbers that reading it, and its inputs, makes beside those that are there, for all examples."""
        del z, inputs
        return 0

    def parts(self) -> "Iterator[tuple[Product, Any]]":
        """The products that one call makes, and which of its output's entries each gives."""
        yield self, ...


@dataclass(frozen=True)
class Linear(Product):
    """z = h Wᵀ + b."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None

    def matrix(self) -> Float[Tensor, "o i"]:
        return self.weight


@dataclass(frozen=True)
class Matmul(Product):
    """z = h W with W [i o] on the right."""

    WEIGHT, BIAS, PARAMETERS = "other", "", ("other",)
    input: Tensor
    other: Tensor

    def matrix(self) -> Float[Tensor, "o i"]:
        return self.other.T

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:  # noqa: ARG002
        if self.other.ndim != 2:
            raise LayoutError
        return Factors(self.inputs(at).unsqueeze(2), self.outputs(delta, at).unsqueeze(2))


@dataclass(frozen=True)
class MM(Product):
    """The same, of matrices only."""

    WEIGHT, BIAS, PARAMETERS = "mat2", "", ("mat2",)
    input: Tensor
    mat2: Tensor

    def matrix(self) -> Float[Tensor, "o i"]:
        return self.mat2.T

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:
        return Matmul(self.input, self.mat2).gradient(name, delta, at)


@dataclass(frozen=True)
class Addmm(Product):
    """z = b + h W with W [i o]."""

    DATA, WEIGHT, BIAS, PARAMETERS = "mat1", "mat2", "input", ("input", "mat2")
    input: Tensor
    mat1: Tensor
    mat2: Tensor

    def matrix(self) -> Float[Tensor, "o i"]:
        return self.mat2.T

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:
        if name == "mat2":
            return Matmul(self.mat1, self.mat2).gradient("other", delta, at)
        return Dense(at.rows(delta).sum(dim=1))


@dataclass(frozen=True)
class GroupedProduct(Product):
    """Rows in groups that end at `offs`, each times a matrix [i o] of its own: the experts of a mixture."""

    DATA, WEIGHT, PARAMETERS = "mat_a", "mat_b", ("mat_b",)
    mat_a: Tensor
    mat_b: Tensor
    offs: Tensor | None = None
    bias: Tensor | None = None
    out_dtype: Any = None

    def parts(self) -> Iterator[tuple[Product, Any]]:
        if self.offs is None or self.bias is not None or (self.mat_a.ndim, self.mat_b.ndim) != (2, 3):
            return
        ends = self.offs.tolist()
        for group, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            yield Linear(self.mat_a[start:end], self.mat_b[group].T), slice(start, end)


class OfPatches(Product):
    """What convolutions have in common: kernels [c c k …] for images [n c …]."""

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
        """Block diagonal where there are groups: outputs of a group see that group's channels only."""
        return _blocks(self.weight, self.groups)

    def inputs(self, at: Layout) -> Float[Tensor, "n s i"]:
        """Patches, channels before kernel offsets."""
        kernel = self.weight.shape[2:]
        stride, dilation = (each(value, len(kernel)) for value in (self.stride, self.dilation))
        image = F.pad(at.images(self.input), self._padding(tuple(kernel), dilation))
        return by_example(patches(image, tuple(kernel), stride, dilation), self.input, at)

    def outputs(self, z: Tensor, at: Layout) -> Float[Tensor, "n s o"]:
        if z.ndim != self.weight.ndim:
            raise LayoutError
        return by_example(at.images(z).flatten(2).transpose(1, 2), z, at)

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:
        d = self.outputs(delta, at)
        if name == "bias":
            return Dense(d.sum(dim=1))
        return Factors(d.unflatten(2, (self.groups, -1)), self.inputs(at).unflatten(2, (self.groups, -1)))

    def unfolded(self, z: Tensor, *, inputs: bool) -> int:
        if not inputs:
            return 0
        return z.numel() // self.weight.shape[0] * self.weight[0].numel() * self.groups

    def _padding(self, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> list[int]:
        """As `F.pad` takes it: the last dimension first, before and after."""
        if self.padding == "same":
            totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            return sides([(total // 2, total - total // 2) for total in totals])
        return sides([(p, p) for p in each(0 if self.padding == "valid" else self.padding, len(kernel))])


@dataclass(frozen=True)
class TransposedConvolution(OfPatches):
    """Each input pixel h times W̃ [(c_out·kernel) c_in], added to the output under the kernel: δ are patches of it."""

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
        """W̃ h: what is added up in the output, and then the bias to it."""
        return self.inputs(at) @ self.matrix().T

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:
        if name == "bias":
            return Dense(by_example(at.images(delta).flatten(2).transpose(1, 2), delta, at).sum(dim=1))
        h, d = self.inputs(at), self.outputs(delta, at)
        return Factors(h.unflatten(2, (self.groups, -1)), d.unflatten(2, (self.groups, -1)))

    def unfolded(self, z: Tensor, *, inputs: bool) -> int:
        del z, inputs
        return self.input.numel() // self.input.shape[1] * self.weight[0].numel() * self.groups


@dataclass(frozen=True)
class Mapped(Product):
    """A module that is affine in its input as a whole, such as a layer with its adapters: W is what it makes of 1."""

    BIAS, PARAMETERS = "", ()
    module: nn.Module
    input: Tensor

    def matrix(self) -> Float[Tensor, "o i"]:
        unit = torch.eye(self.input.shape[-1], dtype=self.input.dtype, device=self.input.device)
        return (self._of(unit) - self._of(unit.new_zeros(1, len(unit)))).T

    def offset(self, delta: Tensor, at: Layout) -> Float[Tensor, " n"]:
        zero = self._of(self.input.new_zeros(1, self.input.shape[-1]))
        return (at.rows(delta).sum(dim=1) * zero).sum(dim=1)

    def again(self, at: Layout) -> Float[Tensor, "n s o"]:
        return self._of(self.inputs(at))

    def _of(self, rows: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = self.module.forward(rows)  # not the module itself: its hooks are other people's
        return found


def _blocks(weight: Tensor, groups: int) -> Tensor:
    """The kernels as a matrix; those of groups are blocks on its diagonal."""
    flat = weight.flatten(1)
    return flat if groups == 1 else cast(Tensor, torch.block_diag(*flat.chunk(groups)))


def patches(image: Float[Tensor, "n c ..."], kernel: tuple[int, ...], stride: Any, dilation: Any) -> Tensor:
    """[n s c·k], channels before kernel offsets; F.unfold knows two dimensions, and one is a height of 1."""
    if len(kernel) == 1:
        image, kernel, stride, dilation = image.unsqueeze(2), (1, *kernel), (1, *stride), (1, *dilation)
    if len(kernel) == 2:
        return F.unfold(image, kernel, dilation=dilation, stride=stride).transpose(1, 2)
    dims = len(kernel)
    for dim, (k, step, d) in enumerate(zip(kernel, stride, dilation, strict=True)):
        image = image.unfold(2 + dim, d * (k - 1) + 1, step)[..., ::d]
    return image.movedim(1, 1 + dims).flatten(1 + dims).flatten(1, dims)


def by_example(rows: Float[Tensor, "nk t f"], image: Tensor, at: Layout) -> Float[Tensor, "n s f"]:
    """Images of one example follow each other along s."""
    k = len(image) // at.n
    return rows.reshape(len(rows) // k if k else 0, -1, rows.shape[-1])


def each(value: Any, dims: int) -> tuple[int, ...]:
    """A number for every dimension."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values


def sides(pairs: list[tuple[int, int]]) -> list[int]:
    """Before and after, the last dimension first, as `F.pad` takes them."""
    return [side for pair in reversed(pairs) for side in pair]


PRODUCTS: Mapping[Callable[..., Any], type[Product]] = {
    F.linear: Linear,
    torch.matmul: Matmul,
    torch.Tensor.matmul: Matmul,
    torch.mm: MM,
    torch.Tensor.mm: MM,
    torch.addmm: Addmm,
    F.grouped_mm: GroupedProduct,
    torch._grouped_mm: GroupedProduct,
    F.conv1d: Convolution,
    F.conv2d: Convolution,
    F.conv3d: Convolution,
    F.conv_transpose1d: TransposedConvolution,
    F.conv_transpose2d: TransposedConvolution,
    F.conv_transpose3d: TransposedConvolution,
}
