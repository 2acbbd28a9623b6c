"""The Gram matrix of per-example gradients, without storing the gradients."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

from nfa.console import bar
from nfa.errors import Refusal
from nfa.maths.example_gradients import Part
from nfa.maths.gradient_inner_products import inner
from nfa.maths.gradient_sketch import BLOCKS, Projection, paired_differences
from nfa.observe.example_gradients import BatchGradients, ExampleGradients, Losses
from nfa.observe.gradient_reading import Door
from nfa.observe.name_patterns import matching
from nfa.observe.parameter_regions import Region
from nfa.workload import Batch, Workload

BUDGET = 2**30  # bytes of gradients held at a time
FEW = 4  # examples on which a model is checked
BATCH = 512  # the largest number of examples per pass
SHIFTS = 16  # groups of independent errors of sketches


class GramWork(NamedTuple):
    """What a Gram matrix has taken: passes, examples in all of them, and pairs of examples that were multiplied."""

    passes: int = 0
    examples: int = 0
    pairs: int = 0


class GradientGram:
    """Compute K_ab = ⟨γ_a, γ_b⟩ [n, n] in float64, where γ_a = ∂ℓ_a/∂θ over the named parameters θ.

    An example with a zero gradient has K_aa = 0. Besides K, memory holds the gradients of some batches in their
    cheapest form, within `budget` bytes where single examples are small enough for that. If not all gradients fit,
    passes are repeated for each pair of groups of batches.

    Args:
        workload: The workload that has the examples and the loss.
        ids: The ids of the examples, from the training split.
        parameters: The names of the parameters θ.
        budget: The memory for gradients, in bytes.

    Attributes:
        work: What the last matrix has taken.
        sketches: The parameters whose gradients are sketched, and how; the others are exact. It starts empty.
        shifts: Independent shifts [g, n, n] of the last matrix: Σ_g shift² is unbiased for the squared standard error
            of each of its entries; None if it is exact.
    """

    def __init__(
        self, workload: Workload, ids: Sequence[int], parameters: Sequence[str], *, budget: int = BUDGET
    ) -> None:
        self.workload, self.ids, self.parameters, self.budget = workload, list(ids), list(parameters), budget
        self.exact: list[str] = []
        self.door: Door | None = None
        self.examples, self.batch = len(self.ids), BATCH
        self.work = GramWork()
        self.sketches: Mapping[Region, Projection] = {}
        self.shifts: Float[Tensor, "g n n"] | None = None

    def trial(self, examples: int, batch: int) -> "GradientGram":
        """Return the same computation, in the same forms of gradients, for a few examples in batches of that size."""
        few = copy.copy(self)
        few.ids, few.batch, few.door = self.ids[:examples], batch, copy.deepcopy(self.door)
        return few

    def __call__(self, model: nn.Module, losses: Losses | None = None, *, progress: str = "") -> Float[Tensor, "n n"]:
        """Return K of a model.

        Args:
            model: The model; its weights, gradients and modes stay as they are.
            losses: A function that gives one loss per example; None takes the workload's own loss.
            progress: The label of a progress bar; empty shows none.

        Returns:
            The Gram matrix K [n, n].

        Raises:
            Refusal: A parameter or the loss has no per-example gradient.
        """
        self.work = GramWork()
        gradients = self.open(model, losses)
        chunks, n = self._chunks(gradients), len(self.ids)
        found = torch.zeros(1 + self._groups(), n, n, dtype=torch.float64)
        for (rows, a), (columns, b) in self._pairs(gradients, chunks, progress):
            block = self.block(a, b)
            self._add_work(pairs=block[0].numel())
            block = block if rows != columns else (block + block.mT) / 2  # rounding is not symmetric
            found[:, rows, columns], found[:, columns, rows] = block, block.mT
        self.shifts = found[1:] if self.sketches else None
        return found[0]

    def open(self, model: nn.Module, losses: Losses | None = None) -> ExampleGradients:
        """Return what computes the gradients of a model; the first one is checked on a few examples."""
        few = self.batch_of(self.ids[:FEW])
        gradients = ExampleGradients(model, self.workload, self.parameters, few, losses, self.door)
        self.door, self.exact = gradients.door, gradients.door.exact
        return gradients

    def at_once(self, model: nn.Module) -> bool:
        """Tell whether the exact gradients of all examples fit into the budget, so that one pass is enough."""
        gradients = self.open(model)
        made = gradients(self.batch_of(self.ids[:2]))
        return self._fitting(gradients, made, exact=True) >= len(self.ids)

    def _add_work(self, *, passes: int = 0, examples: int = 0, pairs: int = 0) -> None:
        before = self.work
        self.work = GramWork(before.passes + passes, before.examples + examples, before.pairs + pairs)

    def batch_of(self, ids: Sequence[int]) -> Batch:
        """Return some of the examples as one batch."""
        return next(iter(self.workload.batches("train", batch_size=len(ids), ids=ids)))

    def _chunks(self, gradients: ExampleGradients) -> list[slice]:
        """Return batches that all fit into the budget, or of which eight do: seven are stored while the others pass."""
        few = self.batch_of(self.ids[:FEW])
        made = gradients(few)
        self._add_work(passes=1, examples=len(few))
        self.held = max(2, self._fitting(gradients, made))  # examples held
        size = max(1, min(self.batch, self.held if self.held >= len(self.ids) else self.held // 8))
        if self.sketches:  # what is stored is smaller than what a pass needs
            size = min(size, max(1, self.budget // (2 * max(1, made.numbers) * gradients.bytes_of_number)))
        return [slice(start, min(start + size, len(self.ids))) for start in range(0, len(self.ids), size)]

    def _fitting(self, gradients: ExampleGradients, made: BatchGradients, *, exact: bool = False) -> int:
        """Return of how many examples the gradients fit into the budget."""
        if self.sketches and not exact:
            numbers = self.stored(made).numbers
        else:
            numbers = max(made.numbers, self._cheapest(made).numbers)
        return self.budget // max(1, numbers * gradients.bytes_of_number)

    def _cheapest(self, gradients: BatchGradients) -> BatchGradients:
        parts = {key: [part.compact(self.examples) for part in found] for key, found in gradients.parts.items()}
        return BatchGradients(parts, gradients.scale)

    def stored(self, gradients: BatchGradients) -> BatchGradients:
        """Return the gradients as they are stored: sketched, or in their cheapest form."""
        exact = {key: found for key, found in gradients.parts.items() if key not in self.sketches}
        made: dict[Region, list[Part]] = dict(self._cheapest(BatchGradients(exact, gradients.scale)).parts)
        made |= {key: [self.sketches[key](found)] for key, found in gradients.parts.items() if key in self.sketches}
        return BatchGradients(made, gradients.scale)

    def _groups(self) -> int:
        """Return the number of shifts; there are fewer where they would take more memory than gradients."""
        return max(2, min(SHIFTS, self.budget // (8 * len(self.ids) ** 2))) if self.sketches else 0

    def block(self, a: BatchGradients, b: BatchGradients) -> Float[Tensor, "g n m"]:
        """Return the inner products of stored gradients, and their shifts."""
        return _sketched_block(a, b, self.sketches, self._groups()) if self.sketches else _block(a, b)[None]

    def _pairs(
        self, gradients: ExampleGradients, chunks: list[slice], progress: str
    ) -> Iterator[tuple[tuple[slice, BatchGradients], tuple[slice, BatchGradients]]]:
        """Yield every pair of batches once, with their gradients."""
        size = chunks[0].stop
        fitting = max(1, self.held // size - (len(self.ids) > self.held))  # batches that stay in memory
        groups = math.ceil(len(chunks) / fitting)
        passes = sum(len(chunks) - group * fitting for group in range(groups))
        made = iter(bar(range(passes), progress, unit="batch")) if progress else iter(range(passes))
        for start in range(0, len(chunks), fitting):
            kept: list[tuple[slice, BatchGradients]] = []
            for place in range(start, len(chunks)):
                next(made)
                part = chunks[place]
                here = (part, self.stored(gradients(self.batch_of(self.ids[part]))))
                self._add_work(passes=1, examples=part.stop - part.start)
                if place < start + fitting:
                    kept.append(here)
                for other in kept:
                    yield other, here
        next(made, None)


def _block(a: BatchGradients, b: BatchGradients) -> Float[Tensor, "n m"]:
    total = torch.zeros(len(a.scale), len(b.scale), dtype=torch.float64)
    for key in [key for key in a.parts if key in b.parts]:
        total += inner(a.parts[key], b.parts[key]).double().cpu()
    return a.scale.cpu()[:, None] * total * b.scale.cpu()


def _sketched_block(
    a: BatchGradients, b: BatchGradients, sketches: Mapping[Region, Projection], groups: int
) -> Float[Tensor, "g n m"]:
    """Return the inner products of two batches, and their shifts."""
    total = torch.zeros(1 + groups, len(a.scale), len(b.scale), dtype=torch.float64)
    for place, (key, sketch) in enumerate(sketches.items()):
        if key in a.parts and key in b.parts:
            products = sketch.products(a.parts[key][0].dense(), b.parts[key][0].dense()).double().cpu()
            total[0] += products.sum(dim=0)
            for pair, shift in enumerate(paired_differences(products), place * BLOCKS // 2):
                total[1 + pair % groups] += shift
    total = a.scale.cpu()[:, None] * total * b.scale.cpu()
    exact = [BatchGradients({k: of for k, of in x.parts.items() if k not in sketches}, x.scale) for x in (a, b)]
    total[0] += _block(*exact)
    return total


def choose_parameters(workload: Workload, model: nn.Module, pattern: str = "all") -> list[str]:
    """Return the names of the trainable parameters that a pattern matches.

    Args:
        workload: The workload, whose site names may be used in the pattern.
        model: The model.
        pattern: Comma-separated globs that match the name of a parameter, its module or a site; "all" matches
            everything.

    Returns:
        The names, in the model's order.

    Raises:
        Refusal: Nothing in the model is trainable, or a part of the pattern matches nothing.
    """
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not trainable:
        raise Refusal("a model without trainable parameters", "at least one trainable parameter", "set requires_grad")
    if pattern.strip() == "all":
        return trainable
    aliases = {name: {name, name.rpartition(".")[0]} for name in trainable}
    for site, module in workload.sites(model).items():
        inside = {id(parameter) for parameter in module.parameters()}
        for name, parameter in model.named_parameters():
            if id(parameter) in inside and name in aliases:
                aliases[name].add(site)
    return matching(pattern, trainable, [sorted(aliases[name] - {""}) for name in trainable])
