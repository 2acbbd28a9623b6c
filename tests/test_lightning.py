"""`WatchCallback` in Lightning's Trainer: steps, gradient accumulation, sanity checks, resuming, checkpoints."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import nfa
from nfa.errors import Refusal
from nfa.levels import is_beside
from nfa.registry import tracking
from nfa.registry.tracking.sources import find_sources
from nfa.sinks import Memory
from tests.support.analyses import series, undrawn
from tests.support.snapshots import assert_same
from tests.support.stores import Store
from tests.support.toy_models import layers, seeded
from tests.test_watching import cross_entropy, only

pl = pytest.importorskip("lightning.pytorch")

INITIAL = "0/agop_nfm_init_removed"
EVERY = {"every": 1, "relations": "agop_nfm_init_removed,h_vs_m"}


def data() -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    return torch.randn(24, 4, generator=drawn), torch.randint(3, (24,), generator=drawn)


class Classifier(pl.LightningModule):
    """A network of its own inside, with dropout, which a careless observer would disturb."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.net = nn.Sequential(layers(4, 6, 3), nn.Dropout(rate))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.net(inputs)
        return outputs

    def training_step(self, batch: Any, _index: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, _index: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.5)


class Stopping(pl.Callback):  # type: ignore[misc,name-defined]
    """Ends a training after a step as a fault would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("a fault")


def trained(
    *callbacks: Any, steps: int = 3, resume: str | None = None, rate: float = 0.2, make: Any = Classifier, **more: Any
) -> Any:
    """A training of so many steps, four batches an epoch."""
    model = seeded(make, rate)
    torch.manual_seed(3)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    saving = any(isinstance(one, pl.callbacks.ModelCheckpoint) for one in callbacks)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=steps, callbacks=list(callbacks), enable_checkpointing=saving, **quiet, **more
    )
    batches = DataLoader(TensorDataset(*data()), batch_size=6)
    with undrawn():
        trainer.fit(model, batches, batches, ckpt_path=resume)
    return model


def recording(**options: Any) -> Any:
    from nfa.callbacks.lightning import WatchCallback

    return WatchCallback(cross_entropy, data(), **options)


def saved(folder: Path) -> Any:
    """Lightning's own checkpoints, after each epoch of four steps."""
    return pl.callbacks.ModelCheckpoint(dirpath=folder, filename="{step}", save_top_k=-1)


def test_every_step_is_recorded_by_the_names_of_the_part_that_is_watched(run: Store) -> None:
    trained(recording(module="net.0", **EVERY))
    found = series(run, only(run))
    assert {key for key in found if not is_beside(key)} == {INITIAL, "0/h_vs_m", "probe/loss"}
    assert list(found["0/h_vs_m"]) == [0, 1, 2, 3]
    assert list(found[INITIAL]) == [1, 2, 3]


def test_without_a_part_the_whole_module_is_watched(run: Store) -> None:
    trained(recording(schedule="0,3"))
    assert list(series(run, only(run))["net.0.0/h_vs_m"]) == [0, 3]


@pytest.mark.parametrize("sanity", [0, 2])
def test_training_is_bitwise_the_same_as_without_also_after_a_sanity_check(sanity: int, run: Store) -> None:
    options = {"studies": "alignment,directions,flow", "every": 1, "checkpoints": True}
    seen = trained(recording(**options), num_sanity_val_steps=sanity)
    alone = trained(num_sanity_val_steps=sanity)
    assert_same(dict(seen.state_dict()), dict(alone.state_dict()))
    assert list(series(run, only(run))["probe/loss"]) == [0, 1, 2, 3]


def test_with_gradient_accumulation_a_record_is_an_optimizer_step(run: Store) -> None:
    trained(recording(checkpoints=True, **EVERY), steps=2, accumulate_grad_batches=2)
    assert list(series(run, only(run))["net.0.0/h_vs_m"]) == [0, 1, 2]
    assert tracking.epochs(only(run)) == [0, 1, 2]


def test_by_default_the_first_step_and_the_last_are_recorded_however_short_training_is(run: Store) -> None:
    trained(recording(studies="flow"))
    found = list(series(run, only(run))["flow/net.0.0/grad_rms"])
    assert (found[0], found[-1]) == (0, 3)


def test_by_default_records_are_as_far_apart_as_five_percent_of_the_time_allows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nfa.watching.pace.SHARE", 1e-9)  # no step is so long
    memory = Memory()
    trained(recording(relations="h_vs_m", sink=memory), steps=7)
    assert list(memory.series["probe/loss"]) == [0, 7]
    assert "every=auto records " in capsys.readouterr().out


@pytest.mark.parametrize("averaged_first", [False, True])
def test_an_average_of_weights_is_not_recorded_as_the_last_step(
    averaged_first: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lightning puts the average into the module when training ends, before or after the callback is told."""
    memory, average = Memory(), pl.callbacks.StochasticWeightAveraging(swa_lrs=0.5, swa_epoch_start=1)
    callback = recording(module="net", relations="h_vs_m", every=100, sink=memory)
    trained(*([average, callback] if averaged_first else [callback, average]), steps=-1, max_epochs=3)
    assert list(memory.series["probe/loss"]) == ([0] if averaged_first else [0, 12])
    assert ("the weights were replaced after step 12" in capsys.readouterr().out) is averaged_first


class Adversaries(Classifier):
    """Two optimizers that the module steps by itself; its forward is not the path of training."""

    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self.critic, self.automatic_optimization = nn.Linear(4, 1), False

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs).argmax(dim=1)

    def training_step(self, batch: Any, _index: int) -> None:
        losses = F.cross_entropy(self.net(batch[0]), batch[1]), self.critic(batch[0]).square().mean()
        for optimizer, loss in zip(self.optimizers(), losses, strict=True):
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), lr=0.05) for part in (self.net, self.critic)]


def test_with_two_optimizers_steps_are_those_of_lightning_and_training_is_bitwise_the_same(run: Store) -> None:
    options = {"module": "net", "studies": "alignment,directions,flow", "every": 1, "checkpoints": True}
    seen = trained(recording(**options), steps=8, make=Adversaries)
    alone = trained(steps=8, make=Adversaries)
    assert_same(dict(seen.state_dict()), dict(alone.state_dict()))
    assert list(series(run, only(run))["probe/loss"]) == tracking.epochs(only(run)) == [0, 2, 4, 6, 8]
    tensors, _ = tracking.get_tensors(only(run), tracking.stored_path(only(run), 8))
    assert_same(tensors, dict(seen.net.state_dict()))


@pytest.mark.usefixtures("run")
def test_a_module_whose_forward_has_no_loss_is_refused_until_a_part_is_named() -> None:
    with pytest.raises(Refusal, match="a probe on which the model or the loss fails"):
        trained(recording(every=1), make=Adversaries)


def test_a_training_that_fails_and_is_resumed_in_its_run_has_the_values_of_one_that_did_not(
    store: Store, tmp_path: Path
) -> None:
    """Cut at step 6 of 8 and resumed from the checkpoint of step 4: a step that is logged twice is an error."""
    options: dict[str, Any] = {"module": "net", "checkpoints": True, **EVERY}
    with mlflow.start_run() as whole:
        trained(recording(**options), steps=8, rate=0)
    callback = recording(**options)
    with pytest.raises(RuntimeError, match="a fault"), mlflow.start_run() as run:
        trained(callback, saved(tmp_path), Stopping(6), steps=8, rate=0)
    assert callback.training.watch is None
    with mlflow.start_run(run_id=run.info.run_id):
        trained(recording(**options), steps=8, rate=0, resume=str(tmp_path / "step=4.ckpt"))
    expected, found = (series(store, one.info.run_id) for one in (whole, run))
    assert list(found["0.0/agop_nfm_init_removed"]) == list(range(1, 9))
    assert found.keys() == expected.keys()
    for key, of_key in expected.items():
        assert found[key] == pytest.approx(of_key, abs=1e-6), key
    assert tracking.epochs(run.info.run_id) == list(range(9))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_values_are_those_of_nfa_watch_and_training_is_bitwise_the_same_in_either_precision(precision: str) -> None:
    memory, again = Memory(), Memory()
    options: dict[str, Any] = {"studies": "alignment,directions,flow", "relations": "agop_nfm,g_vs_h,h_vs_m"}
    seen = trained(recording(module="net", every=1, sink=memory, **options), steps=8, precision=precision)
    alone = trained(steps=8, precision=precision)
    assert_same(dict(seen.state_dict()), dict(alone.state_dict()))
    with nfa.watch(alone.net, cross_entropy, data(), step=8, sink=again, **options) as watch:
        expected = watch.record(8)
    assert {"0.0/agop_nfm", "gradient/mean_cosine", "flow/0.0/grad_rms"} <= expected.keys()
    assert {key: memory.series[key][8] for key in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.usefixtures("run")
def test_what_is_kept_is_found_by_run_id() -> None:
    model = trained(recording(module="net", checkpoints=True, schedule="0,3"))
    (source,) = find_sources("latest")
    tensors, _ = tracking.get_tensors(source.info.run_id, tracking.stored_path(source.info.run_id, 3))
    assert_same(tensors, dict(model.net.state_dict()))


def test_values_go_to_the_sink_that_is_given() -> None:
    memory = Memory()
    trained(recording(sink=memory, schedule="0,3"))
    assert list(memory.series["net.0.0/h_vs_m"]) == [0, 3]


def test_refusals_come_before_the_first_step() -> None:
    with pytest.raises(Refusal, match="checkpoints=True with sink=Memory"):
        trained(recording(sink=Memory(), checkpoints=True), Stopping(1))
    with pytest.raises(Refusal, match="module='nett'\n  allowed: a part of the module: net"):
        trained(recording(sink=Memory(), module="nett"), Stopping(1))
