"""What `train` refuses to go on with, and where a disk has no room: exit 2, one message, nothing else done."""

import dataclasses
import resource
from dataclasses import dataclass
from pathlib import Path

import pytest

from nfa.registry.families.mlp.config import TrainConfig
from tests.support.processes import Ended, run, words
from tests.support.stores import Finished, Store
from tests.support.tiny_runs import TINY, tiny


@pytest.fixture
def own(finished: Finished, tmp_path: Path) -> Finished:
    return Finished(finished.store.copy(tmp_path / "store"), finished.run_id)


def assert_refused(ended: Ended, *parts: str) -> None:
    assert ended.code == 2, ended.output
    assert "Traceback" not in ended.output
    message = ended.output[ended.output.index("error: cannot use ") :]
    for part in ("allowed: ", "do: ", *parts):
        assert part in message


def unfinished(own: Finished) -> Finished:
    own.store.change("UPDATE tags SET value = 'killed' WHERE key = 'nfa.state'")
    own.store.change("UPDATE runs SET status = 'KILLED'")
    return own


OTHER = {
    "optimizer": "muon",
    "optimizer_args": "ns_steps=3",
    "lr_schedule": "step",
    "lr_step": 2,
    "lr_decay": 0.5,
    "warmup": 2,
    "clip_norm": 0.5,
    "lr": 0.5,
    "epochs": 5,
    "width": 16,
    "depth": 3,
    "activation": "tanh",
    "init": "small",
    "loss": "cross-entropy",
    "weighting": "ghm",
    "ghm_bins": 5,
    "ghm_momentum": 0.75,
    "ghm_alpha": 0.5,
    "label_noise": 0.1,
    "batch_size": 32,
    "weight_decay": 0.1,
    "momentum": 0.5,
    "companion_lr": 0.5,
    "seed": 1,
    "schedule": "0-3",
    "max_samples": 100,
    "precision": "bfloat16",
    "chance": False,
    "dataset": "svhn",
}


def test_every_parameter_that_decides_the_weights_or_series_is_tried() -> None:
    free = {item.name for item in dataclasses.fields(TrainConfig) if item.metadata["free_on_resume"]}
    others = {"seeds"}  # with which there is a parent; tests of it are elsewhere
    assert set(OTHER) | free | others == {item.name for item in dataclasses.fields(TrainConfig)}
    assert free == {"data_dir", "device", "resume", "run_name", "n_workers"}


def test_resume_with_changed_parameters_names_each_and_changes_nothing(own: Finished) -> None:
    unfinished(own)
    before = own.store.tags(own.run_id)
    ended = run(own.store, words(resume=own.run_id, **OTHER))
    resolved = TrainConfig(**TINY).resolved()  # type: ignore[arg-type]
    changes = [f"{name}={value} (the run has {getattr(resolved, name)})" for name, value in OTHER.items()]
    assert_refused(ended, *changes, "the run's own parameters", "start a new run without resume")
    assert own.store.tags(own.run_id) == before


def test_resume_with_the_run_s_own_parameters_typed_again_goes_on(own: Finished) -> None:
    unfinished(own)
    ended = run(own.store, tiny(resume=own.run_id[:9], lr=0.1, device="cpu", run_name="again"))
    assert ended.code == 0, ended.output
    assert own.store.tags(own.run_id)["nfa.state"] == "finished"
    assert own.store.runs() == [own.run_id]


@dataclass(frozen=True)
class FileLimit:
    """No file of this process grows beyond this: what a full disk looks like."""

    size: int

    def __call__(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))


def test_disk_too_full_for_a_new_store_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ended = run(store, tiny(), before=FileLimit(50_000))
    assert_refused(ended, str(store.database), "disk space")


def test_disk_too_full_for_the_store_s_rows_is_refused(own: Finished) -> None:
    ended = run(own.store, tiny(), before=FileLimit(200_000))
    assert_refused(ended, "tracking store", "disk space")
    assert own.store.runs() == [own.run_id]


def test_disk_too_full_for_the_checkpoints_is_refused_before_any_training(fresh: Store) -> None:
    roomy = fresh.database.stat().st_size + 500_000
    ended = run(fresh, tiny(width=1024), before=FileLimit(roomy))
    assert_refused(ended, "file size limit", "smaller network")
    for run_id in fresh.runs():
        assert fresh.tags(run_id)["nfa.state"] == "failed"
        assert fresh.metrics(run_id) == []
        assert not fresh.artifact(run_id).exists()
