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
from tests.event.test_native import CASES, TAU, work

pytestmark = pytest.mark.usefixtures("native_kernels")

QUICK, OTHERS = ("own", "subtract", "starts above"), ("double", "equal", "any", "once")
RECORDED = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]


def recorded(name, dtype=jnp.float64):
    """A spec, what arrives, and spikes that are not those of the equations, some of them late or at
    the time of an arrival.
    """
    spec, (weight, lanes, time, row, _), weighed = work(**CASES[name], dtype=dtype)
    rng = np.random.default_rng(1)
    times = np.sort(rng.uniform(0, 0.14, weighed.shape))
    times[rng.random(times.shape[:2]) < 0.2] = np.inf
    times[..., 1:][rng.random(times[..., 1:].shape) < 0.5] = np.inf
    times = np.sort(times)
    arrivals = np.asarray(time)
    times[:, 0, 0] = np.sort(arrivals, axis=1)[:, 0]  # it comes after the spike
    count = np.isfinite(times).sum(-1).astype(np.int32)
    return spec, (weight, lanes, time, row), jnp.asarray(times, dtype), count, weighed


def found(way, given, times, count, weighed):
    """The spikes, and the gradients by weights, lanes and times of arrivals."""
    weight, lanes, time, row = given

    def loss(weight, lanes, time):
        spikes = way(weight, lanes, time, row, times, count)
        at = jnp.where(jnp.isfinite(spikes.time), spikes.time, 0.0)
        return jnp.sum(weighed * at), spikes

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(weight, lanes, time)


@pytest.mark.parametrize("name", RECORDED)
def test_both_backends_agree(name, x64):
    spec, *rest = recorded(name)
    (_, one), gradients = found(partial(recorded_spikes, spec), *rest)
    (_, two), others = found(partial(native_recorded_spikes, spec, 2), *rest)
    np.testing.assert_array_equal(two.time, one.time)
    np.testing.assert_array_equal(two.count, one.count)
    assert (np.asarray(one.slope) < 0).any()  # where the equations would not fire at all
    np.testing.assert_allclose(two.slope, one.slope, rtol=1e-11, atol=1e-11 / TAU)
    assert np.abs(gradients[0]).max() > 0
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-11 * np.abs(a).max())


@pytest.mark.parametrize("name", ["double", "own"])
def test_the_number_of_threads_changes_no_bit(name):
    spec, *rest = recorded(name, jnp.float32)
    one, *others = (
        jax.tree.leaves(found(partial(native_recorded_spikes, spec, n), *rest)) for n in (1, 2, 7)
    )
    for other in others:
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_nothing_arrives_fires_or_is_there():
    spec, (weight, lanes, time, row), times, count, _ = recorded("double", jnp.float32)
    way = partial(native_recorded_spikes, spec, 2)
    silent = way(weight, lanes, time, row, times + jnp.inf, 0 * count)
    np.testing.assert_array_equal(silent.slope, np.ones(times.shape))
    alone = way(weight, lanes, time[:, :0], row[:, :0], times, count)
    empty = way(weight[:0], lanes, time, row, times, count)  # no rows: every arrival weighs nothing
    np.testing.assert_allclose(empty.slope, alone.slope, rtol=1e-4, atol=1e-2)
    nobody = jax.tree.map(lambda lane: lane[:0], lanes)
    assert way(weight[:, :0], nobody, time, row, times[:, :0], count[:, :0]).slope.size == 0
    assert way(weight, lanes, time[:0], row[:0], times[:0], count[:0]).slope.size == 0


@pytest.mark.parametrize("value", [np.nan, -np.inf, -1.0, 1e30])
def test_times_that_are_none_do_no_harm(value):
    spec, (weight, lanes, time, row), times, count, weighed = recorded("own", jnp.float32)
    way = partial(native_recorded_spikes, spec, 2)
    for given, wrong in ((time, times.at[:, 1].set(value)), (time.at[:, 3].set(value), times)):
        (_, spikes), _ = found(way, (weight, lanes, given, row), wrong, count, weighed)
        assert spikes.slope.shape == times.shape


def test_a_wrong_shape_is_an_error():
    name = target_name("jaxsnn_layer_recorded", "float32")
    call = jax.ffi.ffi_call(name, [jax.ShapeDtypeStruct((2, 3), jnp.float32)] * 5)
    with pytest.raises(Exception, match="jaxsnn native engine: weight is not"):
        call(*[jnp.zeros(3, jnp.float32)] * 6, threads=np.int64(1))


def test_training_in_the_loop_takes_it(auto_is_native):
    neurons = build.cubalif(tau_mem="20ms", tau_syn="10ms")
    graph = build.sequential(
        build.input(3), build.linear(2, weight=normal(2.0, 0.6)), neurons, seed=0
    )
    network, engine = lower(graph), on_chip(graph)
    events = Events(time=jnp.full((1, 3), 1e-3), index=jnp.arange(3)[None])

    def text(engine):
        run = partial(simulate, inputs=events, t_end=0.05, engine=engine, throw=False)
        return str(jax.make_jaxpr(lambda network: run(network).result)(network))

    assert "jaxsnn_layer_recorded" in text(engine)
    assert "jaxsnn_layer_recorded" not in text(EventDriven())
