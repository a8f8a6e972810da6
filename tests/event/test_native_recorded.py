"""Spikes that something else fired, in the native backend: the slopes and gradients of XLA's, whatever
the number of threads.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.event.adjoint.recorded_spikes import recorded_spikes
from jaxsnn.event.native.native_build import target_name
from jaxsnn.event.native.native_recorded import native_recorded_spikes
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.train import on_chip
from tests.event.agreement import assert_trees_close, assert_trees_equal, finite_times
from tests.event.layer_cases import CASES, TAU, layer_case

pytestmark = pytest.mark.usefixtures("native_kernels")

QUICK, OTHERS = ("mixed", "subtract", "starts above"), ("double", "equal", "any", "once")
RECORDED = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]


def recorded(name, dtype=jnp.float64):
    """A spec, arrivals (weight, lanes, time, row), and (times, counts, weights) of spikes that are not
    those of the equations, some of them late or at the time of an arrival.
    """
    spec, (weight, lanes, time, row, _), spike_weights = layer_case(**CASES[name], dtype=dtype)
    rng = np.random.default_rng(1)
    times = np.sort(rng.uniform(0, 0.14, spike_weights.shape))
    times[rng.random(times.shape[:2]) < 0.2] = np.inf
    times[..., 1:][rng.random(times[..., 1:].shape) < 0.5] = np.inf
    times = np.sort(times)
    times[:, 0, 0] = np.sort(np.asarray(time), axis=1)[:, 0]  # the spike precedes the arrival
    count = np.isfinite(times).sum(-1).astype(np.int32)
    return spec, (weight, lanes, time, row), (jnp.asarray(times, dtype), count, spike_weights)


def spikes_and_gradients(record, arrivals, spikes):
    """The spikes, and the gradients by weights, lanes and times of arrivals."""
    (*variables, row), (times, count, spike_weights) = arrivals, spikes

    def loss(weight, lanes, time):
        spikes = record(weight, lanes, time, row, times, count)
        return jnp.sum(spike_weights * finite_times(spikes.time)), spikes

    (_, spikes), gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(*variables)
    return spikes, gradient


def by_kernels(spec, threads=2):
    return partial(native_recorded_spikes, spec, threads)


@pytest.mark.parametrize("name", RECORDED)
def test_both_backends_agree(name, x64):
    spec, *case = recorded(name)
    expected, expected_gradient = spikes_and_gradients(partial(recorded_spikes, spec), *case)
    spikes, gradient = spikes_and_gradients(by_kernels(spec), *case)
    np.testing.assert_array_equal(spikes.time, expected.time)
    np.testing.assert_array_equal(spikes.count, expected.count)
    assert (np.asarray(expected.slope) < 0).any()  # spikes where the equations have none
    np.testing.assert_allclose(spikes.slope, expected.slope, rtol=1e-11, atol=1e-11 / TAU)
    assert np.abs(gradient[0]).max() > 0
    assert_trees_close(gradient, expected_gradient, atol=1e-11)


@pytest.mark.parametrize("name", ["double", "mixed"])
def test_the_number_of_threads_changes_no_bit(name):
    spec, *case = recorded(name, jnp.float32)
    single, *several = (spikes_and_gradients(by_kernels(spec, n), *case) for n in (1, 2, 7))
    for result in several:
        assert_trees_equal(result, single)


def test_layers_without_arrivals_spikes_neurons_or_samples():
    spec, (weight, lanes, time, row), (times, count, _) = recorded("double", jnp.float32)
    record = by_kernels(spec)
    silent = record(weight, lanes, time, row, times + jnp.inf, 0 * count)
    np.testing.assert_array_equal(silent.slope, np.ones(times.shape))
    alone = record(weight, lanes, time[:, :0], row[:, :0], times, count)
    empty = record(weight[:0], lanes, time, row, times, count)  # every arrival has weight 0
    np.testing.assert_allclose(empty.slope, alone.slope, rtol=1e-4, atol=1e-2)
    no_lanes = jax.tree.map(lambda lane: lane[:0], lanes)
    no_neurons = record(weight[:, :0], no_lanes, time, row, times[:, :0], count[:, :0])
    assert no_neurons.slope.size == 0
    assert record(weight, lanes, time[:0], row[:0], times[:0], count[:0]).slope.size == 0


@pytest.mark.parametrize("value", [np.nan, -np.inf, -1.0, 1e30])
def test_times_that_are_none_do_no_harm(value):
    spec, (weight, lanes, time, row), (times, *rest) = recorded("mixed", jnp.float32)
    odd_time, odd_times = time.at[:, 3].set(value), times.at[:, 1].set(value)
    for arriving, fired in ((time, odd_times), (odd_time, times)):
        arrivals = weight, lanes, arriving, row
        spikes, _ = spikes_and_gradients(by_kernels(spec), arrivals, (fired, *rest))
        assert spikes.slope.shape == times.shape


def test_a_wrong_shape_is_an_error():
    name = target_name("jaxsnn_layer_recorded", "float32")
    call = jax.ffi.ffi_call(name, [jax.ShapeDtypeStruct((2, 3), jnp.float32)] * 5)
    with pytest.raises(Exception, match="jaxsnn native engine: weight is not"):
        call(*[jnp.zeros(3, jnp.float32)] * 6, threads=np.int64(1))


def test_training_in_the_loop_records_by_kernels(auto_is_native):
    layers = build.linear(2, weight=normal(2.0, 0.6)), build.cubalif(tau_mem="20ms", tau_syn="10ms")
    graph = build.sequential(build.input(3), *layers, seed=0)
    events = Events(time=jnp.full((1, 3), 1e-3), index=jnp.arange(3)[None])

    def program_text(engine):
        run = partial(simulate, inputs=events, t_end=0.05, engine=engine, throw=False)
        return str(jax.make_jaxpr(lambda network: run(network).result)(lower(graph)))

    assert "jaxsnn_layer_recorded" in program_text(on_chip(graph))
    assert "jaxsnn_layer_recorded" not in program_text(EventDriven())
