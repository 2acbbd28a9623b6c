"""The memory of this machine."""

import os

from nfa.errors import Refusal

BYTES_A_WEIGHT = 20  # five float32 numbers: weight, initial weight, gradient, and two of the optimizer


def check_memory(parameters: int, sizes: str, remedy: str, *, more: float = 0) -> None:
    """Raise `Refusal` for a network whose weights, gradients and optimizer state do not fit into this machine's memory.

    `parameters` counts the trained numbers; `more` is the bytes of everything else.
    """
    needed = BYTES_A_WEIGHT * parameters + more
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        got = f"{sizes} (about {needed / 2**30:,.0f} GB)"
        raise Refusal(got, f"a network that fits into this machine's memory of {memory / 2**30:.0f} GB", remedy)
