"""Fault 1 of LoRA programs: the published "SVD-init" run initialised 0 layers, because its factors' names never matched
the model's; nothing said so, and its gain was noise."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nfa import reference
from nfa.errors import Refusal
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.training.start import train
from tests.support.analyses import undrawn
from tests.support.fine_tunings import ALPHA, MODULES, RANK, Place, factor_run, factors_for, used_place
from tests.support.stores import Store

RENAMED = {
    "with PEFT's prefix": ("model.", "base_model.model.model."),
    "of another family": ("model.layers.", "transformer.h."),
    "one block only": ("model.layers.1.", "model.layers.7."),
}


def renamed(factors: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {name.replace(old, new, 1): tensor for name, tensor in factors.items()}


@pytest.mark.parametrize("case", RENAMED)
def test_factors_whose_names_match_no_module_are_refused_with_both_lists(
    case: str, store: Store, tmp_path: Path
) -> None:
    with used_place(Place.made(tmp_path / "place")) as place:
        factors = factor_run(place, renamed(factors_for(place), *RENAMED[case]))
        config = TrainLoraConfig(**place.options(init="svd", factors=factors))
        with pytest.raises(Refusal, match=r"targets without factors: model\.layers.*; factors without a target: \w"):
            train(config, Stopwatch())
    assert store.runs() == [factors], "no training was started"


def test_as_many_modules_start_from_factors_as_are_targets(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with used_place(Place.made(tmp_path / "place")) as place, undrawn():
        factors = factor_run(place)
        config = TrainLoraConfig(**place.options(init="svd", start="warm", factors=factors, steps=1))
        train(config, Stopwatch())
    assert f"svd warm, rank {RANK}, alpha 6: {len(MODULES)} of {len(MODULES)} targets" in capsys.readouterr().out
    (run_id,) = set(store.runs()) - {factors}
    assert len(store.json(run_id, "config.json")["modules"]) == len(MODULES)
    first = load_file(store.artifact(run_id, "checkpoints/step_000000.safetensors"))
    for module in MODULES:
        a, b = (first[f"base_model.model.{module}.lora_{part}.default.weight"] for part in "AB")
        given = [factors_for(place)[f"{module}.lora_{part}.weight"] for part in "BA"]
        expected = reference.lora_update(given[0], given[1], 3, RANK)
        assert expected.any()
        torch.testing.assert_close(reference.lora_update(b, a, ALPHA, RANK), expected, rtol=1e-5, atol=1e-7)
