"""Which parameters' gradients are sketched for a Gram matrix, and with how many random vectors.

A sketch of parameter l with r_l vectors costs c_l r_l operations and adds v_l/r_l to the squared error of a cosine; v_l
is estimated on a few examples. Σ c_l r_l is smallest for a given error where r_l ∝ √(v_l/c_l) (Neyman 1934).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

from nfa.maths.example_gradients import Dense, GradientFactors, Part
from nfa.maths.gradient_sketch import BLOCKS, Projection, cosine_changes, whole_blocks
from nfa.maths.gram import cosines
from nfa.maths.image_gradients import ImageFactors
from nfa.maths.lookup_gradients import Rows
from nfa.measures.gradient_gram import GradientGram
from nfa.observe.example_gradients import BatchGradients, ExampleGradients, Losses
from nfa.observe.parameter_regions import Region
from nfa.plain_text import counted

TARGET = 0.008  # error of a cosine that `auto` aims at, so that it stays below 0.01 when gradients change
PILOT = 16  # examples on which errors are estimated
SMALL = 4096  # entries of a parameter up to which its gradients are always exact
Key = tuple[Region, bool]  # a parameter, and whether the rows of its gradients are combined


@dataclass(frozen=True)
class Sketches:
    """What was chosen.

    Args:
        projections: The projection of each parameter that is sketched; the others are exact.
        error: The expected standard error of a cosine.
    """

    projections: Mapping[Region, Projection] = field(default_factory=dict)
    error: float = 0.0

    @property
    def size(self) -> str:
        """The number of random vectors for a parameter, in words."""
        sizes = {one.vectors.shape[1] for one in self.projections.values()}
        return f"{min(sizes)} to {max(sizes)}" if len(sizes) > 1 else str(*sizes) if sizes else "none"

    @property
    def said(self) -> str:
        """What was chosen, in words."""
        if not self.projections:
            return "none"
        how = f"{self.size} random vectors for each of {counted(len(self.projections), 'parameter')}, others exact"
        return f"{how}; expected standard error of a cosine {self.error:.1g}"

    @property
    def vectors(self) -> dict[str, int]:
        """The number of random vectors by parameter; parts of one parameter are numbered by their first entry."""
        return {
            f"{key.parameter}[{key.offset}]" if key.offset else key.parameter: one.vectors.shape[1]
            for key, one in self.projections.items()
        }


def choose_sketches(
    gram: GradientGram, model: nn.Module, losses: Callable[[], Losses | None], *, asked: str, seed: int
) -> Sketches:
    """Choose sketches for the Gram matrices of a model and of its other checkpoints.

    Args:
        gram: What computes the matrices.
        model: The model.
        losses: Returns the loss of each example, None for the workload's own; called only where it is needed.
        asked: "none", a number of random vectors, or "auto": none where exact gradients fit into the memory, otherwise
            so many that the error of a cosine is about 0.008 on average.
        seed: The seed of the random vectors.

    Returns:
        The sketches. Parameters that are cheaper to compute exactly have none.
    """
    if asked == "none":
        return Sketches()
    if asked == "auto" and gram.at_once(model):
        return Sketches()
    options = _Pilot(gram, gram.open(model, losses()), seed).options()
    best = [min(of, key=lambda one: one.variance * one.cost) for of in options.values()]
    chosen = allocated(best, TARGET) if asked == "auto" else {one: whole_blocks(int(asked)) for one in best}
    kept = {one: vectors for one, vectors in chosen.items() if vectors * one.cost < one.exact}
    drawn = {one.key[0]: _projection(one.key, vectors, seed) for one, vectors in kept.items()}
    return Sketches(drawn, math.sqrt(sum(one.variance / vectors for one, vectors in kept.items())))


@dataclass(frozen=True)
class SketchOption:
    """One way to sketch a parameter.

    Args:
        key: The parameter and the side that is combined.
        variance: The squared error of a cosine that one random vector has.
        cost: The multiply-adds of one random vector, for each example.
        exact: The multiply-adds of the exact way, for each example.
    """

    key: Key
    variance: float
    cost: float
    exact: float


def allocated(options: Sequence[SketchOption], error: float) -> dict[SketchOption, int]:
    """Return the numbers of random vectors with which a given error costs least.

    Options that cost as much as the exact way are left out; the others then share the whole error.

    Args:
        options: The parameters.
        error: The error of a cosine.

    Returns:
        The number of random vectors of each parameter that is sketched.

    Example:
        >>> cheap, dear = SketchOption(("a", False), 0.01, 1.0, 1e4), SketchOption(("b", False), 0.01, 4.0, 1e4)
        >>> [*allocated([cheap, dear], 0.02).values()]
        [80, 40]
    """
    while True:
        scale = sum(math.sqrt(one.variance * one.cost) for one in options) / error**2
        sizes = {one: whole_blocks(math.sqrt(one.variance / one.cost) * scale) for one in options}
        cheaper = [one for one, vectors in sizes.items() if vectors * one.cost < one.exact]
        if len(cheaper) == len(options):
            return sizes
        options = cheaper


def _projection(key: Key, vectors: int, seed: int, purpose: str = "sketch") -> Projection:
    region, of_rows = key
    rows = region.shape[0]
    shape = (rows, math.prod(region.shape) // rows)
    return Projection.drawn(shape, vectors, of_rows=of_rows, seed=seed, purpose=f"{purpose} of {region}")


def _pilot_projection(key: Key, seed: int) -> Projection:
    """Return other random vectors than the final ones, whose number must not depend on their own errors."""
    return _projection(key, BLOCKS, seed, "pilot sketch")


class _Pilot:
    """Sketches of a few examples with 8 random vectors, whose products differ by what one vector adds to the error."""

    def __init__(self, gram: GradientGram, gradients: ExampleGradients, seed: int) -> None:
        self.examples, self.seed = len(gram.ids), seed
        self.few = min(PILOT, self.examples)
        self.costs: dict[Key, tuple[float, float]] = {}
        self.sketched: dict[Key, Tensor] = {}
        self.small: dict[Region, Tensor] = {}
        for rows in _batches(gram, gradients):
            self._add(gradients(gram.batch_of(gram.ids[rows])), rows)

    def _add(self, made: BatchGradients, rows: slice) -> None:
        for region, parts in made.parts.items():
            if math.prod(region.shape) <= SMALL:
                whole = torch.stack([part.dense().values for part in parts]).sum(dim=0)
                self._put(self.small, region, whole, made, rows)
                continue
            sides = (True,) if any(isinstance(part, Rows) for part in parts) else (False, True)
            for key in ((region, of_rows) for of_rows in sides):
                sketch = _pilot_projection(key, self.seed)
                self.costs[key] = _costs(parts, sketch, self.examples)
                self._put(self.sketched, key, sketch(parts).values, made, rows)

    def _put(self, into: dict[Any, Tensor], key: Any, values: Tensor, made: BatchGradients, rows: slice) -> None:
        """Store values of a batch; those of batches that do not use a parameter stay 0."""
        whole = into.setdefault(key, torch.zeros(self.few, values.shape[1], dtype=torch.float64))
        whole[rows] = values.double().cpu() * made.scale.cpu()[:, None]

    def options(self) -> dict[Region, list[SketchOption]]:
        """Return the ways to sketch each parameter."""
        products = {key: self._products(key) for key in self.sketched}
        means = {region: products[region, of_rows].mean(dim=0) for region, of_rows in products}
        gram = torch.zeros(self.few, self.few, dtype=torch.float64)
        for of_one in [*means.values(), *(values @ values.T for values in self.small.values())]:
            gram += of_one
        found: dict[Region, list[SketchOption]] = {}
        for key, of_key in products.items():
            found.setdefault(key[0], []).append(SketchOption(key, _variance(of_key, gram), *self.costs[key]))
        return found

    def _products(self, key: Key) -> Float[Tensor, "r n n"]:
        """Return the inner products by each random vector alone."""
        values = Dense(self.sketched[key])
        return _pilot_projection(key, self.seed).products(values, values) * BLOCKS


def _batches(gram: GradientGram, gradients: ExampleGradients) -> Iterator[slice]:
    made = gradients(gram.batch_of(gram.ids[:2]))
    few = min(PILOT, len(gram.ids))
    size = max(1, min(few, gram.budget // (2 * max(1, made.numbers) * gradients.bytes_of_number)))
    yield from (slice(start, min(start + size, few)) for start in range(0, few, size))


def _variance(products: Float[Tensor, "r n n"], gram: Float[Tensor, "n n"]) -> float:
    """Return the mean variance of C_ab over a ≠ b."""
    kept = cosines(gram)[1]
    moved = cosine_changes(gram[kept][:, kept], products[:, kept][:, :, kept])
    apart = ~torch.eye(moved.shape[1], dtype=torch.bool)
    return float(moved.var(dim=0)[apart].mean()) if apart.any() else 0.0


def _costs(parts: Sequence[Part], sketch: Projection, examples: int) -> tuple[float, float]:
    """Return the multiply-adds for each example of one random vector, and of the exact way."""
    written = [part.factors() if isinstance(part, ImageFactors) else part for part in parts]
    exact = sum(_of_exact(part, examples) for part in written)
    return sum(_of_projecting(part) for part in written) + examples * sketch.kept / 2, exact


def _of_projecting(part: Part) -> float:
    if isinstance(part, Rows | Dense):
        return part.values[0].numel()
    return part.numbers


def _of_exact(part: Part, examples: int) -> float:
    if isinstance(part, Rows):
        used = min(part.rows, examples * part.index.shape[1])
        return examples * used * part.values.shape[2] / 2
    if not isinstance(part, GradientFactors):
        return examples * part.entries / 2
    s, g, p = part.left.shape[1:]
    q = part.row
    return min(examples * s * s * g * (p + q) / 2, g * p * q * (s + examples / 2))
