"""Hooks on the real model: each site's inputs and the node of its output in the autograd graph."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn as nn
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from nfa.errors import Refusal
from nfa.observe.rules import Rule, rule_for
from nfa.seeding import untouched


@dataclass
class Site:
    """A named layer with its rule; the lists hold one entry for each call in the last forward pass.

    `nodes` are the outputs' places in the autograd graph: they stay those of z where an activation works in place.
    """

    name: str
    module: nn.Module
    rule: Rule
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    nodes: list[GradientEdge] = field(default_factory=list)

    @property
    def weight(self) -> Tensor:
        """W [o i]."""
        return self.rule.weight(self.module)

    def joined_inputs(self) -> Tensor:
        """h [n s i]; several calls of one module follow each other along s."""
        return _joined([self.rule.inputs(self.module, call) for call in self.inputs])

    def joined_gradients(self, gradients: list[Tensor | None]) -> Tensor:
        """Gradients of `outputs` as [n s o]; an output that nothing depends on has gradient zero."""
        calls = [
            torch.zeros_like(output) if gradient is None else gradient
            for output, gradient in zip(self.outputs, gradients, strict=True)
        ]
        return _joined([self.rule.outputs(self.module, call) for call in calls])


def _joined(calls: list[Tensor]) -> Tensor:
    return calls[0] if len(calls) == 1 else torch.cat(calls, dim=1)


def sites_of(modules: Mapping[str, nn.Module]) -> dict[str, Site]:
    """Sites for named modules; `Refusal` for a layer type without a rule."""
    return {name: Site(name, module, rule_for(name, module)) for name, module in modules.items()}


@contextmanager
def captured(sites: Mapping[str, Site]) -> Iterator[None]:
    """Record every call of the sites during one forward pass; the hooks are gone afterwards.

    `Refusal` for a site that was not called.
    """

    def hook(site: Site) -> torch.utils.hooks.RemovableHandle:
        def keep(_module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> Tensor:
            # A frozen network builds no graph; its first site starts one, from a leaf that nothing can edit in place.
            output = output if output.requires_grad else output.detach().requires_grad_().clone()
            site.inputs.append((args[0] if args else next(iter(named.values()))).detach())
            site.outputs.append(output)
            site.nodes.append(get_gradient_edge(output))
            return output

        return site.module.register_forward_hook(keep, with_kwargs=True)

    for site in sites.values():
        site.inputs, site.outputs, site.nodes = [], [], []
    handles = [hook(site) for site in sites.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    for site in sites.values():
        if not site.outputs:
            remedy = "name the module that computes; one whose weight is used without calling it cannot be seen"
            raise Refusal(f"site {site.name!r}, which the forward pass never calls", "modules that are called", remedy)


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
