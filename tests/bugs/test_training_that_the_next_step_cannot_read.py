"""Fault 7 of LoRA programs, from a real training on: its files are found by its run id, and are what it learned."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nfa import reference
from nfa.registry import tracking
from nfa.registry.families.language.base.models import load_model
from nfa.registry.families.language.teacher.config import LoraSvdConfig
from nfa.registry.families.language.teacher.lora_svd import lora_svd
from tests.support.analyses import undrawn
from tests.support.fine_tunings import ALPHA, MODULES, RANK, Place, used_place
from tests.support.stores import Store


def learned(store: Store, run_id: str, init: str, place: Place) -> dict[str, Tensor]:
    """Updates of the base as published, from the model that the run left for its users."""
    folder = store.artifact(run_id, f"final_model_{init}")
    if init == "full":
        before, after = load_model(place.base()).state_dict(), load_file(folder / "model.safetensors")
        return {name: (after[f"{name}.weight"] - before[f"{name}.weight"]).double() for name in MODULES}
    found = load_file(folder / "adapter_model.safetensors")
    sides = {name: [found[f"base_model.model.{name}.lora_{part}.weight"] for part in "BA"] for name in MODULES}
    return {name: reference.lora_update(b, a, ALPHA, RANK) for name, (b, a) in sides.items()}


@pytest.mark.parametrize("init", ["random", "pissa", "full"])
def test_what_was_learned_becomes_factors_and_the_start_of_another_training(
    init: str, store: Store, tmp_path: Path
) -> None:
    """At the rank of what was learned, so that only a full fine-tuning loses something."""
    rank = RANK if init == "random" else 2 * RANK
    with used_place(Place.made(tmp_path / "place")) as place:
        first = place.tune(init=init, steps=2, **({"lr": 0.002} if init == "full" else {}))
        with undrawn():
            factors = lora_svd(LoraSvdConfig(run_id=first[:12], rank=rank)).run_id
        second = place.tune(init="svd", start="warm", factors=factors[:12], rank=rank, alpha=5.0, steps=1)
        updates = learned(store, first, init, place)
    assert tracking.config(second)["train"]["factors"] == factors
    start = load_file(store.artifact(second, "initial_adapter.safetensors"))
    for name, update in updates.items():
        u, s, vh = reference.truncated_svd(update, rank)
        found = reference.lora_update(start[f"{name}.lora_B.weight"], start[f"{name}.lora_A.weight"], 5.0, rank)
        torch.testing.assert_close(found, (u * s) @ vh, rtol=0, atol=1e-4 * float(s[0]))
    if init != "full":
        final = store.json(first, "results.json")["final_loss"]
        assert store.json(second, "results.json")["initial_loss"] == pytest.approx(final, rel=1e-5)
