"""Groups of populations in the native backend: the same spikes and gradients as XLA's, gradients that
central differences give, whatever the number of threads, and budgets that are too small.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.errors import UsageError
from jaxsnn.event.adjoint.recurrent_adjoint import group_spikes
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.two_variables import Lanes
from jaxsnn.event.forward.group import GroupSpec
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.native.native_group import native_group_spikes
from jaxsnn.nir import build
from tests.event.differences import ENOUGH, relative_errors

pytestmark = pytest.mark.usefixtures("native_kernels")

TAU, T_END = 1.0, 6.0
SAMPLES, ARRIVALS, ROWS = 3, 8, 4


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of populations of CubaLIF; edges: (source, target, delay), as in `recurrent_cases`."""

    sizes: tuple[int, ...] = (9, 5)
    edges: tuple[tuple[int, int, str], ...] = (
        (0, 1, "none"),
        (1, 0, "none"),
        (0, 0, "none"),
        (0, 0, "none"),
    )
    refractory: tuple[float, ...] = (0.0, 0.0)
    once: bool = False
    subtract: bool = False
    own: bool = False  # time constants of each neuron
    above: bool = False  # some start above their thresholds
    share: float = 1.0  # of the connections that are there
    max_spikes: tuple[int, ...] = (12, 10)
    max_events: int = 150

    def spec(self):
        kind = "subtract" if self.subtract else "zero"
        neuron = CubaLIFDelta(uniform=not self.own, reset_kind=kind)
        layers = tuple(
            LayerSpec(
                neuron=neuron,
                max_spikes=1 if self.once else slots,
                once=self.once,
                refractory=held,
                min_slope=2**-20,
            )
            for slots, held in zip(self.max_spikes, self.refractory, strict=False)
        )
        edges = tuple((source, target) for source, target, _ in self.edges)
        return GroupSpec(layers=layers[: len(self.sizes)], edges=edges, max_events=self.max_events)

    def numbers(self, seed=0, dtype=jnp.float64):
        """What gradients are asked for by: (weights and times from outside, feedback, lanes); and
        the rows.
        """
        rng = np.random.default_rng(seed)
        outside, rows, lanes = [], [], []
        for number, size in enumerate(self.sizes):
            time = rng.uniform(0, 0.8 * T_END, (SAMPLES, ARRIVALS))
            time[rng.random(time.shape) < 0.15] = np.inf
            outside.append((rng.normal(1.0, 0.6, (ROWS + number, size)), time))
            rows.append(jnp.asarray(rng.integers(0, ROWS + number, time.shape), jnp.int32))
            lanes.append(self._lanes(rng, size, dtype))
        feedback = []
        for source, target, delay in self.edges:
            sizes = self.sizes[source], self.sizes[target]
            weight = rng.normal(0.02, 0.3, sizes) * (rng.random(sizes) < self.share)
            shape = {"none": None, "one": (), "each": sizes[:1]}[delay]
            late = None if shape is None else rng.uniform(0.1, 0.9, shape) * TAU
            feedback.append((weight, late))
        given = jax.tree.map(partial(jnp.asarray, dtype=dtype), (outside, feedback, lanes))
        return given, rows

    def _lanes(self, rng, size, dtype):
        spread = rng.uniform(0.7, 1.4, (2, size)) if self.own else np.ones((2, size))
        start = rng.uniform(-0.2, 0.3, size) + self.above * (rng.random(size) < 0.3)
        values = {
            "threshold": rng.uniform(0.5, 1.0, size),
            "v_reset": rng.uniform(-0.3, 0.2, size),
            "v_start": start,
            "j_start": rng.uniform(-0.2, 0.3, size),
            "tau_mem": 1.7 * TAU * spread[0],
            "tau_syn": TAU * spread[1],
        }
        return Lanes(**{name: jnp.asarray(value, dtype) for name, value in values.items()})


def native(threads=1):
    return lambda spec, *given: native_group_spikes(spec, threads, *given)


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


CASES = {
    "two": Group(),
    "two, own": Group(own=True),
    "three": Group(
        sizes=(6, 2, 3),
        edges=((0, 1, "none"), (1, 2, "none"), (2, 0, "none"), (2, 2, "none")),
        refractory=(0.0, 0.0, 0.0),
        max_spikes=(9, 12, 10),
        above=True,
    ),
    "two, once": Group(once=True),
    "delayed": Group(edges=((0, 1, "one"), (1, 0, "each"), (0, 0, "one"), (0, 0, "each"))),
    "some delayed": Group(
        edges=((0, 1, "none"), (1, 0, "each"), (0, 0, "one"), (1, 1, "none")), own=True, share=0.4
    ),
    "alone, delayed": Group(sizes=(7,), edges=((0, 0, "each"),), subtract=True, above=True),
    "two, subtract": Group(subtract=True, above=True, share=0.15),
}


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


def test_no_number_of_threads_changes_a_bit():
    group = CASES["two"]
    numbers, rows = group.numbers(dtype=jnp.float32)
    one, two = (gradient_of(group, native(n), numbers, rows) for n in (1, 2))
    assert one[0].spikes[0].time.dtype == jnp.float32
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("max_events", [0, 7])
def test_a_budget_that_is_too_small_says_what_it_takes(max_events):
    group = CASES["two"]
    numbers, rows = group.numbers(dtype=jnp.float32)
    numbers[0][0] = (numbers[0][0][0], numbers[0][0][1].at[2].set(jnp.inf))
    enough = spikes_of(group, native(), numbers, rows)
    assert int(enough.events_needed.max()) > 20
    short = replace(group, max_events=max_events)
    found, gradient = gradient_of(short, native(2), numbers, rows)
    np.testing.assert_array_equal(found.events_needed, enough.events_needed)
    for ours, theirs in zip(found.spikes, enough.spikes, strict=True):
        np.testing.assert_array_equal(ours.time, theirs.time)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient[1:]))


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
