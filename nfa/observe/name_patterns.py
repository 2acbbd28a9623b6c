"""Choose names by comma-separated globs, `!glob` to exclude, and regular expressions between slashes."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from nfa.errors import Refusal

EXAMPLES = "layer_*, !layer_0 or /layer_[01]$/"


def matching(pattern: str, names: Sequence[str], aliases: Iterable[Sequence[str]] | None = None) -> list[str]:
    """Return the names that a pattern matches, directly or by an alias, in order; `Refusal` for a part that matches
    none.

    >>> matching("layer_*,!layer_1", ["layer_0", "layer_1", "head"]), matching("/^h/", ["layer_0", "head"])
    (['layer_0'], ['head'])
    """
    known = [{name, *more} for name, more in zip(names, aliases or [()] * len(names), strict=True)]
    parts = [part.strip() for part in _split(pattern) if part.strip()]
    if not parts:
        raise Refusal("sites=", ", ".join(names), f"name some, by globs such as {EXAMPLES}")
    if unused := [part for part in parts if not any(_fits(part.lstrip("!"), one) for one in known)]:
        allowed = ", ".join(sorted(set().union(*known))) or "none"
        raise Refusal(f"sites={', '.join(unused)}", allowed, f"name some, by globs such as {EXAMPLES}")
    without = [part[1:] for part in parts if part.startswith("!")]
    wanted = [part for part in parts if not part.startswith("!")] or ["*"]
    return [
        name
        for name, one in zip(names, known, strict=True)
        if any(_fits(part, one) for part in wanted) and not any(_fits(part, one) for part in without)
    ]


def _split(pattern: str) -> list[str]:
    """Split at commas outside regular expressions."""
    return re.findall(r"!?/[^/]*/|[^,]+", pattern)


def _fits(part: str, names: Iterable[str]) -> bool:
    if len(part) > 1 and part.startswith("/") and part.endswith("/"):
        return any(re.search(_compiled(part[1:-1]), name) for name in names)
    return any(fnmatchcase(name, part) or name == part for name in names)


def _compiled(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        allowed = "a regular expression between slashes"
        raise Refusal(f"sites=/{text}/ ({error})", allowed, "correct it, or use globs") from None
