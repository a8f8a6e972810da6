"""Ties that rounding makes, and where exact numbers meet: what a review found wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.event.adjoint.layer_adjoint import layer_spikes
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.integrate_and_fire import IFDelta
from jaxsnn.event.dynamics.lif import LIFDelta
from jaxsnn.event.dynamics.two_variables import Constants
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.native.native_layer import native_layer_spikes
from jaxsnn.network.structure import TauShape
from jaxsnn.nir import build

pytestmark = pytest.mark.usefixtures("x64")
NIR = {"dialect": "nir", "time_unit": "s"}


def network(layers, chains, kernel, dt):
    return lower(build.network(layers, chains, **NIR, spike_kernel=kernel, dt=dt), dtype=float)


def events(times, channels):
    return Events(time=jnp.array([times]), index=jnp.array([channels], jnp.int32))


@pytest.mark.parametrize("weights", [[0.0, 0.5], [1.0, -1.0], [0.7, -0.2]])
@pytest.mark.parametrize("kind", ["LI", "I"])
def test_weights_move_a_voltage_also_where_open_boxes_add_up_to_nothing(kind, weights):
    leak = {"tau": [1.0], "v_leak": [0.0]} if kind == "LI" else {}
    layers = {
        "in": build.input(2),
        "w": build.linear(1, weight=np.array([weights])),
        "n": build.node(kind, r=[1.0], **leak),
        "out": build.output(),
    }
    net = network(layers, [("in", "w", "n", "out")], "box", 0.25)
    train, samples = events([0.3, 0.4], [0, 1]), jnp.array([1.0, 2.0])

    def v(weight):
        moved = net.with_parameters({**net.parameters, "w": {"weight": weight}})
        return simulate(moved, train, 3.0, sample_times=samples).voltages["n"].sum()

    weight = jnp.array([weights])
    steps = 1e-6 * jnp.eye(2)[:, None]
    differences = [(v(weight + step) - v(weight - step)) / 2e-6 for step in steps]
    np.testing.assert_allclose(jax.grad(v)(weight)[0], differences, rtol=1e-6)


@pytest.mark.parametrize("second", [0.2, -0.2])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_a_spike_moves_with_the_arrival_that_makes_it(reset, second):
    """1.5 and 0.2 at one time over a threshold of 1: only the first can make the neuron fire."""
    ones, zero = jnp.ones(1), jnp.zeros(1)
    lanes = Constants(
        threshold=ones, v_reset=zero, v_start=zero, j_start=zero, tau_mem=ones, tau_syn=ones
    )
    spec = LayerSpec(neuron=IFDelta(reset_kind=reset), max_spikes=2)
    weight = jnp.array([[1.5], [second]])

    def first(time):
        return layer_spikes(spec, weight, lanes, time, jnp.arange(2), 1.0).time[0, 0, 0]

    np.testing.assert_array_equal(jax.grad(first)(jnp.array([[0.3, 0.3]])), [[1.0, 0.0]])


def test_an_endless_refractory_time_leaves_one_spike():
    ones, zero = jnp.ones(1), jnp.zeros(1)
    lanes = Constants(
        threshold=ones, v_reset=zero, v_start=zero, j_start=zero, tau_mem=ones, tau_syn=ones
    )
    spec = LayerSpec(neuron=LIFDelta(), max_spikes=4, refractory=float("inf"))
    time, weight = jnp.array([[0.1, 0.5, 0.9]]), jnp.full((1, 1), 2.0)
    spikes = layer_spikes(spec, weight, lanes, time, jnp.zeros(3, jnp.int32), 2.0)
    assert spikes.count.tolist() == [[1]]


@pytest.mark.parametrize("loop", [False, True])
def test_times_that_are_one_number_are_one_time_in_a_loop_too(loop):
    """+2 and -1.5 come to b at 0.1 + 0.2, and just then what a has sent comes to c."""

    def integrator():
        return build.node("IF", r=[1.0], v_threshold=[1.0], v_reset=[0.0])

    layers = {
        "in": build.input(3),
        "wa": build.linear(weight=np.array([[2.0, 0.0, 0.0]])),
        "wb": build.linear(weight=np.array([[0.0, 2.0, -1.5]])),
        "late": build.node("Delay", delay=np.array([0.2])),
        "wac": build.linear(weight=np.array([[2.0]])),
        "wbc": build.linear(weight=np.zeros((1, 1))),
        **{name: integrator() for name in "abc"},
        "out": build.output(1),
    }
    chains = [("in", "wa", "a", "late", "wac", "c", "out"), ("in", "wb", "b", "wbc", "c")]
    if loop:
        layers |= {name: build.linear(weight=np.zeros((1, 1))) for name in ("ca", "cb")}
        chains += [("c", "ca", "a"), ("c", "cb", "b")]
    net = network(layers, chains, "delta", 0.1)
    train = events([0.1, 0.1 + 0.2, 0.1 + 0.2], [0, 1, 2])
    solution = simulate(net, train, 1.0, engine=EventDriven(max_spikes=4, max_events=40))
    counts = {name: int(solution.spikes[name].count.sum()) for name in "abc"}
    assert counts == {"a": 1, "b": 0, "c": 1}


def spikes_around_an_arrival(backend, dtype, once):
    """Spikes of neurons that come to 1 within some rounding of an arrival, which drives them hard; and
    the derivatives of their times by that of the arrival.
    """
    second = dtype(1.1151452)
    alone = dtype(1 / (np.exp(-second / 2) - np.exp(-second)))  # V reaches 1 at `second`
    first = alone + np.arange(-40, 40) * np.spacing(alone)
    weight = jnp.asarray(np.stack([first, np.full(len(first), 300.0)]), dtype)
    ones = jnp.ones(len(first), dtype)
    taus = {"tau_mem": 2 * ones, "tau_syn": ones}
    lanes = Constants(threshold=ones, v_reset=0 * ones, v_start=0 * ones, j_start=0 * ones, **taus)
    spec = LayerSpec(
        neuron=CubaLIFDelta(tau_shape=TauShape.DOUBLE, uniform=True),
        max_spikes=1 if once else 4,
        once=once,
    )

    def times(arrivals):
        arguments = weight, lanes, arrivals, jnp.arange(2), jnp.asarray(1.12, dtype)
        if backend == "native":
            return native_layer_spikes(spec, 1, *arguments).time[0, :, 0]
        return layer_spikes(spec, *arguments).time[0, :, 0]

    arrivals = jnp.array([[0.0, second]], dtype)
    return second, times(arrivals), jax.jacrev(times)(arrivals)[:, 0, 1]


@pytest.mark.usefixtures("native_kernels")
@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("backend", ["xla", "native"])
def test_a_spike_is_not_rounded_across_an_arrival(backend, dtype, once):
    """One just before it does not move with it. One just behind it has a slope that is its alone."""
    second, times, moves = spikes_around_an_arrival(backend, dtype, once)
    behind = np.asarray(times) > second
    assert 10 < behind.sum() < 70
    np.testing.assert_allclose(times, second, atol=1e-4)
    np.testing.assert_allclose(moves[behind], 1.0, atol=2e-3)
    np.testing.assert_array_equal(moves[~behind], 0.0)
