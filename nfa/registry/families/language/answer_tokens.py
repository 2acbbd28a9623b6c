"""Questions with answers as tokens, and batches of them whose loss is over the answers alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nfa.errors import Refusal
from nfa.registry.families.language.questions import Message, Pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # torch.nn.functional.cross_entropy's ignore_index, and that of transformers' models
# In front of a chat template: one that tells the model the date makes the same tokens of the same items on any day.
TODAY = "{% macro strftime_now(format) %}1 January 2026{% endmacro %}{{ '' }}"


@dataclass(frozen=True)
class Encoded:
    """Items in published order: prompt, answer and end of sequence; `starts` is where each answer starts.

    `too_long` holds the places of items with more tokens than asked for; they are whole, and the caller leaves them
    out.
    """

    ids: Sequence[Int[Tensor, " t"]]
    starts: Sequence[int]
    too_long: Sequence[int]


def encode(pairs: Sequence[Pair], tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Encoded:
    """Tokens of each prompt, then of its answer, then the tokenizer's end of sequence once.

    A prompt is what the tokenizer's chat template makes of its messages, up to where the assistant speaks; without a
    template their contents, each followed by a line feed, after what the tokenizer puts before any text. A template
    that tells the date is given the same one every day. An end of sequence written at the end of an answer is that
    one; one within an answer is letters. `Refusal` for a tokenizer without an end of sequence and for messages that
    the template does not take.
    """
    end = tokenizer.eos_token_id
    if not isinstance(end, int):
        got = "a tokenizer without an end-of-sequence token"
        allowed = "one with eos_token, from which the model learns where an answer ends"
        raise Refusal(got, allowed, "set eos_token in the base model's tokenizer_config.json")
    prompts = _prompts(pairs, tokenizer)
    answers = _answers(pairs, tokenizer, end)
    ids = [torch.tensor([*prompt, *answer, end]) for prompt, answer in zip(prompts, answers, strict=True)]
    too_long = [place for place, item in enumerate(ids) if len(item) > max_length]
    return Encoded(ids, [len(prompt) for prompt in prompts], too_long)


def collate(
    ids: Sequence[Int[Tensor, " t"]], starts: Sequence[int]
) -> tuple[Int[Tensor, "n s"], Int[Tensor, "n s"], Int[Tensor, "n s"]]:
    """Input ids, attention mask and labels of n items, padded on the right to the longest; on the processor.

    The mask is 1 on an item's tokens; labels are the input ids from an answer's start to its end, −100 elsewhere.
    Padding is by length: its id is 0, which may be a token's.
    """
    lengths = torch.tensor([len(item) for item in ids])[:, None]
    padded = pad_sequence(list(ids), batch_first=True)
    places = torch.arange(padded.shape[1])
    mask = places < lengths
    labels = padded.where(mask & (places >= torch.tensor(list(starts))[:, None]), IGNORED)
    return padded, mask.long(), labels


def answers_first(labels: Int[Tensor, "n s"], starts: Sequence[int]) -> tuple[Int[Tensor, "n t"], Int[Tensor, "n t"]]:
    """Places of each answer's tokens, from its first on, and the labels there; after an answer's end −100."""
    answers = labels != IGNORED
    first = torch.tensor(list(starts), device=labels.device)[:, None]
    places = first + torch.arange(int(answers.sum(dim=1).max()), device=labels.device)
    inside = places < labels.shape[1]
    places = places.where(inside, first)
    return places, labels.gather(1, places).where(inside, IGNORED)


def _prompts(pairs: Sequence[Pair], tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    if tokenizer.chat_template:
        return _tokens(tokenizer, (_templated(pair.prompt, place, tokenizer) for place, pair in enumerate(pairs)))
    before = _before_text(tokenizer)
    texts = ("".join(f"{content}\n" for _, content in pair.prompt) for pair in pairs)
    return [before + tokens for tokens in _tokens(tokenizer, texts)]


def _templated(prompt: Sequence[Message], place: int, tokenizer: "PreTrainedTokenizerBase") -> str:
    from jinja2 import TemplateError

    messages = [{"role": role, "content": content} for role, content in prompt]
    try:
        template = TODAY + tokenizer.get_chat_template()
        text = tokenizer.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=True, tokenize=False
        )
    except (TemplateError, ValueError) as error:
        roles = ", ".join(role for role, _ in prompt)
        raise Refusal(
            f"item {place + 1} (of {roles}): the base model's chat template refuses it ({error})",
            "messages that the template takes",
            "change the messages (many templates want user and assistant in turn, some no system), or the base model",
        ) from None
    return str(text)


def _answers(pairs: Sequence[Pair], tokenizer: "PreTrainedTokenizerBase", end: int) -> list[list[int]]:
    """Tokens of the answers without the end of sequence."""
    found = _tokens(tokenizer, (pair.answer for pair in pairs))
    for place, tokens in enumerate(found):
        while tokens and tokens[-1] == end:
            tokens.pop()
        if end in tokens:
            text = pairs[place].answer.removesuffix(str(tokenizer.eos_token))
            (found[place],) = _tokens(tokenizer, [text], letters=True)
    return found


def _tokens(tokenizer: "PreTrainedTokenizerBase", texts: Iterable[str], *, letters: bool = False) -> list[list[int]]:
    """Return tokens of all texts without added ones; with `letters`, special tokens in the text are plain text."""
    listed = list(texts)
    if not listed:
        return []
    more = {"split_special_tokens": True} if letters else {}
    encoded = tokenizer(listed, add_special_tokens=False, verbose=False, **more)
    return [list(tokens) for tokens in encoded["input_ids"]]


def _before_text(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the tokens that the tokenizer adds before a text, such as a beginning of sequence."""
    whole, bare = list(tokenizer("a")["input_ids"]), _tokens(tokenizer, ["a"])[0]
    places = range(len(whole) - len(bare) + 1)
    return whole[: next((place for place in places if whole[place : place + len(bare)] == bare), 0)]
