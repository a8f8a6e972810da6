"""Recurrent groups: spikes against a slow reference, gradients against central differences, what
must not matter.
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
from jaxsnn.event.dynamics.two_variables import Lanes
from jaxsnn.event.forward.group import GroupSpec
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.network.structure import TauShape
from tests.event.differences import ENOUGH, relative_errors
from tests.event.recurrent_cases import (
    CASES,
    SAMPLES,
    SEEDS,
    T_END,
    drawn,
    expected,
    run,
    spec_of,
)
from tests.event.same_spikes import assert_same_spikes

SLOTS = 60
#: What these have, others have too, but not together.
SLOW = ("double", "half", "equal", "apart", "membranes", "refractory", "jumps refractory")

pytestmark = pytest.mark.usefixtures("x64")


def cases_but(*slow):
    """All cases, some of them marked slow."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in CASES]


compiled = partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)  # what runs a few times only
simulated = compiled(group_spikes, static_argnums=0)


def loss(numbers, rows, readout, name, free=False, group: Any = group_spikes):
    """A weighted sum of the squares of all spike times; the spikes."""
    found = run(spec_of(name, free=free), CASES[name], numbers, rows, group=group)
    total = 0.0
    for spikes, weight in zip(found.spikes, readout, strict=True):
        fired = jnp.isfinite(spikes.time)
        squares = jnp.where(fired, jnp.where(fired, spikes.time, 0.0) ** 2, 0.0)
        total += jnp.sum(squares * weight[..., : squares.shape[-1]])
    return total, found


@cache
def gradient_of(name):
    """Compiled: the gradient of the loss by the numbers, and the spikes."""

    def one(numbers, rows, readout):
        return jax.grad(loss, has_aux=True)(numbers, rows, readout, name)

    return compiled(one)


def readout_of(name, seed):
    rng = np.random.default_rng([seed, 7])
    return [jnp.asarray(rng.normal(size=(SAMPLES, part.size, SLOTS))) for part in CASES[name].parts]


@pytest.mark.parametrize("name", cases_but(*SLOW))
def test_spikes_agree_with_the_reference(name):
    fired = 0
    for seed in SEEDS[name]:
        numbers, rows = drawn(name, seed)
        _, got = gradient_of(name)(numbers, rows, readout_of(name, seed))
        wanted = expected(name, numbers, rows)
        for spikes, times in zip(got.spikes, wanted, strict=True):
            assert_same_spikes(spikes, times[..., :1] if spikes.time.shape[-1] == 1 else times)
            fired += np.isfinite(times).sum()
        counts = sum(np.isfinite(times).sum(axis=(1, 2)) for times in wanted)
        np.testing.assert_array_equal(got.events_needed, counts)
        assert (got.events_needed <= CASES[name].max_events).all()
    assert fired > 15


@pytest.mark.parametrize("name", cases_but(*SLOW, "boxes", "jumps", "loop"))
def test_gradients_agree_with_central_differences(name):
    def free(numbers, rows, readout):  # time constants vary one by one
        value, found = loss(numbers, rows, readout, name, free=True)
        return value, [spikes.count for spikes in found.spikes]

    for seed in SEEDS[name]:
        numbers, rows = drawn(name, seed)
        rows, readout = [jnp.asarray(row) for row in rows], readout_of(name, seed)
        gradient, _ = gradient_of(name)(numbers, rows, readout)
        error = relative_errors(gradient, free, numbers, rows, readout)
        assert np.isfinite(error).mean() > 0.99  # elsewhere a spike comes or goes within the step
        assert np.nanmax(error) < ENOUGH


@pytest.mark.parametrize("name", cases_but(*SLOW, "boxes", "loop", "jumps"))
def test_forward_mode_agrees_with_reverse_mode(name):
    numbers, rows = drawn(name, SEEDS[name][0])
    readout, rng = readout_of(name, SEEDS[name][0]), np.random.default_rng(0)
    direction = jax.tree.map(lambda array: jnp.asarray(rng.normal(size=array.shape)), numbers)
    reverse, _ = gradient_of(name)(numbers, rows, readout)
    wanted = sum(
        jnp.sum(a * b)
        for a, b in zip(jax.tree.leaves(reverse), jax.tree.leaves(direction), strict=True)
    )

    def directional(numbers, direction):
        def value(numbers):
            return loss(numbers, rows, readout, name, group=group_spikes_forward)[0]

        return jax.jvp(value, (numbers,), (direction,))[1]

    assert abs(wanted) > 0.1
    np.testing.assert_allclose(compiled(directional)(numbers, direction), wanted, rtol=1e-9)


# What must not matter


def cuba_net(seed=0, neurons=9, shape=TauShape.DOUBLE):
    """One uniform population and its numbers: lanes, weights from outside, feedback, times, rows."""
    rng = np.random.default_rng(seed)
    neuron = CubaLIFDelta(tau_shape=shape, uniform=True)
    one = jnp.ones(neurons)
    lanes = Lanes(
        threshold=one,
        v_reset=-0.3 * one,
        v_start=0.1 * one,
        j_start=0 * one,
        tau_mem=2 * one,
        tau_syn=1 * one,
    )
    weight = jnp.asarray(rng.normal(2.5, 1.5, (4, neurons)))
    feedback = jnp.asarray(rng.normal(0.0, 1.0, (neurons, neurons)))
    times = jnp.asarray(rng.uniform(0, 3, (3, 6)))
    return (
        neuron,
        lanes,
        weight,
        feedback,
        times,
        jnp.asarray(rng.integers(0, 4, (3, 6)), jnp.int32),
    )


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
    neuron, lanes, weight, feedback, times, row = cuba_net()
    if "jump_width" in options:
        neuron, weight = LIFDelta(uniform=True), 0.6 * weight
    spec = spec_for(neuron, **options)
    readout = jnp.asarray(np.random.default_rng(1).normal(size=(3, 9, 12)))

    def total(spikes):
        return jnp.sum(jnp.where(jnp.isfinite(spikes.time), spikes.time * readout, 0.0)), spikes

    def grouped(weight, lanes, times):
        return total(
            group_spikes(
                spec, ((weight, times, row),), ((0 * feedback, None),), (lanes,), T_END
            ).spikes[0]
        )

    def layered(weight, lanes, times):
        return total(layer_spikes(spec.layers[0], weight, lanes, times, row, T_END))

    both = [
        compiled(jax.grad(way, (0, 1, 2), has_aux=True))(weight, lanes, times)
        for way in (grouped, layered)
    ]
    (got, spikes), (wanted, alone) = both
    assert alone.count.sum() > 20
    assert_same_spikes(spikes, np.asarray(alone.time), 1e-12)
    np.testing.assert_allclose(spikes.slope, alone.slope, rtol=1e-9)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_the_order_of_neurons_and_of_populations_does_not_matter():
    name, seed = "loop", 6
    numbers, rows = drawn(name, seed)
    readout = readout_of(name, seed)
    gradient, spikes = gradient_of(name)(numbers, rows, readout)
    rng = np.random.default_rng(0)
    places = [rng.permutation(part.size) for part in CASES[name].parts]

    def permuted(tree):
        parameters = [
            {k: v[place] for k, v in p.items()}
            for p, place in zip(tree["parameters"], places, strict=True)
        ]
        outside = [(w[:, place], t) for (w, t), place in zip(tree["outside"], places, strict=True)]
        between = [
            (
                w[places[source]][:, places[target]],
                d[places[source]] if d is not None and d.ndim else d,
            )
            for (source, target, _), (w, d) in zip(CASES[name].edges, tree["between"], strict=True)
        ]
        return {"parameters": parameters, "outside": outside, "between": between}

    other = [weight[:, place] for weight, place in zip(readout, places, strict=True)]
    moved, got = gradient_of(name)(permuted(numbers), rows, other)
    for a, b, place in zip(got.spikes, spikes.spikes, places, strict=True):
        np.testing.assert_array_equal(a.time, np.asarray(b.time)[:, place])
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(permuted(gradient)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)

    spec, case = spec_of(name), CASES[name]
    swapped = replace(
        spec, layers=spec.layers[::-1], edges=tuple((1 - a, 1 - b) for a, b in spec.edges)
    )
    turned = {"parameters": numbers["parameters"][::-1], "outside": numbers["outside"][::-1]}
    edges = tuple((1 - a, 1 - b, delay) for a, b, delay in case.edges)
    turned["between"] = numbers["between"]
    found = compiled(run, static_argnums=(0, 1))(
        swapped, replace(case, edges=edges), turned, rows[::-1]
    )
    for a, b in zip(found.spikes[::-1], spikes.spikes, strict=True):
        np.testing.assert_allclose(a.time, b.time, rtol=1e-13)


def test_a_change_of_the_unit_of_time_changes_nothing_else():
    neuron, lanes, weight, feedback, times, row = cuba_net(shape=TauShape.ANY)
    spec, c = spec_for(neuron), 1 / 1024

    def stretched_by(c):
        stretched = replace(lanes, tau_mem=c * lanes.tau_mem, tau_syn=c * lanes.tau_syn)
        edges = ((feedback, jnp.asarray(0.2 * c)),)
        return simulated(spec, ((weight, c * times, row),), edges, (stretched,), c * T_END).spikes[
            0
        ]

    one, other = stretched_by(1.0), stretched_by(c)
    assert one.count.sum() > 20
    np.testing.assert_allclose(c * one.time, other.time, rtol=1e-12)


def test_single_precision_agrees_with_double():
    neuron, lanes, weight, feedback, times, row = cuba_net(neurons=30)
    weight, feedback = weight / 2, feedback / 8
    edges = ((feedback, None), (feedback.T, jnp.asarray(0.3)))
    spec = replace(spec_for(neuron, max_events=300), edges=((0, 0), (0, 0)))
    numbers = (((weight, times, row),), edges, (lanes,), jnp.asarray(T_END))
    wanted = simulated(spec, *numbers)
    rounded = jax.tree.map(lambda a: a.astype("float32") if a.dtype == "float64" else a, numbers)
    got = simulated(spec, *rounded)
    assert got.spikes[0].time.dtype == jnp.float32
    assert wanted.spikes[0].count.sum() > 60
    assert_same_spikes(got.spikes[0], np.asarray(wanted.spikes[0].time), 1e-4)


def test_no_delay_is_a_delay_of_zero():
    neuron, lanes, weight, feedback, times, row = cuba_net()
    none, zero, each = (
        simulated(
            spec_for(neuron), ((weight, times, row),), ((feedback, delay),), (lanes,), T_END
        ).spikes[0]
        for delay in (None, jnp.asarray(0.0), jnp.zeros(9))
    )
    assert none.count.sum() > 20
    np.testing.assert_allclose(none.time, zero.time, rtol=1e-13)
    np.testing.assert_allclose(none.time, each.time, rtol=1e-13)


# Many spikes at one time, and too many spikes


def test_neurons_that_cross_together_all_fire():
    """However much the first ones inhibit the others."""
    neuron, lanes, weight, _, times, row = cuba_net()
    weight, inhibition = jnp.full((4, 9), 3.0), -50 * jnp.ones((9, 9))
    spikes = simulated(
        spec_for(neuron), ((weight, times, row),), ((inhibition, None),), (lanes,), T_END
    ).spikes[0]
    assert (spikes.count >= 1).all()
    assert (np.asarray(spikes.time[:, :, 0]) == np.asarray(spikes.time[:, :1, 0])).all()


def delta_ring(weights, t_in):
    """Three IF neurons under delta spikes, the first driven across its threshold by an input."""
    zero, one = jnp.zeros(3), jnp.ones(3)
    lanes = Lanes(threshold=one, v_reset=zero, v_start=zero, j_start=zero, tau_mem=one, tau_syn=one)
    arrivals = ((jnp.array([[1.5, 0.0, 0.0]]), jnp.array([[t_in]]), jnp.array([0], jnp.int32)),)
    return group_spikes(
        spec_for(IFDelta(), max_events=7), arrivals, ((weights, None),), (lanes,), T_END
    )


def test_a_cascade_happens_at_one_time():
    ring = jnp.array([[0.0, 1.5, 0.0], [0.0, 0.0, 1.5], [0.0, 0.0, 0.0]])
    found = compiled(delta_ring)(ring, 0.5)
    assert found.events_needed.tolist() == [3]
    assert found.spikes[0].time[0, :, 0].tolist() == [0.5, 0.5, 0.5]
    gradient = compiled(jax.grad(lambda t: delta_ring(ring, t).spikes[0].time[0, 2, 0]))(0.5)
    assert gradient == 1


def test_neurons_that_one_arrival_makes_fire_fire_together():
    """Three neurons of a group inhibit each other; one arrival moves all of them above, and all
    fire, however they are numbered: what they send comes after.
    """
    zero, one = jnp.zeros(3), jnp.ones(3)
    lanes = Lanes(threshold=one, v_reset=zero, v_start=zero, j_start=zero, tau_mem=one, tau_syn=one)
    arrivals = ((jnp.array([[1.5, 1.6, 1.2]]), jnp.array([[0.5]]), jnp.array([0], jnp.int32)),)
    inhibition = -1.0 * (jnp.ones((3, 3)) - jnp.eye(3))
    for neuron in (LIFDelta(), IFDelta()):
        found = simulated(spec_for(neuron), arrivals, ((inhibition, None),), (lanes,), 1.1)
        assert found.spikes[0].count.tolist() == [[1, 1, 1]]


def test_arrivals_of_one_time_are_added_up_before_anything_fires():
    """+1.5 and -1 from outside, +0.6 by feedback of a neuron that fires at that very time."""
    zero, one = jnp.zeros(2), jnp.ones(2)
    lanes = Lanes(threshold=one, v_reset=zero, v_start=zero, j_start=zero, tau_mem=one, tau_syn=one)
    feedback = ((jnp.array([[0.0, 0.6], [0.0, 0.0]]), None),)
    for order in ([0, 1], [1, 0]):
        weight = jnp.array([[1.5, 1.5], [0.0, -1.0]])
        times = jnp.array([[0.5, 0.5]])
        given = ((weight, times, jnp.asarray(order, jnp.int32)),)
        found = simulated(spec_for(IFDelta()), given, feedback, (lanes,), 1.1).spikes[0]
        # the second neuron has 0.5 in the first round, and 1.1 in the next
        assert found.count.tolist() == [[1, 1]]
        assert found.time[0, :, 0].tolist() == [0.5, 0.5]


def test_an_overshoot_fires_again_at_once_in_a_group():
    zero, one = jnp.zeros(2), jnp.ones(2)
    lanes = Lanes(threshold=one, v_reset=zero, v_start=zero, j_start=zero, tau_mem=one, tau_syn=one)
    given = ((jnp.array([[2.7, 0.0]]), jnp.array([[0.5]]), jnp.array([0], jnp.int32)),)
    feedback = ((jnp.array([[0.0, 0.6], [0.0, 0.0]]), None),)
    neuron = IFDelta(reset_kind="subtract")
    found = simulated(spec_for(neuron), given, feedback, (lanes,), 1.1).spikes[0]
    assert found.count.tolist() == [[2, 1]]  # 2 * 0.6 arrives together
    assert found.time[0, 0, :2].tolist() == [0.5, 0.5]


def test_a_cascade_without_end_exhausts_the_budget():
    found = compiled(delta_ring)(
        jnp.array([[0.0, 1.5, 0.0], [0.0, 0.0, 1.5], [1.5, 0.0, 0.0]]), 0.5
    )
    assert found.events_needed > 7


def test_refractory_times_end_before_anything_arrives():
    """Two neurons fire together, and what they send arrives just when they are let go."""
    zero, one = jnp.zeros(3), jnp.ones(3)
    lanes = Lanes(threshold=one, v_reset=zero, v_start=zero, j_start=zero, tau_mem=one, tau_syn=one)
    arrivals = ((jnp.array([[1.5, 1.5, 0.0]]), jnp.array([[0.5]]), jnp.array([0], jnp.int32)),)
    spec, edges = (
        spec_for(LIFDelta(), refractory=0.25),
        ((1.2 * jnp.ones((3, 3)), jnp.asarray(0.25)),),
    )
    times = simulated(spec, arrivals, edges, (lanes,), 1.1).spikes[0].time
    assert times[0, :, :3].tolist() == [[0.5, 0.75, 1.0], [0.5, 0.75, 1.0], [0.75, 1.0, np.inf]]


@pytest.mark.parametrize("delay", [None, np.asarray(0.2)], ids=["none", "delayed"])
def test_an_exhausted_budget_says_how_much_it_takes(delay):
    neuron, lanes, weight, feedback, times, row = cuba_net()
    times = times.at[0].set(jnp.inf)  # a sample with nothing in it

    def within(max_events):
        arrivals = ((weight, times, row),)
        return simulated(
            spec_for(neuron, max_events), arrivals, ((feedback, delay),), (lanes,), T_END
        )

    enough = within(100)
    needed = int(enough.events_needed.max())
    assert 10 < needed <= 100
    short = within(3)
    assert short.events_needed[0] == 0
    if delay is None:
        np.testing.assert_array_equal(short.events_needed, enough.events_needed)
    else:
        assert (short.events_needed[1:] > 3).all()
        assert (short.events_needed <= enough.events_needed).all()
    just = within(needed)
    np.testing.assert_array_equal(just.spikes[0].time, enough.spikes[0].time)


def test_gradients_compose_with_vmap():
    name = "double uniform"
    drawings = [drawn(name, seed) for seed in SEEDS[name]]
    readout = readout_of(name, 0)
    one_by_one = [gradient_of(name)(numbers, rows, readout) for numbers, rows in drawings]
    numbers, rows = (
        jax.tree.map(lambda *x: jnp.stack(x), *each) for each in zip(*drawings, strict=True)
    )
    together = compiled(jax.vmap(lambda n, r: jax.grad(loss, has_aux=True)(n, r, readout, name)))(
        numbers, rows
    )
    for number, wanted in enumerate(one_by_one):
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a[number], b, rtol=1e-9, atol=1e-12)
