"""The Gram matrix of per-example gradients."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

from nfa.console import bar
from nfa.errors import Refusal
from nfa.maths.float32_products import full_float32
from nfa.measures.gradient_store import GradientStore, numbers
from nfa.observe.example_gradients import ExampleGradients, Losses
from nfa.observe.gradient_reading import Door
from nfa.observe.name_patterns import matching
from nfa.workload import Batch, Workload

BUDGET = 2**30  # bytes of gradients held at a time
AT_ONCE = 2**25  # bytes of inputs and gradients of layers in one pass, which a processor's cache nearly holds
FEW = 4  # examples on which a model is checked
LEAST, MOST = 16, 512  # examples in one pass, if their gradients fit


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
    """

    def __init__(
        self, workload: Workload, ids: Sequence[int], parameters: Sequence[str], *, budget: int = BUDGET
    ) -> None:
        self.workload, self.ids, self.parameters, self.budget = workload, list(ids), list(parameters), budget
        self.exact: list[str] = []
        self.door: Door | None = None
        self.examples, self.most = len(self.ids), MOST
        self.work = GramWork()
        self._bytes: tuple[int, int] | None = None  # of an example in a pass, and in a store

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
        few = self._batch(slice(FEW))
        gradients = ExampleGradients(model, self.workload, self.parameters, few, losses, self.door)
        self.door, self.exact = gradients.door, gradients.door.exact
        size, group = self._sizes(gradients, few)
        gram = torch.zeros(len(self.ids), len(self.ids), dtype=torch.float64)
        groups = [slice(start, min(start + group, len(self.ids))) for start in range(0, len(self.ids), group)]
        passes = iter(self._passes(groups, size, progress))
        for held in groups:
            store = self._stored(GradientStore(held.stop - held.start, self.examples), held, size, gradients, passes)
            gram[held, held] = store.gram()
            for rows in _parts(slice(held.stop, len(self.ids)), size):
                other = GradientStore(rows.stop - rows.start, self.examples, store)
                block = store.with_other(self._stored(other, rows, size, gradients, passes))
                gram[held, rows], gram[rows, held] = block, block.T
            self._add_work(pairs=store.pairs, products=store.products)
        next(passes, None)
        return gram

    def _sizes(self, gradients: ExampleGradients, few: Batch) -> tuple[int, int]:
        """Return how many examples to pass at a time, and of how many to hold the gradients."""
        if not self._bytes:
            made = gradients(few)
            self._add_work(passes=1, examples=len(few))
            element = next(iter(gradients.parameters.values())).element_size()
            self._bytes = max(1, made.numbers * element), max(1, numbers(made, self.examples) * element)
        passing, held = self._bytes
        size = min(self.most, max(LEAST, AT_ONCE // passing))
        fitting = max(2, self.budget // max(passing, held))
        if fitting >= len(self.ids):
            return size, len(self.ids)
        size = max(1, min(size, fitting // 8))  # seven batches are held while the others pass
        return size, (fitting // size - 1) * size

    def _stored(
        self, store: GradientStore, examples: slice, size: int, gradients: ExampleGradients, passes: Iterator[int]
    ) -> GradientStore:
        """Fill a store with the gradients of some examples."""
        for rows in _parts(examples, size):
            next(passes)
            store.put(slice(rows.start - examples.start, rows.stop - examples.start), gradients(self._batch(rows)))
            self._add_work(passes=1, examples=rows.stop - rows.start)
        return store

    def _passes(self, groups: Sequence[slice], size: int, progress: str) -> Iterable[int]:
        """Return a range over all passes, with a progress bar if it has a label."""
        total = sum(-(-(one.stop - one.start) // size) + -(-(len(self.ids) - one.stop) // size) for one in groups)
        return bar(range(total), progress, unit="batch") if progress else range(total)

    def _batch(self, rows: slice) -> Batch:
        ids = self.ids[rows]
        return next(iter(self.workload.batches("train", batch_size=len(ids), ids=ids)))

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
