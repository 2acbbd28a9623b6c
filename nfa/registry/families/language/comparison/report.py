"""The text report of a comparison of fine-tunings."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nfa.plain_text import table_row
from nfa.registry import tracking
from nfa.registry.families.language.comparison.study import LEAST_SEEDS, StartArm

CONVENTIONS = {
    "loss": "negative log-likelihood per held-out answer token, natural logarithm; negative differences are better",
    "pairing": "runs of two arms with the same seed saw the same questions in the same order",
    "interval": "95 %, pigeonhole bootstrap over seeds and held-out questions, widened to Student's quantile",
    "initial, best, to target": "95 % t-interval over seeds; the best loss is the lowest of all evaluations",
    "to target": "restricted mean (Royston, Parmar 2013): a seed that never reaches it counts with all its steps",
    "compute": "2 operations per weight and token forward, 2 backward, 2 more for trained weights; without evaluations",
    "equal compute": "includes the cost of a start: the training of its teacher, and SVDs (for PiSSA, of the weights)",
    "between evaluations": "losses are interpolated linearly; before the end, the learning rate is still larger than 0",
    "verdict": f"given only if the interval excludes 0, and for at least {LEAST_SEEDS} seeds",
}
CIRCULAR = (
    "Circular: the synthesised teachers were made from adapters that had been trained on the same questions. At equal\n"
    "steps such a start gets that training for free, so only the comparison at equal compute is fair to the random\n"
    "start."
)
ONE_TEACHER = (
    "All seeds share one real teacher, so the intervals do not include the variation between teachers."
)
LEARNING_RATE = "All starts used the same learning rate; tuning it for each start would change the differences."


def notes(arms: Sequence[StartArm]) -> list[str]:
    """Return notes on how to read the numbers."""
    found = [CIRCULAR] if any("synthesised" in arm.start for arm in arms) else []
    if any("real" in arm.start for arm in arms):
        found.append(ONE_TEACHER)
    return [*found, LEARNING_RATE]


def title(found: Mapping[str, Any]) -> str:
    """Return the title of the figure."""
    seeds = sorted({len(arm["by_seed"]) for arm in found["arms"]})
    return f"LoRA from different starts, {'–'.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds"


def verdicts_of(run_id: str) -> list[str]:
    """Return one line per comparison of a stored run."""
    return verdicts(tracking.get_json(run_id, "comparison.json"))


def verdicts(found: Mapping[str, Any]) -> list[str]:
    """Return one line per comparison."""
    return [line for line, _ in _compared(found)]


def _compared(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each comparison as a line, with its values by seed."""
    costs = {arm["label"]: arm["start_operations"] for arm in found["arms"]}
    for one in found["comparisons"]:
        free = ", without the compute of its start" if costs[one["arm"]] else ""
        for at, other, uncounted in (("at_equal_steps", "random", free), ("at_equal_compute", "random_in_compute", "")):
            difference = one.get(at)
            where = at.replace("_", " ")
            if difference is None:
                yield f"{one['arm']}, {where}: not compared, {_why(one, other)}", {}
            else:
                yield f"{one['arm']}, {where} as {one[other]}: {_said(difference)}{uncounted}", difference["by_seed"]


def _of_seed(seed: str, look: Mapping[str, Any]) -> str:
    share = f", {look['share_of_compute']:.1%} of its compute" if "share_of_compute" in look else ""
    steps = f"after {look['steps']:.4g} steps, random after {look['random_steps']:.4g}"
    return f"seed {seed}: {look['difference']:+z.4f}, {steps}{share}"


def _why(one: Mapping[str, Any], other: str) -> str:
    if one[other] is not None:
        return "no seed in common"
    if other == "random":
        return "no random adapter was trained for the same number of steps with these settings"
    return "the cost of its start is unknown, or no random adapter was trained long enough"


def _said(difference: Mapping[str, Any]) -> str:
    if difference["low"] is None:
        return f"{difference['mean']:+z.4f}; {difference['verdict']}"
    return f"{_span(difference, '+z.4f')}, {difference['verdict']}"


def written(found: Mapping[str, Any]) -> str:
    """Return the content of comparison_report.txt."""
    target = found["target_loss"]
    lines = ["Held-out loss, mean over seeds", "", *_table([_row(arm) for arm in found["arms"]], "seeds")]
    if target is not None:
        lines += ["", f"target: {target:.4f}; restricted mean of the steps to it, and number of seeds that reach it"]
    lines += ["", "Each training", "", *_table([row for arm in found["arms"] for row in _rows(arm)], "seed")]
    lines += ["", "Final loss minus that of random adapters", ""]
    for line, seeds in _compared(found):
        lines += [f"  {line}", *(f"    {_of_seed(seed, look)}" for seed, look in seeds.items())]
    lines += ["", "Other differences from random adapters with the same number of steps", "", *_beside(found)]
    lines += ["", *(f"{note}\n" for note in found["notes"])]
    lines += [f"{name}: {text}" for name, text in found["conventions"].items()]
    return "\n".join(lines)


def _table(rows: Sequence[Sequence[Any]], second: str) -> list[str]:
    names = ("", second, "steps", "initial", "final", "best", "to target", "10¹² operations", "of them for the start")
    widths = [max(len(str(row[column])) for row in (names, *rows)) + 2 for column in range(len(names))]
    return [table_row(row[0], row[1:], widths[0], widths[1:]) for row in (names, *rows)]


def _row(arm: Mapping[str, Any]) -> list[Any]:
    seeds, there = len(arm["by_seed"]), arm["seeds_at_target"]
    to_target = _mean_steps(arm["steps_to_target"], there, seeds)
    return [arm["label"], seeds, arm["steps"], *_cells(arm, to_target)]


def _rows(arm: Mapping[str, Any]) -> Iterator[list[Any]]:
    for seed, one in arm["by_seed"].items():
        steps = one["steps_to_target"]
        never = "" if arm["steps_to_target"] is None else "never"
        yield [arm["label"], seed, arm["steps"], *_cells(one, never if steps is None else f"{steps:.1f}")]


def _cells(of: Mapping[str, Any], to_target: str) -> list[str]:
    losses = [f"{of[f'{name}_loss']:.4f}" for name in ("initial", "final", "best")]
    return [*losses, to_target, _operations(of["operations"]), _operations(of["start_operations"])]


def _mean_steps(mean: float | None, there: int, seeds: int) -> str:
    """Return a restricted mean; if some seeds never reach the target, it is a lower bound."""
    if mean is None:
        return ""
    if there == 0:
        return f"never (0 of {seeds})"
    return f"{mean:.1f}" if there == seeds else f"≥ {mean:.1f} ({there} of {seeds})"


def _beside(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for one in found["comparisons"]:
        for key, name in (("initial_difference", "initial loss"), ("best_difference", "best loss")):
            if one.get(key):
                lines.append(f"  {one['arm']}: {name} {_span(one[key], '+z.4f')}")
        if one.get("steps_to_target"):
            lines.append(f"  {one['arm']}: {_to_target(one['steps_to_target'])}")
    return lines


def _to_target(found: Mapping[str, Any]) -> str:
    seeds = len(found["by_seed"])
    here, there = (
        f"{_mean_steps(found[f'{arm}restricted_mean'], found[f'{arm}reached'], seeds)}" for arm in ("", "random_")
    )
    said = f"steps to the target (at most {found['horizon']}): {here}, random {there}"
    return said if found["difference"] is None else f"{said}; {_span(found['difference'], '+z.4g')}"


def _span(found: Mapping[str, Any], form: str) -> str:
    return f"{found['mean']:{form}} ({found['low']:{form}}, {found['high']:{form}})"


def _operations(value: float | None) -> str:
    return "unknown" if value is None else f"{value / 1e12:.4g}"
