"""Faults of programs that fine-tune language models and report it, and tests that fail with them."""

import csv
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nfa.registry import tracking
from nfa.registry.families.language import report
from nfa.registry.families.language.answer_tokens import collate, encode
from nfa.registry.families.language.comparison.compare_lora import compared
from nfa.registry.families.language.comparison.report import verdicts, written
from nfa.registry.families.language.comparison.study import FineTuning, StartArm
from nfa.registry.families.language.config import CompareLoraConfig
from nfa.registry.families.language.questions import Pair
from nfa.registry.training.config_json import write_config
from tests.support.analyses import undrawn
from tests.support.fine_tunings import STEPS, Place, used_place
from tests.support.stores import Store
from tests.support.tokenizers import TEMPLATE, by_bytes, fast

# The loss was taken over question and padding tokens, and no item had an end of sequence, so the model learnt neither
# the answer alone nor where to stop.

PAIRS = [
    Pair((("user", "Why?"),), "So."),
    Pair((("system", "Be brief"), ("user", "And how, if I may ask?")), "Like this, and not otherwise."),
]
TOKENIZERS = {
    "pad is eos": lambda template: fast(template),
    "pad is not eos": lambda template: fast(template, pad_is_eos=False),
    "bytes": by_bytes,
}


def model(tokenizer) -> torch.Tensor:
    """Logits of the next token for every token."""
    return torch.randn(len(tokenizer), len(tokenizer), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def loss_of(model: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    return float(F.cross_entropy(model[inputs[:, :-1]].flatten(0, 1), labels[:, 1:].flatten()))


def by_hand(model: torch.Tensor, tokenizer, prompts: list[str]) -> float:
    """Mean of −log p over the tokens of the answers and their ends, item by item, one token after the other."""
    found = []
    for pair, prompt in zip(PAIRS, prompts, strict=True):
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"][-1]
        for token in [*tokenizer(pair.answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]:
            found.append(-float(model[before].log_softmax(0)[token]))
            before = token
    return sum(found) / len(found)


@pytest.mark.parametrize("template", [None, TEMPLATE], ids=["plain", "template"])
@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_the_loss_is_that_of_the_answers_and_their_ends(make, template):
    tokenizer = make(template)
    table, encoded = model(tokenizer), encode(PAIRS, tokenizer, 1000)
    inputs, mask, labels = collate(encoded.ids, encoded.starts)
    loss = loss_of(table, inputs, labels)
    assert loss == pytest.approx(by_hand(table, tokenizer, ["]" if template else "\n"] * 2), rel=1e-12)
    assert loss_of(table, inputs.masked_fill(mask == 0, tokenizer.eos_token_id), labels) == loss
    assert loss != pytest.approx(loss_of(table, inputs, inputs), rel=1e-3)


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_every_answer_s_end_is_learnt_also_where_padding_has_the_same_id(make):
    tokenizer = make(TEMPLATE)
    encoded = encode(PAIRS, tokenizer, 1000)
    _, mask, labels = collate(encoded.ids, encoded.starts)
    assert ((labels == tokenizer.eos_token_id).sum(dim=1) == 1).all()
    assert [int(row[length - 1]) for row, length in zip(labels, mask.sum(dim=1), strict=True)] == [
        tokenizer.eos_token_id
    ] * 2


# Reports that crashed without validation data or printed nan, and a step 0 that nobody measured, so that no
# improvement could be told.


def test_without_a_validation_file_there_is_a_split_and_every_report_has_numbers(store: Store, tmp_path: Path) -> None:
    """Also of step 0; what was not measured is empty."""
    with used_place(Place.made(tmp_path / "place")) as place:
        run_id = place.tune(schedule="0", eval_every=100)
    assert store.json(run_id, "config.json")["train"]["val_data"] == ""
    assert len(store.json(run_id, "example_ids.json")["val"]) > 0
    for file in store.artifact(run_id).rglob("*"):
        if file.suffix in (".json", ".csv", ".txt") and "tokenizer" not in file.name:
            text = file.read_text(encoding="utf-8").lower()
            assert "nan" not in text, file
            assert "infinity" not in text, file
    results = store.json(run_id, "results.json")
    losses = {step: value for key, step, value in store.metrics(run_id) if key == "eval/loss"}
    assert list(losses) == [0, STEPS]
    assert (results["initial_loss"], results["final_loss"]) == (losses[0], losses[STEPS])
    assert all(math.isfinite(value) for _, _, value in store.metrics(run_id))
    text = store.artifact(run_id, "training_log_random.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [bool(row["eval_loss"]) for row in rows] == [True] + [False] * (STEPS - 1) + [True]
    assert [bool(row["loss"]) for row in rows] == [False] + [True] * STEPS
    assert json.loads(rows[0]["eval_loss"]) > 0


def test_a_training_that_made_it_worse_says_so_with_its_sign(store: Store, tmp_path: Path) -> None:
    series = {"eval/loss": {0: 2.0, 3: 2.25, STEPS: 2.5}, "nfa/flops": {0: 0.0, 3: 1e6, STEPS: 2e6}}
    with used_place(Place.made(tmp_path / "place")) as place:
        workload = place.workload()
    with undrawn(), tracking.open_run("train_lora", "lora") as run:
        named = {"base": {"name": "base"}, "data": {"name": "questions.jsonl"}}  # in the title of the figure
        write_config(run, {"train": dataclasses.asdict(workload.config), **named})
        report.report(run, workload, series)
    results = store.json(run.run_id, "results.json")
    assert (results["initial_loss"], results["final_loss"]) == (2.0, 2.5)
    assert (results["best_loss"], results["best_step"]) == (2.0, 0)


# An improvement is printed with abs(), so that worse looks better; steps to a target are never computed.


def arm(start: str, finals: list[float]) -> StartArm:
    trained = {}
    for seed, final in enumerate(finals):
        losses = {0: 3.0, 10: final}
        answers = {step: np.full(5, loss) + np.arange(5) - 2 for step, loss in losses.items()}
        trained[seed] = FineTuning(f"{start}{seed}", seed, losses, {0: 0.0, 10: 1.0}, answers, 0.0)
    return StartArm(start, start, "", trained)


def test_a_worse_start_is_called_worse_and_its_difference_is_positive():
    found = compared([arm("random", [2.0, 2.01, 2.02]), arm("svd", [2.5, 2.52, 2.49])], CompareLoraConfig())
    (one,) = found["comparisons"]
    assert one["at_equal_steps"]["mean"] > 0.4
    assert [line.rsplit(", ", 1)[1] for line in verdicts(found)] == ["worse", "worse"]
    assert all(": +0.4" in line for line in verdicts(found))


def test_steps_to_the_target_are_computed_and_absent_where_it_is_not_reached():
    found = compared([arm("random", [2.0, 2.0, 2.0]), arm("svd", [1.0, 1.0, 2.5])], CompareLoraConfig(target=2.0))
    random, svd = found["arms"]
    of_seeds = [{seed: one["steps_to_target"] for seed, one in arm["by_seed"].items()} for arm in (random, svd)]
    assert of_seeds == [{"0": 10.0, "1": 10.0, "2": 10.0}, {"0": 5.0, "1": 5.0, "2": None}]
    assert "nan" not in written(found)
