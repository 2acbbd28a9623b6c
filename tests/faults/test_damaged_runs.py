"""Runs with a damaged file, as an entry point meets them: refused by name before anything is touched."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nfa import content
from nfa.errors import Refusal
from nfa.registry import stored_runs, tracking
from nfa.registry.families.eeg.config import TrainEEGConfig
from nfa.registry.families.language.teacher.config import LoraSvdConfig
from nfa.registry.families.language.teacher.lora_svd import lora_svd
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.registry import family_of
from nfa.registry.families.stored import config_digest
from nfa.registry.folders import cache_folder
from nfa.registry.stopwatch import Stopwatch
from nfa.registry.training.resume import taken_up
from nfa.registry.training.start import train
from tests.support import lora_runs
from tests.support.fault_injection import KILL, During
from tests.support.gradient_direction_runs import directed
from tests.support.processes import Ended, run, words
from tests.support.stores import Finished, Store, same_weights, used
from tests.support.tiny_runs import tiny

LAST = "checkpoints/epoch_0004.safetensors"


@pytest.fixture(scope="module")
def killed(empty_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A training that was killed after epoch 1, to be looked at."""
    store = empty_store.copy(tmp_path_factory.mktemp("killed") / "store")
    assert run(store, tiny(), before=During("nfa.registry.tracking", "save_checkpoint", KILL, 3)).code == -9
    return Finished(store, store.runs()[0])


@pytest.fixture
def begun(killed: Finished, tmp_path: Path) -> Finished:
    """A copy of it that may be changed."""
    return Finished(killed.store.copy(tmp_path / "begun"), killed.run_id)


def flip(file: Path, place: int) -> None:
    """One bit of a file, `place` counted from its end where it is negative."""
    raw = bytearray(file.read_bytes())
    raw[place] ^= 1
    file.write_bytes(raw)


def edited(store: Store, run_id: str, **train: Any) -> None:
    """What an editor does to config.json."""
    file = store.artifact(run_id, "config.json")
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({**stored, "train": {**stored["train"], **train}}))


def contents(store: Store, run_id: str) -> dict[str, bytes]:
    folder = store.artifact(run_id)
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_refused(ended: Ended, *said: str) -> None:
    assert ended.code == 2, ended.output
    assert "Traceback" not in ended.output
    assert "error: cannot use " in ended.output
    assert "  do: " in ended.output
    for words_of_it in said:
        assert words_of_it in ended.output


def assert_not_resumed(begun: Finished, *said: str) -> None:
    """Refused, and the run is to the byte what it was."""
    before = contents(begun.store, begun.run_id), begun.store.tags(begun.run_id), begun.store.metrics(begun.run_id)
    assert_refused(run(begun.store, words(resume=begun.run_id)), *said)
    assert before == (
        contents(begun.store, begun.run_id), begun.store.tags(begun.run_id), begun.store.metrics(begun.run_id)
    )  # fmt: skip


# ---- what an analysis reads


def test_one_bit_of_a_checkpoint_ends_an_analysis_before_there_is_a_run(changeable: Finished) -> None:
    flip(changeable.store.artifact(changeable.run_id, LAST), -40)
    ended = run(changeable.store, words(run_id=changeable.run_id, epochs=4), entrypoint="analyze")
    assert_refused(ended, f"{LAST} of run {changeable.run_id[:12]} (damaged: its content does not match its digest)")
    assert changeable.store.runs() == [changeable.run_id]


@pytest.mark.parametrize("name", ["example_ids.json", "config.json"])
def test_a_missing_file_ends_an_analysis_by_its_name(name: str, changeable: Finished) -> None:
    changeable.store.artifact(changeable.run_id, name).unlink()
    with pytest.raises(Refusal, match=rf"{name} of run {changeable.run_id[:12]} \(No such file"):
        stored_runs.load_checkpoint(changeable.run_id, 4)


def test_a_checkpoint_of_another_configuration_is_refused_with_both_names(changeable: Finished) -> None:
    stored = changeable.store.json(changeable.run_id, "config.json")
    other = {**stored, "train": {**stored["train"], "lr": 0.2}}
    changeable.store.write_json(changeable.run_id, "config.json", other)
    with pytest.raises(Refusal, match=rf"config.json of run {changeable.run_id[:12]} together with {LAST}"):
        stored_runs.weights(changeable.run_id, 4)


def test_an_earlier_analysis_with_a_damaged_array_is_not_copied(changeable: Finished) -> None:
    store, asked = changeable.store, {"run_id": changeable.run_id, "epochs": "4", "n": 20, "device": "cpu"}
    earlier = directed(store, **asked)
    flip(store.artifact(earlier, "arrays/gradient_norms_epoch_4.npy"), -100)
    with pytest.raises(Refusal, match=f"arrays/gradient_norms_epoch_4.npy of run {earlier[:12]}"):
        directed(store, **asked)
    assert sorted(store.runs()) == sorted([changeable.run_id, earlier])


def test_one_bit_of_an_adapter_s_beginning_ends_what_is_made_of_it(store: Store) -> None:
    source = lora_runs.adapter_run(residual=True)
    flip(store.artifact(source.run_id, "initial_adapter.safetensors"), -1)
    with pytest.raises(Refusal, match=f"initial_adapter.safetensors of run {source.run_id[:12]}"):
        lora_svd(LoraSvdConfig(run_id=source.run_id, rank=2))
    assert store.runs() == [source.run_id]


# ---- what a training goes on from


def test_one_bit_of_the_training_state_ends_a_resume_and_leaves_the_run_as_it_was(begun: Finished) -> None:
    file = begun.store.artifact(begun.run_id, "state/latest.pt")
    raw = file.read_bytes()
    weight = content.read_state(file).content["model"]["layers.0.weight"]
    flip(file, raw.index(weight.numpy().tobytes()) + 3)
    assert_not_resumed(begun, f"state/latest.pt of run {begun.run_id[:12]} (damaged")


def test_an_edited_parameter_ends_a_resume(begun: Finished) -> None:
    edited(begun.store, begun.run_id, lr=0.05)
    assert_not_resumed(begun, f"config.json of run {begun.run_id[:12]} (damaged")


def test_another_parameter_than_that_of_the_checkpoints_ends_a_resume(
    begun: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = begun.store.json(begun.run_id, "config.json")
    begun.store.write_json(begun.run_id, "config.json", {**stored, "train": {**stored["train"], "lr": 0.05}})
    said = f"config.json of run {begun.run_id[:12]} together with checkpoints/epoch_000"
    with used(begun.store, monkeypatch), pytest.raises(Refusal, match=said):
        taken_up(TrainConfig(resume=begun.run_id), "train")


@pytest.mark.parametrize("name", ["config.json", "example_ids.json", "checkpoints/epoch_0000.safetensors"])
def test_a_file_that_is_cut_off_ends_a_resume(name: str, begun: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    file = begun.store.artifact(begun.run_id, name)
    file.write_bytes(file.read_bytes()[:-2])
    with used(begun.store, monkeypatch), pytest.raises(Refusal, match=f"{name} of run {begun.run_id[:12]}"):
        taken_up(TrainConfig(resume=begun.run_id), "train")


def test_other_data_than_those_it_began_with_end_a_resume(begun: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nfa.registry.datasets.images.ImageData.digest", lambda _: "0" * 64)
    with used(begun.store, monkeypatch), pytest.raises(Refusal, match="digits with digest 000000000000"):
        train(TrainConfig(resume=begun.run_id), Stopwatch())


def test_other_recordings_than_those_it_began_with_end_a_resume(
    decoded: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NFA_CACHE", str(decoded.store.folder.parent / "cache"))
    monkeypatch.setattr("nfa.registry.families.eeg.data.EEGData.digest", lambda _: "0" * 64)
    stored = decoded.store.json(decoded.run_id, "config.json")["train"]
    run: Any = SimpleNamespace(run_id=decoded.run_id)
    config = TrainEEGConfig(**stored)
    data = family_of(config).training.read(config, Stopwatch())
    with used(decoded.store, monkeypatch), pytest.raises(Refusal, match="simulated with digest 000000000000"):
        family_of(config).training.prepare(config, data, run)


def test_a_damaged_state_that_no_server_has_taken_ends_a_resume(
    begun: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NFA_CACHE", str(tmp_path / "cache"))
    file = cache_folder("unsent") / begun.run_id / "latest.pt"
    file.parent.mkdir(parents=True)
    content.write_state(file, {"claim": 1})
    with used(begun.store, monkeypatch):
        stored_runs.check_whole(begun.run_id)
        torch.save({"claim": 1}, file)
        with pytest.raises(Refusal, match=rf"{file} \(damaged: its digest is missing"):
            stored_runs.check_whole(begun.run_id)


def test_a_checkpoint_of_a_configuration_that_is_stored_without_its_password_is_read(store: Store) -> None:
    stored = {"workload": "mlp", "train": {}, "data": {"digest": "0" * 64, "name": "ftp://me:secret@host/images"}}
    with tracking.open_run("train", "mlp") as run:
        tracking.put_json(run.info, "config.json", stored)
        tracking.save_checkpoint(run, torch.nn.Linear(2, 2), epoch=0, step=0, config_digest=config_digest(stored))
    assert store.json(run.run_id, "config.json")["data"]["name"] == "ftp://me:***@host/images"
    assert stored_runs.weights(run.run_id, 0).keys() == {"weight", "bias"}


# ---- runs of version 0.6, whose files have no digests


@pytest.fixture
def old(begun: Finished) -> Finished:
    """The killed run as version 0.6 would have left it."""
    unseal(begun)
    begun.store.change("UPDATE tags SET value = '0.6.0' WHERE key = 'nfa.version'")
    return begun


def unseal(run: Finished) -> None:
    from safetensors.torch import save_file

    for path in ("config.json", "example_ids.json"):
        run.store.artifact(run.run_id, path).write_text(json.dumps(run.store.json(run.run_id, path)))
    for file in run.store.artifact(run.run_id, "checkpoints").iterdir():
        tensors, metadata = content.read_tensors(file).content
        copy = file.with_suffix(".copy")
        save_file(tensors, copy, metadata)
        shutil.move(copy, file)
    state = run.store.artifact(run.run_id, "state/latest.pt")
    torch.save(content.read_state(state).content, state)


def test_a_run_of_version_0_6_is_analysed_and_goes_on_with_a_line_that_says_so(
    old: Finished, finished: Finished
) -> None:
    ended = run(old.store, words(resume=old.run_id))
    assert ended.code == 0, ended.output
    assert ended.output.count("0.6.0: its files have no digests") == 1
    assert same_weights(old.store.checkpoints(old.run_id), finished.store.checkpoints(finished.run_id))
    looked = run(old.store, words(run_id=old.run_id), entrypoint="analyze")
    assert looked.code == 0, looked.output
    assert looked.output.count("its files have no digests") == 1


def test_a_file_without_its_digest_is_refused_in_a_run_that_has_digests(
    begun: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseal(begun)
    said = rf"config.json of run {begun.run_id[:12]} \(damaged: its digest is missing\)"
    with used(begun.store, monkeypatch), pytest.raises(Refusal, match=said):
        taken_up(TrainConfig(resume=begun.run_id), "train")


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        ("config.json", lambda stored: {**stored, "train": {**stored["train"], "hue": 3}}, "hue is not a parameter"),
        ("config.json", lambda stored: {**stored, "train": {**stored["train"], "width": "8"}}, "width is '8'"),
        ("config.json", lambda stored: {**stored, "train": {**stored["train"], "width": 0}}, "width=0"),
        ("config.json", lambda stored: {**stored, "train": [1]}, "'list' object"),
        ("config.json", lambda stored: {**stored, "data": {}}, "'digest' is missing"),
        ("config.json", lambda stored: {"train": stored["train"]}, "'workload' is missing"),
        ("config.json", lambda _: [1], "list indices"),
        ("example_ids.json", lambda ids: {**ids, "val": [0.5]}, "val is not a list of examples"),
        ("example_ids.json", lambda ids: {**ids, "val": [9999]}, "val has example 9999, but there are 1437"),
        ("example_ids.json", lambda ids: {"train": ids["train"]}, "is missing"),
    ],
)  # fmt: skip
def test_what_no_digest_protects_is_refused_where_it_makes_no_sense(
    path: str, change: Any, said: str, old: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = old.store.artifact(old.run_id, path)
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with used(old.store, monkeypatch), pytest.raises(Refusal, match=rf"{path} of run {old.run_id[:12]} \([^)]*{said}"):
        stored_runs.load_workload(old.run_id)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"layers.0.weight": torch.ones(9, 64)}, "size mismatch for layers.0.weight"),
        ({"layers.0.weight": torch.ones(8, 64, dtype=torch.float16)}, "layers.0.weight is torch.float16"),
        ({"layers.9.weight": torch.ones(8, 8)}, r"unexpected \['layers.9.weight'\]"),
    ],
)
def test_weights_of_another_network_are_refused(
    changed: dict[str, torch.Tensor], said: str, changeable: Finished
) -> None:
    changeable.store.change_tensors(changeable.run_id, LAST, lambda weights: weights.update(changed))
    with pytest.raises(Refusal, match=f"{LAST} of run {changeable.run_id[:12]} .*{said}"):
        stored_runs.load_checkpoint(changeable.run_id, 4)
