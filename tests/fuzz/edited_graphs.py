"""Machines of edits for hypothesis: a graph that is edited step by step is written and read again, or
refused; a network that is converted again and again keeps its spikes, or is refused.

    python -m tests.fuzz.edited_graphs [--examples 200] [--steps 12]
"""

import argparse
import sys

import jax
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from jaxsnn import TimeStepped, lower, simulate
from jaxsnn.errors import FileError, JaxsnnError
from jaxsnn.nir import parse
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.frameworks.registry import writable
from jaxsnn.nir.graphs.export import nir_bytes
from jaxsnn.nir.io.files import Dataset, Group, _load_image, text_dataset
from tests.helpers.lif_chains import two_layers
from tests.helpers.random_spikes import random_raster

_NAMES = st.sampled_from(["input", "output", "a", "b", "c", "1", "10", "2", "a.b", "fc/1", "ä"])
#: Numbers of neurons; edges between different numbers are invalid.
_SIZES = st.sampled_from([1, 2, 2, 2, 3])
_VALUES = st.floats(0.5, 2.0, width=32)


def _numbers(value):
    array = np.asarray(value)
    return Dataset(value=array, dtype=array.dtype)


def _node(kind, size, value):
    """The parameters of a node, by NIR's names."""
    full = np.full(size, value)
    return {
        "Input": lambda: {"shape": np.array([size])},
        "Output": lambda: {"shape": np.array([size])},
        "Scale": lambda: {"scale": full},
        "Linear": lambda: {"weight": np.full((size, size), value)},
        "Affine": lambda: {"weight": np.full((size, size), value), "bias": full},
        "Threshold": lambda: {"threshold": full},
        "LIF": lambda: {"tau": full, "r": full, "v_leak": 0 * full, "v_threshold": full},
        "LI": lambda: {"tau": full, "r": full, "v_leak": 0 * full},
        "Delay": lambda: {"delay": full},
    }[kind]()


_KINDS = ("Input", "Output", "Scale", "Linear", "Affine", "Threshold", "LIF", "LI", "Delay")


class EditedGraph(RuleBasedStateMachine):
    """Nodes and edges come, go and change their names; after each the graph is looked at."""

    @initialize(size=_SIZES)
    def begin(self, size):
        self.nodes = {
            name.lower(): (name, _node(name, size, 1.0)) for name in ("Input", "Scale", "Output")
        }
        self.edges = [("input", "scale"), ("scale", "output")]

    @rule(name=_NAMES, kind=st.sampled_from(_KINDS), size=_SIZES, value=_VALUES)
    def put_a_node(self, name, kind, size, value):
        self.nodes[name] = (kind, _node(kind, size, value))

    @rule(data=st.data(), name=_NAMES, kind=st.sampled_from(_KINDS[2:]), value=_VALUES)
    def put_a_node_into_an_edge(self, data, name, kind, value):
        if not self.edges or name in self.nodes:
            return
        place = data.draw(st.integers(0, len(self.edges) - 1))
        before, behind = self.edges[place]
        size = max(np.shape(next(iter(self.nodes[before][1].values()))) or (1,))
        size = size if self.nodes[before][0] not in ("Input", "Output") else None
        size = int(self.nodes[before][1]["shape"][0]) if size is None else size
        self.nodes[name] = (kind, _node(kind, size, value))
        self.edges[place : place + 1] = [(before, name), (name, behind)]

    @rule(data=st.data())
    def remove_a_node(self, data):
        if not self.nodes:
            return
        name = data.draw(st.sampled_from(sorted(self.nodes)))
        del self.nodes[name]
        self.edges = [edge for edge in self.edges if name not in edge]

    @rule(data=st.data(), new=_NAMES)
    def rename_a_node(self, data, new):
        if not self.nodes or new in self.nodes:
            return
        old = data.draw(st.sampled_from(sorted(self.nodes)))
        self.nodes = {new if name == old else name: node for name, node in self.nodes.items()}
        self.edges = [tuple(new if end == old else end for end in edge) for edge in self.edges]

    @rule(data=st.data())
    def connect(self, data):
        if not self.nodes:
            return
        node_names = st.sampled_from(sorted(self.nodes))
        self.edges.append((data.draw(node_names), data.draw(node_names)))

    @rule(data=st.data())
    def disconnect(self, data):
        if self.edges:
            self.edges.pop(data.draw(st.integers(0, len(self.edges) - 1)))

    def document(self, *, backwards=False):
        """As a file has it."""
        step = -1 if backwards else 1
        nodes = Group(
            {
                name: Group(
                    {"type": text_dataset(kind)}
                    | {key: _numbers(value) for key, value in numbers.items()}
                )
                for name, (kind, numbers) in [*self.nodes.items()][::step]
            }
        )
        edges = text_dataset([list(edge) for edge in self.edges][::step])
        if not self.edges:
            edges = _numbers(np.zeros((0, 2)))
        graph = Group({"type": text_dataset("NIRGraph"), "nodes": nodes, "edges": edges})
        return Group({"version": text_dataset("1.0.8"), "node": graph})

    @invariant()
    def it_is_written_and_read_again_or_refused(self):
        if not hasattr(self, "nodes"):
            return
        try:
            graph = parse(self.document(), dialect="nir")
        except JaxsnnError as error:
            refuse_no_advice(error)
            return
        if not graph.repairs:
            assert {name: node.type for name, node in graph.nodes.items()} == {
                name: kind for name, (kind, _) in self.nodes.items()
            }
            assert sorted(graph.edges) == sorted(self.edges)
        try:
            image = nir_bytes("edited.nir", graph)
        except FileError as error:
            refuse_no_advice(error)
            if not any("/" in name for name in self.nodes):
                raise
            return
        again = parse(_load_image(image))
        refuse_other(graph, again)
        assert nir_bytes("edited.nir", again) == image
        refuse_other(graph, parse(self.document(backwards=True), dialect="nir"))


def refuse_no_advice(error):
    """Fail where a refusal does not say what to do, or takes more than a line for it."""
    assert error.problem.fix, error
    assert "\n" not in str(error)


def refuse_other(graph, again):
    """Fail where two graphs are not the same, to the last bit."""
    assert again.order() == graph.order()
    assert sorted(again.edges) == sorted(graph.edges)
    assert list(again.nodes) == list(graph.nodes)
    for name, node in graph.nodes.items():
        read_node = again.nodes[name]
        assert read_node.type == node.type
        assert read_node.parameters.keys() == node.parameters.keys()
        for key, value in node.parameters.items():
            stored, expected = np.asarray(read_node.parameters[key]), np.asarray(value)
            assert (stored.dtype, stored.shape) == (expected.dtype, expected.shape), (name, key)
            assert stored.tobytes() == expected.tobytes(), (name, key)


# -- conversions


def _played(graph, x):
    network = lower(graph, dtype=np.float64)
    return np.asarray(simulate(network, x, engine=TimeStepped()).output())


_SOURCES = (
    *(("snntorch", "zero"), ("snntorch", "subtract"), ("norse", "zero")),
    *(("spikingjelly", "zero"), ("spikingjelly", "subtract"), ("spyx", "subtract")),
)


class ConvertedNetwork(RuleBasedStateMachine):
    """A network goes from framework to framework, and sometimes through a file."""

    @initialize(
        source=st.sampled_from(_SOURCES),
        seed=st.integers(0, 2**16),
    )
    def begin(self, source, seed):
        self.graph = two_layers(*source, inputs=4, sizes=(6, 3), seed=seed)
        self.x = random_raster(seed, (24, 2, 4), 0.4)
        self.y, self.late = _played(self.graph, self.x), 0
        self.spikes = self.y

    @rule(to=st.sampled_from(sorted(writable())))
    def convert(self, to):
        try:
            conversion = convert(self.graph, to=to)
            spikes = _played(conversion.graph, self.x)
        except JaxsnnError as error:
            refuse_no_advice(error)
            return
        self.graph, self.spikes = conversion.graph, spikes
        self.late += next(iter(conversion.shift.values()), 0)

    @rule()
    def write_and_read(self):
        self.graph = parse(_load_image(nir_bytes("converted.nir", self.graph)))
        self.spikes = _played(self.graph, self.x)

    @invariant()
    def spikes_are_the_same(self):
        if not hasattr(self, "y"):
            return
        # Compare the steps that both have: converted spikes are shifted by `late` steps.
        steps = len(self.y) - 4
        first, second = max(0, -self.late), max(0, self.late)
        np.testing.assert_array_equal(
            self.spikes[second : second + steps], self.y[first : first + steps]
        )


def run(machine, examples, steps, *, derandomize=True):
    """So many runs of a machine; what fails raises, with the steps that led there."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=derandomize,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def main(argv=None):
    """Many runs of both machines, others each time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args(argv)
    for machine, share in ((EditedGraph, 1), (ConvertedNetwork, 10)):
        examples = max(arguments.examples // share, 1)
        with jax.enable_x64(True):
            run(machine, examples, arguments.steps, derandomize=False)
        sys.stdout.write(f"{machine.__name__}: {examples} runs of {arguments.steps} steps\n")


if __name__ == "__main__":
    main()
