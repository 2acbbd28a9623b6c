"""Mutations of the benchmark: what they change, and that they are found in another tree by their text alone."""

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.house import code_lines, function_lengths
from benchmarks.mutations.drawing import PARTS, Mutation, draw
from benchmarks.mutations.marking import mark, statement
from benchmarks.mutations.operators import changes
from benchmarks.mutations.trials import BUDGET, Coverage

SOURCE = '''"""Text."""

LIMIT = 3


def chosen(a: "list[int]", b: int = 2) -> bool:
    """a < b"""
    note(f"{a + b}")
    if not a and b < 1:
        return swap(a, b) == 0
'''


def test_every_operator_changes_code_in_functions_and_nothing_else() -> None:
    found = {(change.line, change.text.strip(), change.operator) for change in changes(SOURCE)}
    assert found == {
        (7, "return", "return early"),
        (8, "if not a or b < 1:", "and for or"),
        (8, "if (a) and b < 1:", "not dropped"),
        (8, "if not a and b >= 1:", "comparison flipped"),
        (8, "if not a and b < 2:", "constant plus 1"),
        (9, "return swap(b, a) == 0", "arguments swapped"),
        (9, "return swap(a, b) != 0", "comparison flipped"),
        (9, "return swap(a, b) == 1", "constant plus 1"),
    }
    for change in changes(SOURCE):
        lines = SOURCE.splitlines()
        lines[change.line] = change.text
        ast.parse("\n".join(lines))


def tree(folder: Path, prefix: str, extra: str = "") -> Path:
    for number, part in enumerate(PARTS.values()):
        file = folder / "nfa" / part[0] / f"{prefix}.py"
        file.parent.mkdir(parents=True)
        file.write_text(f"{extra}def f(x):\n    return x < {number}\n", encoding="utf-8")
    return folder


def test_the_same_seed_draws_the_same_from_every_part_and_finds_it_in_a_tree_that_was_moved(tmp_path: Path) -> None:
    here, moved = tree(tmp_path / "a", "one"), tree(tmp_path / "b", "other", "LIMIT = 1\n\n\n")
    first = draw([here, moved], 1, len(PARTS))
    assert first == draw([here, moved], 1, len(PARTS))
    assert [mutation.part for mutation in first] == list(PARTS)
    for mutation in first:
        ((file, line),) = mutation.places(moved)
        assert (file.name, line) == ("other.py", 4)


def test_a_line_that_stands_twice_or_not_at_all_has_no_place_of_its_own(tmp_path: Path) -> None:
    mutation = Mutation("maths", "def f(x):", "return x < 0", "", "return x >= 0", "comparison flipped")
    here = tree(tmp_path, "one")
    assert len(mutation.places(here)) == 1
    (here / "nfa" / "copy.py").write_text("class A:\n    def f(x):\n        return x < 0\n", encoding="utf-8")
    assert len(mutation.places(here)) == 2
    assert Mutation("maths", "", "return x < 0", "", "", "").places(here) == []


def test_tests_of_a_line_come_from_the_quickest_files_first_within_the_budget() -> None:
    tests = [("slow.py::a", BUDGET), ("quick.py::a", 1.0), ("quick.py::b", 1.0), ("other.py::a", 0.1)]
    covered = Coverage(tests, [[0, 1, 2], [0], []])
    assert covered.of(0) == ["quick.py::a", "quick.py::b"]
    assert covered.of(1) == ["slow.py::a"]
    assert covered.of(2) == []


BRANCHES = """def f(x):
    if x:
        return 1
    elif x < (
        3
    ):
        return 2
    try:
        pass
    except KeyError:
        x = (
            4
        )
"""


@pytest.mark.parametrize(
    ("line", "place"), [(2, (2, 8)), (3, (1, 4)), (4, (1, 4)), (6, (6, 8)), (11, (10, 8)), (9, (7, 4))]
)
def test_a_mark_stands_before_the_innermost_statement_that_it_can(line: int, place: tuple[int, int]) -> None:
    assert statement(BRANCHES, line) == place


def test_a_marked_line_tells_each_test_that_comes_to_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, out = tree(tmp_path / "a", "one"), tmp_path / "out"
    out.mkdir()
    mark(here, draw([here], 1, len(PARTS)), out)
    monkeypatch.setitem(sys.modules, "nfa._mark", module_of(here / "nfa" / "_mark.py"))
    marked = module_of(here / "nfa" / "maths" / "one.py")
    for name in ("a", "a", "b"):
        monkeypatch.setenv("COVERING_TEST", name)
        marked.f(1)
    (told,) = out.iterdir()
    assert told.read_text(encoding="utf-8") == "0\ta\n0\tb\n"


def module_of(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("source", "lines"), [(SOURCE, {3, 6, 8, 9, 10}), ("# a\n\nx = '''\n\n'''  # b\n", {3, 4, 5})])
def test_lines_of_code_are_without_docstrings_comments_and_blanks(source: str, lines: set[int]) -> None:
    assert code_lines(source) == lines


def test_a_function_is_as_long_as_its_code() -> None:
    assert list(function_lengths(SOURCE)) == [4]
