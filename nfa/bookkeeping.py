"""Metric keys that tell what a run has cost, and nothing of a model; the UI shows those of a prefix together."""

from collections.abc import Collection

SECONDS = "nfa/seconds"  # of a training: in all, at step 0; of an analysis: of each checkpoint
FLOPS = "nfa/flops"  # of a training: of all updates so far
MACHINE = "system/"  # what MLflow samples of the machine


def is_bookkeeping(key: str) -> bool:
    """Return whether a key tells of costs, and not of a model.

    >>> is_bookkeeping("nfa/seconds"), is_bookkeeping("val/loss")
    (True, False)
    """
    return key.startswith(("nfa/", MACHINE))


def is_asked(key: str, among: Collection[str]) -> bool:
    """Return whether a key is `among` some or, if there are none, does not tell of the machine.

    >>> is_asked("nfa/seconds", []), is_asked("system/disk_usage_megabytes", []), is_asked("val/loss", ["train/loss"])
    (True, False, False)
    """
    return key in among if among else not key.startswith(MACHINE)
