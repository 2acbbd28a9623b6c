"""The families of models that come with the project: one line each."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from nfa.errors import Refusal
from nfa.registry.families.protocol import Family
from nfa.registry.places import named

FAMILIES = {
    "mlp": "nfa.registry.families.mlp.family:Classifiers",
    "eeg": "nfa.registry.families.eeg.family:Decoders",
    "lora": "nfa.registry.families.language.family:LanguageModels",
}


@cache
def family(name: str) -> Family:
    """The family of that name, which runs have as their tag nfa.workload; `Refusal` for one that there is not."""
    if name not in FAMILIES:
        raise Refusal(f"workload={name}", ", ".join(FAMILIES), "choose one of them")
    found: Family = named(FAMILIES[name])()
    return found


def families() -> Iterator[Family]:
    """All of them, in order."""
    return map(family, FAMILIES)


def family_of(config: Any) -> Family:
    """The family that a training's parameters are of."""
    return next(one for one in families() if isinstance(config, one.config))


def family_of_run(tags: Mapping[str, str]) -> Family:
    """The family of a tracked run, by its tags."""
    return family(tags["nfa.workload"])


def look(config: Any) -> Any:
    """What the family of a new training finds of its data while nothing heavy is loaded."""
    return None if config.resume else family_of(config).look(config)
