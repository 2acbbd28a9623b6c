"""Measure all, and keep the record of an accelerator; a processor only tries the small version."""

import sys
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.device.accelerator import Accelerator, Clock, Missing
from benchmarks.device.fine_tuning import fine_tuning
from benchmarks.device.plan import FULL, SMALL, Plan
from benchmarks.device.speed import speeds
from benchmarks.device.values import Difference, differences
from benchmarks.record import store
from nfa.errors import Refusal
from nfa.workloads.devices import choose_device

NOTES = [
    "Values are those of smooth networks with simulated examples: the same model and examples on the device and on the "
    "processor, in the same precision, and on the processor in float64. Differences of matrices and of weights are "
    "relative, in the Frobenius norm; those of weights are relative to how far the weights have moved.",
    "float32 is full float32, without TF32. bfloat16 is precision=bfloat16: operands are rounded, sums are float32. "
    "Muon iterates in the precision that is named.",
    "Both ways run on the device, in full float32, with the same inputs, in turn; each time ends when the device has "
    "finished. Values are medians over up to five rounds after one that warms up. The check of nfa before it starts is "
    "not included. "
    "vmap(grad) differentiates all examples at once, vmap(jacrev) 128 at a time.",
    "MB are what PyTorch has allocated on the device at most, above model and examples.",
    "A LoRA step is forward, backward and update of one batch, with an adapter of rank 16 at all seven targets.",
]


def measured(plan: Plan, accelerator: Accelerator, clock: Clock) -> Iterator[tuple[str, Any]]:
    """Yield every row by its name; a value that is None is not known of this device."""
    yield from differences(plan, accelerator, clock)
    accelerator.release()
    yield from fine_tuning(plan.language, accelerator, clock)
    accelerator.release()
    yield from speeds(plan, accelerator, clock)
    yield "all of this took, s", round(plan.seconds - clock.left())


def main(name: str) -> int:
    """Measure, print and record; 1 where a value differs by more than is allowed, or something has failed."""
    accelerator = Accelerator(_chosen(name))
    plan = SMALL if accelerator.is_processor else FULL
    rows: dict[str, Any] = {}
    for key, value in measured(plan, accelerator, Clock(plan.seconds)):
        if value is not None:
            rows[key] = value
            print(f"{key}: {value}", flush=True)
    if not accelerator.is_processor:
        shown = {key: str(value) if isinstance(value, Difference) else value for key, value in rows.items()}
        store("device", "On an accelerator", shown, NOTES, device=accelerator.described())
    return int(any(map(_is_wrong, rows.values())))


def _is_wrong(value: Any) -> bool:
    return (isinstance(value, Difference) and not value.ok) or (isinstance(value, Missing) and value.is_failure)


def _chosen(name: str) -> torch.device:
    """Return the device of a name; auto is the accelerator of this machine."""
    present = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto" and present is None:
        raise Refusal("a machine without an accelerator", "cuda, xpu, …, or cpu for a trial", "make device DEVICE=cpu")
    device = choose_device(present.type if name == "auto" and present else name)
    if device.type == "cpu":
        return device
    torch.accelerator.set_device_index(device.index or 0)
    return torch.device(device.type, device.index or 0)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "auto"))
    except Refusal as error:
        print(error, file=sys.stderr)
        sys.exit(2)
