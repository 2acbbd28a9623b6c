"""What `weighting=ghm` leaves behind, what it refuses, and that an interrupted run goes on to the same weights."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from nfa import reference
from nfa.measures.evaluation import evaluate
from nfa.registry import stored_runs
from tests.support.fault_injection import TERM, During
from tests.support.processes import run, words
from tests.support.stores import Finished, Store, assert_same_run, used
from tests.support.tiny_runs import tiny

CHECKPOINTS, STEPS_AN_EPOCH, EXAMPLES = [0, 1, 2, 4], 18, 1149
LEARNS: dict[str, float | str] = {"optimizer": "adam", "lr": 0.01}  # enough for more than one bin in the first epoch
CHANGES: dict[str, dict[str, float | str]] = {  # to the tiny training; one analyses fewer examples than it trains on
    "cross-entropy": {"ghm_bins": 6, "ghm_alpha": 0.75, "ghm_momentum": 0.75, **LEARNS},
    "mse": {"ghm_bins": 4, "max_samples": 100},
}


def arguments(loss: str) -> list[str]:
    return tiny(weighting="ghm", loss=loss, **CHANGES[loss])


@pytest.fixture(scope="module")
def trained(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """Runs by loss, each in a store of its own."""
    found = {}
    for loss in CHANGES:
        store = empty_store.copy(tmp_path_factory.mktemp("ghm") / "store")
        ended = run(store, arguments(loss), pictures=loss == "mse")
        assert ended.code == 0, ended.output
        found[loss] = Finished(store, store.runs()[0])
    return found


@pytest.fixture(params=CHANGES)
def harmonised(
    request: pytest.FixtureRequest, trained: dict[str, Finished], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Finished]]:
    """Loss and run, in the store that this process uses."""
    finished = trained[request.param]
    with used(finished.store, monkeypatch):
        yield request.param, finished


def logged(finished: Finished) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for key, step, value in finished.store.metrics(finished.run_id):
        found.setdefault(key, {})[step] = value
    return found


def by_reference(
    loss: str, outputs: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """g and weight of each entry, and the weighted loss."""
    bins, alpha = int(CHANGES[loss]["ghm_bins"]), float(CHANGES[loss].get("ghm_alpha", 1.0))
    hot = torch.eye(10, dtype=torch.float64)[labels]
    if loss == "cross-entropy":
        norms = 1 - (torch.softmax(outputs, dim=1) * hot).sum(dim=1)
        return norms, *reference.ghm_c(outputs, labels, bins, alpha)
    norms = ((outputs - hot) / ((outputs - hot).square() + 0.02**2).sqrt()).abs()
    return norms, *reference.ghm_r(outputs, hot, bins, alpha)


def test_histogram_and_weights_are_logged_at_checkpoints_only(harmonised: tuple[str, Finished]) -> None:
    loss, finished = harmonised
    values = {key: series for key, series in logged(finished).items() if key.startswith("ghm/")}
    bins = int(CHANGES[loss]["ghm_bins"])
    assert {key for key in values if "weight" not in key} == {
        "ghm/loss",
        *(f"ghm/share_bin_{index}" for index in range(bins)),
    }
    for key, series in values.items():
        if "weight" not in key:
            assert list(series) == CHECKPOINTS
    for index in range(bins):
        held = [epoch for epoch, share in values[f"ghm/share_bin_{index}"].items() if share]
        assert list(values.get(f"ghm/weight_bin_{index}", {})) == held


def test_shares_add_up_to_one_and_weights_have_mean_one(harmonised: tuple[str, Finished]) -> None:
    loss, finished = harmonised
    values = logged(finished)
    for epoch in CHECKPOINTS:
        shares = [values[f"ghm/share_bin_{index}"][epoch] for index in range(int(CHANGES[loss]["ghm_bins"]))]
        assert sum(shares) == pytest.approx(1, rel=1e-12)
        weighted = (s * values[f"ghm/weight_bin_{index}"][epoch] for index, s in enumerate(shares) if s)
        assert sum(weighted) == pytest.approx(1, rel=1e-12)
    assert sum(share > 0 for share in shares) > 2, "a case that shows nothing"


@pytest.mark.parametrize("epoch", CHECKPOINTS)
def test_val_and_train_loss_are_plain_and_ghm_loss_is_that_of_the_whole_training_split(
    harmonised: tuple[str, Finished], epoch: int
) -> None:
    loss, finished = harmonised
    values, (model, workload) = logged(finished), stored_runs.load_checkpoint(finished.run_id, epoch)
    for split in ("val", "train"):
        means = evaluate(model, workload, workload.batches(split, batch_size=300))
        assert values[f"{split}/loss"][epoch] == pytest.approx(means["loss"], rel=1e-6)
    (batch,) = workload.batches("train", batch_size=EXAMPLES)
    outputs = model(batch.inputs).detach().double()
    hot = torch.eye(10, dtype=torch.float64)[batch.targets]
    plain = (outputs - hot).square() if loss == "mse" else -10 * torch.log_softmax(outputs, dim=1) * hot
    assert values["train/loss"][epoch] == pytest.approx(float(plain.mean()), rel=1e-5)
    norms, weights, weighted = by_reference(loss, outputs, batch.targets)
    counts, _ = np.histogram(norms.flatten(), bins=int(CHANGES[loss]["ghm_bins"]), range=(0, 1))
    assert [values[f"ghm/share_bin_{index}"][epoch] for index in range(len(counts))] == pytest.approx(
        counts / counts.sum(), rel=1e-12
    )
    assert values["ghm/loss"][epoch] == pytest.approx(float(weighted), rel=1e-5)
    last = max(index for index, count in enumerate(counts) if count)
    assert values[f"ghm/weight_bin_{last}"][epoch] == pytest.approx(float(weights.flatten()[norms.argmax()]), rel=1e-9)


def test_the_test_and_validation_losses_have_their_usual_steps(harmonised: tuple[str, Finished]) -> None:
    values = logged(harmonised[1])
    assert list(values["val/loss"]) == [0, 1, 2, 3, 4]
    assert list(values["train/loss"]) == CHECKPOINTS
    assert list(values["test/loss"]) == [4]


def test_its_picture_is_among_the_plots(trained: dict[str, Finished]) -> None:
    finished = trained["mse"]
    for name, head in (("ghm_histogram.png", b"\x89PNG"), ("ghm_histogram.pdf", b"%PDF")):
        assert finished.store.artifact(finished.run_id, f"plots/{name}").read_bytes().startswith(head)
    assert finished.store.artifact(finished.run_id, "plots/training_analysis.png").exists()


def test_without_weighting_there_is_none_of_it(finished: Finished) -> None:
    assert [key for key in logged(finished) if key.startswith("ghm")] == []
    plots = [file.name for file in finished.store.artifact(finished.run_id, "plots").iterdir()]
    assert not any("ghm" in name for name in plots)


def test_it_begins_at_the_weights_of_plain_training_and_leaves_them_in_the_first_epoch(
    trained: dict[str, Finished], fresh: Store
) -> None:
    ended = run(fresh, tiny(loss="cross-entropy", epochs=1, schedule="0,1", **LEARNS))
    assert ended.code == 0, ended.output
    plain = fresh.checkpoints(fresh.runs()[0])
    ghm = trained["cross-entropy"].store.checkpoints(trained["cross-entropy"].run_id)
    for name, weight in plain["epoch_0000.safetensors"].items():
        assert torch.equal(ghm["epoch_0000.safetensors"][name], weight)
    for name, weight in plain["epoch_0001.safetensors"].items():
        assert not torch.equal(ghm["epoch_0001.safetensors"][name], weight)


def test_a_run_stopped_in_mid_epoch_goes_on_with_its_counts_to_the_same_run(
    trained: dict[str, Finished], fresh: Store
) -> None:
    """The counts are those of 25 steps, each once: their sum is the average of the batches' sizes."""
    stop = During("nfa.registry.training.optimizers", "Optimizers.step", TERM, STEPS_AN_EPOCH + 7)
    assert run(fresh, arguments("cross-entropy"), before=stop).code == 143
    (run_id,) = fresh.runs()
    state = torch.load(fresh.artifact(run_id, "state/latest.pt"), weights_only=True)
    assert (state["progress"]["epoch"], state["progress"]["batch"]) == (1, 7)
    last_of_an_epoch = EXAMPLES - (STEPS_AN_EPOCH - 1) * 64
    size = 64 - (64 - last_of_an_epoch) * 0.25 * 0.75**7
    assert float(state["objective"]["counts"].sum()) == pytest.approx(size, rel=1e-12)
    ended = run(fresh, words(resume=run_id))
    assert ended.code == 0, ended.output
    assert_same_run(fresh, run_id, trained["cross-entropy"])


def test_two_trainings_are_bitwise_the_same(trained: dict[str, Finished], empty_store: Store, tmp_path: Path) -> None:
    again = empty_store.copy(tmp_path / "store")
    assert run(again, arguments("cross-entropy")).code == 0
    assert_same_run(again, again.runs()[0], trained["cross-entropy"])
