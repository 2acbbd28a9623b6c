"""Points of a study that were trained again, compared by fresh seeds, in words; nothing here needs Optuna."""

from dataclasses import dataclass

from nfa.maths.statistics import Interval

FLATTERS = "The value of the best trial is biased: the best of many trials is selected partly by luck."


@dataclass(frozen=True)
class ArmDifference:
    """An arm's objective minus that of the first arm, paired by seed.

    `interval` is None for fewer than two pairs, and if trainings of either arm have failed (see `failed`), because the
    remaining ones would be a biased sample.
    """

    arm: str
    objective: int
    interval: Interval | None
    seeds: int
    maximise: bool
    failed: str = ""

    @property
    def verdict(self) -> str:
        """ "better" or "worse" if the interval excludes 0, else "cannot be told apart" or "no verdict: …"."""
        if self.failed:
            return f"no verdict: {self.failed}, and the mean of the others would be biased"
        if self.interval is None:
            return f"no verdict: {self.seeds} seed{'' if self.seeds == 1 else 's'} finished in both, 2 needed"
        if self.interval.low <= 0 <= self.interval.high:
            return "cannot be told apart"
        return "better" if (self.interval.low > 0) == self.maximise else "worse"


def sentence(found: ArmDifference, objective: str, first: str = "defaults") -> str:
    """Return the result of an arm with fresh seeds, with its interval."""
    head = f"{found.arm}, {objective}: "
    if found.interval is None:
        return head + found.verdict
    mean, low, high, n = found.interval
    if found.verdict == "cannot be told apart":
        span = f"{mean:+.4g} ({low:+.4g}, {high:+.4g})"
        return f"{head}cannot be told apart from the {first}: {span} over {n} fresh seeds"
    ends = sorted((abs(low), abs(high)))
    span = f"{abs(mean):.4g} ({ends[0]:.4g}, {ends[1]:.4g})"
    return f"{head}{found.verdict} than the {first} by {span} over {n} fresh seeds"
