"""Pairs and text from docstrings: what the script takes from a small library, and what the shipped files hold."""

import ast
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.processes import ROOT

SHIPPED = ROOT / "nfa" / "registry" / "families" / "language" / "stdlib"
LONG = "This paragraph says at length and in plain English words what nobody asked for."
MODULE = f'''"""A module about nothing.

{LONG} It ends here, e.g. With an abbreviation.

{LONG}

    >>> code()
"""
import os

def copy(src: str, dst, /, mode="r", *, sep=os.sep, **rest: int) -> None:
    """Copy one file to another,
    whole and at once. The second sentence is not an answer.

    Return the number of things. Nothing else is said here about anything but this one sentence.
    """

def _private(x):
    """Do something that nobody should know."""

def duplicate(x):
    """Copy one file to another, whole and at once."""

def hidden(x=_private):
    """Return what a private name is for."""

def short(): """Do nothing."""
def code(): """code() -> something that is no sentence."""
def lower(): """return the lower case of it."""
def plain(): pass

class Thing:
    """Count things of all kinds."""
    def __init__(self, size=3): ...
    def count(self): """Return the number of things."""
    @property
    def size(self): """The size of all things."""
    @staticmethod
    def made(other): """Make a thing from another."""
    @classmethod
    async def awaited(cls, other): """Wait for a thing from another."""
'''
QUESTIONS = {
    "small.Thing(size=3)": "Count things of all kinds.",
    "small.Thing.awaited(other)": "Wait for a thing from another.",
    "small.Thing.count()": "Return the number of things.",
    "small.Thing.made(other)": "Make a thing from another.",
    "small.copy(src, dst, /, mode='r', *, sep=os.sep, **rest)": "Copy one file to another, whole and at once.",
}


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_stdlib_pairs", ROOT / "docs" / "make_stdlib_pairs.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE = script()


@pytest.fixture
def library(tmp_path) -> Path:
    folder = tmp_path / "library"
    for name in ("small.py", "posixpath.py", "_private.py", "ntpath.py", "cgi.py", "a-b.py", "test_it.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text('def join(a): """Join all parts of a path."""')
    (folder / "small.py").write_text(MODULE)
    for name in ("package", "test", "no_package"):
        (folder / name).mkdir()
        (folder / name / "inner.py").write_text(f'def f(): """Return what {name} is for."""')
    for name in ("package", "test"):
        (folder / name / "__init__.py").write_text("")
    return folder


def test_signatures_ask_and_first_sentences_answer():
    items = sorted(MAKE.documented("small", ast.parse(MODULE)), key=lambda item: item.source)
    assert {pair["question"]: pair["answer"] for pair in MAKE.pairs(items)} == QUESTIONS


def test_text_has_no_first_paragraphs_no_code_no_answers_and_nothing_twice():
    items = list(MAKE.documented("small", ast.parse(MODULE)))
    assert MAKE.paragraphs(items, ["Return the number of things."]) == [
        f"{LONG} It ends here, e.g. With an abbreviation.",
        LONG,
        "Nothing else is said here about anything but this one sentence.",
    ]
    longer = [MAKE.Documented("a", "", f"First.\n\nAn answer. {LONG}\n\n- {LONG}\n\n{LONG} é é.\n\n{LONG}\n  {LONG}")]
    assert MAKE.paragraphs(longer, ["An answer."]) == [LONG]


@pytest.mark.parametrize(
    ("paragraph", "sentences"),
    [
        ("One.\n   Two two.", ["One.", "Two two."]),
        ("As in e.g. Python. Then", ["As in e.g. Python.", "Then"]),
        ("See x.y.z or 3.11 for more", ["See x.y.z or 3.11 for more"]),
        ('It says "stop." Then (it goes.) *So* it is', ['It says "stop."', "Then (it goes.)", "*So* it is"]),
        ("", [""]),
    ],
)
def test_sentences_end_where_a_reader_ends_them(paragraph, sentences):
    assert MAKE.sentences(paragraph) == sentences


def test_private_modules_tests_and_other_platforms_are_passed_over(library):
    assert [name for name, _ in MAKE.modules(library)] == ["package", "package.inner", "posixpath", "small"]
    assert "os.path.join(a)" in {item.question for item in MAKE.library_items(library)}


def test_the_same_library_gives_the_same_bytes_and_the_count_is_printed(library, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(MAKE.sys, "version_info", (3, 11, 9))
    for name in ("one", "two"):
        MAKE.main(library, tmp_path / name)
        assert capsys.readouterr().out.startswith("7 pairs, ")
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert sorted(one) == ["pairs.jsonl", "text.txt"]


def test_another_python_is_refused(library, tmp_path, monkeypatch):
    monkeypatch.setattr(MAKE.sys, "version_info", (3, 12, 1))
    with pytest.raises(SystemExit, match=r"Python 3\.12\.1 has other docstrings; run this with Python 3\.11"):
        MAKE.main(library, tmp_path / "made")
    assert not (tmp_path / "made").exists()


# ---- what is shipped


def shipped() -> list[dict[str, str]]:
    return [json.loads(line) for line in (SHIPPED / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]


def test_shipped_pairs_are_sorted_unique_public_and_of_the_promised_sizes():
    pairs = shipped()
    assert len(pairs) == 2222
    sources, questions, answers = ([pair[key] for pair in pairs] for key in ("source", "question", "answer"))
    assert sources == sorted(set(sources))
    assert len(set(questions)) == len(set(answers)) == len(pairs)
    assert all(set(pair) == {"question", "answer", "source"} for pair in pairs)
    assert all(question.startswith(f"{source}(") for question, source in zip(questions, sources, strict=True))
    assert all(10 <= len(answer) <= 200 and answer == " ".join(answer.split()) for answer in answers)
    assert not [source for source in sources if any(part.startswith(("_", "test_")) for part in source.split(".")[:-1])]
    assert not [question for question in questions if " at 0x" in question or "._" in question]
    assert "shutil.copyfile(src, dst, *, follow_symlinks=True)" in questions


def test_shipped_text_is_plain_and_holds_no_answer():
    text = (SHIPPED / "text.txt").read_text(encoding="ascii")
    assert 300_000 < len(text) < 400_000
    assert not [pair["answer"] for pair in shipped() if pair["answer"] in text]
    lines = text.split("\n\n")
    assert lines.pop() == ""
    assert len(set(lines)) == len(lines)
    assert not [line for line in lines if "\n" in line or not line.endswith(".")]


def test_the_shipped_files_say_where_they_are_from_and_how_large_they_are():
    readme = (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert f"{len(shipped()):,} pairs" in readme
    assert f"{(SHIPPED / 'text.txt').stat().st_size:,} bytes" in readme
    assert "Python Software Foundation License Version 2" in readme
    for name in MAKE.APART | MAKE.ENDED:
        assert f"`{name}`" in readme or name in {"tests", "idle_test"}
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in (SHIPPED / "LICENSE").read_text(encoding="utf-8")
