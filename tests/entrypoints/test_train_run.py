"""What a finished training leaves behind."""

import math
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from nfa import __version__
from nfa.levels import LEVELS, is_beside
from nfa.measures.evaluation import evaluate
from nfa.observe.passes import site_weights
from nfa.registry import stored_runs
from nfa.registry.families.mlp.config import TrainConfig
from nfa.studies.alignment import alignment
from tests.support.processes import run
from tests.support.stores import Finished, Store, same_weights
from tests.support.tiny_runs import TINY, tiny
from tests.support.toy_models import site_matrices

CHECKPOINTS = [0, 1, 2, 4]
EPOCHS = [0, 1, 2, 3, 4]
NAME = "digits mlp 8×2 sgd lr 0.1 seed 1717 epochs 4 batch_size 64"
MODEL = NAME.replace(".", "·")  # MLflow allows no dots in names of models
STEPS_AN_EPOCH = math.ceil(1149 / int(TINY["batch_size"]))
PICTURES = ("preview", "training_analysis")  # in a description, the small one leads to the other


def steps(finished: Finished) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for key, step, _ in finished.store.metrics(finished.run_id):
        found.setdefault(key, []).append(step)
    return found


def test_run_is_named_and_described_by_what_ran(finished: Finished) -> None:
    assert finished.store.named() == {NAME: finished.run_id}
    accuracy = {key: value for key, _, value in finished.store.metrics(finished.run_id)}["test/accuracy"]
    note = finished.store.tags(finished.run_id)["mlflow.note.content"]
    assert note.startswith("MLP 64→8×2 on digits, sgd, lr 0.1, seed 1717, 4 epochs\n\n- test loss ")
    assert f"- test accuracy {accuracy:.4g} (360 examples; 95 % Wilson interval " in note
    assert f"\n```\npython -m entrypoints.analyze --run_id {finished.run_id}\n```\n" in note
    small, figure = (f"get-artifact?path=plots%2F{name}.png&run_uuid={finished.run_id}" for name in PICTURES)
    assert note.endswith(f"[![plots/training_analysis.png]({small})]({figure})")


def test_run_is_finished_in_mlflow_and_in_its_tag(finished: Finished) -> None:
    tags = finished.store.tags(finished.run_id)
    assert finished.store.status(finished.run_id) == "FINISHED"
    assert tags["nfa.state"] == "finished"
    assert tags["nfa.error"] == ""


def test_run_carries_the_tags_of_the_contract(finished: Finished) -> None:
    tags = finished.store.tags(finished.run_id)
    assert tags["nfa.entrypoint"] == "train"
    assert tags["nfa.workload"] == "mlp"
    assert tags["nfa.version"] == __version__
    assert "mlflow.parentRunId" not in tags


def test_params_hold_resolved_values(finished: Finished) -> None:
    params = finished.store.params(finished.run_id)
    expected = TrainConfig(**TINY).resolved()  # type: ignore[arg-type]
    assert set(params) == set(TrainConfig.__dataclass_fields__) - {"resume"}
    assert params["lr"] == "0.1"
    assert params["momentum"] == "0.0"
    assert all(params[name] == str(getattr(expected, name)) for name in params)


def test_each_split_is_a_dataset_input_with_name_digest_and_context(finished: Finished) -> None:
    query = """SELECT datasets.name, datasets.digest, input_tags.value FROM inputs
        JOIN datasets ON datasets.dataset_uuid = inputs.source_id
        JOIN input_tags ON input_tags.input_uuid = inputs.input_uuid
        WHERE inputs.destination_id = ? AND input_tags.name = 'mlflow.data.context'"""
    inputs = finished.store.rows(query, finished.run_id)
    assert {name for name, _, _ in inputs} == {"digits"}
    assert sorted(split for _, _, split in inputs) == ["test", "train", "val"]
    assert len({digest for _, digest, _ in inputs}) == 3


def test_config_json_rebuilds_the_configuration(finished: Finished) -> None:
    stored = finished.store.json(finished.run_id, "config.json")
    assert TrainConfig(**stored["train"]) == TrainConfig(**TINY).resolved()  # type: ignore[arg-type]
    assert stored["workload"] == "mlp"
    assert stored["nfa_version"] == __version__
    assert len(stored["data"]["digest"]) == 64
    assert stored["environment"]["torch"] == torch.__version__


def test_example_ids_are_those_of_the_contract(finished: Finished) -> None:
    ids = finished.store.json(finished.run_id, "example_ids.json")
    assert set(ids) == {"train", "val", "test", "probe"}
    assert len(ids["train"]) == 1437 * 4 // 5
    assert sorted(ids["train"] + ids["val"]) == list(range(1437))
    assert ids["test"] == list(range(360))
    assert sorted(ids["probe"]) == sorted(ids["train"])


@pytest.mark.parametrize("first", [50, 200, 1000])
def test_the_first_probe_examples_hold_the_classes_in_their_shares(finished: Finished, first: int) -> None:
    ids = finished.store.json(finished.run_id, "example_ids.json")
    labels = load_digits().target
    everyone = Counter(labels[ids["train"]].tolist())
    chosen = Counter(labels[ids["probe"][:first]].tolist())
    for digit, count in everyone.items():
        assert abs(chosen[digit] - first * count / len(ids["train"])) <= 1


def test_checkpoints_exist_at_the_scheduled_epochs_with_the_model_s_own_names(finished: Finished) -> None:
    checkpoints = finished.store.checkpoints(finished.run_id)
    assert list(checkpoints) == [f"epoch_{epoch:04d}.safetensors" for epoch in CHECKPOINTS]
    for tensors in checkpoints.values():
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        assert shapes == {"layers.0.weight": (8, 64), "layers.1.weight": (8, 8), "layers.2.weight": (10, 8)}


@pytest.mark.parametrize("epoch", CHECKPOINTS)
def test_checkpoint_metadata_says_where_it_comes_from(finished: Finished, epoch: int) -> None:
    metadata = finished.store.checkpoint_metadata(finished.run_id, epoch)
    assert metadata["epoch"] == str(epoch)
    assert metadata["step"] == str(epoch * STEPS_AN_EPOCH)
    assert metadata["nfa_version"] == __version__
    assert len(metadata["config_digest"]) == 64


def test_all_checkpoints_of_a_run_share_one_config_digest(finished: Finished) -> None:
    digests = {finished.store.checkpoint_metadata(finished.run_id, epoch)["config_digest"] for epoch in CHECKPOINTS}
    assert len(digests) == 1


def test_each_checkpoint_is_a_logged_model_linked_at_its_epoch(finished: Finished) -> None:
    query = """SELECT logged_models.name, inputs.step, logged_models.status FROM inputs
        JOIN logged_models ON logged_models.model_id = inputs.destination_id
        WHERE inputs.source_type = 'RUN_OUTPUT' AND inputs.source_id = ? ORDER BY inputs.step"""
    ready = 2
    models = finished.store.rows(query, finished.run_id)
    assert models == [(f"epoch {epoch}, {MODEL}", epoch, ready) for epoch in CHECKPOINTS]


def test_the_metrics_of_a_checkpoint_belong_to_its_logged_model(finished: Finished) -> None:
    query = """SELECT logged_models.name, metric_name, metric_step, metric_value FROM logged_model_metrics
        JOIN logged_models ON logged_models.model_id = logged_model_metrics.model_id
        WHERE logged_model_metrics.run_id = ?"""
    attached = finished.store.rows(query, finished.run_id)
    logged = {(key, step): value for key, step, value in finished.store.metrics(finished.run_id)}
    assert {step for _, _, step, _ in attached} == set(CHECKPOINTS)
    for name, key, step, value in attached:
        assert name == f"epoch {step}, {MODEL}"
        assert logged[key, step] == value
    keys = {key for _, key, step, _ in attached if step == 4}
    assert {"val/loss", "train/loss", "layer_0/agop_nfm", "layer_1/agop_nfm_init_removed"} <= keys


def test_metric_series_have_the_keys_and_steps_of_the_contract(finished: Finished) -> None:
    expected = {f"val/{name}": EPOCHS for name in ("loss", "accuracy")}
    expected |= {f"train/{name}": CHECKPOINTS for name in ("loss", "accuracy")}
    expected |= {f"test/{name}": [4] for name in ("loss", "accuracy")}
    for site in ("layer_0", "layer_1"):
        for end in ("", *LEVELS):
            expected |= {f"{site}/agop_nfm{end}": CHECKPOINTS, f"{site}/agop_nfm_init_removed{end}": CHECKPOINTS[1:]}
    expected |= {f"flow/layer_{index}/update_ratio": CHECKPOINTS[1:] for index in range(3)}
    expected |= dict.fromkeys(("flow/grad_norm", "nfa/flops"), CHECKPOINTS[1:])
    assert steps(finished) == expected


def test_every_logged_value_is_finite(finished: Finished) -> None:
    assert finished.store.rows("SELECT count(*) FROM metrics WHERE is_nan OR abs(value) > 1e300") == [(0,)]
    for key, _, value in finished.store.metrics(finished.run_id):
        assert math.isfinite(value)
        assert 0 <= value <= 1 or "loss" in key or key == "nfa/flops"


def test_operations_are_those_of_all_updates_so_far(finished: Finished) -> None:
    logged = {step: value for key, step, value in finished.store.metrics(finished.run_id) if key == "nfa/flops"}
    of_example = 6 * (64 * 8 + 8 * 8 + 8 * 10) - 2 * 64 * 8  # the inputs need no gradient
    assert logged == {epoch: epoch * 1149 * of_example for epoch in CHECKPOINTS[1:]}


def test_results_json_is_as_specified(finished: Finished) -> None:
    results = finished.store.json(finished.run_id, "results.json")
    logged = {(key, step): value for key, step, value in finished.store.metrics(finished.run_id)}
    assert list(results) == [
        "epochs",
        "train_losses",
        "val_losses",
        "layer_correlations",
        "layer_correlations_init_removed",
        "layer_levels",
        "conventions",
    ]
    assert results["epochs"] == CHECKPOINTS
    assert results["train_losses"] == [logged["train/loss", epoch] for epoch in CHECKPOINTS]
    assert results["val_losses"] == [logged["val/loss", epoch] for epoch in CHECKPOINTS]
    for index in range(2):
        series = [logged[f"layer_{index}/agop_nfm", epoch] for epoch in CHECKPOINTS]
        assert results["layer_correlations"][str(index)] == series
        removed = [logged.get((f"layer_{index}/agop_nfm_init_removed", epoch)) for epoch in CHECKPOINTS]
        assert results["layer_correlations_init_removed"][str(index)] == removed
        assert removed[0] is None
        for name, of in results["layer_levels"].items():
            assert of[str(index)] == [logged.get((f"layer_{index}/{name}", epoch)) for epoch in CHECKPOINTS], name
    levels = {key.rpartition("/")[2] for key, _ in logged if is_beside(key)}
    assert results["layer_levels"].keys() == levels >= {"agop_nfm_chance", "agop_nfm_init_removed_shared"}
    assert set(results["layer_correlations"]) == {"0", "1"}


def test_results_name_the_conventions_they_were_computed_with(finished: Finished) -> None:
    conventions = finished.store.json(finished.run_id, "results.json")["conventions"]
    assert conventions["centre"] == "none"
    assert conventions["agop_power"] == 1
    assert conventions["positions"] == "each"
    assert conventions["precision"] == "float32"
    assert conventions["examples"] == 1149


def test_figures_are_there_in_both_formats(finished: Finished) -> None:
    png = finished.store.artifact(finished.run_id, "plots/training_analysis.png").read_bytes()
    pdf = finished.store.artifact(finished.run_id, "plots/training_analysis.pdf").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert pdf.startswith(b"%PDF")
    assert min(len(png), len(pdf)) > 10_000


def test_best_epoch_is_the_checkpoint_with_the_smallest_validation_loss(finished: Finished) -> None:
    best = int(finished.store.tags(finished.run_id)["nfa.best_epoch"])
    losses = {s: value for key, s, value in finished.store.metrics(finished.run_id) if key == "val/loss"}
    assert best == min(CHECKPOINTS, key=lambda epoch: losses[epoch])


def test_nothing_but_the_named_artifacts_is_left(finished: Finished) -> None:
    folder = finished.store.artifact(finished.run_id)
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    expected = {f"checkpoints/epoch_{epoch:04d}.safetensors" for epoch in CHECKPOINTS}
    expected |= {"config.json", "example_ids.json", "results.json", "timing.json", "state/latest.pt"}
    expected |= {"plots/training_analysis.png", "plots/training_analysis.pdf", "plots/preview.png", "series.npz"}
    assert files == expected


def test_state_is_read_without_pickle_s_code(finished: Finished) -> None:
    state = torch.load(finished.store.artifact(finished.run_id, "state/latest.pt"), weights_only=True)
    assert state["progress"]["epoch"] == 4


@pytest.mark.parametrize("epoch", CHECKPOINTS)
def test_checkpoint_reproduces_its_logged_losses_and_alignment(seen: Finished, epoch: int) -> None:
    logged = {(key, step): value for key, step, value in seen.store.metrics(seen.run_id)}
    start, _ = stored_runs.load_checkpoint(seen.run_id, 0)
    model, workload = stored_runs.load_checkpoint(seen.run_id, epoch)
    for split in ("val", "train"):
        means = evaluate(model, workload, workload.batches(split, batch_size=2048))
        assert means["loss"] == pytest.approx(logged[f"{split}/loss", epoch], rel=1e-6)
        assert means["accuracy"] == pytest.approx(logged[f"{split}/accuracy", epoch], abs=1e-9)
    sites = ["layer_0", "layer_1"]
    batches = workload.batches("train", batch_size=300)
    similar = alignment(site_matrices(model, workload, batches, site_weights(workload, start, sites))).scalars
    assert similar["layer_0/agop_nfm"] == pytest.approx(logged["layer_0/agop_nfm", epoch], abs=1e-5)
    assert similar["layer_1/agop_nfm"] == pytest.approx(logged["layer_1/agop_nfm", epoch], abs=1e-5)


def test_epoch_0_is_the_workload_s_own_initial_model(seen: Finished) -> None:
    model, workload = stored_runs.load_checkpoint(seen.run_id, 0)
    for name, weight in workload.model().state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])


def test_checkpoint_loads_from_any_folder(seen: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert stored_runs.load_checkpoint(seen.run_id, 4).workload.ids("test") == list(range(360))
    assert os.listdir(tmp_path) == []


def test_store_that_moved_with_its_artifacts_still_works(changeable: Finished) -> None:
    assert stored_runs.load_checkpoint(changeable.run_id, 2).model.layers[0].weight.shape == (8, 64)


def test_training_twice_gives_bitwise_the_same_weights_and_values(
    finished: Finished, empty_store: Store, tmp_path: Path
) -> None:
    again = empty_store.copy(tmp_path / "store")
    assert run(again, tiny()).code == 0
    (run_id,) = again.runs()
    assert same_weights(again.checkpoints(run_id), finished.store.checkpoints(finished.run_id))
    assert again.metrics(run_id) == finished.store.metrics(finished.run_id)
