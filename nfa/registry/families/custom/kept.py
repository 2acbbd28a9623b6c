"""State of the objects that a user's training loop keeps with its model, in a form that can be stored."""

import inspect
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch.nn as nn
from torch import Tensor

from nfa.content import SCALARS
from nfa.errors import Refusal
from nfa.learned import frozen_names, learned_state, load_learned


@runtime_checkable
class Stateful(Protocol):
    """An object with a state: an optimizer, schedule, scaler, module or other."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Any, /) -> object: ...


class Learned:
    """A model whose state is everything learned in it, including what is frozen after its creation."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.frozen, self.form = model, frozen_names(model), _form(model)

    def state_dict(self) -> Mapping[str, Any]:
        self.frozen &= frozen_names(self.model)  # a parameter that was frozen and is trained now counts as learned
        return learned_state(self.model, self.frozen)

    def check(self) -> None:
        """Raise `Refusal` if the model's tensors have changed in name, shape or type since it was created."""
        now = _form(self.model)
        if other := sorted(name for name in {*now, *self.form} if now.get(name) != self.form.get(name)):
            got = f"run.model, whose {other[0]} has changed since its creation, so it could not be loaded again"
            remedy = "make this change in the function that makes the model"
            raise Refusal(got, "the names, shapes and types of a new model's", remedy)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        load_learned(self.model, state)


def _form(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    return {name: (getattr(one, "shape", ()), getattr(one, "dtype", ())) for name, one in model.state_dict().items()}


def check_stateful(name: str, one: Any) -> None:
    """Raise `Refusal` for an object without a state, or with one that could not be read back."""
    if inspect.isclass(one) or not isinstance(one, Stateful):
        got, allowed = f"keep({name}={one!r:.60})", "objects with state_dict and load_state_dict"
        raise Refusal(got, allowed, "run.keep(optimizer=optimizer)")
    state_of(name, one)


def state_of(name: str, one: Stateful) -> Any:
    """Return an object's state; raise `Refusal` if reading it back would run foreign code."""
    return _plain(one.state_dict(), name)


def _plain(value: Any, place: str) -> Any:
    """Return a state with NumPy numbers converted to Python's, so that it can be stored without pickle."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (dict, OrderedDict):
        return type(value)((key, _plain(item, f"{place}[{key!r}]")) for key, item in value.items())
    if type(value) in (list, tuple):
        return type(value)(_plain(item, f"{place}[{index}]") for index, item in enumerate(value))
    if isinstance(value, Tensor) or type(value) in SCALARS:
        return value
    got = f"a state with a {type(value).__name__} ({place})"
    allowed = "tensors, numbers, strings, dicts, lists, tuples"
    raise Refusal(got, allowed, "give the object a state_dict of these")
