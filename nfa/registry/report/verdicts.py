"""What analyses, comparisons and studies have found, in sentences with intervals."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from nfa.errors import Refusal
from nfa.figures.flow import CURVES
from nfa.figures.gradient_series import LABELS
from nfa.parameter_groups import ParameterGroups
from nfa.registry import tracking
from nfa.registry.analyses import gradient_chance, gradient_flow_report
from nfa.registry.analyses.checkpoint_units import unit_of
from nfa.registry.families.registry import families
from nfa.registry.places import named
from nfa.registry.report.alignment_verdicts import alignment, last_values, over_seeds
from nfa.registry.report.page_data import Line
from nfa.registry.report.reported import Reported, Run
from nfa.registry.report.scores import scores
from nfa.registry.report.shown_keys import limits_of
from nfa.registry.report.study_verdicts import study
from nfa.registry.report.words import MOST_LINES, line, logged_by
from nfa.registry.tracking.sources import DONE
from nfa.studies.direction_series import WITH_CHANCE

MOST_ANALYSES = 40  # whose files are read
NOISE = "gradient/noise_scale"
Said = Callable[[Reported], Iterator[Line]]


def verdicts(reported: Reported) -> list[tuple[str, list[Line]]]:
    """Return the sentences by heading; a heading without any is left out."""
    kinds: dict[str, Said] = {
        "Study": studies,
        "Comparisons": compared,
        "Losses and scores": scores,
        "Alignment": alignment,
        "Gradient directions": directions,
        "Gradient flow": flow,
    }
    found = [(heading, list(of(reported))) for heading, of in kinds.items()]
    return [(heading, lines) for heading, lines in found if lines]


def analyses_of(reported: Reported, entrypoint: str) -> Iterator[tuple[str, Run]]:
    """Yield the newest analysis of a kind of each run, up to `MOST_ANALYSES` of them, with what the run is called.

    Those of a group of several runs are told together.
    """
    single = {reported.runs[places[0]].id for places in reported.groups.values() if len(places) == 1}
    seen: set[str] = set()
    wanted = ((one, run) for one, run in reported.analyses if run.data.tags.get("nfa.entrypoint") == entrypoint)
    for one, run in islice(wanted, MOST_ANALYSES):
        if one.id not in seen and one.id in single:
            seen.add(one.id)
            yield reported.labels[one.id], run


def directions(reported: Reported) -> Iterator[Line]:
    """Yield how the cosines and shares of gradient directions lie to their chance levels, and the noise scale."""
    for name, run in analyses_of(reported, "gradient_directions"):
        run_id = run.info.run_id
        series, config = tracking.history(run_id), reported.config(run_id) or {}
        unit = unit_of(config)
        last = max((max(of) for key, of in series.items() if key.endswith("_chance_sd") and of), default=None)
        for said in gradient_chance.verdicts(series, unit):
            yield line(f"{name}: {said}.", run_id, "gradient/*", last)
        yield from _noise(name, run_id, series, unit)
    keys = (*(f"gradient/{name}" for name in WITH_CHANCE), NOISE)
    yield from of_several(reported, {key: LABELS[key] for key in keys})


def _noise(name: str, run_id: str, series: Mapping[str, Mapping[int, float]], unit: str) -> Iterator[Line]:
    if of := series.get(NOISE):
        last = max(of)
        error = series.get(f"{NOISE}_se", {}).get(last)
        within = f" ± {2 * error:.2g}" if error else ""
        where = "" if last == max(map(max, series.values())) else ", where it is defined last"
        yield line(f"{name}: {LABELS[NOISE]} at {unit} {last}{where}: {of[last]:.3g}{within}.", run_id, NOISE, last)


def flow(reported: Reported) -> Iterator[Line]:
    """Yield the verdicts on gradient flow at the last checkpoint."""
    for name, run in analyses_of(reported, "gradient_flow"):
        run_id = run.info.run_id
        config, series = reported.config(run_id) or {}, tracking.history(run_id)
        if "groups" not in config or DONE not in series:
            yield line(f"{name}: the analysis of gradient flow has ended before its verdicts.", run_id)
            continue
        step = max(gradient_flow_report.epochs_of(series))
        for said in gradient_flow_report.verdict_lines(series, ParameterGroups(**config["groups"]), unit_of(config)):
            yield line(f"{name}: {said}.", run_id, "flow/*", step)
    yield from of_several(reported, {key: label for key, label in CURVES.items() if key.endswith("_ratio")})


def of_several(reported: Reported, labels: Mapping[str, str]) -> Iterator[Line]:
    """Yield the last values of keys over the runs of each group that has several."""
    for name, places in [*reported.groups.items()][:MOST_LINES]:
        runs = [reported.runs[place] for place in places]
        for key, label in labels.items():
            found, step = last_values(runs, [key])
            values = [of[key] for of in found if key in of]
            if len(runs) > 1 and len(values) == len(runs) and key not in reported.without_mean(name):
                chance = [of[f"{key}_chance"] for of in found if f"{key}_chance" in of]
                beside = f" against chance {sum(chance) / len(chance):.3g}" if len(chance) == len(runs) else ""
                told = f"{label} at {runs[0].unit} {step}: {over_seeds(values, limits_of(key))}{beside}"
                yield line(f"{name}: {told}.", logged_by(runs, key), key, step)


def compared(reported: Reported) -> Iterator[Line]:
    """Yield the results of comparisons: of gradient flow, and those that a family of models makes."""
    told: set[str] = set()
    for run in [*reported.comparisons, *reported.parents]:
        for one in _of_family(run):  # an experiment tells the same as its own comparison
            if one["text"] not in told:
                told.add(one["text"])
                yield one
        found = reported.json(run.info.run_id, "gradient_flow.json") or {}
        for arm, remedy in found.get("remedies", {}).items():
            if remedy:
                factors = f"gradient ratio {_factor(remedy, 'gradient_factor')}, update ratio "
                said = f"{arm} against {found['compared_with']}: {factors}{_factor(remedy, 'update_factor')}"
                verdict = f": {remedy['verdict']}" if "verdict" in remedy else ""
                over = "geometric means over all checkpoints of both, not values at the last one"
                yield line(f"{said}{verdict} ({over}).", run.info.run_id, "gradient_flow.json")


def _factor(remedy: Mapping[str, Any], name: str) -> str:
    """Return a factor in words, with its range over the seeds if there are several."""
    if remedy[name] is None:
        return "not measured"
    of_seeds = [one[name] for one in remedy.get("by_seed", {}).values() if one[name] is not None]
    spread = f" ({min(of_seeds):.3g} to {max(of_seeds):.3g} over {len(of_seeds)} seeds)" if len(of_seeds) > 1 else ""
    return f"× {remedy[name]:.3g}{spread}"


def _of_family(run: Run) -> Iterator[Line]:
    """Yield what the family that has made a run tells of its results."""
    point = {name: one for family in families() for name, one in family.entry_points.items()}.get(
        run.data.tags.get("nfa.entrypoint", "")
    )
    if point is None or not point.verdicts:
        return
    run_id = run.info.run_id
    try:
        if tracking.has_artifact(run_id, point.results):
            for said in named(point.verdicts)(run_id):
                yield line(f"{said}.", run_id, point.results)
    except (Refusal, *tracking.StoreError) as trouble:
        yield line(f"{point.results} cannot be read: {trouble}", run_id, point.results)


def studies(reported: Reported) -> Iterator[Line]:
    """Yield the results of studies."""
    for run in reported.parents:
        if found := reported.json(run.info.run_id, "study.json"):
            yield from study(run.info.run_id, found)
