"""A parameter of an entry point: its default, help text and what is allowed; and the check of all of them."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from nfa.errors import Refusal
from nfa.masking import learn

Auto = Literal["auto"]


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    free_on_resume: bool = False,
) -> Any:
    """A parameter: default, help text, and what is allowed. `free_on_resume`: may differ when a run is continued."""
    metadata = {
        "help": help,
        "choices": choices,
        "at_least": at_least,
        "above": above,
        "below": below,
        "free_on_resume": free_on_resume,
    }
    return field(default=default, metadata=metadata)


def check_fields(config: Any) -> None:
    """Raise `Refusal` for the first field of a dataclass of `option`s whose value is outside what is allowed.

    No password in a field is told from now on.
    """
    learn(*(value for value in vars(config).values() if isinstance(value, str)))
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.metadata["choices"] and value not in (*item.metadata["choices"], item.default):
            raise Refusal(
                f"{item.name}={value!r}", ", ".join(item.metadata["choices"]), suggest(item.name, value, item)
            )
        if isinstance(value, int | float) and not _within(value, item.metadata):
            raise Refusal(
                f"{item.name}={value}", bounds(item), f"leave {item.name} out for its default, {item.default}"
            )


def _within(value: float, limits: Mapping[str, Any]) -> bool:
    at_least, above, below = limits["at_least"], limits["above"], limits["below"]
    return (
        (isinstance(value, int) or math.isfinite(value))
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (below is None or value < below)
    )


def bounds(item: "dataclasses.Field[Any]") -> str:
    """What a field allows, in words.

    >>> from nfa.config.classifier import TrainConfig
    >>> bounds(TrainConfig.__dataclass_fields__["momentum"])
    'a number ≥ 0 and < 1, or auto'
    """
    limits = item.metadata
    signs = (("at_least", "≥"), ("above", ">"), ("below", "<"))
    text = " and ".join(f"{sign} {limits[name]}" for name, sign in signs if limits[name] is not None)
    kind = "a whole number" if item.type in (int, "int") else "a number"
    return f"{kind} {text}".strip() + (", or auto" if item.default == "auto" else "")


def suggest(name: str, value: str, item: "dataclasses.Field[Any]") -> str:
    """The nearest allowed value, ready to type."""
    import difflib

    near = difflib.get_close_matches(str(value), item.metadata["choices"], n=1, cutoff=0.4)
    return f"{name}={near[0] if near else item.default or item.metadata['choices'][0]}"
