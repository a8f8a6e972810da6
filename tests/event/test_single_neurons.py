"""A neuron fires the same spikes alone as in a population, compiled with all optimisations as users
compile.

The optimised program may work out one number twice, with different rounding. A solver that took
that for two numbers once sent neurons away from crossings that they had found, while others still
looked for theirs.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Population, Wire
from jaxsnn.simulation.simulate import simulate
from tests.event.cases import similar_neurons
from tests.helpers.random_spikes import random_events

NEURONS, SAMPLES, EVENTS, CHANNELS, T_END = 8, 2, 30, 10, 6.0
CLOSE = {32: 1e-3, 64: 1e-9}

pytestmark = pytest.mark.last_digits


def network(parameters, weight, bias, **rules):
    size, channels = weight.shape
    wires = [
        Wire(name="in", kind="input", sources=(), shape=(channels,)),
        Wire(name="dense", kind="Affine", sources=("in",), shape=(size,)),
        Wire(name="n", kind="neuron", sources=("dense",), shape=(size,)),
    ]
    population = Population(name="n", kind="CubaLIF", size=size, **rules)
    values = {"dense": {"weight": weight, "bias": bias}, "n": parameters}
    return Network(
        parameters=jax.tree.map(jnp.asarray, values), wires=wires, populations={"n": population}
    )


def some(seed, **rules):
    rng = np.random.default_rng(seed)
    parameters = similar_neurons(rng, NEURONS)
    weight, bias = rng.normal(1.0, 1.5, (NEURONS, CHANNELS)), rng.normal(0.3, 0.3, NEURONS)
    time, index = random_events(rng, (SAMPLES, EVENTS), CHANNELS, 4.0)
    return (parameters, weight, bias), Events(
        time=jnp.asarray(time), index=jnp.asarray(index, jnp.int32)
    )


def spikes(net, events):
    return simulate(net, events, T_END, engine=EventDriven(max_spikes=40), throw=False).spikes["n"]


@pytest.mark.parametrize("bits", [32, pytest.param(64, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "rules", [{"spike_kernel": "box", "dt": 0.3, "spike_area": 0.3}, {}], ids=["box", "delta"]
)
def test_a_neuron_fires_alone_what_it_fires_in_a_population(bits, rules):
    with jax.enable_x64(bits == 64):
        run = jax.jit(spikes, compiler_options={"xla_backend_optimization_level": 3})
        for seed in range(10):
            numbers, events = some(seed)
            together = run(network(*numbers, **rules), events)
            for neuron in range(NEURONS):
                alone = run(
                    network(
                        *jax.tree.map(lambda array, n=neuron: array[n : n + 1], numbers), **rules
                    ),
                    events,
                )
                np.testing.assert_array_equal(alone.count[:, 0], together.count[:, neuron])
                np.testing.assert_allclose(
                    alone.time[:, 0], together.time[:, neuron], rtol=CLOSE[bits]
                )
