"""Every code of a problem or a note is documented, and every documented code is in use."""

import ast
import re
from pathlib import Path

import jaxsnn
from jaxsnn.problem_codes import CODES

PACKAGE = Path(jaxsnn.__file__).parent
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
    for path in PACKAGE.rglob("*.py")
    if path.name != "problem_codes.py"
}


def literals(node):
    """The texts that an expression may be: `"a"`, or `"a" if x else "b"`."""
    if isinstance(node, ast.IfExp):
        return literals(node.body) | literals(node.orelse)
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return {node.value} if is_text else set()


def codes():
    """The codes that the package spells, with the module of each."""
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            spelled = set()
            if isinstance(node, ast.keyword) and node.arg == "code":
                spelled = literals(node.value)
            elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                target_names = {target.id for target in targets if isinstance(target, ast.Name)}
                spelled = literals(node.value) if target_names & {"default_code", "code"} else set()
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "Fault" and node.args:
                spelled = literals(node.args[0])
            for code in spelled - {""}:
                yield code, module


def test_every_code_is_documented():
    assert {code: module for code, module in codes() if code not in CODES} == {}


def test_every_documented_code_is_in_use():
    texts = {
        node.value
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    composed = {"unknown-neuron", "unknown-source"}
    assert set(CODES) - texts - composed == set()


def test_codes_are_words_and_meanings_are_sentences():
    assert [code for code in CODES if not re.fullmatch(r"[a-z]+(-[a-z]+)*", code)] == []
    assert [text for text in CODES.values() if not text[0].isupper() or text.endswith(".")] == []
