"""Delays of `with_synaptic_delays` that synapses share, in a cycle, and where they are refused."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxsnn
from jaxsnn.errors import LoweringError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build

pytestmark = pytest.mark.usefixtures("x64")

RNG = np.random.default_rng(2)
FIRST, BACK = RNG.uniform(0.8, 2.0, (3, 2)), RNG.uniform(-0.5, 0.8, (3, 3))
DELAYS = np.array([0.3, 0.45, 0.6])
EVENTS = Events(time=jnp.array([[0.0, 0.2, 0.5, 1.1]]), index=jnp.array([[0, 1, 0, 1]]))


def recurrent(late=None):
    """A population that feeds itself, with a Delay node on the way back where delays are given."""
    nodes = {
        "in": build.input(2),
        "w": build.linear(weight=FIRST),
        "n": build.cubalif(3, tau_mem=1.0, tau_syn=0.5, v_threshold=0.5),
        "back": build.linear(weight=BACK),
        "out": build.output(),
    }
    way = ("n", "back", "n")
    if late is not None:
        nodes["late"] = build.node("Delay", 3, delay=np.broadcast_to(late, 3))
        way = ("n", "late", "back", "n")
    return build.network(nodes, [("in", "w", "n", "out"), way], dialect="jaxsnn", time_unit="s")


@pytest.mark.parametrize("delay", [DELAYS, DELAYS[None], 0.4], ids=["source", "row", "one"])
def test_shared_delays_in_a_cycle_are_those_of_a_delay_node(delay):
    network = jaxsnn.with_synaptic_delays(jaxsnn.lower(recurrent()), "back", delay)
    assert network.parameters["back"]["delay"].shape == (() if np.ndim(delay) == 0 else (3,))
    engine = EventDriven(max_spikes=32)
    found = jaxsnn.simulate(network, EVENTS, 4.0, engine=engine)
    late = np.broadcast_to(delay, (1, 3))[0]
    wanted = jaxsnn.simulate(jaxsnn.lower(recurrent(late)), EVENTS, 4.0, engine=engine)
    np.testing.assert_allclose(found.spikes["n"].time, wanted.spikes["n"].time, rtol=1e-12)
    without = jaxsnn.simulate(recurrent(), EVENTS, 4.0, engine=engine)
    assert int(found.count("n").sum()) > 5
    assert not np.allclose(found.spikes["n"].time, without.spikes["n"].time)


def test_a_delay_for_each_synapse_of_a_cycle_is_refused_with_a_way_that_works():
    delays = RNG.uniform(0.3, 0.6, (3, 3))
    network = jaxsnn.with_synaptic_delays(jaxsnn.lower(recurrent()), "back", delays)
    with pytest.raises(LoweringError, match=r"'n' is part of a cycle.*\(inputs,\) numbers"):
        jaxsnn.simulate(network, EVENTS, 4.0)


def test_the_time_stepped_engine_does_not_pass_over_delays_of_synapses():
    graph = recurrent()
    network = jaxsnn.with_synaptic_delays(jaxsnn.lower(graph), "back", 0.4)
    grid = jaxsnn.TimeStepped(dt=0.1, record=True)
    with pytest.raises(LoweringError, match=r"'back' has synapses with delays.*update_graph"):
        jaxsnn.simulate(network, EVENTS, 4.0, engine=grid)
    # what the message recommends
    written = jaxsnn.lower(jaxsnn.update_graph(graph, network))
    found = jaxsnn.simulate(written, EVENTS, 4.0, engine=grid)
    wanted = jaxsnn.simulate(jaxsnn.lower(recurrent(0.4)), EVENTS, 4.0, engine=grid)
    np.testing.assert_array_equal(found.spikes["n"], wanted.spikes["n"])
