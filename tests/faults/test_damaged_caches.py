"""What is remembered, so as not to be found out twice: damaged, it is found out again or refused, never believed."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nfa.errors import Refusal
from nfa.registry.families.eeg import linear_baseline as decoder
from nfa.registry.families.eeg.linear_baseline import Baseline
from nfa.registry.families.eeg.recording_files import examined
from nfa.registry.families.language.base import files
from tests.support.fuzzing import BOTH, of_bytes, of_values, outcomes

FACTS = {"weights": "ab" * 32, "parameters": 115_200}
SCORES = {"one_-_story": 0.25, "two_-_story": 0.125}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NFA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def bytes_and_entries(file: Path, count: int) -> Iterator[bytes]:
    """Mutations of a JSON file's bytes and, with the digest as it was, of its entries."""
    raw, draw = file.read_bytes(), random.Random(20)
    for number in range(count):
        yield json.dumps(of_values(json.loads(raw), draw)).encode() if number % 2 else of_bytes(raw, draw)


def believed(file: Path, made: Iterator[bytes], ask: Callable[[], Any]) -> Counter[str]:
    """Every answer is the one that the whole file gave, which was left as it was."""
    raw = file.read_bytes()
    expected = ask()
    assert file.read_bytes() == raw
    return outcomes(file, made, lambda _: ask(), lambda _, got: got == expected)


@pytest.mark.parametrize("count", BOTH)
def test_facts_of_a_base_model_are_found_again(count: int, cache: Path) -> None:
    asked: list[int] = []

    def ask() -> dict[str, Any]:
        return files.facts_of("facts", [Path(__file__)], lambda: asked.append(1) or FACTS)

    assert ask() == ask() == FACTS
    assert len(asked) == 1
    (note,) = (cache / "base-models" / "known").iterdir()
    assert believed(note, bytes_and_entries(note, count), ask) == {"read": count}
    assert len(asked) > count * 3 / 4


@pytest.mark.parametrize("count", BOTH)
def test_scores_of_the_linear_decoder_are_computed_again(
    count: int, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    data: Any = SimpleNamespace(digest=lambda: "ab" * 32, split="time", unseen="first_minute")
    found = Baseline({"val": SCORES, "test": SCORES}, {"one": 1.0}, 0)
    monkeypatch.setattr(decoder, "linear_baseline", lambda *_, **__: asked.append(1) or found)
    assert decoder.baseline(data, 64) == decoder.baseline(data, 64)
    assert len(asked) == 1
    (file,) = (cache / "eeg").iterdir()
    assert believed(file, bytes_and_entries(file, count), lambda: decoder.baseline(data, 64)) == {"read": count}
    assert len(asked) > count * 3 / 4


@pytest.mark.parametrize("count", BOTH)
def test_facts_of_recordings_are_found_again(count: int, tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "recorded.npy"
    np.save(file, np.random.default_rng(0).normal(size=(30, 2)))
    examined(tmp_path, [file])
    (record,) = (cache / "eeg").iterdir()
    raw, draw = record.read_bytes(), random.Random(20)
    made = (of_bytes(raw, draw) for _ in range(count))
    assert believed(record, made, lambda: examined(tmp_path, [file])) == {"read": count}


@pytest.mark.parametrize("count", BOTH)
@pytest.mark.parametrize("name", ["config.json", files.MADE])
def test_a_folder_that_was_made_here_is_refused_where_a_file_of_it_is_another(
    name: str, count: int, tmp_path: Path
) -> None:
    folder = made(tmp_path)
    raw, draw = (folder / name).read_bytes(), random.Random(20)
    changed = (of_bytes(raw, draw) for _ in range(count))
    found = outcomes(folder / name, changed, lambda _: made(tmp_path), lambda content, _: same(content, raw))
    assert found["refused"] > count * 3 / 4


def test_a_folder_that_was_made_here_is_refused_where_a_file_of_it_is_missing(tmp_path: Path) -> None:
    folder = made(tmp_path)
    (folder / "config.json").unlink()
    with pytest.raises(Refusal, match=rf"config.json \(No such file(.|\n)*do: delete {folder}; it will be made again"):
        made(tmp_path)


def made(folder: Path) -> Path:
    return files.made_once(folder / "model", lambda inner: [(inner / "config.json").write_text('{"a": 1}')])


def same(content: bytes, raw: bytes) -> bool:
    try:
        return bool(json.loads(content) == json.loads(raw))
    except ValueError:
        return False
