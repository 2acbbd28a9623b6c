"""The results of a study in sentences, from its study.json."""

from collections.abc import Iterator, Mapping
from typing import Any

from nfa.maths.statistics import Interval
from nfa.registry.report.page_data import Line
from nfa.registry.report.words import line
from nfa.registry.sweeps.arm_difference import FLATTERS, ArmDifference, sentence

FILE = "study.json"


def study(run_id: str, found: Mapping[str, Any]) -> Iterator[Line]:
    """Yield its trials, its best one, the comparison with fresh seeds, importances beside chance, and the trade-off."""
    counts = ", ".join(f"{count} {state}" for state, count in found.get("trials", {}).items())
    yield line(f"Study {found.get('study', '')}: trials {counts or 'none'}.", run_id, FILE)
    for name, best in found.get("best", {}).items():
        yield line(f"Best trial in {name}: {_trial(found, name, best)}. {FLATTERS}", best.get("run_id", run_id), name)
    yield from (line(f"{said}.", run_id, FILE) for said in _confirmed(found))
    yield from (line(f"{said}.", run_id, FILE) for said in _important(found))
    if trade_off := found.get("trade_off"):
        ends = f"{trade_off['correlation']:+.2f} ({trade_off['low']:+.2f}, {trade_off['high']:+.2f})"
        said = f"Trade-off: {trade_off['said']}: Spearman's correlation {ends}, {trade_off['n']} trials"
        yield line(f"{said}.", run_id, FILE)


def _trial(found: Mapping[str, Any], name: str, best: Mapping[str, Any]) -> str:
    names = [one["name"] for one in found["objectives"]]
    reached = dict(zip(names, best["values"], strict=False)).get(name)
    point = ", ".join(f"{axis} {_text(value)}" for axis, value in best["parameters"].items())
    return f"trial {best['trial']}, {name} {_text(reached)} with {point}"


def _confirmed(found: Mapping[str, Any]) -> Iterator[str]:
    ways = {one["name"]: one["direction"] == "maximize" for one in found["objectives"]}
    for arm in found.get("confirmation", []):
        for name, apart in arm.get("differences", {}).items():
            interval = Interval(*(apart[end] for end in Interval._fields)) if "mean" in apart else None
            failed = ", ".join(f"seed {seed} has failed" for seed in arm.get("failed_seeds", []))
            difference = ArmDifference(arm["arm"], 0, interval, apart["seeds"], ways[name], failed)
            yield f"Trained again: {sentence(difference, name)}"


def _important(found: Mapping[str, Any]) -> Iterator[str]:
    for name, axes in found.get("importances", {}).items():
        for axis, one in axes.items():
            ends = f"{one['value']:+.2f} ({one['low']:+.2f}, {one['high']:+.2f})"
            said = "mattered" if one["mattered"] else "not beyond chance"
            yield f"Share of the variance of {name} due to {axis}: {ends}, {one['null']:+.2f} by chance: {said}"
    for name, axes in found.get("no_importance", {}).items():
        for reason in dict.fromkeys(axes.values()):
            which = ", ".join(axis for axis in axes if axes[axis] == reason)
            yield f"Share of the variance of {name} due to {which}: not available, {reason}"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
