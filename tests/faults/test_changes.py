"""Changes of operators and numbers, and what is said to change nothing."""

import ast

import pytest

from tests.faults.changes import changeable, mutant
from tests.faults.mutants import ROOMS, ROOT, sample
from tests.faults.same_as_before import SAME

TEXT = '''
"""Text."""
from __future__ import annotations
LIMIT: float = 2.5
def of(value: int = 3) -> int:
    zip(strict=True)
    return (lambda x: x + 1)(value) if not value < LIMIT and f"{value - 1}" else value // 2
'''


def test_a_mutant_differs_in_one_place_and_says_where():
    mutants = [mutant(TEXT, number) for number in range(len(changeable(ast.parse(TEXT))))]
    assert {(mutated.change, mutated.function) for mutated in mutants} == {
        ("2.5 -> 3.5", ""),
        ("3 -> 4", ""),
        ("not value < LIMIT -> not not value < LIMIT", "of"),
        ("value < LIMIT -> value <= LIMIT", "of"),
        ("not value < LIMIT and f'{value - 1}' -> not value < LIMIT or f'{value - 1}'", "of"),
        ("x + 1 -> x - 1", "of.<locals>.<lambda>"),
        ("1 -> 2", "of.<locals>.<lambda>"),
        ("value // 2 -> value * 2", "of"),
        ("2 -> 3", "of"),
    }
    assert len({mutated.text for mutated in mutants}) == len(mutants)


def test_a_seed_chooses_the_changes_of_a_room():
    assert sample("checkpoint", 5, 1) == sample("checkpoint", 5, 1) != sample("checkpoint", 5, 2)


@pytest.mark.parametrize("room", ROOMS)
def test_the_files_and_tests_of_a_room_are_there(room):
    assert all(any(ROOT.glob(pattern)) for pattern in ROOMS[room].files)
    for test in (*ROOMS[room].tests, *ROOMS[room].exact):
        assert (ROOT / test.partition("::")[0]).exists()


def test_what_is_said_to_change_nothing_is_there_to_be_changed():
    for file, changes in SAME.items():
        text = (ROOT / file).read_text()
        lines, equivalent_lines = text.splitlines(), {line for line, _ in changes}
        numbers = [
            number
            for number, (node, *_) in enumerate(changeable(ast.parse(text)))
            if lines[node.lineno - 1].strip() in equivalent_lines
        ]
        mutants = [mutant(text, number) for number in numbers]
        assert set(changes) <= {(mutated.source, mutated.change) for mutated in mutants}, file
