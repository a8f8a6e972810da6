"""Which slopes count as clipped, and what a delay is given of the gradient, against a few loops."""

import numpy as np
import pytest

from jaxsnn.event.adjoint.layer_adjoint import clipped_slopes
from jaxsnn.event.adjoint.recurrent_adjoint import _delay_gradient
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.forward.group import Channel, Layout, Log
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes
from jaxsnn.network.structure import TauShape

BATCH, NEURONS, SLOTS, FLOOR = 6, 2, 3, 0.4


@pytest.mark.parametrize("positions", [1, 3])
def test_slopes_below_the_floor_of_their_neuron_are_counted(positions, x64):
    rng = np.random.default_rng(positions)
    shape = (positions, NEURONS)
    values = {"tau_mem": rng.uniform(1, 3, shape), "v_threshold": rng.uniform(0.5, 1, shape)}
    values["v_threshold"][0, 1] = -0.2  # the neuron starts above it
    values |= {"tau_syn": np.ones(shape), "v_leak": np.zeros(shape), "v_reset": -np.ones(shape)}
    values |= {"r": np.ones(shape), "w_in": np.ones(shape)}
    parameters = {name: value[0] for name, value in values.items()} if positions == 1 else values
    neuron = CubaLIFDelta(tau_shape=TauShape.ANY)
    spec = LayerSpec(neuron=neuron, max_spikes=SLOTS, min_slope=FLOOR)
    slope = rng.uniform(0.05, 0.9, (BATCH, NEURONS, SLOTS))
    time = np.where(rng.random(slope.shape) < 0.3, np.inf, rng.random(slope.shape))
    spikes = LayerSpikes(time=time, slope=slope, count=np.isfinite(time).sum(-1))
    expected = 0
    for row, n, slot in np.ndindex(slope.shape):
        v_threshold, tau_mem = (values[k][row % positions, n] for k in ("v_threshold", "tau_mem"))
        below = slope[row, n, slot] < FLOOR * (v_threshold + 1) / tau_mem
        excused = slot == 0 and v_threshold < 0
        expected += bool(below and np.isfinite(time[row, n, slot]) and not excused)
    assert 2 < expected < slope.size / 2
    assert int(clipped_slopes(spec, neuron.constants(parameters, None), spikes)) == expected


@pytest.mark.parametrize("shape", [(), (1,), (3,), (3, 1)], ids=str)
def test_the_gradient_of_a_delay_is_that_of_arrivals_through_its_edge(shape, x64):
    rng, steps, batch = np.random.default_rng(0), 40, 2
    # Population 1 receives 2 rows from outside, 2 neurons of population 0 and, by edge 1, itself.
    channels = (
        Channel(source=0, target=1, edge=0, row=2),
        Channel(source=0, target=None, edge=None, row=0),
        Channel(source=1, target=1, edge=1, row=4),
    )
    plan = Layout(sizes=(2, 3), immediate={}, channels=channels, nothing=(0, 8), in_rounds=False)
    rows = tuple(rng.integers(0, count + 1, (steps + 1, batch)) for count in plan.nothing)
    times = rng.random((steps + 1, batch))
    log = Log(**dict.fromkeys(Log._fields) | {"time": times, "row": rows})
    by_time = [rng.normal(size=(steps, batch)) for _ in plan.sizes]
    expected = np.zeros(3)
    for step, sample in np.ndindex(steps, batch):
        neuron = rows[1][step, sample] - 4
        if 0 <= neuron < 3:
            expected[neuron] += by_time[1][step, sample]
    if np.prod(shape, dtype=int) == 1:
        expected = expected.sum()
    by_delay = _delay_gradient(plan, 1, 1, np.zeros(shape), log, by_time)
    np.testing.assert_allclose(by_delay, np.reshape(expected, shape), rtol=1e-13)
