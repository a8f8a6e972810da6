"""The page for reviewing the wording of errors, notes and help is up to date."""

import ast

from tests.house.texts import SNAPSHOT, sentences, snapshot


def test_the_snapshot_of_all_sentences_is_current():
    assert SNAPSHOT.read_text() == snapshot(), "run python -m tests.house.texts"


def test_sentences_are_collected_with_their_expressions():
    module = '''
"""A docstring of several words."""
def refuse(node):
    """Another docstring of several words."""
    if node.silent:
        yield "a note in a branch"
    raise ValueError(f"node '{node.name}' has {count:d} spikes " + "in each of its steps", "a key")
'''
    assert list(sentences(ast.parse(module))) == [
        "a note in a branch",
        "node '{node.name}' has {count} spikes",
        "in each of its steps",
    ]


def test_a_text_in_the_first_statement_of_a_block_is_collected():
    module = """
def obstacles(unknown):
    if unknown:
        yield "the batch size is unknown"
"""
    assert list(sentences(ast.parse(module))) == ["the batch size is unknown"]
