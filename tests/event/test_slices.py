"""Sparse groups that are simulated in slices of time, against the same groups event by event, for which
they get rows without a delay that have no synapses.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.dynamics.two_variables import Constants
from jaxsnn.event.native import native_group
from jaxsnn.event.native.native_group import ByTarget, SynapseLists, _group, _OnePopulation

TAU, T_END, ROWS = 1.0, 8.0, 6


@dataclass(frozen=True, kw_only=True)
class Case:
    """A random group.

    Attributes:
        delays: range of the delays, in units of TAU.
        separate: whether each synapse has a delay of its own.
        heterogeneous: whether neurons differ in their time constants.
        above: whether some neurons start above the threshold.
        below_rest: whether thresholds are below the resting potential.
        reset_above: whether some neurons have a reset above the threshold.
    """

    neurons: int = 30
    synapses: int = 150
    arrivals: int = 40
    samples: int = 2
    delays: tuple[float, float] = (0.1, 0.9)
    separate: bool = True
    refractory: tuple[float, ...] = ()
    once: bool = False
    subtract: bool = False
    heterogeneous: bool = False
    above: bool = False
    below_rest: bool = False
    reset_above: bool = False
    feedback: float = 0.15  # mean weight
    max_spikes: int = 40
    max_events: int = 900


CASES = {
    "separate delays": Case(),
    "delays of neurons": Case(separate=False),
    "heterogeneous": Case(heterogeneous=True),
    "refractory": Case(refractory=(0.02, 0.3), above=True),
    "refractory, heterogeneous": Case(refractory=(0.5, 2.0), heterogeneous=True, separate=False),
    "subtract": Case(subtract=True, above=True),
    "once": Case(once=True, above=True, heterogeneous=True),
    "below rest": Case(below_rest=True, refractory=(1.0, 1.0)),
    "long refractory period, short delays": Case(
        delays=(1e-4, 3e-4), refractory=(0.5, 0.6), synapses=60, feedback=-0.1
    ),
    "resets above the threshold": Case(refractory=(0.4, 0.9), reset_above=True),
    "one short delay": Case(delays=(2e-3, 1.9), synapses=300),
    "many arrivals in a slice": Case(delays=(1.5, 1.6), synapses=900, arrivals=90, feedback=-0.2),
    "several parts": Case(neurons=17000, synapses=9000, arrivals=5, samples=1, max_events=9000),
}


def group_of(case, seed=0, dtype=jnp.float64):
    """Return the population, its lists without immediate rows, and the operands of `_group`."""
    rng = np.random.default_rng(seed)
    neurons, size = case.neurons, (case.samples, case.arrivals)
    from_outside = 3 * neurons
    row = np.concatenate([rng.integers(0, ROWS, from_outside), np.zeros(case.synapses, int)])
    if case.separate:
        senders = rng.integers(0, neurons, case.synapses)
        row[from_outside:] = ROWS + np.arange(case.synapses)
    else:
        senders = np.arange(neurons)
        row[from_outside:] = ROWS + rng.integers(0, neurons, case.synapses)
    order = np.argsort(row, kind="stable")
    lists = SynapseLists(
        begin=np.searchsorted(row[order], np.arange(ROWS + len(senders) + 1)).astype(np.int32),
        target=rng.integers(0, neurons, len(row)).astype(np.int32),
        senders=senders.astype(np.int32),
        immediate=False,
    )
    weight = np.where(
        row < ROWS, rng.normal(0.9, 0.5, len(row)), rng.normal(case.feedback, 0.4, len(row))
    )
    taus = rng.uniform(0.7, 1.4, (2, neurons)) if case.heterogeneous else np.ones((2, neurons))
    values = {
        "threshold": rng.uniform(0.5, 1.0, neurons) - 1.2 * case.below_rest,
        "v_reset": rng.uniform(-0.3, 0.2, neurons) - 1.2 * case.below_rest,
        "v_start": rng.uniform(-0.2, 0.3, neurons) + case.above * (rng.random(neurons) < 0.3),
        "j_start": rng.uniform(-0.2, 0.3, neurons),
        "tau_mem": 1.7 * TAU * taus[0],
        "tau_syn": TAU * taus[1],
    }
    if case.below_rest:
        values["v_start"] -= 1.6
    if case.reset_above:
        values["v_reset"][::3] = values["threshold"][::3] + 0.1
    population = _OnePopulation(
        max_spikes=1 if case.once else case.max_spikes,
        max_events=case.max_events,
        once=case.once,
        subtract=case.subtract,
        min_slope=2**-20,
        senders=(),
        immediate=False,
        held=tuple(zip((neurons // 2, neurons - neurons // 2), case.refractory, strict=False)),
        threads=2,
        lists=lists,
    )
    time = rng.uniform(0, 0.8 * T_END, size)
    time[rng.random(size) < 0.1] = np.inf
    real = lambda array: jnp.asarray(array, dtype)  # noqa: E731
    operands = (
        real(weight[order][:, None]),
        ByTarget(jnp.zeros((0, 0), dtype), jnp.zeros(0, dtype)),
        Constants(**{name: real(value) for name, value in values.items()}),
        real(rng.uniform(*case.delays, len(senders)) * TAU),
        real(time),
        jnp.asarray(rng.integers(-1, ROWS, size), jnp.int32),
        real(T_END),
    )
    return population, operands


def event_by_event(population, neurons):
    """Return the population with a row without synapses for each neuron, which acts at once."""
    lists = population.lists
    begin = np.concatenate([lists.begin, np.full(neurons, lists.begin[-1], np.int32)])
    return replace(population, immediate=True, lists=replace(lists, begin=begin, immediate=True))


def both(case, seed=0, dtype=jnp.float64):
    population, operands = group_of(case, seed, dtype)
    return population, event_by_event(population, case.neurons), operands


def gradients(population, operands):
    """Gradients of a weighted sum of all spike times, by neuron and in the spike train."""
    weight, by_target, constants, delay, time, row, t_end = operands

    def loss(weight, constants, delay, time):
        outcome = _group(population, weight, by_target, constants, delay, time, row, t_end)
        rng = np.random.default_rng(5)
        of_neurons, of_train = (
            jnp.where(jnp.isfinite(times), times, 0.0) * rng.normal(size=times.shape)
            for times in (outcome.spikes.time, outcome.time)
        )
        return of_neurons.sum() + of_train.sum()

    return jax.grad(loss, argnums=(0, 1, 2, 3))(weight, constants, delay, time)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_spikes_and_gradients_are_those_of_the_simulation_event_by_event(name):
    population, reference, operands = both(CASES[name])
    got, expected = _group(population, *operands), _group(reference, *operands)
    assert int(expected.needed.sum()) > 100 or CASES[name].once
    assert int(expected.needed.max()) <= population.max_events
    np.testing.assert_array_equal(got.needed, expected.needed)
    np.testing.assert_array_equal(got.neuron, expected.neuron)
    np.testing.assert_allclose(got.time, expected.time, rtol=1e-12)
    for key in ("time", "slope", "count"):
        values = (getattr(outcome.spikes, key) for outcome in (got, expected))
        np.testing.assert_allclose(*values, rtol=1e-9)
    got, expected = gradients(population, operands), gradients(reference, operands)
    for value, target in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        assert float(jnp.abs(target).max()) > 0 or CASES[name].once  # no effect of v_reset
        scale = float(jnp.abs(target).max())
        np.testing.assert_allclose(value, target, rtol=1e-7, atol=1e-9 * scale)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_groups_of_random_numbers_fire_the_same_spikes(name):
    case = replace(CASES[name], samples=1)
    for seed in range(1, 3 if case.neurons > 100 else 30):
        population, reference, operands = both(case, seed)
        got, expected = _group(population, *operands), _group(reference, *operands)
        np.testing.assert_array_equal(got.neuron, expected.neuron)
        np.testing.assert_allclose(got.time, expected.time, rtol=1e-11)


@pytest.mark.usefixtures("x64")
def test_results_do_not_depend_on_the_number_of_threads():
    population, operands = group_of(CASES["several parts"])
    results = [
        (_group(alone, *operands).time, gradients(alone, operands))
        for alone in (replace(population, threads=threads) for threads in (1, 2, 3))
    ]
    for other in results[1:]:
        for got, expected in zip(*map(jax.tree.leaves, (other, results[0])), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_single_precision_agrees_with_double():
    population, operands = group_of(replace(CASES["refractory"], samples=1), dtype=jnp.float32)
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, operands
        )
        expected = _group(population, *wide)
        expected_gradients = gradients(population, wide)
    got = _group(population, *operands)
    np.testing.assert_array_equal(got.neuron, expected.neuron)
    np.testing.assert_allclose(got.time, expected.time, rtol=2e-5)
    for value, target in zip(
        *map(jax.tree.leaves, (gradients(population, operands), expected_gradients)), strict=True
    ):
        np.testing.assert_allclose(value, target, rtol=2e-2, atol=1e-3 * np.abs(target).max())


@pytest.mark.usefixtures("x64")
def test_a_log_of_two_entries_for_each_spike_suffices(monkeypatch):
    population, _, operands = both(Case(samples=1))
    expected = gradients(population, operands)
    monkeypatch.setattr(native_group, "MOST_STEPS", 1000)
    assert population.log_length(1, 40) == 2 * population.max_events
    for got, target in zip(
        *map(jax.tree.leaves, (gradients(population, operands), expected)), strict=False
    ):
        np.testing.assert_array_equal(got, target)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shortest", [0.0, 1e-9])
def test_delays_near_zero_are_simulated_event_by_event_or_refused(monkeypatch, shortest):
    population, reference, operands = both(Case(samples=1))
    operands = (*operands[:3], operands[3].at[0].set(shortest), *operands[4:])
    got, expected = gradients(population, operands), gradients(reference, operands)
    for value, target in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        np.testing.assert_allclose(value, target, rtol=1e-9, atol=1e-12)
    monkeypatch.setattr(native_group, "MOST_STEPS", 1000)
    refusals = ValueError, jax.errors.JaxRuntimeError  # the first call, and later ones
    with pytest.raises(refusals, match="lengthen the shortest delays"):
        gradients(population, operands)


@pytest.mark.usefixtures("x64")
def test_infinite_delays_never_act():
    population, reference, operands = both(Case(samples=1))
    operands = (*operands[:3], operands[3].at[::3].set(np.inf), *operands[4:])
    got, expected = _group(population, *operands), _group(reference, *operands)
    np.testing.assert_allclose(got.time, expected.time, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_spikes_beyond_the_results_are_counted():
    population, reference, operands = both(replace(CASES["separate delays"], max_events=50))
    got, expected = _group(population, *operands), _group(reference, *operands)
    np.testing.assert_array_equal(got.needed, expected.needed)
    assert int(got.needed.max()) > 50
    np.testing.assert_allclose(got.time, expected.time, rtol=1e-12)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(gradients(population, operands)))
