"""Whether the front of a network learns: ratios between its parts, verdicts and rules of thumb."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from nfa.parameter_groups import ParameterGroups

RATIOS = ("front_output_ratio", "back_output_ratio", "front_output_update_ratio")
VANISHING, WEAK, STRONG, UNCHANGED = 0.01, 0.1, 0.5, 0.01
COSMETIC_FACTOR = 1.5  # a smaller change of the gradient ratio is no finding
FOLLOWS, PARTLY = 0.5, 0.2  # the share of the log change of the gradient ratio that the update ratio must show


class RuleOfThumb(NamedTuple):
    """A rule of thumb: its name, the range that is hoped for, the measured value (None if not measured), and whether it
    is met.
    """

    name: str
    hoped: str
    value: float | None
    met: bool | None

    @property
    def said(self) -> str:
        """The outcome in words."""
        return "not measured" if self.met is None else "met" if self.met else "not met"


class Remedy(NamedTuple):
    """How two ratios of a run compare with those of another run: their factors, and what these mean."""

    gradient_factor: float
    update_factor: float | None
    verdict: str


def gradient_flow(
    gradients: Mapping[str, float], changes: Mapping[str, float], trained: Mapping[str, float], groups: ParameterGroups
) -> dict[str, float]:
    """Collect the series of one checkpoint and compute the ratios between the parts of the network.

    front_output_ratio and back_output_ratio divide gradients, front_output_update_ratio divides updates. A ratio is
    absent if one of its parts is absent or its divisor is 0.

    Args:
        gradients: The root mean square of the gradient by group.
        changes: ‖W_t − W_0‖/‖W_0‖ by group.
        trained: What the training has logged under its own keys: flow/<group>/update_ratio and flow/grad_norm.
        groups: The groups of parameters and their roles.

    Returns:
        The values by metric key.
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
    """Classify a front/output ratio of gradients.

    Args:
        ratio: The ratio; None if it was not measured.

    Returns:
        The class in words.

    Example:
        >>> [ratio_verdict(value) for value in (0.001, 0.05, 0.3, 0.5, 0.7, None)]
        ['vanishing', 'weak', 'moderate', 'moderate', 'strong', 'not measured']
    """
    if ratio is None:
        return "not measured"
    return "vanishing" if ratio < VANISHING else "weak" if ratio < WEAK else "strong" if ratio > STRONG else "moderate"


def without_built_in(ratio: float | None, groups: ParameterGroups) -> float | None:
    """Divide a front/output ratio of gradients by the factor that the model itself builds into it.

    Args:
        ratio: The ratio; None if it was not measured.
        groups: The groups of the model, with the factor.

    Returns:
        The corrected ratio; None if it was not measured.
    """
    return None if ratio is None else ratio / groups.built_in


def change_verdict(change: float | None) -> str:
    """Classify a relative weight change.

    Args:
        change: ‖W_t − W_0‖/‖W_0‖; None if it was not measured.

    Returns:
        The class in words.
    """
    return "not measured" if change is None else "almost unchanged" if change < UNCHANGED else "changed"


def targets(series: Mapping[str, float], groups: ParameterGroups, *own: RuleOfThumb) -> list[RuleOfThumb]:
    """Compare the series of a checkpoint with rules of thumb; a factor that the model builds into its ratio does not
    count.

    The rules have no derivation.

    Args:
        series: The values of a checkpoint by metric key.
        groups: The groups of parameters and their roles.
        own: Further rules, which apply only to this family of models.

    Returns:
        The rules with the measured values.
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
    """Tell whether a change of the front/output gradient ratio between two runs is real or cosmetic.

    Factors are geometric means over the epochs that both runs have, without epochs whose ratio is not above 0. A change
    by a factor of 1.5 or more is real if the update ratio changes in the same direction by at least the square root of
    that factor, mostly cosmetic from a fifth of its logarithm on, and otherwise cosmetic: Adam divides a constant
    factor of the gradient out again.

    Args:
        gradient: Gradient ratio by epoch of the run.
        update: Update ratio by epoch of the run.
        before: Gradient ratio by epoch of the run it is compared with.
        update_before: Update ratio by epoch of the run it is compared with.

    Returns:
        The factors and the verdict; None where the runs have no epoch in common.
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
