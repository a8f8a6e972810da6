"""Groups of populations in the native backend: the same spikes and gradients as XLA's, gradients that
central differences give, whatever the number of threads, and budgets that are too small.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.errors import UsageError
from jaxsnn.event.adjoint.recurrent_adjoint import group_spikes
from jaxsnn.event.native.native_group import native_group_spikes
from jaxsnn.nir import build
from tests.event import recurrent_cases
from tests.event.agreement import assert_same_spikes
from tests.event.differences import ENOUGH, relative_errors
from tests.event.group_cases import ARRIVALS, CASES, SAMPLES, SPARSE, T_END, TAU, at_one_time

pytestmark = pytest.mark.usefixtures("native_kernels")


def native(threads=1):
    return lambda spec, *given: native_group_spikes(spec, threads, *given)[0]


def spikes_of(group, way, numbers, rows):
    outside, feedback, lanes = numbers
    arrivals = tuple((*each, row) for each, row in zip(outside, rows, strict=True))
    return way(group.spec(), arrivals, tuple(map(tuple, feedback)), tuple(lanes), T_END)


def value_of(group, way, rows, numbers):
    """A weighted sum of all spike times, by neurons and in the order in which they act; the spikes."""
    found, total = spikes_of(group, way, numbers, rows), 0.0
    rng = np.random.default_rng(1)
    for spikes, (time, neuron) in zip(found.spikes, found.trains, strict=True):
        weights = jnp.asarray(rng.normal(size=spikes.time.shape), spikes.time.dtype)
        total += jnp.sum(weights * finite(spikes.time) ** 2)
        total += 0.1 * jnp.sum(jnp.sin(1.0 + neuron) * finite(time) ** 2)
    return total, found


def finite(time):
    return jnp.where(jnp.isfinite(time), time, 0.0)


def gradient_of(group, way, numbers, rows):
    """Spikes, and the gradient by all numbers."""
    function = jax.value_and_grad(partial(value_of, group, way, rows), has_aux=True)
    (_, found), gradient = jax.jit(function)(numbers)
    return found, gradient


def assert_same(found, gradient, expected, wanted, times, gradients):
    np.testing.assert_array_equal(found.events_needed, expected.events_needed)
    for ours, theirs in zip(found.spikes, expected.spikes, strict=True):
        np.testing.assert_array_equal(ours.count, theirs.count)
        np.testing.assert_allclose(ours.time, theirs.time, atol=times * TAU, rtol=0)
    for ours, theirs in zip(found.trains, expected.trains, strict=True):
        for one, other in zip(in_order(*ours), in_order(*theirs), strict=True):
            np.testing.assert_allclose(one, other, atol=times * TAU, rtol=0)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True):
        scale = np.abs(theirs).max() + 1e-30
        np.testing.assert_allclose(ours, theirs, atol=gradients * scale, rtol=0)


def in_order(time, neuron):
    """What acts, without gaps."""
    acts = np.isfinite(time)
    return np.asarray(time)[acts], np.asarray(neuron)[acts]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_both_backends_agree(name, x64):
    group = CASES[name]
    numbers, rows = group.numbers()
    expected, wanted = gradient_of(group, group_spikes, numbers, rows)
    found, gradient = gradient_of(group, native(), numbers, rows)
    for spikes, size in zip(expected.spikes, group.sizes, strict=True):
        assert int(spikes.count.sum()) > (1 if group.once else 2) * size
    # who fires once is not seen to be reset
    none = [jnp.abs(leaf).max() == 0 for leaf in jax.tree.leaves(wanted)]
    assert sum(none) == (len(group.sizes) if group.once else 0)
    assert_same(found, gradient, expected, wanted, 1e-11, 1e-9)
    again = gradient_of(group, native(2), numbers, rows)
    for one, two in zip(jax.tree.leaves(again), jax.tree.leaves((found, gradient)), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_central_differences(name, x64):
    group = CASES[name]
    numbers, rows = group.numbers()
    _, gradient = gradient_of(group, native(), numbers, rows)

    def value(numbers):
        total, found = value_of(group, native(), rows, numbers)
        return total, [spikes.count for spikes in found.spikes]

    error = relative_errors(gradient, value, numbers)
    assert np.isfinite(error).mean() > 0.95  # elsewhere a spike comes or goes within the step
    assert np.nanmax(error) < ENOUGH


@pytest.mark.slow
@pytest.mark.parametrize("name", ["double", "half", "equal", "apart", "loop", "refractory"])
def test_spikes_are_those_of_the_reference(name, x64):
    for seed in recurrent_cases.SEEDS[name]:
        numbers, rows = recurrent_cases.drawn(name, seed)
        spec, case = recurrent_cases.spec_of(name), recurrent_cases.CASES[name]
        found = recurrent_cases.run(spec, case, numbers, rows, group=native(2))
        wanted = recurrent_cases.reference(name, numbers, rows)
        for spikes, times in zip(found.spikes, wanted, strict=True):
            assert np.isfinite(times).sum() > 3
            assert_same_spikes(spikes, times[..., :1] if spikes.time.shape[-1] == 1 else times)


@pytest.mark.slow
def test_what_comes_at_one_time_acts_in_the_order_of_xla(x64):
    """Spikes at time 0, refractory times that end when what they sent arrives, and arrivals from
    outside then: gradients are those of one side, and say in which order it was.
    """
    group = CASES["ties"]
    numbers, rows = at_one_time()
    expected, wanted = gradient_of(group, group_spikes, numbers, rows)
    assert int((expected.spikes[0].time == 0).sum()) > 3
    found, gradient = gradient_of(group, native(), numbers, rows)
    assert_same(found, gradient, expected, wanted, 1e-11, 1e-9)


@pytest.mark.slow
def test_float32_is_as_exact_as_xla(x64):
    group = CASES["some held"]
    errors = []
    for way in (group_spikes, native()):
        run = jax.jit(partial(spikes_of, group, way))
        own = [jax.jit(partial(spikes_of, group, native()))(*group.numbers(n)) for n in range(6)]
        found = [run(*group.numbers(n, dtype=jnp.float32)) for n in range(6)]
        pairs = zip(found, own, strict=True)
        both = [pair for one, other in pairs for pair in zip(one.spikes, other.spikes, strict=True)]
        errors.append(np.concatenate([apart(*pair) for pair in both]))
    for share in (0.5, 0.9):
        by_xla, by_kernels = (np.quantile(error, share) for error in errors)
        assert by_kernels < 1.2 * by_xla
    assert np.median(errors[1]) < 2.0**-22 * TAU


def apart(spikes, true):
    np.testing.assert_array_equal(spikes.count, true.count)
    fired = np.isfinite(true.time)
    return np.abs(np.asarray(spikes.time)[fired] - np.asarray(true.time)[fired])


def with_one_apart(numbers, *, tau):
    """Numbers of a group of one population whose last neuron gets and sends nothing, and has a
    tau_mem of its own.
    """
    [(weight, time)], feedback, [lanes] = numbers
    feedback = [(w.at[-1].set(0.0).at[:, -1].set(0.0), late) for w, late in feedback]
    lanes = replace(lanes, tau_mem=lanes.tau_mem.at[-1].set(tau))
    return [(weight.at[:, -1].set(0.0), time)], feedback, [lanes]


@pytest.mark.parametrize("name", SPARSE)
def test_who_feels_no_spike_stays_and_fires_as_if_it_had_gone_on(name, x64):
    """Where all time constants are one, only who feels a spike is looked at; where somebody has
    another one, all go on with each.
    """
    group = SPARSE[name]
    alike, apart = (
        jax.jit(
            lambda numbers, rows, tau=tau: gradient_of(
                group, native(), with_one_apart(numbers, tau=tau), rows
            )
        )
        for tau in (1.7 * TAU, 1.3 * TAU)
    )
    fired = 0
    for seed in range(25):
        numbers, rows = group.numbers(seed)
        found, gradient = alike(numbers, rows)
        expected, wanted = apart(numbers, rows)
        fired += int(found.events_needed.sum())
        # by weights, times and delays: of the time constants there are more that differ
        assert_same(found, gradient[:2], expected, wanted[:2], 1e-10, 1e-8)
    assert fired > 25 * SAMPLES * 30 * (0.5 if group.once else 1)


# ---- all of it at once, in single precision

EVERYTHING = "some held"


def test_no_number_of_threads_changes_a_bit():
    group = CASES[EVERYTHING]
    numbers, rows = group.numbers(dtype=jnp.float32)
    one, two = (gradient_of(group, native(n), numbers, rows) for n in (1, 2))
    assert one[0].spikes[0].time.dtype == jnp.float32
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_gradients_along_a_direction(x64):
    """A few evaluations: that all entries are right is tested above, and takes longer."""
    group = CASES[EVERYTHING]
    numbers, rows = group.numbers()
    value = jax.jit(jax.value_and_grad(partial(value_of, group, native(), rows), has_aux=True))
    (_, found), gradient = value(numbers)
    assert sum(int(spikes.count.sum()) for spikes in found.spikes) > 40
    rng = np.random.default_rng(3)
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), numbers)
    pairs = zip(*map(jax.tree.leaves, (gradient, direction)), strict=True)
    along = sum(jnp.vdot(*pair) for pair in pairs)
    ends = [
        value(jax.tree.map(lambda leaf, way, h=h: leaf + h * way, numbers, direction))[0][0]
        for h in (-2e-6, -1e-6, 1e-6, 2e-6)
    ]
    difference = (8 * (ends[2] - ends[1]) - (ends[3] - ends[0])) / 12e-6
    assert abs(difference - along) < 1e-5 * abs(along)


@pytest.mark.parametrize("name", ["two", EVERYTHING])
def test_a_budget_that_is_too_small_says_what_it_takes(name):
    group = CASES[name]
    numbers, rows = group.numbers(dtype=jnp.float32)
    numbers[0][0] = (numbers[0][0][0], numbers[0][0][1].at[2].set(jnp.inf))
    enough = spikes_of(group, native(), numbers, rows)
    assert int(enough.events_needed.max()) > 20
    counts = sum(spikes.count.sum(axis=1) for spikes in enough.spikes)
    np.testing.assert_array_equal(enough.events_needed, counts)
    for room in (0, 7):
        found, gradient = gradient_of(replace(group, max_events=room), native(2), numbers, rows)
        np.testing.assert_array_equal(found.events_needed, counts)
        for ours, theirs in zip(found.spikes, enough.spikes, strict=True):
            np.testing.assert_array_equal(ours.time, theirs.time)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient[1:]))


def test_no_delay_is_a_delay_of_zero():
    group = CASES["two"]
    (outside, feedback, lanes), rows = group.numbers(dtype=jnp.float32)
    found = []
    for shape in (None, lambda weight: (), lambda weight: weight.shape[:1]):
        given = [(w, None if shape is None else jnp.zeros(shape(w), w.dtype)) for w, _ in feedback]
        found.append(spikes_of(group, native(), (outside, given, lanes), rows))
    for other in found[1:]:
        np.testing.assert_array_equal(other.spikes[0].count, found[0].spikes[0].count)
        np.testing.assert_allclose(other.spikes[0].time, found[0].spikes[0].time, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1.0])
def test_numbers_that_are_none_do_not_hang(value):
    group = CASES[EVERYTHING]
    (outside, feedback, lanes), rows = group.numbers(dtype=jnp.float32)
    late = [(w, None if delay is None else jnp.full_like(delay, value)) for w, delay in feedback]
    strange = [(w.at[0].set(value), delay) for w, delay in feedback]
    run = jax.jit(lambda numbers: value_of(group, native(2), rows, numbers)[1])
    for given in (late, strange):
        assert run((outside, given, lanes)).spikes[0].count.shape == (SAMPLES, 9)


def test_nothing_arrives_and_nobody_is_there():
    group = CASES["two"]
    (outside, feedback, lanes), rows = group.numbers(dtype=jnp.float32)
    still = [replace(own, v_start=0 * own.v_start, j_start=0 * own.v_start) for own in lanes]
    for batch, count in ((3, 0), (0, ARRIVALS), (0, 0)):
        cut = [(weight, time[:batch, :count]) for weight, time in outside]
        given = cut, feedback, still
        few = [row[:batch, :count] for row in rows]
        found, gradient = gradient_of(group, native(2), given, few)
        assert found.spikes[0].time.shape == (batch, 9, 12)
        assert found.spikes[1].count.shape == (batch, 5)
        assert not any(spikes.count.any() for spikes in found.spikes)
        assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))


# ---- the engine's choice


def loop_of(first, second):
    """Two populations that feed back into each other."""
    nodes = {
        "input": build.input(3),
        "in": build.linear(weight=np.full((2, 3), 2.0)),
        "a": first,
        "there": build.linear(weight=np.full((4, 2), 0.9)),
        "b": second,
        "back": build.linear(weight=np.full((2, 4), 0.1)),
        "output": build.output(),
    }
    chain = ("input", "in", "a", "there", "b", "output")
    return lower(build.network(nodes, [chain, ("b", "back", "a")]))


def some_events():
    time = jnp.asarray(np.linspace(0, 20e-3, 12).reshape(2, 6), jnp.float32)
    return Events(time=time, index=jnp.asarray(np.arange(12).reshape(2, 6) % 3, jnp.int32))


def test_loops_of_several_populations_are_native():
    neurons = build.cubalif(tau_mem="10ms", tau_syn="5ms")
    net = loop_of(neurons, neurons)
    found, expected = (
        simulate(net, some_events(), 30e-3, engine=EventDriven(backend=backend))
        for backend in ("native", "xla")
    )
    assert int(expected.spikes["a"].count.sum()) > 4 < int(expected.spikes["b"].count.sum())
    for name in "a", "b":
        ours, theirs = found.spikes[name], expected.spikes[name]
        np.testing.assert_array_equal(ours.count, theirs.count)
        np.testing.assert_allclose(ours.time, theirs.time, atol=1e-6 * 5e-3)


def test_what_is_not_covered_is_named():
    cuba, lif = build.cubalif(tau_mem="10ms", tau_syn="5ms"), build.lif(tau="10ms")
    with pytest.raises(UsageError, match="moves V itself"):
        simulate(loop_of(cuba, lif), some_events(), 30e-3, engine=EventDriven(backend="native"))
    with pytest.raises(UsageError, match="fire once, and others not"):
        simulate(
            loop_of(cuba, cuba),
            some_events(),
            30e-3,
            engine=EventDriven(backend="native", first_spike_only=("a",)),
        )
