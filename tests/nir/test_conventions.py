"""Conventions of frameworks that few files show: each is simulated, one step after the other."""

import math

import numpy as np
import pytest

from jaxsnn.grid.time_stepped import TimeStepped
from jaxsnn.network.lowering.lower import lower
from jaxsnn.nir import build, dialect_of, parse
from jaxsnn.simulation.simulate import simulate

TAU = 5.0


def leaky(norm_input):
    """What Sinabs writes of an ExpLeak: tau in steps, r 1."""
    net = build.sequential(
        build.input(1),
        build.linear(weight=[[2.0]]),
        build.node("LI", 1, tau=TAU, r=1.0, v_leak=0.0),
    )
    return parse(net.source, dialect="sinabs", norm_input=norm_input, dt="1ms", time_unit="step")


@pytest.mark.parametrize("norm_input", [False, True])
def test_norm_input_scales_what_arrives_at_a_leaky_readout_of_sinabs(norm_input):
    graph = leaky(norm_input)
    x = np.zeros((3, 1, 1), np.float32)
    x[0] = 1
    solution = simulate(lower(graph), {"input": x}, None, engine=TimeStepped(dt=1e-3))
    (given,) = (np.asarray(array) for array in solution.y.values())
    decay = math.exp(-1 / TAU)
    first = 2.0 * (1 - decay) if norm_input else 2.0
    np.testing.assert_allclose(given.reshape(-1)[:2], [first, first * decay], rtol=1e-5)


#: Steps that a spike takes to come back, as the sources of the frameworks have it: Spyx's layers use
#: the spikes of the step before, which its membrane sends a step late already.
BACK = {"spyx": 0, "snntorch": 1, "norse": 1}


@pytest.mark.parametrize("name", BACK)
def test_how_many_steps_a_spike_takes_to_come_back(name):
    conventions = dialect_of(name).conventions
    assert conventions is not None
    assert conventions.recurrent_delay == BACK[name]
