"""Whether the front of a network learns: ratios between its parts, verdicts and targets."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from nfa.parameter_groups import ParameterGroups

RATIOS = ("front_output_ratio", "back_output_ratio", "front_output_update_ratio")
VANISHING, WEAK, STRONG, UNCHANGED = 0.01, 0.1, 0.5, 0.01
COSMETIC_FACTOR = 1.5  # a change of the gradient ratio by less is no finding
FOLLOWS, PARTLY = 0.5, 0.2  # of the gradient ratio's change, as a logarithm, that the update ratio has to follow


class RuleOfThumb(NamedTuple):
    """What is hoped for, what was measured (None = not measured), and whether it is met."""

    name: str
    hoped: str
    value: float | None
    met: bool | None

    @property
    def said(self) -> str:
        """In words."""
        return "not measured" if self.met is None else "met" if self.met else "not met"


class Remedy(NamedTuple):
    """How two ratios of a run compare with another run's: factors, and what that says."""

    gradient_factor: float
    update_factor: float | None
    verdict: str


def gradient_flow(
    gradients: Mapping[str, float], changes: Mapping[str, float], trained: Mapping[str, float], groups: ParameterGroups
) -> dict[str, float]:
    """Series of a checkpoint by metric key; a ratio of which a part is absent or whose divisor is 0 is absent.

    `gradients` are root mean squares and `changes` ‖W_t − W_0‖/‖W_0‖ by group; `trained` holds what the training has
    logged under its own keys: flow/<group>/update_ratio, flow/grad_norm. front_output_ratio and back_output_ratio
    divide gradients, front_output_update_ratio updates.
    """
    updates = {group: trained[key] for group in groups.names if (key := f"flow/{group}/update_ratio") in trained}
    found = {f"flow/{group}/grad_rms": value for group, value in gradients.items()}
    found |= {f"flow/{group}/weight_change": value for group, value in changes.items()}
    found |= trained
    ratios = (
        _ratio(gradients, groups.front, groups.output),
        _ratio(gradients, groups.back, groups.output),
        _ratio(updates, groups.front, groups.output),
    )
    return found | {f"flow/{name}": value for name, value in zip(RATIOS, ratios, strict=True) if value is not None}


def _ratio(values: Mapping[str, float], part: str | None, whole: str | None) -> float | None:
    if part is None or whole is None or part == whole or part not in values or not values.get(whole):
        return None
    ratio = values[part] / values[whole]
    return ratio if math.isfinite(ratio) else None


def ratio_verdict(ratio: float | None) -> str:
    """What a front/output ratio of gradients is called.

    >>> [ratio_verdict(value) for value in (0.001, 0.05, 0.3, 0.5, 0.7, None)]
    ['vanishing', 'weak', 'moderate', 'moderate', 'strong', 'not measured']
    """
    if ratio is None:
        return "not measured"
    return "vanishing" if ratio < VANISHING else "weak" if ratio < WEAK else "strong" if ratio > STRONG else "moderate"


def without_built_in(ratio: float | None, groups: ParameterGroups) -> float | None:
    """A front/output ratio of gradients divided by the factor that the model itself puts into it."""
    return None if ratio is None else ratio / groups.built_in


def change_verdict(change: float | None) -> str:
    """What a weight change is called."""
    return "not measured" if change is None else "almost unchanged" if change < UNCHANGED else "changed"


def targets(series: Mapping[str, float], groups: ParameterGroups, *own: RuleOfThumb) -> list[RuleOfThumb]:
    """The table of targets, from the series of a checkpoint; what a model puts into its ratio is no step towards them.

    They are rules of thumb, derived from nothing; `own` are further ones, which only such models have.
    """
    norm = series.get("flow/grad_norm")
    ratio = without_built_in(series.get("flow/front_output_ratio"), groups)
    change = series.get(f"flow/{groups.front}/weight_change")
    return [
        RuleOfThumb("front/output gradient ratio", "> 0.1", ratio, None if ratio is None else ratio > WEAK),
        RuleOfThumb("weight change of the front", "> 0.01", change, None if change is None else change > UNCHANGED),
        *own,
        RuleOfThumb("gradient norm", "1 to 10", norm, None if norm is None else 1 <= norm <= 10),
    ]


def remedy(
    gradient: Mapping[int, float],
    update: Mapping[int, float],
    before: Mapping[int, float],
    update_before: Mapping[int, float],
) -> Remedy | None:
    """Whether a change of the front/output gradient ratio is real or cosmetic; None where there is none to compare.

    Each argument is a series epoch → ratio: of gradients and of updates, in the run and in the one it is compared with.
    Factors are geometric means over the epochs that both have, epochs without a ratio above 0 left out. A change by
    1.5 or more is real where the update ratio changes the same way by at least the square root of it, else cosmetic:
    Adam divides a constant factor of the gradient out again. From a fifth of the logarithm on it is mostly cosmetic.
    """
    factor, followed = _factor(gradient, before), _factor(update, update_before)
    if factor is None:
        return None
    if abs(math.log(factor)) < math.log(COSMETIC_FACTOR):
        alone = followed is not None and abs(math.log(followed)) >= math.log(COSMETIC_FACTOR)
        verdict = "the updates change, the gradient ratio does not" if alone else "no change of the gradient ratio"
        return Remedy(factor, followed, verdict)
    if followed is None:
        return Remedy(factor, None, "changed; whether the updates follow was not measured")
    follows = math.log(followed) / math.log(factor)
    if follows >= FOLLOWS:
        return Remedy(factor, followed, "real: the updates follow")
    partly = follows >= PARTLY
    verdict = "mostly cosmetic: the updates follow in part" if partly else "cosmetic: the updates do not follow"
    return Remedy(factor, followed, verdict)


def _factor(values: Mapping[int, float], before: Mapping[int, float]) -> float | None:
    both = [epoch for epoch in values if values[epoch] > 0 and before.get(epoch, 0) > 0]
    if not both:
        return None
    return math.exp(math.fsum(math.log(values[epoch] / before[epoch]) for epoch in both) / len(both))
