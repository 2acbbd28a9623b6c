"""Measuring two ways of doing the same in turn, and keeping the result with its machine."""

import datetime
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from nfa.maths.bfloat16 import has_bfloat16_units

RESULTS = Path(__file__).parent / "results"
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}  # what the GNU C library reads


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bfloat16_units": has_bfloat16_units(torch.device("cpu")),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def one_thread() -> None:
    """Let PyTorch and the BLAS of NumPy and SciPy use one thread from now on."""
    import scipy.linalg.blas  # noqa: F401 - its library has threads of its own, and must be loaded to be limited

    torch.set_num_threads(1)
    threadpool_limits(1)


def in_turn(
    ways: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 5,
    warm_up: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each way, run A B C A B C …, so that a drifting machine hits all of them alike.

    With `clock=time.process_time` on one thread, other programs have little influence.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + warm_up):
        for name, run in ways.items():
            start = clock()
            run()
            if turn >= warm_up:
                seconds[name].append(clock() - start)
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median over rounds of slow / fast of the same round."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def keep_freed_memory() -> None:
    """Start this program again such that memory that was freed stays in the process.

    Of several ways in one process only some pay for new pages otherwise, up to a tenth of their time: which ones is a
    matter of what ran before.
    """
    if not KEPT.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **KEPT})


def gemm_rate(size: int = 2048, rounds: int = 8) -> float:
    """Floating-point operations per second of this machine's float32 matrix product, the best of several."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(in_turn({"gemm": lambda: a @ b}, rounds=rounds)["gemm"])


@contextmanager
def peak_above_now() -> Iterator[Callable[[], float]]:
    """MB by which this process's memory rises above what it is at the start of the block, at its peak (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    start = _status("VmRSS")
    yield lambda: (_status("VmHWM") - start) / 1024


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def store(
    name: str,
    title: str,
    results: Mapping[str, Any],
    notes: Sequence[str] | Mapping[str, Any],
    *,
    device: Mapping[str, Any] = {},
) -> None:
    """Write and print a record; notes may be by part, and `device` has the facts of an accelerator."""
    record = {
        "title": title,
        "command": f"python -m benchmarks.{name}",
        "date": datetime.date.today().isoformat(),
        "machine": {**machine(), **device},
        "results": dict(results),
        "notes": dict(notes) if isinstance(notes, Mapping) else list(notes),
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
