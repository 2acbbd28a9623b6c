"""Where a model uses its trainable parameters, heard while it runs."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from nfa.maths.example_gradients import Part
from nfa.observe.gradient_rules import RULES, LayoutError


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
    def span(self) -> range:
        """The memory that it lies in."""
        extent = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        return range(self.offset, self.offset + extent + 1)

    def clashes(self, other: "Region") -> bool:
        """Whether two different views may share entries."""
        mine, its = self.span, other.span
        return self != other and self.parameter == other.parameter and mine.start < its.stop and its.start < mine.stop


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
        if any(tensor._version != version for tensor, version in self.versions):
            raise LayoutError  # edited in place since
        for name, region in self.regions.items():
            yield region, self.rule.gradient(name, delta, n, self.time_first)


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
        name = self._names.get(value.untyped_storage().data_ptr())
        if name is None or value.dtype != self.parameters[name].dtype:
            return None
        offset = int(value.storage_offset()) - int(self.parameters[name].storage_offset())
        return Region(name, offset, tuple(value.shape), tuple(value.stride()))


class Ear(TorchFunctionMode):
    """Hears the functions of PyTorch that have a rule and get a parameter; `uses` are those of the pass so far."""

    def __init__(self, regions: Regions, n: int) -> None:
        super().__init__()
        self.regions, self.n = regions, n
        self.uses: list[Use] = []
        self._in_attention = False

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
        rule = RULES.get(func)
        if rule is None or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if func is F.embedding and args and args[0].ndim == 2 and len(args[0]) == 1:
            args = (args[0].expand(self.n, -1), *args[1:])  # positions that all examples share get a row for each
        output = func(*args, **kwargs)
        return self._heard(rule, args, kwargs, output) if isinstance(output, Tensor) else output

    def _heard(self, kind: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        try:
            rule = kind(*args, **kwargs)
        except TypeError:  # called in another way than the rule knows, such as with out=
            return output
        found = {name: self.regions.of(getattr(rule, name)) for name in kind.PARAMETERS}
        regions = {name: region for name, region in found.items() if region}
        if not regions or not output.requires_grad:
            return output
        output = output.clone() if output._is_view() else output  # editing a view in place gives it another node
        tensors = {item.name: getattr(rule, item.name) for item in dataclasses.fields(rule)}
        tensors = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
        kept = dataclasses.replace(rule, **{name: tensor.detach() for name, tensor in tensors.items()})
        versions = tuple((tensor, tensor._version) for tensor in vars(kept).values() if isinstance(tensor, Tensor))
        self.uses.append(Use(kept, regions, get_gradient_edge(output), versions, self._in_attention))
        return output

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
