"""What the chip's side refuses of chips, options and mappings, in which words, and the way out."""

import dataclasses
import math

import numpy as np
import pytest

from jaxsnn.bss2.chip import SMALL, ChipError, self_check
from jaxsnn.bss2.emulate import EmulatedChip, emulate
from jaxsnn.bss2.json_entries import Entry, integers
from jaxsnn.bss2.netlist import NetPopulation, netlist
from jaxsnn.bss2.search.quantize import quantize
from jaxsnn.errors import MappingError, UsageError
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build

IDEAL = EmulatedChip(ideal=True)
IN, OUT = (
    NetPopulation(name="in", size=2, external=True),
    NetPopulation(name="out", size=2, external=False),
)


def graph():
    layers = build.input(2), build.linear(weight=np.ones((2, 2)))
    return build.sequential(*layers, build.cubalif(tau_mem="20ms", tau_syn="10ms"))


def readout_alone():
    layers = build.input(2), build.linear(weight=np.ones((2, 2)))
    return build.sequential(*layers, build.cubali(tau_mem="20ms", tau_syn="10ms"))


def two_inputs():
    nodes = {name: build.input(2) for name in "ab"}
    nodes |= {"w" + name: build.linear(weight=np.ones((2, 2))) for name in "ab"}
    nodes |= {"n": build.cubalif(2, tau_mem="20ms", tau_syn="10ms"), "out": build.output(2)}
    return build.network(nodes, [("a", "wa", "n", "out"), ("b", "wb", "n")])


def spikes(samples):
    return Events(time=np.zeros((samples, 1)), index=np.zeros((samples, 1), int))


def emulated(graph, inputs):
    return emulate(quantize(graph), None, inputs, 0.05, chip=IDEAL)


def entry(**content):
    return Entry(content, "mapping")


REFUSED = {
    "nothing fires": (
        lambda: emulated(readout_alone(), spikes(1)),
        MappingError,
        "no neuron fires",
        "give the network a spiking population",
    ),
    "another input": (
        lambda: emulated(two_inputs(), {"a": spikes(1)}),
        UsageError,
        "inputs are given for a, the network has a, b",
        "give events for each of them",
    ),
    "batches": (
        lambda: emulated(two_inputs(), {"a": spikes(1), "b": spikes(2)}),
        UsageError,
        "the inputs have different batch sizes {'a': 1, 'b': 2}",
        "use one size for all",
    ),
    "no end": (
        lambda: emulate(quantize(graph()), None, spikes(1), math.inf, chip=IDEAL),
        UsageError,
        "t_end is inf s",
        "pass a finite time after 0",
    ),
    "synapses twice": (
        lambda: netlist([IN, OUT], [0, 0], [2, 2], [1, 2]),
        MappingError,
        "1 synapses come twice, first 0 to 2",
        "add them up",
    ),
    "no bits": (
        lambda: self_check(dataclasses.replace(SMALL, weight_max=0)),
        ChipError,
        "has weight_max 0",
        "give it at least 1",
    ),
    "three buses": (
        lambda: self_check(dataclasses.replace(SMALL, buses=3)),
        ChipError,
        "has buses 3",
        "make it a power of two",
    ),
    "text for an integer": (
        lambda: entry(a="1").integer("a"),
        MappingError,
        "mapping: 'a' is ",
        "again",
    ),
    "a large integer": (
        lambda: entry(a=2**31).integer("a"),
        MappingError,
        "mapping: 'a' is 2147483648, beyond 2147483647",
        "again",
    ),
    "rows of two lengths": (
        lambda: integers([[1], [1, 2]], (2, 2), "mapping", "a"),
        MappingError,
        "mapping: 'a' is not a list of integers of equal lengths",
        "again",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_a_way_out(case):
    call, error, message, fix = REFUSED[case]
    with pytest.raises(error) as caught:
        call()
    assert message in caught.value.problem.message
    assert fix in caught.value.problem.fix
