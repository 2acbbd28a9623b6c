"""Where a workload's models and batches are."""

import torch

from nfa.errors import Refusal
from nfa.maths.bfloat16 import has_bfloat16_units


def choose_device(name: str) -> torch.device:
    """`auto` = CUDA when it is there, else the CPU; `Refusal` for a device that is not."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        got = f"device={name!r} ({reason})"
        raise Refusal(got, "auto, cpu, cuda, cuda:N, mps where present", "device=auto") from None
    return device


def check_precision(precision: str, device: torch.device) -> None:
    """`Refusal` for bfloat16 where it would only be slow."""
    if precision == "bfloat16" and not has_bfloat16_units(device):
        raise Refusal(f"precision=bfloat16 on {device}", "a device with bfloat16 units", "precision=float32")
