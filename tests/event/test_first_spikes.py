"""Convolutions whose spikes are stored without empty slots (`native_scatter.FirstSpikes`): against
the XLA backend, which stores all slots, and the size of the compiled program.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.nir import build
from tests.helpers.transformed import CUBA, T_END

OPTIONS = {"stride": 1, "dilation": 1, "groups": 1, "padding": 0}
SLOTS, ROOM = 40, 1000  # of a neuron, and of the 48 of a sample


def two_convolutions(side, hidden):
    """Return a network with three neurons at each position of its first layer."""
    rng = np.random.default_rng(4)
    first, second = (
        build.node("Conv2d", weight=rng.normal(1.5, 1.0, shape), bias=np.zeros(shape[0]), **OPTIONS)
        for shape in ((3, 2, 3, 3), (2, 3, 2, 2))
    )
    return lower(
        build.sequential(build.input((2, side, side)), first, hidden, second, build.cubalif(**CUBA))
    )


def events_of(samples, side, count=60):
    rng = np.random.default_rng(5)
    time = jnp.asarray(np.sort(rng.uniform(0, T_END / 2, (samples, count)), axis=1))
    index = jnp.asarray(rng.integers(0, 2 * side**2, (samples, count)), jnp.int32)
    return Events(time=time, index=index)


def total(parameters, time, network, events, engine, hidden_share):
    """Return a sum over the output's spikes and, with a share, those of the hidden population."""
    solution = simulate(
        network.with_parameters(parameters),
        Events(time=time, index=events.index),
        T_END,
        engine=engine,
        throw=False,
    )
    times = [solution.spikes[name].time for name in ("2", "4")]
    hidden, last = (jnp.where(jnp.isfinite(x), x, 0.0) for x in times)
    value = jnp.sum(last) + hidden_share * jnp.sum(hidden**2) / T_END
    return value, (solution.spikes, solution.clipped_slopes, solution.degenerate_spikes)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("samples", [2, 9])  # together, and one after the other
@pytest.mark.parametrize(
    "hidden",
    [
        build.cubalif(**CUBA),
        build.lif(tau=CUBA["tau_mem"], v_threshold=0.02),
    ],
    ids=["CubaLIF", "LIF"],
)
@pytest.mark.parametrize("hidden_share", [0.0, 0.5])
def test_spikes_and_gradients_are_those_of_all_slots(samples, hidden, hidden_share):
    network, events = two_convolutions(6, hidden), events_of(samples, 6)
    gradient = jax.value_and_grad(total, (0, 1), has_aux=True)
    results = []
    for backend in ("native", "xla"):
        engine = EventDriven(max_spikes=SLOTS, max_events={"2": ROOM}, backend=backend)
        results.append(
            gradient(network.parameters, events.time, network, events, engine, hidden_share)
        )
    (value, counted), of_native = results[0][0], results[0][1]
    assert 100 * samples < int(counted[0]["2"].count.sum())
    assert int(counted[0]["2"].count.sum(1).max()) < ROOM
    for native, xla in zip(jax.tree.leaves(results[0]), jax.tree.leaves(results[1]), strict=True):
        np.testing.assert_allclose(native, xla, rtol=1e-9, atol=1e-12)
    assert np.isfinite(value)
    assert np.abs(of_native[1]).max() > 0


def test_a_gradient_stores_no_empty_slots():
    """The budget is 600 spikes of 768 neurons, each of which has 40 slots."""
    side = 18
    network, samples = two_convolutions(side, build.cubalif(**CUBA)), 16
    events = events_of(samples, side)
    engine = EventDriven(max_spikes={"2": SLOTS, "4": 1}, max_events={"2": 600}, backend="native")

    def summed(parameters):
        solution = simulate(network.with_parameters(parameters), events, T_END, engine=engine)
        times = solution.spikes["4"].time
        return jnp.sum(jnp.where(jnp.isfinite(times), times, 0.0)), solution.result

    compiled = jax.jit(jax.grad(summed, has_aux=True)).lower(network.parameters).compile()
    slots = samples * network.populations["2"].size * SLOTS * 4
    assert compiled.memory_analysis().temp_size_in_bytes < slots / 2


def test_too_small_a_room_is_reported_with_the_number_needed():
    network, events = two_convolutions(6, build.cubalif(**CUBA)), events_of(2, 6)
    engine = EventDriven(max_spikes=SLOTS, max_events={"2": 30}, backend="native")

    def summed(parameters):
        changed = network.with_parameters(parameters)
        solution = simulate(changed, events, T_END, engine=engine, throw=False)
        times = solution.spikes["4"].time
        return jnp.sum(jnp.where(jnp.isfinite(times), times, 0.0)), solution.budgets["max_events"]

    budgets = jax.grad(summed, has_aux=True)(network.parameters)[1]
    ample = EventDriven(max_spikes=130, backend="native")
    counts = simulate(network, events, T_END, engine=ample).spikes["2"].count
    assert int(budgets["2"].needed) == int(counts.sum(1).max()) > int(budgets["2"].room) == 30
