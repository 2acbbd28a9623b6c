"""The linear decoder that stands beside every result, computed once for the same recordings."""

import dataclasses

from nfa.content import json_digest
from nfa.registry.families.eeg.data import EEGData
from nfa.registry.families.eeg.linear_baseline import LAGS, PENALTIES, Baseline, linear_baseline
from nfa.registry.folders import cache_folder
from nfa.registry.remembered import keep, recalled


def baseline(data: EEGData, window: int) -> Baseline:
    """What the linear decoder reaches in windows of that length; looked up where it is known already."""
    how = {"split": data.split, "unseen": data.unseen}
    what = {"data": data.digest(), **how, "window": window, "lags": LAGS, "penalties": PENALTIES}
    note = cache_folder("eeg") / f"baseline-{json_digest(what)[:32]}.json"
    found = recalled(note, lambda kept: Baseline(**kept))
    if found is None:
        found = linear_baseline(data, window=window)
        keep(note, dataclasses.asdict(found))
    return found
