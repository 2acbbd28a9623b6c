"""Questions with answers: forms of items, sources, and what is said of those that cannot be used."""

import json
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import pytest

from nfa.errors import Refusal
from nfa.registry.families.language.questions import Pair, QuestionData, load
from nfa.registry.families.language.training import split
from tests.support.processes import HEAVY, environment_of_tests

ASKED = {"question": "Why?", "answer": "So."}
PAIR = Pair((("user", "Why?"),), "So.")
CONVERSATION = [
    {"role": "system", "content": ""},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "So."},
]


def write(path: Path, *items: object) -> Path:
    """A .jsonl file of these items, or a .json file of their list."""
    lines = [json.dumps(item) for item in items]
    text = "\n".join(lines) + "\n" if path.suffix == ".jsonl" else f"[{', '.join(lines)}]"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(data: object, val_data: object = "") -> str:
    with pytest.raises(Refusal) as refused:
        load(str(data), str(val_data))
    return str(refused.value)


# ---- what can be used


@pytest.mark.parametrize(
    ("item", "pair"),
    [
        (ASKED | {"source": "a", "input": 3}, PAIR),
        ({"instruction": "Add", "input": "1, 2", "output": "3"}, Pair((("user", "Add\n\n1, 2"),), "3")),
        ({"instruction": "Why?", "input": "", "output": "So."}, PAIR),
        ({"instruction": "Why?", "input": None, "output": "So."}, PAIR),
        ({"instruction": "Why?", "output": "So."}, PAIR),
        ({"messages": CONVERSATION[-2:]}, PAIR),
        (
            {"messages": [*CONVERSATION, {"role": "user", "content": "Thanks"}]},
            Pair((("system", ""), ("user", "Hi"), ("assistant", "Hello"), ("user", "Why?")), "So."),
        ),
        ({"question": " a\r\nb ", "answer": "\u2028ü\x85 "}, Pair((("user", " a\r\nb "),), "\u2028ü\x85 ")),
    ],
    ids=["question", "input", "empty input", "no input", "instruction", "messages", "conversation", "verbatim"],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "A.JSONL"])
def test_every_form_is_read_from_every_kind_of_file_and_texts_stay_as_they_are(tmp_path, item, pair, name):
    path = tmp_path / name
    text = json.dumps(item, ensure_ascii=False)
    path.write_text(f"[{text}]" if name == "a.json" else f"\n{text}\r\n\n{text}", encoding="utf-8")
    data = load(str(path))
    assert data == QuestionData(name, [pair] if name == "a.json" else [pair, pair], None)


@pytest.mark.parametrize("content", [[ASKED], {"version": "1", "data": [ASKED]}], ids=["list", "in an object"])
def test_a_list_or_an_object_with_one_list_with_or_without_byte_order_mark(tmp_path, content):
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "train_flattened.json").write_text(json.dumps(content), encoding=encoding)
        assert load(str(tmp_path / "train_flattened.json")).pairs == [PAIR]


def test_the_shipped_pairs_are_stdlib():
    data = load("stdlib")
    assert (data.name, len(data.pairs), data.train_items, data.leaked) == ("stdlib", 2222, None, 0)
    assert all(len(pair.prompt) == 1 and pair.prompt[0][0] == "user" for pair in data.pairs)


def test_relative_paths_count_from_where_the_command_was_typed(tmp_path, monkeypatch):
    write(tmp_path / "a.jsonl", ASKED)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("NFA_CALLER_DIR", str(tmp_path))
    assert load("a.jsonl").pairs == [PAIR]
    monkeypatch.delenv("NFA_CALLER_DIR")
    assert load("../a.jsonl").pairs == [PAIR]


def test_a_validation_file_comes_after_the_training_file_and_items_of_both_are_counted(tmp_path):
    other = {"question": "How?", "answer": "So."}
    train, val = write(tmp_path / "a.jsonl", ASKED, ASKED), write(tmp_path / "b.json", other, ASKED, ASKED)
    data = load(str(train), str(val))
    assert (data.name, data.train_items, data.leaked) == ("a.jsonl", 2, 2)
    assert [pair.prompt[0][1] for pair in data.pairs] == ["Why?", "Why?", "How?", "Why?", "Why?"]
    assert load(str(train), str(train)).leaked == 2
    assert load(str(train), str(write(tmp_path / "c.json", other))).leaked == 0
    assert load(str(train), "stdlib").leaked == 0


def test_the_digest_is_that_of_the_content(tmp_path):
    first, same = write(tmp_path / "a.jsonl", ASKED), write(tmp_path / "b.json", ASKED | {"id": 1})
    other = write(tmp_path / "c.json", ASKED | {"answer": "so."})
    digest = load(str(first)).digest()
    assert len(digest) == 64
    assert load(str(same)).digest() == digest
    changed = {load(str(other)).digest(), load(str(first), str(other)).digest(), load(str(other), str(first)).digest()}
    assert len({digest, *changed}) == 4


# ---- what cannot be used


def assistant(content: object) -> list[dict[str, object]]:
    return [CONVERSATION[1], {"role": "assistant", "content": content}]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"question": "Why?", "reply": "So."}, "fields question, reply"),
        ({}, "no fields"),
        ([ASKED], "a list instead of an object"),
        ("Why?", "text instead of an object"),
        (None, "null instead of an object"),
        (ASKED | {"answer": " \n"}, "answer is empty"),
        (ASKED | {"question": ""}, "question is empty"),
        (ASKED | {"answer": 3}, "answer is a number, not text"),
        (ASKED | {"answer": True}, "answer is true or false, not text"),
        (ASKED | {"question": ["Why?"]}, "question is a list, not text"),
        (ASKED | {"answer": "\ud800"}, "answer holds half of a surrogate pair, which is no character"),
        ({"instruction": "Add", "input": 3, "output": "3"}, "input is a number, not text"),
        ({"instruction": "Add", "output": None}, "output is null, not text"),
        ({"messages": "Hi"}, "messages is text, not a list"),
        ({"messages": []}, "messages without an assistant's answer"),
        ({"messages": CONVERSATION[:2]}, "messages without an assistant's answer"),
        ({"messages": ["Hi"]}, "message 1 is text, not an object"),
        ({"messages": CONVERSATION[2:3]}, "no user's message right before the assistant's last answer"),
        ({"messages": CONVERSATION[::2]}, "no user's message right before the assistant's last answer"),
        ({"messages": [CONVERSATION[1], {"role": "gpt", "content": "So."}]}, "message 2 has the role 'gpt'"),
        ({"messages": [{"content": "So."}]}, "message 1 has the role None"),
        ({"messages": [CONVERSATION[1], {"role": "assistant"}]}, "message 2: no content"),
        ({"messages": assistant([{"type": "text"}])}, "message 2: content is a list, not text"),
        ({"messages": assistant(" ")}, "the assistant's last message is empty"),
        ({"messages": [{"role": "user", "content": ""}, CONVERSATION[2]]}, "the user's last message is empty"),
    ],
)
def test_a_bad_item_is_named_with_its_place_and_what_was_found(tmp_path, item, said):
    for name, place in (("a.jsonl", "line 2"), ("a.json", "item 2")):
        message = refusal(write(tmp_path / name, ASKED, item))
        assert f"{tmp_path / name}: 1 of 2 items\n    {place}: {said}\n  allowed: {{" in message
        assert "messages" in message
        assert message.endswith("do: correct or remove these items")


def test_of_many_bad_items_the_first_are_named_and_the_others_counted(tmp_path):
    message = refusal(write(tmp_path / "a.jsonl", *[{"q": "a"}] * 5, ASKED))
    assert "5 of 6 items\n    line 1: fields q\n    line 2: fields q\n    line 3: fields q\n    and 2 more\n" in message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"question": "a", "answer": "b"}\n{"question"\n', "a.jsonl: line 2: Expecting ':' delimiter"),
        ("a.jsonl", b"[\n{}\n]", "a.jsonl: line 1: Expecting value.*must have the extension .json"),
        ("a.json", b"[{},\n{]", "a.json: line 2: Expecting property name"),
        ("a.json", b'{"question": "a"}\n{"question": "b"}', "a.json: line 2: Extra data.*extension .jsonl"),
        ("a.json", b"[" * 100_000, "a.json: nested too deeply"),
        ("a.json", b'{"a": [], "b": []}', r"an object with 2 lists \(a, b\)\n  allowed: a list of items, or an object"),
        ("a.json", b'{"a": {}}', r"an object with 0 lists \(none\)"),
        ("a.json", b"3", "a.json: int\n  allowed: a list of items"),
        ("a.json", b'[{"question": "\xff"}]', "line 1 is not UTF-8"),
        ("a.jsonl", "{}\n".encode("utf-16"), "line 1 is not UTF-8"),
        ("a.json", b" \n", "a.json: no items in it"),
        ("a.json", b"[]", "a.json: no items in it"),
        ("a.jsonl", b"\n\n", "a.jsonl: no items in it"),
        ("a.jsonl", b"", "a.jsonl: no items in it"),
    ],
)
def test_a_file_that_is_no_json_or_empty_is_named_with_the_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refusal, match=f"(?s){said}"):
        load(str(tmp_path / name))
    write(tmp_path / "sound.json", ASKED)
    with pytest.raises(Refusal, match=f"(?s){said}"):
        load(str(tmp_path / "sound.json"), str(tmp_path / name))


def test_a_missing_file_is_refused_with_the_names_that_are_near(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "data=train.json:" in refusal("train.json")
    for name in ("trian.json", "val.jsonl", "notes.txt"):
        (tmp_path / name).write_text("")
    message = refusal("train.json")
    assert f"data=train.json: {tmp_path} has no train.json\n  allowed: files there: trian.json, val.jsonl" in message
    assert message.endswith("do: did you mean trian.json?")
    assert "val_data=va.jsonl:" in refusal("stdlib", "va.jsonl")
    assert f"there is no folder {tmp_path / 'no'}" in refusal("no/train.json")
    (tmp_path / "folder.json").mkdir()
    assert "folder.json is a folder" in refusal("folder.json")


@pytest.mark.parametrize("data", ["stdlibs", "train.csv", "", "a/b/c", "folder"])
def test_what_is_no_source_is_refused(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    message = refusal(data)
    assert f"data='{data}'" in message
    assert "allowed: stdlib, a .json or .jsonl file, or a data set of the hub as owner/name" in message
    assert ("did you mean stdlib?" in message) == (data == "stdlibs")


# ---- the hub


def hub(monkeypatch: pytest.MonkeyPatch, splits: dict[str, Sequence[object]]) -> None:
    """Stands for the package datasets."""

    def load_dataset(name: str, split: str) -> Sequence[object]:
        if name != "owner/name":
            raise ConnectionError(f"Couldn't reach '{name}' on the Hub\nmore")
        if split not in splits:
            raise ValueError(f'Unknown split "{split}". Should be one of {list(splits)}.')
        return splits[split]

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)


EMPTY = [
    ASKED | {"answer": ""},
    ASKED | {"question": " "},
    {"instruction": "Add", "input": "1, 2", "output": "\n"},
    {"instruction": "", "input": "1, 2", "output": "3"},
    {"messages": [CONVERSATION[1], {"role": "assistant", "content": ""}]},
]


@pytest.mark.parametrize("item", EMPTY)
def test_a_few_empty_items_keep_their_places_and_are_told(tmp_path, item):
    """As 28 of the 52,002 in the best-known file of instructions."""
    some = [ASKED] * 7 + [item] + [ASKED] * 24 + [item] + [ASKED] * 7
    data = load(str(write(tmp_path / "a.json", *some)))
    assert (len(data.pairs), data.empty) == (40, (7, 32))
    assert data.pairs[8] == PAIR
    both = load(str(write(tmp_path / "b.json", *[ASKED] * 20)), str(tmp_path / "a.json"))
    assert both.empty == (27, 52)
    assert both.leaked == 38  # an empty item teaches nothing
    assert data.digest() != load(str(tmp_path / "b.json")).digest()


@pytest.mark.parametrize("item", EMPTY)
def test_more_than_one_in_twenty_are_refused_with_their_places(tmp_path, item):
    said = refusal(write(tmp_path / "a.jsonl", *[ASKED] * 37, *[item] * 2))
    assert "2 of 39 items\n    line 38: " in said
    assert "is empty\n    line 39: " in said
    assert "up to 5% of them may be empty, and are left out" in said


def test_another_fault_is_named_without_the_few_that_are_empty(tmp_path):
    said = refusal(write(tmp_path / "a.jsonl", ASKED | {"answer": ""}, *[ASKED] * 38, {"question": "Why?"}))
    assert "1 of 40 items\n    line 40: fields question" in said


def test_a_data_set_of_the_hub_and_its_splits(monkeypatch, tmp_path):
    other = {"question": "How?", "answer": "So."}
    hub(monkeypatch, {"train": [ASKED, other], "validation": [other], "empty": []})
    assert load("owner/name") == QuestionData("owner/name", [PAIR, Pair((("user", "How?"),), "So.")], None)
    data = load("owner/name", "validation")
    assert (len(data.pairs), data.train_items, data.leaked) == (3, 2, 1)
    assert load("owner/name", str(write(tmp_path / "a.json", ASKED))).leaked == 1
    assert load("owner/name", "owner/name").leaked == 2
    assert "Unknown split \"valid\". Should be one of ['train'" in refusal("owner/name", "valid")
    assert "owner/name, split empty: no items in it" in refusal("owner/name", "empty")
    message = refusal("owner/nothing")
    assert "owner/nothing, split train: Couldn't reach 'owner/nothing' on the Hub (ConnectionError)\n  allow" in message
    hub(monkeypatch, {"train": [ASKED, {"text": "a"}]})
    assert "owner/name, split train: 1 of 2 items\n    row 2: fields text" in refusal("owner/name")


def test_without_the_package_of_the_hub_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "do: pip install 'nfa[datasets]'" in refusal("owner/name")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert "data='owner/name' (a folder)" in refusal("owner/name")


# ---- splits


@pytest.mark.parametrize(("n", "val"), [(2, 1), (3, 1), (19, 1), (20, 2), (2222, 222)])
def test_a_tenth_is_for_validation_and_every_item_is_in_one_part(n, val):
    ids = split(n, None, [], seed=3)
    assert list(ids) == ["train", "val", "test", "probe"]
    assert len(ids["val"]) == val
    assert sorted(ids["train"] + ids["val"]) == list(range(n))
    assert ids["train"] == sorted(ids["train"]) == sorted(ids["probe"])
    assert ids["val"] == sorted(ids["val"])
    assert ids["test"] == []


def test_the_seed_decides_and_nothing_else():
    assert split(100, None, [], seed=1) == split(100, None, [], seed=1)
    assert split(100, None, [], seed=1) != split(100, None, [], seed=2)
    assert split(100, 60, [], seed=1)["probe"] != split(100, 60, [], seed=2)["probe"] != list(range(60))


def test_items_left_out_are_in_no_part_and_hardly_move_the_others():
    whole, less = split(100, None, [], seed=0), split(100, None, [7], seed=0)
    assert 7 not in {item for part in less.values() for item in part}
    assert len({*whole["val"]} ^ {*less["val"]} - {7}) <= 2
    assert split(6, 4, [1, 5], seed=0) | {"probe": []} == {"train": [0, 2, 3], "val": [4], "test": [], "probe": []}


@pytest.mark.parametrize(("n", "train_items", "excluded"), [(1, None, []), (2, None, [0]), (3, 2, [2]), (3, 1, [0])])
def test_a_part_without_items_is_refused(n, train_items, excluded):
    left_out = f"{n} items, {len(excluded)} of them too long, empty or beyond max_items"
    with pytest.raises(Refusal, match=rf"{left_out}: \d to train on, \d to validate"):
        split(n, train_items, excluded, seed=0)


def test_reading_loads_nothing_heavy(tmp_path):
    module = "nfa.registry.families.language.questions"
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    command, env = [sys.executable, "-c", code], environment_of_tests()
    assert subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout == "[]\n"
