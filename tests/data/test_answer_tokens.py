"""Questions with answers as tokens: the template or plain text, one end of sequence, and batches padded by length."""

import time

import pytest
import torch

from nfa.errors import Refusal
from nfa.registry.families.language.answer_tokens import Encoded, answers_first, collate, encode
from nfa.registry.families.language.questions import Pair, load
from tests.support.tokenizers import DATED, NO_SYSTEM, TEMPLATE, by_bytes, fast

SHORT = Pair((("user", "Why?"),), "So.")
LONG = Pair((("system", "Be brief"), ("user", "Hi"), ("assistant", "Hello"), ("user", "And how?")), "Like\nthis.")
PAIRS = [SHORT, LONG, SHORT]
MAKERS = {
    "bytes": by_bytes,
    "fast": fast,
    "fast without bos": lambda template=None: fast(template, bos=False),
    "fast with its own pad": lambda template=None: fast(template, pad_is_eos=False),
}


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


def letters(tokenizer, ids: torch.Tensor) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)).replace(" ", "")


def test_with_a_template_the_prompt_is_the_template_s(make):
    tokenizer = make(TEMPLATE)
    encoded = encode(PAIRS, tokenizer, 1000)
    for pair, ids, start in zip(PAIRS, encoded.ids, encoded.starts, strict=True):
        messages = [{"role": role, "content": content} for role, content in pair.prompt]
        own = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)["input_ids"]
        assert ids[:start].tolist() == own
        bare = tokenizer(pair.answer, add_special_tokens=False)["input_ids"]
        assert ids[start:].tolist() == [*bare, tokenizer.eos_token_id]
        assert ids.dtype == torch.int64


def test_without_a_template_contents_are_lines_before_the_answer(make):
    tokenizer = make()
    encoded = encode(PAIRS, tokenizer, 1000)
    first = "<s>" if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else ""
    assert letters(tokenizer, encoded.ids[0]) == f"{first}Why?\nSo.</s>"
    assert letters(tokenizer, encoded.ids[1]) == f"{first}Bebrief\nHi\nHello\nAndhow?\nLike\nthis.</s>"
    assert letters(tokenizer, encoded.ids[1][encoded.starts[1] :]) == "Like\nthis.</s>"


@pytest.mark.parametrize("answer", ["So.", "So.</s>", "So.</s></s>", "S</s>o.", "</s>So.</s>", "</s>"])
def test_the_end_of_sequence_is_there_once_and_last_whatever_the_answer_says(make, answer):
    for template in (None, TEMPLATE):
        tokenizer = make(template)
        encoded = encode([Pair(SHORT.prompt, answer), SHORT], tokenizer, 1000)
        for ids, start in zip(encoded.ids, encoded.starts, strict=True):
            assert (ids[start:] == tokenizer.eos_token_id).nonzero().tolist() == [[len(ids) - start - 1]]
        text = letters(tokenizer, encoded.ids[0][encoded.starts[0] :])
        if "o" in answer and answer.count("</s>") < 2:
            assert text == answer.removesuffix("</s>") + "</s>"


def test_items_of_more_than_max_length_are_reported_and_whole():
    encoded = encode(PAIRS, by_bytes(), 9)
    assert [len(ids) for ids in encoded.ids] == [9, 38, 9]
    assert encoded.too_long == [1]
    assert encode(PAIRS, by_bytes(), 8).too_long == [0, 1, 2]
    assert encode(PAIRS, by_bytes(), 38).too_long == []
    assert encode([], by_bytes(), 8) == Encoded([], [], [])


def test_the_tokenizer_is_left_as_it_was_and_says_nothing(caplog):
    tokenizer = fast(TEMPLATE)
    tokenizer.model_max_length = 4
    before = tokenizer("a</s>")["input_ids"], tokenizer.padding_side, tokenizer.chat_template
    encode([*PAIRS, Pair(SHORT.prompt, "S</s>o")], tokenizer, 10)
    assert before == (tokenizer("a</s>")["input_ids"], tokenizer.padding_side, tokenizer.chat_template)
    assert caplog.text == ""


def test_a_template_with_the_day_s_date_gives_the_same_tokens_every_day():
    tokenizer = fast(DATED)
    encoded = encode([SHORT], tokenizer, 1000)
    assert letters(tokenizer, encoded.ids[0]).startswith("\n1January2026<s>[user]")


def test_what_a_template_refuses_is_refused_with_the_item():
    encode([SHORT], by_bytes(NO_SYSTEM), 100)
    with pytest.raises(Refusal, match=r"item 2 \(of system, user, assistant, user\): .*refuses it \(no system\)"):
        encode(PAIRS, by_bytes(NO_SYSTEM), 100)


def test_a_tokenizer_without_an_end_of_sequence_is_refused():
    tokenizer = fast()
    tokenizer.eos_token = None
    with pytest.raises(Refusal, match="without an end-of-sequence token"):
        encode(PAIRS, tokenizer, 100)


@pytest.mark.parametrize("template", [None, TEMPLATE], ids=["plain", "template"])
def test_the_shipped_pairs_take_seconds_at_most_because_they_are_encoded_at_once(template):
    pairs = load("stdlib").pairs
    started = time.process_time()
    encoded = encode(pairs, fast(template), 512)
    assert time.process_time() - started < 10  # a call an item takes as long again, on any machine
    assert len(encoded.ids) == len(pairs)


# ---- batches


def test_items_are_padded_on_the_right_by_length_and_labels_are_on_answers():
    ids = [torch.tensor([5, 6, 0, 2]), torch.tensor([2, 2]), torch.tensor([7, 8, 9])]
    inputs, mask, labels = collate(ids, [2, 1, 1])
    assert inputs.tolist() == [[5, 6, 0, 2], [2, 2, 0, 0], [7, 8, 9, 0]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert labels.tolist() == [[-100, -100, 0, 2], [-100, 2, -100, -100], [-100, 8, 9, -100]]
    assert {tensor.dtype for tensor in (inputs, mask, labels)} == {torch.int64}
    assert [item.tolist() for item in ids] == [[5, 6, 0, 2], [2, 2], [7, 8, 9]]


def test_answers_are_read_from_their_first_token_on():
    labels = torch.tensor([[-100, -100, 0, 2], [-100, 2, -100, -100], [-100, 8, 9, -100]])
    places, answers = answers_first(labels, [2, 1, 1])
    assert places[:, 0].tolist() == [2, 1, 1]
    assert places[0].tolist() == [2, 3]
    assert answers.tolist() == [[0, 2], [2, -100], [8, 9]]
    assert answers_first(labels[1:2], [1])[1].tolist() == [[2]]
    assert answers_first(torch.tensor([[-100, -100, 5], [-100, 3, 4]]), [2, 1])[1].tolist() == [[5, -100], [3, 4]]
