"""Metric keys under `nfa/` tell what a value has cost; they are no results, and the tracking UI shows them together."""

SECONDS = "nfa/seconds"  # of a training or a search: in all, at step 0; of an analysis: of each checkpoint
FLOPS = "nfa/flops"  # of a training: of all updates so far; of an analysis: of each checkpoint


def is_bookkeeping(key: str) -> bool:
    """Return whether a key tells of costs, and not of a model.

    >>> is_bookkeeping("nfa/seconds"), is_bookkeeping("val/loss")
    (True, False)
    """
    return key.startswith("nfa/")
