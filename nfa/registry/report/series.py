"""The numbers of a page: runs, groups, series, means over seeds, and last values."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime

from nfa.bookkeeping import is_bookkeeping
from nfa.console import bar
from nfa.figures.training_analysis import Series
from nfa.levels import SUFFIXES
from nfa.registry import tracking
from nfa.registry.report.curves import Steps, curve, encoded, existing, mean_curves, points_of
from nfa.registry.report.page_data import Curve, Latest, PageGroup, PageNumbers, PageRun, PictureSeries
from nfa.registry.report.reported import Reported, ReportedRun
from nfa.registry.report.shown_keys import ShownKeys

AT_ONCE = 50  # runs whose series are read together
COMMIT = "mlflow.source.git.commit"
RunSeriesByKey = Mapping[str, Series]


@dataclass(frozen=True)
class ReadSeries:
    """The series of the shown keys, one mapping for each run, by key and with what stands beside them."""

    of_runs: Sequence[RunSeriesByKey]
    undefined: Sequence[Set[str]] = ()  # of each run: the keys with values that are not finite or not to be held

    def values(self, keys: Sequence[str]) -> dict[str, list[float]]:
        """Return the values of all runs by key."""
        return {key: [value for one in self.of_runs for value in one.get(key, {}).values()] for key in keys}

    def most(self, keys: Sequence[str]) -> dict[str, int]:
        """Return how many values the run with the most of them has, by key."""
        return {key: max((len(one.get(key, ())) for one in self.of_runs), default=0) for key in keys}


def read(reported: Reported, shown: ShownKeys) -> ReadSeries:
    """Read the series that are shown, some runs at a time; values that are not finite are left out."""
    ends = {key: ("",) if key in shown.bare else ("", *SUFFIXES) for key in shown.names}
    found: list[RunSeriesByKey] = []
    undefined: list[Set[str]] = []
    for start in bar(range(0, len(reported.runs), AT_ONCE), "reading", unit=f"×{AT_ONCE} runs"):
        for logged in _some(reported.runs[start : start + AT_ONCE], ends):
            found.append(existing(logged))
            undefined.append({key for key, of in logged.items() if len(of) > len(found[-1][key])})
    return ReadSeries(found, undefined)


def _some(runs: Sequence[ReportedRun], ends: Mapping[str, Sequence[str]]) -> Iterator[RunSeriesByKey]:
    """Yield the series of each run; a value and what stands beside it come from the run that owns the value."""
    owned = [{key: one.holder_of(key) for key in ends if key in one.owners} for one in runs]
    among = {f"{key}{end}" for key, of in ends.items() for end in of}
    needed = sorted({holder for of in owned for holder in of.values()})
    logged = tracking.histories(needed, among) if needed else {}
    for of_run in owned:
        wanted = ((f"{key}{end}", holder) for key, holder in of_run.items() for end in ends[key])
        yield {key: logged[holder][key] for key, holder in wanted if key in logged[holder]}


def page_numbers(
    reported: Reported, shown: ShownKeys, read_series: ReadSeries, pictures: list[PictureSeries]
) -> PageNumbers:
    """Return all that the script of the page draws."""
    steps, keys = Steps(), shown.names
    groups = _groups(reported)
    several = any(len(group["runs"]) > 1 for group in groups)
    most = points_of(len(keys) * (len(reported.runs) + (len(groups) if several else 0)))
    return {
        "runs": [page_run(one) for one in reported.runs],
        "groups": groups,
        "steps": steps.lists,
        "keys": shown.keys,
        "curves": _curves(reported, keys, read_series, steps, most),
        "means": _means(groups, shown, read_series, steps, most) if several else {},
        "latest": _latest(reported),
        "sections": shown.sections,
        "pictures": pictures,
    }


def _groups(reported: Reported) -> list[PageGroup]:
    return [_group(reported, name, places) for name, places in reported.groups.items()]


def _group(reported: Reported, name: str, places: list[int]) -> PageGroup:
    found: PageGroup = {"name": name, "runs": places}
    apart = sorted(reported.without_mean(name))
    return {**found, "apart": apart} if apart else found


def _curves(
    reported: Reported, keys: Sequence[str], read_series: ReadSeries, steps: Steps, most: int
) -> dict[str, list[Curve | None]]:
    runs = [*zip(reported.runs, read_series.of_runs, strict=True)]
    return {key: [curve(series, key, steps, most, one.owners.get(key, 0)) for one, series in runs] for key in keys}


def _means(
    groups: Sequence[PageGroup],
    shown: ShownKeys,
    read_series: ReadSeries,
    steps: Steps,
    most: int,
) -> dict[str, list[Curve | None]]:
    """Return the means of each group by key; a group of a single run has none."""
    limits = {key["key"]: key["limits"] for key in shown.keys}
    found: dict[str, list[Curve | None]] = {key: [] for key in limits}
    for group in bar(groups, "means", unit="group"):
        places = group["runs"]
        of = mean_curves([read_series.of_runs[place] for place in places], limits, steps, most) if places[1:] else {}
        for key in limits:
            found[key].append(None if key in group.get("apart", ()) else of.get(key))
    return found


def page_run(one: ReportedRun) -> PageRun:
    """Return a run as the page holds it."""
    info, tags = one.run.info, one.tags
    return {
        "id": one.id,
        "name": one.name,
        "variant": one.variant,
        "seed": None if one.seed is None else str(one.seed),
        "entrypoint": tags.get("nfa.entrypoint", ""),
        "status": status(one),
        "started": datetime.fromtimestamp(info.start_time / 1000, UTC).isoformat(timespec="seconds"),
        "seconds": (info.end_time - info.start_time) / 1000 if info.end_time else None,
        "commit": tags.get(COMMIT, ""),
        "coverage": tags.get("nfa.coverage", ""),
        "unit": one.unit,
        "holders": [holder.info.run_id for holder in one.measured.holders],
        "parameters": dict(one.parameters),
    }


def status(one: ReportedRun) -> str:
    """Return the true state of a run; of a run without nfa's tag, that of MLflow."""
    state = str(one.tags.get("nfa.state", one.run.info.status.lower()))
    return "stopped without a word" if state == "running" and is_dead(one) else state


def is_dead(one: ReportedRun) -> bool:
    """Return whether a run of nfa says that it is running and is not."""
    return one.tags.get("nfa.state") == "running" and not tracking.is_running(one.run)


def _latest(reported: Reported) -> Latest:
    keys = sorted({key for one in reported.runs for key in one.last if key in one.owners and not is_bookkeeping(key)})
    return {
        "values": {
            key: encoded(one.last[key][1] if key in one.last else None for one in reported.runs) for key in keys
        },
        "steps": {key: encoded(one.last[key][0] if key in one.last else None for one in reported.runs) for key in keys},
        "of": {key: of for key in keys if any(of := [one.owners.get(key, 0) for one in reported.runs])},
    }
