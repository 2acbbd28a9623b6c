"""Reports and figures of gradient flow, made only from what their runs have logged."""

from collections.abc import Mapping, Sequence
from typing import Any

from nfa.console import stage
from nfa.figures.flow import flow_curves, flow_map
from nfa.figures.gradient_words import gradients_of
from nfa.figures.training_analysis import Series
from nfa.parameter_groups import ParameterGroups
from nfa.registry import tracking
from nfa.registry.analyses.checkpoint_units import unit_of
from nfa.registry.families.protocol import Family
from nfa.registry.families.registry import family_of_run
from nfa.registry.tracking import TrackedRun
from nfa.registry.tracking.sources import DONE
from nfa.studies.gradient_flow import RATIOS, RuleOfThumb, change_verdict, ratio_verdict, targets, without_built_in

MEASURES = ("grad_rms", "weight_change", "update_ratio")
HEADINGS = ("gradient RMS", "weight change", "update ratio")
RATIO_NAMES = {
    "front_output_ratio": "front / output, gradient",
    "back_output_ratio": "back / output, gradient",
    "front_output_update_ratio": "front / output, update",
}
EXTREMES = {"grad_rms": "gradient", "update_ratio": "update"}
NO_RATIO = "ratios to the output are not defined, because the output layer is not trained"
BY_CONSTRUCTION = 1.05  # a built-in factor above this, or below its inverse, is reported


def report(run: TrackedRun, title: str) -> None:
    """Write gradient_flow.txt, gradient_flow.json and the figures of one run."""
    series, described = tracking.history(run.run_id), tracking.get_json(run.run_id, "config.json")
    groups, unit = ParameterGroups(**described["groups"]), unit_of(described)
    family = family_of_run(run.info.data.tags)
    text = written(title, series, groups, described["conventions"], unit, family)
    tracking.put_text(run.info, "gradient_flow.txt", text)
    tracking.put_json(run.info, "gradient_flow.json", content(series, groups, described, family))
    said = f"{title}: {gradients_of(described['conventions'], described['conventions']['examples'])}"
    tracking.save_picture(run, flow_map(series, list(groups.names), title=said, unit=unit), "gradient_flow_map")
    drawn = "plots/gradient_flow_map.png and .pdf"
    if groups.output is not None:
        figure = flow_curves({"": series}, _used(groups), title=said, unit=unit, built_in=groups.built_in)
        tracking.save_picture(run, figure, "gradient_flow_ratios")
        drawn += ", gradient_flow_ratios.png and .pdf"
    stage("figures", drawn)
    for line in verdict_lines(series, groups, unit):
        stage("verdict", line)


def epochs_of(series: Mapping[str, Series]) -> list[int]:
    """Return the analysed checkpoints."""
    return sorted(series[DONE])


def at(series: Mapping[str, Series], epoch: int) -> dict[str, float]:
    """Return the values of an epoch by metric key."""
    return {key: of_key[epoch] for key, of_key in series.items() if epoch in of_key}


def _used(groups: ParameterGroups) -> Mapping[str, str | None]:
    return {"front": groups.front, "back": groups.back, "output": groups.output}


def verdict_lines(series: Mapping[str, Series], groups: ParameterGroups, unit: str = "epoch") -> list[str]:
    """Return the verdicts at the last checkpoint, each with the number it is based on."""
    last = epochs_of(series)[-1]
    values = at(series, last)
    ratio, change = values.get("flow/front_output_ratio"), values.get(f"flow/{groups.front}/weight_change")
    moved = f"weights of the front {change_verdict(change)}: {number(change)} since {unit} 0"
    if groups.output is None:
        return [f"{extremes(values)} ({unit} {last})", moved, NO_RATIO]
    without = without_built_in(ratio, groups)
    known = f"front/output {number(without)}{_put_in(ratio, groups)} ({unit} {last})"
    return [
        f"gradient of the front {ratio_verdict(without)}: {known}",
        moved,
        f"updates: front/output {number(values.get('flow/front_output_update_ratio'))}",
    ]


def is_put_in(factor: float) -> bool:
    """Return whether the model itself scales the front's gradient against the output's by a factor other than 1."""
    return not 1 / BY_CONSTRUCTION < factor < BY_CONSTRUCTION


def _put_in(ratio: float | None, groups: ParameterGroups) -> str:
    if ratio is None or not is_put_in(groups.built_in):
        return ""
    return f" without the model's built-in factor {groups.built_in:.3g}, {number(ratio)} with it"


def number(value: float | None) -> str:
    """Return four significant digits, or "not measured"."""
    return "not measured" if value is None else f"{value:.4g}"


def extremes(values: Mapping[str, float]) -> str:
    """Return the largest and smallest gradient and update: "gradient 0.2 (block_0) … 0.1 (block_1)"."""
    said = []
    for measure, name in EXTREMES.items():
        ends = f"/{measure}"
        of = {
            key.removeprefix("flow/").removesuffix(ends): value for key, value in values.items() if key.endswith(ends)
        }
        order = sorted(of, key=lambda group: -of[group])
        if order:
            both = dict.fromkeys([order[0], order[-1]])
            said.append(f"{name} " + " … ".join(f"{of[group]:.3g} ({group})" for group in both))
    return "; ".join(said) or "no value is measured"


def written(
    title: str,
    series: Mapping[str, Series],
    groups: ParameterGroups,
    conventions: Mapping[str, Any],
    unit: str,
    family: Family,
) -> str:
    """Return the content of gradient_flow.txt: groups at the last checkpoint, ratios, verdicts and any targets."""
    last = epochs_of(series)[-1]
    wide = 2 + max(14, *(len(group + _role(group, groups)) for group in groups.names))
    lines = [f"Gradient flow of {title}, {unit} {last}", ""]
    lines += [f"{'group':<{wide}}" + "".join(f"{name:>15}" for name in HEADINGS)]
    for group in groups.names:
        cells = (number(series.get(f"flow/{group}/{name}", {}).get(last)) for name in MEASURES)
        lines.append(f"{group + _role(group, groups):<{wide}}" + "".join(f"{cell:>15}" for cell in cells))
    lines += ["", *_through(series, groups, unit)]
    lines += ["", *(f"- {line}" for line in verdict_lines(series, groups, unit))]
    lines += _target_lines(at(series, last), groups, family)
    return "\n".join([*lines, "", *(f"{name}: {said}" for name, said in conventions.items())])


def _target_lines(values: Mapping[str, float], groups: ParameterGroups, family: Family) -> list[str]:
    if not family.rules_of_thumb:
        return []
    shown = [one for one in all_targets(values, groups, family) if groups.output is not None or one.value is not None]
    put_in = f"; the ratio excludes the model's built-in factor {groups.built_in:.3g}, the norm includes it"
    return [
        "",
        f"{'target':<32}{'hoped':>10}{'measured':>16}   result",
        *(f"{one.name:<32}{one.hoped:>10}{number(one.value):>16}   {one.said}" for one in shown),
        f"targets: {family.rules_of_thumb}{put_in if is_put_in(groups.built_in) else ''}",
    ]


def all_targets(values: Mapping[str, float], groups: ParameterGroups, family: Family) -> list[RuleOfThumb]:
    """Return the targets, with one for the quality metric if the family has a hoped-for value."""
    quality = family.quality
    if quality is None or quality.hoped is None:
        return targets(values, groups)
    value = values.get(quality.key)
    met = None if value is None else value > quality.hoped
    return targets(values, groups, RuleOfThumb(quality.called, f"> {quality.hoped:g}", value, met))


def _target_content(values: Mapping[str, float], groups: ParameterGroups, family: Family) -> dict[str, Any]:
    if not family.rules_of_thumb:
        return {}
    rules = [
        {"target": one.name, "hoped": one.hoped, "value": one.value, "result": one.said}
        for one in all_targets(values, groups, family)
    ]
    return {"targets": rules, "whose_targets": family.rules_of_thumb}


def _through(series: Mapping[str, Series], groups: ParameterGroups, unit: str) -> list[str]:
    """Return one line per checkpoint: its ratios, or without a trained output the extreme groups."""
    if groups.output is None:
        return [f"{unit:>6}", *(f"{epoch:>6}  {extremes(at(series, epoch))}" for epoch in epochs_of(series))]
    lines = [f"{unit:>6}" + "".join(f"{name:>27}" for name in RATIO_NAMES.values())]
    for epoch in epochs_of(series):
        cells = (number(series.get(f"flow/{name}", {}).get(epoch)) for name in RATIOS)
        lines.append(f"{epoch:>6}" + "".join(f"{cell:>27}" for cell in cells))
    name = RATIO_NAMES["front_output_ratio"]
    measured = f"{name}: as measured, including the model's built-in factor {groups.built_in:.3g}"
    return [*lines, *([measured] if is_put_in(groups.built_in) else [])]


def _role(group: str, groups: ParameterGroups) -> str:
    roles = [role for role, named in _used(groups).items() if named == group]
    return f" ({', '.join(roles)})" if roles else ""


def content(
    series: Mapping[str, Series], groups: ParameterGroups, described: Mapping[str, Any], family: Family
) -> dict[str, Any]:
    """Return the content of gradient_flow.json: undefined and unmeasured values are null."""
    epochs = epochs_of(series)

    def over_epochs(key: str) -> list[float | None]:
        return [series.get(key, {}).get(epoch) for epoch in epochs]

    last = at(series, epochs[-1])
    ratio, change = last.get("flow/front_output_ratio"), last.get(f"flow/{groups.front}/weight_change")
    without = without_built_in(ratio, groups)
    return {
        f"{unit_of(described)}s": epochs,
        "groups": {group: {name: over_epochs(f"flow/{group}/{name}") for name in MEASURES} for group in groups.names},
        "roles": _used(groups),
        **{name: over_epochs(f"flow/{name}") for name in (*RATIOS, "grad_norm")},
        "built_in_factor": groups.built_in,
        "verdicts": {
            "front_output_ratio": {"value": without, "measured": ratio, "verdict": ratio_verdict(without)},
            "front_weight_change": {"value": change, "verdict": change_verdict(change)},
        },
        **_target_content(last, groups, family),
        "conventions": described["conventions"],
    }


def line(values: Mapping[str, float]) -> str:
    """Return the console line of a checkpoint: its ratios."""
    shown = [f"{RATIO_NAMES[name]} {values[f'flow/{name}']:.3g}" for name in RATIOS if f"flow/{name}" in values]
    return f"{'; '.join(shown) or extremes(values)}  {values[DONE]:.1f} s"


def common(groups: Sequence[ParameterGroups]) -> list[str]:
    """Return the groups of all networks without repetition, those of the network with the most groups first."""
    return list(dict.fromkeys(name for one in sorted(groups, key=lambda one: -len(one.names)) for name in one.names))
