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
from nfa.observe.directions import Directions
from nfa.observe.records import Part, Record, Source
from nfa.protocols import Batch, Workload

Precision = Literal["float32", "bfloat16", "float64"]
BATCH_SIZE = 1024  # enough rows for fast products, few enough for 80 MB at 3072-1024×5-10
EVERY_OUTPUT = Directions()
RECORD_BYTES = 2**26  # patches of a convolution are made for so many examples at a time


@runtime_checkable
class Listener(Protocol):
    """A measure of one site: hears the records of its source, with the parts it needs."""

    @property
    def source(self) -> Source: ...

    @property
    def needs(self) -> frozenset[Part]: ...

    def update(self, record: Record) -> None: ...


Measures = Mapping[str, Sequence[Listener]]


def observe(
    model: nn.Module,
    workload: Workload,
    batches: Iterable[Batch],
    measures: Measures,
    *,
    precision: Precision = "float32",
    directions: Directions = EVERY_OUTPUT,
    hear_outputs: Callable[[Tensor, Batch], None] | None = None,
) -> None:
    """Run the model over `batches` and feed every measure, given by site name.

    Weights, optimizer state, gradients, module modes and generators stay bitwise as they were.
    `hear_outputs` gets each batch's outputs, so that an evaluation needs no pass of its own.
    """
    sites = sites_of(workload.sites(model), measures)
    for name, site in sites.items():
        site.copies_outputs = any(Part.OUTPUTS in listener.needs for listener in measures[name])
    sources = {listener.source for listeners in measures.values() for listener in listeners}
    products: AbstractContextManager[None] = bfloat16_products() if precision == "bfloat16" else nullcontext()
    with inert(model), products:
        for batch in batches:
            with captured(sites, len(batch)), torch.enable_grad():
                outputs = workload.outputs(model, batch)
                losses = per_example(workload.losses(outputs, batch), batch) if Source.LOSS in sources else None
            if hear_outputs:
                hear_outputs(outputs.detach(), batch)
            for source, direction, gradients in _gradients(outputs, losses, sites, sources, directions, batch):
                _tell(measures, sites, source, direction, gradients, batch)


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
    outputs: Tensor,
    losses: Tensor | None,
    sites: Mapping[str, Site],
    sources: set[Source],
    directions: Directions,
    batch: Batch,
) -> Iterator[tuple[Source, int, list[Tensor | None]]]:
    """Everything the sources ask for, one backward pass at a time, so that one pass's tensors live at once."""
    nodes = [call.node for site in sites.values() for call in site.calls]
    if Source.FORWARD in sources:
        yield Source.FORWARD, 0, []
    if losses is not None:
        more = Source.OUTPUT in sources
        ones = torch.ones_like(losses) + _undefined(losses)
        yield Source.LOSS, 0, list(torch.autograd.grad(losses, nodes, ones, retain_graph=more, allow_unused=True))
    if Source.OUTPUT in sources:
        last, undefined = directions.passes(outputs) - 1, _undefined(outputs)
        for direction, cotangent in enumerate(directions.cotangents(outputs, batch.ids)):
            more = direction < last
            grads = torch.autograd.grad(outputs, nodes, cotangent + undefined, retain_graph=more, allow_unused=True)
            yield Source.OUTPUT, direction, list(grads)


def _undefined(values: Tensor) -> Tensor:
    """0, and nan where a value is not finite: it has no gradient, though a layer such as ReLU gives it one."""
    return values.detach() - values.detach()


def _tell(
    measures: Measures,
    sites: Mapping[str, Site],
    source: Source,
    direction: int,
    gradients: list[Tensor | None],
    batch: Batch,
) -> None:
    start, n = 0, len(batch)
    for name, site in sites.items():
        stop = start + len(site.calls)
        listeners = [listener for listener in measures[name] if listener.source is source]
        needs = frozenset().union(*(listener.needs for listener in listeners))
        for part in _parts(site, needs, n) if listeners else ():
            record = Record(
                inputs=_own(site, site.inputs(n, part), batch, part) if Part.INPUTS in needs else None,
                outputs=_own(site, site.outputs(n, part), batch, part) if Part.OUTPUTS in needs else None,
                gradient=site.gradients(gradients[start:stop], n, part) if gradients else None,
                direction=direction,
                fixed=site.fixed,
            )
            for listener in listeners:
                listener.update(record)
        start = stop


def _own(site: Site, rows: Tensor, batch: Batch, part: slice) -> Tensor:
    """Rows [n s f] with 0 where a position only pads its example, which a causal model computes all the same."""
    if batch.present is None:
        return rows
    own = batch.present[part]
    if own.shape != rows.shape[:2]:
        raise Refusal(
            f"site {site.name!r}, which sees {rows.shape[1]} positions of examples padded to {own.shape[1]}",
            "layers that see every position once",
            "leave the site out",
        )
    return rows.masked_fill(~own.unsqueeze(2), 0)


def _parts(site: Site, needs: frozenset[Part], n: int) -> Iterator[slice]:
    """All examples at once, or few at a time where their inputs, unfolded, are large."""
    bytes_each = 0
    if Part.INPUTS in needs:
        positions = max(call.outputs[0].numel() for call in site.calls) // site.weight.shape[0]
        bytes_each = positions * site.weight.shape[1] * site.calls[0].inputs.element_size()
    size = n if bytes_each == 0 else max(1, min(n, RECORD_BYTES // bytes_each))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
