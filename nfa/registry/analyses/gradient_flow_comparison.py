"""Gradient flow of several runs side by side: which change helps learning, and which only rescales gradients."""

from collections.abc import Mapping, Sequence
from typing import Any

from nfa.bookkeeping import is_bookkeeping
from nfa.console import stage
from nfa.figures.flow import CURVES, flow_curves
from nfa.figures.gradient_words import gradients_of
from nfa.parameter_groups import ParameterGroups
from nfa.plain_text import csv_text
from nfa.registry import tracking
from nfa.registry.analyses.arms import Arm, arms_of, factor_interval
from nfa.registry.analyses.checkpoint_units import common_unit, unit_of
from nfa.registry.analyses.gradient_flow_report import HEADINGS, MEASURES, common, is_put_in, number
from nfa.registry.analyses.score_comparison import INTERVAL, draw_scores, interval, score_lines, scores
from nfa.registry.analyses.titles import subject_of
from nfa.registry.tracking import TrackedRun
from nfa.registry.tracking.sources import DONE
from nfa.studies.gradient_flow import RATIOS, Remedy, remedy

BAND = "95 % t-interval over seeds, of logarithms"
GRADIENT, UPDATE = "flow/front_output_ratio", "flow/front_output_update_ratio"


def compare(
    run: TrackedRun,
    parts: Mapping[str, str],
    sources: Mapping[str, str],
    *,
    seed: int,
    labels: Mapping[str, str] | None = None,
    failed: Mapping[str, int] = {},
) -> list[Arm]:
    """Write tables and figures, and return the arms. `parts`, `sources` and `labels` are by run name.

    `parts` holds ids of analyses, `sources` ids of the analysed runs. Every arm is compared with the first one.
    `failed` counts the failed trainings of each arm.
    """
    arms = arms_of(parts, sources, labels, failed)
    described = [tracking.get_json(part, "config.json") for part in parts.values()]
    groups = common([ParameterGroups(**one["groups"]) for one in described])
    epoch, unit = last_common(arms), common_unit(map(unit_of, described))
    tracking.put_text(run.info, "comparison.csv", table(arms, unit))
    found = content(arms, groups, epoch, seed, unit)
    tracking.put_json(run.info, "gradient_flow.json", found)
    tracking.put_text(run.info, "gradient_flow.txt", written(arms, groups, epoch, found, unit))
    _draw(run, arms, described, found, unit, subject_of([*sources.values()]))
    for line in remedy_lines(arms):
        stage("remedy", line)
    return arms


def last_common(arms: Sequence[Arm]) -> int | None:
    """Return the last epoch that every run has, or None."""
    epochs = set.intersection(*(set(series.get(DONE, {})) for arm in arms for series in arm.series))
    return max(epochs) if epochs else None


def _draw(
    run: TrackedRun,
    arms: Sequence[Arm],
    described: Sequence[Mapping[str, Any]],
    found: Mapping[str, Any],
    unit: str,
    subject: str,
) -> None:
    roles = {tuple(one["groups"][role] for role in ("front", "back", "output")) for one in described}
    named = dict(zip(("front", "back", "output"), next(iter(roles)), strict=True)) if len(roles) == 1 else {}
    curves = {arm.label: arm.averaged(list(CURVES)) for arm in arms}
    title = ": ".join(filter(None, [subject, ", ".join([*_gradients(described), *_seeds(arms)])]))
    factors = {ParameterGroups(**one["groups"]).built_in for one in described}
    built_in = factors.pop() if len(factors) == 1 else None
    figure = flow_curves(curves, named, title=title, unit=unit, built_in=built_in, band=BAND)
    tracking.save_picture(run, figure, "gradient_flow_comparison")
    stage("figure", "plots/gradient_flow_comparison.png and .pdf")
    draw_scores(run, arms, found, subject)


def _gradients(described: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return whose gradients were measured, if they are of one loss and of equally many examples."""
    found = {gradients_of(one["conventions"], one["conventions"]["examples"]) for one in described}
    return [*found] if len(found) == 1 else []


def _seeds(arms: Sequence[Arm]) -> list[str]:
    counts = sorted({len(arm.seeds) for arm in arms})
    return [f"geometric mean over {' or '.join(map(str, counts))} seeds"] if counts[-1] > 1 else []


def table(arms: Sequence[Arm], unit: str = "epoch") -> str:
    """Return the content of comparison.csv: every value of every run."""
    rows = (
        (arm.label, seed, epoch, key, value)
        for arm in arms
        for seed, series in zip(arm.seeds, arm.series, strict=True)
        for key in sorted(series)
        if not is_bookkeeping(key)
        for epoch, value in series[key].items()
    )
    return csv_text(("arm", "seed", unit, "series", "value"), rows)


def content(
    arms: Sequence[Arm], groups: Sequence[str], epoch: int | None, seed: int, unit: str = "epoch"
) -> dict[str, Any]:
    """Return the content of a comparison's gradient_flow.json: undefined and unmeasured values are null."""
    at = (
        {arm.label: {key: arm.mean(key).get(epoch) for key in _keys(groups)} for arm in arms}
        if epoch is not None
        else {}
    )
    return {
        "compared_with": arms[0].label,
        unit: epoch,
        "values": at,
        "remedies": {arm.label: _remedy(arm, arms[0], epoch, unit) for arm in arms[1:]},
        **scores(arms, seed=seed),
        "failed": {arm.label: arm.failed for arm in arms if arm.failed},
        "interval": INTERVAL,
    }


def _keys(groups: Sequence[str]) -> list[str]:
    return [*(f"flow/{group}/{name}" for name in MEASURES for group in groups), *(f"flow/{name}" for name in RATIOS)]


def remedy_of(arm: Arm, first: Arm) -> Remedy | None:
    """Return whether updates follow the arm's change of the gradient ratio."""
    return remedy(arm.mean(GRADIENT), arm.mean(UPDATE), first.mean(GRADIENT), first.mean(UPDATE))


def remedies_of_seeds(arm: Arm, first: Arm) -> dict[int, Remedy]:
    """Return the same for each seed that both arms have."""
    series = {one.label: dict(zip(one.seeds, one.series, strict=True)) for one in (first, arm)}
    found = {
        seed: remedy(*(series[one.label][seed].get(key, {}) for one in (arm, first) for key in (GRADIENT, UPDATE)))
        for seed in arm.seeds
        if seed in first.seeds
    }
    return {seed: one for seed, one in found.items() if one is not None}


def _remedy(arm: Arm, first: Arm, epoch: int | None, unit: str) -> dict[str, Any] | None:
    found = remedy_of(arm, first)
    if found is None:
        return None
    at = (
        {}
        if epoch is None
        else {
            name: interval(factor_interval(arm, first, key, epoch))
            for name, key in ((f"gradient_factor_at_{unit}", GRADIENT), (f"update_factor_at_{unit}", UPDATE))
        }
    )
    of_seeds = {str(seed): one._asdict() for seed, one in remedies_of_seeds(arm, first).items()}
    return {**found._asdict(), "by_seed": of_seeds, **at}


def remedy_lines(arms: Sequence[Arm]) -> list[str]:
    """Return one line per arm except the first."""
    lines = []
    for arm in arms[1:]:
        found = remedy_of(arm, arms[0])
        if found is None:
            lines.append(f"{arm.label}: there is no ratio to compare")
            continue
        of_seeds = remedies_of_seeds(arm, arms[0])
        gradient = _factor(found.gradient_factor, [one.gradient_factor for one in of_seeds.values()])
        update = _factor(found.update_factor, [one.update_factor for one in of_seeds.values()])
        factors = f"gradient ratio {gradient}, update ratio {update}"
        lines.append(f"{arm.label}: {factors}: {found.verdict}{_beside(arm, arms[0])}")
    return lines


def _beside(arm: Arm, first: Arm) -> str:
    """Return what makes the gradient ratios of two arms differ apart from learning."""
    factor = arm.built_in / first.built_in
    notes = [f"the gradient ratio includes the model's built-in factor {factor:.3g}"] if is_put_in(factor) else []
    if arm.output != first.output:
        notes.append(f"the output is a different module than in {first.label}")
    return f" ({'; '.join(notes)})" if notes else ""


def _factor(mean: float | None, of_seeds: Sequence[float | None]) -> str:
    """Return a factor as text, with the factor of each seed if there are several."""
    if mean is None:
        return "not measured"
    shown = ", ".join("not measured" if each is None else f"{each:.3g}" for each in of_seeds)
    return f"× {mean:.3g}" + (f" (by seed: {shown})" if len(of_seeds) > 1 else "")


def written(
    arms: Sequence[Arm], groups: Sequence[str], epoch: int | None, found: Mapping[str, Any], unit: str = "epoch"
) -> str:
    """Return the content of a comparison's gradient_flow.txt."""
    lines = [f"Gradient flow of {len(arms)} arms, compared with {arms[0].label}", ""]
    wide = max(18, *(len(arm.label) for arm in arms)) + 2  # a cell has up to 18 letters
    if epoch is None:
        lines.append(f"The runs have no checkpoint {unit} in common.")
    else:
        lines += _group_lines(arms, groups, epoch, wide, unit)
    heading = f"Change of the ratios against {arms[0].label} (factors: geometric mean over {unit}s)"
    lines += [heading, *(f"- {line}" for line in remedy_lines(arms)), ""]
    lines += score_lines(arms, found, wide)
    return "\n".join([*lines, f"intervals: {found['interval']}"])


def _group_lines(arms: Sequence[Arm], groups: Sequence[str], epoch: int, wide: int, unit: str) -> list[str]:
    lines = []
    how = ", geometric mean over seeds (seeds: comparison.csv)" if max(len(arm.seeds) for arm in arms) > 1 else ""
    for name, heading in zip(MEASURES, HEADINGS, strict=True):
        lines += [f"{heading}, {unit} {epoch}{how}", f"{'group':<12}" + "".join(f"{arm.label:>{wide}}" for arm in arms)]
        for group in groups:
            cells = _cells([arm.mean(f"flow/{group}/{name}").get(epoch) for arm in arms])
            lines.append(f"{group:<12}" + "".join(f"{cell:>{wide}}" for cell in cells))
        lines.append("")
    return lines


def _cells(values: Sequence[float | None]) -> list[str]:
    """Return numbers as text; those after the first are followed by their ratio to it."""
    first = values[0]
    return [
        number(value) if index == 0 or value is None or not first else f"{value:.3g} (×{value / first:.2f})"
        for index, value in enumerate(values)
    ]
