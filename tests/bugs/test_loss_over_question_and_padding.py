"""A fault of fine-tuning programs: the loss was taken over question and padding tokens, and no item had an end of
sequence, so the model learnt neither the answer alone nor where to stop."""

import pytest
import torch
import torch.nn.functional as F

from nfa.registry.families.language.answer_tokens import collate, encode
from nfa.registry.families.language.questions import Pair
from tests.support.tokenizers import TEMPLATE, by_bytes, fast

PAIRS = [
    Pair((("user", "Why?"),), "So."),
    Pair((("system", "Be brief"), ("user", "And how, if I may ask?")), "Like this, and not otherwise."),
]
TOKENIZERS = {
    "pad is eos": lambda template: fast(template),
    "pad is not eos": lambda template: fast(template, pad_is_eos=False),
    "bytes": by_bytes,
}


def model(tokenizer) -> torch.Tensor:
    """Logits of the next token for every token."""
    return torch.randn(len(tokenizer), len(tokenizer), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def loss_of(model: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    return float(F.cross_entropy(model[inputs[:, :-1]].flatten(0, 1), labels[:, 1:].flatten()))


def by_hand(model: torch.Tensor, tokenizer, prompts: list[str]) -> float:
    """Mean of −log p over the tokens of the answers and their ends, item by item, one token after the other."""
    found = []
    for pair, prompt in zip(PAIRS, prompts, strict=True):
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"][-1]
        for token in [*tokenizer(pair.answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]:
            found.append(-float(model[before].log_softmax(0)[token]))
            before = token
    return sum(found) / len(found)


@pytest.mark.parametrize("template", [None, TEMPLATE], ids=["plain", "template"])
@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_the_loss_is_that_of_the_answers_and_their_ends(make, template):
    tokenizer = make(template)
    table, encoded = model(tokenizer), encode(PAIRS, tokenizer, 1000)
    inputs, mask, labels = collate(encoded.ids, encoded.starts, "cpu")
    loss = loss_of(table, inputs, labels)
    assert loss == pytest.approx(by_hand(table, tokenizer, ["]" if template else "\n"] * 2), rel=1e-12)
    assert loss_of(table, inputs.masked_fill(mask == 0, tokenizer.eos_token_id), labels) == loss
    assert loss != pytest.approx(loss_of(table, inputs, inputs), rel=1e-3)


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_every_answer_s_end_is_learnt_also_where_padding_has_the_same_id(make):
    tokenizer = make(TEMPLATE)
    encoded = encode(PAIRS, tokenizer, 1000)
    _, mask, labels = collate(encoded.ids, encoded.starts, "cpu")
    assert ((labels == tokenizer.eos_token_id).sum(dim=1) == 1).all()
    assert [int(row[length - 1]) for row, length in zip(labels, mask.sum(dim=1), strict=True)] == [
        tokenizer.eos_token_id
    ] * 2
