"""What a finished training on EEG leaves behind, in MLflow and for TensorBoard."""

import csv
import math

import numpy as np
import pytest
import torch

from nfa.registry import stored_runs
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.eeg.linear_baseline import linear_baseline
from nfa.registry.families.eeg.scores import score
from tests.support.eeg_trainings import (
    CHECKPOINTS,
    EVALUATED,
    STEPS_AN_EPOCH,
    TINY,
    Event,
    events,
    recordings,
    tiny_decoder,
)
from tests.support.stores import Finished, used

LOSSES = ("loss", "loss_mse", "loss_pearson")
GROUPS = ("cnn", "se", "subject", "block_0", "gate", "head")
TAGS = {
    "Train/loss_total": "train/loss",
    "Train/loss_mse": "train/loss_mse",
    "Train/loss_pearson": "train/loss_pearson",
    "Validation/loss": "val/loss",
    "Validation/pearson": "val/pearson",
    "Test/loss": "test/loss",
    "Test/pearson": "test/pearson",
    "Gradient/norm": "flow/grad_norm",
}


@pytest.fixture(scope="module")
def series(decoded: Finished) -> dict[str, dict[int, float]]:
    rows = decoded.store.metrics(decoded.run_id)
    assert len({row[:2] for row in rows}) == len(rows)
    return {key: {s: value for k, s, value in rows if k == key} for key, _, _ in rows}


@pytest.fixture(scope="module")
def best(decoded: Finished) -> int:
    return int(decoded.store.tags(decoded.run_id)["nfa.best_epoch"])


@pytest.fixture(scope="module")
def written(decoded: Finished) -> Event:
    return events(decoded.store, decoded.run_id)


def test_run_is_finished_and_carries_the_tags_of_the_contract(decoded: Finished) -> None:
    tags = decoded.store.tags(decoded.run_id)
    assert decoded.store.status(decoded.run_id) == "FINISHED"
    assert (tags["nfa.state"], tags["nfa.entrypoint"], tags["nfa.workload"]) == ("finished", "train_eeg", "eeg")


def test_metric_series_have_the_keys_and_steps_of_the_contract(series: dict[str, dict[int, float]], best: int) -> None:
    expected = {f"{split}/{name}": EVALUATED for split in ("train", "val") for name in (*LOSSES, "pearson")}
    expected["val/undefined_windows"] = EVALUATED
    expected |= {f"flow/{name}": EVALUATED[1:] for name in ("grad_norm", *(f"{g}/update_ratio" for g in GROUPS))}
    expected |= {f"test/{name}": [best] for name in (*LOSSES, "pearson", "undefined_windows", "baseline_pearson")}
    expected["val/baseline_pearson"] = [best]
    expected["nfa/flops"] = EVALUATED[1:]
    expected["train/learning_rate"] = EVALUATED[1:]  # of the schedule
    assert {key: sorted(of_key) for key, of_key in series.items()} == expected


def test_values_are_what_they_are_called(series: dict[str, dict[int, float]]) -> None:
    for split in ("train", "val", "test"):
        for epoch, loss in series[f"{split}/loss"].items():
            terms = series[f"{split}/loss_mse"][epoch] + series[f"{split}/loss_pearson"][epoch]
            assert loss == pytest.approx(terms, rel=1e-6)
            assert -1 <= series[f"{split}/pearson"][epoch] <= 1
    assert set(series["val/undefined_windows"].values()) == set(series["test/undefined_windows"].values()) == {0}
    assert all(0 < value < 1 for group in GROUPS for value in series[f"flow/{group}/update_ratio"].values())
    assert len({series[f"flow/{group}/update_ratio"][4] for group in GROUPS}) == len(GROUPS)


def test_the_best_epoch_is_that_of_the_largest_validation_r_and_has_a_checkpoint(
    decoded: Finished, series: dict[str, dict[int, float]], best: int
) -> None:
    assert best == max(EVALUATED, key=lambda epoch: series["val/pearson"][epoch])
    names = [f"epoch_{epoch:04d}.safetensors" for epoch in sorted({*CHECKPOINTS, best})]
    assert list(decoded.store.checkpoints(decoded.run_id)) == names
    metadata = decoded.store.checkpoint_metadata(decoded.run_id, best)
    assert (metadata["epoch"], metadata["step"]) == (str(best), str(best * STEPS_AN_EPOCH))


def test_the_best_checkpoint_gives_the_logged_values_again(
    decoded: Finished, series: dict[str, dict[int, float]], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NFA_CACHE", str(decoded.store.folder.parent / "cache"))
    with used(decoded.store, monkeypatch):
        for epoch in {0, best}:
            model, workload = stored_runs.load_checkpoint(decoded.run_id, epoch)
            for split in ("val", "test") if epoch == best else ("val",):
                found = score(workload, model, split, workload.ids(split))
                for key, value in found.series(split).items():
                    assert series[key][epoch] == pytest.approx(value, rel=1e-9), key
        initial, _ = stored_runs.load_checkpoint(decoded.run_id, 0)
        for name, value in workload.model().state_dict().items():
            assert torch.equal(initial.state_dict()[name], value), name


def test_config_and_example_ids_rebuild_the_workload(decoded: Finished) -> None:
    stored = decoded.store.json(decoded.run_id, "config.json")
    assert TrainEEGConfig(**stored["train"]) == TrainEEGConfig(**TINY).resolved()
    assert stored["data"]["name"] == "simulated"
    assert stored["data"]["digest"] == recordings().digest()
    assert stored["data"]["subjects"] == ["sub-001", "sub-002"]
    ids = decoded.store.json(decoded.run_id, "example_ids.json")
    assert ids == dict(tiny_decoder().example_ids)
    assert {split: len(of) for split, of in ids.items()} == {"train": 48, "val": 16, "test": 16, "probe": 48}
    assert sorted(ids["probe"]) == ids["train"]
    assert set(decoded.store.params(decoded.run_id)) == set(TrainEEGConfig.__dataclass_fields__) - {"resume"}


def test_the_artifacts_are_those_of_the_contract_and_no_others(decoded: Finished, best: int) -> None:
    folder = decoded.store.artifact(decoded.run_id)
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    (event_file,) = (name for name in files if name.startswith("tensorboard/"))
    assert event_file.startswith("tensorboard/events.out.tfevents.")
    expected = {f"checkpoints/epoch_{epoch:04d}.safetensors" for epoch in {*CHECKPOINTS, best}}
    expected |= {f"plots/envelope_epoch_{epoch}.png" for epoch in {*CHECKPOINTS, best}}
    expected |= {"config.json", "example_ids.json", "results.json", "recordings.csv", "timing.json"}
    expected |= {"plots/training.png", "plots/training.pdf", "state/latest.pt", "series.npz", "plots/preview.png"}
    assert files - {event_file} == expected
    for name in files:
        if name.startswith("plots/"):
            content = (folder / name).read_bytes()
            assert content.startswith(b"\x89PNG" if name.endswith("png") else b"%PDF")
            assert len(content) > 10_000


def test_results_and_recordings_say_the_same_as_the_series(
    decoded: Finished, series: dict[str, dict[int, float]], best: int
) -> None:
    results = decoded.store.json(decoded.run_id, "results.json")
    text = decoded.store.artifact(decoded.run_id, "recordings.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert results["epoch"] == best
    assert len(rows) == 8
    for split in ("val", "test"):
        found = results[split]
        of_split = [row for row in rows if row["split"] == split]
        assert {row["recording"]: float(row["pearson"]) for row in of_split} == found["recordings"]
        assert {row["recording"]: float(row["baseline_pearson"]) for row in of_split} == found["baseline_recordings"]
        for subject, r in found["subjects"].items():
            own = [float(row["pearson"]) for row in of_split if row["subject"] == subject]
            assert len(own) == 2
            assert r == pytest.approx(np.mean(own))
        assert found["pearson"] == pytest.approx(np.mean(list(found["recordings"].values())))
        assert found["pearson"] == series[f"{split}/pearson"][best]
        assert found["baseline_pearson"] == series[f"{split}/baseline_pearson"][best]
        assert found["losses"] == {name: series[f"{split}/{name}"][best] for name in LOSSES}
        assert (found["windows"], found["windows_without_r"]) == (16, 0)


def test_the_baseline_is_the_linear_decoder_of_the_same_recordings(decoded: Finished) -> None:
    results = decoded.store.json(decoded.run_id, "results.json")
    expected = linear_baseline(recordings(), window=128)
    assert results["test"]["baseline_recordings"] == pytest.approx(expected.recordings["test"])
    assert results["val"]["baseline_recordings"] == pytest.approx(expected.recordings["val"])
    assert results["baseline"]["penalties"] == expected.penalties
    assert results["test"]["baseline_pearson"] > 0.3, "the recordings can be decoded"


# ---- event files, as TensorBoard reads them


def test_tensorboard_s_scalars_are_the_series(written: Event, series: dict[str, dict[int, float]]) -> None:
    assert set(written.scalars) == set(TAGS)
    for tag, key in TAGS.items():
        assert written.scalars[tag] == {step: np.float32(value) for step, value in series[key].items()}, tag


def test_tensorboard_s_histograms_are_of_every_parameter_every_so_many_steps(written: Event, decoded: Finished) -> None:
    last = decoded.store.checkpoints(decoded.run_id)[f"epoch_{CHECKPOINTS[-1]:04d}.safetensors"]
    names = [name for name, _ in tiny_decoder().model().named_parameters()]
    assert "layer_stack.0.attention.query.weight" in names
    assert set(written.histograms) == {f"{kind}/{name}" for kind in ("Gradient", "Weight") for name in names}
    assert all(list(of_tag) == [4, 8, 12] for of_tag in written.histograms.values())
    assert CHECKPOINTS[-1] * STEPS_AN_EPOCH == 12
    for name in names:
        found, weights = written.histograms[f"Weight/{name}"][12], last[name].double()
        assert (found.num, found.min, found.max) == (weights.numel(), float(weights.min()), float(weights.max()))
        assert found.sum == pytest.approx(float(weights.sum()), rel=1e-5, abs=1e-5)


def test_the_gradients_of_the_last_step_have_the_logged_norm(
    written: Event, series: dict[str, dict[int, float]]
) -> None:
    squares = sum(found[12].sum_squares for tag, found in written.histograms.items() if tag.startswith("Gradient/"))
    assert math.sqrt(squares) == pytest.approx(series["flow/grad_norm"][4], rel=1e-4)


def test_tensorboard_has_the_envelopes(written: Event, best: int) -> None:
    assert written.images == {"envelope": sorted({*CHECKPOINTS, best})}
