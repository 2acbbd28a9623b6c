"""The last losses and scores of each group, with what is known of their uncertainty."""

from collections.abc import Iterator, Sequence

from nfa.maths.statistics import share_interval
from nfa.plain_text import natural
from nfa.registry.report.alignment_verdicts import over_seeds
from nfa.registry.report.page_data import Line
from nfa.registry.report.reported import Reported, ReportedRun, stored_json
from nfa.registry.report.shown_keys import limits_of
from nfa.registry.report.words import MOST_LINES, line, logged_by
from nfa.registry.sweeps.objectives import more_is_better

SPLITS = ("test", "val", "eval", "train")
FIRST = ("accuracy", "pearson", "loss")  # last parts of keys that are told before all others
MOST_KEYS = 8


def scores(reported: Reported) -> Iterator[Line]:
    """Yield the last value of each loss and score: with Wilson's interval for the share of examples that a run was
    right on, and over seeds with the interval between them.
    """
    keys = sorted((key for key in reported.keys if _is_score(key)), key=_order)[:MOST_KEYS]
    for name, places in [*reported.groups.items()][:MOST_LINES]:
        runs = [reported.runs[place] for place in places]
        for key in keys:
            yield from _of_key(name, runs, key)


def _is_score(key: str) -> bool:
    return key.partition("/")[0] in SPLITS and more_is_better(key) is not None


def _order(key: str) -> tuple[bool, int, list[str | int]]:
    split, _, name = key.partition("/")
    return name not in FIRST, SPLITS.index(split), natural(key)


def _of_key(name: str, runs: Sequence[ReportedRun], key: str) -> Iterator[Line]:
    having = [one for one in runs if key in one.last]
    if not having:
        return
    values, steps = [one.last[key][1] for one in having], {one.last[key][0] for one in having}
    ids = logged_by(having, key)
    where = f"at {having[0].unit} {min(steps)}" if len(steps) == 1 else f"at the last {having[0].unit} of each run"
    told = over_seeds(values, limits_of(key)) if len(values) > 1 else f"{values[0]:.4g}"
    lacking = len(runs) - len(having)
    if lacking:
        told += f"; {lacking} of {len(runs)} runs lack it, so this is not about all of them"
    elif len(values) == 1:
        told += _of_examples(having[0], key, values[0])
    yield line(f"{name}: {key.replace('/', ' ')} {where}: {told}.", ids, key, min(steps) if len(steps) == 1 else None)


def _of_examples(one: ReportedRun, key: str, value: float) -> str:
    """Return the number of examples behind a score of one run, and the interval of a share of them."""
    split, _, name = key.partition("/")
    found = (stored_json(one.id, "example_ids.json") or {}).get(split)
    if not isinstance(found, list) or not found:
        return " (one run)"
    n = len(found)
    whole = name == "accuracy" and abs(value * n - round(value * n)) < 1e-3
    low, high = share_interval(value, n)[1:3] if whole else (0.0, 0.0)
    return f" (one run, {n:,} examples{f'; 95 % Wilson interval {low:.3f} to {high:.3f}' if whole else ''})"
