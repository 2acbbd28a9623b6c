"""Sites: the linear maps of a model, named after the layers that use them.

A site has the path of the module that uses its own `weight`; the path of the parameter if that has another name;
`….q_proj`, `….k_proj`, `….v_proj` for the rows of a packed attention; `….k` for the k-th matrix of a stack, such as an
expert's; `….computed_2` for a module's second product with a weight that it computes. A workload may give names of its
own to modules, and then only those are sites.
"""

from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.nn.modules import module as global_hooks

from nfa.observe.composites import Call
from nfa.observe.parameter_regions import Region, Regions
from nfa.observe.products import Linear, Mapped, Product
from nfa.observe.recording import Recorder, Use
from nfa.observe.rules import PRODUCTS
from nfa.observe.sources import Sources, leaves

PACKED = ("q_proj", "k_proj", "v_proj")


class SiteRecorder(Recorder):
    """Keep the products of the `wanted` sites (None = all) by name, including those of frozen layers.

    `named` maps module paths to site names. A module in `whole` is one site with everything inside it. `silent` are
    sites that were called where no gradient flows; `stacks` holds the number of matrices of each stack, `calls` the
    first call of each module that may be one site as a whole.
    """

    rules: Mapping[Callable[..., Any], Any] = PRODUCTS

    def __init__(
        self,
        model: nn.Module,
        named: Mapping[str, str],
        n: int,
        *,
        wanted: Container[str] | None = None,
        whole: Container[str] = (),
        cut: bool = False,
    ) -> None:
        parameters = dict(model.named_parameters())
        super().__init__(Regions(parameters), n, cut=cut)
        self.parameters = {id(parameter): name for name, parameter in parameters.items()}
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.named, self.wanted, self.whole = named, wanted, whole
        self.silent: set[str] = set()
        self.stacks: dict[str, int] = {}
        self.made_of: dict[str, set[str]] = {}
        self.called = {""}
        self.calls: dict[str, Call] = {}
        self._made: list[tuple[str, Use]] = []
        self._sources = Sources(model) if wanted is None else None
        self._running: list[tuple[str, nn.Module, list[int], int]] = [("", model, [], 0)]
        self._hooks: list[Any] = []
        self.result: Tensor  # the outputs of the pass

    # ---- which module is running

    def __enter__(self) -> "SiteRecorder":
        if not self._hooks:
            self._hooks = [
                global_hooks.register_module_forward_pre_hook(self._begins),
                global_hooks.register_module_forward_hook(self._ends, with_kwargs=True, always_call=True),
            ]
            self._depth = 0
        self._depth += 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._depth -= 1
        if not self._depth:
            for hook in self._hooks:
                hook.remove()
            self._hooks = []

    def _begins(self, module: nn.Module, _args: Any) -> None:
        path = self.paths.get(id(module))
        # Modules without a name count as part of the one that they run in.
        self._running.append(self._running[-1] if path is None else (path, module, [], len(self._made)))
        self.called.add(self._running[-1][0])

    def _ends(self, module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        """Leave a module; `rest` holds keyword arguments and the output, or only None if forward has raised."""
        path, _, _, start = self._running.pop()
        named, output = rest if len(rest) > 1 else ({}, None)
        if self.cut or path not in self.named or not isinstance(output, Tensor):
            return None
        given: Any = args[0] if args else next(iter(named.values()), None)
        if path not in self.whole:
            if len(args) + len(named) == 1 and path and path not in self.calls:
                self._note(path, module, given, output, self._made[start:])
            return None
        key = self._wanted(self.named[path])
        self.made_of[self.named[path]] = {self.parameters[id(one)] for one in module.parameters()}
        return self._kept([(Mapped(module, given), ..., {}, key)], (given,), output) if key else None

    def _note(
        self, path: str, module: nn.Module, given: Any, output: Tensor, made: Sequence[tuple[str, Use]]
    ) -> None:
        """Keep the call of a module that may add something to a product of its input."""
        names = frozenset(name for name, _ in made)
        if len(names) < 2 or not isinstance(given, Tensor) or not output.requires_grad:
            return
        place = given.data_ptr(), given.shape, output.shape
        terms = [use for _, use in made if place == (use.rule.data.data_ptr(), use.rule.data.shape, use.output.shape)]
        if terms:
            edge = get_gradient_edge(output)
            self.calls[path] = Call(module, given.detach().clone(), output.detach().clone(), edge, terms, names)

    def _kept(self, recorded: list[Any], args: tuple[Any, ...], output: Tensor) -> Tensor:
        output = super()._kept(recorded, args, output)
        if self.wanted is None:
            self._made += [(str(key), self.uses[key][-1]) for _, _, _, key in recorded if key in self.uses]
        return output

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function, keep the call if it is wanted, and follow what is computed from parameters."""
        output = super().call(func, args, kwargs)
        if self._sources:
            self._sources.follow([*args, *kwargs.values()], output)
        return output

    # ---- what a product is called

    def parts(self, rule: Any) -> Iterable[tuple[Any, Any]]:
        """Split a packed attention into the products of queries, keys and values."""
        region = self.regions.of(rule.used) if self.in_attention else None
        if region is None or not region.parameter.endswith("in_proj_weight"):
            return list(rule.parts())
        size = self.regions.parameters[region.parameter].shape[0] // len(PACKED)
        return [
            (Linear(rule.input, rule.weight[rows], None if rule.bias is None else rule.bias[rows]), (..., rows))
            for rows in (slice(start, start + size) for start in range(0, len(rule.weight), size))
        ]

    def wants(self, rule: Any, regions: Mapping[str, Region]) -> Hashable:
        path = self._running[-1][0]
        if path not in self.named or not rule.multiplies:
            return None
        base = self._base(rule, regions.get(rule.WEIGHT))
        name = self._wanted(_under(self.named[path], path, base)) if base else None
        if name and self.wanted is None:
            self.made_of[name] = self._made_of(rule) | {one.parameter for one in regions.values()}
        return name

    def _made_of(self, rule: Product) -> set[str]:
        """Return the parameters that W and b are, or from which they are computed."""
        parts = [rule.used, *([] if rule.added is None else [rule.added])]
        own = {self.parameters[id(part)] for part in parts if id(part) in self.parameters}
        followed = [self._sources.of(part) for part in parts] if self._sources else []
        return own.union(*(leaves(part, self.parameters) for part in parts), *followed)

    def _wanted(self, name: str) -> str | None:
        if self.wanted is not None and name not in self.wanted:
            return None
        if torch.is_grad_enabled():
            return name
        self.silent.add(name)
        return None

    def _base(self, rule: Product, region: Region | None) -> str | None:
        """Return the path of a product's weight, if it names a site."""
        path, module, computed, _ = self._running[-1]
        own = next((name for name, parameter in module._parameters.items() if parameter is rule.used), None)
        if own or id(rule.used) in self.parameters:
            return self._plain(f"{path}.{own}".removeprefix(".") if own else self.parameters[id(rule.used)])
        if region:
            return self._part(region)
        if not rule.used.requires_grad and not module._parameters:
            return None
        computed.append(1)  # a weight computed from parameters, for example by a mask or a parametrisation
        further = len(computed) > 1 or path in self.whole
        return f"{path}.computed_{len(computed)}".removeprefix(".") if further else path or "computed"

    def _plain(self, name: str) -> str:
        if self._running[-1][0] in self.whole:
            return name  # the shorter name is that of the whole module
        return name.removesuffix("_weight" if self.in_attention else "").removesuffix(".weight")

    def _part(self, region: Region) -> str | None:
        parameter = self.regions.parameters[region.parameter]
        shape, base = parameter.shape, self._plain(region.parameter)
        numbers, row = torch.Size(region.shape).numel(), shape[1:].numel()
        if numbers == parameter.numel():
            return base
        first, rest = divmod(region.offset, row)
        if rest or numbers % row or region.span.stop - region.span.start != numbers:
            return None  # columns, or every other row
        if region.parameter.endswith("in_proj_weight") and self.in_attention:
            return f"{base.rpartition('.')[0]}.{PACKED[first * len(PACKED) // shape[0]]}".removeprefix(".")
        if len(region.shape) == len(shape):
            return None  # a part of the rows, such as those for the positions of a text
        self.stacks[base] = shape[0]
        return f"{base}.{first}"

    def found(self) -> dict[str, list[Use]]:
        """Return the uses by site."""
        return {str(name): uses for name, uses in self.uses.items()}

    def rooted(self, output: Tensor) -> Tensor:
        """Return an output with a graph: a frozen network builds none, so its first site starts one from a fresh leaf.
        """
        return output if output.requires_grad else output.detach().requires_grad_().clone()


def _under(name: str, path: str, base: str) -> str:
    """Return the name of a product in the module at `path`, where that module is called `name`."""
    inside = base == path or not path or base.startswith(f"{path}.")
    return (name + base[len(path) :]).removeprefix(".") if inside else base


def public_names(model: nn.Module, sites: Mapping[str, nn.Module]) -> dict[str, str]:
    """Return the names of a workload's sites by the path of the module in the model."""
    names = {id(module): name for name, module in sites.items()}
    return {path: names[id(module)] for path, module in model.named_modules() if id(module) in names}
