"""The byte-level base model: it learns, it is the same every time, and its tokenizer gives any text back."""

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, ByT5Tokenizer

from nfa.registry.families.language.base import tiny
from nfa.registry.families.language.base.models import BaseModel, find_base, load_model, load_tokenizer, weight_of
from tests.support.llamas import SETTINGS

SHORT = replace(SETTINGS, steps=5, length=16)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseModel]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NFA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield find_base("tiny")


def ids() -> torch.Tensor:
    return tiny.paragraphs(tiny.TEXT.read_bytes())[0]


def test_it_has_learned_english(base: BaseModel) -> None:
    model, (_, held_out) = load_model(base), tiny.paragraphs(tiny.TEXT.read_bytes())
    assert tiny.held_out_loss(model, held_out, 128) <= 2.2
    assert tiny.held_out_loss(tiny.untrained(tiny.TinySettings()), held_out, 128) > 5


def test_it_says_how_many_parameters_it_has(base: BaseModel) -> None:
    assert base.parameters == 115_200 == sum(weight.numel() for weight in load_model(base).parameters())


def test_it_knows_that_a_paragraph_ends(base: BaseModel) -> None:
    prompt = torch.tensor([load_tokenizer(base.folder)("Return the number of items in the list.")["input_ids"]])
    after = load_model(base)(prompt).logits[0].log_softmax(-1)[:, tiny.EOS]
    assert after[-1] > after[:-1].max()


def test_fine_tuning_on_answers_lowers_the_held_out_loss(base: BaseModel) -> None:
    model, tokenizer = load_model(base), load_tokenizer(base.folder)
    texts = [f"def item_{place}(): Give item number {place}.</s>" for place in range(100)]
    tokens = [torch.tensor([tokenizer(text)["input_ids"]]) for text in texts]

    def loss(part: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([model(item, labels=item).loss for item in part]).mean()

    before = float(loss(tokens[90:]).detach())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(10):
        optimizer.zero_grad()
        loss(tokens[8 * step : 8 * step + 8]).backward()
        optimizer.step()
    assert float(loss(tokens[90:]).detach()) < before - 0.3


def test_it_is_trained_once(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NFA_CACHE", str(base.folder.parent.parent))
    monkeypatch.setattr(tiny, "trained", None)
    assert find_base("tiny") == base


def test_another_text_or_setting_is_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NFA_CACHE", str(tmp_path))
    first = tiny.folder(SHORT)
    monkeypatch.setattr(tiny, "TEXT", tmp_path / "text.txt")
    tiny.TEXT.write_bytes(b"One paragraph.\n\nAnother one, which is trained on.\n\n" * 30)
    assert len({first, tiny.folder(SHORT), tiny.folder(replace(SHORT, seed=1))}) == 3


def test_interrupted_training_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NFA_CACHE", str(tmp_path))
    monkeypatch.setattr(tiny, "tokenizer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny.folder(SHORT)
    assert not (tmp_path / "base-models").exists()


def interrupted() -> None:
    raise KeyboardInterrupt


def test_training_is_the_same_whatever_the_threads_and_generators() -> None:
    first = tiny.trained(ids(), SHORT).state_dict()
    torch.manual_seed(5)
    torch.set_num_threads(2)
    try:
        second = tiny.trained(ids(), SHORT).state_dict()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_and_loading_move_no_global_generator(base: BaseModel) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    tiny.trained(ids(), SHORT)
    load_model(base), load_tokenizer(base.folder), weight_of(base, "model.norm.weight")
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())


def test_held_out_paragraphs_are_not_trained_on() -> None:
    text = b"\n\n".join(f"paragraph {place}".encode() for place in range(41))
    train, held_out = (tiny.tokenizer().decode(part) for part in tiny.paragraphs(text))
    assert held_out == "paragraph 0</s>paragraph 20</s>paragraph 40</s>"
    assert train.count("</s>") == 38


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_and_is_its_bytes(text: str) -> None:
    found = tiny.tokenizer()(text)["input_ids"] if not any(name in text for name in tiny.SPECIAL) else None
    assert found is None or found == [3 + byte for byte in text.encode()]
    assert found is None or tiny.tokenizer().decode(found) == text


def test_the_loaded_tokenizer_has_byt5s_ids_and_no_chat_template(base: BaseModel) -> None:
    found, byt5 = AutoTokenizer.from_pretrained(base.folder), ByT5Tokenizer(extra_ids=0)
    text = "def f(a):\n\treturn a · 日本 🙂"
    assert found(text)["input_ids"] == byt5(text, add_special_tokens=False)["input_ids"]
    assert (found.eos_token_id, found.pad_token_id, len(found)) == (byt5.eos_token_id, byt5.pad_token_id, len(byt5))
    assert found.chat_template is None


def test_two_thousand_short_texts_take_less_than_a_second(base: BaseModel) -> None:
    tokenizer, started = load_tokenizer(base.folder), time.process_time()
    for place in range(2000):
        tokenizer(f"json.loads(text, number={place}): Decode a document into an object of Python.")
    assert time.process_time() - started < 1
