"""Sources of questions and answers: the data set that comes with nfa, JSON and JSONL files, and the hub.

Nothing heavy is imported here, so a file that cannot be used is known before a program has started in earnest.
"""

import difflib
import importlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nfa.errors import Refusal, headline
from nfa.extras import check_extra
from nfa.registry.folders import typed_folder

STDLIB = Path(__file__).with_name("stdlib") / "pairs.jsonl"
SUFFIXES = (".json", ".jsonl")
SOURCES = "stdlib, a .json or .jsonl file, or a data set of the hub as owner/name"
SHOWN = 5  # files of a folder named in a message
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class Item(NamedTuple):
    """The content at a place of a source ("line 3" or "item 3", counted from 1)."""

    place: str
    content: object


class QuestionSource(NamedTuple):
    """Items in order; `name` is "stdlib", the file's name or the hub id, and `where` the name in messages."""

    name: str
    where: str
    items: Sequence[Item]


def read(data: str, *, parameter: str = "data", split: str = "train") -> QuestionSource:
    """Items of `data`: `stdlib`, a path ending in .json or .jsonl, or owner/name, of which `split` is read.

    A relative path counts from where the command was typed. `Refusal`, which names `parameter`, for what is none of
    these, is missing, is not UTF-8 (a byte order mark is read over) or JSON, or has no items.
    """
    if data == "stdlib":
        return QuestionSource("stdlib", "stdlib", _file_items(STDLIB))
    path = typed_folder(data)
    if is_file_name(data):
        return QuestionSource(path.name, str(path.absolute()), _file_items(existing(path, f"{parameter}={data}")))
    if is_hub_id(data):
        return QuestionSource(data, f"{data}, split {split}", _hub_items(data, split))
    near = difflib.get_close_matches(data, ["stdlib"])
    remedy = "did you mean stdlib?" if near else "name a file with its extension: NAME.json (list), NAME.jsonl (lines)"
    kind = " (a folder)" if path.is_dir() else ""
    raise Refusal(f"{parameter}={data!r}{kind}", SOURCES, remedy)


def is_file_name(data: str) -> bool:
    """Return whether `data` names a file."""
    return Path(data).suffix.lower() in SUFFIXES


def check_hub(name: str) -> None:
    """Raise `Refusal` if the package that reads data sets of the hub is not installed."""
    check_extra(f"data set {name} of the hub", "datasets", otherwise="check the path if a file was meant")


def is_hub_id(data: str) -> bool:
    """Return whether `data` names a data set of the hub: owner/name, if no such local path exists."""
    return HUB_ID.fullmatch(data) is not None and not is_file_name(data) and not typed_folder(data).exists()


def existing(path: Path, got: str) -> Path:
    """The path of a file; `Refusal`, which begins with `got`, for one that is not there or is a folder."""
    if path.is_file():
        return path
    if path.is_dir():
        raise Refusal(f"{got}: {path.absolute()} is a folder", "a .json or .jsonl file", "name a file in it")
    folder = path.absolute().parent
    if not folder.is_dir():
        remedy = "check the path; relative paths start at the folder where the command is typed"
        raise Refusal(f"{got}: there is no folder {folder}", SOURCES, remedy)
    present = sorted(file.name for file in folder.iterdir() if is_file_name(file.name))
    near = difflib.get_close_matches(path.name, present, cutoff=0.7)
    remedy = f"did you mean {' or '.join(near)}?" if near else "check the name"
    held = ", ".join(present[:SHOWN]) + (f" and {len(present) - SHOWN} more" if len(present) > SHOWN else "")
    raise Refusal(f"{got}: {folder} has no {path.name}", f"files there: {held}" if held else SOURCES, remedy)


def _file_items(path: Path) -> list[Item]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}", "a readable file", "check its permissions") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise Refusal(f"{path}: line {line} is not UTF-8 ({error.reason})", "UTF-8", "save it as UTF-8") from None
    items = _lines(path, text) if path.suffix.lower() == ".jsonl" else _list(path, text)
    if not items:
        raise Refusal(f"{path}: no items in it", "at least one question with its answer", "check the file")
    return items


def _lines(path: Path, text: str) -> list[Item]:
    """A line an item; empty ones are passed over. Only line feeds end a line: text may hold other separators."""
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append(Item(f"line {number}", json.loads(line)))
        except (ValueError, RecursionError) as error:
            remedy = "correct the line; a file with a single JSON value must have the extension .json"
            raise Refusal(f"{path}: line {number}: {_reason(error)}", "one JSON object per line", remedy) from None
    return found


def _list(path: Path, text: str) -> list[Item]:
    """The items of a list, or of the one list in an object."""
    if not text.strip():
        return []
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = f" line {error.lineno}:" if isinstance(error, json.JSONDecodeError) else ""
        several = "Extra data" in str(error)
        remedy = "a file with one object per line must have the extension .jsonl" if several else "correct the file"
        raise Refusal(f"{path}:{line} {_reason(error)}", "JSON", remedy) from None
    lists = {"": content} if isinstance(content, list) else {}
    if isinstance(content, dict):
        lists = {key: value for key, value in content.items() if isinstance(value, list)}
    if len(lists) != 1:
        found = f"an object with {len(lists)} lists ({', '.join(lists) or 'none'})" if isinstance(content, dict) else ""
        got = f"{path}: {found or type(content).__name__}"
        allowed = "a list of items, or an object with exactly one list in it"
        raise Refusal(got, allowed, "write the items as one list: [{...}, {...}]")
    return [Item(f"item {number}", item) for number, item in enumerate(next(iter(lists.values())), start=1)]


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (column {error.colno})"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _hub_items(name: str, split: str) -> list[Item]:
    check_hub(name)
    load_dataset = importlib.import_module("datasets").load_dataset
    try:
        rows = load_dataset(name, split=split)
    except Exception as error:  # of many libraries: no network, no such data set, no such split, files it cannot read
        got = f"{name}, split {split}: {headline(error)} ({type(error).__name__})"
        remedy = "check name, split and network; or save its items as NAME.jsonl and name that file"
        raise Refusal(got, "a public data set of the hub with this split", remedy) from error
    items = [Item(f"row {number}", row) for number, row in enumerate(rows, start=1)]
    if not items:
        got = f"{name}, split {split}: no items in it"
        raise Refusal(got, "at least one question with its answer", "choose another split")
    return items
