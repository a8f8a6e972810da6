"""Files of many nodes are read in a time that grows with their number, and not with its square."""

import importlib
import itertools

import pytest

READING = importlib.import_module("jaxsnn.nir.parse")


class Counted(str):
    """A name that counts how often it is compared."""

    __slots__ = ()
    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Counted.comparisons += 1
        return str.__eq__(self, other)


@pytest.mark.parametrize("path", ["", "inner"])
def test_edges_are_looked_up_and_not_searched_for(path):
    names = tuple(Counted(f"n{number}") for number in range(1000))
    prefix = "inner." if path else ""  # exporters put the graph's name before some
    raw = tuple((Counted(a), Counted(f"{prefix}{b}")) for a, b in itertools.pairwise(names))
    flat = READING._Flat(nodes={}, repairs=[]) if path else None
    Counted.comparisons = 0
    found = READING._repaired_edges(raw, path, names, flat)
    assert found == list(itertools.pairwise(names))
    assert Counted.comparisons < 20 * len(raw)
