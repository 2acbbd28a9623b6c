"""Write the stdlib folder of language models: questions with answers, and plain English, from Python's docstrings.

Its sources are parsed and never imported, so the result depends on their text alone: not on the machine, on modules
that were not built, or on addresses in memory.
"""

import ast
import json
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "nfa" / "registry" / "families" / "language" / "stdlib"
VERSION = (3, 11)
CHARACTERS = range(10, 201)  # of an answer
WORDS = 4  # of an answer, at least
LONGEST_QUESTION = 80  # characters
SHORTEST_PARAGRAPH = 60  # characters
LETTERS = 0.9  # share of letters and spaces in plain English

# Tests, demonstrations and applications; modules for one platform; what some distributions package by itself.
APART = {
    *("test", "tests", "idle_test", "idlelib", "turtledemo", "pydoc_data", "this", "antigravity", "lib2to3"),
    *("distutils", "ensurepip", "tkinter", "turtle", "ntpath", "nturl2path"),
}
# What Python 3.12 and 3.13 no longer have.
ENDED = {
    *("aifc", "asynchat", "asyncore", "cgi", "cgitb", "chunk", "crypt", "imghdr", "imp", "mailcap", "msilib"),
    *("nntplib", "pipes", "smtpd", "sndhdr", "sunau", "telnetlib", "uu", "xdrlib"),
}
KNOWN_AS = {"posixpath": "os.path", "genericpath": "os.path"}
NOT_CALLED = {"property", "cached_property", "abstractproperty", "setter", "getter", "deleter", "overload"}

ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf|resp|approx|[A-Za-z])\.$")
SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?]['\")]))\s+(?=[A-Z\"'(`*:])")
NOT_PUBLIC = re.compile(r"\b_|\(self\b")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Documented:
    """A name with its docstring; `question` is its signature, empty where it is not called or not public."""

    source: str
    question: str
    docstring: str


def main(library: Path | None = None, folder: Path = FOLDER) -> None:
    """Write pairs.jsonl and text.txt into `folder` and print how much they hold; `SystemExit` on another Python."""
    if sys.version_info[:2] != VERSION:
        found, wanted = (".".join(map(str, version)) for version in (sys.version_info[:3], VERSION))
        raise SystemExit(f"Python {found} has other docstrings; run this with Python {wanted}")
    items = library_items(library or Path(sysconfig.get_path("stdlib")))
    made = pairs(items)
    text = "".join(f"{paragraph}\n\n" for paragraph in paragraphs(items, [pair["answer"] for pair in made]))
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{json.dumps(pair, ensure_ascii=False)}\n" for pair in made)
    for name, content in (("pairs.jsonl", lines), ("text.txt", text)):
        (folder / name).write_bytes(content.encode())
    print(f"{len(made)} pairs, {len(text.encode())} bytes of text, from Python {sys.version.split()[0]}")


def library_items(library: Path) -> list[Documented]:
    """Everything in the public modules below `library`, sorted by its qualified name."""
    found = (item for name, path in modules(library) for item in documented(name, ast.parse(path.read_bytes())))
    return sorted(found, key=lambda item: item.source)


def modules(folder: Path, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """Dotted name and file of the public modules below a folder."""
    for path in sorted(folder.iterdir()):
        name = path.stem if path.suffix == ".py" else path.name
        if not name.isidentifier() or name.startswith(("_", "test_")) or name in APART | ENDED:
            continue
        if path.suffix == ".py":
            yield prefix + name, path
        elif (path / "__init__.py").is_file():
            yield prefix + name, path / "__init__.py"
            yield from modules(path, f"{prefix}{name}.")


def documented(module: str, tree: ast.Module) -> Iterator[Documented]:
    """The module, its classes and their methods, its functions."""
    name = KNOWN_AS.get(module, module)
    yield Documented(name, "", ast.get_docstring(tree) or "")
    yield from _members(name, tree.body, of_class=False)


def _members(prefix: str, body: Iterable[ast.stmt], *, of_class: bool) -> Iterator[Documented]:
    for node in body:
        if not isinstance(node, Function | ast.ClassDef):
            continue
        name = f"{prefix}.{node.name}"
        if isinstance(node, Function):
            marks = {ast.unparse(mark).rsplit(".", 1)[-1] for mark in node.decorator_list}
            bound = of_class and "staticmethod" not in marks
            question = "" if marks & NOT_CALLED else f"{name}({parameters(node, bound=bound)})"
        else:
            makers = [item for item in node.body if isinstance(item, Function) and item.name == "__init__"]
            question = f"{name}({parameters(makers[0], bound=True)})" if makers else ""
        public = not any(part.startswith("_") for part in name.split("."))
        yield Documented(name, question if public else "", ast.get_docstring(node) or "")
        if isinstance(node, ast.ClassDef):
            yield from _members(name, node.body, of_class=True)


def parameters(node: Function, *, bound: bool) -> str:
    """Parameters as a reader knows them: defaults as they are written, no annotations, and no `self` where `bound`."""
    found = node.args
    if bound and (found.posonlyargs or found.args):
        del (found.posonlyargs or found.args)[0]
    for parameter in ast.walk(found):
        if isinstance(parameter, ast.arg):
            parameter.annotation = None
    return ast.unparse(found)


def sentences(paragraph: str) -> list[str]:
    """Sentences with whitespace collapsed; an abbreviation ends none."""
    found: list[str] = []
    for part in SENTENCE_END.split(" ".join(paragraph.split())):
        if found and ABBREVIATION.search(found[-1]):
            found[-1] += f" {part}"
        else:
            found.append(part)
    return found


def pairs(items: Iterable[Documented]) -> list[dict[str, str]]:
    """Questions and answers in the order of the items; of those with the same question or answer, the first."""
    found: list[dict[str, str]] = []
    seen: set[str] = set()
    for item in items:
        answer = sentences(item.docstring.split("\n\n")[0])[0]
        if _asks(item.question) and _answers(answer) and not {item.question, answer} & seen:
            seen |= {item.question, answer}
            found.append({"question": item.question, "answer": answer, "source": item.source})
    return found


def _asks(question: str) -> bool:
    return 0 < len(question) <= LONGEST_QUESTION and not NOT_PUBLIC.search(question)


def _answers(text: str) -> bool:
    """Whether it is a whole sentence of English."""
    whole = text[:1].isupper() and text.endswith(".") and not text.endswith("...")
    size = len(text) in CHARACTERS and len(text.split()) >= WORDS
    return whole and size and not any(mark in text for mark in ("->", ">>>"))


def paragraphs(items: Iterable[Documented], answers: Sequence[str]) -> list[str]:
    """Plain English after the first paragraphs of docstrings, each once and on one line, without any of `answers`."""
    bodies = (paragraph for item in items for paragraph in re.split(r"\n\s*\n", item.docstring)[1:])
    found = (_without(answers, paragraph) for paragraph in bodies if is_prose(paragraph))
    return [paragraph for paragraph in dict.fromkeys(found) if is_prose(paragraph)]


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is English sentences in plain letters, rather than a list, a table or code."""
    text = " ".join(paragraph.split())
    plain = text.isascii() and text[:1].isupper() and text.endswith(".") and len(text) >= SHORTEST_PARAGRAPH
    indented = re.search(r"^\s", paragraph, re.MULTILINE)
    letters = sum(letter.isalpha() or letter == " " for letter in text)
    return plain and not indented and ">>>" not in text and letters >= LETTERS * len(text)


def _without(answers: Sequence[str], paragraph: str) -> str:
    return " ".join(part for part in sentences(paragraph) if not any(answer in part for answer in answers))


if __name__ == "__main__":
    main()
