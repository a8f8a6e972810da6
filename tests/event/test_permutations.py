"""Numbering does not matter: results are the same, renumbered, when neurons, channels and nodes are.

Weights are whole numbers and inputs come together, so that much of what happens here happens at one
time.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.network.network import Network
from jaxsnn.nir import build

pytestmark = pytest.mark.usefixtures("x64")

INPUTS, FIRST, SECOND, EVENTS, DRAWS = 4, 5, 3, 16, 12
ENGINE = EventDriven(max_spikes=250, max_events=800)
CHAINS = {
    "feed-forward": [("in", "w", "a", "wa", "b", "out"), ("in", "skip", "b")],
    "loop": [
        ("in", "w", "a", "wa", "b", "out"),
        ("in", "skip", "b"),
        ("a", "own", "a"),
        ("b", "back", "a"),
    ],
}
SHAPES = {
    "w": (FIRST, INPUTS),
    "wa": (SECOND, FIRST),
    "skip": (SECOND, INPUTS),
    "own": (FIRST, FIRST),
    "back": (FIRST, SECOND),
}
SIZES = {"in": INPUTS, "a": FIRST, "b": SECOND}
SOURCE = {"w": "in", "wa": "a", "skip": "in", "own": "a", "back": "b"}
TARGET = {"w": "a", "wa": "b", "skip": "b", "own": "a", "back": "a"}


def weights(rng):
    """Whole numbers, inhibitory on the way back, so that nothing fires without end."""
    drawn = {name: rng.integers(-1, 3, shape).astype(float) for name, shape in SHAPES.items()}
    return drawn | {name: -abs(drawn[name]) for name in ("own", "back")}


def run_of(kind, neuron, renaming, reset):
    """Compiled: spikes of the populations a and b for weights and inputs."""
    used = {name for chain in CHAINS[kind] for name in chain}
    nodes = {"in": build.input(INPUTS), "out": build.output(), "a": neuron, "b": neuron}
    for name in SHAPES.keys() & used:
        nodes[name] = build.linear(SHAPES[name][0], weight=np.ones(SHAPES[name]))
    chains = [tuple(renaming.get(name, name) for name in chain) for chain in CHAINS[kind]]
    renamed = {renaming.get(name, name): nodes[name] for name in nodes}
    network = lower(build.network(dict(sorted(renamed.items())), chains), dtype=float)
    populations = {
        name: replace(population, reset=reset) for name, population in network.populations.items()
    }
    network = Network(parameters=network.parameters, wires=network.wires, populations=populations)

    @jax.jit
    def run(weight, events):
        changed = {renaming.get(key, key): {"weight": weight[key]} for key in SHAPES.keys() & used}
        changed_network = network.with_parameters({**network.parameters, **changed})
        solution = simulate(changed_network, events, 1.0, engine=ENGINE, throw=False)
        return solution.result, {key: solution.spikes[renaming.get(key, key)] for key in ("a", "b")}

    return run


def events_of(time, index):
    return Events(time=jnp.asarray(time), index=jnp.asarray(index, jnp.int32))


NEURONS = {
    "IF": build.integrate_and_fire(v_threshold=1.0),
    "LIF": build.lif(tau=1.0, v_threshold=1.0),
    "CubaLIF": build.cubalif(tau_mem=0.2, tau_syn=0.1, v_threshold=0.5),
}


#: Slow cases, whose features other cases cover, too.
SLOW = {("LIF", "zero"), ("LIF", "subtract"), ("CubaLIF", "subtract")}
CASES = [
    pytest.param(neuron, kind, reset, marks=[pytest.mark.slow] * ((neuron, reset) in SLOW))
    for neuron in NEURONS
    for kind in CHAINS
    for reset in ("zero", "subtract")
]


@pytest.mark.parametrize(("neuron", "kind", "reset"), CASES)
def test_numbering_does_not_matter(neuron, kind, reset):
    rng = np.random.default_rng(0)
    run = run_of(kind, NEURONS[neuron], {}, reset)
    # Nodes are ordered by name: new names reverse the order of populations and of weights.
    run_renamed = run_of(kind, NEURONS[neuron], {"a": "z", "b": "c", "w": "y", "skip": "v"}, reset)
    fired, at_once = 0, 0
    for _ in range(DRAWS):
        weight = weights(rng)
        time = np.sort(rng.integers(1, 9, EVENTS) / 10)
        index = rng.integers(0, INPUTS, EVENTS)
        result, spikes = run(weight, events_of(time, index))
        assert int(result) == 0
        order = {key: rng.permutation(size) for key, size in SIZES.items()}
        moved = {
            key: value[order[TARGET[key]]][:, order[SOURCE[key]]] for key, value in weight.items()
        }
        slots = rng.permutation(EVENTS)
        place = np.argsort(order["in"])  # new position of each channel
        result, expected = run_renamed(moved, events_of(time[slots], place[index[slots]]))
        assert int(result) == 0
        for name in ("a", "b"):
            times = np.asarray(spikes[name].time)[0, order[name]]
            np.testing.assert_array_equal(
                spikes[name].count[0, order[name]], expected[name].count[0]
            )
            np.testing.assert_allclose(times, expected[name].time[0], rtol=1e-12)
            finite = times[np.isfinite(times)]
            fired += len(finite)
            at_once += len(finite) - len(np.unique(finite))
    assert fired > 50
    assert at_once > 10 or neuron == "CubaLIF"
