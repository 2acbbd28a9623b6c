"""The grammar of a search space: `lr=log:1e-5:1,gradient_scale=1:4,width=64:512/64,rank=4|8|16`."""

import dataclasses
import itertools
import math
import random
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nfa.errors import Refusal
from nfa.registry.typed_values import assignments, known, number_in, value_of

GRAMMAR = "NAME=LOW:HIGH, NAME=log:LOW:HIGH, NAME=LOW:HIGH/STEP or NAME=A|B|C, comma-separated"
CORNERS, TRIED, INSIDE = 512, 384, 32  # most points, pairs, and values per axis that are checked before the search
Value = int | float | str | bool


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`: uniform, or log-uniform with `log`; with `step`, only low + k · step."""

    name: str
    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False  # int

    def holds(self, value: Any) -> bool:
        """Return whether a value lies in the range."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        if self.whole and value != int(value):
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < 1e-9

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that are checked before the search."""
        return self.low, self.high

    @property
    def is_listed(self) -> bool:
        """Whether all values can be listed: with a step, or whole numbers without `log`."""
        return bool(self.step or (self.whole and not self.log))

    @property
    def count(self) -> int:
        """The number of values, for whole numbers and ranges with a step."""
        return math.floor((self.high - self.low) / (self.step or 1) + 1e-9) + 1

    @property
    def listed(self) -> tuple[Value, ...] | None:
        """All values if they can be listed, else None."""
        return tuple(map(self.at, range(self.count))) if self.is_listed else None

    def at(self, place: int) -> Value:
        """Return the value at an index, counted from the first."""
        return self.low + place * (self.step or 1)


@dataclass(frozen=True)
class Choice:
    """A list of values without an assumed order."""

    name: str
    values: tuple[Value, ...]

    def holds(self, value: Any) -> bool:
        """Return whether a value is in the list, with the same type."""
        return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in self.values)

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that are checked before the search."""
        return self.values

    @property
    def is_listed(self) -> bool:
        """Yes."""
        return True

    @property
    def count(self) -> int:
        """The number of values."""
        return len(self.values)

    @property
    def listed(self) -> tuple[Value, ...]:
        """All values."""
        return self.values


Axis = Range | Choice
Space = dict[str, Axis]


def parse_space(text: str, config_type: type) -> Space:
    """Parse a search space into axes by parameter, with types from `config_type`; raise `Refusal` if it is invalid."""
    fields = {item.name: item for item in dataclasses.fields(config_type)}
    hints = typing.get_type_hints(config_type)
    space: Space = {}
    for name, values in assignments("space", text).items():
        known("space", name, fields)
        space[name] = _axis(fields[name], hints[name], values)
    return space


def _axis(item: "dataclasses.Field[Any]", hint: Any, text: str) -> Axis:
    if "|" in text:
        return _choice(item, hint, text)
    parts = text.split(":")
    if number_in(hint) is None or len(parts) != (3 if parts[0] == "log" else 2):
        single = ":" not in text
        remedy = f"fixed={item.name}={text} for one value" if single else f"correct {item.name}={text}"
        raise Refusal(f"space: {item.name}={text}", _allowed(item, hint), remedy)
    return _range(item, hint, text)


def _allowed(item: "dataclasses.Field[Any]", hint: Any) -> str:
    if number_in(hint) is None:
        return f"values of {item.name} separated by | ({', '.join(item.metadata['choices']) or 'words'})"
    return GRAMMAR


def _choice(item: "dataclasses.Field[Any]", hint: Any, text: str) -> Choice:
    values = tuple(value_of(item, hint, part.strip()) for part in text.split("|"))
    if len(set(map(str, values))) < len(values):
        raise Refusal(f"space: {item.name}={text}", "each value once", "remove the repeated values")
    return Choice(item.name, values)


def _range(item: "dataclasses.Field[Any]", hint: Any, text: str) -> Range:
    log = text.startswith("log:")
    span, slash, stepped = text.removeprefix("log:").partition("/")
    number = number_in(hint)
    assert number is not None
    low, high = (value_of(item, hint, part.strip()) for part in span.split(":"))
    step = value_of(item, hint, stepped.strip()) if slash else None
    got = f"space: {item.name}={text}"
    if "auto" in (low, high, step) or not all(math.isfinite(end) for end in (low, high)):
        raise Refusal(got, "finite numbers", f"correct {item.name}={text}")
    if low == high:
        raise Refusal(f"{got} (an empty range)", "LOW below HIGH", f"fixed={item.name}={low} for one value")
    if low > high:
        raise Refusal(f"{got} (a reversed range)", "LOW below HIGH", f"{item.name}={'log:' * log}{high}:{low}")
    if log and low <= 0:
        raise Refusal(got, "a logarithmic range above 0", f"{item.name}=log:{high / 1000:g}:{high:g}")
    if step is not None and (log or not 0 < step <= high - low):
        raise Refusal(got, "a step above 0 that is within the range, without log", f"{item.name}={low}:{high}")
    return Range(item.name, low, high, log, step, number is int)


def standing_for(space: Space) -> list[dict[str, Value]]:
    """Return points that represent the whole space: its corners with every choice, and every pair of listed values.

    Continuous axes are represented by their ends. If there are very many points, some are drawn.
    """
    corners = [dict(zip(space, each, strict=True)) for each in _drawn([axis.ends for axis in space.values()], CORNERS)]
    values = {name: _tried(axis) for name, axis in space.items()}
    inner = [name for name, axis in space.items() if len(values[name]) > len(axis.ends)]
    pairs = [pair for pair in itertools.combinations(space, 2) if set(pair) & set(inner)]
    found = [*corners, *({**corners[0], name: value} for name in inner for value in values[name])]
    for names in pairs:
        drawn = _drawn([values[name] for name in names], TRIED // len(pairs))
        found += [{**corners[0], **dict(zip(names, point, strict=True))} for point in drawn]
    return [dict(point) for point in dict.fromkeys(tuple(point.items()) for point in found)]


def _tried(axis: Axis) -> Sequence[Value]:
    """Return the values of an axis; if there are very many, the first, some in between, and the last."""
    if isinstance(axis, Choice):
        return axis.values
    if not axis.step and not axis.whole:
        return axis.ends
    count = axis.count
    between = range(0, count, max(1, count // INSIDE))
    return [axis.at(place) for place in sorted({*range(min(count, INSIDE)), *between, count - 1})]


def _drawn(values: Sequence[Sequence[Value]], most: int) -> list[tuple[Value, ...]]:
    """Return all combinations; if there are more than `most`, a fixed random subset with the first and the last."""
    count = math.prod(map(len, values))
    if count <= most:
        return list(itertools.product(*values))
    places = sorted({0, count - 1, *random.Random(0).sample(range(count), most)})
    return [_combination(values, place) for place in places]


def _combination(values: Sequence[Sequence[Value]], place: int) -> tuple[Value, ...]:
    """Return the combination at an index in the order of `itertools.product`."""
    found = []
    for each in reversed(values):
        place, at = divmod(place, len(each))
        found.append(each[at])
    return tuple(reversed(found))


def parse_points(text: str, space: Space, config_type: type, defaults: Mapping[str, Value]) -> list[dict[str, Value]]:
    """Parse points separated by `;`: `defaults`, or values such as `lr=0.1,width=64`; `none` = no point.

    Raises `Refusal` for a parameter or value outside the space. Default values outside the space are left out.
    """
    if text.strip() in ("", "none"):
        return []
    points = []
    for part in text.split(";"):
        if part.strip() == "defaults":
            points.append({name: value for name, value in defaults.items() if space[name].holds(value)})
        else:
            points.append(_point(part, space, config_type))
    return points


def _point(text: str, space: Space, config_type: type) -> dict[str, Value]:
    fields = {item.name: item for item in dataclasses.fields(config_type)}
    hints = typing.get_type_hints(config_type)
    point: dict[str, Value] = {}
    for name, value in assignments("enqueue", text).items():
        known("enqueue", name, space)
        point[name] = value_of(fields[name], hints[name], value)
        if not space[name].holds(point[name]):
            raise Refusal(f"enqueue: {name}={value}", f"a value of {written(space[name])}", "another value or space")
    return point


def written(axis: Axis) -> str:
    """Return an axis as it is typed.

    >>> written(Range("lr", 1e-5, 1.0, log=True)), written(Choice("rank", (4, 8)))
    ('lr=log:1e-05:1.0', 'rank=4|8')
    """
    if isinstance(axis, Choice):
        return f"{axis.name}={'|'.join(str(value) for value in axis.values)}"
    return f"{axis.name}={'log:' * axis.log}{axis.low}:{axis.high}" + (f"/{axis.step}" if axis.step else "")
