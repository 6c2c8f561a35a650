"""Small wrong changes to a module's source, each of which a good test should notice."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

COMPARED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
COMPUTED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


class Mutant(NamedTuple):
    """A changed module: the line, what stood there and what stands there now, and the whole source."""

    line: int
    before: str
    after: str
    source: str


def mutants_of(source: str) -> list[Mutant]:
    """Return every single change of `source`, in the order of its lines; of those that give the same source, one."""
    tree = ast.parse(source)
    made = (_changed(tree, node, change) for node in _logic(tree) for change in _changes(node))
    distinct = {mutant.source: mutant for mutant in made if mutant}
    return sorted(distinct.values())


def _logic(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk what computes: neither annotations, type aliases, declarations of fields, `strict=True` nor the words of an error."""
    for child in ast.iter_child_nodes(tree):
        match child:
            case ast.Raise() | ast.arguments() | ast.Import() | ast.ImportFrom() | ast.JoinedStr() | ast.keyword(arg="strict"):
                continue
            case ast.Subscript(value=ast.Name(id="Literal")) | ast.Call(func=ast.Name(id="Field")):
                continue
        if child in (getattr(tree, "annotation", None), getattr(tree, "returns", None)):
            continue
        yield child
        yield from _logic(child)


def _changes(node: ast.AST) -> Iterator[Callable[[ast.AST], ast.AST]]:
    """Yield functions that change a copy of the node in place and return it, or return another in its stead."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARED:
            yield lambda new: _set(new, ops=[COMPARED[type(op)]()])
        case ast.BinOp(op=op) if type(op) in COMPUTED:
            yield lambda new: _set(new, op=COMPUTED[type(op)]())
        case ast.BoolOp(op=op):
            yield lambda new: _set(new, op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield lambda new: new.operand
        case ast.Constant(value=bool() as value):
            yield lambda new: _set(new, value=not value)
        case ast.Constant(value=int() | float() as value):
            yield lambda new: _set(new, value=value + 1)
        case ast.If(test=test) | ast.IfExp(test=test) if not isinstance(test, ast.Compare):
            yield lambda new: _set(new, test=ast.UnaryOp(ast.Not(), new.test))
        case ast.Expr(value=ast.Call()):
            yield lambda _: ast.Pass()
        case ast.Call(keywords=keywords):
            for number in (number for number, keyword in enumerate(keywords) if keyword.arg != "strict"):
                yield lambda new, number=number: _set(new, keywords=new.keywords[:number] + new.keywords[number + 1 :])
            for number in range(len(keywords) - 1):
                yield lambda new, number=number: _swapped(new, number)


def _set(node: ast.AST, **fields: object) -> ast.AST:
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def _swapped(call: ast.AST, number: int) -> ast.AST:
    first, second = call.keywords[number : number + 2]
    first.value, second.value = second.value, first.value
    return call


def _changed(tree: ast.Module, node: ast.AST, change: Callable[[ast.AST], ast.AST]) -> Mutant | None:
    """Return the module with that node changed; None where the change changes nothing."""
    memo: dict[int, object] = {}
    whole = copy.deepcopy(tree, memo)
    twin = memo[id(node)]
    before = _words(twin)
    changed = change(twin)
    if changed is not twin:
        _Replace(twin, changed).visit(whole)
    after = _words(changed)
    source = ast.unparse(ast.fix_missing_locations(whole))
    return Mutant(node.lineno, before, after, source) if after != before else None


def _words(node: ast.AST) -> str:
    text = ast.unparse(node.test) if isinstance(node, ast.If) else ast.unparse(node)
    return " ".join(text.split())


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)
