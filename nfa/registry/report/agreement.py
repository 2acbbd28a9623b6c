"""Which analyses the values of a group come from: those that have measured in the same way in all of its runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nfa.registry import tracking
from nfa.registry.report.reported import Apart, How, Reported, ReportedRun, Run

Config = Callable[[str], Mapping[str, Any] | None]
Ways = Mapping[How, Mapping[int, int]]  # the place of a holder by that of its run, by how it has measured
TRAINING: How = (("logged by", "the training"),)


def agreeing(reported: Reported) -> Reported:
    """Return the same with values that were measured in the same way in all runs of a group, where there are any."""
    runs = list(reported.runs)
    apart: dict[str, list[Apart]] = {}
    for name, places in reported.groups.items():
        found, apart[name] = agreed([runs[place] for place in places], reported.config)
        for place, one in zip(places, found, strict=True):
            runs[place] = one
    return replace(reported, runs=runs, apart=apart)


def agreed(runs: Sequence[ReportedRun], config: Config) -> tuple[list[ReportedRun], list[Apart]]:
    """Return the runs of a group, with values that were measured in the same way, and the keys where there are none."""
    if len(runs) == 1 or not any(tracking.is_analysis(holder) for one in runs for holder in one.measured.holders):
        return list(runs), []
    hows = [[how_measured(holder, config) for holder in one.measured.holders] for one in runs]
    chosen: list[dict[str, int]] = [{} for _ in runs]
    apart: list[Apart] = []
    for key in dict.fromkeys(key for one in runs for key in one.owners):
        best = _best(runs, hows, key)
        for place, holder in best.items():
            chosen[place][key] = holder
        if not best:
            apart.append(Apart(key, _ways(runs, hows, key)))
    return [replace(one, agreed=of) for one, of in zip(runs, chosen, strict=True)], apart


def how_measured(holder: Run, config: Config) -> How:
    """Return what decides how a run has measured: its conventions, and the version of the code."""
    if not tracking.is_analysis(holder):
        return TRAINING
    stated = (config(holder.info.run_id) or {}).get("conventions") or {}
    told = {"logged by": str(holder.data.tags.get("nfa.entrypoint", "")), "version": _version(holder), **stated}
    return tuple((name, str(said)) for name, said in told.items())


def _version(holder: Run) -> str:
    return str(holder.data.tags.get("nfa.version", ""))


def _best(runs: Sequence[ReportedRun], hows: Sequence[Sequence[How]], key: str) -> Mapping[int, int]:
    """Return the holder of each run that has a key, all of which have measured in the same way; nothing if none have.

    Those with a chance level come first, then what was logged while training, then the newest analysis.
    """
    having = [place for place, one in enumerate(runs) if key in one.owners]
    found = [of for of in _candidates(runs, hows, key).values() if len(of) == len(having)]
    return max(found, key=lambda of: _rank(runs, of, key), default={})


def _candidates(runs: Sequence[ReportedRun], hows: Sequence[Sequence[How]], key: str) -> Ways:
    found: dict[How, dict[int, int]] = {}
    for place, one in enumerate(runs):
        for holder in one.in_order(key):
            found.setdefault(hows[place][holder], {}).setdefault(place, holder)
    return found


def _rank(runs: Sequence[ReportedRun], of: Mapping[int, int], key: str) -> tuple[bool, bool, int]:
    holders = [runs[place].measured.holders[holder] for place, holder in of.items()]
    whole = all(f"{key}_chance" in holder.data.metrics for holder in holders)
    started = max(holder.info.start_time for holder in holders)
    return whole, not any(map(tracking.is_analysis, holders)), started


def _ways(runs: Sequence[ReportedRun], hows: Sequence[Sequence[How]], key: str) -> Mapping[How, Sequence[ReportedRun]]:
    found: dict[How, list[ReportedRun]] = {}
    for one, of in zip(runs, hows, strict=True):
        if key in one.owners:
            found.setdefault(of[one.owners[key]], []).append(one)
    return found


def told_apart(ways: Mapping[How, Sequence[ReportedRun]]) -> Iterator[tuple[str, Sequence[ReportedRun]]]:
    """Yield for each way what sets it apart from the others, in words, and its runs."""
    stated = [dict(how) for how in ways]
    names = dict.fromkeys(name for of in stated for name in of)
    differing = [name for name in names if len({of.get(name) for of in stated}) > 1]
    for of, runs in zip(stated, ways.values(), strict=True):
        yield ", ".join(f"{name.replace('_', ' ')} {of[name]}" for name in differing if name in of), runs
