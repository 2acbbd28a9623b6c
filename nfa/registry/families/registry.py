"""The families of models: one line each. What has another name is made by a function of that name."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from nfa.registry.families.protocol import Family
from nfa.registry.places import named

FAMILIES = {
    "mlp": "nfa.registry.families.mlp.family:Classifiers",
    "eeg": "nfa.registry.families.eeg.family:Decoders",
    "lora": "nfa.registry.families.language.family:LanguageModels",
    "custom": "nfa.registry.families.custom.family:NamedWorkloads",
}


@cache
def family(name: str) -> Family:
    """The family of that name, which runs have as their tag nfa.workload; `Refusal` for what is no name of one.

    A workload that is named by the function that makes it is a family of its own.
    """
    found: Family = named(FAMILIES[name])() if name in FAMILIES else named(FAMILIES["custom"])(name)
    return found


def families() -> Iterator[Family]:
    """All of them, in order."""
    return map(family, FAMILIES)


def family_of(config: Any) -> Family:
    """The family that a training's parameters are of."""
    found = next(one for one in families() if isinstance(config, one.config))
    return family(config.workload) if found.name == "custom" else found


def family_of_run(tags: Mapping[str, str]) -> Family:
    """The family of a tracked run, by its tags."""
    return family(tags["nfa.workload"])


def look(config: Any) -> Any:
    """What the family of a new training finds of its data while nothing heavy is loaded."""
    return None if config.resume else family_of(config).look(config)
