"""The options of `nfa.watch`, in the form that the analyses of stored runs use."""

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from nfa.analyses.parameters import AlignmentParameters, DirectionsParameters, FlowParameters
from nfa.errors import Refusal
from nfa.relations import choose_relations, needed

STUDIES = ("alignment", "directions", "flow")
DEFAULTS = {item.name: item.default for item in fields(AlignmentParameters)}
OF_STUDY = {
    "alignment": tuple(DEFAULTS),
    "directions": ("parameters", "max_samples", "sketch", "chance", "seed"),
    "flow": ("max_samples", "batch_size"),
}
CALLS = {  # notebook calls: the study, and those of its options that apply
    "alignment": ("alignment", OF_STUDY["alignment"]),
    "gradient_directions": ("directions", OF_STUDY["directions"]),
    "gradient_flow": ("flow", OF_STUDY["flow"]),
    "gradient_gram": ("directions", ("parameters", "max_samples", "sketch", "seed")),
}
PART = "[A-Za-z0-9_-][A-Za-z0-9_.-]*"
PREFIX = re.compile(f"(?:{PART}/)*(?:{PART})?")


@dataclass(frozen=True)
class Asked:
    """The chosen studies and the options that apply to them; `what` is "run" for a watch and "model" for a notebook
    call.
    """

    studies: tuple[str, ...]
    options: Mapping[str, Any]
    what: str

    @classmethod
    def of(cls, studies: Any, options: Mapping[str, Any]) -> "Asked":
        """Return what a watch is asked for; `Refusal` for an unknown study, and for an option that no chosen study has.
        """
        names = [name.strip() for name in as_text("studies", studies).split(",")]
        if unknown := [name for name in names if name not in STUDIES]:
            raise Refusal(f"studies={unknown[0]!r}", f"{', '.join(STUDIES)}, comma-separated", "studies='alignment'")
        chosen = tuple(name for name in STUDIES if name in names)
        allowed = list(dict.fromkeys(option for name in chosen for option in OF_STUDY[name]))
        return cls(chosen, _formed(options, allowed, "watch"), "run")

    @classmethod
    def once(cls, call: str, options: Mapping[str, Any]) -> "Asked":
        """Return what a notebook call is asked for; `Refusal` for an option that the call does not have."""
        study, allowed = CALLS[call]
        return cls((study,), _formed(options, allowed, call), "model")

    def count(self, examples: int) -> int:
        """Return how many examples of the probe are used."""
        asked: int = self.options.get("max_samples", 0)
        if not 0 <= asked <= examples:
            raise Refusal(f"max_samples={asked}", f"0 (all) to {examples} examples", "max_samples=0")
        return asked or examples

    def alignment(self, *, start_known: bool) -> AlignmentParameters:
        """Return the options of alignment, without relations to the initial weights if these are not known."""
        mine = {name: value for name, value in self.options.items() if name in OF_STUDY["alignment"]}
        config = AlignmentParameters(**mine)
        if start_known:
            return config
        left = [name for name in choose_relations(config.relations) if "nfm_init_removed" not in needed([name])]
        if left:
            return replace(config, relations=",".join(left))
        got = f"relations={config.relations} for a {self.what} whose initial weights are not known"
        raise Refusal(got, "relations without nfm_init_removed", "leave relations out")

    def directions(self, examples: int) -> DirectionsParameters:
        """Return the options of directions, for single examples."""
        same = {key: self.options.get(key) for key in ("sketch", "chance", "seed")}
        said = {"sites": self.options.get("parameters"), **same}
        given = {name: value for name, value in said.items() if value is not None}
        return DirectionsParameters(n=examples, **given)

    def flow(self, examples: int) -> FlowParameters:
        """Return the options of flow, for all examples."""
        return FlowParameters(n=examples, batch_size=self.options.get("batch_size", DEFAULTS["batch_size"]))


def _formed(options: Mapping[str, Any], allowed: Sequence[str], call: str) -> dict[str, Any]:
    """Return options in the form in which they would be typed."""
    if foreign := [name for name in options if name not in allowed]:
        raise Refusal(f"option {foreign[0]!r} of nfa.{call}", ", ".join(allowed), "leave it out")
    return {name: _typed(name, value) for name, value in options.items()}


def _typed(name: str, value: Any) -> Any:
    if isinstance(DEFAULTS.get(name), bool):
        return _yes_or_no(name, value)
    return whole_number(name, value) if isinstance(DEFAULTS.get(name, ""), int) else as_text(name, value)


def _yes_or_no(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise Refusal(f"{name}={value!r}", "True or False", f"leave {name} out")


def whole_number(name: str, value: Any) -> int:
    """Convert a whole number of any library to an int."""
    try:
        return operator.index(value)
    except TypeError:
        raise Refusal(f"{name}={value!r}", "a whole number", f"leave {name} out") from None


def as_text(name: str, value: Any) -> str:
    """Write a number, or numbers and names in any container, as they would be typed.

    >>> as_text("sites", ["h.0", "h.1"]), as_text("directions", 2), as_text("schedule", range(0, 30, 10))
    ('h.0,h.1', '2', '0,10,20')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Iterable):
        return ",".join(as_text(name, part) for part in value)
    return str(whole_number(name, value))


def check_prefix(prefix: str) -> str:
    """Return the prefix of all keys and file names; `Refusal` for characters that file names cannot have."""
    if not isinstance(prefix, str) or not PREFIX.fullmatch(prefix):
        allowed = "letters, digits, _, -, ., and / between names"
        raise Refusal(f"prefix={prefix!r}", allowed, "prefix='teacher/'")
    return prefix
