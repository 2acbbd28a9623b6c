"""Gradient directions of several runs side by side, and differences between two."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nfa.analyses.csv_files import directions_csv
from nfa.console import stage
from nfa.figures.gradient_pictures import ON_PAGE, DrawnDirections, gradient_montage
from nfa.figures.gradient_series import LABELS, Intervals, gradient_differences, gradient_series
from nfa.figures.gradient_words import gradients_of
from nfa.figures.training_analysis import Series
from nfa.plain_text import csv_text
from nfa.registry import tracking
from nfa.registry.analyses import gradient_arrays
from nfa.registry.analyses.checkpoint_units import common_unit, unit_of
from nfa.registry.analyses.gradient_directions_report import PREFIX, directions
from nfa.registry.analyses.gradient_phases import change
from nfa.registry.analyses.seed_groups import groups, table_of_groups, together
from nfa.registry.analyses.titles import losses_of, subject_of
from nfa.registry.tracking import TrackedRun
from nfa.registry.tracking.sources import DONE
from nfa.studies.direction_series import SERIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_RUNS = 4  # in one montage


def compare(run: TrackedRun, parts: Mapping[str, str], sources: Mapping[str, str]) -> None:
    """Write tables and figures; `parts` and `sources` map run names to ids of analyses and of analysed runs."""
    series = dict(zip(parts, tracking.histories(parts.values()).values(), strict=True))
    described = {name: tracking.get_json(part, "config.json") for name, part in parts.items()}
    unit = common_unit(unit_of(one) for one in described.values())
    tracking.put_text(run.info, "comparison.csv", directions_csv(series, unit, DONE))
    subject = subject_of([*sources.values()])
    loss = losses_of([*sources.values()])
    figure = gradient_series(series, title=_gradients(subject, described.values()), unit=unit, loss=loss)
    tracking.save_picture(run, figure, "comparison")
    stage("figure", "plots/comparison.png and .pdf")
    if len(parts) <= MOST_RUNS:
        found = {f"{name}, ": directions(part, series[name], described[name]) for name, part in parts.items()}
        if shown := {name: of_run for name, of_run in found.items() if of_run}:
            figure = _montage(shown, subject, unit)
            tracking.save_picture(run, figure, "gradient_montage")
            stage("figure", "plots/gradient_montage.png and .pdf")
    if len(parts) == 2:
        _differences(run, parts, series, unit, subject)
    _groups(run, series, sources, unit, subject)


def _gradients(subject: str, described: Iterable[Mapping[str, Any]]) -> str:
    """Return what was trained on what, and which gradients were measured, if they are those of one loss."""
    found = {gradients_of(one["conventions"], len(one["examples"])) for one in described}
    return ": ".join([*filter(None, [subject]), *(found if len(found) == 1 else ["gradients of different losses"])])


def _montage(shown: Mapping[str, Mapping[int, DrawnDirections]], subject: str, unit: str) -> "Figure":
    """Draw all runs on one page, with as many checkpoints of each as there is room for."""
    most, longest = ON_PAGE // len(shown), max(map(len, shown.values()))
    some = [f"{most} of {longest} checkpoints"] if longest > most else []
    return gradient_montage(shown, title=", ".join([*filter(None, [subject]), *some]), most=most, unit=unit)


def _differences(
    run: TrackedRun, parts: Mapping[str, str], series: Mapping[str, Mapping[str, Series]], unit: str, subject: str
) -> None:
    """Compare the second run with the first, series by series, with 95 % bootstrap intervals over the probe."""
    (first, first_id), (second, second_id) = parts.items()
    probes = [tracking.get_json(part, "config.json") for part in parts.values()]
    paired = all(probes[0][key] == probes[1][key] for key in ("examples", "classes"))
    found = differences((first_id, second_id), (series[first], series[second]), paired=paired)
    rows = ((epoch, key, *values) for key, of_key in found.items() for epoch, values in of_key.items())
    tracking.put_text(run.info, "differences.csv", csv_text((unit, "series", "difference", "low", "high"), rows))
    how = "the same examples" if paired else "different examples"
    title = f"{second} − {first}: 95 % bootstrap intervals over {how}"
    content = {
        "difference": f"{second} - {first}",
        "examples": how,
        "series": {
            key: {str(epoch): list(values) for epoch, values in of_key.items()} for key, of_key in found.items()
        },
    }
    tracking.put_json(run.info, "differences.json", content)
    above = ": ".join([*filter(None, [subject]), title])
    tracking.save_picture(run, gradient_differences(found, title=above, unit=unit), "differences")
    stage("figure", f"plots/differences.png and .pdf: {title}")


def differences(ids: Sequence[str], series: Sequence[Mapping[str, Series]], *, paired: bool) -> Mapping[str, Intervals]:
    """Return second minus first by metric key and epoch, with interval limits, wherever both are defined.

    Both analyses used the same random numbers for the bootstrap. If their examples differ, the draws of one are
    shuffled so that they are not paired.
    """
    found: dict[str, dict[int, tuple[float, float, float]]] = {}
    for epoch in sorted(set(series[0][DONE]) & set(series[1][DONE])):
        draws = [gradient_arrays.load(run_id, epoch, "draws") for run_id in ids]
        draws[1] = draws[1] if paired else np.roll(draws[1], 1, axis=1)
        for name in SERIES:
            key = PREFIX + name
            if all(epoch in of_run.get(key, {}) for of_run in series):
                values = change(series[1][key][epoch] - series[0][key][epoch], draws[1] - draws[0], name)
                if "low" in values:
                    found.setdefault(key, {})[epoch] = (values["change"], values["low"], values["high"])
    return found


def _groups(
    run: TrackedRun, series: Mapping[str, Mapping[str, Series]], sources: Mapping[str, str], unit: str, subject: str
) -> None:
    """Draw the mean and t-interval over runs that differ only in their seed."""
    grouped = groups({name: tracking.config(source) for name, source in sources.items()})
    if max(map(len, grouped.values())) < 2:
        return
    intervals = {label: together([series[name] for name in names]) for label, names in grouped.items()}
    tracking.put_text(run.info, "groups.csv", table_of_groups(intervals, unit))
    means: dict[str, dict[str, dict[int, float]]] = {}
    for label, of_group in intervals.items():
        made = means[label] = {DONE: {}}
        for key in LABELS:
            for epoch, (mean, low, high, _) in of_group.get(key, {}).items():
                made[DONE][epoch] = 0.0
                made.setdefault(key, {})[epoch] = mean
                made.setdefault(f"{key}_se", {})[epoch] = float(np.subtract(high, low)) / 4  # drawn as ± 2 se
    title = ": ".join([*filter(None, [subject]), "means over seeds"])
    loss = losses_of([*sources.values()])
    figure = gradient_series(means, title=title, unit=unit, loss=loss, band="95 % t-interval over seeds")
    tracking.save_picture(run, figure, "seed_comparison")
    stage("figure", "plots/seed_comparison.png and .pdf")
