"""Each site's inputs and the node of its output in the autograd graph, kept while the real model runs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from nfa.errors import Refusal
from nfa.observe.rules import Rule, rules_for
from nfa.seeding import untouched


@dataclass
class Call:
    """One call of a site: what went in, what came out, and where that is in the autograd graph.

    `node` stays that of z where an activation works in place; `outputs` then hold z only if they were copied.
    """

    inputs: Tensor
    outputs: Tensor
    node: GradientEdge
    fixed: bool
    version: int
    columns: slice = field(default_factory=lambda: slice(None))


@dataclass
class Site:
    """A named linear map with its rule; `calls` are those of the last forward pass."""

    name: str
    module: nn.Module
    rule: Rule
    calls: list[Call] = field(default_factory=list)
    copies_outputs: bool = False

    @property
    def weight(self) -> Tensor:
        """W [o i]."""
        return self.rule.weight(self.module)

    @property
    def fixed(self) -> bool:
        """Whether h depends on no trainable parameter, so that it is the same at every checkpoint."""
        return all(call.fixed for call in self.calls)

    def heard(self, inputs: Tensor, output: Tensor, columns: slice = slice(None)) -> Tensor:
        """Keep a call; the output to go on with, which has a place in the autograd graph."""
        if not torch.is_grad_enabled():
            got = f"site {self.name!r}, which is called inside torch.no_grad()"
            raise Refusal(got, "layers that gradients flow through", "leave the site out, or the no_grad block")
        fixed = not inputs.requires_grad
        # A frozen network builds no graph; its first site starts one, from a leaf that nothing can edit in place.
        output = output if output.requires_grad else output.detach().requires_grad_().clone()
        # Editing a view in place gives it another node, and nothing depends on the one kept here any more.
        output = output.clone() if output._is_view() else output
        kept = output.detach().clone() if self.copies_outputs else output.detach()
        node = get_gradient_edge(output)
        self.calls.append(Call(inputs.detach(), kept, node, fixed, inputs._version, columns))
        return output

    def inputs(self, n: int, part: slice) -> Tensor:
        """h [n s i] of the examples in `part`; several calls of one module follow each other along s."""
        if any(call.inputs._version != call.version for call in self.calls):
            raise Refusal(
                f"site {self.name!r}, whose input is edited in place after the call",
                "inputs left as they are",
                "write x = x + y instead of x += y after the layer",
            )
        return self._joined(self.rule.inputs, [call.inputs for call in self.calls], n, part)

    def outputs(self, n: int, part: slice) -> Tensor:
        """z [n s o]."""
        return self._joined(self.rule.outputs, [call.outputs[..., call.columns] for call in self.calls], n, part)

    def gradients(self, gradients: Sequence[Tensor | None], n: int, part: slice) -> Tensor:
        """Gradients of the calls' outputs as [n s o]; an output that nothing depends on has gradient zero."""
        calls = [
            (torch.zeros_like(call.outputs) if gradient is None else gradient)[..., call.columns]
            for call, gradient in zip(self.calls, gradients, strict=True)
        ]
        return self._joined(self.rule.outputs, calls, n, part)

    def _joined(
        self, read: Callable[[nn.Module, Tensor, int], Tensor], calls: list[Tensor], n: int, part: slice
    ) -> Tensor:
        rows = [self._examples(read, call, n, part) for call in calls]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)

    def _examples(self, read: Callable[[nn.Module, Tensor, int], Tensor], call: Tensor, n: int, part: slice) -> Tensor:
        if self.rule.hears:
            return read(self.module, call, n)[part]
        if len(call) != n:
            raise Refusal(
                f"site {self.name!r}, called on {len(call)} rows for {n} examples",
                "layers whose first dimension is the examples",
                "keep [examples, positions, features] instead of flattening, or leave the site out",
            )
        return read(self.module, call[part], n)  # cut before unfolding, so that only the part's patches are made


def sites_of(modules: Mapping[str, nn.Module], names: Iterable[str] | None = None) -> dict[str, Site]:
    """Sites of named modules, or only those `names`; `Refusal` for a layer type without a rule."""
    wanted = None if names is None else set(names)
    found = {}
    for module_name, module in modules.items():
        if wanted is None or module_name in wanted or isinstance(module, nn.MultiheadAttention):
            for name, rule in rules_for(module_name, module).items():
                found[name] = Site(name, module, rule)
    if unknown := (wanted or set()) - found.keys():
        raise Refusal(f"site {min(unknown)!r}", ", ".join(found), "name sites of the workload")
    return found if wanted is None else {name: site for name, site in found.items() if name in wanted}


@contextmanager
def captured(sites: Mapping[str, Site], n: int) -> Iterator[None]:
    """Record every call of the sites during one forward pass of n examples; nothing is left behind.

    `Refusal` for a site that was not called.
    """
    for site in sites.values():
        site.calls = []
    with ExitStack() as stack:
        stack.enter_context(without_fused_attention())
        stack.enter_context(_linear_heard([site for site in sites.values() if site.rule.hears]))
        for site in sites.values():
            stack.callback((_checked(site, n) if site.rule.hears else _hooked(site)).remove)
        yield
    for site in sites.values():
        if not site.calls:
            remedy = "name the module that computes; one whose weight is used without calling it cannot be seen"
            raise Refusal(f"site {site.name!r}, which the forward pass never calls", "modules that are called", remedy)


def _hooked(site: Site) -> torch.utils.hooks.RemovableHandle:
    def keep(_module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> Tensor:
        return site.heard(args[0] if args else next(iter(named.values())), output)

    return site.module.register_forward_hook(keep, with_kwargs=True)


def _checked(site: Site, n: int) -> torch.utils.hooks.RemovableHandle:
    def check(module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        query = args[0] if args else named["query"]
        rows = query.shape[0 if module.batch_first else 1] if query.dim() == 3 else 1
        if rows != n or query.dim() != 3:
            raise Refusal(
                f"site {site.name!r}, called on {rows} rows for {n} examples",
                "attention over the examples themselves: [examples, positions, features], or as batch_first says",
                "keep windows out of the examples' dimension, or leave the site out",
            )

    return site.module.register_forward_pre_hook(check, with_kwargs=True)


@contextmanager
def without_fused_attention() -> Iterator[None]:
    """PyTorch's fused inference path of attention calls neither modules nor functions that could be heard."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _linear_heard(sites: list[Site]) -> Iterator[None]:
    """Hear products with a parameter, or with rows of it, that a module forms without calling another module."""
    original = F.linear

    def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        output = original(input, weight, bias)
        for site in sites:
            columns = _columns(site, weight)
            if columns:
                output = site.heard(input, output, columns)
        return output

    if sites:
        F.linear = linear
    try:
        yield
    finally:
        F.linear = original


def _columns(site: Site, weight: Tensor) -> slice | None:
    """Which columns of the product with `weight` are the site's; None if it is another parameter's."""
    assert site.rule.hears
    parameter = site.rule.hears(site.module)
    same = weight.untyped_storage().data_ptr() == parameter.untyped_storage().data_ptr()
    if not same or weight.shape[1:] != parameter.shape[1:]:
        return None
    first = (weight.storage_offset() - parameter.storage_offset()) // parameter.stride(0)
    start, stop = (row - first for row in site.rule.rows)
    return slice(start, stop) if 0 <= start < stop <= len(weight) else None


@contextmanager
def inert(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every module's mode and all generators are afterwards as they were."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with untouched():
            yield
    finally:
        for module, training in modes:
            module.training = training
