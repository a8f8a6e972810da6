"""What `print` shows of results: few lines, each of readable length, with the main numbers."""

from dataclasses import dataclass, field

import numpy as np
import pytest

import jaxsnn
from jaxsnn.nir import build
from jaxsnn.summary import MAX_CHARACTERS, MAX_FIELDS, summarised
from jaxsnn.train import Data, Splits, TrainOptions


@pytest.fixture(scope="module")
def results():
    """Results of the public functions by name."""
    graph = build.sequential(
        build.input(2), build.linear(40), build.cubalif(tau_mem="10ms", tau_syn="5ms"), seed=0
    )
    quantized = jaxsnn.quantize(graph)
    outcome = jaxsnn.place_and_route(quantized.netlist)
    network = jaxsnn.lower(graph)
    events = jaxsnn.Events(time=np.linspace(0, 0.01, 50)[None], index=np.zeros((1, 50), int))
    chip = jaxsnn.EmulatedChip(ideal=True)
    data = Data(x=np.zeros((200, 2)), y=np.zeros(200, int), classes=("zero",))
    return {
        "graph": graph,
        "dialect": graph.dialect,
        "layer": build.lif(tau="10ms"),
        "network": network,
        "events": events,
        "currents": jaxsnn.Currents.constant(np.ones((1, 2))),
        "solution": jaxsnn.simulate(network, events, t_end=0.02),
        "stream": jaxsnn.stream(network),
        "check": jaxsnn.check(graph, "bss2"),
        "unsupported": jaxsnn.check(graph, "snn_mlir"),
        "quantized": quantized,
        "netlist": quantized.netlist,
        "outcome": outcome,
        "mapping": outcome.mapping,
        "emulation": jaxsnn.emulate(quantized, outcome, events, t_end=0.02, chip=chip),
        "converted": jaxsnn.convert(graph, to="norse", dt=1e-3, approximate=True),
        "data": data,
        "splits": Splits(name="zeros", train=data, validation=data, test=data, bias=False),
        "options": TrainOptions(epochs=3),
    }


def test_results_print_as_about_ten_lines(results):
    long_texts = {
        name: len(str(result).splitlines())
        for name, result in results.items()
        if len(str(result).splitlines()) > MAX_FIELDS + 2
    }
    assert long_texts == {}


def test_reprs_of_results_have_short_lines(results):
    widths = {
        name: max(map(len, repr(result).splitlines()))
        for name, result in results.items()
        if not name.startswith("unsupported")
    }
    assert {name: width for name, width in widths.items() if width > MAX_CHARACTERS + 40} == {}


def test_reprs_show_shapes_and_only_options_that_were_set(results):
    assert "array (200, 2) float64" in repr(results["data"])
    assert repr(results["options"]) == "TrainOptions(\n  epochs: 3)"
    assert repr(results["stream"]) == "EventStream(0 s simulated, records '2')"


def test_a_check_prints_its_errors_first(results):
    first, *_, verdict = str(results["unsupported"]).splitlines()
    assert first.startswith("error: ")
    assert verdict.startswith("snn_mlir: not supported")


@summarised
@dataclass(frozen=True)
class _Record:
    name: str
    numbers: tuple = ()
    by_node: dict = field(default_factory=dict)
    function: object = None


def test_long_values_are_shown_by_their_number():
    record = _Record("a" * 200, tuple(range(100)), {f"node{n}": n for n in range(30)}, np.mean)
    lines = repr(record).splitlines()
    assert lines[0] == "_Record("
    assert lines[1].endswith("...")
    assert lines[2] == "  numbers: 100 x int"
    assert "30 entries: node0, node1" in lines[3]
    assert lines[4] == "  function: mean)"
    assert repr(_Record("b")) == "_Record(\n  name: 'b')"
