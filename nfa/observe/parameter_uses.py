"""Where a model uses its trainable parameters, heard while it runs."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from nfa.maths.example_gradients import Dense, Part
from nfa.observe.gradient_rules import RULES, Embedding, LayoutError


class Region(NamedTuple):
    """A parameter, or a view of it such as the rows for the queries of an attention."""

    parameter: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def view(self, parameter: Tensor) -> Tensor:
        """This part of a contiguous tensor shaped like the parameter."""
        return parameter.as_strided(self.shape, self.stride, parameter.storage_offset() + self.offset)

    @property
    def once(self) -> bool:
        """Whether no entry of the parameter stands in it twice, as in what `expand` and `unfold` give."""
        reach = 0
        for step, size in sorted(zip(self.stride, self.shape, strict=True)):
            if size > 1 and step <= reach:
                return False
            reach += (size - 1) * step
        return True

    @property
    def span(self) -> range:
        """The memory that it lies in."""
        extent = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        return range(self.offset, self.offset + extent + 1)

    def clashes(self, other: "Region") -> bool:
        """Whether two different views may share entries."""
        if self.parameter != other.parameter or self == other:
            return False
        return self.span.start < other.span.stop and other.span.start < self.span.stop


@dataclass(frozen=True)
class Use:
    """One call of a function with parameters among its arguments, and where its output is in the autograd graph."""

    rule: Any
    regions: Mapping[str, Region]  # by name of the argument
    node: GradientEdge
    versions: tuple[tuple[Tensor, int], ...]
    time_first: bool

    def gradients(self, delta: Tensor, n: int) -> Iterator[tuple[Region, Part]]:
        """Per-example gradients from δ; LayoutError where they cannot be read."""
        if not delta.ndim or any(tensor._version != version for tensor, version in self.versions):
            raise LayoutError  # no row for each example, or edited in place since
        rule = _with_tensors(self.rule, widened)
        for name, region in self.regions.items():
            part = rule.gradient(name, widened(delta), n, self.time_first)
            if isinstance(part, Dense) and part.values.shape[1] != math.prod(region.shape):
                raise LayoutError  # repeated along its only dimension
            yield region, part


def overlapping(uses: Iterable[Use]) -> set[str]:
    """Parameters of which views that share entries are used."""
    regions = {region for use in uses for region in use.regions.values()}
    return {a.parameter for a in regions for b in regions if a.clashes(b)}


class Regions:
    """Finds the parameter that a tensor is a view of."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = parameters
        places = [parameter.untyped_storage().data_ptr() for parameter in parameters.values()]
        self._names = {
            place: name
            for place, (name, parameter) in zip(places, parameters.items(), strict=True)
            if places.count(place) == 1 and parameter.is_contiguous()
        }

    def of(self, value: Any) -> Region | None:
        """None for what is no view of a trainable parameter."""
        if not isinstance(value, Tensor) or not value.requires_grad or value.layout != torch.strided:
            return None
        if torch._C._functorch.is_functorch_wrapped_tensor(value):  # inside torch.vmap
            return None
        name = self._names.get(value.untyped_storage().data_ptr())
        if name is None or value.dtype != self.parameters[name].dtype:
            return None
        offset = int(value.storage_offset()) - int(self.parameters[name].storage_offset())
        region = Region(name, offset, tuple(value.shape), tuple(value.stride()))
        return region if region.once else None


def _with_tensors(rule: Any, change: Callable[[Tensor], Tensor]) -> Any:
    fields = {item.name: getattr(rule, item.name) for item in dataclasses.fields(rule)}
    return dataclasses.replace(rule, **{name: change(of) for name, of in fields.items() if isinstance(of, Tensor)})


def widened(tensor: Tensor) -> Tensor:
    """In float32 where products would be coarser."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _detached(values: Iterable[Any], chosen: list[Tensor]) -> tuple[Any, ...]:
    return tuple(value.detach() if any(value is one for one in chosen) else value for value in values)


SUMS = frozenset({torch.add, torch.Tensor.add, torch.Tensor.add_})


class Ear(TorchFunctionMode):
    """Hears the functions of PyTorch that have a rule and get a parameter; `uses` are those of the pass so far.

    With `cut` they get the parameter's values instead, so that only what is not heard connects it to the outputs.
    """

    def __init__(self, regions: Regions, n: int, *, cut: bool = False) -> None:
        super().__init__()
        self.regions, self.n, self.cut = regions, n, cut
        self.uses: list[Use] = []
        self._in_attention = False
        self._lookups: dict[int, tuple[Tensor, Embedding]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        return self.call(func, args, kwargs or {})

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function and keep the call if it uses a parameter in a way that there is a rule for."""
        if func is F.multi_head_attention_forward:
            with self._attention():
                return func(*args, **kwargs)
        if func in SUMS and len(args) == 2:
            first = args[0] if func is torch.Tensor.add_ else self._row_each(args[0], args[1])
            args = (first, self._row_each(args[1], args[0]))
        rule = self._rule(func, args, kwargs) if torch.is_grad_enabled() else None
        found = {name: self.regions.of(getattr(rule, name)) for name in rule.PARAMETERS} if rule else {}
        regions = {name: region for name, region in found.items() if region}
        if regions and self.cut:
            heard = [getattr(rule, name) for name in regions]
            args, kwargs = _detached(args, heard), dict(zip(kwargs, _detached(kwargs.values(), heard), strict=True))
        output = func(*args, **kwargs)
        if not regions or self.cut or not isinstance(output, Tensor) or not output.requires_grad:
            return output
        return self._heard(rule, regions, output)

    def _rule(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return RULES[func](*args, **kwargs)
        except (KeyError, TypeError):  # no rule, or called in another way than it knows, such as with out=
            return None

    def _heard(self, rule: Any, regions: dict[str, Region], output: Tensor) -> Tensor:
        output = output.clone() if output._is_view() else output  # editing a view in place gives it another node
        kept = _with_tensors(rule, Tensor.detach)
        versions = tuple((tensor, tensor._version) for tensor in vars(kept).values() if isinstance(tensor, Tensor))
        self.uses.append(Use(kept, regions, get_gradient_edge(output), versions, self._in_attention))
        if isinstance(rule, Embedding):
            self._lookups[id(output)] = output, rule
        return output

    def _row_each(self, value: Any, other: Any) -> Any:
        """Rows of a table that all examples share, such as positions, looked up for each where they are added."""
        _, lookup = self._lookups.get(id(value), (None, None))
        if lookup is None or not isinstance(other, Tensor) or other.ndim != 3 or len(other) != self.n:
            return value
        if value.ndim < 2 or value.shape[:-2].numel() > 1:
            return value
        index = lookup.input.reshape(1, -1).expand(self.n, -1)
        options = {item.name: getattr(lookup, item.name) for item in dataclasses.fields(lookup)}
        return self.call(F.embedding, (), {**options, "input": index})

    @contextmanager
    def _attention(self) -> Iterator[None]:
        """Inside attention this mode is off: its products, with time first, are heard by another way."""
        original = F.linear

        def linear(*args: Any, **kwargs: Any) -> Any:
            return self.call(original, args, kwargs)

        before, self._in_attention = self._in_attention, True
        F.linear = linear
        try:
            yield
        finally:
            F.linear = original
            self._in_attention = before
