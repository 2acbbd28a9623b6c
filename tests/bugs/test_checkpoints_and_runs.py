"""Faults of programs that look for each other's files, and tests that fail with them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nfa import reference
from nfa.errors import Refusal
from nfa.registry import tracking
from nfa.registry.analyses.config import GradientDirectionsConfig
from nfa.registry.analyses.gradient_directions import GradientDirections
from nfa.registry.families.language.base.models import load_model
from nfa.registry.families.language.teacher.config import LoraSvdConfig, SynthesizeTeacherConfig
from nfa.registry.families.language.teacher.lora_svd import lora_svd
from nfa.registry.families.language.teacher.synthesize_teacher import synthesize_teacher
from tests.support import lora_runs
from tests.support.analyses import undrawn
from tests.support.eeg_trainings import CHECKPOINTS, tiny_decoder
from tests.support.fine_tunings import ALPHA, MODULES, RANK, Place, used_place
from tests.support.gradient_direction_runs import array, directed, example_gradients
from tests.support.stores import Finished, Store, same_weights

# Checkpoints were looked up by a file pattern, and their epochs by a regular expression, that fitted no file, so that
# nothing or something else was analysed.

DEFAULT = GradientDirectionsConfig().epochs
N = 12


def epochs_of(text: str, existing: list[int]) -> list[int]:
    return GradientDirections(GradientDirectionsConfig(epochs=text)).epochs(existing)


def test_the_default_list_stands_for_those_epochs_that_the_run_has_and_where_it_has_none_for_all():
    assert DEFAULT == "5-60/5"
    assert epochs_of(DEFAULT, [0, 1, 2, 5, 7, 20, 60, 100]) == [5, 20, 60]
    assert epochs_of(DEFAULT, [0, 1, 2, 4]) == [0, 1, 2, 4]


def test_an_epoch_that_was_asked_for_and_is_not_there_is_refused_and_the_ones_that_are_there_are_named():
    assert epochs_of("2,4", [0, 1, 2, 4]) == [2, 4]
    assert epochs_of("all", [0, 1, 2, 4]) == [0, 1, 2, 4]
    with pytest.raises(Refusal, match=r"(?s)has no checkpoint 3.*the run's checkpoints: 0, 1, 2, 4"):
        epochs_of("2-4", [0, 1, 2, 4])


def test_a_run_is_found_by_its_id_and_its_checkpoints_by_their_epoch_whatever_files_lie_about(changeable):
    store, source = changeable.store, changeable.run_id
    for name in ("epoch_0010.safetensors.tmp", "model_epoch_10.pth", "checkpoint_5.pt"):
        store.artifact(source, f"checkpoints/{name}").write_bytes(b"no weights")
        (store.folder / name).write_bytes(b"no weights")
    run_id = directed(store, run_id=source[:8], epochs="all", n=N, device="cpu")
    steps = [step for key, step, _ in store.metrics(run_id) if key == "gradient/mean_cosine"]
    assert steps == [0, 1, 2, 4]
    for epoch in (0, 4):
        norms = example_gradients(source, epoch, N).norm(dim=1)
        np.testing.assert_allclose(array(store, run_id, "norms", epoch), norms[norms > 0], rtol=1e-4)


# File names that the next step did not find, and flags that did not exist. A step is given a run id, never a file
# name; what a run's files are called is in its config.json.


def test_a_step_takes_up_the_one_before_whatever_the_ranks_in_its_file_names(store: Store) -> None:
    source = lora_runs.adapter_run(rank=3)
    with undrawn():
        teacher = synthesize_teacher(SynthesizeTeacherConfig(run_id=source.run_id[:12], target_rank=11))
        found = lora_svd(LoraSvdConfig(run_id=teacher.run_id[:12], rank=5))
    for run_id, key in ((teacher.run_id, "teacher"), (found.run_id, "factors")):
        config = store.json(run_id, "config.json")
        assert store.artifact(run_id, config[key]).is_file()
        assert set(config["modules"]) == set(source.updates)
    assert store.tags(found.run_id)["nfa.source_run_ids"] == teacher.run_id


# Its files are found by its run id, and are what it learned.


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


# The random start had no seed and both runs wrote into one folder, so that the second one's files replaced the first
# one's; and no answer had an end.


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


# A checkpoint was taken from `model.module`, which a model in one process does not have.


def test_checkpoints_have_the_model_s_own_names_and_fit_it(decoded: Finished) -> None:
    model = tiny_decoder().model()
    checkpoints = decoded.store.checkpoints(decoded.run_id)
    assert {f"epoch_{epoch:04d}.safetensors" for epoch in CHECKPOINTS} <= set(checkpoints)
    for tensors in checkpoints.values():
        model.load_state_dict(tensors)
        assert set(tensors) == set(model.state_dict())
