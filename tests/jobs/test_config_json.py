"""What a training stores about itself, and what may differ when it is resumed."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from nfa.errors import Refusal
from nfa.registry.datasets import image_files, images
from nfa.registry.families.language.config import TrainLoraConfig
from nfa.registry.families.mlp.config import TrainConfig
from nfa.registry.families.mlp.session import stored_config
from nfa.registry.families.stored import identity
from nfa.registry.machine import check_memory
from nfa.registry.training.config_json import environment, training_config
from nfa.registry.training.resume import config_to_resume

CONFIG = TrainConfig(width=8, depth=2, epochs=4).resolved()
DATA = images.load("digits", image_files.locate("digits"))


def stored(**changes: Any) -> dict[str, Any]:
    return stored_config("train", dataclasses.asdict(dataclasses.replace(CONFIG, **changes)), DATA)


def test_what_mlflow_run_passes_for_a_bare_resume_changes_nothing() -> None:
    assert config_to_resume(TrainConfig(resume="abc"), stored(), "train") == dataclasses.replace(CONFIG, resume="abc")


def test_own_parameters_may_be_typed_again() -> None:
    assert config_to_resume(dataclasses.replace(CONFIG, resume="abc"), stored(), "train").width == 8


def test_another_value_is_refused_by_name_with_the_one_the_run_has() -> None:
    with pytest.raises(Refusal, match=r"seed=3 \(the run has 1717\), width=16 \(the run has 8\)"):
        config_to_resume(TrainConfig(width=16, seed=3, resume="abc"), stored(), "train")


def test_place_of_data_and_device_may_change_and_the_name_stays() -> None:
    asked = TrainConfig(data_dir="/elsewhere", device="cpu", run_name="again", resume="abc")
    taken = config_to_resume(asked, stored(data_dir="/here", device="auto", run_name="first"), "train")
    assert (taken.data_dir, taken.device, taken.run_name, taken.width) == ("/elsewhere", "cpu", "first", 8)


def test_another_environment_is_said_because_bitwise_equality_depends_on_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {**stored(), "environment": {**environment(), "threads": 64}}
    config_to_resume(TrainConfig(resume="abc"), before, "train")
    assert "but was 64, so the weights may not be bitwise the same" in capsys.readouterr().out
    config_to_resume(TrainConfig(resume="abc"), stored(), "train")
    assert capsys.readouterr().out == ""


def test_relative_data_dir_is_stored_from_where_the_command_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NFA_CALLER_DIR", str(tmp_path))
    assert stored(data_dir="data")["train"]["data_dir"] == str(tmp_path / "data")
    assert stored()["train"]["data_dir"] == ""


def test_identity_changes_with_what_decides_the_weights_and_with_nothing_else() -> None:
    assert identity(stored()) == identity(stored(device="cpu", run_name="x", data_dir="/x"))
    assert identity(stored()) != identity(stored(seed=1))
    assert identity(stored()) != identity(stored(lr=0.2))
    assert identity(stored()) != identity({**stored(), "data": {"digest": "another"}})


def test_stored_config_is_complete() -> None:
    content = stored()
    assert TrainConfig(**content["train"]) == CONFIG
    assert content["data"] == {
        "name": "digits",
        "digest": DATA.digest(),
        "published_train": 1437,
        "published_test": 360,
        "features": 64,
        "classes": 10,
    }


def test_network_beyond_memory_is_refused_and_the_reference_network_is_not() -> None:
    check_memory(10**6, "width=1024 depth=5", "a smaller width")
    with pytest.raises(Refusal, match=r"width=1000000 depth=2 .*GB"):
        check_memory(10**12, "width=1000000 depth=2", "a smaller width")


def test_names_of_data_and_models_are_no_places_but_files_and_folders_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a folder is called as a split of the hub is, or as a model that is known by name."""
    monkeypatch.setenv("NFA_CALLER_DIR", str(tmp_path))
    for folder in ("test", "tiny", "owner/model"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "questions.jsonl").touch()
    asked = {"data": "questions.jsonl", "val_data": "test", "base_model": "tiny"}
    stored_train = training_config("train_lora", "lora", TrainLoraConfig, asked, {})["train"]
    assert stored_train == {**asked, "data": str(tmp_path / "questions.jsonl")}
    asked = {"data": "owner/data", "val_data": "", "base_model": "owner/model"}
    assert training_config("train_lora", "lora", TrainLoraConfig, asked, {})["train"] == {
        **asked,
        "base_model": str(tmp_path / "owner/model"),
    }
