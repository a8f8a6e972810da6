"""The netlist: sorted, checked, and the same whatever the order it was given in."""

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsnn.bss2.netlist import NetPopulation, netlist, synapses_of
from jaxsnn.errors import MappingError
from tests.helpers.refusals import assert_refused

IN, HIDDEN, OUT = (
    NetPopulation(name=name, size=size, external=name == "in")
    for name, size in (("in", 3), ("hidden", 4), ("out", 2))
)


def test_synapses_are_sorted_and_zeros_left_out():
    net = netlist([IN, HIDDEN], [2, 0, 1, 0], [4, 4, 3, 3], [5, -70, 0, 1])
    assert (net.pre.tolist(), net.post.tolist(), net.weight.tolist()) == (
        [0, 0, 2],
        [3, 4, 4],
        [1, -70, 5],
    )
    assert (net.pre.dtype, net.post.dtype, net.weight.dtype) == (np.int32, np.int32, np.int16)
    assert net.offsets.tolist() == [0, 3, 7]
    assert net.external.tolist() == [True] * 3 + [False] * 4
    assert (net.size, net.neuron(4)) == (7, "'hidden'[1]")
    with pytest.raises(ValueError, match="read-only"):
        net.weight[0] = 2


def test_fan_in_counts_synapses_of_the_chip_by_sign():
    net = netlist([IN, HIDDEN], [0, 1, 2, 3], [4, 4, 4, 4], [63, 64, -127, -1])
    excited, inhibited = net.fan_in()
    assert (excited[4], inhibited[4]) == (1 + 2, 3 + 1)
    assert net.fan_out().tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert synapses_of(net.weight).tolist() == [1, 2, 3, 1]


def test_a_fingerprint_is_of_the_net_and_not_of_its_order():
    pre, post, weight = np.array([0, 1, 2, 0]), np.array([3, 3, 4, 5]), np.array([1, 2, -3, 4])
    order = [3, 1, 0, 2]
    net = netlist([IN, HIDDEN], pre, post, weight)
    assert (
        net.fingerprint()
        == netlist([IN, HIDDEN], pre[order], post[order], weight[order]).fingerprint()
    )
    others = [
        netlist([IN, HIDDEN], pre, post, -weight),
        netlist([IN, HIDDEN], pre[::-1], post, weight),
        netlist([IN, HIDDEN], pre, post[::-1], weight),
        netlist([IN, HIDDEN, OUT], pre, post, weight),
        netlist([NetPopulation(name="x", size=3, external=True), HIDDEN], pre, post, weight),
    ]
    assert len({variant.fingerprint() for variant in (net, *others)}) == 6


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(3, 8)), unique=True, max_size=30))
def test_recurrent_components_are_those_of_networkx(pairs):
    pre, post = np.array(pairs, int).reshape(-1, 2).T
    net = netlist([IN, HIDDEN, OUT], pre, post, np.ones(len(pairs)))
    graph = networkx.DiGraph(pairs)
    expected = sorted(
        sorted(part)
        for part in networkx.strongly_connected_components(graph)
        if len(part) > 1 or any(graph.has_edge(member, member) for member in part)
    )
    assert [part.tolist() for part in net.recurrent_components()] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([IN, IN], [], [], []), "there are 2 populations named 'in'"),
        (([IN, HIDDEN], [0, 1], [3], [1]), "pre has 2 entries, post has 1 and weight has 1"),
        (([IN, HIDDEN], [0], [7], [1]), "target 7; the netlist has 7 neurons"),
        (([IN, HIDDEN], [-1], [3], [1]), "source -1"),
        (
            ([HIDDEN, IN], [0], [5], [1]),
            "population 'in' is an input, but the target of 1 synapses",
        ),
        (([IN, HIDDEN], [0, 0], [3, 3], [1, 2]), "listed twice: 1, the first from 0 to 3"),
        (([IN, HIDDEN], [0], [3], [40000]), "a weight is 40000; the largest magnitude is 32767"),
    ],
)
def test_what_is_no_netlist_is_refused(arguments, message):
    assert_refused(lambda: netlist(*arguments), MappingError, message)


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (([IN, IN], [], [], []), {"count": 2, "population": "in"}),
        (([IN, HIDDEN], [0], [7], [1]), {"end": "target", "index": 7, "size": 7}),
        (([IN, HIDDEN], [0, 0], [3, 3], [1, 2]), {"count": 1, "source": 0, "target": 3}),
        (([IN, HIDDEN], [0], [3], [40000]), {"value": 40000, "limit": 32767}),
    ],
)
def test_a_refused_netlist_has_its_numbers_as_facts(arguments, facts):
    assert assert_refused(lambda: netlist(*arguments), MappingError).facts == facts
