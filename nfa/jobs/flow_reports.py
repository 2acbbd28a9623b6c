"""Reports and figures of gradient flow, made from nothing but what their runs have logged."""

from collections.abc import Mapping, Sequence
from typing import Any

from nfa import tracking
from nfa.console import stage
from nfa.figures.flow import flow_curves, flow_map
from nfa.figures.training_analysis import Series
from nfa.protocols import ParameterGroups
from nfa.studies.gradient_flow import RATIOS, change_verdict, ratio_verdict, targets
from nfa.tracking import TrackedRun
from nfa.tracking.sources import DONE

MEASURES = ("grad_rms", "weight_change", "update_ratio")
HEADINGS = ("gradient RMS", "weight change", "update ratio")
RATIO_NAMES = {
    "front_output_ratio": "front / output, gradient",
    "back_output_ratio": "back / output, gradient",
    "front_output_update_ratio": "front / output, update",
}
BY_CONSTRUCTION = 1.05  # a built-in factor above this, or below its inverse, is told


def report(run: TrackedRun, title: str) -> None:
    """gradient_flow.txt, gradient_flow.json and the figures of one run."""
    series, described = tracking.history(run.run_id), tracking.get_json(run.run_id, "config.json")
    groups = ParameterGroups(**described["groups"])
    text = written(title, series, groups, described["conventions"])
    tracking.put_text(run.info, "gradient_flow.txt", text)
    tracking.put_json(run.info, "gradient_flow.json", content(series, groups, described))
    said = f"{title}: {described['conventions']['examples']} examples"
    tracking.save_picture(run, flow_map(series, list(groups.names), title=said), "gradient_flow_map")
    tracking.save_picture(run, flow_curves({"": series}, _used(groups), title=said), "gradient_flow_ratios")
    stage("figures", "plots/gradient_flow_map.png and .pdf, gradient_flow_ratios.png and .pdf")
    for line in verdict_lines(series, groups):
        stage("verdict", line)


def epochs_of(series: Mapping[str, Series]) -> list[int]:
    """Analysed checkpoints."""
    return sorted(series[DONE])


def at(series: Mapping[str, Series], epoch: int) -> dict[str, float]:
    """Values of an epoch by metric key."""
    return {key: of_key[epoch] for key, of_key in series.items() if epoch in of_key}


def _used(groups: ParameterGroups) -> Mapping[str, str | None]:
    return {"front": groups.front, "back": groups.back, "output": groups.output}


def verdict_lines(series: Mapping[str, Series], groups: ParameterGroups) -> list[str]:
    """What the last checkpoint says, each verdict with its number beside it."""
    last = epochs_of(series)[-1]
    values = at(series, last)
    ratio, change = values.get("flow/front_output_ratio"), values.get(f"flow/{groups.front}/weight_change")
    update = values.get("flow/front_output_update_ratio")
    lines = [
        f"gradient of the front {ratio_verdict(ratio)}: front/output {number(ratio)} (epoch {last})",
        f"weights of the front {change_verdict(change)}: {number(change)} since epoch 0",
        f"updates: front/output {number(update)}",
    ]
    if ratio is not None and not 1 / BY_CONSTRUCTION < groups.built_in < BY_CONSTRUCTION:
        without = ratio / groups.built_in
        lines.append(
            f"of the gradient ratio a factor {groups.built_in:.3g} is put in by gradient_scale and output_grad_scale: "
            f"without them {number(without)} ({ratio_verdict(without)})"
        )
    return lines


def number(value: float | None) -> str:
    """Four digits, or that there is none."""
    return "not measured" if value is None else f"{value:.4g}"


def written(title: str, series: Mapping[str, Series], groups: ParameterGroups, conventions: Mapping[str, Any]) -> str:
    """Content of gradient_flow.txt: groups at the last checkpoint, ratios through training, verdicts, targets."""
    last = epochs_of(series)[-1]
    lines = [f"Gradient flow of {title}, epoch {last}", ""]
    lines += [f"{'group':<16}" + "".join(f"{name:>15}" for name in HEADINGS)]
    for group in groups.names:
        cells = (number(series.get(f"flow/{group}/{name}", {}).get(last)) for name in MEASURES)
        lines.append(f"{group + _role(group, groups):<16}" + "".join(f"{cell:>15}" for cell in cells))
    lines += ["", f"{'epoch':>6}" + "".join(f"{name:>27}" for name in RATIO_NAMES.values())]
    for epoch in epochs_of(series):
        cells = (number(series.get(f"flow/{name}", {}).get(epoch)) for name in RATIOS)
        lines.append(f"{epoch:>6}" + "".join(f"{cell:>27}" for cell in cells))
    lines += ["", *(f"- {line}" for line in verdict_lines(series, groups)), ""]
    lines += [f"{'target':<32}{'hoped':>10}{'measured':>16}   result"]
    for target in targets(at(series, last), groups):
        lines.append(f"{target.name:<32}{target.hoped:>10}{number(target.value):>16}   {target.said}")
    return "\n".join([*lines, "", *(f"{name}: {said}" for name, said in conventions.items())])


def _role(group: str, groups: ParameterGroups) -> str:
    roles = [role for role, named in _used(groups).items() if named == group]
    return f" ({', '.join(roles)})" if roles else ""


def content(series: Mapping[str, Series], groups: ParameterGroups, described: Mapping[str, Any]) -> dict[str, Any]:
    """Content of gradient_flow.json: an undefined or unmeasured value is null."""
    epochs = epochs_of(series)

    def over_epochs(key: str) -> list[float | None]:
        return [series.get(key, {}).get(epoch) for epoch in epochs]

    last = at(series, epochs[-1])
    ratio, change = last.get("flow/front_output_ratio"), last.get(f"flow/{groups.front}/weight_change")
    return {
        "epochs": epochs,
        "groups": {group: {name: over_epochs(f"flow/{group}/{name}") for name in MEASURES} for group in groups.names},
        "roles": _used(groups),
        **{name: over_epochs(f"flow/{name}") for name in (*RATIOS, "grad_norm")},
        "built_in_factor": groups.built_in,
        "verdicts": {
            "front_output_ratio": {"value": ratio, "verdict": ratio_verdict(ratio)},
            "front_weight_change": {"value": change, "verdict": change_verdict(change)},
        },
        "targets": [
            {"target": one.name, "hoped": one.hoped, "value": one.value, "result": one.said}
            for one in targets(last, groups)
        ],
        "conventions": described["conventions"],
    }


def line(values: Mapping[str, float]) -> str:
    """A checkpoint's ratios for a person who waits."""
    shown = [f"{RATIO_NAMES[name]} {values[f'flow/{name}']:.3g}" for name in RATIOS if f"flow/{name}" in values]
    return f"{'; '.join(shown) or 'no ratio is defined here'}  {values[DONE]:.1f} s"


def common(groups: Sequence[ParameterGroups]) -> list[str]:
    """Groups of any network, in order: those of the longest first."""
    return list(dict.fromkeys(name for one in sorted(groups, key=lambda one: -len(one.names)) for name in one.names))
