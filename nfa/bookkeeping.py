"""Metric keys that say nothing new of a model: what a run has cost, and copies for charts."""

from collections.abc import Collection

SECONDS = "nfa/seconds"  # of a training: in all, at step 0; of an analysis: of each checkpoint
FLOPS = "nfa/flops"  # of a training: of all updates so far; of an analysis: of each checkpoint
MACHINE = "system/"  # what MLflow samples of the machine
COMPARISON = "- comparison/"  # what compares runs; the UI sorts by name, and sites may begin with a digit


def is_bookkeeping(key: str) -> bool:
    """Return whether a key tells of costs or copies another, and says nothing new of a model.

    >>> is_bookkeeping("nfa/seconds"), is_bookkeeping("val/loss")
    (True, False)
    """
    return key.startswith(("nfa/", MACHINE, COMPARISON))


def is_asked(key: str, among: Collection[str]) -> bool:
    """Return whether a key is `among` some or, if there are none, does not tell of the machine.

    >>> is_asked("nfa/seconds", []), is_asked("system/disk_usage_megabytes", []), is_asked("val/loss", ["train/loss"])
    (True, False, False)
    """
    return key in among if among else not key.startswith(MACHINE)
