"""Names of runs, made from what ran; a name that the user gives comes first."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nfa.errors import Refusal
from nfa.plain_text import rounded
from nfa.registry.families.protocol import APART
from nfa.registry.families.registry import family_of

SPEAKING = ("loss",)  # parameters whose values need no name; they come first, as only equal losses can be compared
MORE, POINT = 26, 50  # most letters of further parameters, and of the point of a trial
UNTOLD = frozenset(
    {"schedule", "max_samples", "chance", "eval_every", "histograms_every", "nproc", "seeds", "n_workers"}
)  # parameters that are said elsewhere or do not affect the weights


def training_name(config: Any) -> str:
    """Return the name of a training: what on what data, optimizer, learning rate, seed, then what is not the default.

    A configuration that asks for several optimizers or seeds is named by their number or their list.

    >>> from nfa.registry.families.mlp.config import TrainConfig
    >>> training_name(TrainConfig(width=64, depth=2, epochs=7))
    'digits mlp 64×2 sgd lr 0.1 seed 1717 epochs 7'
    >>> training_name(TrainConfig(optimizer="all"))
    'digits mlp 1024×5, 3 optimizers'
    """
    family = family_of(config)
    several, seeds = family.variants(config), getattr(config, "seeds", "")
    how = f", {len(several)} optimizers" if several else f" {config.optimizer} lr {_text(config.resolved().lr)}"
    seed = f", seeds {seeds}" if seeds else "" if several else f" seed {config.seed}"
    said = {*family.told, *APART, *UNTOLD, "optimizer", *(() if several else ("lr",))}
    more = _changed(config, family.telling(dataclasses.asdict(config)), said)
    name = family.called(config) + how + seed
    return name + _told(more, ", " if "," in name else " ", MORE)


def own_loop_name(config: Any) -> str:
    """Return the name of a training whose loop, with optimizer and learning rate, is the user's."""
    family = family_of(config)
    said = {*family.told, *APART, *UNTOLD, "optimizer", "lr"}
    more = _changed(config, family.telling(dataclasses.asdict(config)), said)
    return f"{family.called(config)} seed {config.seed}" + _told(more, " ", MORE)


def trial_name(number: int, point: Mapping[str, Any]) -> str:
    """Return the name of a trial at a point of its search space.

    >>> trial_name(12, {"lr": 0.0312345, "width": 64})
    'trial 12: lr 0.0312, width 64'
    """
    told = _told([f"{name} {_text(value)}" for name, value in point.items()], ", ", POINT)
    return f"trial {number}: {told.removeprefix(', ')}"


def _changed(config: Any, telling: Mapping[str, Any], said: set[str]) -> list[str]:
    """Return the parameters that are not said yet and differ from their default, in the order of the options."""
    defaults = {item.name: item.default for item in dataclasses.fields(config)}
    told = {name: value for name, value in telling.items() if name not in said and value != defaults.get(name)}
    automatic = {name: _automatic(config, name) for name in told if defaults.get(name) == "auto"}
    changed = [name for name, value in told.items() if value != automatic.get(name)]
    return [
        *(_text(told[name]) for name in changed if name in SPEAKING),
        *(f"{name} {_text(told[name])}" for name in changed if name not in SPEAKING),
    ]


def _automatic(config: Any, name: str) -> Any:
    """Return what auto means for a parameter beside the others, also in a run that is continued with resolved values;
    None where auto is not allowed beside them.
    """
    try:
        return getattr(dataclasses.replace(config, **{name: "auto"}).resolved(), name)
    except Refusal:
        return None


def _told(parameters: Sequence[str], between: str, most: int) -> str:
    """Return the parameters that fit into so many letters, each after `between`. What fits depends neither on the rest
    of a name nor on `between`, so that a parent and its children tell the same.
    """
    told: list[str] = []
    for parameter in parameters:
        if sum(len(one) + 1 for one in (*told, parameter)) <= most:
            told.append(parameter)
    return "".join(f"{between}{parameter}" for parameter in told)


def _text(value: Any) -> str:
    """Return a value as a name shows it: numbers are rounded, and of a path only the last part is told."""
    return Path(rounded(value)).name
