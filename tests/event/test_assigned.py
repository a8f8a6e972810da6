"""Exact gradients where a reset is an assignment, and of box spikes of current-based neurons,
against differences.
"""

import dataclasses
import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.adjoint.layer_adjoint import layer_spikes
from jaxsnn.event.adjoint.tangents import layer_spikes_forward
from jaxsnn.event.dynamics.cubalif import CubaLIFBox, CubaLIFDelta
from jaxsnn.event.dynamics.integrate_and_fire import IFBox, IFDelta
from jaxsnn.event.dynamics.lif import LIFBox, LIFDelta
from jaxsnn.event.dynamics.two_variables import Lanes
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.forward.simulate_layer import simulate_layer
from jaxsnn.network.structure import TauShape
from tests.event.differences import ENOUGH, relative_errors

ROWS, ARRIVALS, SAMPLES, NEURONS, T_END = 4, 10, 2, 9, 6.0

#: Neuron type, refractory time, scale of the weights, and what drives the neuron by itself.
CASES = {
    "CubaLIF, refractory": (CubaLIFDelta(tau_shape=TauShape.DOUBLE), 0.3, 2.5, 0.2),
    "CubaLIF box": (CubaLIFBox(tau_shape=TauShape.APART, width=0.4), 0.0, 3.0, 0.1),
    "CubaLIF box, refractory": (CubaLIFBox(tau_shape=TauShape.ANY, width=0.4), 0.2, 5.0, 0.1),
    "LIF box, refractory": (LIFBox(width=0.4), 0.25, 3.0, 0.3),
    "IF box, refractory": (IFBox(width=0.4), 0.25, 2.0, 0.2),
    "LIF delta": (LIFDelta(), 0.0, 0.5, 1.6),
    "LIF delta, refractory": (LIFDelta(), 0.3, 0.5, 1.6),
    "IF delta": (IFDelta(), 0.0, 0.5, 0.6),
    "LIF delta, subtract": (LIFDelta(reset_kind="subtract"), 0.0, 1.5, 1.6),
    "IF delta, subtract": (IFDelta(reset_kind="subtract"), 0.0, 1.5, 0.6),
}

pytestmark = pytest.mark.usefixtures("x64")

#: Compiled as a whole: operation by operation, each has a program.
spikes_of = jax.jit(layer_spikes, static_argnums=0)


def cases_but(*quick):
    """All cases, but for some of them marked slow."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


def drawn(name, neurons=NEURONS):
    """Weights, lanes and arrivals; a drive of its own lets V cross the threshold between arrivals
    too.
    """
    neuron, refractory, scale, drive = CASES[name]
    rng = np.random.default_rng(list(CASES).index(name))
    rest = drive if isinstance(neuron, LIFBox | CubaLIFDelta) else 0.0
    start = np.full(neurons, drive) if isinstance(neuron, IFBox) else np.zeros(neurons)
    tau_syn = rng.uniform(0.7, 1.1, neurons)
    lanes = Lanes(
        threshold=jnp.asarray(rng.uniform(0.9, 1.1, neurons) - rest),
        v_reset=jnp.asarray(rng.uniform(-0.3, 0.0, neurons) - rest),
        v_start=jnp.asarray(rng.uniform(-0.2, 0.2, neurons) - rest),
        j_start=jnp.asarray(
            start if not isinstance(neuron, CubaLIFDelta) else rng.uniform(-0.2, 0.2, neurons)
        ),
        tau_mem=jnp.asarray(
            2 * tau_syn if neuron.tau_shape is TauShape.DOUBLE else rng.uniform(1.5, 2.5, neurons)
        ),
        tau_syn=jnp.asarray(tau_syn),
    )
    weight = jnp.asarray(rng.normal(0.4, 0.6, (ROWS, neurons)) * scale)
    time = jnp.asarray(rng.uniform(0, 5, (SAMPLES, ARRIVALS)))
    row = jnp.asarray(rng.integers(0, ROWS, (SAMPLES, ARRIVALS)), jnp.int32)
    return LayerSpec(neuron=neuron, max_spikes=24, refractory=refractory), weight, lanes, time, row


def boxed(spec, weight, time, row):
    if not spec.neuron.width:
        return weight, time, row
    later = jnp.concatenate([time, time + spec.neuron.width], axis=1)
    return (
        jnp.concatenate([weight, -weight]),
        later,
        jnp.concatenate([row, row + len(weight)], axis=1),
    )


def loss(tree, row, readout, spec, layer: Any = layer_spikes):
    """A weighted sum of spike times, and how often everything fires."""
    weight, lanes, time = tree
    weight, time, row = boxed(spec, weight, time, row)
    spikes = layer(spec, weight, lanes, time, row, T_END)
    return jnp.sum(jnp.where(jnp.isfinite(spikes.time), readout * spikes.time, 0.0)), (
        spikes.count,
        jnp.isinf(spikes.slope),
    )


@pytest.mark.parametrize(
    ("name", "neurons"),
    [
        pytest.param(name, size, marks=() if size == 3 and number % 2 == 0 else pytest.mark.slow)
        for number, name in enumerate(CASES)
        for size in (3, NEURONS)
    ],
)
def test_gradients_agree_with_central_differences(name, neurons):
    spec, weight, lanes, time, row = drawn(name, neurons)
    free = dataclasses.replace(
        spec, neuron=dataclasses.replace(spec.neuron, tau_shape=TauShape.ANY)
    )
    readout = jnp.asarray(np.random.default_rng(5).normal(size=(SAMPLES, neurons, spec.max_spikes)))
    tree = (weight, lanes, time)
    (_, (count, _)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=3)(
        tree, row, readout, spec
    )
    assert count.max() > 1
    errors = relative_errors(gradient, lambda *numbers: loss(*numbers, free), tree, row, readout)
    assert np.isfinite(errors).mean() > 0.9
    assert np.nanmax(errors) < ENOUGH


@pytest.mark.parametrize("name", cases_but("LIF delta, refractory"))
def test_forward_mode_agrees_with_reverse_mode(name):
    spec, weight, lanes, time, row = drawn(name)
    tree, rng = (weight, lanes, time), np.random.default_rng(5)
    readout = jnp.asarray(rng.normal(size=(SAMPLES, NEURONS, spec.max_spikes)))
    direction = jax.tree.map(lambda array: jnp.asarray(rng.normal(size=array.shape)), tree)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def both(tree, direction):
        def forward(tree):
            return loss(tree, row, readout, spec, layer_spikes_forward)[0]

        return jax.grad(loss, has_aux=True)(tree, row, readout, spec)[0], jax.jvp(
            forward, (tree,), (direction,)
        )[1]

    reverse, got = both(tree, direction)
    wanted = sum(
        jnp.sum(a * b)
        for a, b in zip(jax.tree.leaves(reverse), jax.tree.leaves(direction), strict=True)
    )
    assert abs(wanted) > 0.1
    np.testing.assert_allclose(got, wanted, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.mutants
def test_jumps_are_counted_and_have_no_gradient_but_their_arrivals():
    """Neurons at rest that only arrivals move: each spike comes at an arrival, and follows that
    arrival's time.
    """
    spec, weight, lanes, time, row = drawn("LIF delta")
    lanes = Lanes(
        **{**vars(lanes), "threshold": jnp.full(NEURONS, 1.0), "v_reset": jnp.zeros(NEURONS)}
    )
    lanes = Lanes(**{**vars(lanes), "v_start": jnp.zeros(NEURONS)})
    weight = 3 * abs(weight)

    def total(weight, lanes, time):
        spikes = layer_spikes(spec, weight, lanes, time, row, T_END)
        return jnp.sum(jnp.where(jnp.isfinite(spikes.time), spikes.time, 0.0)), spikes

    (_, spikes), gradient = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(
        weight, lanes, time
    )
    fired = np.isfinite(spikes.time)
    assert fired.sum() > 20
    assert np.isinf(spikes.slope[fired]).all()
    for sample in range(SAMPLES):
        times = np.asarray(spikes.time[sample])
        assert np.isin(times[np.isfinite(times)], time[sample]).all()
        for slot, arrival in enumerate(np.asarray(time[sample])):
            assert gradient[2][sample, slot] == (times == arrival).sum()
    assert not np.any(gradient[0])
    assert not any(map(np.any, jax.tree.leaves(gradient[1])))


@pytest.mark.slow
@pytest.mark.mutants
def test_a_jump_width_is_the_gradient_of_a_ramp():
    """The surrogate is the exact gradient of box spikes where V comes to the threshold at the end
    of a short box.
    """
    width = 1e-4
    weight = jnp.asarray([[0.7] * NEURONS])
    lanes = drawn("LIF delta")[2]
    lanes = Lanes(
        **{
            **vars(lanes),
            **{name: jnp.zeros(NEURONS) for name in ("v_reset", "v_start", "j_start")},
        }
    )
    time, row = jnp.asarray([[0.5, 0.9]]), jnp.zeros((1, 2), jnp.int32)
    highest = 0.7 * (1 + jnp.exp(-(time[0, 1] - time[0, 0]) / lanes.tau_mem))
    lanes = Lanes(**{**vars(lanes), "threshold": (1 - 1e-3) * highest})
    spec = LayerSpec(neuron=LIFDelta(), max_spikes=2, jump_width=width)
    box = LayerSpec(neuron=LIFBox(width=width), max_spikes=2)

    def first(weight, threshold, spec):
        own = Lanes(**{**vars(lanes), "threshold": threshold})
        given = (
            boxed(box, weight * lanes.tau_mem / width, time, row)
            if spec is box
            else (weight, time, row)
        )
        return jnp.sum(layer_spikes(spec, given[0], own, given[1], given[2], 3.0).time[..., 0])

    for argument in (0, 1):
        surrogate, exact = (
            jax.grad(first, argnums=argument)(weight, lanes.threshold, each) for each in (spec, box)
        )
        assert np.all(surrogate != 0)
        np.testing.assert_allclose(surrogate, exact, rtol=5e-3)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::8])
def test_arrivals_at_one_time_act_together(order):
    """0.6 + 0.6 - 0.3 + 1.1: whatever the order, one spike, and V begins anew."""
    lanes = one_neuron()
    weight = jnp.asarray([[0.6], [0.6], [-0.3], [1.1]])
    spec = LayerSpec(neuron=LIFDelta(), max_spikes=4)
    time = jnp.asarray([[1.0, 1.0, 1.0, 1.0, 1.5]])
    row = jnp.asarray([[*order, 0]], jnp.int32)

    def spikes(time):
        return spikes_of(spec, weight, lanes, time, row, 4.0)

    np.testing.assert_array_equal(spikes(time).time[0, 0, :2], [1.0, np.inf])
    # the spike comes when they come
    by_time = jax.grad(lambda time: spikes(time).time[0, 0, 0])(time)
    assert by_time.sum() == 1
    assert by_time[0, 4] == 0


@pytest.mark.parametrize(("weight", "fires"), [(1.0, False), (1.0 + 1e-12, True)])
@pytest.mark.parametrize("neuron", [LIFDelta, IFDelta])
def test_v_that_jumps_onto_its_threshold_fires_as_the_dialect_says(neuron, weight, fires):
    time, row = jnp.asarray([[1.0]]), jnp.zeros((1, 1), jnp.int32)
    for at_equality in (False, True):
        spec = LayerSpec(neuron=neuron(fires_at_equality=at_equality), max_spikes=2)
        lanes = one_neuron()
        found = spikes_of(spec, jnp.full((1, 1), weight), lanes, time, row, 4.0)
        assert int(found.count[0, 0]) == (fires or at_equality)


@pytest.mark.parametrize("neuron", [LIFDelta, IFDelta])
def test_an_overshoot_stays_where_a_spike_subtracts(neuron):
    """2.7 over a threshold of 1: two spikes at once, and V goes on from 0.7."""
    model = neuron(reset_kind="subtract")
    spec = LayerSpec(neuron=model, max_spikes=8)
    lanes = one_neuron()
    time, row = jnp.asarray([[0.5, 0.75]]), jnp.asarray([[0, 1]], jnp.int32)
    left = 0.7 * (np.exp(-0.25 / 2.0) if neuron is LIFDelta else 1.0)
    for second, count in ((1.0 - left - 1e-9, 2), (1.0 - left + 1e-9, 3)):
        weight = jnp.asarray([[2.7], [second]])
        found = spikes_of(spec, weight, lanes, time, row, 4.0)
        times = [0.5, 0.5, 0.75][:count]
        np.testing.assert_array_equal(found.time[0, 0, :count], times)
        assert int(found.count[0, 0]) == count


def test_a_neuron_in_its_refractory_time_keeps_its_current():
    """With no refractory time it is the layer without; a long one leaves a single spike of each
    neuron.
    """
    spec, weight, lanes, time, row = drawn("CubaLIF, refractory")
    none, long = (
        LayerSpec(neuron=spec.neuron, max_spikes=24, refractory=hold) for hold in (0.0, 100.0)
    )
    plain, tiny = (
        simulate_layer(each, weight, lanes, time, row, T_END)[0]
        for each in (none, LayerSpec(neuron=spec.neuron, max_spikes=24, refractory=1e-12))
    )
    np.testing.assert_allclose(plain.time, tiny.time, rtol=1e-9)
    once = simulate_layer(long, weight, lanes, time, row, T_END)[0]
    np.testing.assert_array_equal(once.count, np.minimum(plain.count, 1))
    held = simulate_layer(spec, weight, lanes, time, row, T_END)[0]
    gaps = np.diff(np.asarray(held.time), axis=2)
    assert np.nanmin(gaps[np.isfinite(gaps)]) >= 0.3 - 1e-12


def one_neuron():
    """V at rest 1 below its threshold."""
    values = dict(zip(vars(drawn("LIF delta")[2]), (1.0, 0.0, 0.0, 0.0, 2.0, 1.0), strict=True))
    return Lanes(**{name: jnp.full(1, value) for name, value in values.items()})


def spike_times(neuron, times, t_end, **rules):
    """Finite spike times of a neuron that every arrival moves by 2, twice its threshold."""
    spec = LayerSpec(neuron=neuron, max_spikes=8, **rules)
    row = jnp.zeros((1, len(times)), jnp.int32)
    spikes = simulate_layer(
        spec, jnp.full((1, 1), 2.0), one_neuron(), jnp.asarray([times]), row, t_end
    )[0]
    found = np.asarray(spikes.time[0, 0])
    assert np.isfinite(found).sum() == spikes.count[0, 0]
    return found[np.isfinite(found)].tolist()


@pytest.mark.parametrize("neuron", [LIFDelta(), IFDelta()])
def test_what_arrives_in_the_refractory_time_is_lost_also_where_two_arrive_at_once(neuron):
    times = [0.2, 0.5, 0.5, 0.5, 0.7, 1.3, 1.3]
    assert spike_times(neuron, times, 3.0, refractory=1.0) == [0.2, 1.3]
    # without one each time has a spike, of all that arrives then
    assert spike_times(neuron, times, 3.0) == [0.2, 0.5, 0.7, 1.3]


@pytest.mark.parametrize("neuron", [LIFDelta(), IFDelta()])
@pytest.mark.parametrize("rules", [{}, {"once": True}, {"refractory": 0.1}])
def test_what_arrives_at_the_end_or_later_is_not_seen(neuron, rules):
    assert spike_times(neuron, [0.2, 1.0, 1.0, 5.0, 7.0], 1.0, **rules) == [0.2]
    assert spike_times(neuron, [1.0, 5.0], 1.0, **rules) == []
