"""One pass over the data serves every measure of every site."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

from nfa.errors import Refusal
from nfa.maths.bfloat16 import bfloat16_products
from nfa.observe.directions import Directions
from nfa.observe.door import few_of, find_sites
from nfa.observe.found_sites import Sites
from nfa.observe.inertness import inert, without_fused_attention
from nfa.observe.layouts import Layout
from nfa.observe.readouts import Features, Readout, ThroughReadout
from nfa.observe.recording import Use
from nfa.observe.records import Part, Record, Source
from nfa.observe.single_examples import gradients
from nfa.workload import Batch, Workload

Precision = Literal["float32", "bfloat16", "float64"]
BATCH_SIZE = 1024  # enough rows for fast products, few enough for 80 MB at 3072-1024×5-10
EVERY_OUTPUT = Directions()
RECORD_BYTES = 2**26  # patches of a convolution are created for no more bytes at a time


@runtime_checkable
class Listener(Protocol):
    """A measure of one site; it receives the records of its source, with the parts that it needs."""

    @property
    def source(self) -> Source: ...

    @property
    def needs(self) -> frozenset[Part]: ...

    def update(self, record: Record) -> None: ...


Measures = Mapping[str, Callable[[Float[Tensor, "o i"]], Sequence[Listener]]]  # the measures of a site, given its W


def observe(
    model: nn.Module,
    workload: Workload,
    batches: Iterable[Batch],
    measures: Measures,
    *,
    sites: Sites | None = None,
    precision: Precision = "float32",
    directions: Directions = EVERY_OUTPUT,
    readout: Readout | None = None,
    record_outputs: Callable[[Tensor, Batch], None] | None = None,
) -> None:
    """Run the model over `batches` and feed every measure, which is created when its site is first recorded.

    `sites` are the sites found before; None finds them now. Through the `readout` found before, gradients of all
    outputs take fewer passes; random directions do not need it. Weights, buffers, optimizer state, gradients, module
    modes and generators stay bitwise as they were. `record_outputs` receives each batch's outputs, so that an
    evaluation needs no pass of its own.
    """
    sites = sites or find_sites(model, workload, few_of(workload))
    sites.check(measures)
    products: AbstractContextManager[None] = bfloat16_products() if precision == "bfloat16" else nullcontext()
    recorded, through = _Pass(sites, measures), ThroughReadout(readout) if readout and not directions.count else None
    names = measures.keys() | ({readout.name} if readout else set())
    with inert(model), products:
        for batch in batches:
            recorder = sites.recorder(model, workload.sites(model), len(batch), names)
            with torch.enable_grad():
                with without_fused_attention(), recorder:
                    outputs = workload.outputs(model, batch)
                uses = recorder.found()
                sources = recorded.begin(uses, batch)
                losses = per_example(workload.losses(outputs, batch), batch) if Source.LOSS in sources else None
            if record_outputs:
                record_outputs(outputs.detach(), batch)
            features = through.features(uses, outputs) if through and Source.OUTPUT in sources else None
            if through and features:
                sources = recorded.tell_slopes(features, through)
            backward = _Backward(outputs, recorded.nodes, directions, batch, through, features)
            for source, direction, found in backward.gradients(losses, sources):
                recorded.tell(source, direction, found)


def site_weights(
    workload: Workload, model: nn.Module, names: Iterable[str], sites: Sites | None = None
) -> dict[str, Tensor]:
    """Return a copy of the weight matrix [o, i] of each named site, as it is applied to a few examples."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Tensor], Sequence[Listener]]:
        return lambda weight: found.setdefault(name, weight)[:0].tolist()

    few = few_of(workload)
    sites = sites or find_sites(model, workload, few)
    observe(model, workload, [few], {name: keep(name) for name in names}, sites=sites)
    return {name: found[name] for name in sites.seen if name in found}


def per_example(losses: Tensor, batch: Batch) -> Tensor:
    """Return the losses; `Refusal` if they are not one number per example."""
    if losses.shape != (len(batch),):
        got, allowed = f"losses of shape {tuple(losses.shape)} for {len(batch)} examples", "one loss for each example"
        remedy = "return the unreduced loss (reduction='none', then a mean over everything but the examples)"
        raise Refusal(got, allowed, remedy)
    return losses


class _Pass:
    """The listeners of every site, and what the current batch holds for them."""

    def __init__(self, sites: Sites, measures: Measures) -> None:
        self.sites, self.measures = sites, measures
        self.listeners: dict[str, Sequence[Listener]] = {}
        self.weights: dict[str, Tensor] = {}
        self.missed = 0  # examples seen before a site was first recorded

    def begin(self, uses: Mapping[str, list[Use]], batch: Batch) -> set[Source]:
        """Start a batch; return what the listeners want to record of it."""
        self.uses, self.batch = {name: uses.get(name, []) for name in self.measures}, batch
        self.new: dict[str, int] = {}
        for name in [name for name in self.measures if name not in self.listeners and uses.get(name)]:
            self.weights[name] = uses[name][0].widened().matrix().detach().clone()
            self.listeners[name] = self.measures[name](self.weights[name])
            self.new[name] = self.missed
        self.missed += len(batch)
        self.nodes = [use.node for of_site in self.uses.values() for use in of_site]
        self.told: set[str] = set()  # sites whose listeners have received slopes
        return self._sources()

    def _sources(self) -> set[Source]:
        heard = {listener.source for listeners in self.listeners.values() for listener in listeners}
        return heard - {Source.OUTPUT} if not any(self._of_source(name, Source.OUTPUT) for name in self.uses) else heard

    def _of_source(self, name: str, source: Source) -> list[Listener]:
        """Return the listeners of a site that have still to receive something of a source in this batch."""
        done = source is Source.OUTPUT and name in self.told
        return [one for one in self.listeners.get(name, ()) if one.source is source and not done]

    def tell_slopes(self, features: Features, through: ThroughReadout) -> set[Source]:
        """Feed the listeners that need slopes where there are any; return what the others still want."""
        behind = {name: self._of_source(name, Source.OUTPUT) for name in self.uses if name in through.readout.behind}
        needing = [name for name, of in behind.items() if of and all(Part.SLOPES in one.needs for one in of)]
        slopes = features.slopes({name: self.uses[name] for name in needing}, self.sites)
        for name, slope in slopes.items():
            self._tell_missed(name, behind[name], 0)
            for listener in behind[name]:
                listener.update(Record(gradient=slope[:, None], readout=through.rows))
        self.told = set(slopes)
        return self._sources()

    def tell(self, source: Source, direction: int, found: Sequence[Tensor | None]) -> None:
        """Feed the listeners of a source; `found` are the gradients of all nodes."""
        start = 0
        for name, uses in self.uses.items():
            stop = start + len(uses)
            listeners = self._of_source(name, source)
            self._tell_missed(name, listeners, direction)
            if listeners and uses:
                self._tell(name, uses, listeners, direction, found[start:stop])
            start = stop

    def _tell_missed(self, name: str, listeners: list[Listener], direction: int) -> None:
        """Count examples for which a site was not called."""
        examples = self.new.get(name, 0) + (0 if self.uses[name] else len(self.batch))
        if not (listeners and examples):
            return
        h, z = (self.weights[name].new_zeros(examples, 0, size) for size in reversed(self.weights[name].shape))
        for listener in listeners:
            listener.update(Record(h, z, z, direction))

    def _tell(
        self, name: str, uses: list[Use], listeners: list[Listener], direction: int, found: Sequence[Tensor | None]
    ) -> None:
        needs = frozenset().union(*(listener.needs for listener in listeners))
        place, n = self.sites.seen[name].place, len(self.batch)
        for part in _parts(uses, needs, n):
            layouts = [use.at(place, n).of(part) for use in uses]
            record = Record(
                inputs=self._own(uses, layouts, Use.inputs) if Part.INPUTS in needs else None,
                outputs=self._own(uses, layouts, Use.values) if Part.OUTPUTS in needs else None,
                gradient=_joined(map(Use.delta, uses, layouts, found)) if found else None,
                direction=direction,
                fixed=all(use.fixed for use in uses),
            )
            for listener in listeners:
                listener.update(record)

    def _own(self, uses: list[Use], layouts: list[Layout], read: Callable[[Use, Layout], Tensor]) -> Tensor:
        """Return rows [n, s, f] with 0 at padding, for which a causal model computes values too."""
        rows, present = list(map(read, uses, layouts)), self.batch.present
        if present is None:
            return _joined(rows)
        pairs = zip(rows, layouts, strict=True)
        return _joined(one.masked_fill(~at.own(present, one.shape[1]).unsqueeze(2), 0) for one, at in pairs)


def _joined(rows: Iterable[Float[Tensor, "n s f"]]) -> Float[Tensor, "n s f"]:
    """Concatenate several uses along s."""
    found = list(rows)
    return found[0] if len(found) == 1 else torch.cat(found, dim=1)


@dataclass(frozen=True)
class _Backward:
    """The backward passes of one batch, one at a time, so that only one pass's tensors are in memory."""

    outputs: Tensor
    nodes: Sequence[object]
    directions: Directions
    batch: Batch
    through: ThroughReadout | None
    features: Features | None

    def gradients(
        self, losses: Tensor | None, sources: set[Source]
    ) -> Iterator[tuple[Source, int, Sequence[Tensor | None]]]:
        """Yield what the sources ask for."""
        more = Source.OUTPUT in sources
        if Source.FORWARD in sources:
            yield Source.FORWARD, 0, []
        if losses is not None:
            c = torch.ones_like(losses) + _undefined(losses)
            yield Source.LOSS, 0, gradients(losses, self.nodes, c, keep=more)
        for direction, found in enumerate(self._of_outputs() if more else ()):
            yield Source.OUTPUT, direction, found

    def _of_outputs(self) -> Iterator[Sequence[Tensor | None]]:
        undefined = _undefined(self.outputs)
        if self.through and self.features and self.through.factors:
            yield from self.through.gradients(self.features, self.nodes, undefined)
            return
        last = self.directions.passes(self.outputs) - 1
        for direction, cotangent in enumerate(self.directions.cotangents(self.outputs, self.batch.ids)):
            yield gradients(self.outputs, self.nodes, cotangent + undefined, keep=direction < last)


def _undefined(values: Tensor) -> Tensor:
    """Return 0, and NaN where a value is not finite: it has no gradient, although a layer such as ReLU gives it one."""
    return values.detach() - values.detach()


def _parts(uses: Sequence[Use], needs: frozenset[Part], n: int) -> Iterator[slice]:
    """Yield all examples at once, or a few at a time if their patches are large."""
    numbers = max(use.rule.unfolded(use.own(use.output), inputs=Part.INPUTS in needs) for use in uses)
    each = numbers * uses[0].output.element_size() // n
    size = n if each == 0 else max(1, min(n, RECORD_BYTES // each))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
