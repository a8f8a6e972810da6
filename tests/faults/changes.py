"""Operators, comparisons and numbers of a module that can be changed, one at a time."""

import ast
import copy
import dataclasses

_OTHER: dict[type, type] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.UAdd: ast.USub, ast.USub: ast.UAdd},
}
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mutant:
    """A module with one change.

    Attributes:
        text: The whole module.
        line: Where it differs, and `source` what is written there.
        change: Before and after, as Python.
        within: Names of the classes and functions around it, with dots; "" at the top.
        function: Name of the innermost function whose body has it, as `__qualname__`; "": it is run
            where the module is loaded.
    """

    text: str
    line: int
    source: str
    change: str
    within: str
    function: str


def _has_other(node):
    """Whether there is another of its kind to put in its place."""
    if isinstance(node, ast.Compare):
        return type(node.ops[0]) in _OTHER
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float)
    if isinstance(node, ast.BinOp | ast.UnaryOp | ast.BoolOp):
        return type(node.op) in _OTHER or isinstance(node.op, ast.Not)
    return False


def changeable(tree):
    """The nodes that can be changed, none of them in annotations, decorators or texts, nor the guard
    `strict=` of zip; each with the names around it and the name of its function.
    """
    places = []

    def look(node, scope, function):
        if isinstance(node, ast.JoinedStr | ast.AnnAssign | ast.ImportFrom | ast.Import):
            if isinstance(node, ast.AnnAssign) and node.value is not None:
                look(node.value, scope, function)
            return
        if isinstance(node, ast.keyword) and node.arg == "strict":
            return
        if _has_other(node):
            places.append((node, _dotted(scope), function))
        own_scope = _own_names(node)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            inside = name == "body"
            runs = isinstance(node, _FUNCTIONS) and inside
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    look(
                        child,
                        [*scope, *own_scope] if inside else scope,
                        ".".join([*scope, *own_scope[:1]]) if runs else function,
                    )

    look(tree, [], "")
    return places


def _own_names(node):
    """What a class or function adds to the names of what is in it."""
    if isinstance(node, ast.ClassDef):
        return [node.name]
    if isinstance(node, _FUNCTIONS):
        return [getattr(node, "name", "<lambda>"), "<locals>"]
    return []


def _dotted(scope):
    return ".".join(name for name in scope if name != "<locals>")


def mutant(text, number):
    """The module of this text with one change, by its number among those of `changeable`."""
    tree = ast.parse(text)
    node, within, function = changeable(tree)[number]
    before = ast.unparse(copy.deepcopy(node))
    if isinstance(node, ast.Compare):
        node.ops[0] = _OTHER[type(node.ops[0])]()
    elif isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        node.op = ast.Not()
        node.operand = ast.UnaryOp(op=ast.Not(), operand=node.operand)
    else:
        node.op = _OTHER[type(node.op)]()
    change = f"{before} -> {ast.unparse(node)}"
    return Mutant(
        text=ast.unparse(tree),
        line=node.lineno,
        source=text.splitlines()[node.lineno - 1].strip(),
        change=change,
        within=within,
        function=function,
    )
