"""The memory that is free here, and a refusal before work starts that needs more."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nfa.errors import Refusal

if TYPE_CHECKING:
    import torch

LARGEST = 3  # parts that a refusal names
GIGABYTE = 2**30
LIMITS = Path("/sys/fs/cgroup")  # of a container or a job, on Linux
MEMORY = Path("/proc/meminfo")


def check_free_memory(needed: Mapping[str, float], device: "torch.device", what: str, remedy: str) -> None:
    """Raise `Refusal` where more memory is needed than is free; where that is not known, nothing is refused.

    Args:
        needed: The bytes of each part.
        device: The device that holds them.
        what: What needs them, in words.
        remedy: What to do.

    Raises:
        Refusal: They are too many; the message names the largest parts.
    """
    free, total = free_memory(device), sum(needed.values())
    if free is None or total <= free:
        return
    largest = sorted(needed, key=lambda name: -needed[name])[:LARGEST]
    parts = ", ".join(f"{name} {_said(needed[name])}" for name in largest)
    got = f"{what}, for which about {_said(total)} of memory are needed ({parts})"
    raise Refusal(got, f"what fits into the {_said(free)} that are free here", remedy)


def _said(count: float) -> str:
    return f"{count / GIGABYTE:,.1f} GB" if count >= GIGABYTE / 10 else f"{count / 2**20:,.1f} MB"


def free_memory(device: "torch.device") -> int | None:
    """Return the bytes that are free on a device; None where that is not known.

    Args:
        device: A CPU or CUDA device.

    Returns:
        Of a GPU, what no tensor holds; of a processor, what programs can have, also in a container.
    """
    if device.type == "cuda":
        import torch

        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    known = [one for one in (_of_machine(), _of_container()) if one is not None]
    return min(known) if device.type == "cpu" and known else None


def _of_machine() -> int | None:
    """Return what the system says can be had without swapping; of systems that do not say it, all memory there is."""
    with suppress(OSError, KeyError, ValueError):
        return _numbers(MEMORY)["MemAvailable:"] * 1024
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_container() -> int | None:
    """Return what is left of the limit of a control group; None where there is no limit."""
    with suppress(OSError, KeyError, ValueError):
        limit, used = (int((LIMITS / name).read_text()) for name in ("memory.max", "memory.current"))
        return max(0, limit - used + _numbers(LIMITS / "memory.stat")["inactive_file"])
    return None


def _numbers(file: Path) -> dict[str, int]:
    """Read a file whose lines are names and numbers."""
    rows = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1}
