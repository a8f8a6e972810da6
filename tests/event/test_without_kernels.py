"""`check` names what XLA runs because the native kernels do not cover it: the populations that
`EventDriven(backend="native")` refuses, and no others.
"""

import itertools

import numpy as np
import pytest

from jaxsnn import EventDriven, Events, simulate
from jaxsnn.compatibility.checks import check
from jaxsnn.errors import UsageError
from jaxsnn.nir import build

pytestmark = pytest.mark.usefixtures("native_kernels")

NEURONS = {
    "LIF": lambda: build.lif(tau="10ms"),
    "IF": build.integrate_and_fire,
    "CubaLIF": lambda: build.cubalif(tau_mem="10ms", tau_syn="5ms"),
}
STEPPED = {"dialect": "nir", "time_unit": "s", "dt": 1e-3}
EVENT = Events(time=[[1e-3]], index=[[0]])


def named(graph):
    """What `check` says of populations without kernels."""
    return [problem for problem in check(graph, "event").problems if problem.code == "by-xla"]


def is_refused(graph):
    """Whether the kernels do not cover it; what is wrong with it else is not looked at."""
    try:
        simulate(graph, EVENT, 5e-3, engine=EventDriven(backend="native"), throw=False)
    except UsageError as error:
        return "the native backend does not support" in error.problem.message
    return False


def alone(kind, kernel):
    layers = build.input(2), build.linear(weight=np.ones((3, 2))), NEURONS[kind]()
    return build.sequential(*layers, spike_kernel=kernel, **STEPPED)


def loop(kind, kernel):
    nodes = {
        "in": build.input(2),
        "w": build.linear(weight=np.ones((3, 2))),
        "n": NEURONS[kind](),
        "back": build.linear(weight=np.full((3, 3), 0.1)),
        "out": build.output(3),
    }
    chains = [("in", "w", "n", "out"), ("n", "back", "n")]
    return build.network(nodes, chains, spike_kernel=kernel, **STEPPED)


@pytest.mark.parametrize("make", [alone, loop])
@pytest.mark.parametrize(("kind", "kernel"), list(itertools.product(NEURONS, ("delta", "box"))))
def test_populations_without_kernels_are_named(make, kind, kernel):
    graph = make(kind, kernel)
    notes = named(graph)
    assert len(notes) == is_refused(graph)
    assert all(note.severity == "note" and note.node for note in notes)


def loop_of(first, second, **options):
    """Two populations, "a" and "b", that feed back into each other."""
    nodes = {
        "in": build.input(1),
        "w": build.linear(weight=[[1.0]]),
        "a": NEURONS[first](),
        "to b": build.linear(weight=[[1.0]]),
        "b": NEURONS[second](),
        "back": build.linear(weight=[[0.5]]),
        "out": build.output(1),
    }
    chains = [("in", "w", "a", "to b", "b", "out"), ("b", "back", "a")]
    return build.network(nodes, chains, **STEPPED, **options)


@pytest.mark.parametrize(
    ("kinds", "kernels", "why"),
    [
        (
            ("LIF", "CubaLIF"),
            ("box", "box"),
            "rectangular pulses drive a decaying synaptic current",
        ),
        (
            ("CubaLIF", "LIF"),
            ("delta", "box"),
            "some neurons of a cycle use rectangular pulses and others delta spikes",
        ),
        (
            ("LIF", "IF"),
            ("box", "delta"),
            "spikes within a cycle act directly on the membrane potential",
        ),
    ],
)
def test_a_loop_is_named_as_a_whole(kinds, kernels, why):
    graph = loop_of(*kinds, spike_kernel=dict(zip("ab", kernels, strict=True)))
    (note,) = named(graph)
    assert note.facts["nodes"] == "a, b"
    assert why in note.message
    assert is_refused(graph)


def test_loops_of_two_rules_are_named():
    """Neurons of a loop that are reset differently."""
    resets = {"a": "zero", "b": "subtract"}
    two_rules = loop_of("CubaLIF", "CubaLIF", reset=resets, spike_kernel="delta")
    (note,) = named(two_rules)
    assert note.facts["nodes"] == "a, b"
    assert "different reset rules" in note.message
    assert is_refused(two_rules)
