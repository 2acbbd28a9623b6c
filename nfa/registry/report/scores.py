"""The last losses and scores of each group, with what is known of their uncertainty."""

from collections.abc import Iterator, Sequence

from nfa.maths.statistics import share_interval
from nfa.plain_text import natural
from nfa.registry.report.alignment_verdicts import over_seeds
from nfa.registry.report.page_data import Line
from nfa.registry.report.reported import Reported, ReportedRun
from nfa.registry.report.shown_keys import limits_of
from nfa.registry.report.words import MOST_LINES, line, logged_by
from nfa.registry.sweeps.objectives import more_is_better

SPLITS = ("test", "val", "eval", "train")
FIRST = ("accuracy", "pearson", "loss")  # last parts of keys that are told before all others
MOST_KEYS = 8


def scores(reported: Reported) -> Iterator[Line]:
    """Yield the last losses and scores of each group: with Wilson's interval for the share of examples that a run was
    right on, and over seeds with the interval between them.
    """
    keys = sorted((key for key in reported.keys if _is_score(key)), key=_order)[:MOST_KEYS]
    for name, places in [*reported.groups.items()][:MOST_LINES]:
        runs = [reported.runs[place] for place in places]
        told = [key for key in keys if key not in reported.without_mean(name)]
        yield from _of_group(reported, name, runs, [key for key in told if any(key in one.last for one in runs)])


def _is_score(key: str) -> bool:
    return key.partition("/")[0] in SPLITS and more_is_better(key) is not None


def _order(key: str) -> tuple[bool, int, list[str | int]]:
    split, _, name = key.partition("/")
    return name not in FIRST, SPLITS.index(split), natural(key)


def _of_group(reported: Reported, name: str, runs: Sequence[ReportedRun], keys: Sequence[str]) -> Iterator[Line]:
    """Yield a sentence for the keys whose last values are at the same steps, which are mostly all."""
    by_step: dict[int | None, list[str]] = {}
    for key in keys:
        steps = {one.last[key][0] for one in _having(runs, key)}
        by_step.setdefault(steps.pop() if len(steps) == 1 else None, []).append(key)
    for step, alike in by_step.items():
        where = f"at the last {runs[0].unit} of each run" if step is None else f"at {runs[0].unit} {step}"
        told = "; ".join(_of_key(reported, runs, key) for key in alike)
        ids = [run_id for key in alike for run_id in logged_by(_having(runs, key), key).split(",")]
        yield line(f"{name} {where}: {told}.", ",".join(dict.fromkeys(ids)), ", ".join(alike), step)


def _having(runs: Sequence[ReportedRun], key: str) -> list[ReportedRun]:
    return [one for one in runs if key in one.last]


def _of_key(reported: Reported, runs: Sequence[ReportedRun], key: str) -> str:
    having = _having(runs, key)
    values = [one.last[key][1] for one in having]
    if lacking := len(runs) - len(having):
        several = f"{min(values):.3g} to {max(values):.3g}" if len(values) > 1 else f"{values[0]:.4g}"
        told = f"{several}, without a mean because {lacking} of {len(runs)} runs lack it"
    elif len(values) > 1:
        told = over_seeds(values, limits_of(key))
    else:
        told = f"{values[0]:.4g}{_of_examples(reported, having[0], key, values[0])}"
    return f"{key.replace('/', ' ')} {told}"


def _of_examples(reported: Reported, one: ReportedRun, key: str, value: float) -> str:
    """Return the number of examples behind a score of one run, and the interval of a share of them."""
    split, _, name = key.partition("/")
    found = (reported.json(one.id, "example_ids.json") or {}).get(split)
    if not isinstance(found, list) or not found:
        return ""
    n = len(found)
    whole = name == "accuracy" and abs(value * n - round(value * n)) < 1e-3
    low, high = share_interval(value, n)[1:3] if whole else (0.0, 0.0)
    return f" (95 % Wilson interval {low:.3f} to {high:.3f}, {n:,} examples)" if whole else ""
