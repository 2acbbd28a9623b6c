"""The device of a workload's models and batches."""

import torch

from nfa.errors import Refusal
from nfa.maths.bfloat16 import has_bfloat16_units
from nfa.options import DEVICES


def choose_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is CUDA where present, otherwise the CPU.

    Args:
        name: auto, cpu, cuda, cuda:N, or another torch device.

    Returns:
        The device.

    Raises:
        Refusal: This machine has no such device, or the device has no float64, in which nfa sums.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros((), device=device, dtype=torch.float64).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0]
        got = f"device={name!r} ({reason})"
        raise Refusal(got, DEVICES, "device=auto") from None
    return device


def check_precision(precision: str, device: torch.device) -> None:
    """Check that a device is fast in the asked precision.

    Args:
        precision: "bfloat16" or another type.
        device: The device.

    Raises:
        Refusal: bfloat16 is asked for on a device without bfloat16 units, where it would only be slow.
    """
    if precision == "bfloat16" and not has_bfloat16_units(device):
        raise Refusal(f"precision=bfloat16 on {device}", "a device with bfloat16 units", "precision=float32")
