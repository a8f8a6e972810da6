"""Numbers that arithmetic does not like, through a whole network and back: time constants far apart or
nearly equal, arrivals at one time, tangents, denormals, and both precisions.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.network.network import Network
from jaxsnn.network.results import Result
from jaxsnn.nir import build
from tests.event.agreement import finite_times
from tests.oracles import continuous_time

pytestmark = pytest.mark.usefixtures("x64")

ENGINE = EventDriven(max_spikes=16)
#: tau_mem / tau_syn: far apart either way, and within 1e-9 of one.
RATIOS = np.array([1e-3, 1e-2, 0.1, 0.5, 1 - 1e-9, 1.0, 1 + 1e-9, 1 + 1e-6, 2.0, 10, 1e2, 1e3])
T_END = 4.0


def network(dtype, tau_mem):
    """Each input feeds a CubaLIF neuron of its own, and all of them one neuron behind."""
    size = len(tau_mem)
    first = build.cubalif(
        tau_mem=tau_mem,
        tau_syn=np.ones(size),
        v_threshold=0.98 * np.array([peak(r) for r in tau_mem]),
    )
    last = build.cubalif(1, tau_mem=2.0, tau_syn=1.0, v_threshold=0.5)
    layers = [build.linear(weight=np.eye(size)), first]
    layers += [build.linear(weight=np.full((1, size), 0.4)), last]
    graph = build.sequential(build.input(size), *layers, dialect="nir", time_unit="s")
    return lower(graph, dtype=dtype)


def arrivals(dtype, ratios):
    """An event of each input at one time, and at another one more of those that are not fast: a
    fast neuron would fire again and again.
    """
    size, slow = len(ratios), np.flatnonzero(ratios >= 0.5)
    time = np.repeat([0.25, 0.75], [size, len(slow)])[None].astype(dtype)
    return Events(
        time=jnp.asarray(time), index=jnp.asarray(np.concatenate([np.arange(size), slow])[None])
    )


def first_spikes(net, events):
    """Their sum over all neurons that fire, and the solution."""
    solution = simulate(net, events, T_END, engine=ENGINE, throw=False)
    return sum(jnp.sum(finite_times(spikes.time)) for spikes in solution.spikes.values()), solution


gradient_of = jax.jit(jax.grad(first_spikes, has_aux=True))


def leaves(gradient):
    return {
        f"{node}.{name}": np.asarray(array)
        for node, arrays in gradient.parameters.items()
        for name, array in arrays.items()
    }


def peak(ratio):
    """The largest V after one event of weight 1, where tau_syn is 1: there V is the current."""
    return math.exp(-1.0 if abs(ratio - 1) < 1e-6 else -ratio * math.log(ratio) / (ratio - 1))


def test_far_apart_and_nearly_equal_time_constants_fire_alike_in_both_precisions():
    times, slopes = {}, {}
    for dtype in (np.float32, np.float64):
        net = network(dtype, RATIOS)
        gradient, solution = gradient_of(net, arrivals(dtype, RATIOS))
        assert solution.result == Result.SUCCESS
        (name, *_) = solution.spikes
        times[dtype] = np.asarray(solution.spikes[name].time)[0]
        slopes[dtype] = leaves(gradient)
        for key, array in slopes[dtype].items():
            assert array.dtype == dtype, key
            assert np.isfinite(array).all(), key
    rough, exact = times[np.float32], times[np.float64]
    np.testing.assert_array_equal(np.isfinite(rough), np.isfinite(exact))
    train, values = arrivals(np.float64, RATIOS), jax.tree.map(np.asarray, net.parameters[name])
    weight, events = np.eye(len(RATIOS)), (np.asarray(train.time), np.asarray(train.index))
    (outcome,) = continuous_time.simulate_population(values, weight, *events, T_END, area=1.0)
    expected = [times_of_neuron[0] for times_of_neuron in outcome.spikes["n"]]
    np.testing.assert_allclose(exact[:, 0], expected, rtol=1e-9)
    np.testing.assert_allclose(rough, exact, rtol=2e-5)
    # The ratios 1 - 1e-9, 1 and 1 + 1e-9 are neighbours.
    np.testing.assert_allclose(exact[4], exact[5], rtol=1e-8)
    np.testing.assert_allclose(exact[6], exact[5], rtol=1e-8)
    for key, array in slopes[np.float64].items():
        np.testing.assert_allclose(
            slopes[np.float32][key], array, rtol=2e-2, atol=1e-3, err_msg=key
        )


#: Values that replace weights, thresholds, leaks and time constants.
ODD = (0.0, 5e-324, 1e-310, 1e-300, 1e-160, 1e-153, 1e-60, 1e-30, 1e30, 1e300, -1.0, np.inf, np.nan)


def test_no_number_that_is_none_reaches_a_gradient_without_a_result():
    ratios = RATIOS[[0, 6, 11]]
    net, events = network(np.float64, ratios), arrivals(np.float64, ratios)
    failed = 0
    for node, name in [(node, name) for node, values in net.parameters.items() for name in values]:
        for odd in ODD:
            parameters = {key: dict(arrays) for key, arrays in net.parameters.items()}
            array = np.array(parameters[node][name])
            array.reshape(-1)[0] = odd
            parameters[node][name] = jnp.asarray(array)
            changed = Network(parameters=parameters, wires=net.wires, populations=net.populations)
            gradient, solution = gradient_of(changed, events)
            if solution.result != Result.SUCCESS:
                failed += 1
                continue
            for key, leaf in leaves(gradient).items():
                assert np.isfinite(leaf).all(), (node, name, odd, key)
    assert failed > 10


def test_tangents_have_a_finite_gradient_or_are_clipped_and_counted():
    """The threshold stands at the maximum of V, or next to it, from either side."""
    net = network(np.float64, np.full(5, 2.0))
    ulps = (-(2**20), -1, 0, 1, 2**20)
    thresholds = peak(2.0) * (1 + np.array(ulps) * np.finfo(float).eps)
    (name, *_) = net.populations
    parameters = {key: dict(arrays) for key, arrays in net.parameters.items()}
    parameters[name]["v_threshold"] = jnp.asarray(thresholds)
    changed = Network(parameters=parameters, wires=net.wires, populations=net.populations)
    events = Events(time=jnp.full((1, 5), 0.25), index=jnp.arange(5)[None])
    gradient, solution = gradient_of(changed, events)
    fired = np.isfinite(np.asarray(solution.spikes[name].time)[0, :, 0])
    assert fired[0]
    assert not fired[-1]
    assert list(fired) == sorted(fired, reverse=True)
    assert solution.result == Result.SUCCESS
    for key, leaf in leaves(gradient).items():
        assert np.isfinite(leaf).all(), key


def test_the_order_of_arrivals_at_one_time_changes_nothing():
    net, size = network(np.float64, RATIOS), len(RATIOS)
    events = arrivals(np.float64, RATIOS)
    rng = np.random.default_rng(0)
    later = events.time.shape[1] - size
    order = np.concatenate([rng.permutation(size), size + rng.permutation(later)])
    permuted = Events(time=events.time[:, order], index=events.index[:, order])
    for (first, a), (second, b) in itertools.pairwise(
        gradient_of(net, ordering) for ordering in (events, permuted)
    ):
        for name in a.spikes:
            np.testing.assert_array_equal(a.spikes[name].time, b.spikes[name].time)
        for key, leaf in leaves(first).items():
            np.testing.assert_allclose(leaf, leaves(second)[key], rtol=1e-12, err_msg=key)
