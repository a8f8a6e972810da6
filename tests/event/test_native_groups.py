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
from tests.event.agreement import (
    assert_same_spikes,
    assert_trees_close,
    assert_trees_equal,
    finite_times,
)
from tests.event.differences import ENOUGH, relative_errors
from tests.event.group_cases import ARRIVALS, CASES, SAMPLES, SPARSE, T_END, TAU, at_one_time
from tests.helpers.refusals import assert_refused

pytestmark = pytest.mark.usefixtures("native_kernels")


def by_kernels(threads=1):
    return lambda spec, *arguments: native_group_spikes(spec, threads, *arguments)[0]


def spikes_of(group, backend, numbers, rows):
    outside, feedback, lanes = numbers
    arrivals = tuple((*weights, row) for weights, row in zip(outside, rows, strict=True))
    return backend(group.spec(), arrivals, tuple(map(tuple, feedback)), tuple(lanes), T_END)


def value_of(group, backend, rows, numbers):
    """A weighted sum of all spike times, by neurons and in the order in which they act; the spikes."""
    result, total = spikes_of(group, backend, numbers, rows), 0.0
    rng = np.random.default_rng(1)
    for spikes, (time, neuron) in zip(result.spikes, result.trains, strict=True):
        weights = jnp.asarray(rng.normal(size=spikes.time.shape), spikes.time.dtype)
        total += jnp.sum(weights * finite_times(spikes.time) ** 2)
        total += 0.1 * jnp.sum(jnp.sin(1.0 + neuron) * finite_times(time) ** 2)
    return total, result


def gradient_of(group, backend, numbers, rows):
    """Spikes, and the gradient by all numbers."""
    both = jax.jit(jax.value_and_grad(partial(value_of, group, backend, rows), has_aux=True))
    (_, result), gradient = both(numbers)
    return result, gradient


def assert_same(result, expected, *, times, gradients):
    """Compare two results of `gradient_of`.

    Args:
        times: tolerance in TAU; gradients: in the largest entry of each array.
    """
    (group, gradient), (expected_group, expected_gradient) = result, expected
    np.testing.assert_array_equal(group.events_needed, expected_group.events_needed)
    for spikes, reference in zip(group.spikes, expected_group.spikes, strict=True):
        np.testing.assert_array_equal(spikes.count, reference.count)
        np.testing.assert_allclose(spikes.time, reference.time, atol=times * TAU, rtol=0)
    trains = ([in_order(*train) for train in outcome.trains] for outcome in (group, expected_group))
    assert_trees_close(*trains, absolute=times * TAU, rtol=0)
    assert_trees_close(gradient, expected_gradient, atol=gradients, rtol=0, absolute=1e-39)


def in_order(time, neuron):
    """The spikes that act, without gaps."""
    acts = np.isfinite(time)
    return np.asarray(time)[acts], np.asarray(neuron)[acts]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_both_backends_agree(name, x64):
    group = CASES[name]
    drawn = group.numbers()
    expected, expected_gradient = by_xla = gradient_of(group, group_spikes, *drawn)
    for spikes, size in zip(expected.spikes, group.sizes, strict=True):
        assert int(spikes.count.sum()) > (1 if group.once else 2) * size
    # If neurons fire once, gradients by the reset are 0.
    zeros = [jnp.abs(leaf).max() == 0 for leaf in jax.tree.leaves(expected_gradient)]
    assert sum(zeros) == (len(group.sizes) if group.once else 0)
    single = gradient_of(group, by_kernels(), *drawn)
    assert_same(single, by_xla, times=1e-11, gradients=1e-9)
    assert_trees_equal(gradient_of(group, by_kernels(2), *drawn), single)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_central_differences(name, x64):
    group = CASES[name]
    numbers, rows = group.numbers()
    _, gradient = gradient_of(group, by_kernels(), numbers, rows)

    def value(numbers):
        total, result = value_of(group, by_kernels(), rows, numbers)
        return total, [spikes.count for spikes in result.spikes]

    error = relative_errors(gradient, value, numbers)
    assert np.isfinite(error).mean() > 0.95  # otherwise a spike appears or vanishes in the step
    assert np.nanmax(error) < ENOUGH


@pytest.mark.slow
@pytest.mark.parametrize("name", ["double", "half", "equal", "apart", "loop", "refractory"])
def test_spikes_are_those_of_the_reference(name, x64):
    for seed in recurrent_cases.SEEDS[name]:
        numbers, rows = recurrent_cases.drawn(name, seed)
        spec, case = recurrent_cases.spec_of(name), recurrent_cases.CASES[name]
        result = recurrent_cases.run(spec, case, numbers, rows, group=by_kernels(2))
        expected = recurrent_cases.reference(name, numbers, rows)
        for spikes, times in zip(result.spikes, expected, strict=True):
            assert np.isfinite(times).sum() > 3
            assert_same_spikes(spikes, times[..., :1] if spikes.time.shape[-1] == 1 else times)


@pytest.mark.slow
def test_events_at_one_time_act_in_the_order_of_xla(x64):
    """Spikes at time 0, refractory times that end when what they sent arrives, and arrivals from
    outside then: gradients are those of one side, and tell in which order it was.
    """
    group, drawn = CASES["ties"], at_one_time()
    expected = gradient_of(group, group_spikes, *drawn)
    assert int((expected[0].spikes[0].time == 0).sum()) > 3
    assert_same(gradient_of(group, by_kernels(), *drawn), expected, times=1e-11, gradients=1e-9)


@pytest.mark.slow
def test_float32_is_as_exact_as_xla(x64):
    group, errors = CASES["some held"], []
    exact = jax.jit(partial(spikes_of, group, by_kernels()))
    for backend in (group_spikes, by_kernels()):
        run = jax.jit(partial(spikes_of, group, backend))
        pairs = [
            pair
            for n in range(6)
            for pair in zip(
                run(*group.numbers(n, dtype=jnp.float32)).spikes,
                exact(*group.numbers(n)).spikes,
                strict=True,
            )
        ]
        errors.append(np.concatenate([time_errors(*pair) for pair in pairs]))
    for share in (0.5, 0.9):
        of_xla, of_kernels = (np.quantile(error, share) for error in errors)
        assert of_kernels < 1.2 * of_xla
    assert np.median(errors[1]) < 2.0**-22 * TAU


def time_errors(spikes, exact):
    np.testing.assert_array_equal(spikes.count, exact.count)
    fired = np.isfinite(exact.time)
    return np.abs(np.asarray(spikes.time)[fired] - np.asarray(exact.time)[fired])


def with_one_isolated(numbers, *, tau_mem):
    """Numbers of a group of one population whose last neuron gets and sends nothing, and has a
    tau_mem of its own.
    """
    [(weight, time)], feedback, [lanes] = numbers
    feedback = [(w.at[-1].set(0.0).at[:, -1].set(0.0), delay) for w, delay in feedback]
    lanes = replace(lanes, tau_mem=lanes.tau_mem.at[-1].set(tau_mem))
    return [(weight.at[:, -1].set(0.0), time)], feedback, [lanes]


@pytest.mark.parametrize("name", SPARSE)
def test_neurons_that_feel_no_spike_fire_as_if_they_had_been_advanced(name, x64):
    """Where all time constants are one, only neurons that feel a spike are looked at; where one has
    another, all are advanced with each spike.
    """
    group = SPARSE[name]

    @jax.jit
    def run(numbers, rows, tau_mem):
        isolated = with_one_isolated(numbers, tau_mem=tau_mem)
        return gradient_of(group, by_kernels(), isolated, rows)

    fired = 0
    for seed in range(25):
        drawn = group.numbers(seed)
        # Gradients by weights, times and delays; the second run has more different time constants.
        (alike, gradient), (mixed, expected) = (run(*drawn, tau * TAU) for tau in (1.7, 1.3))
        assert_same((alike, gradient[:2]), (mixed, expected[:2]), times=1e-10, gradients=1e-8)
        fired += int(alike.events_needed.sum())
    assert fired > 25 * SAMPLES * 30 * (0.5 if group.once else 1)


# -- all features at once, in single precision

EVERYTHING = "some held"


def test_the_number_of_threads_changes_no_bit():
    group = CASES[EVERYTHING]
    drawn = group.numbers(dtype=jnp.float32)
    single, several = (gradient_of(group, by_kernels(n), *drawn) for n in (1, 2))
    assert single[0].spikes[0].time.dtype == jnp.float32
    assert_trees_equal(several, single)


def test_gradients_along_a_direction(x64):
    """A few evaluations: that all entries are right is tested above, and takes longer."""
    group = CASES[EVERYTHING]
    numbers, rows = group.numbers()
    value = jax.jit(jax.value_and_grad(partial(value_of, group, by_kernels(), rows), has_aux=True))
    (_, result), gradient = value(numbers)
    assert sum(int(spikes.count.sum()) for spikes in result.spikes) > 40
    rng = np.random.default_rng(3)
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), numbers)
    pairs = zip(*map(jax.tree.leaves, (gradient, direction)), strict=True)
    along = sum(jnp.vdot(*pair) for pair in pairs)
    ends = [
        value(jax.tree.map(lambda leaf, part, h=h: leaf + h * part, numbers, direction))[0][0]
        for h in (-2e-6, -1e-6, 1e-6, 2e-6)
    ]
    difference = (8 * (ends[2] - ends[1]) - (ends[3] - ends[0])) / 12e-6
    assert abs(difference - along) < 1e-5 * abs(along)


@pytest.mark.parametrize("name", ["two", EVERYTHING])
def test_too_small_a_budget_reports_the_events_needed(name):
    group = CASES[name]
    numbers, rows = group.numbers(dtype=jnp.float32)
    numbers[0][0] = (numbers[0][0][0], numbers[0][0][1].at[2].set(jnp.inf))
    enough = spikes_of(group, by_kernels(), numbers, rows)
    assert int(enough.events_needed.max()) > 20
    counts = sum(spikes.count.sum(axis=1) for spikes in enough.spikes)
    np.testing.assert_array_equal(enough.events_needed, counts)
    for room in (0, 7):
        small = replace(group, max_events=room)
        result, gradient = gradient_of(small, by_kernels(2), numbers, rows)
        np.testing.assert_array_equal(result.events_needed, counts)
        for spikes, expected in zip(result.spikes, enough.spikes, strict=True):
            np.testing.assert_array_equal(spikes.time, expected.time)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient[1:]))


def test_no_delay_is_a_delay_of_zero():
    group = CASES["two"]
    (outside, feedback, lanes), rows = group.numbers(dtype=jnp.float32)

    def with_delays(delays):
        edges = [(weight, delays(weight)) for weight, _ in feedback]
        return spikes_of(group, by_kernels(), (outside, edges, lanes), rows).spikes[0]

    expected = with_delays(lambda weight: None)
    for zeros in (lambda weight: jnp.zeros((), weight.dtype), lambda weight: 0 * weight[:, 0]):
        spikes = with_delays(zeros)
        np.testing.assert_array_equal(spikes.count, expected.count)
        np.testing.assert_allclose(spikes.time, expected.time, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1.0])
def test_numbers_that_are_none_do_not_hang(value):
    group = CASES[EVERYTHING]
    (outside, feedback, lanes), rows = group.numbers(dtype=jnp.float32)
    delays = [(w, None if delay is None else jnp.full_like(delay, value)) for w, delay in feedback]
    weights = [(w.at[0].set(value), delay) for w, delay in feedback]
    run = jax.jit(lambda numbers: value_of(group, by_kernels(2), rows, numbers)[1])
    for changed in (delays, weights):
        assert run((outside, changed, lanes)).spikes[0].count.shape == (SAMPLES, 9)


@pytest.mark.parametrize(("batch", "count"), [(3, 0), (0, ARRIVALS), (0, 0)])
def test_groups_without_arrivals_or_samples(batch, count):
    group = CASES["two"]
    (outside, feedback, lanes), rows = group.numbers(dtype=jnp.float32)
    still = [replace(lane, v_start=0 * lane.v_start, j_start=0 * lane.v_start) for lane in lanes]
    few = [(weight, time[:batch, :count]) for weight, time in outside]
    few_rows = [row[:batch, :count] for row in rows]
    result, gradient = gradient_of(group, by_kernels(2), (few, feedback, still), few_rows)
    assert result.spikes[0].time.shape == (batch, 9, 12)
    assert result.spikes[1].count.shape == (batch, 5)
    assert not any(spikes.count.any() for spikes in result.spikes)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("backend", ["native", "xla"])
def test_neurons_that_cross_at_one_time_fire_in_the_order_of_their_numbers(backend, x64):
    """The second neuron's gradient is that of a spike just after the first one, which reaches it."""
    nodes = {
        "input": build.input(1),
        "in": build.linear(weight=np.full((2, 1), 6.0)),
        "n": build.cubalif(2, tau_mem=10e-3, tau_syn=5e-3),
        "back": build.linear(weight=np.array([[0.0, 0.3], [0.3, 0.0]])),
        "output": build.output(),
    }
    net = lower(build.network(nodes, [("input", "in", "n", "output"), ("n", "back", "n")]))
    train = Events(time=np.zeros((1, 1)), index=np.zeros((1, 1), int))
    engine = EventDriven(max_spikes=4, backend=backend)

    def second_neuron(weight):
        changed = net.with_parameters({**net.parameters, "in": {"weight": weight}})
        return simulate(changed, train, 4e-3, engine=engine).spikes["n"].time[0, 1, 0]

    weight, step = net.parameters["in"]["weight"], 1e-6
    change = step * jnp.eye(2)[:, 1].reshape(weight.shape)
    value, gradient = jax.value_and_grad(second_neuron)(weight)
    later = (value - second_neuron(weight - change)) / step
    earlier = (second_neuron(weight + change) - value) / step
    np.testing.assert_allclose(gradient.ravel()[1], later, rtol=1e-4)
    assert abs(earlier - later) > 0.01 * abs(later)


# -- choice of the engine


def run_loop(**options):
    """Spikes of two populations that feed back into each other."""
    neurons = build.cubalif(tau_mem="10ms", tau_syn="5ms")
    nodes = {
        "input": build.input(3),
        "in": build.linear(weight=np.full((2, 3), 2.0)),
        "a": neurons,
        "there": build.linear(weight=np.full((4, 2), 0.9)),
        "b": neurons,
        "back": build.linear(weight=np.full((2, 4), 0.1)),
        "output": build.output(),
    }
    chain = ("input", "in", "a", "there", "b", "output")
    net = lower(build.network(nodes, [chain, ("b", "back", "a")]))
    time = jnp.asarray(np.linspace(0, 20e-3, 12).reshape(2, 6), jnp.float32)
    events = Events(time=time, index=jnp.asarray(np.arange(12).reshape(2, 6) % 3, jnp.int32))
    return simulate(net, events, 30e-3, engine=EventDriven(**options)).spikes


def test_loops_of_several_populations_are_native():
    expected = run_loop(backend="xla")
    for name, spikes in run_loop(backend="native").items():
        assert int(spikes.count.sum()) > 4
        np.testing.assert_array_equal(spikes.count, expected[name].count)
        np.testing.assert_allclose(spikes.time, expected[name].time, atol=1e-6 * 5e-3)


def test_loops_of_which_some_populations_fire_once_are_refused():
    """Other loops that are not native are in test_without_kernels.py."""
    run = partial(run_loop, backend="native", first_spike_only=("a",))
    assert_refused(
        run, UsageError, "only some populations of its cycle stop after their first spike"
    )
