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
from jaxsnn.event.dynamics.two_variables import Constants
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
    lanes = Constants(
        **{name: jnp.asarray(rng.uniform(*ends, shape)) for name, ends in ranges.items()}
    )
    time = rng.integers(0, 20, (SAMPLES, ARRIVALS)) / 4
    times = np.sort(rng.integers(1, 20, (SAMPLES, NEURONS, SLOTS)) / 4)
    time[1, 2] = time[0, 0] = times[2, 1, 3:] = times[0, 0, 1:] = np.inf
    row = rng.integers(0, ROWS, ARRIVALS if shared else time.shape)
    return rng.normal(size=(ROWS, NEURONS)), lanes, time, row.astype(np.int32), times


@pytest.mark.parametrize(("positions", "shared"), [(1, True), (2, False)])
def test_slopes_of_v_after_a_refractory_time(positions, shared, x64):
    """(j - v_reset) / tau_mem, j with all that came until then."""
    weight, lanes, time, row, times = drawn(positions, shared)
    spec = LayerSpec(neuron=Kicked(), max_spikes=SLOTS, refractory=REFRACTORY)
    assert spec.assigns
    every = np.broadcast_to(row, time.shape)
    expected = np.full(times.shape, np.nan)
    for b, n, s in zip(*np.nonzero(np.isfinite(times)), strict=True):
        lane_values = [
            np.asarray(lane)[b % positions, n] if positions > 1 else np.asarray(lane)[n]
            for lane in (
                lanes.threshold,
                lanes.v_reset,
                lanes.j_start,
                lanes.tau_mem,
                lanes.tau_syn,
            )
        ]
        threshold, v_reset, j_start, tau_mem, tau_syn = lane_values
        free = times[b, n, s] + REFRACTORY
        added = [(0.0, j_start)]
        added += [(time[b, a], weight[every[b, a], n]) for a in range(ARRIVALS)]
        added += [(spike_time, KICK * threshold) for spike_time in times[b, n]]
        j = sum(by * np.exp((at - free) / tau_syn) for at, by in added if at <= free)
        expected[b, n, s] = (j - v_reset) / tau_mem
    residuals = Residuals(*jax.tree.map(jnp.asarray, (weight, lanes, time, row, times)), NONE, None)
    slopes = np.asarray(jax.jit(partial(slopes_after, spec))(residuals))
    assert slopes.shape == times.shape
    counts = np.isfinite(times)
    np.testing.assert_allclose(slopes[counts], expected[counts], rtol=1e-12)


@pytest.mark.parametrize("noted", [False, True])
@pytest.mark.parametrize("refractory", [0.0, REFRACTORY])
def test_recorded_causes_are_kept_and_other_slopes_computed(refractory, noted, x64):
    """But how V rises behind a refractory time, which it does not note."""
    weight, lanes, time, row, times = jax.tree.map(jnp.asarray, drawn(shared=True))
    spec = LayerSpec(neuron=Kicked(), max_spikes=SLOTS, refractory=refractory)
    slots = jnp.moveaxis(times, -1, 0)
    rng = np.random.default_rng(0)
    cause, jump, rise = (rng.integers(0, 9, slots.shape) for _ in range(3))
    causes = Causes(*map(jnp.asarray, (cause, jump, rise))) if noted else None
    residuals = Residuals(weight, lanes, time, row, times, NONE, None)
    wide = jax.tree.map(lambda lane: lane[None], lanes)
    noted_slopes = jax.jit(partial(_with_slope_after, spec))(residuals, wide, slots, causes)
    np.testing.assert_array_equal(noted_slopes.cause, cause if noted else np.full(slots.shape, -1))
    np.testing.assert_array_equal(noted_slopes.jump, jump if noted else np.zeros(slots.shape))
    if noted and not refractory:
        np.testing.assert_array_equal(noted_slopes.slope_after, rise)
    else:
        computed = jax.jit(partial(slopes_after, spec))(residuals)
        assert np.any(np.abs(computed[0]) > 0.1)
        np.testing.assert_array_equal(np.moveaxis(noted_slopes.slope_after, 0, -1), computed)


@pytest.mark.parametrize("shared", [True, False])
def test_slopes_of_v_at_recorded_spikes(shared, x64):
    """(j - threshold) / tau_mem, j with all that came before; 1 where there is none."""
    weight, lanes, time, row, times = case = drawn(shared=shared)
    every, expected = np.broadcast_to(row, time.shape), np.ones(times.shape)
    for b, n, s in zip(*np.nonzero(np.isfinite(times)), strict=True):
        fields = ("threshold", "j_start", "tau_mem", "tau_syn")
        threshold, j_start, tau_mem, tau_syn = (getattr(lanes, name)[n] for name in fields)
        now = times[b, n, s]
        added = [(time[b, a], weight[every[b, a], n]) for a in range(ARRIVALS)]
        j = sum(by * np.exp((at - now) / tau_syn) for at, by in added if at < now)
        expected[b, n, s] = (j + j_start * np.exp(-now / tau_syn) - threshold) / tau_mem
    spec = LayerSpec(neuron=CubaLIFDelta(), max_spikes=SLOTS)
    count = np.isfinite(times).sum(-1)
    spikes = jax.jit(partial(recorded_spikes, spec))(*jax.tree.map(jnp.asarray, case), count)
    np.testing.assert_array_equal(spikes.time, times)
    np.testing.assert_array_equal(spikes.count, count)
    np.testing.assert_allclose(spikes.slope, expected, rtol=1e-12)


def test_a_group_that_is_differentiated_forwards_gives_spikes_of_the_same_shape(x64):
    name = "double uniform"
    numbers, rows = recurrent_cases.drawn(name, recurrent_cases.SEEDS[name][0])
    case, spec = recurrent_cases.CASES[name], recurrent_cases.spec_of(name)
    rows = [jnp.asarray(row) for row in rows]
    by_reverse, by_forward = (
        jax.eval_shape(
            lambda x, simulate=simulate: recurrent_cases.run(spec, case, x, rows, group=simulate),
            numbers,
        )
        for simulate in (group_spikes, group_spikes_forward)
    )
    assert by_reverse == by_forward
