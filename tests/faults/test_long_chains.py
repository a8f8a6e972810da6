"""Files of many nodes are read in a time that grows with their number, and not with its square."""

import importlib
import itertools
import sys
from contextlib import suppress

import numpy as np
import pytest

from jaxsnn.compatibility.checks import check
from jaxsnn.errors import JaxsnnError
from jaxsnn.nir import describe, parse
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.graphs.export import document_of_graph
from jaxsnn.nir.io.files import Dataset, Group, text_dataset
from jaxsnn.nir.model.description import as_text
from jaxsnn.plot.graph_drawing import dot, mermaid, svg

READING = importlib.import_module("jaxsnn.nir.graphs.parse")


class Counted(str):
    """A name that counts how often it is compared."""

    __slots__ = ()
    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, text):
        Counted.comparisons += 1
        return str.__eq__(self, text)


@pytest.mark.parametrize("path", ["", "inner"])
def test_edges_are_looked_up_and_not_searched_for(path):
    node_names = tuple(Counted(f"n{number}") for number in range(1000))
    prefix = "inner." if path else ""  # exporters prefix some names by the graph's
    raw = tuple((Counted(a), Counted(f"{prefix}{b}")) for a, b in itertools.pairwise(node_names))
    flat = READING._Flat(nodes={}, repairs=[]) if path else None
    Counted.comparisons = 0
    edges = READING._repaired_edges(raw, path, node_names, flat)
    assert edges == list(itertools.pairwise(node_names))
    assert Counted.comparisons < 20 * len(raw)


# -- complete operations, measured in calls


def numbers(value):
    return Dataset(value=np.asarray(value), dtype=np.asarray(value).dtype)


def chain(count, *, sized=True, loop=False, fan=False):
    """A document of so many Scales, one after the other, or (`fan`) beside each other.

    Args:
        sized: the Scales and the Input have a shape; else only a Linear at the end has.
        loop: the last feeds the first.
    """
    ends = {
        name: Group({"type": text_dataset(name), "shape": numbers([2])})
        for name in ("Input", "Output")
    }
    if not sized:
        ends = {
            "Input": Group({"type": text_dataset("Input")}),
            "Output": Group({"type": text_dataset("Output")}),
        }
    scale = numbers(np.ones(2) if sized else 1.0)
    scale_names = [f"s{number}" for number in range(count)]
    last = (
        {}
        if sized
        else {"w": Group({"type": text_dataset("Linear"), "weight": numbers(np.ones((2, 2)))})}
    )
    nodes = {name: Group({"type": text_dataset("Scale"), "scale": scale}) for name in scale_names}
    edges = [*itertools.pairwise(["Input", *scale_names, *last, "Output"])]
    if fan:
        edges = [edge for name in scale_names for edge in (("Input", name), (name, "Output"))]
    if loop:
        edges.append((scale_names[-1], scale_names[0]))
    graph = {
        "type": text_dataset("NIRGraph"),
        "nodes": Group(ends | nodes | last),
        "edges": text_dataset([list(edge) for edge in edges]),
    }
    return Group({"version": text_dataset("1.0.8"), "node": Group(graph)})


CHAINS = {
    "a chain": {},
    "a chain whose size is known at its end": {"sized": False},
    "a ring": {"loop": True},
    "a fan": {"fan": True},
}
#: Operations on a graph that need no simulation.
WAYS = {
    "describe": lambda graph: (describe(graph), as_text(graph)),
    "draw": lambda graph: (svg(graph), dot(graph), mermaid(graph)),
    "write": document_of_graph,
    "check for event": lambda graph: check(graph, "event"),
    "check for grid": lambda graph: check(graph, "grid"),
    "check for bss2": lambda graph: check(graph, "bss2"),
    "check for norse": lambda graph: check(graph, "norse"),
    "convert": lambda graph: convert(graph, to="norse", dt="1ms"),
}


def work(function, *arguments):
    """Calls that a function makes, of Python and of C."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        with suppress(JaxsnnError):
            function(*arguments)
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("kind", CHAINS)
def test_the_work_grows_with_the_number_of_nodes(kind):
    documents = [chain(count, **CHAINS[kind]) for count in (40, 80, 160)]
    parse(documents[0], dialect="nir")  # imports do not count
    for action in WAYS.values():
        work(action, parse(documents[0], dialect="nir"))
    spent = {"parse": [work(lambda d: parse(d, dialect="nir"), document) for document in documents]}
    graphs = [parse(document, dialect="nir") for document in documents]
    for name, action in WAYS.items():
        spent[name] = [work(action, graph) for graph in graphs]
    # From one doubling to the next, linear growth doubles and quadratic growth quadruples.
    growth = {name: (b - a, c - b) for name, (a, b, c) in spent.items()}
    wrong = {
        name: later / former for name, (former, later) in growth.items() if later > 2.6 * former
    }
    assert wrong == {}


@pytest.mark.slow
def test_a_hundred_thousand_nodes_are_read_and_described(tmp_path):
    from jaxsnn.commands.cli import main
    from jaxsnn.nir.io.files import save

    save(tmp_path / "long.nir", chain(100_000))
    assert main(["info", str(tmp_path / "long.nir"), "--dialect", "nir", "-q"]) == 0
