"""Scores of the models of a comparison, for families that score single recordings or other items."""

from collections.abc import Mapping, Sequence
from typing import Any

from nfa.console import stage
from nfa.figures.flow import intervals
from nfa.maths.statistics import Interval
from nfa.registry import tracking
from nfa.registry.analyses.arms import Arm, score_difference, score_interval, unscored
from nfa.registry.families.assessment import Score
from nfa.registry.tracking import TrackedRun

INTERVAL = "95 %: pigeonhole bootstrap over recordings and seeds; factors: t-interval over seeds"


def score_of(arms: Sequence[Arm]) -> Score | None:
    """Return the score of these arms, or None."""
    return next((arm.score for arm in arms if arm.score), None)


def scores(arms: Sequence[Arm], *, seed: int) -> dict[str, Any]:
    """Return the scores for gradient_flow.json: means, and differences from the first arm, with intervals."""
    score = score_of(arms)
    if score is None:
        return {}
    return {
        score.key: {arm.label: interval(score_interval(arm, seed=seed)) for arm in arms},
        f"{score.key}_difference": {arm.label: interval(score_difference(arm, arms[0], seed=seed)) for arm in arms[1:]},
        f"{score.unit}s_without_{score.symbol}": unscored(arms),
    }


def interval(found: Interval | None) -> dict[str, float | None]:
    """Return an interval as JSON values; null if there is none."""
    return {"mean": None, "low": None, "high": None} if found is None else found._asdict()


def draw_scores(run: TrackedRun, arms: Sequence[Arm], found: Mapping[str, Any], subject: str) -> None:
    """Draw the means that are defined; `subject` is what was trained on what."""
    score = score_of(arms)
    reached = {label: one for label, one in found[score.key].items() if one["mean"] is not None} if score else {}
    if score and reached:
        values = {label: (one["mean"], one["low"], one["high"]) for label, one in reached.items()}
        missing = [arm.label for arm in arms if arm.label not in values]
        said = f"{score.called} on test" + (f"; not defined for {', '.join(missing)}" if missing else "")
        title = ": ".join(filter(None, [subject, said]))
        xlabel = f"{score.called}, mean and 95 % interval over {score.unit}s and seeds"
        figure = intervals(values, xlabel=xlabel, title=title, limits=score.limits)
        tracking.save_picture(run, figure, f"{score.key}_comparison")
        stage("figure", f"plots/{score.key}_comparison.png and .pdf")


def score_lines(arms: Sequence[Arm], found: Mapping[str, Any], wide: int) -> list[str]:
    """Return the score table of gradient_flow.txt; empty if nothing is scored."""
    score = score_of(arms)
    if score is None or not (any(one["mean"] is not None for one in found[score.key].values()) or _failed(arms)):
        return []
    heads = f"{score.symbol:>8}{'95 % interval':>20}{'difference':>12}{'95 % interval':>20}"
    lines = [f"{score.called} on test", f"{'':<{wide}}{heads}"]
    for arm in arms:
        cells = [_pair(found[score.key][arm.label]), _pair(found[f"{score.key}_difference"].get(arm.label))]
        lines.append(
            f"{arm.label:<{wide}}" + "".join(f"{mean:>{8 + 4 * i}}{span:>20}" for i, (mean, span) in enumerate(cells))
        )
    lines += [f"{label}: {count} failed; the mean of the others would be biased" for label, count in _failed(arms)]
    missing = unscored(arms)
    note = f"left out because {score.symbol} is undefined in some training: {', '.join(missing)}"
    return [*lines, *([note] if missing else []), ""]


def _failed(arms: Sequence[Arm]) -> list[tuple[str, int]]:
    return [(arm.label, arm.failed) for arm in arms if arm.failed]


def _pair(found: Mapping[str, Any] | None) -> tuple[str, str]:
    if found is None or found["mean"] is None:
        return "", ""
    return f"{found['mean']:.4f}", f"({found['low']:.4f}, {found['high']:.4f})"
