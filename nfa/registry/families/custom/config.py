"""Parameters of the training of a named workload, with or without the arguments of its function as parameters."""

import dataclasses
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nfa.options import option
from nfa.registry.families.custom.maker import Maker, Value, find, written
from nfa.registry.folders import typed_folder
from nfa.registry.training.parameters import TrainingParameters


@dataclass(frozen=True)
class CustomConfig(TrainingParameters):
    """Train a workload by the name of the function that makes it."""

    workload: str = option("", "module:function, or the registered name of a workload")
    workload_args: str = option("", "arguments of that function, such as width=32,bias=true")

    def arguments(self) -> dict[str, Value]:
        """Return the arguments of the function; raise `Refusal` for arguments that it does not have."""
        return find(self.workload).read(self.workload_args)


OWN = {item.name for item in dataclasses.fields(CustomConfig)}


def searchable(name: str, words: str) -> type[Any]:
    """Return a dataclass of the training's parameters and, as further parameters, the arguments of the function.

    Arguments with the name of a training parameter are left out. `words` are the typed arguments.
    """
    return _searchable(name, words, typed_folder(".").resolve())


@cache
def _searchable(name: str, words: str, _folder: Path) -> type[Any]:
    """Cached by name and folder, because a study needs it at every point."""
    maker = find(name)
    typed = maker.read(words)
    own = [argument for argument in maker.arguments.values() if not hasattr(CustomConfig, argument.name)]
    fields: list[Any] = [("workload", str, option(name, "the workload"))]
    for argument in own:
        default = typed.get(argument.name, argument.default)
        fields.append((argument.name, argument.kind or str, option(default, f"an argument of {name}")))
    fixed = {name: value for name, value in typed.items() if name not in {one.name for one in own}}
    fields.append(("workload_args", str, option(written(fixed), "further arguments")))
    methods = {"resolved": lambda made: _folded(made, maker, [one.name for one in own])}
    return dataclasses.make_dataclass("SearchableConfig", fields, bases=(CustomConfig,), namespace=methods, frozen=True)


def _folded(made: Any, maker: Maker, own: list[str]) -> CustomConfig:
    """Return the training, with arguments that differ from the function's defaults in `workload_args`."""
    values = {name: getattr(made, name) for name in OWN}
    given = {name: getattr(made, name) for name in own if getattr(made, name) != maker.arguments[name].default}
    others = written({name: value for name, value in given.items() if value is not None})
    words = ",".join(part for part in (made.workload_args, others) if part)
    return CustomConfig(**{**values, "workload_args": words}).resolved()
