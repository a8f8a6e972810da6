"""Slopes that gradients need against sums over arrivals and spikes, written out for neurons under
currents: samples, neurons, arrivals and spikes differ in number.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.adjoint.layer_adjoint import Residuals, _with_slope_after, slopes_after
from jaxsnn.event.adjoint.recorded_spikes import recorded_spikes
from jaxsnn.event.adjoint.recurrent_adjoint import group_spikes, group_spikes_forward
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.two_variables import Lanes
from jaxsnn.event.forward.layer import Causes, LayerSpec
from tests.event import recurrent_cases
from tests.event.test_costates import KICK, Kicked

SAMPLES, NEURONS, SLOTS, ARRIVALS, ROWS, REFRACTORY = 4, 3, 5, 6, 7, 0.5
NONE: Any = None


def drawn(positions=1, shared=False):
    """(weight, lanes, time, row, times); times are multiples of 1/4, so that many come at once."""
    rng = np.random.default_rng(3 + positions)
    shape = (positions, NEURONS) if positions > 1 else NEURONS
    ranges = {"threshold": (0.8, 1.2), "v_reset": (-0.4, 0.2), "v_start": (-0.2, 0.2)}
    ranges |= {"j_start": (-0.5, 0.5), "tau_mem": (1.5, 2.5), "tau_syn": (0.7, 1.1)}
    lanes = Lanes(**{name: jnp.asarray(rng.uniform(*ends, shape)) for name, ends in ranges.items()})
    time = rng.integers(0, 20, (SAMPLES, ARRIVALS)) / 4
    times = np.sort(rng.integers(1, 20, (SAMPLES, NEURONS, SLOTS)) / 4)
    time[1, 2] = time[0, 0] = times[2, 1, 3:] = times[0, 0, 1:] = np.inf
    row = rng.integers(0, ROWS, ARRIVALS if shared else time.shape)
    return rng.normal(size=(ROWS, NEURONS)), lanes, time, row.astype(np.int32), times


@pytest.mark.parametrize(("positions", "shared"), [(1, True), (2, False)])
def test_how_v_rises_when_it_is_let_go(positions, shared, x64):
    """(j - v_reset) / tau_mem, j with all that came until then."""
    weight, lanes, time, row, times = drawn(positions, shared)
    spec = LayerSpec(neuron=Kicked(), max_spikes=SLOTS, refractory=REFRACTORY)
    assert spec.assigns
    every = np.broadcast_to(row, time.shape)
    expected = np.full(times.shape, np.nan)
    for b, n, s in zip(*np.nonzero(np.isfinite(times)), strict=True):
        own = [
            np.asarray(lane)[b % positions, n] if positions > 1 else np.asarray(lane)[n]
            for lane in (
                lanes.threshold,
                lanes.v_reset,
                lanes.j_start,
                lanes.tau_mem,
                lanes.tau_syn,
            )
        ]
        threshold, v_reset, j_start, tau_mem, tau_syn = own
        free = times[b, n, s] + REFRACTORY
        added = [(0.0, j_start)]
        added += [(time[b, a], weight[every[b, a], n]) for a in range(ARRIVALS)]
        added += [(other, KICK * threshold) for other in times[b, n]]
        j = sum(by * np.exp((at - free) / tau_syn) for at, by in added if at <= free)
        expected[b, n, s] = (j - v_reset) / tau_mem
    kept = Residuals(*jax.tree.map(jnp.asarray, (weight, lanes, time, row, times)), NONE, None)
    found = np.asarray(jax.jit(partial(slopes_after, spec))(kept))
    assert found.shape == times.shape
    counts = np.isfinite(times)
    np.testing.assert_allclose(found[counts], expected[counts], rtol=1e-12)


@pytest.mark.parametrize("noted", [False, True])
@pytest.mark.parametrize("refractory", [0.0, REFRACTORY])
def test_what_the_simulation_noted_is_kept(refractory, noted, x64):
    """But how V rises behind a refractory time, which it does not note."""
    weight, lanes, time, row, times = jax.tree.map(jnp.asarray, drawn(shared=True))
    spec = LayerSpec(neuron=Kicked(), max_spikes=SLOTS, refractory=refractory)
    slots = jnp.moveaxis(times, -1, 0)
    rng = np.random.default_rng(0)
    cause, jump, rise = (rng.integers(0, 9, slots.shape) for _ in range(3))
    causes = Causes(*map(jnp.asarray, (cause, jump, rise))) if noted else None
    kept = Residuals(weight, lanes, time, row, times, NONE, None)
    wide = jax.tree.map(lambda lane: lane[None], lanes)
    found = jax.jit(partial(_with_slope_after, spec))(kept, wide, slots, causes)
    np.testing.assert_array_equal(found.cause, cause if noted else np.full(slots.shape, -1))
    np.testing.assert_array_equal(found.jump, jump if noted else np.zeros(slots.shape))
    if noted and not refractory:
        np.testing.assert_array_equal(found.slope_after, rise)
    else:
        again = jax.jit(partial(slopes_after, spec))(kept)
        assert np.any(np.abs(again[0]) > 0.1)
        np.testing.assert_array_equal(np.moveaxis(found.slope_after, 0, -1), again)


@pytest.mark.parametrize("shared", [True, False])
def test_how_v_rises_at_recorded_spikes(shared, x64):
    """(j - threshold) / tau_mem, j with all that came before; 1 where there is none."""
    weight, lanes, time, row, times = given = drawn(shared=shared)
    every, expected = np.broadcast_to(row, time.shape), np.ones(times.shape)
    for b, n, s in zip(*np.nonzero(np.isfinite(times)), strict=True):
        names = ("threshold", "j_start", "tau_mem", "tau_syn")
        threshold, j_start, tau_mem, tau_syn = (getattr(lanes, name)[n] for name in names)
        now = times[b, n, s]
        added = [(time[b, a], weight[every[b, a], n]) for a in range(ARRIVALS)]
        j = sum(by * np.exp((at - now) / tau_syn) for at, by in added if at < now)
        expected[b, n, s] = (j + j_start * np.exp(-now / tau_syn) - threshold) / tau_mem
    spec = LayerSpec(neuron=CubaLIFDelta(), max_spikes=SLOTS)
    count = np.isfinite(times).sum(-1)
    found = jax.jit(partial(recorded_spikes, spec))(*jax.tree.map(jnp.asarray, given), count)
    np.testing.assert_array_equal(found.time, times)
    np.testing.assert_array_equal(found.count, count)
    np.testing.assert_allclose(found.slope, expected, rtol=1e-12)


def test_a_group_that_is_differentiated_forwards_gives_spikes_of_the_same_shape(x64):
    name = "double uniform"
    numbers, rows = recurrent_cases.drawn(name, recurrent_cases.SEEDS[name][0])
    case, spec = recurrent_cases.CASES[name], recurrent_cases.spec_of(name)
    rows = [jnp.asarray(row) for row in rows]
    one, other = (
        jax.eval_shape(
            lambda x, way=way: recurrent_cases.run(spec, case, x, rows, group=way), numbers
        )
        for way in (group_spikes, group_spikes_forward)
    )
    assert one == other
