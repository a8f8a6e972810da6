"""Tables of capabilities: limits are applied in the order of nodes, and all tables are well formed."""

from dataclasses import replace
from itertools import pairwise

import pytest

from jaxsnn.bss2.capabilities import CIRCUITS
from jaxsnn.capabilities import Capabilities, Feature, Limit, Occurrence, at_node, unsupported
from jaxsnn.compatibility.tables import TABLES, importer_tables, rows_of
from jaxsnn.event.capabilities import EVENT
from jaxsnn.grid.capabilities import GRID
from jaxsnn.network import features
from jaxsnn.network.features import StaticNetwork
from jaxsnn.network.structure import Population, Wire
from jaxsnn.options import RESET
from jaxsnn.problem_codes import CODES
from jaxsnn.wording import for_command_line


def wire(name, kind, *sources, size=2):
    return Wire(name=name, kind=kind, sources=sources, shape=(size,))


def network(*populations):
    """Populations in a row, and the input before them."""
    node_names = ["input", *(population.name for population in populations)]
    wires = [wire("input", "input")]
    wires += [wire(name, "neuron", before) for before, name in pairwise(node_names)]
    return StaticNetwork(
        wires=wires, populations={population.name: population for population in populations}
    )


def neurons(name, **properties):
    return Population(**{"name": name, "kind": "CubaLIF", "size": 2, **properties})


LARGE = Feature(
    description="A large population",
    occurrences=lambda net: (
        Occurrence(population.name, size=population.size)
        for population in net.neurons
        if population.size > 100
    ),
)
LIMIT = Limit(
    feature=LARGE,
    code="cannot-lower",
    reason="node '{node}' has {size} neurons, more than 100",
    fix="reduce '{node}', or pass {reset}",
    options={"reset": at_node(RESET, "zero")},
)


def test_a_limit_from_outside_is_applied():
    table = replace(EVENT, limits=(*EVENT.limits, LIMIT))
    net = network(neurons("a", size=300, reset="none"), neurons("b"))
    assert [problem.code for problem in unsupported(net, EVENT)] == ["no-reset"]
    _, problem = unsupported(net, table)
    assert (problem.node, problem.code, problem.severity) == ("a", "cannot-lower", "error")
    assert problem.message == "node 'a' has 300 neurons, more than 100"
    assert dict(problem.facts) == {"node": "a", "size": 300}
    assert problem.fix == """reduce 'a', or pass reset={"a": "zero"}"""
    assert for_command_line(problem.fix) == "reduce 'a', or pass --reset a:zero"


def test_problems_are_in_the_order_of_nodes_and_of_the_table():
    any_network = Feature(description="Any network", occurrences=lambda net: [Occurrence(count=2)])
    of_any = Limit(feature=any_network, code="usage", reason="{count} populations", severity="note")
    table = Capabilities(title="small neurons", limits=(of_any, LIMIT, *EVENT.limits))
    net = network(neurons("z", reset="none"), neurons("a", reset="none", size=300))
    assert [(problem.node, problem.code) for problem in unsupported(net, table)] == [
        ("z", "no-reset"),
        ("a", "cannot-lower"),
        ("a", "no-reset"),
        ("", "usage"),
    ]


@pytest.mark.parametrize(("kind", "codes"), [("LIF", []), ("Foreign", ["resetting-readout"])])
def test_a_limit_has_exceptions(kind, codes):
    net = network(neurons("a", kind=kind, readout=True, resetting=True))
    problem_codes = [problem.code for problem in unsupported(net, GRID)]
    assert [code for code in problem_codes if code != "unsupported-node"] == codes


def test_one_feature_is_limited_by_several_simulators():
    limiting = [
        table
        for table in (EVENT, GRID, CIRCUITS)
        if any(getattr(row, "feature", None) is features.RESETTING_READOUT for row in table.limits)
    ]
    assert limiting == [EVENT, GRID, CIRCUITS]


def test_every_table_has_known_codes_and_descriptions():
    tables = [table for tables in TABLES.values() for table in tables]
    rows = [row for table in (*tables, *importer_tables().values()) for row in table.limits]
    assert [row.code for row in rows if isinstance(row, Limit) and row.code not in CODES] == []
    assert [row.description for row in rows if not row.description[0].isupper()] == []
    for simulator in TABLES:
        descriptions = [row.description for row in rows_of(simulator)]
        assert len(descriptions) == len(set(descriptions)), simulator
