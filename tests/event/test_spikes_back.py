"""Costates of a layer's spikes, and the gradient by its own lanes, against loops over neurons and
spikes, with matrices for flows: whatever the spikes are, made up here.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from jaxsnn.event.adjoint import layer_adjoint
from jaxsnn.event.adjoint.layer_adjoint import (
    Residuals,
    _own_gradient,
    _spikes_back,
    layer_backward,
)
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.lif import LIFDelta
from jaxsnn.event.forward.layer import Causes, LayerSpec, LayerSpikes
from tests.event.test_costates import FLOOR, KICK, Alone, Kicked, lanes_of

SAMPLES, NEURONS, SLOTS, FIELDS = 5, 4, 3, ("tau_mem", "tau_syn")
CASES = {
    "lowered": LayerSpec(neuron=CubaLIFDelta(), **FLOOR),
    "subtract": LayerSpec(neuron=CubaLIFDelta(reset_kind="subtract"), **FLOOR),
    "kicked, held": LayerSpec(neuron=Kicked(), refractory=0.2, **FLOOR),
    "one slot": LayerSpec(neuron=Kicked(), **FLOOR),
    "ramp": LayerSpec(neuron=LIFDelta(), jump_width=0.2, **FLOOR),
    "alone": LayerSpec(neuron=Alone(), refractory=0.2, **FLOOR),
}


@cache
def drawn(name):
    """(spec, lanes, times, slopes, drive, causes), slots first; one fires at 0, one that starts
    above its threshold does not.
    """
    rng, spec = np.random.default_rng(list(CASES).index(name)), CASES[name]
    lanes = lanes_of(spec, NEURONS, rng)
    shape = ({"one slot": 1, "subtract": 2}.get(name, SLOTS), SAMPLES, NEURONS)
    times = np.cumsum(rng.uniform(0.3, 1, shape), axis=0)
    times[0, 0] = 0
    times[0, 1], times[1:, 2], times[:, 1, 2] = 0.4, np.inf, np.inf
    slopes = rng.uniform(0.05, 1.5, shape)
    jump = np.where(rng.random(shape) < 0.5, rng.uniform(0.1, 0.5, shape), 0.0)
    slopes[(jump > 0) & (rng.random(shape) < 0.7)] = np.inf
    causes = Causes(cause=None, jump=jump, slope_after=rng.normal(size=shape))
    noted = causes if spec.has_causes else None
    return spec, lanes, times, slopes, rng.normal(size=shape), noted


def looped(name, b, k, moved=None, lams=None):
    """(costates just before each spike, at 0, costates along the excess, gradient by lanes, what the
    flow carries to where it begins) of a neuron; time constants moved where it flows.
    """
    spec, lanes, times, slopes, drive, causes = drawn(name)
    lane = {field: getattr(lanes, field)[k] for field in lanes.__dataclass_fields__}

    def rate(tau_mem, tau_syn):
        return np.array(
            [[-1 / tau_mem, 1 / tau_mem], [0, 0 if spec.neuron.jumps else -1 / tau_syn]]
        )

    rates = rate(lane["tau_mem"], lane["tau_syn"])
    flowing = rate(*(lane[field] + (moved or {}).get(field, 0.0) for field in FIELDS))
    above = lane["v_start"] > lane["threshold"]
    kick = KICK * lane["threshold"] if isinstance(spec.neuron, Kicked) else 0.0
    height = lane["threshold"] - lane["v_reset"]
    reset_change = np.array([lane["v_reset"], kick] if spec.assigns else [-height, 0.0])
    resets = above and not spec.assigns and not spec.neuron.keeps_overshoot
    start = np.array([lane["v_reset"] if resets else lane["v_start"], lane["j_start"]])
    start *= [1.0, not isinstance(spec.neuron, Alone)]  # it has no j
    p, after, by_lanes, before, carried = np.zeros(2), None, dict.fromkeys(lane, 0.0), {}, 0.0
    for s in reversed(range(len(times))):
        if not np.isfinite(times[s, b, k]):
            continue
        if after is not None:
            p = expm(flowing * (after - times[s, b, k] - spec.refractory)).T @ p
        slope = slopes[s, b, k]
        if spec.jump_width and np.isinf(slope) and causes.jump[s, b, k]:
            slope = causes.jump[s, b, k] / spec.jump_width
        slope = max(slope, 0.3 * height / lane["tau_mem"])
        if spec.assigns:
            behind = np.array([0.0, (expm(flowing * spec.refractory).T @ [0, p[1]])[1]])
            total = (
                drive[s, b, k] - p[0] * causes.slope_after[s, b, k] - behind[1] * rates[1, 1] * kick
            )
            left_by = np.array([p[0], behind[1]])
        else:
            behind = left_by = p
            total = drive[s, b, k] + p @ rates @ [height, 0]
        lam = 0.0 if above and s == 0 and times[0, b, k] == 0 else -total / slope
        lam = lams[s] if lams else lam
        if not (s == 0 and resets):
            carried += reset_change @ left_by
            by_lanes["v_reset"] += left_by[0]
            by_lanes["threshold"] += left_by[1] * KICK if kick else 0.0
            by_lanes["threshold"] -= 0.0 if spec.assigns else left_by[0]
        by_lanes["threshold"] -= lam
        p = behind + np.array([lam, 0.0])
        before[s], after = (p, lam), times[s, b, k]
    p = expm(flowing * (after or 0.0)).T @ p
    by_lanes["v_reset" if resets else "v_start"] += p[0]
    by_lanes["j_start"] += p[1]
    return before, p, by_lanes, carried + start @ p


@pytest.mark.parametrize("name", CASES)
def test_costates_go_back_through_spikes(name, x64):
    spec, *arrays = drawn(name)
    lanes, *others = jax.tree.map(jnp.asarray, arrays)
    wide = jax.tree.map(lambda lane: lane[None], lanes)

    @jax.jit
    def run(lanes, times, slopes, drive, causes):
        passed, begin = _spikes_back(spec, lanes, times, slopes, drive, causes, True)
        return passed, begin, _own_gradient(spec, lanes, passed, begin)

    passed, begin, gradient = jax.tree.map(np.asarray, run(wide, *others))
    close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)
    entries = len(begin.p)
    for b, k in np.ndindex(SAMPLES, NEURONS):
        before, start, by_lanes, _ = looped(name, b, k)
        for s, (costate, lam) in before.items():
            close(np.stack(passed.before.p, -1)[s, b, k], costate[:entries])
            close(passed.lam[s, b, k], lam)
        close(np.stack(begin.p, -1)[b, k], start[:entries])
        for field in set(by_lanes) - set(FIELDS) - ({"j_start"} if entries == 1 else set()):
            close(getattr(gradient, field)[b, k], by_lanes[field], err_msg=field)
        for field in spec.neuron.flow_fields:
            lams = {s: lam for s, (_, lam) in before.items()}
            low, high = (looped(name, b, k, {field: by}, lams)[3] for by in (-1e-5, 1e-5))
            expected = (high - low) / 2e-5
            np.testing.assert_allclose(
                getattr(gradient, field)[b, k], expected, rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize("transposable", [False, True])
def test_transposable_gradients_do_not_loop_over_arrivals(transposable, monkeypatch, x64):
    """That pass loops as often as there are arrivals, which JAX cannot transpose."""
    monkeypatch.setattr(layer_adjoint, "_MANY_ARRIVALS", 3)
    spec, lanes, times, slopes, drive, _ = drawn("lowered")
    times, slopes, drive = (jnp.moveaxis(jnp.asarray(x), 0, -1) for x in (times, slopes, drive))
    row, time = jnp.zeros(6, jnp.int32), jnp.ones((SAMPLES, 6))
    residuals = Residuals(
        jnp.ones((2, NEURONS)), jax.tree.map(jnp.asarray, lanes), time, row, times, slopes, None
    )

    def gradients(drive):
        spikes = LayerSpikes(time=drive, slope=slopes, count=slopes)
        return layer_backward(spec, residuals, spikes, transposable)[:3]

    assert ("while[" in str(jax.make_jaxpr(gradients)(drive))) is not transposable
