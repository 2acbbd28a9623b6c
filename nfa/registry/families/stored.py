"""The configuration of a training in its run's config.json: how it is read back, checked and compared."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Literal

from nfa.content import json_digest
from nfa.errors import Refusal
from nfa.masking import masked_values
from nfa.registry.families.registry import family
from nfa.registry.typed_values import kinds_of

Stored = Mapping[str, Any]
SPLITS = ("train", "val", "test", "probe")
Config = typing.TypeVar("Config")


def made_again(config: type[Config], values: Stored) -> Config:
    """Return a configuration from the values of a config.json; raise ValueError for unknown names and wrong types.

    >>> from nfa.registry.families.mlp.config import TrainConfig
    >>> made_again(TrainConfig, {"lr": 0.1, "width": "8"})
    Traceback (most recent call last):
    ValueError: width is '8'
    """
    hints = typing.get_type_hints(config)
    for name, value in values.items():
        if name not in hints:
            raise ValueError(f"{name} is not a parameter")
        if not any(_is(value, kind) for kind in kinds_of(hints[name])):
            raise ValueError(f"{name} is {value!r}")
    try:
        return config(**values)
    except Refusal as refused:
        raise ValueError(str(refused).splitlines()[0].removeprefix("cannot use ")) from None


def _is(value: object, kind: Any) -> bool:
    if typing.get_origin(kind) is Literal:
        return value in typing.get_args(kind)
    return type(value) is kind or (kind is float and type(value) is int)


def check_stored(stored: Stored) -> None:
    """Raise KeyError, TypeError or ValueError if a training's config.json lacks what rebuilding needs."""
    made_again(family(stored["workload"]).config, stored["train"])
    for part in ("data", *({"base"} & stored.keys())):
        if not isinstance(stored[part]["digest"], str):
            raise ValueError(f"the digest of {part} is {stored[part]['digest']!r}")
    if "code" in stored and not isinstance(stored["code"]["file_digest"], str):
        raise ValueError(f"the digest of the code is {stored['code']['file_digest']!r}")


def check_ids(ids: Mapping[str, Any], data: Stored) -> None:
    """Raise KeyError, TypeError or ValueError if `ids` is not the example_ids.json of a training on `data`."""
    for split in {*SPLITS, *ids}:
        if not isinstance(ids[split], list) or not all(type(item) is int and item >= 0 for item in ids[split]):
            raise ValueError(f"{split} is not a list of examples")
        known = data.get("published_test" if split == "test" else "published_train", data.get("items"))
        if known is not None and max(ids[split], default=0) >= known:
            raise ValueError(f"{split} has example {max(ids[split])}, but there are {known}")


def identity(stored: Stored) -> dict[str, Any]:
    """Return the part of a config.json that determines the weights; checkpoints carry its digest."""
    config = family(stored["workload"]).config
    free = {item.name for item in dataclasses.fields(config) if item.metadata["free_on_resume"]}
    train = {name: value for name, value in stored["train"].items() if name not in free}
    files = {"files": stored["source"]["files"]} if "source" in stored else {}
    base = {"base": stored["base"]["digest"]} if "base" in stored else {}
    return {"workload": stored["workload"], "train": train, "data": stored["data"], **files, **base}


def config_digest(stored: Stored) -> str:
    """Return the digest of the part of a stored config.json that determines the weights."""
    return json_digest(identity(masked_values(stored)))


def check_same(name: str, found: str, expected: str) -> None:
    """Raise `Refusal` if data, or a base model, do not have the run's digest."""
    if found != expected:
        got, allowed = f"{name} with digest {found[:12]}", f"digest {expected[:12]}"
        raise Refusal(got, allowed, "use the data that the run was trained on")
