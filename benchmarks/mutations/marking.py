"""A mark before each mutated line of a copied tree, by which the line tells which test has come to it.

Quicker than tracing everything, and nothing is lost where a process is killed.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.mutations.drawing import Mutation

MARK = "nfa._mark"  # a module of the copy only
MODULE = '''
import os

MET = set()


def met(number):
    """Tell it once a process and test, whatever the test does with files."""
    line = f"{{number}}\\t{{os.environ.get('COVERING_TEST', '')}}\\n"
    if (os.getpid(), line) not in MET:
        MET.add((os.getpid(), line))
        try:
            file = os.open({folder!r} + f"/{{os.getpid()}}.met", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(file, line.encode())
            os.close(file)
        except OSError:
            pass
'''


def mark(copied: Path, mutations: Sequence[Mutation], out: Path) -> None:
    """Put a mark before the statement of each mutation that has one place; tests that meet it are told in `out`."""
    (copied / "nfa" / "_mark.py").write_text(MODULE.format(folder=str(out)), encoding="utf-8")
    places = [
        (*mutation.places(copied)[0], number)
        for number, mutation in enumerate(mutations)
        if _has_place(mutation, copied)
    ]
    for file in {file for file, _, _ in places}:
        source = file.read_text(encoding="utf-8")
        lines = source.splitlines(keepends=True)
        marks = [(*statement(source, line), number) for found, line, number in places if found == file]
        for line, indent, number in sorted(marks, reverse=True):
            lines.insert(line, f"{' ' * indent}__import__({MARK!r}, fromlist=['met']).met({number})\n")
        file.write_text("".join(lines), encoding="utf-8")


def _has_place(mutation: Mutation, tree: Path) -> bool:
    return len(mutation.places(tree)) == 1


def statement(source: str, line: int) -> tuple[int, int]:
    """Where the innermost statement that a line belongs to begins, counted from 0, and how far it is indented.

    An `elif` belongs to its `if`, before which alone another statement can stand.
    """
    lines = source.splitlines()
    around = [
        node
        for node in _statements(ast.parse(source))
        if node.lineno - 1 <= line < (node.end_lineno or 0) and not lines[node.lineno - 1].lstrip().startswith("elif")
    ]
    last = max(around, key=lambda node: (node.lineno, node.col_offset))
    return last.lineno - 1, last.col_offset


def _statements(tree: ast.AST) -> Iterator[ast.stmt]:
    """Those before which a line can be put: each that is the first of its line."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.stmt))
