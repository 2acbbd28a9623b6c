"""Which devices are taken, and which are refused before work starts."""

from typing import Any

import pytest
import torch

from nfa.errors import Refusal
from nfa.maths.bfloat16 import has_bfloat16_units
from nfa.workloads.devices import choose_device


def test_a_device_without_float64_is_refused_because_sums_are_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = torch.zeros

    def without_float64(*size: Any, **options: Any) -> torch.Tensor:
        if options.get("dtype") is torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework has no float64.")
        return zeros(*size, **{**options, "device": "cpu"})

    monkeypatch.setattr(torch, "zeros", without_float64)
    with pytest.raises(Refusal, match=r"device='mps' \(Cannot convert.*float64.*\n.*\n.*device=auto"):
        choose_device("mps")
    monkeypatch.undo()
    assert choose_device("cpu") == torch.device("cpu")


def test_bfloat16_units_are_those_of_the_device_that_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    class Current:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            asked.append(self.device)

        def __exit__(self, *_: object) -> None:
            asked.append(torch.device("cpu"))

    def supported(*, including_emulation: bool) -> bool:
        return not including_emulation and asked[-1].index == 1

    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert has_bfloat16_units(torch.device("cuda", 1))
    assert not has_bfloat16_units(torch.device("cuda", 0))
