"""What a reader has to know beside the numbers: conventions, failures, and what is missing."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from nfa.plain_text import counted
from nfa.registry import tracking
from nfa.registry.report.agreement import told_apart
from nfa.registry.report.alignment_verdicts import sites_keys
from nfa.registry.report.page_data import Line
from nfa.registry.report.reported import Apart, Reported, ReportedRun, is_training
from nfa.registry.report.scores import SPLITS
from nfa.registry.report.series import ReadSeries, status
from nfa.registry.report.shown_keys import loss_kinds
from nfa.registry.report.words import MOST_LINES, line
from nfa.relations import RELATIONS

FEW = 100  # examples below which standard errors are large
SIGNS = (
    "± stands for two standard errors over examples or random directions; of a chance level, for two standard "
    "deviations over random rotations. A value without ± was logged without an error. Intervals over seeds are 95 % "
    "t-intervals of the mean, from three seeds on, cut off at what is possible. Where a value with corrected norms was "
    "logged, that is compared with the levels."
)
NAMED = 6  # runs that a sentence names
MOST_STATING = 200  # runs whose conventions are read


class Stating(NamedTuple):
    """A run that may state conventions: the run whose values it holds, its id, what it is, and whether it analyses."""

    run: ReportedRun
    id: str
    kind: str
    analysis: bool


def conventions(reported: Reported) -> list[Line]:
    """Return how values were measured, each convention once with a run that states it, or all who differ in it."""
    found: dict[str, dict[str, list[Stating]]] = {}
    for one in _stating(reported):
        stated = (reported.config(one.id) or {}).get("conventions") or {}
        for name, said in stated.items():
            found.setdefault(f"{one.kind}: {name.replace('_', ' ')}", {}).setdefault(str(said), []).append(one)
    signs = [line(SIGNS)] if any(one.owners for one in reported.runs) else []
    return [*signs, *(told for name, of in found.items() for told in _convention(name, of))]


def _convention(name: str, of: Mapping[str, Sequence[Stating]]) -> Iterator[Line]:
    """Yield a convention; where analyses differ in it, which of them have which."""
    for said, stating in of.items():
        which = [f"{one.run.name} (analysis {one.id[:8]})" if one.analysis else one.run.name for one in stating]
        told = f", in {_some(which)}" if len(of) > 1 else ""
        ids = [one.id for one in stating][: NAMED if told else 1]
        yield line(f"{name}: {said}{told}", ",".join(ids), "config.json")


def _stating(reported: Reported) -> Iterator[Stating]:
    """Yield the runs that hold the values, as far as their number allows to read what they say of themselves."""
    holders = ((one, holder) for one in reported.runs for holder in one.measured.holders)
    for one, holder in islice(holders, MOST_STATING):
        kind = str(holder.data.tags.get("nfa.entrypoint", "run"))
        yield Stating(one, holder.info.run_id, kind, tracking.is_analysis(holder))


def notices(reported: Reported, read_series: ReadSeries) -> list[Line]:
    """Return failures, runs that have not ended, what is undefined, and what nfa does not know of a run."""
    return [
        *_states(reported),
        *_foreign(reported),
        *_losses(reported),
        *_units(reported),
        *_short(reported, read_series),
        *_undefined(reported),
        *_apart(reported),
        *_not_held(reported, read_series),
        *_of_parents(reported),
        *_damaged(reported),
        *_deleted(reported),
        *_examples(reported),
        *_seeds(reported),
        *_selected(reported),
    ]


def _states(reported: Reported) -> Iterator[Line]:
    by_state: dict[str, list[ReportedRun]] = {}
    for one in reported.runs:
        by_state.setdefault(status(one), []).append(one)
    for state, runs in by_state.items():
        if state != "finished":
            reasons = dict.fromkeys(text for one in runs[:NAMED] if (text := one.tags.get("nfa.error", "")))
            why = f": {'; '.join(reasons)}" if reasons else ""
            yield line(f"{_named(runs)}: {state}{why}. The values are those logged until then.", _ids(runs))


def _foreign(reported: Reported) -> Iterator[Line]:
    others = [one for one in reported.runs if not is_training(one.run)]
    if others:
        said = "not made by nfa, so what was trained on what, its seeds and its conventions are not known"
        yield line(f"{_named(others)}: {said}.", _ids(others))
    old = [one for one in reported.runs if one.tags.get("nfa.version", "").startswith("0.6")]
    if old:
        said = "made by nfa 0.6, which logged no chance levels, no commit of its analysis and no coverage"
        yield line(f"{_named(old)}: {said}.", _ids(old))
    without = [one for one in reported.runs if not one.owners]
    if without:
        yield line(f"{_named(without)}: no metrics were logged.", _ids(without))


def _losses(reported: Reported) -> Iterator[Line]:
    kinds = loss_kinds(reported)
    if len(kinds) > 1:
        yield line(f"The runs minimise different losses ({', '.join(kinds)}), whose values cannot be compared.")


def _units(reported: Reported) -> Iterator[Line]:
    units: dict[str, list[ReportedRun]] = {}
    for one in reported.runs:
        units.setdefault(one.unit, []).append(one)
    if len(units) > 1:
        which = "; ".join(f"{unit}s of {_named(runs)}" for unit, runs in units.items())
        yield line(f"Steps are not the same in all runs, and yet they share an axis: {which}.")


def _short(reported: Reported, read_series: ReadSeries) -> Iterator[Line]:
    """Yield groups whose means end early, because one of their runs has ended early."""
    for name, places in reported.groups.items():
        ends = {
            place: max((max(of) for of in read_series.of_runs[place].values() if of), default=-1) for place in places
        }
        if len(set(ends.values())) > 1:
            first = min(ends, key=lambda place: ends[place])
            one = reported.runs[first]
            where = f"after {one.unit} {ends[first]}" if ends[first] >= 0 else "without values"
            yield line(f"Means of {name} are only over steps that all runs share: {one.name} ends {where}.", one.id)


def _undefined(reported: Reported) -> Iterator[Line]:
    """Yield relations that have no value at a site where others of the same kind have one."""
    for one in reported.runs[:MOST_LINES]:
        keys = {name: sites_keys([one], name) for name in RELATIONS}
        sites = {key.rpartition("/")[0] for of in keys.values() for key in of}
        for name, of in keys.items():
            lacking = sorted(sites - {key.rpartition("/")[0] for key in of}) if of else []
            if lacking:
                shown = ", ".join(lacking[:NAMED]) + (" …" if len(lacking) > NAMED else "")
                said = f"{RELATIONS[name].label} is undefined at {counted(len(lacking), 'site')}: {shown}"
                yield line(f"{one.name}: {said}. It is absent, not 0.", one.holder_of(of[0]), f"*/{name}")


def _apart(reported: Reported) -> Iterator[Line]:
    """Yield what the runs of a group have measured in different ways."""
    for name, apart in [*reported.apart.items()][:MOST_LINES]:
        alike: dict[tuple[tuple[str, str], ...], list[Apart]] = {}
        for one in apart:
            alike.setdefault(tuple((told, _named(runs)) for told, runs in told_apart(one.ways)), []).append(one)
        for told, several in alike.items():
            ways = "; ".join(f"{runs}: {way}" for way, runs in told)
            keys = _some([one.key for one in several], "keys")
            said = f"{keys} of {name}: measured in different ways, so there is no mean over these runs ({ways})"
            ids = [one.holder_of(several[0].key) for runs in several[0].ways.values() for one in runs]
            yield line(f"{said}.", ",".join(ids[:NAMED]), keys)


def _not_held(reported: Reported, read_series: ReadSeries) -> Iterator[Line]:
    """Yield values that are absent because they are not finite, or because single precision has no room for them."""
    where: dict[str, list[ReportedRun]] = {}
    for one, undefined in zip(reported.runs, read_series.undefined, strict=True):
        for key in sorted(one.undefined | undefined):
            where.setdefault(key, []).append(one)
    alike: dict[tuple[str, str], list[str]] = {}
    for key, runs in where.items():
        alike.setdefault((_named(runs), _ids(runs)), []).append(key)
    for (named, ids), keys in [*alike.items()][:MOST_LINES]:
        said = "values that are not finite, or too large or too small for single precision, are absent"
        yield line(f"{_some(keys, 'keys')} of {named}: {said}.", ids, _some(keys, "keys"))


def _of_parents(reported: Reported) -> Iterator[Line]:
    """Yield what parents that nfa has not made have logged themselves; those of nfa log means over their runs."""
    for run in reported.parents:
        if run.data.metrics and not is_training(run):
            own = _some(sorted(run.data.metrics), "keys")
            said = "what this parent has logged itself is not here, but in its run"
            yield line(f"{run.info.run_name}: {said}: {own}.", run.info.run_id, own)


def _damaged(reported: Reported) -> Iterator[Line]:
    for (run_id, path), trouble in [*reported.damaged.items()][:MOST_LINES]:
        yield line(
            f"{path} of run {run_id[:12]} cannot be read, so what it tells is not here: {trouble}.", run_id, path
        )


def _deleted(reported: Reported) -> Iterator[Line]:
    for run in filter(tracking.is_analysis, reported.named):
        sources = tracking.sources_of(run)
        known = {one.info.run_id for one in tracking.existing_runs(sources)}
        if gone := [source for source in sources if source not in known]:
            said = f"is about {counted(len(gone), 'run')} not in the store any more"
            yield line(f"{run.info.run_name} {said}: {_some(gone)}.", run.info.run_id)


def _examples(reported: Reported) -> Iterator[Line]:
    """Yield analyses of few examples."""
    for one in reported.runs[:MOST_LINES]:
        for holder in one.measured.holders:
            config: Mapping[str, Any] = reported.config(holder.info.run_id) or {}
            n = (config.get("conventions") or {}).get("examples")
            if isinstance(n, int) and n < FEW:
                said = f"{holder.info.run_name}: measured on {counted(n, 'example')}, so errors are large"
                yield line(f"{said}; look at the standard errors.", holder.info.run_id, "config.json")


def _seeds(reported: Reported) -> Iterator[Line]:
    sizes = {name: len(places) for name, places in reported.groups.items()}
    scored = any(key.partition("/")[0] in SPLITS for key in reported.keys)
    if scored and max(sizes.values(), default=0) == 1:
        yield line("There is one run of each kind, so nothing here tells how much a value varies with the seed.")
    elif two := [name for name, size in sizes.items() if size == 2]:
        shown = ", ".join(two[:NAMED]) + (" …" if len(two) > NAMED else "")
        yield line(f"Two seeds of {shown}: too few for an interval, so their range is told and no band is drawn.")


def _selected(reported: Reported) -> Iterator[Line]:
    best = [one for one in reported.runs if one.tags.get("nfa.best") == "true"]
    if best:
        said = "selected as the best of its study, so its values are biased, and so are means that include it"
        yield line(f"{_named(best)}: {said}; the verdict of the study uses fresh seeds.", _ids(best))


def _named(runs: Sequence[ReportedRun]) -> str:
    return _some([one.name for one in runs])


def _some(names: Sequence[str], what: str = "runs") -> str:
    """Return the first of some names, and how many more there are."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more {what}" if len(names) > NAMED else "")


def _ids(runs: Sequence[ReportedRun]) -> str:
    return ",".join(one.id for one in runs[:NAMED])
