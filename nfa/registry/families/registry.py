"""The families of models, one line each; any other name is a workload made by a function."""

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
    """Return the family of a name, which is the value of the tag nfa.workload of its runs.

    A workload named by the function that makes it is a family of its own. Raises `Refusal` for an unknown name.
    """
    found: Family = named(FAMILIES[name])() if name in FAMILIES else named(FAMILIES["custom"])(name)
    return found


def families() -> Iterator[Family]:
    """Yield all families in order."""
    return map(family, FAMILIES)


def family_of(config: Any) -> Family:
    """Return the family that a training's parameters belong to."""
    found = next(one for one in families() if isinstance(config, one.config))
    return family(config.workload) if found.name == "custom" else found


def family_of_run(tags: Mapping[str, str]) -> Family:
    """Return the family of a tracked run by its tags."""
    return family(tags["nfa.workload"])


def look(config: Any) -> Any:
    """Return what the training's family finds of its data without importing anything heavy."""
    return None if config.resume else family_of(config).look(config)
