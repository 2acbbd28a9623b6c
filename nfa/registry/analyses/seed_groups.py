"""Means and intervals over analysed runs that differ only in their seed."""

from collections.abc import Mapping, Sequence
from typing import Any

from nfa.analyses.csv_files import LOSSES
from nfa.checkpoint_schedule import phase_boundary
from nfa.console import stage
from nfa.figures.relation_grid import draw_seeds, relation_grid
from nfa.figures.site_kinds import shown
from nfa.figures.style import axis_label
from nfa.figures.training_analysis import Series
from nfa.maths.statistics import Interval, t_interval
from nfa.plain_text import csv_text
from nfa.registry import tracking
from nfa.registry.analyses.alignment_report import MOST_COLUMNS
from nfa.registry.analyses.checkpoint_units import common_unit, unit_of
from nfa.registry.families.registry import family
from nfa.registry.tracking import TrackedRun
from nfa.registry.tracking.sources import DONE
from nfa.relations import RELATIONS

OWN_LOOPS = ("track", "watch")  # entry points of training loops written by users
HEADER = ("site", "relation", "mean", "low", "high")


def compare_groups(run: TrackedRun, parts: Mapping[str, str], sources: Mapping[str, str]) -> None:
    """Write `groups.csv` and a figure if at least two runs differ only in their seed.

    `parts` and `sources` map run names to ids of analyses and of analysed runs.
    """
    grouped = groups({name: tracking.config(source) for name, source in sources.items()})
    if max(map(len, grouped.values())) < 2:
        return
    series = {name: tracking.history(part) for name, part in parts.items()}
    contents = [tracking.get_json(part, "config.json") for part in parts.values()]
    unit, content = common_unit(map(unit_of, contents)), contents[0]
    intervals = {label: together([series[name] for name in names]) for label, names in grouped.items()}
    tracking.put_text(run.info, "groups.csv", table_of_groups(intervals, unit))
    relations = [name for name in RELATIONS if name in content["relations"]]
    boundary = phase_boundary(sorted(set().union(*(of_run[DONE] for of_run in series.values()))))
    drawn = {name: shown(of_run, content["sites"], relations, MOST_COLUMNS) for name, of_run in series.items()}
    bands = {label: _bands([drawn[name].series for name in names]) for label, names in grouped.items()}
    one = next(iter(drawn.values()))
    title = "mean and 95 % t-interval over seeds" + (" of the mean over blocks" if "blocks" in one.said else "")
    label = axis_label(unit)
    figure = relation_grid(bands, one.sites, relations, draw_seeds, title=title, boundary=boundary, unit=label)
    tracking.save_picture(run, figure, "seed_comparison")
    stage("figure", "plots/seed_comparison.png and .pdf")


def _bands(runs: Sequence[Mapping[str, Series]]) -> dict[str, dict[int, tuple[float, float, float]]]:
    return {key: {step: value[:3] for step, value in of_key.items()} for key, of_key in together(runs).items()}


def groups(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return run names by group; a group is named by the parameters that set it apart, such as "optimizer=adam".

    If there is only one group it is named "all". `configs` holds the config.json of each run. A repeated seed does not
    count twice. Runs of a user's own training loop are groups of one, because their differences are not known.
    """
    stated = {name: _told(name, config) for name, config in configs.items()}
    keys = list(dict.fromkeys(key for config in stated.values() for key in config))
    differing = [key for key in keys if len({str(config.get(key)) for config in stated.values()}) > 1]
    found: dict[str, list[str]] = {}
    for name, config in stated.items():
        label = ", ".join(f"{key}={config.get(key)}" for key in differing if key in config) or "all"
        again = any(_seed(configs[name]) == _seed(configs[other]) is not None for other in found.get(label, ()))
        found.setdefault(f"{label}, run={name}" if again else label, []).append(name)
    return found


def _told(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    told = family(config["workload"]).telling(config["train"])
    return told | {"run": name} if config.get("entrypoint") in OWN_LOOPS else told


def _seed(config: Mapping[str, Any]) -> Any:
    return config["train"].get("seed")


def together(runs: Sequence[Mapping[str, Series]]) -> dict[str, dict[int, Interval]]:
    """Return the interval over runs of every value that all of them have, by metric key and step.

    Standard errors are skipped. A value that is undefined in one run gets no interval, because one over the other runs
    would be biased.
    """
    found: dict[str, dict[int, Interval]] = {}
    for key in sorted(key for key in set.intersection(*(set(run) for run in runs)) if not _is_apart(key)):
        for step in sorted(set.intersection(*(set(run[key]) for run in runs))):
            interval = t_interval([run[key][step] for run in runs])
            if interval:
                found.setdefault(key, {})[step] = interval
    return found


def _is_apart(key: str) -> bool:
    return key == DONE or key.endswith("_se")


def table_of_groups(intervals: Mapping[str, Mapping[str, Mapping[int, Interval]]], unit: str) -> str:
    """Return the content of groups.csv."""
    rows: list[tuple[Any, ...]] = []
    for label, group in intervals.items():
        for key, of_key in group.items():
            site, _, relation = ("", "", key) if key in LOSSES else key.rpartition("/")
            for epoch, (mean, low, high, n) in of_key.items():
                rows.append((label, n, epoch, site, relation, mean, low, high))
    return csv_text(("group", "runs", unit, *HEADER), rows)
