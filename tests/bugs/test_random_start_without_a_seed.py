"""Fault 5 of LoRA programs: the random start had no seed and both runs wrote into one folder, so that the second one's
files replaced the first one's; and no answer had an end."""

from pathlib import Path

import torch

from tests.support.fine_tunings import Place, used_place
from tests.support.stores import Store, same_weights


def outputs(store: Store, run_id: str) -> dict[str, Path]:
    folder = store.artifact(run_id)
    return {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}


def test_a_run_is_decided_by_its_seed_whatever_came_before(store: Store, tmp_path: Path) -> None:
    with used_place(Place.made(tmp_path / "place")) as place:
        first = place.tune(steps=2, seed=1)
        torch.rand(5)
        same, other = place.tune(steps=2, seed=1), place.tune(steps=2, seed=2)
    checkpoints = {run_id: store.checkpoints(run_id) for run_id in (first, same, other)}
    assert same_weights(checkpoints[first], checkpoints[same])
    assert not same_weights(checkpoints[first], checkpoints[other])
    assert store.metrics(first) == store.metrics(same)


def test_two_starts_share_no_file(store: Store, tmp_path: Path) -> None:
    with used_place(Place.made(tmp_path / "place")) as place:
        first = place.tune(steps=1)
        before = {name: file.read_bytes() for name, file in outputs(store, first).items()}
        second = place.tune(steps=1, init="pissa")
    after = {name: file.read_bytes() for name, file in outputs(store, first).items()}
    assert after == before
    named = [
        {name for name in outputs(store, run_id) if name.startswith(("final_model", "training_log"))}
        for run_id in (first, second)
    ]
    assert not named[0] & named[1]


def test_every_question_trained_on_ends(tmp_path: Path) -> None:
    with used_place(Place.made(tmp_path / "place")) as place:
        workload = place.workload()
    for batch in workload.batches("train", batch_size=4):
        for row in batch.targets:
            assert int(row[row >= 0][-1]) == 1, "the tokenizer's end of sequence"
