"""Parts of parameters: find which part a tensor is a view of."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from torch import Tensor


class Region(NamedTuple):
    """A parameter, or a view of it such as the rows for the queries of an attention."""

    parameter: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def view(self, parameter: Tensor) -> Tensor:
        """Return this part of a contiguous tensor shaped like the parameter."""
        return parameter.as_strided(self.shape, self.stride, parameter.storage_offset() + self.offset)

    @property
    def once(self) -> bool:
        """Whether no entry of the parameter occurs in it twice, as it would in a result of `expand` or `unfold`."""
        reach = 0
        for step, size in sorted(zip(self.stride, self.shape, strict=True)):
            if size > 1 and step <= reach:
                return False
            reach += (size - 1) * step
        return True

    @property
    def span(self) -> range:
        """The memory that it covers."""
        extent = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        return range(self.offset, self.offset + extent + 1)

    def clashes(self, other: "Region") -> bool:
        """Tell whether two different views may share entries."""
        if self.parameter != other.parameter or self == other:
            return False
        return self.span.start < other.span.stop and other.span.start < self.span.stop


def overlapping(regions: Iterable[Region]) -> set[str]:
    """Return the parameters with views that share entries."""
    distinct = set(regions)
    return {a.parameter for a in distinct for b in distinct if a.clashes(b)}


def whole_region(name: str, parameter: Tensor) -> Region:
    """Return the region of a whole parameter, in a contiguous tensor of its shape."""
    like = parameter if parameter.is_contiguous() else torch.empty(parameter.shape, device="meta")
    return Region(name, 0, tuple(like.shape), like.stride())


class Regions:
    """Find the parameter that a tensor is a view of.

    Views are found of contiguous parameters only; others, such as kernels with channels last, are found as a whole.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = parameters
        places = [parameter.untyped_storage().data_ptr() for parameter in parameters.values()]
        counts: dict[int, int] = {}
        for place in places:
            counts[place] = counts.get(place, 0) + 1
        self._names = {
            place: name
            for place, (name, parameter) in zip(places, parameters.items(), strict=True)
            if counts[place] == 1 and parameter.is_contiguous()
        }
        own = [name for place, name in zip(places, parameters, strict=True) if counts[place] == 1]
        self._whole = {id(parameters[name]): whole_region(name, parameters[name]) for name in own}

    def of(self, value: Any) -> Region | None:
        """Return the region; None if it is not a view of a parameter, or one through which no gradient reaches it."""
        if (whole := self._whole.get(id(value))) is not None:
            return whole
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            return None
        if torch._C._functorch.is_functorch_wrapped_tensor(value):  # inside torch.vmap
            return None
        name = self._names.get(value.untyped_storage().data_ptr())
        if name is None or value.dtype != self.parameters[name].dtype:
            return None
        parameter = self.parameters[name]
        if parameter.requires_grad and not value.requires_grad:
            return None
        region = self._region(name, value)
        return region if region.once else None

    def _region(self, name: str, value: Tensor) -> Region:
        offset = int(value.storage_offset()) - int(self.parameters[name].storage_offset())
        return Region(name, offset, tuple(value.shape), tuple(value.stride()))
