"""A folder of old checkpoint files becomes a run that analyses cannot tell from a training."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from nfa import __version__
from nfa.registry import cli, stored_runs, tracking
from nfa.registry.families.mlp.config import ImportConfig, TrainConfig
from tests.support.old_checkpoints import EPOCHS, FILES, NAME, given, net, old_folder, save
from tests.support.processes import run, words
from tests.support.stores import Finished, Store, used, wrapper_in

start = cli.starter("import_checkpoints")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return old_folder(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def imported_run(old: Path, empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The import of that folder by its names alone, from a store beside which the folder is typed."""
    store = empty_store.copy(tmp_path_factory.mktemp("imported") / "store")
    ended = run(store, words(folder=old.name, device="cpu"), entrypoint=NAME, NFA_CALLER_DIR=str(old.parent))
    assert ended.code == 0, ended.output
    (run_id,) = store.runs()
    return Finished(store, run_id)


@pytest.fixture
def seen(imported_run: Finished, monkeypatch: pytest.MonkeyPatch) -> Iterator[Finished]:
    with used(imported_run.store, monkeypatch):
        yield imported_run


def test_run_is_finished_and_carries_the_tags_of_a_training(imported_run: Finished) -> None:
    tags = imported_run.store.tags(imported_run.run_id)
    assert imported_run.store.status(imported_run.run_id) == "FINISHED"
    expected = {"nfa.entrypoint": NAME, "nfa.workload": "mlp", "nfa.trained": "true", "nfa.state": "finished"}
    assert expected.items() <= tags.items()
    assert tags["nfa.version"] == __version__


def test_config_holds_what_is_known_and_nothing_else(imported_run: Finished, old: Path) -> None:
    stored = imported_run.store.json(imported_run.run_id, "config.json")
    assert stored.keys() == {"entrypoint", "workload", "nfa_version", "train", "data", "environment", "source"}
    assert (stored["entrypoint"], stored["workload"]) == (NAME, "mlp")
    known = {"dataset": "digits", "data_dir": "", "width": 8, "depth": 3, "activation": "leaky_relu"}
    assert stored["train"] == {**known, "loss": "mse", "seed": 1717}
    assert TrainConfig(**stored["train"]).depth == 3
    assert stored["source"]["folder"] == str(old)
    assert {epoch: file["path"] for epoch, file in stored["source"]["files"].items()} == {
        str(epoch): name for epoch, name in FILES.items()
    }
    assert all(len(file["sha256"]) == 64 for file in stored["source"]["files"].values())


def test_params_hold_what_the_names_and_tensors_say(imported_run: Finished) -> None:
    params = imported_run.store.params(imported_run.run_id)
    assert set(params) == set(ImportConfig.__dataclass_fields__)
    assert (params["dataset"], params["width"], params["depth"], params["activation"]) == (
        "digits",
        "8",
        "3",
        "leaky_relu",
    )


@pytest.mark.parametrize("epoch", EPOCHS)
def test_weights_are_bitwise_those_of_the_file(imported_run: Finished, epoch: int) -> None:
    checkpoints = imported_run.store.checkpoints(imported_run.run_id)
    assert list(checkpoints) == [f"epoch_{epoch:04d}.safetensors" for epoch in EPOCHS]
    stored = checkpoints[f"epoch_{epoch:04d}.safetensors"]
    assert list(stored) == [f"layers.{layer}.weight" for layer in range(4)]
    for ours, original in zip(stored.values(), net(epoch).parameters(), strict=True):
        assert ours.numpy().tobytes() == original.detach().numpy().tobytes()


def test_metadata_leave_out_the_optimizer_step_that_nobody_knows(imported_run: Finished) -> None:
    metadata = imported_run.store.checkpoint_metadata(imported_run.run_id, 20)
    assert set(metadata) == {"epoch", "config_digest", "nfa_version", "digest"}
    assert metadata["epoch"] == "20"


@pytest.mark.parametrize("epoch", EPOCHS)
def test_loaded_checkpoint_computes_what_the_original_network_does(seen: Finished, epoch: int) -> None:
    model, workload = stored_runs.load_checkpoint("latest", epoch)
    assert tracking.find_run("latest").info.run_id == seen.run_id
    (batch,) = workload.batches("test", batch_size=360)
    assert torch.equal(workload.outputs(model, batch), net(epoch)(batch.inputs))


def test_losses_and_accuracies_are_those_of_the_original_network(imported_run: Finished) -> None:
    """Against scikit-learn's own arrays, mean over classes of (f − y)²."""
    digits, ids = load_digits(), imported_run.store.json(imported_run.run_id, "example_ids.json")
    logged = {(key, step): value for key, step, value in imported_run.store.metrics(imported_run.run_id)}
    pixels, labels = torch.tensor(digits.data / 16).float(), torch.tensor(digits.target)
    for split, epoch in [("train", 0), ("val", 4), ("test", 20)]:
        chosen = torch.tensor(ids[split]) + (1437 if split == "test" else 0)
        with torch.no_grad():
            outputs = net(epoch)(pixels[chosen])
        loss = F.mse_loss(outputs, F.one_hot(labels[chosen], 10).float())
        accuracy = (outputs.argmax(1) == labels[chosen]).float().mean()
        assert logged[f"{split}/loss", epoch] == pytest.approx(float(loss), rel=1e-5)
        assert logged[f"{split}/accuracy", epoch] == pytest.approx(float(accuracy), rel=1e-5)


def test_series_have_a_value_at_every_imported_epoch_and_the_test_at_the_last(imported_run: Finished) -> None:
    steps: dict[str, list[int]] = {}
    for key, step, value in imported_run.store.metrics(imported_run.run_id):
        assert math.isfinite(value)
        steps.setdefault(key, []).append(step)
    names = ("loss", "accuracy")
    expected = {f"{split}/{name}": EPOCHS for split in ("train", "val") for name in names}
    assert steps == expected | {f"test/{name}": [20] for name in names}


def test_best_epoch_has_the_smallest_validation_loss(imported_run: Finished) -> None:
    rows = imported_run.store.metrics(imported_run.run_id)
    losses = {step: value for key, step, value in rows if key == "val/loss"}
    best = int(imported_run.store.tags(imported_run.run_id)["nfa.best_epoch"])
    assert best == min(losses, key=losses.__getitem__)


def test_each_checkpoint_is_a_logged_model_with_its_metrics(imported_run: Finished) -> None:
    query = """SELECT logged_models.name, inputs.step FROM inputs
        JOIN logged_models ON logged_models.model_id = inputs.destination_id
        WHERE inputs.source_type = 'RUN_OUTPUT' AND inputs.source_id = ? ORDER BY inputs.step"""
    models = imported_run.store.rows(query, imported_run.run_id)
    (name,) = imported_run.store.named()
    assert models == [(f"epoch {epoch}, {name}", epoch) for epoch in EPOCHS]
    attached = imported_run.store.rows("SELECT DISTINCT metric_step FROM logged_model_metrics ORDER BY 1")
    assert attached == [(epoch,) for epoch in EPOCHS]


def test_example_ids_are_those_of_a_training_with_the_same_seed(imported_run: Finished, finished: Finished) -> None:
    ids, trained = (at.store.json(at.run_id, "example_ids.json") for at in (imported_run, finished))
    assert ids == trained
    query = "SELECT digest FROM datasets ORDER BY digest"
    assert imported_run.store.rows(query) == finished.store.rows(query)


def test_nothing_but_the_named_artifacts_is_left(imported_run: Finished) -> None:
    folder = imported_run.store.artifact(imported_run.run_id)
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    expected = {f"checkpoints/epoch_{epoch:04d}.safetensors" for epoch in EPOCHS}
    assert files == expected | {"config.json", "example_ids.json", "series.npz"}


def test_network_of_depth_1_with_chosen_epochs_and_another_loss(store: Store, tmp_path: Path) -> None:
    for epoch in range(4):
        save(tmp_path / f"old/model_epoch_{epoch}.pth", net(epoch, 1, torch.tanh))
    start(given(tmp_path / "old", activation="tanh", epochs="1-3/2", loss="cross-entropy", seed=3, run_name="old one"))
    (run_id,) = store.runs()
    assert tracking.epochs(run_id) == [1, 3]
    model, workload = stored_runs.load_checkpoint(run_id, 3)
    (batch,) = workload.batches("val", batch_size=2048)
    outputs = net(3, 1, torch.tanh)(batch.inputs).detach()
    assert torch.equal(workload.outputs(model, batch), outputs)
    logged = {(key, step): value for key, step, value in store.metrics(run_id)}
    assert logged["val/loss", 3] == pytest.approx(float(F.cross_entropy(outputs, batch.targets)), rel=1e-5)
    assert store.tags(run_id)["mlflow.runName"] == "old one"
    assert store.json(run_id, "config.json")["train"]["seed"] == 3


def test_digest_of_the_checkpoints_is_another_for_other_files(store: Store, tmp_path: Path) -> None:
    for epoch in (1, 2):
        save(tmp_path / f"{epoch}/model_epoch_1.pth", net(epoch))
        start(given(tmp_path / str(epoch)))
    one, other = (store.checkpoint_metadata(run_id, 1)["config_digest"] for run_id in store.runs())
    assert one != other


def test_import_inside_mlflow_run_uses_the_run_that_mlflow_made(fresh: Store, old: Path) -> None:
    wrapper = wrapper_in(fresh)
    typed = {"folder": str(old), "dataset": "''", "width": "0"}
    for name, text in typed.items():
        fresh.change("INSERT INTO params (run_uuid, key, value) VALUES (?, ?, ?)", wrapper, name, text)
    argv = words(folder=old, epochs="0,20", run_name="a b")
    ended = run(fresh, argv, entrypoint=NAME, MLFLOW_RUN_ID=wrapper, MLFLOW_EXPERIMENT_ID="0")
    assert ended.code == 0, ended.output
    assert fresh.runs() == [wrapper]
    params = fresh.params(wrapper)
    assert typed.items() <= params.items()
    assert (params["resolved.dataset"], params["resolved.width"], params["depth"]) == ("digits", "8", "3")
    assert "resolved.folder" not in params
