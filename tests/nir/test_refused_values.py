"""What reading, building and NIR data refuse, in which words, and the way out."""

from types import SimpleNamespace

import nir
import numpy as np
import pytest

from jaxsnn.errors import FileError, GraphError, LoweringError, UsageError
from jaxsnn.files.opening import read_text
from jaxsnn.files.read_limits import read_limits
from jaxsnn.network.lowering.lower import lower
from jaxsnn.nir import build, export, parse
from jaxsnn.nir.graphs.synapses import with_delayed_synapses
from jaxsnn.nir.io.reading import receive
from jaxsnn.nir.io.recorded_data import write_data
from jaxsnn.nir.layer_tables import graph_of_table
from jaxsnn.nir.model.passes import window
from jaxsnn.units import parse_time

TIMES = {"tau_mem": "20ms", "tau_syn": "10ms"}


def table(*layers, **changes):
    return graph_of_table({"input": 3, "layers": list(layers)} | TIMES | changes)


def graph_of(*layers):
    return build.sequential(build.input(2), *layers, build.output(2))


def child_of(content):
    """What a reading process sends, from which the other one reads."""
    remaining = bytearray(content)

    def read(count):
        chunk, remaining[:count] = bytes(remaining[:count]), b""
        return chunk

    return SimpleNamespace(read=read)


def undecoded(folder, monkeypatch):
    (folder / "a.toml").write_bytes(b"\xff\xfe\xff")
    return read_text(folder / "a.toml", "a configuration")


def limited_by_text(folder, monkeypatch):
    monkeypatch.setenv("JAXSNN_MAX_BYTES", "2 GiB")
    return read_limits()


def with_copies():
    graph = build.network(
        {
            "in": build.input(2),
            "w": build.linear(weight=np.ones((2, 2))),
            "w_copies": build.cubalif(2, **TIMES),
            "out": build.output(2),
        },
        [("in", "w", "w_copies", "out")],
    )
    return with_delayed_synapses(graph, "w", np.ones((2, 2)))


def matrix_of_three_axes():
    nodes = {"in": nir.Input(np.array([2, 2])), "w": nir.Linear(np.ones((2, 2, 2)))}
    nodes["out"] = nir.Output(np.array([2, 2]))
    return lower(
        parse(nir.NIRGraph(nodes, [("in", "w"), ("w", "out")], type_check=False), dialect="nir")
    )


def parse_layer(**options):
    return parse(export(graph_of(build.lif(2, tau="1ms"))), **{"dialect": "norse"} | options)


HIDDEN = {"neurons": 4, "weight": [0.5, 0.1]}
REFUSED = {
    "two kinds of layer": (
        lambda *_: table(HIDDEN | {"pool": 2}),
        UsageError,
        "has neurons and pool",
        "specify only one of them",
    ),
    "a deviation below 0": (
        lambda *_: table(HIDDEN | {"weight": [0.5, -0.1]}),
        UsageError,
        "network, layer 1: weight is [0.5, -0.1]",
        "specify [mean, standard deviation]",
    ),
    "a truth for a time": (
        lambda *_: table(HIDDEN, tau_mem=True),
        UsageError,
        "network: tau_mem is ",
        'specify a time with its unit, such as "10ms"',
    ),
    "a flat convolution": (
        lambda *_: table({"channels": 2, "kernel": 3, "weight": [0.5, 0.1]}),
        UsageError,
        "network, layer 1 is a convolution, and its input is flat",
        "write input = [planes, rows, columns]",
    ),
    "a unit": (
        lambda *_: parse_time("3 fortnights"),
        UsageError,
        "'3 fortnights' has the unknown unit 'fortnights'",
        "use one of s, ms, us, ns",
    ),
    "a time that is no number": (
        lambda *_: parse_time([1]),
        UsageError,
        "[1] is not a time",
        "pass a number with a unit",
    ),
    "a time beyond all numbers": (
        lambda *_: parse_time(10**400),
        UsageError,
        "inf is not a time",
        "pass a number with a unit",
    ),
    "a dialect that is no name": (
        lambda *_: parse_layer(dialect=5),
        UsageError,
        "dialect=5 is not the name of a dialect",
        "pass one of auto, ",
    ),
    "a readout that is no name": (
        lambda *_: parse_layer(readout=True),
        UsageError,
        "readout refers to node 'True', which is not a neuron of the graph",
        "Available: 1",
    ),
    "a node that is no name": (
        lambda *_: parse_layer(reset={1: "zero"}),
        UsageError,
        "reset refers to node '1', which is not a neuron of the graph",
        "Available: 1",
    ),
    "a readout that is neither": (
        lambda *_: parse_layer(readout={"1": "maybe"}),
        UsageError,
        'readout="maybe" is not a valid value',
        "pass one of true, false",
    ),
    "no text": (
        undecoded,
        FileError,
        "a.toml is not text, so it cannot be a configuration",
        "pass a configuration",
    ),
    "a limit in words": (
        limited_by_text,
        UsageError,
        "JAXSNN_MAX_BYTES is '2 GiB'",
        "set it to a number of bytes",
    ),
    "a window of neurons": (
        lambda *_: window(graph_of(build.cubalif(2, **TIMES)).nodes["1"]),
        GraphError,
        "node '1' (CubaLIF) has no window",
        "call this function for a convolution or a pool",
    ),
    "delays of no synapses": (
        lambda *_: with_delayed_synapses(graph_of(build.cubalif(2, **TIMES)), "1", np.ones((2, 2))),
        GraphError,
        "node '1' is not a Linear or Affine",
        "pass the name of the node whose weights have the delays",
    ),
    "a name that is taken": (
        lambda *_: with_copies(),
        GraphError,
        "the graph already has a node 'w_copies', which is the name for the delays of 'w'",
        "rename it",
    ),
    "three axes": (
        lambda *_: matrix_of_three_axes(),
        LoweringError,
        "node 'w' (Linear): weight has shape (2, 2, 2)",
        "use the shape (outputs, inputs)",
    ),
    "data of no node": (
        lambda folder, _: write_data(folder / "a.nir", nir.NIRGraphData(nodes={"n": 3})),
        GraphError,
        "the data of node 'n' have the type int",
        "use NIRNodeData or NIRGraphData",
    ),
    "data of no kind": (
        lambda folder, _: write_data(
            folder / "a.nir",
            nir.NIRGraphData(nodes={"n": nir.NIRNodeData(observables={"spikes": 3})}),
        ),
        GraphError,
        "the data of observable 'n.spikes' have the type int",
        "use TimeGriddedData or EventData",
    ),
    "a long header": (
        lambda *_: receive(child_of(b"\xff" * 8), "net.nir"),
        FileError,
        "the names in net.nir exceed the limit of ",
        "export it again",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_of_values_name_a_way_out(case, tmp_path, monkeypatch):
    call, error, message, fix = REFUSED[case]
    with pytest.raises(error) as caught:
        call(tmp_path, monkeypatch)
    assert message in caught.value.problem.message
    assert fix in caught.value.problem.fix


def test_a_readout_that_is_none_stays_a_neuron_that_fires():
    nodes = {"1": False}
    assert parse_layer(readout=nodes).dialect.nodes == {}
    assert parse_layer(readout={"1": True}).dialect.nodes["1"]["readout"] is True
