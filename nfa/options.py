"""Parameters of entry points: each with its default, help text and allowed values, and one check for all of them."""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from nfa.errors import Refusal
from nfa.masking import learn

Auto = Literal["auto"]
DEVICE = re.compile(
    "auto|(cpu|cuda|mps|xpu|hpu|mtia|xla|ipu|hip|ve|fpga|maia|vulkan|opencl|opengl|ideep|mkldnn|lazy|meta|privateuseone)"
    "(:[0-9]{1,3})?"
)
DEVICES = "auto, cpu, cuda, cuda:N, or another device that has float64"


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    free_on_resume: bool = False,
    written: tuple[re.Pattern[str], str] | None = None,
    path: str = "",
    path_unless: tuple[str, ...] = (),
) -> Any:
    """Declare a parameter as a dataclass field.

    Args:
        default: The default value.
        help: The help text.
        choices: The allowed texts; empty allows any.
        at_least: The smallest allowed number.
        above: A number that the value must exceed.
        below: A number that the value must stay below.
        free_on_resume: Whether the value may differ when a run is resumed.
        written: A pattern that a text must match, and the same in words.
        path: What the text names: a "folder", or if it exists a "file" or a "file or folder"; its content may have
            moved when a run is resumed.
        path_unless: Names that are no path.

    Returns:
        The field.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "at_least": at_least,
        "above": above,
        "below": below,
        "free_on_resume": free_on_resume or bool(path),
        "written": written,
        "path": path,
        "path_unless": path_unless,
    }
    return field(default=default, metadata=metadata)


def device_option(*, free_on_resume: bool = False) -> Any:
    """Declare the parameter for the device; whether the machine has the device is checked later."""
    said = "auto = CUDA where present, otherwise the CPU; or the name of a torch device"
    return option("auto", said, written=(DEVICE, DEVICES), free_on_resume=free_on_resume)


def check_fields(config: Any) -> None:
    """Raise `Refusal` for the first field of a dataclass of `option`s whose value is not allowed.

    Passwords in its fields are masked from now on.
    """
    learn(*(value for value in vars(config).values() if isinstance(value, str)))
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.metadata["choices"] and value not in (*item.metadata["choices"], item.default):
            got = f"{item.name}={value!r}"
            raise Refusal(got, ", ".join(item.metadata["choices"]), suggest(item.name, value, item))
        if (how := item.metadata["written"]) and not how[0].fullmatch(value):
            raise Refusal(f"{item.name}={value!r}", how[1], f"{item.name}={item.default}")
        if isinstance(value, int | float) and not _within(value, item.metadata):
            got = f"{item.name}={value}"
            raise Refusal(got, bounds(item), f"leave {item.name} out to use its default, {item.default}")


class CheckedOptions:
    """A dataclass of `option`s that is checked when it is created; raises `Refusal` for a value that is not allowed."""

    def __post_init__(self) -> None:
        check_fields(self)


def _within(value: float, limits: Mapping[str, Any]) -> bool:
    at_least, above, below = limits["at_least"], limits["above"], limits["below"]
    return (
        (isinstance(value, int) or math.isfinite(value))
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (below is None or value < below)
    )


def bounds(item: "dataclasses.Field[Any]") -> str:
    """Return in words what a field allows.

    >>> from nfa.analyses.parameters import DirectionsParameters
    >>> bounds(DirectionsParameters.__dataclass_fields__["perplexity"])
    'a number ≥ 1 and < 10000, or auto'
    """
    limits = item.metadata
    signs = (("at_least", "≥"), ("above", ">"), ("below", "<"))
    text = " and ".join(f"{sign} {limits[name]}" for name, sign in signs if limits[name] is not None)
    kind = "a whole number" if item.type in (int, "int") else "a number"
    return f"{kind} {text}".strip() + (", or auto" if item.default == "auto" else "")


def suggest(name: str, value: str, item: "dataclasses.Field[Any]") -> str:
    """Return the nearest allowed value, ready to type."""
    import difflib

    near = difflib.get_close_matches(str(value), item.metadata["choices"], n=1, cutoff=0.4)
    return f"{name}={near[0] if near else item.default or item.metadata['choices'][0]}"
