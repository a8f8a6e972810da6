"""Spikes and exact gradients of layers in which a reset assigns V, or spikes are boxes: against
differences, and of simultaneous arrivals and refractory times.
"""

import itertools
from dataclasses import replace
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
from jaxsnn.event.dynamics.two_variables import Constants
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.network.structure import TauShape
from tests.event.agreement import assert_trees_close, finite_times, sorted_finite
from tests.event.differences import ENOUGH, relative_errors

ROWS, ARRIVALS, SAMPLES, NEURONS, T_END = 4, 10, 2, 9, 6.0

#: Neuron type, refractory time, scale of the weights, and constant drive of the neuron.
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

#: Compiled as a whole: eagerly, JAX would compile each operation on its own.
spikes_of = jax.jit(layer_spikes, static_argnums=0)


def cases_but(*quick):
    """All cases, but for some of them marked slow."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


def drawn(name, neurons=NEURONS):
    """Spec, weights, lanes and arrivals; a drive of its own lets V cross the threshold between
    arrivals too.
    """
    neuron, refractory, scale, drive = CASES[name]
    rng = np.random.default_rng(list(CASES).index(name))
    has_current = isinstance(neuron, CubaLIFDelta)
    rest = drive if isinstance(neuron, LIFBox) or has_current else 0.0
    start = np.full(neurons, drive) if isinstance(neuron, IFBox) else np.zeros(neurons)
    tau_syn = rng.uniform(0.7, 1.1, neurons)
    values = {
        "threshold": rng.uniform(0.9, 1.1, neurons) - rest,
        "v_reset": rng.uniform(-0.3, 0.0, neurons) - rest,
        "v_start": rng.uniform(-0.2, 0.2, neurons) - rest,
        "j_start": rng.uniform(-0.2, 0.2, neurons) if has_current else start,
        "tau_mem": 2 * tau_syn,
        "tau_syn": tau_syn,
    }
    if neuron.tau_shape is not TauShape.DOUBLE:
        values["tau_mem"] = rng.uniform(1.5, 2.5, neurons)
    lanes = Constants(**{name: jnp.asarray(value) for name, value in values.items()})
    weight = jnp.asarray(rng.normal(0.4, 0.6, (ROWS, neurons)) * scale)
    time = jnp.asarray(rng.uniform(0, 5, (SAMPLES, ARRIVALS)))
    row = jnp.asarray(rng.integers(0, ROWS, (SAMPLES, ARRIVALS)), jnp.int32)
    return LayerSpec(neuron=neuron, max_spikes=24, refractory=refractory), weight, lanes, time, row


def boxed(spec, weight, time, row):
    """The arrivals of a layer, with the ends of boxes."""
    if not spec.neuron.width:
        return weight, time, row
    ends = time + spec.neuron.width, row + len(weight)
    time, row = (jnp.concatenate(pair, axis=1) for pair in zip((time, row), ends, strict=True))
    return jnp.concatenate([weight, -weight]), time, row


def loss(tree, row, readout, spec, layer: Any = layer_spikes):
    """A weighted sum of spike times; counts of spikes, and at which arrivals made them."""
    weight, lanes, time = tree
    weight, time, row = boxed(spec, weight, time, row)
    spikes = layer(spec, weight, lanes, time, row, T_END)
    return jnp.sum(readout * finite_times(spikes.time)), (spikes.count, jnp.isinf(spikes.slope))


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
    free = replace(spec, neuron=replace(spec.neuron, tau_shape=TauShape.ANY))
    readout = jnp.asarray(np.random.default_rng(5).normal(size=(SAMPLES, neurons, spec.max_spikes)))
    tree = (weight, lanes, time)
    both = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=3)
    (_, (count, _)), gradient = both(tree, row, readout, spec)
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

        reverse, _ = jax.grad(loss, has_aux=True)(tree, row, readout, spec)
        return reverse, jax.jvp(forward, (tree,), (direction,))[1]

    reverse, forward = both(tree, direction)
    pairs = zip(*map(jax.tree.leaves, (reverse, direction)), strict=True)
    along = sum(jnp.vdot(*pair) for pair in pairs)
    assert abs(along) > 0.1
    np.testing.assert_allclose(forward, along, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.mutants
def test_jumps_are_counted_and_have_no_gradient_but_their_arrivals():
    """Neurons at rest that only arrivals move: each spike comes at an arrival, and follows that
    arrival's time.
    """
    spec, weight, lanes, time, row = drawn("LIF delta")
    zero = jnp.zeros(NEURONS)
    lanes = replace(lanes, threshold=zero + 1.0, v_reset=zero, v_start=zero)

    def total(weight, lanes, time):
        spikes = layer_spikes(spec, weight, lanes, time, row, T_END)
        return jnp.sum(finite_times(spikes.time)), spikes

    gradient, spikes = jax.grad(total, (0, 1, 2), has_aux=True)(3 * abs(weight), lanes, time)
    fired = np.isfinite(spikes.time)
    assert fired.sum() > 20
    assert np.isinf(spikes.slope[fired]).all()
    for sample in range(SAMPLES):
        times = np.asarray(spikes.time[sample])
        assert np.isin(times[np.isfinite(times)], time[sample]).all()
        counts = [(times == arrival).sum() for arrival in np.asarray(time[sample])]
        np.testing.assert_array_equal(gradient[2][sample], counts)
    assert not any(map(np.any, jax.tree.leaves(gradient[:2])))


@pytest.mark.slow
@pytest.mark.mutants
def test_a_jump_width_is_the_gradient_of_a_ramp():
    """The surrogate is the exact gradient of box spikes where V comes to the threshold at the end
    of a short box.
    """
    width, zero, weight = 1e-4, jnp.zeros(NEURONS), jnp.asarray([[0.7] * NEURONS])
    lanes = replace(drawn("LIF delta")[2], v_reset=zero, v_start=zero, j_start=zero)
    time, row = jnp.asarray([[0.5, 0.9]]), jnp.zeros((1, 2), jnp.int32)
    highest = 0.7 * (1 + jnp.exp(-(time[0, 1] - time[0, 0]) / lanes.tau_mem))
    ramp = LayerSpec(neuron=LIFDelta(), max_spikes=2, jump_width=width)
    box = LayerSpec(neuron=LIFBox(width=width), max_spikes=2)

    def first(weight, threshold, spec):
        moved = replace(lanes, threshold=threshold)
        scaled = weight * lanes.tau_mem / width if spec is box else weight
        weight, times, rows = boxed(spec, scaled, time, row)
        return jnp.sum(layer_spikes(spec, weight, moved, times, rows, 3.0).time[..., 0])

    gradient = partial(jax.grad(first, (0, 1)), weight, (1 - 1e-3) * highest)
    surrogate = gradient(ramp)
    assert all(np.all(leaf != 0) for leaf in surrogate)
    assert_trees_close(surrogate, gradient(box), rtol=5e-3)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::8])
def test_arrivals_at_one_time_act_together(order):
    """0.6 + 0.6 - 0.3 + 1.1: whatever the order, one spike, and V begins anew."""
    weight = jnp.asarray([[0.6], [0.6], [-0.3], [1.1]])
    spec = LayerSpec(neuron=LIFDelta(), max_spikes=4)
    time, row = jnp.asarray([[1.0, 1.0, 1.0, 1.0, 1.5]]), jnp.asarray([[*order, 0]], jnp.int32)

    def times(time):
        return spikes_of(spec, weight, one_neuron(), time, row, 4.0).time[0, 0]

    np.testing.assert_array_equal(times(time)[:2], [1.0, np.inf])
    # The spike time is that of the simultaneous arrivals.
    by_time = jax.grad(lambda time: times(time)[0])(time)
    assert by_time.sum() == 1
    assert by_time[0, 4] == 0


def spikes_at(neuron, times, weights, t_end=4.0, **rules):
    """Finite spike times of one neuron for arrivals of some weights."""
    spec = LayerSpec(**{"neuron": neuron, "max_spikes": 8} | rules)
    weight, row = jnp.asarray(weights)[:, None], jnp.arange(len(times), dtype=jnp.int32)
    spikes = spikes_of(spec, weight, one_neuron(), jnp.asarray([times]), row, t_end)
    finite = sorted_finite(spikes.time)
    assert len(finite) == spikes.count[0, 0]
    return finite.tolist()


@pytest.mark.parametrize("at_equality", [False, True])
@pytest.mark.parametrize(("weight", "fires"), [(1.0, False), (1.0 + 1e-12, True)])
@pytest.mark.parametrize("neuron", [LIFDelta, IFDelta])
def test_v_that_jumps_onto_its_threshold_fires_as_the_dialect_says(
    neuron, weight, fires, at_equality
):
    times = spikes_at(neuron(fires_at_equality=at_equality), [1.0], [weight])
    assert len(times) == (fires or at_equality)


@pytest.mark.parametrize(("excess", "expected"), [(-1e-9, [0.5, 0.5]), (1e-9, [0.5, 0.5, 0.75])])
@pytest.mark.parametrize("neuron", [LIFDelta, IFDelta])
def test_an_overshoot_stays_where_a_spike_subtracts(neuron, excess, expected):
    """2.7 over a threshold of 1: two spikes at once, and V goes on from 0.7."""
    remaining = 0.7 * (np.exp(-0.25 / 2.0) if neuron is LIFDelta else 1.0)
    weights = [2.7, 1.0 - remaining + excess]
    assert spikes_at(neuron(reset_kind="subtract"), [0.5, 0.75], weights) == expected


def test_a_neuron_in_its_refractory_time_keeps_its_current():
    """With no refractory time it is the layer without; a long one leaves a single spike of each
    neuron.
    """
    spec, *arguments = drawn("CubaLIF, refractory")
    plain, tiny, long, held = (
        spikes_of(replace(spec, refractory=refractory), *arguments, T_END)
        for refractory in (0.0, 1e-12, 100.0, 0.3)
    )
    np.testing.assert_allclose(plain.time, tiny.time, rtol=1e-9)
    np.testing.assert_array_equal(long.count, np.minimum(plain.count, 1))
    gaps = np.diff(np.asarray(held.time), axis=2)
    assert np.nanmin(gaps[np.isfinite(gaps)]) >= 0.3 - 1e-12


def one_neuron():
    """V at rest 1 below its threshold."""
    zeros = dict.fromkeys(("v_reset", "v_start", "j_start"), jnp.zeros(1))
    return Constants(threshold=jnp.ones(1), tau_mem=2 * jnp.ones(1), tau_syn=jnp.ones(1), **zeros)


@pytest.mark.parametrize("neuron", [LIFDelta(), IFDelta()])
def test_arrivals_in_the_refractory_time_are_lost_also_where_two_arrive_at_once(neuron):
    times, weights = [0.2, 0.5, 0.5, 0.5, 0.7, 1.3, 1.3], [2.0] * 7
    assert spikes_at(neuron, times, weights, 3.0, refractory=1.0) == [0.2, 1.3]
    # Without a refractory time, the arrivals at each time cause one spike together.
    assert spikes_at(neuron, times, weights, 3.0) == [0.2, 0.5, 0.7, 1.3]


@pytest.mark.parametrize("neuron", [LIFDelta(), IFDelta()])
@pytest.mark.parametrize("rules", [{}, {"once": True}, {"refractory": 0.1}])
def test_arrivals_at_the_end_or_later_are_not_seen(neuron, rules):
    assert spikes_at(neuron, [0.2, 1.0, 1.0, 5.0, 7.0], [2.0] * 5, 1.0, **rules) == [0.2]
    assert spikes_at(neuron, [1.0, 5.0], [2.0] * 2, 1.0, **rules) == []
