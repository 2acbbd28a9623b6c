"""Titles of figures say what was trained on what, for every family."""

from collections.abc import Mapping
from typing import Any

import pytest

from nfa.registry.families.registry import family

STORED: dict[str, tuple[dict[str, Any], str]] = {
    "mlp": (
        {
            "train": {"width": 128, "depth": 3, "optimizer": "sgd", "lr": 0.1, "seed": 1717, "seeds": ""},
            "data": {"name": "fashion-mnist", "features": 784},
        },
        "MLP 784→128×3 on fashion-mnist, sgd, lr 0.1, seed 1717",
    ),
    "eeg": (
        {"train": {"preset": "v1", "optimizer": "adam", "lr": 0.003}, "data": {"name": "simulated"}},
        "Conformer v1 on simulated EEG, adam, lr 0.003",
    ),
    "lora": (
        {
            "train": {"init": "random", "rank": 8, "optimizer": "adamw", "lr": 0.005},
            "data": {"name": "stdlib"},
            "base": {"name": "/models/tiny"},
        },
        "tiny on stdlib, LoRA of rank 8, init=random, adamw, lr 0.005",
    ),
    "/labs/my_lab.py:make": (
        {"train": {"workload_args": "width=8,bias=true"}, "data": {"name": "my_lab.py:make"}},
        "my_lab.py:make (width=8, bias=true)",
    ),
    "watched": ({"train": {"workload_args": ""}, "data": {"name": "watched"}}, ""),
}


@pytest.mark.parametrize(("name", "stored", "title"), [(name, *one) for name, one in STORED.items()])
def test_a_title_says_what_was_trained_on_what(name: str, stored: Mapping[str, Any], title: str) -> None:
    assert family(name).title(stored) == title


def test_the_title_of_several_seeds_names_none_of_them() -> None:
    stored, title = STORED["mlp"]
    several = {**stored, "train": {**stored["train"], "seeds": "1-3"}}
    assert family("mlp").title(several) == title.removesuffix(", seed 1717")
