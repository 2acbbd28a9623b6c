"""The grammar of all lists of epochs or steps: numbers, `a-b`, `a-b/step`, comma-separated, or `all`."""

import re
from collections.abc import Sequence
from itertools import pairwise

from nfa.errors import Refusal

GRAMMAR = "numbers, a-b, a-b/step, comma-separated (0-20,40,60,80,100), or all"
_PART = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7})(?:/([0-9]{1,7}))?)?")


def parse(text: str, last: int, name: str = "schedule") -> list[int]:
    """Return the epochs that `text` names, sorted and unique; `all` is 0…`last`.

    `name` is what a `Refusal` calls the parameter.

    >>> parse("0-20/10,40", last=100)
    [0, 10, 20, 40]
    """
    if text.strip() == "all":
        return list(range(last + 1))
    return sorted({epoch for part in text.split(",") for epoch in _parse_part(part.strip(), text, name)})


def _parse_part(part: str, text: str, name: str) -> range:
    match = _PART.fullmatch(part)
    if match is None:
        raise Refusal(f"{name} {text!r} (at {part!r})", GRAMMAR, "write, for example, 0-20,40,60,80,100")
    first, last, step = (int(group) if group else None for group in match.groups())
    assert first is not None
    if step == 0 or (last is not None and last < first):
        raise Refusal(f"{name} {text!r} (at {part!r})", "a-b with a ≤ b and a step of at least 1", f"correct {part!r}")
    return range(first, (first if last is None else last) + 1, step or 1)


def fit(text: str, epochs: int) -> list[int]:
    """Return the checkpoint epochs of a training of `epochs` epochs: those that fit, and always the first and the last.

    >>> fit("0-2,40", epochs=5)
    [0, 1, 2, 5]
    """
    return sorted({epoch for epoch in parse(text, epochs) if epoch <= epochs} | {0, epochs})


def phase_boundary(epochs: Sequence[int]) -> int | None:
    """Return the epoch at which checkpoints at every epoch give way to rarer ones; None without two such phases.

    >>> phase_boundary([0, 1, 2, 3, 20, 40])
    3
    """
    gaps = [later - earlier for earlier, later in pairwise(epochs)]
    if len(gaps) < 2 or gaps[0] != 1 or max(gaps) == 1:
        return None
    return epochs[next(index for index, gap in enumerate(gaps) if gap > 1)]
