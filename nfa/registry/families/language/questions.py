"""Questions with answers, for fine-tuning language models.

An item has one of three forms: {"question", "answer"}; {"instruction", "output"} with "input" or without; and
{"messages": [{"role", "content"}, …]}. Other fields are passed over.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from nfa.errors import Refusal
from nfa.registry.families.language.config import LoraTraining
from nfa.registry.families.language.question_files import Item, QuestionSource, is_file_name, is_hub_id, read

ROLES = ("system", "user", "assistant")
FORMS = (
    '{"question", "answer"}, {"instruction", "output"} with or without "input", or {"messages": [{"role", "content"}, '
    f"…]}} with roles {', '.join(ROLES)}; all of them text"
)
SHOWN = 3  # faults put into words
MOST_EMPTY = 0.05  # of a file's items
KINDS = {dict: "an object", list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false"}

Message = tuple[str, str]  # role, content


@dataclass(frozen=True)
class Pair:
    """A conversation that ends with a user message, and the answer to it."""

    prompt: tuple[Message, ...]
    answer: str


@dataclass(frozen=True)
class QuestionData:
    """Items in published order: the training file's, and after them the validation file's.

    `train_items` is how many belong to the training file; None if there is one file, to be split by a seed. `empty`
    are the places of items without a question or without an answer, which the caller leaves out.
    """

    name: str
    pairs: Sequence[Pair]
    train_items: int | None
    empty: Sequence[int] = ()

    def digest(self) -> str:
        """SHA-256 of all messages and answers and of `train_items`, the same wherever the files lie."""
        content = hashlib.sha256(f"{self.train_items}\n".encode())
        for pair in self.pairs:
            content.update(f"{json.dumps([pair.prompt, pair.answer])}\n".encode())
        return content.hexdigest()

    @cached_property
    def leaked(self) -> int:
        """The number of validation items (prompt and answer) that are also in the training file."""
        if self.train_items is None:
            return 0
        empty = set(self.empty)
        usable = {place: pair for place, pair in enumerate(self.pairs) if place not in empty}
        trained = {pair for place, pair in usable.items() if place < self.train_items}
        return sum(place >= self.train_items and pair in trained for place, pair in usable.items())


def load(data: str, val_data: str = "") -> QuestionData:
    """Load the items of `data`, and of `val_data` if it is given.

    Both are `stdlib`, a .json file (a list, or an object with one list in it), a .jsonl file (an object a line), or a
    data set of the hub, of which the split "train" is read; with such `data`, `val_data` may be the name of another
    of its splits. Texts stay as they are. One `Refusal` names a file's bad items: another form, messages that do not
    end with a user's question and an assistant's answer to it, and empty questions and answers where they are more
    than one in twenty; of fewer their places are told.
    """
    source = read(data)
    pairs, empty = _pairs(source)
    if not val_data:
        return QuestionData(source.name, pairs, None, empty)
    if is_hub_id(data) and not (val_data == "stdlib" or is_file_name(val_data) or is_hub_id(val_data)):
        held_out = read(data, parameter="val_data", split=val_data)
    else:
        held_out = read(val_data, parameter="val_data")
    more, empty_too = _pairs(held_out)
    places = (*empty, *(len(pairs) + place for place in empty_too))
    return QuestionData(source.name, [*pairs, *more], len(pairs), places)


def look(config: LoraTraining) -> QuestionData | None:
    """Load the items if they lie in files; return None for the hub, whose library is slow to import."""
    return None if is_hub_id(config.data) or is_hub_id(config.val_data) else load(config.data, config.val_data)


def _pairs(source: QuestionSource) -> tuple[list[Pair], tuple[int, ...]]:
    """Return all items, and the positions of those with an empty question or answer."""
    found: list[Pair] = []
    faults: dict[int, str] = {}
    empty: dict[int, str] = {}
    for place, item in enumerate(source.items):
        try:
            pair, without = _pair(item)
        except ValueError as error:
            faults[place] = f"\n    {item.place}: {error}"
            continue
        found.append(pair)
        if without:
            empty[place] = f"\n    {item.place}: {without} is empty"
    if len(empty) > MOST_EMPTY * len(source.items):
        faults |= empty
    if faults:
        raise _refused(source, [faults[place] for place in sorted(faults)])
    return found, tuple(empty)


def _refused(source: QuestionSource, faults: Sequence[str]) -> Refusal:
    more = [f"\n    and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    count = f"{len(faults)} of {len(source.items)} items"
    allowed = f"{FORMS}; up to {MOST_EMPTY:.0%} of them may be empty, and are left out"
    got = f"{source.where}: {count}{''.join([*faults[:SHOWN], *more])}"
    return Refusal(got, allowed, "correct or remove these items")


def _pair(item: Item) -> tuple[Pair, str]:
    """A question with its answer, and what of them is empty, if anything; `ValueError` in a few words for another form.

    Text that is nothing but spaces is empty.
    """
    content = item.content
    if not isinstance(content, Mapping):
        raise ValueError(f"{_kind(content)} instead of an object")
    if {"question", "answer"} <= content.keys():
        return _asked(content, "question", "answer", "")
    if {"instruction", "output"} <= content.keys():
        more = content.get("input")
        return _asked(content, "instruction", "output", "" if more in (None, "") else f"\n\n{_text(content, 'input')}")
    if "messages" in content:
        return _conversation(content["messages"])
    raise ValueError(f"fields {', '.join(map(str, content))}" if content else "no fields")


def _asked(content: Mapping[str, object], question: str, answer: str, more: str) -> tuple[Pair, str]:
    texts = {field: _text(content, field) for field in (question, answer)}
    without = next((field for field, text in texts.items() if not text.strip()), "")
    return Pair((("user", texts[question] + more),), texts[answer]), without


def _conversation(messages: object) -> tuple[Pair, str]:
    """The last answer of the assistant and everything before it; what comes after it is left out."""
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise ValueError(f"messages is {_kind(messages)}, not a list")
    found = list(_messages(messages))
    places = [place for place, (role, _) in enumerate(found) if role == "assistant"]
    if not places:
        raise ValueError("messages without an assistant's answer")
    prompt, (_, answer) = found[: places[-1]], found[places[-1]]
    if not prompt or prompt[-1][0] != "user":
        raise ValueError("no user's message right before the assistant's last answer")
    last = {"user": prompt[-1][1], "assistant": answer}
    without = next((f"the {role}'s last message" for role, text in last.items() if not text.strip()), "")
    return Pair(tuple(prompt), answer), without


def _messages(messages: Sequence[object]) -> Iterator[Message]:
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping):
            raise ValueError(f"message {number} is {_kind(message)}, not an object")
        if message.get("role") not in ROLES:
            raise ValueError(f"message {number} has the role {message.get('role')!r}")
        try:
            yield str(message["role"]), _text(message, "content")
        except (KeyError, ValueError) as error:
            reason = "no content" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"message {number}: {reason}") from None


def _text(content: Mapping[str, object], field: str) -> str:
    text = content[field]
    if not isinstance(text, str):
        raise ValueError(f"{field} is {_kind(text)}, not text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{field} holds half of a surrogate pair, which is no character") from None
    return text


def _kind(value: object) -> str:
    return KINDS.get(type(value), "null" if value is None else type(value).__name__)
