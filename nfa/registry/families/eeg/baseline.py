"""The linear decoder that stands beside every result, computed once for the same recordings."""

import dataclasses
from contextlib import suppress
from dataclasses import dataclass

from nfa.content import json_digest, json_text, kept_json
from nfa.registry import unfinished
from nfa.registry.families.eeg.data import EEGData
from nfa.registry.families.eeg.linear_baseline import LAGS, PENALTIES, linear_baseline
from nfa.registry.folders import cache_folder


@dataclass(frozen=True)
class BaselineScores:
    """Mean r of each recording, by split, of the linear decoder; its penalty for each subject."""

    recordings: dict[str, dict[str, float]]
    penalties: dict[str, float]
    undefined: int

    def pearson_of(self, split: str) -> float | None:
        """Mean over the recordings of a split; None where no r is defined."""
        values = self.recordings[split].values()
        return sum(values) / len(values) if values else None

    def series(self) -> dict[str, float]:
        """Metrics by key: "val/baseline_pearson", "test/baseline_pearson"."""
        found = {f"{split}/baseline_pearson": self.pearson_of(split) for split in self.recordings}
        return {key: value for key, value in found.items() if value is not None}


def baseline(data: EEGData, window: int) -> BaselineScores:
    """What the linear decoder reaches in windows of that length; looked up where it is known already."""
    how = {"split": data.split, "unseen": data.unseen}
    what = {"data": data.digest(), **how, "window": window, "lags": LAGS, "penalties": PENALTIES}
    path = cache_folder("eeg") / f"baseline-{json_digest(what)[:32]}.json"
    with suppress(Exception):  # what is missing or damaged is computed again
        return BaselineScores(**kept_json(path))
    found = linear_baseline(data, window=window)
    reached = BaselineScores({"val": found.val, "test": found.recordings}, found.penalties, found.undefined)
    with suppress(OSError):  # a cache that cannot be written costs time only
        unfinished.write(path, lambda file: file.write_text(json_text(dataclasses.asdict(reached)), encoding="utf-8"))
    return reached
