"""Per-example gradients of a convolution's kernels, kept as images until they are needed."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nfa.maths.example_gradients import Dense, GradientFactors, Part, Piece, Room, largest, powers_of_two, weighted

SMALL = 2**18  # entries of a kernel, up to which oneDNN's gradient of grouped kernels is faster than patches
AT_ONCE = 2**19  # entries of gradients that are made before they are written into a table
SUMS = 12  # multiply-adds that summing a pair of pixels over the kernel costs


class Geometry(NamedTuple):
    """How a kernel moves over an image that is padded on both sides alike; a number for each dimension."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def dense(self) -> bool:
        """Whether the kernel is at every position, and all channels are in one group."""
        return set(self.stride) == {1} and self.groups == 1


@dataclass(frozen=True)
class ImageFactors(Part):
    """Gradients γ_a[o, i, k] = Σ_s δ_a[o, s] h_a[i, s·stride + k·dilation − padding] within groups of channels.

    Args:
        delta: The gradients at the positions of the kernel [n, o, …].
        image: The images that the kernel moves over [n, i, …].
        geometry: How it moves.
    """

    delta: Float[Tensor, "n o ..."]
    image: Float[Tensor, "n i ..."]
    geometry: Geometry

    def __len__(self) -> int:
        return len(self.delta)

    @property
    def numbers(self) -> int:
        """The number of entries stored per example."""
        return self.delta[0].numel() + self.image[0].numel()

    @property
    def entries(self) -> int:
        """The number of entries of the kernels."""
        return prod(self.shape)

    @property
    def row(self) -> int:
        """The number of entries of a kernel i/groups · k."""
        return prod(self.shape[1:])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the kernels [o, i/groups, k, …]."""
        return (self.delta.shape[1], self.image.shape[1] // self.geometry.groups, *self.geometry.kernel)

    def alike(self, other: "ImageFactors") -> bool:
        """Whether pairs of pixels can be multiplied with those of other images."""
        return self.geometry == other.geometry and self.geometry.dense

    def of(self, part: slice) -> "ImageFactors":
        """Return the gradients of some examples."""
        return ImageFactors(self.delta[part], self.image[part], self.geometry)

    def total(self, weights: Float[Tensor, " n"]) -> Float[Tensor, " p"]:
        """Return the weighted sum Σ_a w_a γ_a [p]."""
        return self.dense().total(weights)

    def dense(self) -> Dense:
        """Return the gradients themselves."""
        if self.entries > SMALL:
            return self.factors().dense()
        return Dense(_grouped(self.delta, self.image, self.shape, self.geometry))

    def write(self, pieces: Sequence[Piece]) -> None:
        """Write the gradients into pieces of a table."""
        if self.entries > SMALL:
            self.factors().write(pieces)
            return
        size = max(1, AT_ONCE // self.entries)
        for part in (slice(start, start + size) for start in range(0, len(self), size)):
            self.of(part).dense().write([Piece(out[part], entries) for out, entries in pieces])

    def blocks(self, room: Room) -> Iterator[Float[Tensor, "n c"]]:
        """Yield the gradients, some entries at a time."""
        if self.entries > SMALL:
            yield from self.factors().blocks(room)
            return
        flat, n = room(self.image, self.entries).view(-1), len(self)
        blocks = self.column_blocks()
        pieces = [Piece(flat[n * of.start : n * of.stop].view(n, of.stop - of.start), of) for of in blocks]
        self.write(pieces)
        yield from (piece.out for piece in pieces)

    def factors(self) -> GradientFactors:
        """Return the gradients as sums of outer products of δ and patches."""
        geometry = self.geometry
        image = F.pad(self.image, [side for size in reversed(geometry.padding) for side in (size, size)])
        rows = patches(image, geometry.kernel, geometry.stride, geometry.dilation)
        left, right = self.delta.flatten(2).transpose(1, 2), rows
        return GradientFactors(*(side.unflatten(2, (geometry.groups, -1)) for side in (left, right)))

    def largest(self) -> Float[Tensor, " n"]:
        """Return an upper bound on the entries of δ_s h_sᵀ for each example."""
        return largest(self.delta) * largest(self.image)

    def times(self, weights: Float[Tensor, " n"]) -> "ImageFactors":
        """Return w_a γ_a, with entries of at most 2 in the images."""
        sizes = [powers_of_two(largest(side)) for side in (self.delta, self.image)]
        delta, image = (weighted(side, 1 / size) for side, size in zip((self.delta, self.image), sizes, strict=True))
        return ImageFactors(weighted(delta, sizes[0] * sizes[1] * weights), image, self.geometry)

    def paired(self, examples: int) -> "ImageFactors | GradientFactors | None":
        """Return the form whose pairs cost the fewest multiply-adds; None if γ costs fewer.

        Multiply-adds for each example, with s positions and t pixels: pairs of pixels n (s² o + t² i)/2, and 12 n s²
        for their sums; pairs of patches n s² (o + q)/2; γ s o q, and its products n o q/2.
        """
        o, q, i = self.shape[0], self.row, self.image.shape[1]
        s, t = prod(self.delta.shape[2:]), prod(self.image.shape[2:])
        written = s * o * q + examples * o * q / 2
        patches = examples * s * s * (o + q * self.geometry.groups) / 2
        pixels = examples * ((s * s * o + t * t * i) / 2 + SUMS * s * s) if self.geometry.dense else math.inf
        return self if pixels < min(patches, written) else self.factors() if patches < written else None


def _grouped(
    delta: Float[Tensor, "n o ..."], image: Float[Tensor, "n i ..."], shape: tuple[int, ...], geometry: Geometry
) -> Float[Tensor, "n p"]:
    """Return the gradients as those of one convolution in which each example is a group of channels."""
    n = len(delta)
    kernels = delta.new_empty(1).expand(n * shape[0], *shape[1:])  # only its shape is read
    zeros, groups = [0] * len(geometry.kernel), n * geometry.groups
    found: Tensor = torch.ops.aten.convolution_backward(
        *(delta.reshape(1, -1, *delta.shape[2:]), image.reshape(1, -1, *image.shape[2:]), kernels, None),
        *(geometry.stride, geometry.padding, geometry.dilation, False, zeros, groups, [False, True, False]),
    )[1]
    return found.reshape(n, -1)


def patches(image: Float[Tensor, "n c ..."], kernel: tuple[int, ...], stride: Any, dilation: Any) -> Tensor:
    """Return what is under a kernel at each of its positions; one dimension is treated as two with a height of 1.

    Args:
        image: The images, padded [n, c, …].
        kernel: The size of the kernel.
        stride: The step between positions, for each dimension.
        dilation: The step between entries of the kernel, for each dimension.

    Returns:
        The patches [n, s, c·k], channels before kernel offsets.
    """
    if prod(kernel) == 1:
        for dim, step in enumerate(stride):
            image = image[(slice(None),) * (2 + dim) + (slice(None, None, step),)]
        return image.flatten(2).transpose(1, 2)
    if len(kernel) == 1:
        image, kernel, stride, dilation = image.unsqueeze(2), (1, *kernel), (1, *stride), (1, *dilation)
    if len(kernel) == 2:
        return F.unfold(image, kernel, dilation=dilation, stride=stride).transpose(1, 2)
    dims = len(kernel)
    for dim, (k, step, d) in enumerate(zip(kernel, stride, dilation, strict=True)):
        image = image.unfold(2 + dim, d * (k - 1) + 1, step)[..., ::d]
    return image.movedim(1, 1 + dims).flatten(1 + dims).flatten(1, dims)


def pairs_of_pixels(a: ImageFactors, b: ImageFactors) -> Float[Tensor, "n m"]:
    """Return the inner products ⟨γ_a, γ_b⟩ of kernels with a stride of 1 and one group of channels.

    They are Σ_uv ⟨δ_au, δ_bv⟩ Σ_k ⟨h_a,u+k, h_b,v+k⟩: products of all pairs of pixels, summed along the diagonal over
    the offsets k of the kernel.

    Args:
        a: The first n gradients.
        b: The other m gradients, with the same geometry.

    Returns:
        The inner products [n, m].
    """
    deltas = _pixels(a.delta) @ _pixels(b.delta).T
    size, other = a.image.shape[2:], b.image.shape[2:]
    products = (_pixels(a.image) @ _pixels(b.image).T).view(*size, len(a), *other, len(b))
    geometry = a.geometry
    for dim in range(len(size)):
        found = [*products.shape]
        found[dim], found[len(size) + 1 + dim] = a.delta.shape[2 + dim], b.delta.shape[2 + dim]
        sums = products.new_zeros(found)
        for k in range(geometry.kernel[dim]):
            _add_shifted(sums, products, dim, len(size) + 1 + dim, k * geometry.dilation[dim] - geometry.padding[dim])
        products = sums
    places, others = a.delta[0, 0].numel(), b.delta[0, 0].numel()
    return products.view(deltas.shape).mul_(deltas).view(places, len(a), others, len(b)).sum(dim=(0, 2))


def _pixels(image: Float[Tensor, "n c ..."]) -> Float[Tensor, "sn c"]:
    """Return the pixels as rows, ordered by position and then by example."""
    return image.flatten(2).permute(2, 0, 1).reshape(-1, image.shape[1])


def _add_shifted(sums: Tensor, products: Tensor, dim: int, other: int, offset: int) -> None:
    """Add products[…, u + offset, …, v + offset, …] to sums[…, u, …, v, …] wherever both exist."""
    target, source = sums, products
    for axis in (dim, other):
        first = max(0, -offset)
        length = min(sums.shape[axis], products.shape[axis] - offset) - first
        if length <= 0:
            return
        target, source = target.narrow(axis, first, length), source.narrow(axis, first + offset, length)
    target += source
