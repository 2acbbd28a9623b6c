"""How an import ends that fails or is stopped, and that nothing trains it on."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from nfa.errors import NfaError, Refusal
from nfa.registry import cli, tracking
from tests.support.fault_injection import KILL, TERM, During
from tests.support.old_checkpoints import NAME, given, net, old_folder, save
from tests.support.processes import run, words
from tests.support.stores import Store, wrapper_in

start = cli.starter("import_checkpoints")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return old_folder(tmp_path_factory.mktemp("old"))


@dataclass(frozen=True)
class Break:
    """What a full disk does."""

    def __call__(self) -> None:
        raise OSError("disk is full")


def test_bad_file_can_be_left_out(store: Store, tmp_path: Path) -> None:
    for epoch in (0, 1, 2):
        save(tmp_path / f"model_epoch_{epoch}.pth", net(epoch))
    (tmp_path / "model_epoch_1.pth").write_bytes(b"")
    start(given(tmp_path, epochs="0,2"))
    assert [tracking.epochs(run_id) for run_id in store.runs()] == [[0, 2]]


def test_full_disk_is_refused(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "old/model_epoch_0.pth", net(0))
    monkeypatch.setattr("nfa.registry.families.mlp.import_checkpoints.SPACE_MARGIN", 2**60)
    with pytest.raises(Refusal, match="MB free"):
        start(given(tmp_path / "old"))
    (run_id,) = store.runs()
    assert store.tags(run_id)["nfa.state"] == "failed"
    assert not store.artifact(run_id).exists()


def test_loss_beyond_numbers_fails_and_names_the_epoch(store: Store, tmp_path: Path) -> None:
    for epoch in (0, 1):
        save(tmp_path / f"model_epoch_{epoch}.pth", net(epoch))
    huge = {"first.0.weight": torch.full((8, 64), 3e38), "last.1.weight": torch.full((10, 8), 3e38)}
    save(tmp_path / "model_epoch_1.pth", net(1), **huge)
    with pytest.raises(NfaError, match=r"train/loss of model_epoch_1.pth .* leave epoch 1 out with epochs"):
        start(given(tmp_path))
    (run_id,) = store.runs()
    assert store.tags(run_id)["nfa.state"] == "failed"
    assert tracking.epochs(run_id) == [0]
    assert {step for _, step, _ in store.metrics(run_id)} == {0}


def test_store_that_fails_in_the_midst_fails_the_run_without_a_traceback(fresh: Store, old: Path) -> None:
    second = During("nfa.content", "write_tensors", Break(), 2)
    ended = run(fresh, words(folder=old), entrypoint=NAME, before=second)
    assert ended.code == 1
    assert "error: the tracking store failed: disk is full\n  do: fix it" in ended.output
    assert "Traceback" not in ended.output
    (run_id,) = fresh.runs()
    assert fresh.tags(run_id)["nfa.state"] == "failed"


def test_refused_import_ends_the_run_that_mlflow_made_as_failed(fresh: Store, old: Path) -> None:
    wrapper = wrapper_in(fresh)
    ended = run(fresh, words(folder=old, width=9), entrypoint=NAME, MLFLOW_RUN_ID=wrapper, MLFLOW_EXPERIMENT_ID="0")
    assert ended.code == 2, ended.output
    assert "Traceback" not in ended.output
    assert fresh.runs() == [wrapper]
    assert fresh.status(wrapper) == "FAILED"
    assert "beside width=9 (parameter width)" in fresh.tags(wrapper)["nfa.error"]


def test_signal_in_the_midst_of_an_import_ends_it_killed(fresh: Store, old: Path) -> None:
    second = During("nfa.registry.tracking", "save_checkpoint", TERM, 2)
    ended = run(fresh, words(folder=old), entrypoint=NAME, before=second)
    assert ended.code == 143, ended.output
    assert "Traceback" not in ended.output
    (run_id,) = fresh.runs()
    assert fresh.status(run_id) == "KILLED"
    assert fresh.tags(run_id)["nfa.state"] == "killed"
    assert list(fresh.checkpoints(run_id)) == ["epoch_0000.safetensors", "epoch_0001.safetensors"]
    assert_not_resumed(fresh, run_id, f"resume={run_id} (made by {NAME})", f"start {NAME} again")
    assert fresh.tags(run_id)["nfa.state"] == "killed"


def test_import_that_died_is_swept_by_the_next_one_and_neither_is_trained_on(fresh: Store, old: Path) -> None:
    assert (
        run(fresh, words(folder=old), entrypoint=NAME, before=During("nfa.registry.tracking", "put_json", KILL)).code
        == -9
    )
    assert run(fresh, words(folder=old, epochs=20), entrypoint=NAME).code == 0
    first, second = fresh.runs()
    assert (fresh.status(first), fresh.status(second)) == ("KILLED", "FINISHED")
    assert_not_resumed(fresh, first, "ended before its config.json was written", "start a new run")
    assert_not_resumed(fresh, second, "(finished)", "start a new run")


def assert_not_resumed(store: Store, run_id: str, *parts: str) -> None:
    ended = run(store, words(resume=run_id))
    assert ended.code == 2, ended.output
    assert "Traceback" not in ended.output
    for part in parts:
        assert part in ended.output
