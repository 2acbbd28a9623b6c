"""What the tests of fine-tunings share: a very small base model, questions, trainings in this process and others."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nfa.registry import tracking
from nfa.registry.families.language.base.models import BaseModel, find_base
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.language.workload import LanguageModel
from nfa.registry.families.registry import family_of
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.training.start import prepared, train
from tests.support import lora_runs
from tests.support.analyses import undrawn
from tests.support.processes import Ended, run, words
from tests.support.stores import Finished, Store, used

SIZES = {"hidden": 16, "heads": 2, "key_value_heads": 1, "intermediate": 24}
RANK, ALPHA = 4, 6.0  # no power of two: scaling rounds
OPTIONS = {
    "rank": RANK,
    "alpha": ALPHA,
    "lr": 0.02,
    "batch_size": 2,
    "accumulation": 2,
    "max_length": 70,
    "schedule": "0,2",
    "eval_every": 3,
    "steps": 8,
}
STEPS, EVALUATED, CHECKPOINTS = 8, [0, 2, 3, 6, 8], [0, 2, 8]
ITEMS, TOO_LONG = 22, (5, 11)
TRAINED, HELD_OUT = 18, 2  # and so five steps an epoch, of which the last one has two questions
MODULES = list(lora_runs.shapes())


def write_questions(file: Path, items: int = ITEMS) -> Path:
    """Questions of different lengths, two of them longer than the tiny training takes."""
    lines = []
    for place in range(items):
        question = f"What is {place}{' and so on' * (10 if place in TOO_LONG else place % 3)}?"
        lines.append(json.dumps({"question": question, "answer": f"It is {'very ' * (place % 4)}{place}."}))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@dataclasses.dataclass(frozen=True)
class Place:
    """A folder with a base model, questions and a cache."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> "Place":
        """A random Llama of 2 blocks, and questions."""
        lora_runs.base_folder(folder / "base", **SIZES)
        write_questions(folder / "questions.jsonl")
        return cls(folder)

    def options(self, **changed: Any) -> dict[str, Any]:
        """Of the tiny fine-tuning."""
        known = {"base_model": str(self.folder / "base"), "data": str(self.folder / "questions.jsonl")}
        return {**known, **OPTIONS, **changed}

    def words(self, **changed: Any) -> list[str]:
        return words(**self.options(**changed))

    def base(self) -> BaseModel:
        return find_base(str(self.folder / "base"))

    def workload(self, **changed: Any) -> LanguageModel:
        """Of the tiny fine-tuning, from nothing but its parameters."""
        config = TrainLoraConfig(**self.options(**changed))
        workload = prepared(family_of(config), config, Stopwatch()).workload
        assert isinstance(workload, LanguageModel)
        return workload

    def tune(self, *, drawn: bool = False, **changed: Any) -> str:
        """A fine-tuning in this process; the id of its run."""
        before = set(Store(Path.cwd()).runs())
        config = TrainLoraConfig(**self.options(**changed))
        if drawn:
            train(config, Stopwatch())
        else:
            with undrawn():
                train(config, Stopwatch())
        (run_id,) = set(Store(Path.cwd()).runs()) - before
        return run_id

    def launch(self, store: Store, argv: list[str], **more: Any) -> Ended:
        """A fine-tuning in a process of its own."""
        return run(store, argv, entrypoint="train_lora", NFA_CACHE=str(self.folder / "cache"), **more)


@contextmanager
def used_place(place: Place) -> Iterator[Place]:
    """Facts about base models are kept beside them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NFA_CACHE", str(place.folder / "cache"))
        yield place


def factors_for(place: Place, *, rank: int = RANK, seed: int = 0) -> dict[str, Tensor]:
    """Random factors of all targets, as lora_svd writes them."""
    base = load_file(place.folder / "base" / "model.safetensors")
    found = {}
    for number, name in enumerate(MODULES):
        o, i = base[f"{name}.weight"].shape
        found[f"{name}.lora_A.weight"] = 0.2 * lora_runs.draw(rank, i, seed=seed + number)
        found[f"{name}.lora_B.weight"] = 0.2 * lora_runs.draw(o, rank, seed=seed + 100 + number)
    return found


def factor_run(
    place: Place, factors: Mapping[str, Tensor] | None = None, *, rank: int = RANK, alpha: float = 3.0, digest: str = ""
) -> str:
    """A run as lora_svd leaves it; (alpha / rank) B A is the update."""
    told = {
        "rank": str(rank),
        "alpha": f"{alpha:g}",
        "base_name": str(place.folder / "base"),
        "base_digest": digest or place.base().digest,
        "source_run_id": "",
        "circular": "false",
        "init_flops": "1000.0",
    }
    tensors = dict(factors_for(place, rank=rank) if factors is None else factors)
    with tracking.open_run("lora_svd", "lora", adopt=False) as opened:
        path = f"svd_factors_rank{rank}.safetensors"
        tracking.put_tensors(opened.info, path, tensors, told)
    return opened.run_id


@dataclasses.dataclass(frozen=True)
class Arms:
    """Finished fine-tunings by name, their store, their base and questions, and the run of their factors."""

    store: Store
    ids: Mapping[str, str]
    place: Place
    factors: str

    def __getitem__(self, name: str) -> Finished:
        return Finished(self.store, self.ids[name])

    def series(self, name: str) -> dict[str, dict[int, float]]:
        """Values by key and step, each logged once."""
        rows = self.store.metrics(self.ids[name])
        assert len({row[:2] for row in rows}) == len(rows)
        return {key: {s: value for k, s, value in rows if k == key} for key, _, _ in rows}


ARMS: dict[str, dict[str, Any]] = {
    "random": {"seed": 3},
    "svd residual": {"init": "svd", "start": "residual", "seed": 3},
    "svd warm": {"init": "svd", "start": "warm", "seed": 3},
    "pissa": {"init": "pissa", "seed": 3},
    "olora": {"init": "olora", "seed": 3, "base_precision": "float64"},
    "full": {"init": "full", "seed": 3, "lr": 0.002},
}


def train_arms(store: Store, place: Place) -> Arms:
    """Every arm; figures of the first one only."""
    with pytest.MonkeyPatch.context() as patch, used(store, patch), used_place(place):
        factors = factor_run(place)
        ids = {
            name: place.tune(drawn=name == "random", **options, **({"factors": factors} if "start" in options else {}))
            for name, options in ARMS.items()
        }
    return Arms(store, ids, place, factors)


def logits_of(model: torch.nn.Module, ids: list[int]) -> Tensor:
    """Of every token of one sequence [s v], without padding."""
    with torch.no_grad():
        logits: Tensor = model.eval()(input_ids=torch.tensor([ids])).logits[0]
    return logits
