"""Names of runs, made from what ran; a name that the user gives comes first."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nfa.registry.families.protocol import APART
from nfa.registry.families.registry import family_of

LONGEST = 60  # letters, beyond which no further parameter is told
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
    return _with_more(name, more, ", " if "," in name else " ")


def own_loop_name(config: Any) -> str:
    """Return the name of a training whose loop, with optimizer and learning rate, is the user's."""
    family = family_of(config)
    said = {*family.told, *APART, *UNTOLD, "optimizer", "lr"}
    more = _changed(config, family.telling(dataclasses.asdict(config)), said)
    return _with_more(f"{family.called(config)} seed {config.seed}", more, " ")


def trial_name(number: int, point: Mapping[str, Any]) -> str:
    """Return the name of a trial at a point of its search space.

    >>> trial_name(12, {"lr": 0.0312345, "width": 64})
    'trial 12: lr 0.0312, width 64'
    """
    (first, *rest) = (f"{name} {_text(value)}" for name, value in point.items())
    return _with_more(f"trial {number}: {first}", rest, ", ")


def _changed(config: Any, telling: Mapping[str, Any], said: set[str]) -> list[str]:
    """Return the parameters that are not said yet and differ from their default, in the order of the options."""
    defaults = {item.name: item.default for item in dataclasses.fields(config)}
    told = {name: value for name, value in telling.items() if name not in said}
    return [f"{name} {_text(value)}" for name, value in told.items() if value != defaults.get(name)]


def _with_more(name: str, parameters: Sequence[str], between: str) -> str:
    """Append parameters as long as the name stays short; those that do not fit are left out."""
    for parameter in parameters:
        if len(longer := f"{name}{between}{parameter}") <= LONGEST:
            name = longer
    return name


def _text(value: Any) -> str:
    """Return a value as a name shows it: numbers are rounded, and of a path only the last part is told."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.3g}" if isinstance(value, float) else Path(str(value)).name


def apart(names: Sequence[str]) -> list[str]:
    """Return what sets names apart, for legends: the words that all of them share at both ends are left out.

    A number keeps the word before it.

    >>> apart(["digits mlp 64×2 sgd lr 0.1 seed 1", "digits mlp 64×2 adam lr 0.001 seed 1"])
    ['sgd lr 0.1', 'adam lr 0.001']
    >>> apart(["digits mlp 64×2 sgd lr 0.1 seed 1", "digits mlp 64×2 sgd lr 0.1 seed 2"])
    ['seed 1', 'seed 2']
    """
    words = [name.split() for name in names]
    first = _shared(words)
    while first and not all(map(_speaks, (one[first:] for one in words))):
        first -= 1
    rest = [one[first:] for one in words]
    last = _shared([one[:0:-1] for one in rest])
    return [" ".join(one[: len(one) - last]).rstrip(",") for one in rest]


def _shared(lists: Sequence[Sequence[str]]) -> int:
    """Return how many words all lists have in common at their beginning."""
    shortest = min(map(len, lists))
    return next((place for place in range(shortest) if len({one[place] for one in lists}) > 1), shortest)


def _speaks(words: Sequence[str]) -> bool:
    """Return whether there are words that do not begin with a number, which needs the word before it."""
    try:
        float(words[0].strip(",:") if words else "0")
    except ValueError:
        return True
    return False
