"""A layer whose arrivals are taken together takes hundreds of steps, however many there are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.nir import build

SAMPLES, INPUTS, HIDDEN, T_END = 2, 20, 40, 0.4


@contextmanager
def counted_turns() -> Iterator[list[int]]:
    """How many turns each loop takes, each time that it runs, of what is traced and run here."""
    turns: list[int] = []
    while_loop, fori_loop, scan, lax_map = lax.while_loop, lax.fori_loop, lax.scan, lax.map

    def note(number: Any) -> None:
        jax.debug.callback(lambda number: turns.append(int(number)), number)

    def counted_while(goes_on: Callable, body: Callable, start: Any) -> Any:
        def counted(carry: Any) -> Any:
            return carry[0] + 1, body(carry[1])

        count, end = while_loop(lambda carry: goes_on(carry[1]), counted, (jnp.int32(0), start))
        note(count)
        return end

    def counted_for(first: Any, end: Any, *given: Any, **options: Any) -> Any:
        note(end - first)
        return fori_loop(first, end, *given, **options)

    def counted_scan(body: Callable, start: Any, over: Any = None, **options: Any) -> Any:
        leaves = jax.tree.leaves(over)
        note(options["length"] if "length" in options else len(leaves[0]))
        return scan(body, start, over, **options)

    def counted_map(function: Callable, over: Any, **options: Any) -> Any:
        note(len(jax.tree.leaves(over)[0]))
        return lax_map(function, over, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lax, "while_loop", counted_while)
        patch.setattr(lax, "fori_loop", counted_for)
        patch.setattr(lax, "scan", counted_scan)
        patch.setattr(lax, "map", counted_map)
        jax.clear_caches()
        yield turns
        jax.effects_barrier()
    jax.clear_caches()


def test_turns_are_counted():
    with counted_turns() as turns:

        def function(x):
            def body(n, x):
                return lax.scan(lambda x, y: (x + y, y), x, jnp.ones(4))[0] + n

            x = lax.fori_loop(0, 5, body, x)
            return lax.while_loop(lambda x: x > 0, lambda x: x - 10, x)

        assert float(jax.jit(function)(1.0)) == -9.0
    assert sorted(turns) == [4, 4, 4, 4, 4, 4, 5]


def layers(events):
    """Two layers whose neurons fire about as often whatever the number of events, and these."""
    rng = np.random.default_rng(3)
    hidden = rng.normal(1.0, 0.7, (HIDDEN, INPUTS)) * 60 / events
    taus = {"tau_mem": "20ms", "tau_syn": "10ms"}
    graph = build.sequential(
        build.input(INPUTS),
        build.linear(weight=hidden),
        build.cubalif(**taus),
        build.linear(weight=rng.normal(0.15, 0.3, (3, HIDDEN))),
        build.cubalif(**taus),
    )
    time = jnp.asarray(np.sort(rng.uniform(0, 0.9 * T_END, (SAMPLES, events)), axis=1))
    index = jnp.asarray(rng.integers(0, INPUTS, time.shape), jnp.int32)
    return lower(graph), Events(time=time, index=index)


def differentiable(events, parallel):
    """Gradients of a sum of spike times, and the spikes, as a function of the parameters."""
    network, given = layers(events)
    network = network.with_lasting_time_constants()
    engine = EventDriven(backend="xla", max_spikes=24, parallel_in_time=parallel)

    def total(weights):
        parameters = {name: {**own, **weights.get(name, {})} for name, own in held.items()}
        found = simulate(network.with_parameters(parameters), given, t_end=T_END, engine=engine)
        times = [spikes.time for spikes in found.spikes.values()]
        return sum(jnp.sum(jnp.where(jnp.isfinite(t), t, 0.0)) for t in times), found.spikes

    held = network.parameters
    weights = {name: {"weight": held[name]["weight"]} for name in ("1", "3")}
    return jax.grad(total, has_aux=True), weights


def counted(events, parallel):
    with counted_turns() as turns:
        function, weights = differentiable(events, parallel)
        gradient, spikes = jax.jit(function)(weights)
    return sum(turns), gradient, spikes


@pytest.mark.usefixtures("x64")
def test_a_layer_takes_as_many_steps_whatever_the_number_of_events():
    few, _, _ = counted(200, parallel=True)
    many, gradient, spikes = counted(1600, parallel=True)
    one_by_one, expected, others = counted(1600, parallel=False)
    fired = [int(found.count.sum()) for found in spikes.values()]
    assert min(fired) > 20
    # of both layers, forward and backward
    assert few < 300
    assert many < 1.2 * few
    assert one_by_one > 10 * many
    for mine, theirs in zip(jax.tree.leaves(spikes), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
    for mine, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-9 * float(abs(theirs).max()))
