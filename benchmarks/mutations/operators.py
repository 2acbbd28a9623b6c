"""What a mutation does to an expression or a statement."""

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Change(NamedTuple):
    """A line, counted from 0, as it becomes."""

    line: int
    text: str
    operator: str


def changes(source: str) -> Iterator[Change]:
    """Every change of one line inside a function's body."""
    lines = source.splitlines()
    for node in _inside(ast.parse(source)):
        for name, other in _others(node):
            if node.lineno == node.end_lineno:
                line = lines[node.lineno - 1].encode()
                text = line[: node.col_offset] + other.encode() + line[node.end_col_offset :]
                yield Change(node.lineno - 1, text.decode(), name)


def _inside(tree: ast.AST) -> Iterator[ast.expr | ast.Expr]:
    """Expressions in functions, and statements that are nothing else; strings with values in them have no places."""
    for function in ast.walk(tree):
        if isinstance(function, Function):
            for statement in function.body:
                yield from _below(statement)


def _below(node: ast.AST) -> Iterator[ast.expr | ast.Expr]:
    if isinstance(node, Function | ast.ClassDef | ast.JoinedStr):
        return  # a function is visited by itself
    if isinstance(node, ast.expr | ast.Expr):
        yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _below(child)


def _others(node: ast.expr | ast.Expr) -> Iterator[tuple[str, str]]:
    """Operators that fit a node, and what it is afterwards."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "return early", "return"
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield "comparison flipped", _text(node, ops=[COMPARED[type(node.ops[0])]()])
    if isinstance(node, ast.BinOp) and type(node.op) in COMPUTED:
        yield "other arithmetic", _text(node, op=COMPUTED[type(node.op)]())
    if isinstance(node, ast.BoolOp):
        yield "and for or", _text(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not dropped", f"({ast.unparse(node.operand)})"
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield "constant plus 1", repr(node.value + 1)  # type: ignore[operator]
    if isinstance(node, ast.Call) and len(node.args) > 1 and not _starred(node.args[:2]):
        yield "arguments swapped", _text(node, args=[node.args[1], node.args[0], *node.args[2:]])


def _starred(nodes: list[ast.expr]) -> bool:
    return any(isinstance(node, ast.Starred) for node in nodes)


def _text(node: ast.expr, **changed: object) -> str:
    other = copy.copy(node)
    for name, value in changed.items():
        setattr(other, name, value)
    return ast.unparse(other)
