"""At how many sites relations are above chance and the shared-weights level, and how far, in words."""

from collections.abc import Iterator, Mapping, Sequence

from nfa.figures.site_kinds import some
from nfa.figures.style import site_label
from nfa.levels import SUFFIXES, beside
from nfa.maths.statistics import t_interval
from nfa.plain_text import natural
from nfa.registry.report.curves import Limits, kept_by, within
from nfa.registry.report.page_data import Line
from nfa.registry.report.reported import Reported, ReportedRun
from nfa.registry.report.shown_keys import limits_of
from nfa.registry.report.words import MOST_LINES, line, logged_by
from nfa.registry.training.over_seeds import FEWEST
from nfa.relations import RELATIONS
from nfa.studies.verdicts import verdict

MOST_SITES = 6  # whose numbers are told


def alignment(reported: Reported) -> Iterator[Line]:
    """Yield a sentence for each group and relation, at the last checkpoint of its runs."""
    for name, places in [*reported.groups.items()][:MOST_LINES]:
        runs = [reported.runs[place] for place in places]
        for relation in RELATIONS:
            keys = [key for key in sites_keys(runs, relation) if key not in reported.without_mean(name)]
            if keys:
                yield from _of_relation(name, runs, relation, keys)


def sites_keys(runs: Sequence[ReportedRun], relation: str) -> list[str]:
    """Return the keys of a relation at all sites that any of the runs has measured."""
    ending = f"/{relation}"
    return sorted({key for one in runs for key in one.owners if key.endswith(ending)}, key=natural)


def _of_relation(name: str, runs: Sequence[ReportedRun], relation: str, keys: Sequence[str]) -> Iterator[Line]:
    found, step = last_values(runs, keys)
    ids = logged_by(runs, keys[0])
    head = f"{name}: {RELATIONS[relation].label}"
    if step is None:
        yield line(f"{head}: the runs have no last checkpoint in common, so there is no verdict.", ids, f"*/{relation}")
        return
    sites = [key.removesuffix(f"/{relation}") for key in keys]
    said = verdict(found, sites, relation) or "no chance level was logged"
    each = f" in each of {len(runs)} runs" if len(runs) > 1 else ""
    shown = [
        f"{site_label(site)} {text}" for site in some(sites, MOST_SITES) if (text := _value(found, site, relation))
    ]
    some_of = f"{MOST_SITES} of {len(sites)} sites: " if len(sites) > MOST_SITES else ""
    sentence = line(f"{head} at {runs[0].unit} {step}: {said}{each}.", ids, f"*/{relation}", step)
    yield {**sentence, "more": f"{some_of}{'; '.join(shown) or 'no value is defined'}."}


def last_values(runs: Sequence[ReportedRun], keys: Sequence[str]) -> tuple[list[Mapping[str, float]], int | None]:
    """Return the last values of each run by key, and their step; None if the last steps differ.

    A value at an earlier step than the last one of its relation is undefined at the last checkpoint, and left out.
    """
    wanted = [f"{key}{end}" for key in keys for end in ("", *SUFFIXES)]
    steps = {max((one.last[key][0] for key in wanted if key in one.last), default=-1) for one in runs}
    if len(steps) != 1 or steps == {-1}:
        return [], None
    (step,) = steps
    return [
        {key: one.last[key][1] for key in wanted if key in one.last and one.last[key][0] == step} for one in runs
    ], step


def _value(found: Sequence[Mapping[str, float]], site: str, relation: str) -> str:
    """Return a value with its uncertainty and levels: ± 2 standard errors of a run, or the spread over seeds."""
    key = f"{site}/{relation}"
    values = [of[key] for of in found if key in of]
    if len(values) < len(found):
        return f"undefined in {len(found) - len(values)} of {len(found)} runs" if len(found) > 1 else "undefined"
    by = [beside(of, key) for of in found]
    error = by[0].standard_error if len(found) == 1 else None
    said = (
        over_seeds(values, limits_of(key))
        if len(values) > 1
        else f"{values[0]:.3g}" + (f" ± {2 * error:.2g}" if error else "")
    )
    both = (
        ("chance", [(of.chance, of.chance_sd) for of in by]),
        ("shared weights", [(of.shared, of.shared_sd) for of in by]),
    )
    levels = [text for word, given in both if (text := _level(word, given))]
    return said + (f" against {', '.join(levels)}" if levels else "")


def _level(word: str, given: Sequence[tuple[float | None, float | None]]) -> str:
    """Return a level with two standard deviations, means over the runs; empty where one of them has none."""
    heights = [height for height, _ in given if height is not None]
    spreads = [spread for _, spread in given if spread is not None]
    if len(heights) < len(given):
        return ""
    reach = f" ± {2 * sum(spreads) / len(spreads):.1g}" if len(spreads) == len(given) else ""
    return f"{word} {sum(heights) / len(heights):.3g}{reach}"


def over_seeds(values: Sequence[float], limits: Limits = (None, None)) -> str:
    """Return several values in words: the mean with its 95 % t-interval from three on, cut off at what is possible; of
    two their range.

    >>> over_seeds([0.5, 0.75]), over_seeds([1.0, 2.0, 3.0])
    ('0.5 to 0.75 (2 runs)', '2 (-0.484 to 4.48, 95 % t-interval over 3 runs)')
    """
    if len(set(values)) == 1:
        return f"{values[0]:.3g} in each of {len(values)} runs"
    found = t_interval(values) if len(values) >= FEWEST else None
    if found is None:
        return f"{min(values):.3g} to {max(values):.3g} ({len(values)} runs)"
    found = within(found, kept_by(limits, values))
    return f"{found.mean:.3g} ({found.low:.3g} to {found.high:.3g}, 95 % t-interval over {found.n} runs)"
