"""What this machine can hold."""

import os

from nfa.errors import Refusal

BYTES_A_WEIGHT = 20  # float32, five times: the weight, where it started, its gradient, and two of the optimizer's


def check_memory(parameters: int, sizes: str, remedy: str, *, more: float = 0) -> None:
    """`Refusal` for a network whose weights, start, gradients and optimizer state this machine cannot hold.

    `parameters` are those that are trained, `more` the bytes of everything else.
    """
    needed = BYTES_A_WEIGHT * parameters + more
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        got = f"{sizes} (about {needed / 2**30:,.0f} GB)"
        raise Refusal(got, f"a network that fits into {memory / 2**30:.0f} GB of memory", remedy)
