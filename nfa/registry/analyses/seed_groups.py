"""Means and intervals over analysed runs that differ only in their seed."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nfa.analyses.csv_files import LOSSES
from nfa.bookkeeping import is_bookkeeping
from nfa.checkpoint_schedule import phase_boundary
from nfa.figures.pages import grid_pages
from nfa.figures.relation_grid import draw_seeds
from nfa.figures.site_kinds import shown
from nfa.figures.style import axis_label
from nfa.figures.training_analysis import Series
from nfa.levels import LEVELS, OVER_SEEDS, is_beside, value_key
from nfa.maths.statistics import Interval, t_interval
from nfa.plain_text import csv_text, told
from nfa.registry import tracking
from nfa.registry.analyses.alignment_report import MOST_COLUMNS, save_pages, say_verdicts
from nfa.registry.analyses.checkpoint_units import common_unit, unit_of
from nfa.registry.analyses.titles import subject_of
from nfa.registry.families.registry import family
from nfa.registry.tracking import TrackedRun
from nfa.registry.tracking.sources import DONE
from nfa.relations import RELATIONS

OWN_LOOPS = ("track", "watch")  # entry points of training loops written by users
HEADER = ("site", "relation", "mean", "low", "high", "chance", "shared")


def compare_groups(run: TrackedRun, parts: Mapping[str, str], sources: Mapping[str, str]) -> None:
    """Write `groups.csv` and a figure if at least two runs differ only in their seed.

    `parts` and `sources` map run names to ids of analyses and of analysed runs.
    """
    grouped = groups({name: tracking.config(source) for name, source in sources.items()})
    if max(map(len, grouped.values())) < 2:
        return
    series = dict(zip(parts, tracking.histories(parts.values()).values(), strict=True))
    contents = [tracking.get_json(part, "config.json") for part in parts.values()]
    unit, content = common_unit(map(unit_of, contents)), contents[0]
    intervals = {label: together([series[name] for name in names]) for label, names in grouped.items()}
    tracking.put_text(run.info, "groups.csv", table_of_groups(intervals, unit))
    relations = [name for name in RELATIONS if name in content["relations"]]
    boundary = phase_boundary(sorted(set().union(*(of_run[DONE] for of_run in series.values()))))
    drawn = {name: shown(of_run, content["sites"], relations, MOST_COLUMNS) for name, of_run in series.items()}
    bands = {label: _bands([drawn[name].series for name in names]) for label, names in grouped.items()}
    one = next(iter(drawn.values()))
    over = "mean and 95 % t-interval over seeds" + (" of the mean over blocks" if "blocks" in one.said else "")
    subject = subject_of(list(sources.values()))
    title = f"{subject}: {over}" if subject else over
    look: dict[str, Any] = {"title": title, "boundary": boundary, "unit": axis_label(unit)}
    save_pages(run, grid_pages(bands, one.sites, relations, draw_seeds, **look), "seed_comparison")
    for label, names in grouped.items():
        _say_verdicts([series[name] for name in names], content["sites"], relations, unit, label)


def _say_verdicts(
    runs: Sequence[Mapping[str, Series]], sites: Sequence[str], relations: Sequence[str], unit: str, label: str
) -> None:
    """Print the verdicts on the relations with a shared-weights level, as those on all would be many lines."""
    logged = {key for series in runs for key in series}
    weighed = [name for name in relations if any(f"{site}/{name}_shared" in logged for site in sites)]
    told = ([] if label == "all" else [label]) + ([f"in each of {len(runs)} runs"] if len(runs) > 1 else [])
    say_verdicts(runs, sites, weighed, unit, "".join(f", {words}" for words in told))


def _bands(runs: Sequence[Mapping[str, Series]]) -> dict[str, dict[int, float]]:
    """Return means by key, and the ends of their intervals by <key>_lo and <key>_hi, in place of the lowest and highest
    blocks.
    """
    found: dict[str, dict[int, float]] = {}
    means = {key: of_key for key, of_key in together(runs).items() if not key.endswith(OVER_SEEDS)}
    for key, of_key in means.items():
        for step, (mean, low, high, _) in of_key.items():
            for suffix, value in zip(("", *OVER_SEEDS), (mean, low, high), strict=False):
                found.setdefault(f"{key}{suffix}", {})[step] = value
    return found


def groups(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return run names by group; a group is named by the parameters that set it apart, such as "adam lr 0.001".

    If there is only one group it is named "all". `configs` holds the config.json of each run. A repeated seed does not
    count twice. Runs of a user's own training loop are groups of one, because their differences are not known.
    """
    stated = {name: _told(name, config) for name, config in configs.items()}
    keys = list(dict.fromkeys(key for config in stated.values() for key in config))
    differing = [key for key in keys if len({str(config.get(key)) for config in stated.values()}) > 1]
    parameters = {name: {key: of[key] for key in differing if key in of} for name, of in stated.items()}
    found: dict[str, list[str]] = {}
    for name, label in _labels(parameters).items():
        again = any(_seed(configs[name]) == _seed(configs[other]) is not None for other in found.get(label, ()))
        found.setdefault(f"{label}, run {name}" if again else label, []).append(name)
    return found


def _labels(parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return a label for each run, with rounded numbers unless these would make different runs equal."""
    exact = {name: ", ".join(f"{key}={value}" for key, value in of.items()) or "all" for name, of in parameters.items()}
    short = {name: told(of) or "all" for name, of in parameters.items()}
    apart = len({*exact.values()}) == len({*short.values()})
    return short if apart else exact


def _told(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    told = family(config["workload"]).telling(config["train"])
    return told | {"run": name} if config.get("entrypoint") in OWN_LOOPS else told


def _seed(config: Mapping[str, Any]) -> Any:
    return config["train"].get("seed")


def together(runs: Sequence[Mapping[str, Series]]) -> dict[str, dict[int, Interval]]:
    """Return the interval over runs of every value that all of them have, by metric key and step.

    Levels of chance and of shared weights count as values, and errors are skipped. A value that is undefined in one run
    gets no interval, because one over the other runs would be biased.
    """
    found: dict[str, dict[int, Interval]] = {}
    logged = set().union(*runs)
    for key in sorted(key for key in set.intersection(*(set(run) for run in runs)) if not _is_apart(key, logged)):
        for step in sorted(set.intersection(*(set(run[key]) for run in runs))):
            interval = t_interval([run[key][step] for run in runs])
            if interval:
                found.setdefault(key, {})[step] = interval
    return found


def _is_apart(key: str, logged: Collection[str]) -> bool:
    is_error = is_beside(key) and not key.endswith(LEVELS) and value_key(key) in logged
    return is_bookkeeping(key) or is_error


def table_of_groups(intervals: Mapping[str, Mapping[str, Mapping[int, Interval]]], unit: str) -> str:
    """Return the content of groups.csv; levels of chance and of shared weights are means over the runs of a group."""
    rows: list[tuple[Any, ...]] = []
    for label, group in intervals.items():
        for key, of_key in group.items():
            if is_beside(key):
                continue
            site, _, relation = ("", "", key) if key in LOSSES else key.rpartition("/")
            levels = [group.get(f"{key}{suffix}", {}) for suffix in ("_chance", "_shared")]
            for epoch, (mean, low, high, n) in of_key.items():
                beside = [level[epoch].mean if epoch in level else "" for level in levels]
                rows.append((label, n, epoch, site, relation, mean, low, high, *beside))
    return csv_text(("group", "runs", unit, *HEADER), rows)
