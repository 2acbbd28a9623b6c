"""What `train_lora` refuses where memory, the disk or the network do not suffice."""

import os
import shutil
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nfa.registry.families.language import family
from tests.support.fine_tunings import Place, used_place
from tests.support.refusals import Refused
from tests.support.stores import Store


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with used_place(Place.made(tmp_path_factory.mktemp("refused"))) as made:
        yield made


@pytest.fixture
def refused(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What is said to the tiny fine-tuning with some parameters; no run was made by it."""
    ending = Refused("train_lora", monkeypatch, capsys)

    def ended(**changed: Any) -> str:
        before = store.runs()
        said = ending(place.words(**changed))
        assert store.runs() == before
        return said

    return ended


def test_what_does_not_fit_into_memory_is_refused(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 1 if name == "SC_PHYS_PAGES" else 4096)
    assert "rank=4 for 14 modules of base_model=" in refused()
    monkeypatch.setattr(family, "check_memory", lambda *_, **__: None)
    said = refused()
    assert "batch_size=2 in float32 (about " in said
    assert "a smaller batch_size" in said
    assert "or base_precision=bfloat16" in said
    assert "bfloat16" not in refused(init="pissa")


def test_what_does_not_fit_onto_the_disk_is_refused_and_the_run_says_so(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 2**20))
    said = Refused("train_lora", monkeypatch, capsys)(place.words())
    assert "1 MB free" in said
    (run_id,) = store.runs()
    assert store.tags(run_id)["nfa.state"] == "failed"
    assert store.checkpoints(run_id) == {}


def test_a_hub_id_without_a_network_is_refused_within_seconds(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    said = refused(base_model="someone/something")
    assert "base_model='someone/something' (not a local folder, and not downloadable from the hub" in said
    assert "check the id and the network" in said
    assert time.monotonic() - started < 20
