"""Which slopes count as clipped, against a few loops."""

import numpy as np
import pytest

from jaxsnn.event.adjoint.layer_adjoint import clipped_slopes
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes
from jaxsnn.network.structure import TauShape

BATCH, NEURONS, SLOTS, FLOOR = 6, 2, 3, 0.4


@pytest.mark.parametrize("positions", [1, 3])
def test_slopes_below_the_floor_of_their_neuron_are_counted(positions, x64):
    rng = np.random.default_rng(positions)
    shape = (positions, NEURONS)
    values = {"tau_mem": rng.uniform(1, 3, shape), "v_threshold": rng.uniform(0.5, 1, shape)}
    values["v_threshold"][0, 1] = -0.2  # starts above it
    values |= {"tau_syn": np.ones(shape), "v_leak": np.zeros(shape), "v_reset": -np.ones(shape)}
    values |= {"r": np.ones(shape), "w_in": np.ones(shape)}
    given = {name: value[0] for name, value in values.items()} if positions == 1 else values
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
    assert int(clipped_slopes(spec, neuron.lanes(given, None), spikes)) == expected
