"""The Gram matrix of per-example gradients."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

from nfa.console import bar
from nfa.errors import Refusal
from nfa.maths.example_gradients import COLUMNS
from nfa.maths.float32_products import full_float32
from nfa.maths.gradient_sketch import Projection
from nfa.measures.gradient_store import GradientStore, numbers
from nfa.observe.example_gradients import ExampleGradients, Losses
from nfa.observe.gradient_reading import Door
from nfa.observe.name_patterns import matching
from nfa.observe.parameter_regions import Region
from nfa.observe.sizes import numbers_of
from nfa.workload import Batch, Workload

BUDGET = 2**31  # bytes of gradients held at a time
AT_ONCE = 2**25  # bytes of inputs and gradients of layers in one pass, which a processor's cache nearly holds
FEW = 4  # examples on which a model is checked
LEAST, MOST = 32, 512  # examples in one pass, if their gradients fit
SHIFTS = 16  # groups of independent errors of sketches


class GramWork(NamedTuple):
    """What a Gram matrix has taken: passes, examples in all of them, pairs of examples whose factors were multiplied,
    and products of gradients that were written out.
    """

    passes: int = 0
    examples: int = 0
    pairs: int = 0
    products: int = 0


class GradientGram:
    """Compute K_ab = ⟨γ_a, γ_b⟩ [n, n] in float64, where γ_a = ∂ℓ_a/∂θ over the named parameters θ.

    An example with a zero gradient has K_aa = 0. Besides K, memory holds gradients in their cheapest form, within
    `budget` bytes where single examples are small enough for that. If those of all examples do not fit, passes are
    repeated for each group of examples that fits.

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
        self.examples, self.most = len(self.ids), MOST
        self.work = GramWork()
        self.sketches: Mapping[Region, Projection] = {}
        self.shifts: Float[Tensor, "g n n"] | None = None
        self._scales = False  # whether gradients are so small or large that products of float32 numbers are not exact
        self._used: list[Tensor] = []  # tables of the last checkpoint
        self._bytes: dict[int, tuple[int, int]] = {}  # of an example in a pass, and in a store, by number of sketches

    def trial(self, examples: int, batch: int) -> "GradientGram":
        """Return the same computation, in the same forms of gradients, for a few examples in batches of that size."""
        few = copy.copy(self)
        few.ids, few.most, few.door = self.ids[:examples], batch, copy.deepcopy(self.door)
        return few

    @full_float32()
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
        gradients.scales = self._scales or bool(self.sketches)
        found, in_range = self._found(gradients, progress)
        if not in_range and not gradients.scales:
            self._scales = gradients.scales = True  # at the next checkpoints, too
            found, _ = self._found(gradients, progress)
        self._used = [one for one in self._used if one.device.type == "cpu"]  # elsewhere new memory takes no time
        self.shifts = found[1:] if self.sketches else None
        return found[0]

    def _found(self, gradients: ExampleGradients, progress: str) -> tuple[Float[Tensor, "g n n"], bool]:
        """Return the matrix, followed by the shifts of sketches, and whether float32 could hold all products."""
        size, group = self._sizes(gradients)
        n, shifts = len(self.ids), self.groups()
        found = torch.zeros(1 + shifts, n, n, dtype=torch.float64)
        groups = [slice(start, min(start + group, n)) for start in range(0, n, group)]
        passes, in_range = iter(self._passes(groups, size, progress)), True
        for held in groups:
            store = self._stored(self._store(held, size), held, size, gradients, passes)
            found[:, held, held] = store.gram(shifts)
            for rows in _parts(slice(held.stop, n), size):
                other = self._stored(self._store(rows, size, store), rows, size, gradients, passes)
                block = store.with_other(other, shifts)
                found[:, held, rows], found[:, rows, held] = block, block.mT
            self._add_work(pairs=store.pairs, products=store.products)
            self._used, in_range = store.tables.memory, in_range and store.in_range
            del store  # before the next is filled
        next(passes, None)
        return found, in_range

    def open(self, model: nn.Module, losses: Losses | None = None) -> ExampleGradients:
        """Return what computes the gradients of a model; the first one is checked on a few examples."""
        few = self.batch_of(self.ids[:FEW])
        gradients = ExampleGradients(model, self.workload, self.parameters, few, losses, self.door)
        self.door, self.exact = gradients.door, gradients.door.exact
        return gradients

    def at_once(self, model: nn.Module) -> bool:
        """Tell whether one pass over the examples is enough: exact gradients of all fit into the budget, or need not be
        kept.
        """
        return self._sizes(self.open(model))[1] >= len(self.ids)

    def memory(self, model: nn.Module) -> dict[str, float]:
        """Return the bytes that a matrix takes on the model's device: of gradients that are held, of one pass, and of
        products.
        """
        gradients, n = self.open(model), len(self.ids)
        size, group = self._sizes(gradients)
        passing, held = self._bytes[len(self.sketches)]
        forward = gradients.bytes_of_number * numbers_of(model, self.workload, self.batch_of(self.ids[:FEW]))
        of_gradients = min(n, group + size) * (min(held, gradients.bytes_of_number * COLUMNS) if n <= size else held)
        of_pass = min(size, n) * (passing + forward)
        return {"gradients": of_gradients, "one pass": of_pass, "products": 16.0 * group**2}

    def batch_of(self, ids: Sequence[int]) -> Batch:
        """Return some of the examples as one batch."""
        return next(iter(self.workload.batches("train", batch_size=len(ids), ids=ids)))

    def _store(self, rows: slice, size: int, like: GradientStore | None = None) -> GradientStore:
        examples, at_once = rows.stop - rows.start, rows.stop - rows.start == len(self.ids) <= size
        used, self._used = ([], self._used) if like else (self._used, [])
        return GradientStore(examples, self.examples, self.sketches, like, used, at_once=at_once)

    def groups(self) -> int:
        """Return the number of shifts; there are fewer where they would take more memory than gradients."""
        return max(2, min(SHIFTS, self.budget // (8 * len(self.ids) ** 2))) if self.sketches else 0

    def _sizes(self, gradients: ExampleGradients) -> tuple[int, int]:
        """Return how many examples to pass at a time, and of how many to hold the gradients."""
        passing, held = self._bytes.get(len(self.sketches)) or self._measured(gradients)
        size = min(self.most, max(LEAST, AT_ONCE // passing), max(1, self.budget // (2 * passing)))
        fitting = max(2, self.budget // held)
        if len(self.ids) <= max(size, fitting):
            return size, len(self.ids)
        size = max(1, min(size, fitting // 8))  # seven batches are held while the others pass
        return size, (fitting // size - 1) * size

    def _measured(self, gradients: ExampleGradients) -> tuple[int, int]:
        """Return the bytes of an example in a pass and in a store, from a pass of a few."""
        made = gradients(self.batch_of(self.ids[:FEW]))
        self._add_work(passes=1, examples=len(made.scale))
        of_both = made.numbers, numbers(made, self.examples, self.sketches)
        passing, held = (max(1, one * gradients.bytes_of_number) for one in of_both)
        self._bytes[len(self.sketches)] = passing, held
        return passing, held

    def _stored(
        self, store: GradientStore, examples: slice, size: int, gradients: ExampleGradients, passes: Iterator[int]
    ) -> GradientStore:
        """Fill a store with the gradients of some examples."""
        for rows in _parts(examples, size):
            next(passes)
            places = slice(rows.start - examples.start, rows.stop - examples.start)
            scale = gradients.hand_over(self.batch_of(self.ids[rows]), partial(store.put, places))
            store.end(places, scale)
            self._add_work(passes=1, examples=rows.stop - rows.start)
        return store

    def _passes(self, groups: Sequence[slice], size: int, progress: str) -> Iterable[int]:
        """Return a range over all passes, with a progress bar if it has a label."""
        total = sum(-(-(one.stop - one.start) // size) + -(-(len(self.ids) - one.stop) // size) for one in groups)
        return bar(range(total), progress, unit="batch") if progress else range(total)

    def _add_work(self, **more: int) -> None:
        self.work = self.work._replace(**{name: getattr(self.work, name) + value for name, value in more.items()})


def _parts(examples: slice, size: int) -> list[slice]:
    return [slice(start, min(start + size, examples.stop)) for start in range(examples.start, examples.stop, size)]


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
