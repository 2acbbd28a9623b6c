"""What a comparison of fine-tunings says in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from nfa.studies.lora_comparison import LEAST_SEEDS, Arm

CONVENTIONS = {
    "loss": "negative log-likelihood per held-out answer token, natural logarithm; a difference below 0 is better",
    "pairing": "runs of two arms with the same seed saw the same questions in the same order",
    "interval": "95 %, bootstrap over seeds and held-out questions (pigeonhole, stretched to Student's quantile)",
    "initial, best, speed-up": "95 % t-interval over the seeds; the best is the lowest of the evaluations made",
    "compute": "2 operations a weight and token forward, 2 back, 2 more for trained weights; evaluations not counted",
    "equal compute": "what a start has cost counts: the training of its teacher, and SVDs, of PiSSA's weights too",
    "verdict": f"only where the interval excludes 0, and with {LEAST_SEEDS} seeds or more",
}
CIRCULAR = (
    "Circular: the synthesised teachers were made from adapters that had been trained on these very questions. Such\n"
    "a start contains a training on the data that it is compared on: at equal steps it has that training for nothing,\n"
    "and only the comparison at equal compute is fair to the random start."
)
ONE_TEACHER = (
    "The real teacher is one for all seeds that it was made for: intervals do not say what another one would change."
)
LEARNING_RATE = "All starts had the same learning rate: one that is better for some start would change the differences."


def notes(arms: Sequence[Arm]) -> list[str]:
    """What a reader has to know beside the numbers."""
    found = [CIRCULAR] if any("synthesised" in arm.start for arm in arms) else []
    if any("real" in arm.start for arm in arms):
        found.append(ONE_TEACHER)
    return [*found, LEARNING_RATE]


def title(found: Mapping[str, Any]) -> str:
    """Of the figure."""
    seeds = sorted({len(arm["runs"]) for arm in found["arms"]})
    return f"LoRA from different starts, {'–'.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds"


def verdicts(found: Mapping[str, Any]) -> list[str]:
    """A line for each comparison made."""
    lines = []
    for one in found["comparisons"]:
        for at, other in (("at_equal_steps", "random"), ("at_equal_compute", "random_in_compute")):
            difference = one.get(at)
            where = at.replace("_", " ")
            if difference is None:
                lines.append(f"{one['arm']}, {where}: not compared, {_why(one, other)}")
                continue
            at_step = _at_step(found, one[other], difference["steps"][1])
            lines.append(f"{one['arm']}, {where} as {one[other]}{at_step}: {_said(difference)}")
    return lines


def _at_step(found: Mapping[str, Any], label: str, step: int) -> str:
    """Where the other arm was looked at, if not at its end."""
    last = next(arm["steps"] for arm in found["arms"] if arm["label"] == label)
    return "" if step == last else f" (at its step {step})"


def _why(one: Mapping[str, Any], other: str) -> str:
    if one[other] is not None:
        return "no seed in common"
    if other == "random":
        return "no random adapter was trained for as many steps with these settings"
    return "what its start has cost is unknown, or no random adapter was trained for so long"


def _said(difference: Mapping[str, Any]) -> str:
    if difference["low"] is None:
        return f"{difference['mean']:+.4f}; {difference['verdict']}"
    return f"{difference['mean']:+.4f} ({difference['low']:+.4f}, {difference['high']:+.4f}), {difference['verdict']}"


def written(found: Mapping[str, Any]) -> str:
    """Content of comparison_report.txt."""
    wide = max(len(arm["label"]) for arm in found["arms"]) + 2
    lines = ["Held-out loss, mean over seeds", ""]
    columns = ("seeds", "steps", "initial", "final", "best", "to target", "10¹² operations", "of them before")
    widths = (7, 7, 10, 10, 10, 11, 17, 16)
    lines.append(" " * wide + "".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True)))
    for arm in found["arms"]:
        cells = (
            len(arm["runs"]), arm["steps"], *(f"{arm[f'{of}_loss']:.4f}" for of in ("initial", "final", "best")),
            _reached(arm["steps_to_target"]), _operations(arm["operations"]), _operations(arm["start_operations"]),
        )  # fmt: skip
        lines.append(
            f"{arm['label']:<{wide}}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        )
    if found["target_loss"] is not None:
        lines += ["", f"target: {found['target_loss']:.4f}; of the seeds that reach it, the mean number of steps"]
    lines += ["", "Final loss minus that of random adapters", "", *(f"  {line}" for line in verdicts(found))]
    lines += ["", "Beside it, against random adapters with as many steps", "", *_beside(found)]
    lines += ["", *(f"{note}\n" for note in found["notes"])]
    lines += [f"{name}: {text}" for name, text in found["conventions"].items()]
    return "\n".join(lines)


def _beside(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for one in found["comparisons"]:
        for key, name in (("initial_difference", "initial loss"), ("best_difference", "best loss")):
            if one.get(key):
                lines.append(f"  {one['arm']}: {name} {_span(one[key], '+.4f')}")
        if one.get("speed_up_to_target"):
            factor = _span(one["speed_up_to_target"], ".3g")
            lines.append(f"  {one['arm']}: to the target {factor} times as fast, in steps")
    return lines


def _span(found: Mapping[str, Any], form: str) -> str:
    return f"{found['mean']:{form}} ({found['low']:{form}}, {found['high']:{form}})"


def _reached(steps: Mapping[str, float | None]) -> str:
    found = [value for value in steps.values() if value is not None]
    if not found:
        return "never" if steps else ""
    return f"{sum(found) / len(found):.1f}" + ("" if len(found) == len(steps) else f" ({len(found)})")


def _operations(value: float | None) -> str:
    return "unknown" if value is None else f"{value / 1e12:.4g}"
