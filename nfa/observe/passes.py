"""One pass over the data serves every measure of every site."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn as nn
from torch import Tensor

from nfa.errors import Refusal
from nfa.maths.bfloat16 import bfloat16_products
from nfa.observe.capture import Site, captured, inert, sites_of
from nfa.observe.records import Record, Source
from nfa.protocols import Batch, Workload

Precision = Literal["float32", "bfloat16"]
BATCH_SIZE = 1024  # enough rows for fast products, few enough for 80 MB at 3072-1024×5-10


@runtime_checkable
class Listener(Protocol):
    """A measure of one site: hears the records of its source."""

    @property
    def source(self) -> Source: ...

    def update(self, record: Record) -> None: ...


def observe(
    model: nn.Module,
    workload: Workload,
    batches: Iterable[Batch],
    measures: Mapping[str, Sequence[Listener]],
    *,
    precision: Precision = "float32",
    hear_outputs: Callable[[Tensor, Batch], None] | None = None,
) -> None:
    """Run the model over `batches` and feed every measure, given by site name.

    Weights, optimizer state, gradients, module modes and generators stay bitwise as they were.
    `hear_outputs` gets each batch's outputs, so that an evaluation needs no pass of its own.
    """
    modules = workload.sites(model)
    sites = sites_of({name: modules[name] for name in measures})
    sources = {listener.source for listeners in measures.values() for listener in listeners}
    products: AbstractContextManager[None] = bfloat16_products() if precision == "bfloat16" else nullcontext()
    with inert(model), products:
        for batch in batches:
            with captured(sites), torch.enable_grad():
                outputs = workload.outputs(model, batch)
                losses = per_example(workload.losses(outputs, batch), batch) if Source.LOSS in sources else None
            if hear_outputs:
                hear_outputs(outputs.detach(), batch)
            for source, direction, gradients in _gradients(outputs, losses, sites, sources):
                _tell(measures, sites, source, direction, gradients)


def per_example(losses: Tensor, batch: Batch) -> Tensor:
    """`losses` as they are; `Refusal` where they are not one for each example."""
    if losses.shape != (len(batch),):
        raise Refusal(
            f"losses of shape {tuple(losses.shape)} for {len(batch)} examples",
            "one loss for each example",
            "return the unreduced loss (reduction='none', then a mean over everything but the examples)",
        )
    return losses


def _gradients(
    outputs: Tensor, losses: Tensor | None, sites: Mapping[str, Site], sources: set[Source]
) -> Iterator[tuple[Source, int, list[Tensor | None]]]:
    """Everything the sources ask for, one backward pass at a time, so that one pass's tensors live at once."""
    nodes = [node for site in sites.values() for node in site.nodes]
    if Source.INPUT in sources:
        yield Source.INPUT, 0, []
    if losses is not None:
        ones, more = torch.ones_like(losses), Source.OUTPUT in sources
        grads = torch.autograd.grad(losses, nodes, ones, retain_graph=more, allow_unused=True)
        yield Source.LOSS, 0, list(grads)
    if Source.OUTPUT in sources:
        directions = outputs[0].numel()
        for direction in range(directions):
            onehot = outputs.new_zeros(len(outputs), directions)
            onehot[:, direction] = 1
            more = direction < directions - 1
            onehot = onehot.view(outputs.shape)
            grads = torch.autograd.grad(outputs, nodes, onehot, retain_graph=more, allow_unused=True)
            yield Source.OUTPUT, direction, list(grads)


def _tell(
    measures: Mapping[str, Sequence[Listener]],
    sites: Mapping[str, Site],
    source: Source,
    direction: int,
    gradients: list[Tensor | None],
) -> None:
    start = 0
    for name, site in sites.items():
        stop = start + len(site.outputs)
        listeners = [listener for listener in measures[name] if listener.source is source]
        if listeners:
            gradient = site.joined_gradients(gradients[start:stop]) if gradients else None
            record = Record(site.joined_inputs(), gradient, direction)
            for listener in listeners:
                listener.update(record)
        start = stop
