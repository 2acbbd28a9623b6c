"""The device that is measured: its facts, finished work, peak memory, and what does not fit into it."""

import gc
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from benchmarks.record import in_turn
from nfa.errors import reason

ROUNDS = 5
FULL_MEMORY = ("out of memory", "ALLOC_FAILED")  # of PyTorch's allocators, and of cuBLAS and cuDNN
Found = TypeVar("Found")


class Missing(str):
    """Why there is no value."""

    @property
    def is_failure(self) -> bool:
        """Whether something is wrong."""
        return self.startswith(FAILED)


FAILED = "failed: "
NO_TIME, NO_ROOM = Missing("skipped: no time is left"), Missing("does not fit into the memory")


class Clock:
    """What is left of a number of seconds."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left; below 0 after the end."""
        return self.end - time.monotonic()

    def rounds(self, seconds: float) -> int:
        """Return how many rounds of so many seconds are made: at most five, and in at most half of the time left."""
        return max(0, min(ROUNDS, int(self.left() / 2 / max(seconds, 1e-9))))


@dataclass(frozen=True)
class Accelerator:
    """A device, or the processor in its place for a trial."""

    device: torch.device

    @property
    def is_processor(self) -> bool:
        """Whether this is only a trial."""
        return self.device.type == "cpu"

    @property
    def tells_memory(self) -> bool:
        """Whether PyTorch counts the memory that is allocated on it."""
        return self.device.type in ("cuda", "xpu")

    def described(self) -> dict[str, Any]:
        """Return name, memory, driver and libraries, as far as they are known."""
        module = getattr(torch, self.device.type)
        facts = {"device": module.get_device_name(self.device) if self.tells_memory else self.device.type}
        if self.tells_memory:
            facts["device_memory_GB"] = round(torch.accelerator.get_memory_info(self.device)[1] / 1e9)
        if self.device.type == "cuda":
            facts |= {"driver": _driver(), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        return {name: fact for name, fact in facts.items() if fact}

    def finished(self, run: Callable[[], Found]) -> Callable[[], Found]:
        """Return the same work, which now returns when the device has done it and not when it was told to."""

        def wait() -> Found:
            found = run()
            if not self.is_processor:
                torch.accelerator.synchronize(self.device)
            return found

        return wait

    def attempt(self, run: Callable[[], Found]) -> Found | Missing:
        """Return what `run` returns, or why it cannot: memory that is too small is free again afterwards."""
        try:
            return run()
        except Exception as error:  # whatever a driver or a kernel raises; what can be measured still is
            full = any(words in str(error) for words in FULL_MEMORY)
            why = NO_ROOM if full else Missing(f"{FAILED}{type(error).__name__}: {reason(error)}")
        self.release()  # here the error, whose traceback holds tensors, is gone
        return why

    def release(self) -> None:
        """Give memory that holds nothing any more back to the device."""
        gc.collect()
        if not self.is_processor:
            torch.accelerator.empty_cache()

    def peak(self, run: Callable[[], Any]) -> float | None:
        """Return MB that `run` allocates above what is allocated before it; None where the device does not tell.

        It must have run before, because libraries allocate their own workspace in the first run and keep it.
        """
        if not self.tells_memory:
            return None
        self.release()
        before = torch.accelerator.memory_allocated(self.device)
        torch.accelerator.reset_peak_memory_stats(self.device)
        self.finished(run)()
        return (torch.accelerator.max_memory_allocated(self.device) - before) / 2**20

    def seconds(self, ways: Mapping[str, Callable[[], Any]], clock: Clock) -> dict[str, list[float]] | Missing:
        """Return seconds of each way in turn, after a first time that warms up, if there is time.

        The first time chooses kernels and fills PyTorch's memory pool, and takes longer than the others.
        """
        if clock.left() <= 0:
            return NO_TIME
        done = {name: self.finished(run) for name, run in ways.items()}
        started = time.perf_counter()
        for run in done.values():
            run()
        rounds = clock.rounds(time.perf_counter() - started)
        return in_turn(done, rounds=rounds, warm_up=False) if rounds else NO_TIME


def _driver() -> str:
    """Return the version of the NVIDIA driver; empty where no tool tells it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    asked = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    return lines[0] if lines else ""
