"""What an import refuses before there is a run, how it ends when it is stopped, and that nothing trains it on."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nfa.errors import NfaError, Refusal
from nfa.registry import cli, tracking
from tests.support.fault_injection import KILL, TERM, During
from tests.support.old_checkpoints import NAME, OldNet, given, net, old_folder, save
from tests.support.processes import HEAVY, imported, process, run, words
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


@dataclass
class Pickled:
    """Something that only pickle can bring back."""

    learning_rate: float = 0.1


def without(key: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in net(1).state_dict().items() if name != key}


BROKEN = r"model_epoch_1.pth \(truncated, damaged, or not written by torch.save\)"
DAMAGED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pickled object": (
        lambda file: torch.save({"state_dict": net(1).state_dict(), "options": Pickled()}, file),
        r"model_epoch_1.pth \(it needs pickle for \S*Pickled, and unpickling can run arbitrary code\)",
    ),
    "pickled module": (lambda file: torch.save(net(1), file), r"it needs pickle for \S*OldNet"),
    "truncated": (lambda file: file.write_bytes(file.read_bytes()[:-500]), BROKEN),
    "empty": (lambda file: file.write_bytes(b""), BROKEN),
    "a page": (lambda file: file.write_text("<html>not found</html>"), BROKEN),
    "a tensor": (lambda file: torch.save(torch.ones(3), file), r"\(Tensor inside\)\n  allowed: {'state_dict'"),
    "numbers": (lambda file: torch.save({"state_dict": {"first.weight": 3}}, file), r"epoch_1.pth \(dict inside\)"),
    "no middle": (lambda file: torch.save(without("middle.0.1.weight"), file), "epoch_1.pth without middle.0.1.weight"),
    "no readout": (lambda file: torch.save(without("last.1.weight"), file), "epoch_1.pth without last.1.weight"),
    "a bias": (lambda file: save(file, net(1), **{"last.1.bias": torch.ones(10)}), r"key last.1.bias \(unknown\)"),
    "shapes": (lambda file: save(file, net(1), **{"last.1.weight": torch.ones(10, 9)}), r"epoch_1.pth: shapes .* 9\]"),
    "not finite": (
        lambda file: save(file, net(1), **{"middle.0.1.weight": torch.full((8, 8), math.nan)}),
        r"model_epoch_1.pth: middle.0.1.weight \(not all values are finite\)",
    ),
    "sparse": (
        lambda file: save(file, net(1), **{"middle.0.1.weight": torch.eye(8).to_sparse()}),
        r"model_epoch_1.pth: middle.0.1.weight \(torch.sparse_coo, torch.float32",
    ),
    "meta": (
        lambda file: save(file, net(1), **{"middle.0.1.weight": torch.empty(8, 8, device="meta")}),
        r"model_epoch_1.pth: middle.0.1.weight \(without values, torch.float32",
    ),
    "another width": (
        lambda file: save(file, OldNet(3, F.relu, width=9)),
        r"model_epoch_1.pth: width 9 in its tensors\n  allowed: width=8",
    ),
    "another depth": (
        lambda file: save(file, net(1, depth=2)),
        r"model_epoch_1.pth: depth 2 in its tensors\n  allowed: depth=3",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_bad_file_among_good_ones_is_refused_before_there_is_a_run(case: str, store: Store, tmp_path: Path) -> None:
    for epoch in (0, 1, 2):
        save(tmp_path / f"model_epoch_{epoch}.pth", net(epoch))
    damage, message = DAMAGED[case]
    damage(tmp_path / "model_epoch_1.pth")
    with pytest.raises(Refusal, match=message):
        start(given(tmp_path))
    assert store.runs() == []


def test_bad_file_can_be_left_out(store: Store, tmp_path: Path) -> None:
    for epoch in (0, 1, 2):
        save(tmp_path / f"model_epoch_{epoch}.pth", net(epoch))
    (tmp_path / "model_epoch_1.pth").write_bytes(b"")
    start(given(tmp_path, epochs="0,2"))
    assert [tracking.epochs(run_id) for run_id in store.runs()] == [[0, 2]]


REFUSED = {
    "no folder": ({"folder": "nowhere"}, r"folder=\S*nowhere \(No such file or directory\)"),
    "a file": ({"folder": "one/model_epoch_0.pth"}, r"\(Not a directory\)"),
    "no files": ({"folder": "."}, r"folder=. \(no checkpoint file in it\)"),
    "no dataset": ({"dataset": ""}, r"model_epoch_0.pth, whose name does not state dataset"),
    "no activation": ({"activation": ""}, r"whose name does not state activation(.|\n)*give activation=…"),
    "unknown epoch": ({"epochs": "0-2"}, r"epochs=0-2 \(no file for 1, 2\)\n  allowed: epochs with a file: 0\n"),
    "epochs of words": ({"epochs": "last"}, r"'last'"),
    "empty folder": ({"folder": ""}, r"folder=''\n(.|\n)*give folder=FOLDER"),
    "unknown activation": ({"activation": "rely"}, r"activation='rely'(.|\n)*do: activation=relu"),
    "width": ({"width": 16}, r"model_epoch_0.pth: width 8 in its tensors\n  allowed: width=16"),
    "depth": ({"depth": 2}, r"model_epoch_0.pth: depth 3 in its tensors\n  allowed: depth=2"),
    "device": ({"device": "gpu"}, r"device='gpu'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_parameter_is_refused_before_there_is_a_run(case: str, store: Store) -> None:
    changed, message = REFUSED[case]
    save(Path("one/model_epoch_0.pth"), net(0))
    with pytest.raises(Refusal, match=message):
        start(given(Path("one"), **changed))
    assert store.runs() == []


def test_network_of_another_dataset_is_refused_with_both_sizes(store: Store, tmp_path: Path) -> None:
    save(tmp_path / "model_epoch_0.pth", OldNet(2, F.relu, inputs=3072))
    with pytest.raises(Refusal, match=r"a network of 3072 inputs and 10 outputs\) with dataset=digits\n  allowed: 64"):
        start(given(tmp_path))
    assert store.runs() == []


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


@pytest.mark.parametrize("folder", ["nowhere", "unnamed"])
def test_refusal_in_a_real_process_is_exit_code_2_and_imports_nothing_heavy(folder: str, tmp_path: Path) -> None:
    save(tmp_path / "unnamed/model_epoch_0.pth", net(0))
    ended = process(["--folder", folder], tmp_path, "-X", "importtime", entrypoint=NAME)
    assert ended.returncode == 2, ended.stderr
    assert "error: cannot use " in ended.stderr
    assert not {name.split(".")[0] for name in imported(ended.stderr)} & set(HEAVY)
    assert [path.name for path in tmp_path.iterdir()] == ["unnamed"]


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
