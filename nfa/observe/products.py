"""Functions that multiply by a weight: each is one linear map z = W h + b at s positions of n examples.

A rule is a dataclass whose fields are the arguments of the function. All matrices of a site follow from h [n, s, i], W
[o, i] and δ = ∂ℓ/∂z [n, s, o], and so does the gradient of W for each example, Σ_s δ_s h_sᵀ. `at` says where the
examples are.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nfa.maths.example_gradients import Dense, GradientFactors, Part
from nfa.observe.layouts import Layout, LayoutError

WIDE = 128


class Product:
    """What all products have in common."""

    DATA: ClassVar[str] = "input"  # names of the arguments for the examples, W and b
    WEIGHT: ClassVar[str] = "weight"
    BIAS: ClassVar[str] = "bias"
    PARAMETERS: ClassVar[tuple[str, ...]] = ("weight", "bias")

    @property
    def data(self) -> Tensor:
        """The argument that holds the examples."""
        return cast(Tensor, getattr(self, self.DATA))

    @property
    def used(self) -> Tensor:
        """The argument that W is made of."""
        return cast(Tensor, getattr(self, self.WEIGHT))

    @property
    def added(self) -> Tensor | None:
        """The bias b; None if there is none."""
        return cast(Tensor | None, getattr(self, self.BIAS)) if self.BIAS else None

    @property
    def multiplies(self) -> bool:
        """Whether it multiplies by one matrix, and not by one for each example."""
        return isinstance(self.used, Tensor) and self.used.ndim == 2

    def matrix(self) -> Float[Tensor, "o i"]:
        """Return W."""
        raise NotImplementedError

    def inputs(self, at: Layout) -> Float[Tensor, "n s i"]:
        """Return h."""
        return at.rows(self.data)

    def outputs(self, z: Tensor, at: Layout) -> Float[Tensor, "n s o"]:
        """Return rows of a tensor shaped like the function's output: z itself, or δ."""
        return at.rows(z)

    def values(self, z: Tensor, at: Layout) -> Float[Tensor, "n s o"]:
        """Return W h + b, as the function has returned it."""
        return self.outputs(z, at)

    def again(self, at: Layout) -> Float[Tensor, "n s o"]:
        """Compute W h + b from its parts."""
        z = self.inputs(at) @ self.matrix().T
        return z if self.added is None else z + self.added

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:
        """Return the per-example gradients of an argument."""
        d = self.outputs(delta, at)
        return (
            Dense(over_rows(d)) if name == self.BIAS else GradientFactors(d.unsqueeze(2), self.inputs(at).unsqueeze(2))
        )

    def offset(self, delta: Tensor, at: Layout) -> Float[Tensor, " n"]:
        """Return ⟨δ, b⟩ of each example."""
        if self.added is None:
            return delta.new_zeros(())
        sums = self.gradient(self.BIAS, delta, at).dense().values
        return (sums * self.added.flatten()).sum(dim=1)

    def unfolded(self, z: Tensor, *, inputs: bool) -> int:
        """Return how many numbers reading it (and its inputs) creates in addition, for all examples."""
        del z, inputs
        return 0

    def parts(self) -> "Iterator[tuple[Product, Any]]":
        """Yield the products that one call makes, and which entries of its output each gives."""
        yield self, ...


def over_rows(rows: Float[Tensor, "n s f"]) -> Float[Tensor, "n f"]:
    """Return Σ_s; of wide rows as a product, which takes less time than a sum."""
    n, s, f = rows.shape
    return rows.sum(dim=1) if f < WIDE else (rows.new_ones(1, 1, s).expand(n, 1, s) @ rows).squeeze(1)


@dataclass(frozen=True)
class Linear(Product):
    """The product z = h Wᵀ + b."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None

    def matrix(self) -> Float[Tensor, "o i"]:
        return self.weight


@dataclass(frozen=True)
class Matmul(Product):
    """The product z = h W, with W [i, o] on the right."""

    WEIGHT, BIAS, PARAMETERS = "other", "", ("other",)
    input: Tensor
    other: Tensor

    def matrix(self) -> Float[Tensor, "o i"]:
        return self.other.T

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:  # noqa: ARG002
        if self.other.ndim != 2:
            raise LayoutError
        return GradientFactors(self.inputs(at).unsqueeze(2), self.outputs(delta, at).unsqueeze(2))


@dataclass(frozen=True)
class Addmm(Product):
    """The product z = b + h W, with W [i, o]."""

    DATA, WEIGHT, BIAS, PARAMETERS = "mat1", "mat2", "input", ("input", "mat2")
    input: Tensor
    mat1: Tensor
    mat2: Tensor

    def matrix(self) -> Float[Tensor, "o i"]:
        return self.mat2.T

    def gradient(self, name: str, delta: Tensor, at: Layout) -> Part:
        if name == "mat2":
            return Matmul(self.mat1, self.mat2).gradient("other", delta, at)
        return Dense(over_rows(at.rows(delta)))

    def offset(self, delta: Tensor, at: Layout) -> Float[Tensor, " n"]:
        return super().offset(delta, at) if self.input.ndim < 2 else at.sums(delta * self.input)


@dataclass(frozen=True)
class GroupedProduct(Product):
    """Groups of rows that end at `offs`, each times a matrix [i, o] of its own: the experts of a mixture."""

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


@dataclass(frozen=True)
class Mapped(Product):
    """A module that is affine in its input as a whole, such as a layer with its adapters; W is its image of the unit
    vectors.
    """

    BIAS, PARAMETERS = "", ()
    module: nn.Module
    input: Tensor

    def matrix(self) -> Float[Tensor, "o i"]:
        unit = torch.eye(self.input.shape[-1], dtype=self.input.dtype, device=self.input.device)
        return (self.of(unit) - self.of(unit.new_zeros(1, len(unit)))).T

    def offset(self, delta: Tensor, at: Layout) -> Float[Tensor, " n"]:
        zero = self.of(self.input.new_zeros(1, self.input.shape[-1]))
        return (at.rows(delta).sum(dim=1) * zero).sum(dim=1)

    def again(self, at: Layout) -> Float[Tensor, "n s o"]:
        return self.of(self.inputs(at))

    def of(self, rows: Tensor) -> Tensor:
        """Return the module's outputs for some rows."""
        with torch.no_grad():  # not the module itself, whose hooks belong to others
            found: Tensor = self.module.forward(rows.to(self.kind)).to(rows)
        return found

    @property
    def kind(self) -> torch.dtype:
        """The type of numbers that the module computes with."""
        return next((one.dtype for one in self.module.parameters() if one.is_floating_point()), self.input.dtype)


RULES: Mapping[Callable[..., Any], type[Product]] = {
    F.linear: Linear,
    torch.matmul: Matmul,
    torch.Tensor.matmul: Matmul,
    torch.mm: Matmul,
    torch.Tensor.mm: Matmul,
    torch.addmm: Addmm,
    F.grouped_mm: GroupedProduct,
    torch._grouped_mm: GroupedProduct,
}
