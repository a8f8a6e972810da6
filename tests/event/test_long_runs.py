"""What long runs add up to: float32 times far from zero, open boxes, and neurons that fire by
themselves long after the last arrival.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.adjoint.recurrent_adjoint import group_spikes
from jaxsnn.event.dynamics.cubalif import CubaLIFBox, CubaLIFDelta
from jaxsnn.event.dynamics.integrate_and_fire import IFBox
from jaxsnn.event.dynamics.lif import LIFBox, LIFDelta
from jaxsnn.event.dynamics.two_variables import Constants
from jaxsnn.event.forward.group import GroupSpec
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.forward.readout import Drive, membrane
from jaxsnn.event.forward.simulate_layer import simulate_layer
from jaxsnn.network.structure import TauShape

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.last_digits]

#: Time from the reset to the threshold, in time constants.
PERIODS = 5.0


def tonic(dtype, count=1, tau_syn=1.0, **others):
    """Neurons with V_inf = 0 above their threshold: V falls short of it by e^-PERIODS of the way."""
    values = {
        "threshold": -np.exp(-PERIODS),
        "v_reset": -1.0,
        "v_start": -1.0,
        "j_start": 0.0,
        "tau_mem": 1.0,
        "tau_syn": tau_syn,
    }
    return Constants(
        **{name: jnp.full(count, value, dtype) for name, value in (values | others).items()}
    )


def alone(neuron, lanes, t_end, slots, refractory=0.0):
    """Spikes of a feed-forward population that hears one arrival of no weight."""
    dtype = lanes.threshold.dtype
    spec = LayerSpec(neuron=neuron, max_spikes=slots, refractory=refractory)
    weight, time = jnp.zeros((1, 1), dtype), jnp.full((1, 1), 0.3, dtype)
    row = jnp.zeros(1, jnp.int32)
    spikes, _ = jax.jit(simulate_layer, static_argnums=0)(spec, weight, lanes, time, row, t_end)
    return spikes


def in_group(neuron, lanes, t_end, slots, refractory=0.0, delay=None):
    """The same, feeding back into itself with no weight."""
    dtype = lanes.threshold.dtype
    layer = LayerSpec(neuron=neuron, max_spikes=slots, refractory=refractory)
    spec = GroupSpec(layers=(layer,), edges=((0, 0),), max_events=slots)
    arrivals = ((jnp.zeros((1, 1), dtype), jnp.full((1, 1), 0.3, dtype), jnp.zeros(1, jnp.int32)),)
    feedback = ((jnp.zeros((1, 1), dtype), delay),)
    run = jax.jit(group_spikes, static_argnums=0)
    return run(spec, arrivals, feedback, (lanes,), t_end).spikes[0]


@pytest.mark.parametrize(
    ("engine", "refractory"),
    [
        (alone, 0.0),
        (alone, 0.7),
        (in_group, 0.0),
        pytest.param(in_group, 0.7, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "neuron",
    [LIFDelta(), pytest.param(CubaLIFDelta(tau_shape=TauShape.DOUBLE), marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("length", [1e5, pytest.param(1e6, marks=pytest.mark.slow)])
def test_float32_keeps_time_for_many_time_constants(engine, neuron, refractory, length):
    # Not a round number, so that the last spike is not at the very end.
    t_end, period = length + 2.345, PERIODS + refractory
    lanes = tonic(jnp.float32, tau_syn=0.5)
    # The period for the numbers rounded to float32.
    period = -np.log(-float(lanes.threshold[0])) + float(np.float32(refractory))
    slots = int(t_end / period) + 10
    spikes = engine(neuron, lanes, t_end, slots, refractory)
    number = np.arange(1, int(spikes.count[0, 0]) + 1)
    expected = number * period - float(np.float32(refractory))
    assert len(number) == int((t_end + float(np.float32(refractory))) // period)
    times = np.asarray(spikes.time, float)[0, 0, : len(number)]
    np.testing.assert_allclose(times, expected, rtol=0, atol=1e-6 * t_end)


def test_float32_keeps_time_round_a_loop_of_delays():
    """A spike goes round in a group: 20,000 times the same delay."""
    lanes = tonic(jnp.float32, threshold=1.0, v_reset=0.0, v_start=0.0)
    layer = LayerSpec(neuron=LIFDelta(), max_spikes=20_100)
    spec = GroupSpec(layers=(layer,), edges=((0, 0),), max_events=20_100)
    weight = jnp.full((1, 1), 1.5, jnp.float32)
    arrivals = ((weight, jnp.full((1, 1), 0.3, jnp.float32), jnp.zeros(1, jnp.int32)),)
    delay = np.float32(0.1)
    run = jax.jit(group_spikes, static_argnums=0)
    spikes = run(spec, arrivals, ((weight, jnp.asarray(delay)),), (lanes,), 2000.05).spikes[0]
    count = int(spikes.count[0, 0])
    expected = float(np.float32(0.3)) + float(delay) * np.arange(count)
    assert count == int((2000.05 - expected[0]) / float(delay)) + 1
    times = np.asarray(spikes.time, float)[0, 0, :count]
    np.testing.assert_allclose(times, expected, rtol=0, atol=1e-6 * 2000)


@pytest.mark.parametrize(
    "apart", [0.0, 1e-12, *(pytest.param(x, marks=pytest.mark.slow) for x in (-1e-9, 1e-6, -1e-3))]
)
@pytest.mark.parametrize("engine", [alone, in_group], ids=["layer", "group"])
def test_neurons_of_nearly_equal_time_constants_go_on_firing(engine, apart):
    """The last arrival is more than 36 time constants ago, j is nothing beside V."""
    lanes = tonic(jnp.float64, tau_syn=1 + apart, j_start=0.3)
    spikes = engine(CubaLIFDelta(tau_shape=TauShape.ANY), lanes, 300.0, 80)
    times = np.asarray(spikes.time)[0, 0, : int(spikes.count[0, 0])]
    gaps = np.diff(times)
    np.testing.assert_allclose(gaps[times[:-1] > 40], PERIODS, rtol=1e-12)
    assert times[-1] > 300 - PERIODS


BOXES = {"IF": IFBox(width=1e-3), "LIF": LIFBox(width=1e-3), "CubaLIF": CubaLIFBox(width=1e-3)}


def boxed_inputs(neurons, dtype, events=400):
    """Weights and (times, rows) of boxes that overlap in the first second, each closed again."""
    rng = np.random.default_rng(0)
    weight = rng.normal(0.0, 300.0, (30, neurons)).astype(dtype)  # V changes by 0.3 in a pulse
    opened = np.sort(rng.uniform(0.0, 1.0, events)).astype(dtype)
    row = rng.integers(0, 30, events)
    time = np.concatenate([opened, opened + dtype(1e-3)])[None]
    both = np.concatenate([weight, -weight])
    return jnp.asarray(both), jnp.asarray(time), jnp.asarray(np.concatenate([row, row + 30]), int)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_closed_boxes_leave_nothing_behind(dtype):
    """50 integrators hear nothing from 1 s to 1e7 s: V stays where it was, and none fires."""
    weight, time, row = boxed_inputs(50, dtype)
    row = row.astype(jnp.int32)
    lanes = tonic(dtype, 50, threshold=0.5, v_reset=0.0, v_start=0.0)
    run = jax.jit(partial(simulate_layer, LayerSpec(neuron=BOXES["IF"], max_spikes=64)))
    short = run(weight, lanes, time, row, 2.0)[0]
    long = run(weight, lanes, time, row, 1e7)[0]
    np.testing.assert_array_equal(long.count, short.count)
    np.testing.assert_array_equal(long.time, short.time)


@pytest.mark.parametrize("name", BOXES)
def test_closed_boxes_leave_nothing_behind_in_a_group(name):
    weight, time, row = boxed_inputs(20, np.float32)
    lanes = tonic(np.float32, 20, threshold=0.5, v_reset=0.0, v_start=0.0)
    layer = LayerSpec(neuron=BOXES[name], max_spikes=64)
    spec = GroupSpec(layers=(layer,), edges=((0, 0), (0, 0)), max_events=1500)
    back = jnp.asarray(np.random.default_rng(1).normal(0, 90.0, (20, 20)), np.float32)
    width = jnp.asarray(1e-3, np.float32)
    feedback = ((back, width), (-back, 2 * width))

    def run(t_end):
        arrivals = ((weight, time, row.astype(jnp.int32)),)
        return group_spikes(spec, arrivals, feedback, (lanes,), t_end).spikes[0]

    run = jax.jit(run)
    short, long = run(100.0), run(1e7)
    assert short.count.sum() > 20
    np.testing.assert_array_equal(long.count, short.count)


def test_closed_boxes_leave_nothing_behind_in_a_voltage():
    """V of an integrator that reads out stays where the last box has left it."""
    weight, time, row = boxed_inputs(50, np.float32)
    lanes = tonic(np.float32, 50, v_start=0.0)
    drive = Drive(
        neuron=BOXES["IF"],
        constants=lanes,
        v_inf=jnp.zeros(50, np.float32),
        weight=weight,
        time=time,
        row=row.astype(jnp.int32),
    )
    v = membrane(drive, jnp.asarray([1.5, 1e7], np.float32))[0]
    np.testing.assert_array_equal(v[1], v[0])
