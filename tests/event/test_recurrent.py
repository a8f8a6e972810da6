"""Recurrent groups: spikes against a slow reference, gradients against central differences, and changes
that must not matter.
"""

from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.adjoint.layer_adjoint import layer_spikes
from jaxsnn.event.adjoint.recurrent_adjoint import group_spikes, group_spikes_forward
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.integrate_and_fire import IFDelta
from jaxsnn.event.dynamics.lif import LIFDelta
from jaxsnn.event.dynamics.two_variables import Constants
from jaxsnn.event.forward.group import GroupSpec
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.network.structure import TauShape
from tests.event.agreement import assert_same_spikes, assert_trees_close, finite_times
from tests.event.differences import ENOUGH, relative_errors
from tests.event.recurrent_cases import (
    CASES,
    SAMPLES,
    SEEDS,
    T_END,
    drawn,
    reference,
    run,
    spec_of,
)

SLOTS = 60
#: Slow cases, whose features other cases cover, though not in combination.
SLOW = (
    *("double", "half", "equal", "apart", "membranes", "refractory", "jumps refractory"),
    *("synapses of boxes", "synapses of jumps"),
)

pytestmark = pytest.mark.usefixtures("x64")


def cases_but(*slow):
    """All cases, some of them marked slow."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in CASES]


compiled = partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)  # for functions that run only a few times
simulated = compiled(group_spikes, static_argnums=0)


def loss(numbers, rows, readout, name, free=False, group: Any = group_spikes):
    """A weighted sum of the squares of all spike times; the spikes."""
    groups = run(spec_of(name, free=free), CASES[name], numbers, rows, group=group)
    total = sum(
        jnp.sum(finite_times(spikes.time) ** 2 * weight[..., : spikes.time.shape[-1]])
        for spikes, weight in zip(groups.spikes, readout, strict=True)
    )
    return total, groups


@cache
def gradient_of(name):
    """Compiled: the gradient of the loss by the numbers, and the spikes."""
    return compiled(jax.grad(partial(loss, name=name), has_aux=True))


def readout_of(name, seed):
    rng = np.random.default_rng([seed, 7])
    return [jnp.asarray(rng.normal(size=(SAMPLES, part.size, SLOTS))) for part in CASES[name].parts]


@pytest.mark.parametrize("name", cases_but(*SLOW))
def test_spikes_agree_with_the_reference(name):
    fired = 0
    for seed in SEEDS[name]:
        numbers, rows = drawn(name, seed)
        _, group = gradient_of(name)(numbers, rows, readout_of(name, seed))
        expected = reference(name, numbers, rows)
        for spikes, times in zip(group.spikes, expected, strict=True):
            assert_same_spikes(spikes, times[..., :1] if spikes.time.shape[-1] == 1 else times)
        counts = sum(np.isfinite(times).sum(axis=(1, 2)) for times in expected)
        np.testing.assert_array_equal(group.events_needed, counts)
        assert (group.events_needed <= CASES[name].max_events).all()
        fired += counts.sum()
    assert fired > 15


@pytest.mark.parametrize("name", cases_but(*SLOW, "boxes", "jumps", "loop"))
def test_gradients_agree_with_central_differences(name):
    def free(numbers, rows, readout):  # time constants vary independently
        value, group = loss(numbers, rows, readout, name, free=True)
        return value, [spikes.count for spikes in group.spikes]

    for seed in SEEDS[name]:
        numbers, rows = drawn(name, seed)
        rows, readout = [jnp.asarray(row) for row in rows], readout_of(name, seed)
        gradient, _ = gradient_of(name)(numbers, rows, readout)
        error = relative_errors(gradient, free, numbers, rows, readout)
        assert np.isfinite(error).mean() > 0.99  # otherwise a spike appears or vanishes in the step
        assert np.nanmax(error) < ENOUGH


@pytest.mark.parametrize("name", cases_but(*SLOW, "boxes", "loop", "jumps", "synapses"))
def test_forward_mode_agrees_with_reverse_mode(name):
    numbers, rows = drawn(name, SEEDS[name][0])
    readout, rng = readout_of(name, SEEDS[name][0]), np.random.default_rng(0)
    direction = jax.tree.map(lambda array: jnp.asarray(rng.normal(size=array.shape)), numbers)
    reverse, _ = gradient_of(name)(numbers, rows, readout)
    pairs = zip(*map(jax.tree.leaves, (reverse, direction)), strict=True)
    along = sum(jnp.vdot(*pair) for pair in pairs)

    def directional(numbers, direction):
        def value(numbers):
            return loss(numbers, rows, readout, name, group=group_spikes_forward)[0]

        return jax.jvp(value, (numbers,), (direction,))[1]

    assert abs(along) > 0.1
    np.testing.assert_allclose(compiled(directional)(numbers, direction), along, rtol=1e-9)


# Invariances


def cuba_net(neurons=9, shape=TauShape.DOUBLE):
    """A uniform population: its neuron, lanes, arrivals (weight, times, rows) and feedback weights."""
    rng, neuron = np.random.default_rng(0), CubaLIFDelta(tau_shape=shape, uniform=True)
    lanes = unit_lanes(neurons, v_reset=-0.3, v_start=0.1, tau_mem=2.0)
    weight = jnp.asarray(rng.normal(2.5, 1.5, (4, neurons)))
    feedback = jnp.asarray(rng.normal(0.0, 1.0, (neurons, neurons)))
    times = jnp.asarray(rng.uniform(0, 3, (3, 6)))
    row = jnp.asarray(rng.integers(0, 4, (3, 6)), jnp.int32)
    return neuron, lanes, (weight, times, row), feedback


def unit_lanes(neurons, **values):
    """Constants with threshold and time constants 1 and reset and start 0, unless `values` say else."""
    ones = dict.fromkeys(("threshold", "tau_mem", "tau_syn"), 1.0)
    zeros = dict.fromkeys(("v_reset", "v_start", "j_start"), 0.0)
    return Constants(**{name: jnp.full(neurons, x) for name, x in (ones | zeros | values).items()})


def one_group(
    neuron, lanes, arrivals, feedback, delay=None, *, t_end=T_END, max_events=100, **options
):
    """A population that feeds itself, simulated: its spikes and the events that it needed."""
    spec = spec_for(neuron, max_events, **options)
    group = simulated(spec, (arrivals,), ((feedback, delay),), (lanes,), t_end)
    return group.spikes[0], group.events_needed


def one_arrival(*weights, time=0.5):
    """One event that adds a weight to each neuron."""
    return jnp.array([weights]), jnp.array([[time]]), jnp.zeros(1, jnp.int32)


def spec_for(neuron, max_events=100, **options):
    layer = LayerSpec(neuron=neuron, max_spikes=12, **options)
    return GroupSpec(layers=(layer,), edges=((0, 0),), max_events=max_events)


@pytest.mark.parametrize(
    "options",
    [{"min_slope": 0.3}, {"refractory": 0.2}, {"jump_width": 0.1, "refractory": 0.15}],
    ids=["smooth", "held", "jumps"],
)
def test_without_feedback_a_group_is_a_layer(options):
    """Spikes and gradients, those of clipped slopes and of the surrogate for jumps included."""
    neuron, lanes, (weight, times, row), feedback = cuba_net()
    if "jump_width" in options:
        neuron, weight = LIFDelta(uniform=True), 0.6 * weight
    spec = spec_for(neuron, **options)
    readout = jnp.asarray(np.random.default_rng(1).normal(size=(3, 9, 12)))

    def in_group(weight, lanes, times):
        edges = ((0 * feedback, None),)
        return group_spikes(spec, ((weight, times, row),), edges, (lanes,), T_END).spikes[0]

    def in_layer(weight, lanes, times):
        return layer_spikes(spec.layers[0], weight, lanes, times, row, T_END)

    def loss(simulate, *numbers):
        spikes = simulate(*numbers)
        return jnp.sum(finite_times(spikes.time) * readout), spikes

    (gradient, spikes), (expected_gradient, alone) = (
        compiled(jax.grad(partial(loss, runner), (0, 1, 2), has_aux=True))(weight, lanes, times)
        for runner in (in_group, in_layer)
    )
    assert alone.count.sum() > 20
    assert_same_spikes(spikes, alone.time, 1e-12)
    np.testing.assert_allclose(spikes.slope, alone.slope, rtol=1e-9)
    assert_trees_close(gradient, expected_gradient, rtol=1e-9, absolute=1e-12)


def test_the_order_of_neurons_does_not_matter():
    name, seed = "loop", 6
    (numbers, rows), readout = drawn(name, seed), readout_of(name, seed)
    gradient, group = gradient_of(name)(numbers, rows, readout)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(part.size) for part in CASES[name].parts]

    def permuted(tree):
        parameters = [
            {key: values[order] for key, values in arrays.items()}
            for arrays, order in zip(tree["parameters"], orders, strict=True)
        ]
        outside = [(w[:, order], t) for (w, t), order in zip(tree["outside"], orders, strict=True)]
        between = [
            (
                weight[orders[source]][:, orders[target]],
                delay[orders[source]] if delay is not None and delay.ndim else delay,
            )
            for (source, target, _), (weight, delay) in zip(
                CASES[name].edges, tree["between"], strict=True
            )
        ]
        return {"parameters": parameters, "outside": outside, "between": between}

    permuted_readout = [weight[:, order] for weight, order in zip(readout, orders, strict=True)]
    by_permuted, permuted_group = gradient_of(name)(permuted(numbers), rows, permuted_readout)
    for spikes, expected, order in zip(permuted_group.spikes, group.spikes, orders, strict=True):
        np.testing.assert_array_equal(spikes.time, np.asarray(expected.time)[:, order])
    assert_trees_close(by_permuted, permuted(gradient), rtol=1e-9, absolute=1e-12)


def test_the_order_of_populations_does_not_matter():
    name, seed = "loop", 6
    (numbers, rows), spec, case = drawn(name, seed), spec_of(name), CASES[name]
    spikes = gradient_of(name)(numbers, rows, readout_of(name, seed))[1].spikes
    edges = tuple((1 - a, 1 - b, delay) for a, b, delay in case.edges)
    swapped = replace(spec, layers=spec.layers[::-1], edges=tuple(edge[:2] for edge in edges))
    numbers |= {key: numbers[key][::-1] for key in ("parameters", "outside")}
    case = replace(case, edges=edges)
    others = compiled(run, static_argnums=(0, 1))(swapped, case, numbers, rows[::-1]).spikes
    for swapped_spikes, expected in zip(others[::-1], spikes, strict=True):
        np.testing.assert_allclose(swapped_spikes.time, expected.time, rtol=1e-13)


def test_a_change_of_the_unit_of_time_changes_nothing_else():
    neuron, lanes, (weight, times, row), feedback = cuba_net(shape=TauShape.ANY)

    def times_in_units(unit):
        stretched = replace(lanes, tau_mem=unit * lanes.tau_mem, tau_syn=unit * lanes.tau_syn)
        arrivals, delay = (weight, unit * times, row), jnp.asarray(0.2 * unit)
        spikes, _ = one_group(neuron, stretched, arrivals, feedback, delay, t_end=unit * T_END)
        return spikes.time / unit

    expected = times_in_units(1.0)
    assert np.isfinite(expected).sum() > 20
    np.testing.assert_allclose(times_in_units(1 / 1024), expected, rtol=1e-12)


def test_single_precision_agrees_with_double():
    neuron, lanes, (weight, times, row), feedback = cuba_net(neurons=30)
    edges = ((feedback / 8, None), (feedback.T / 8, jnp.asarray(0.3)))
    spec = replace(spec_for(neuron, max_events=300), edges=((0, 0), (0, 0)))
    numbers = (((weight / 2, times, row),), edges, (lanes,), jnp.asarray(T_END))
    expected = simulated(spec, *numbers).spikes[0]
    rounded = jax.tree.map(lambda a: a.astype("float32") if a.dtype == "float64" else a, numbers)
    spikes = simulated(spec, *rounded).spikes[0]
    assert spikes.time.dtype == jnp.float32
    assert expected.count.sum() > 60
    assert_same_spikes(spikes, expected.time, 1e-4)


def test_no_delay_is_a_delay_of_zero():
    expected, _ = one_group(*cuba_net())
    assert expected.count.sum() > 20
    for zero in (jnp.asarray(0.0), jnp.zeros(9)):
        spikes, _ = one_group(*cuba_net(), zero)
        np.testing.assert_allclose(spikes.time, expected.time, rtol=1e-13)


# Simultaneous spikes, and too many spikes


def test_neurons_that_cross_together_all_fire():
    """However much the first ones inhibit the others."""
    neuron, lanes, (_, times, row), _ = cuba_net()
    arrivals = jnp.full((4, 9), 3.0), times, row
    spikes, _ = one_group(neuron, lanes, arrivals, -50 * jnp.ones((9, 9)))
    assert (spikes.count >= 1).all()
    assert (np.asarray(spikes.time[:, :, 0]) == np.asarray(spikes.time[:, :1, 0])).all()


def delta_ring(weights, t_in):
    """Three IF neurons under delta spikes, the first driven across its threshold by an input."""
    arrivals, spec = (one_arrival(1.5, 0.0, 0.0, time=t_in),), spec_for(IFDelta(), max_events=7)
    return group_spikes(spec, arrivals, ((weights, None),), (unit_lanes(3),), T_END)


def test_a_cascade_happens_at_one_time():
    ring = jnp.array([[0.0, 1.5, 0.0], [0.0, 0.0, 1.5], [0.0, 0.0, 0.0]])
    group = compiled(delta_ring)(ring, 0.5)
    assert group.events_needed.tolist() == [3]
    assert group.spikes[0].time[0, :, 0].tolist() == [0.5, 0.5, 0.5]
    gradient = compiled(jax.grad(lambda t: delta_ring(ring, t).spikes[0].time[0, 2, 0]))(0.5)
    assert gradient == 1
    endless = ring.at[2, 0].set(1.5)
    assert compiled(delta_ring)(endless, 0.5).events_needed > 7


@pytest.mark.parametrize("neuron", [LIFDelta(), IFDelta()])
def test_neurons_that_one_arrival_makes_fire_fire_together(neuron):
    """Three neurons of a group inhibit each other; one arrival moves all of them above, and all
    fire, however they are numbered: what they send comes after.
    """
    inhibition = -1.0 * (jnp.ones((3, 3)) - jnp.eye(3))
    arrivals = one_arrival(1.5, 1.6, 1.2)
    spikes, _ = one_group(neuron, unit_lanes(3), arrivals, inhibition, t_end=1.1)
    assert spikes.count.tolist() == [[1, 1, 1]]


FIRST_TO_SECOND = jnp.array([[0.0, 0.6], [0.0, 0.0]])


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_arrivals_of_one_time_are_added_up_before_anything_fires(order):
    """+1.5 and -1 from outside, +0.6 by feedback of a neuron that fires at that very time."""
    weight, times = jnp.array([[1.5, 1.5], [0.0, -1.0]]), jnp.array([[0.5, 0.5]])
    arrivals = weight, times, jnp.asarray(order, jnp.int32)
    spikes, _ = one_group(IFDelta(), unit_lanes(2), arrivals, FIRST_TO_SECOND, t_end=1.1)
    # V of the second neuron is 0.5 in the first round, and 1.1 in the next.
    assert spikes.count.tolist() == [[1, 1]]
    assert spikes.time[0, :, 0].tolist() == [0.5, 0.5]


def test_an_overshoot_fires_again_at_once_in_a_group():
    neuron, arrivals = IFDelta(reset_kind="subtract"), one_arrival(2.7, 0.0)
    spikes, _ = one_group(neuron, unit_lanes(2), arrivals, FIRST_TO_SECOND, t_end=1.1)
    assert spikes.count.tolist() == [[2, 1]]  # both spikes arrive together: 2 * 0.6
    assert spikes.time[0, 0, :2].tolist() == [0.5, 0.5]


def test_refractory_times_end_before_anything_arrives():
    """Two neurons fire together, and what they send arrives just when they are released."""
    arguments = LIFDelta(), unit_lanes(3), one_arrival(1.5, 1.5, 0.0), 1.2 * jnp.ones((3, 3))
    spikes, _ = one_group(*arguments, jnp.asarray(0.25), t_end=1.1, refractory=0.25)
    expected = [[0.5, 0.75, 1.0], [0.5, 0.75, 1.0], [0.75, 1.0, np.inf]]
    assert spikes.time[0, :, :3].tolist() == expected


@pytest.mark.parametrize("delay", [None, np.asarray(0.2)], ids=["none", "delayed"])
def test_an_exhausted_budget_says_how_much_it_takes(delay):
    neuron, lanes, (weight, times, row), feedback = cuba_net()
    arrivals = weight, times.at[0].set(jnp.inf), row  # a sample without arrivals
    run = partial(one_group, neuron, lanes, arrivals, feedback, delay)
    expected, needed = run()
    assert 10 < needed.max() <= 100
    _, needed_at_least = run(max_events=3)
    assert needed_at_least[0] == 0
    if delay is None:
        np.testing.assert_array_equal(needed_at_least, needed)
    else:
        assert (needed_at_least[1:] > 3).all()
        assert (needed_at_least <= needed).all()
    spikes, _ = run(max_events=int(needed.max()))
    np.testing.assert_array_equal(spikes.time, expected.time)


def test_gradients_compose_with_vmap():
    name = "double uniform"
    drawings, readout = [drawn(name, seed) for seed in SEEDS[name]], readout_of(name, 0)
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *drawings)
    mapped = jax.vmap(jax.grad(partial(loss, name=name), has_aux=True), (0, 0, None))
    together = compiled(mapped)(*stacked, readout)
    for number, drawing in enumerate(drawings):
        single = jax.tree.map(lambda array, number=number: array[number], together)
        assert_trees_close(single, gradient_of(name)(*drawing, readout), rtol=1e-9, absolute=1e-12)
