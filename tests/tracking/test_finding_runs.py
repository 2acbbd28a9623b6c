"""Which run a text means, and what a checkpoint gives back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow.entities import Param

from nfa.errors import Refusal
from nfa.measures.evaluation import evaluate
from nfa.registry import stored_runs, tracking
from nfa.registry.tracking.store import client, plain_param
from tests.support.stores import Finished, Store

TRAINED = {"nfa.entrypoint": "train", "nfa.workload": "mlp", "nfa.state": "finished", "nfa.trained": "true"}


def made(start: int, **tags: str) -> str:
    return str(client().create_run("0", start_time=start, tags=tags).info.run_id)


def test_latest_is_the_newest_top_level_run_that_trained_something(store: Store) -> None:
    old = made(1, **TRAINED)
    newest = made(2, **TRAINED)
    made(3, **{**TRAINED, "mlflow.parentRunId": newest})
    made(4, **{"nfa.entrypoint": "train", "nfa.workload": "mlp", "nfa.state": "failed"})
    made(5, **{"nfa.resumes": newest, "nfa.state": "finished"})
    made(6)
    assert tracking.find_run("latest").info.run_id == newest
    client().delete_run(newest)
    assert tracking.find_run("latest").info.run_id == old
    assert len(store.runs()) == 6


@pytest.mark.usefixtures("store")
def test_latest_of_an_experiment_without_training_is_refused() -> None:
    made(1, **{"nfa.state": "failed"})
    with pytest.raises(Refusal, match="run id 'latest'"):
        tracking.find_run("latest")


@pytest.mark.usefixtures("store")
def test_latest_looks_at_the_current_experiment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    here = made(1, **TRAINED)
    other = client().create_experiment("other")
    elsewhere = client().create_run(other, start_time=2, tags=TRAINED).info.run_id
    assert tracking.find_run("latest").info.run_id == here
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    assert tracking.find_run("latest").info.run_id == elsewhere


@pytest.mark.usefixtures("store")
def test_prefix_means_the_one_run_that_begins_so_in_any_experiment() -> None:
    other = client().create_experiment("other")
    run_id = client().create_run(other).info.run_id
    assert tracking.find_run(run_id[:10]).info.run_id == run_id
    assert tracking.find_run(run_id).info.run_id == run_id


def test_prefix_of_several_runs_is_refused_with_some_of_them(store: Store) -> None:
    runs = {made(number) for number in range(40)}
    letter = next(letter for letter in "0123456789abcdef" if sum(run_id[0] == letter for run_id in runs) > 1)
    with pytest.raises(Refusal, match=r"it matches several: .*, "):
        tracking.find_run(letter)
    assert len(store.runs()) == 40


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("text", ["", "%", "' OR 1=1", "a_b", "zz"])
def test_text_that_means_no_run_is_refused(text: str) -> None:
    made(1)
    with pytest.raises(Refusal, match="run id"):
        tracking.find_run(text)


@pytest.mark.parametrize("name", ["id", "prefix", "latest"])
def test_checkpoint_is_found_by_id_prefix_and_latest(name: str, seen: Finished) -> None:
    text = {"id": seen.run_id, "prefix": seen.run_id[:8], "latest": "latest"}[name]
    model, workload = stored_runs.load_checkpoint(text, 4)
    logged = {key: value for key, step, value in seen.store.metrics(seen.run_id) if step == 4}
    means = evaluate(model, workload, workload.batches("val", batch_size=64))
    assert means["loss"] == pytest.approx(logged["val/loss"], rel=1e-6)


def test_epoch_without_a_checkpoint_is_refused_with_those_that_exist(seen: Finished) -> None:
    with pytest.raises(Refusal, match=r"epoch 3 of run .*\n  allowed: its checkpoints: 0, 1, 2, 4"):
        stored_runs.load_checkpoint(seen.run_id, 3)


def test_the_last_and_the_best_checkpoint_are_found_by_these_words(seen: Finished) -> None:
    tag = int(seen.store.tags(seen.run_id)["nfa.best_epoch"])
    for word, epoch in (("last", 4), ("best", tag), (np.int64(2), 2)):
        found, expected = (stored_runs.load_checkpoint(seen.run_id, asked).model for asked in (word, epoch))
        assert all(torch.equal(one, two) for one, two in zip(found.parameters(), expected.parameters(), strict=True))


@pytest.mark.parametrize("epoch", [None, "newest", "4", "best"])
def test_another_word_for_an_epoch_is_refused_with_those_that_exist(epoch: Any, changeable: Finished) -> None:
    changeable.store.change("DELETE FROM tags WHERE key = 'nfa.best_epoch'")
    with pytest.raises(Refusal, match=r"one of \[0, 1, 2, 4\], 'last', or 'best' for(.|\n)*epoch='last'"):
        stored_runs.load_checkpoint(changeable.run_id, epoch)


def test_run_that_has_trained_nothing_is_said_to_have_no_checkpoints(store: Store) -> None:
    run_id = made(1)
    with pytest.raises(Refusal, match=r"\(it has no checkpoints\)\n  allowed: a training run"):
        stored_runs.load_checkpoint(run_id, 3)
    assert store.runs() == [run_id]


def test_checkpoint_of_an_unknown_run_is_refused(seen: Finished) -> None:
    with pytest.raises(Refusal, match=f"a run in {seen.store.uri}"):
        stored_runs.load_checkpoint("0" * 32, 0)


def test_data_other_than_the_run_s_are_refused(seen: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nfa.registry.datasets.images.ImageData.digest", lambda _: "0" * 64)
    with pytest.raises(Refusal, match="digest 000000000000"):
        stored_runs.load_checkpoint(seen.run_id, 0)


def test_moved_data_are_found_where_data_dir_says(
    changeable: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nfa.registry.datasets import image_files

    asked: list[str] = []

    def locate(name: str, place: str, was: Callable[..., dict[str, Path]] = image_files.locate) -> dict[str, Path]:
        asked.append(place)
        return was(name, place)

    monkeypatch.setattr(image_files, "locate", locate)
    stored_runs.load_checkpoint(changeable.run_id, 0, data_dir=str(tmp_path))
    stored_runs.load_checkpoint(changeable.run_id, 0)
    assert asked == [str(tmp_path), ""]


def test_loading_a_checkpoint_moves_no_generator_and_writes_nothing(seen: Finished) -> None:
    folder = seen.store.artifact(seen.run_id)
    before = torch.get_rng_state(), sorted(folder.rglob("*"))
    stored_runs.load_checkpoint(seen.run_id, 2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert sorted(folder.rglob("*")) == before[1]


def test_config_of_a_run_is_its_config_json(seen: Finished) -> None:
    assert tracking.config(seen.run_id[:8]) == seen.store.json(seen.run_id, "config.json")


@pytest.mark.parametrize("typed", ["", "a b", "it's", 'say "x"', "0-20,40", "~/data", "$HOME", "a\nb", "\\"])
def test_typed_text_is_recovered_from_what_mlflow_quotes_and_from_what_we_log(typed: str) -> None:
    import shlex

    assert plain_param(shlex.quote(typed)) == typed
    if '"' not in typed and "\\" not in typed:
        assert plain_param(typed) == typed


def test_params_that_mlflow_logged_stay_and_only_differing_ones_are_resolved(store: Store) -> None:
    run_id = made(1)
    client().log_batch(run_id, params=[Param("lr", "auto"), Param("run_name", "'a b'"), Param("epochs", "4")])
    opened = tracking.TrackedRun(client().get_run(run_id))
    for _ in range(2):
        opened.log_params({"lr": 0.1, "run_name": "a b", "epochs": 4, "seed": 1})
    expected = {"lr": "auto", "resolved.lr": "0.1", "run_name": "'a b'", "epochs": "4", "seed": "1"}
    assert store.params(run_id) == expected
