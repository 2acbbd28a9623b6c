"""What a loop of one's own keeps beside its model, as a training state can hold it."""

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
    """Optimizers, schedules, scalers, modules and others."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Any, /) -> object: ...


class Learned:
    """A model as something that has a state: all that is learned in it, also what is frozen after it was made."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.frozen, self.form = model, frozen_names(model), _form(model)

    def state_dict(self) -> Mapping[str, Any]:
        self.frozen &= frozen_names(self.model)  # what was frozen once and learns now is learned
        return learned_state(self.model, self.frozen)

    def check(self) -> None:
        """`Refusal` where the model has other tensors by now than those with which it was made."""
        now = _form(self.model)
        if other := sorted(name for name in {*now, *self.form} if now.get(name) != self.form.get(name)):
            got = f"run.model, whose {other[0]} is not as it was made: it could not be loaded again"
            remedy = "change it in the function that makes it"
            raise Refusal(got, "the names, shapes and types of a new model's", remedy)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        load_learned(self.model, state)


def _form(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    return {name: (getattr(one, "shape", ()), getattr(one, "dtype", ())) for name, one in model.state_dict().items()}


def check_stateful(name: str, one: Any) -> None:
    """`Refusal` for what has no state, or one that could not be read back."""
    if inspect.isclass(one) or not isinstance(one, Stateful):
        got, allowed = f"keep({name}={one!r:.60})", "objects with state_dict and load_state_dict"
        raise Refusal(got, allowed, "run.keep(optimizer=optimizer)")
    state_of(name, one)


def state_of(name: str, one: Stateful) -> Any:
    """Its state; `Refusal` where that could not be read back without running somebody's code."""
    return _plain(one.state_dict(), name)


def _plain(value: Any, place: str) -> Any:
    """The same with numbers of NumPy as Python's, which is what a file without pickle can hold."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (dict, OrderedDict):
        return type(value)((key, _plain(item, f"{place}[{key!r}]")) for key, item in value.items())
    if type(value) in (list, tuple):
        return type(value)(_plain(item, f"{place}[{index}]") for index, item in enumerate(value))
    if isinstance(value, Tensor) or type(value) in SCALARS:
        return value
    got, allowed = f"a state with a {type(value).__name__} ({place})", "tensors, numbers, texts, dicts, lists, tuples"
    raise Refusal(got, allowed, "give what is kept a state_dict of these")
