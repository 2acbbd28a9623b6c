"""`python -m benchmarks.house [TREE …]`: how large the code of each tree's nfa/ is, as JSON.

Lines of code hold code: none of them is blank, a comment alone, or a docstring's.
"""

import ast
import io
import json
import statistics
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> None:
    """Of the named trees, or of this one."""
    trees = sys.argv[1:] or [str(Path(__file__).resolve().parent.parent)]
    print(json.dumps({tree: size(Path(tree)) for tree in trees}, indent=1))


def size(tree: Path) -> dict[str, object]:
    """Lines of a tree's modules, whole ones and those of code, and of its functions, docstrings left out."""
    files = sorted((tree / "nfa").rglob("*.py"))
    sources = {file.relative_to(tree).as_posix(): file.read_text(encoding="utf-8") for file in files}
    modules = {name: len(source.splitlines()) for name, source in sources.items()}
    code = {name: code_lines(source) for name, source in sources.items()}
    functions = [length for source in sources.values() for length in function_lengths(source)]
    longest = sorted(modules, key=lambda name: -modules[name])[:5]
    return {
        "modules": len(modules),
        "code_lines": sum(map(len, code.values())),
        "lines": sum(modules.values()),
        "module_median": statistics.median(each for each in modules.values() if each),
        "module_longest": {name: modules[name] for name in longest},
        "functions": len(functions),
        "function_median": statistics.median(functions),
        "function_longest": max(functions),
    }


def code_lines(source: str) -> set[int]:
    """Numbers of the lines that hold code."""
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT:
            found.update(range(token.start[0], token.end[0] + 1))
    return found - {number for node in docstrings(ast.parse(source)) for number in _span(node)}


def docstrings(tree: ast.Module) -> Iterator[ast.Expr]:
    """Of the module, its classes and functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            assert isinstance(first, ast.Expr)
            yield first


def function_lengths(source: str) -> Iterator[int]:
    """Lines of code of each function, its signature counted."""
    code = code_lines(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            yield len(code.intersection(_span(node)))


def _span(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


if __name__ == "__main__":
    main()
