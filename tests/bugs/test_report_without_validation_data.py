"""Fault 6 of LoRA programs: reports that crashed without validation data or printed nan, and a step 0 that nobody
measured, so that no improvement could be told."""

import csv
import json
import math
from pathlib import Path

from nfa.registry import tracking
from nfa.registry.families.language import report
from tests.support.analyses import undrawn
from tests.support.fine_tunings import STEPS, Place, used_place
from tests.support.stores import Store


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
    series = {"eval/loss": {0: 2.0, 3: 2.25, STEPS: 2.5}, "compute/flops": {0: 0.0, 3: 1e6, STEPS: 2e6}}
    with used_place(Place.made(tmp_path / "place")) as place:
        workload = place.workload()
    with undrawn(), tracking.open_run("train_lora", "lora") as run:
        report.report(run, workload, series)
    results = store.json(run.run_id, "results.json")
    assert (results["initial_loss"], results["final_loss"]) == (2.0, 2.5)
    assert (results["best_loss"], results["best_step"]) == (2.0, 0)
