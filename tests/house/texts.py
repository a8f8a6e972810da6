"""Collects the sentences of the package that users may read, for `tests/data/texts.md`.

    python -m tests.house.texts

Errors, advice, notes, help and captions are reviewed in that one file instead of in 300 modules.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SNAPSHOT = ROOT / "tests/data/texts.md"
#: Minimum number of words of a text; shorter strings are names, keys and formats.
MIN_WORDS = 3
#: Modules that write C++: only their instances of `Text` are sentences.
CODE_WRITERS = "jaxsnn/event/native/model_*.py"


def template(node: ast.AST) -> str | None:
    """Return a string as it is written, with the names of an f-string in braces.

    Other expressions are dots: how Python writes them depends on its version.
    """
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(_field, parts))
    return None


def _field(part: ast.AST) -> str:
    if isinstance(part, ast.FormattedValue):
        is_name = isinstance(part.value, ast.Name | ast.Attribute)
        return f"{{{ast.unparse(part.value)}}}" if is_name else "{...}"
    return template(part) or ""


def sentences(node: ast.AST, docstrings: frozenset[ast.AST] = frozenset()) -> Iterator[str]:
    """Yield the strings of some words below a node of a syntax tree, except docstrings."""
    has_docstring = isinstance(
        node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    )
    if has_docstring and node.body and isinstance(node.body[0], ast.Expr):
        # The first statement may also be `yield Text(...)`.
        docstrings = frozenset(
            {node.body[0].value} if template(node.body[0].value) is not None else ()
        )
    text = template(node)
    if text is None:
        for child in ast.iter_child_nodes(node):
            if child not in docstrings:
                yield from sentences(child, docstrings)
    elif len(words := text.split()) >= MIN_WORDS:
        yield " ".join(words)


def calls_of_text(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls of `Text`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Text":
            yield node


def snapshot() -> str:
    """Return all sentences of the package as one page, by module."""
    lines = [
        "# Sentences that users may read",
        "",
        "Written by `python -m tests.house.texts`.",
    ]
    for path in sorted((ROOT / "jaxsnn").rglob("*.py")):
        tree = ast.parse(path.read_text())
        nodes = calls_of_text(tree) if path.relative_to(ROOT).match(CODE_WRITERS) else [tree]
        texts = [text for node in nodes for text in sentences(node)]
        if texts:
            lines += ["", f"## {path.relative_to(ROOT)}", "", *(f"- {text}" for text in texts)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot())
