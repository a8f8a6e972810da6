"""The threshold crossing solvers over a million random cases, by the sign of V on either side of each
root in extended precision, and by mpmath for samples.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from jaxsnn.event.dynamics import crossing
from jaxsnn.event.dynamics.integrate_and_fire import IFBox
from jaxsnn.event.dynamics.lif import LIFBox
from jaxsnn.event.dynamics.two_variables import Constants
from jaxsnn.network.structure import TauShape

RATIO = {TauShape.DOUBLE: 2.0, TauShape.HALF: 0.5, TauShape.EQUAL: 1.0}
SHAPES = [*RATIO, TauShape.ANY]
CASES = 125_000  # for each shape and dtype: a million in all
#: Maximum distance of V from the threshold at which rounding decides, in roundings of the largest
#: term of V.
ROUNDINGS = 6
Extended = np.longdouble

pytestmark = [pytest.mark.last_digits, pytest.mark.usefixtures("x64")]


class Case(NamedTuple):
    v: np.ndarray
    j: np.ndarray
    threshold: np.ndarray
    tau_mem: np.ndarray
    tau_syn: np.ndarray
    duration: np.ndarray


def signed(rng, count):
    return 10 ** rng.uniform(-3, 3, count) * rng.choice([-1, 1], count)


def random_cases(shape, rng, count, dtype):
    """States of any size, currents that have long decayed among them, nearly tangent thresholds,
    ratios from 1e-3 to 1e3, within 1e-12 of 1 and at it where the shape allows, intervals from 1e-9 to 1e9 tau.
    """
    if shape in RATIO:
        ratio = RATIO[shape]
    elif shape is TauShape.APART:
        ratio = np.exp(rng.uniform(np.log(1.15), np.log(20.0), count) * rng.choice([-1, 1], count))
    else:
        near = 1 + rng.choice([-1, 1], count) * 10 ** rng.uniform(-12, -3, count)
        nearest = 1 + rng.integers(-50, 50, count) * np.finfo(float).eps
        any_ratio = 10 ** rng.uniform(-3, 3, count)
        ratio = np.choose(rng.integers(0, 4, count), [near, nearest, any_ratio, any_ratio])
    tau_syn = 10 ** rng.uniform(-3, 0, count)
    tau_mem = (ratio * tau_syn.astype(dtype)).astype(dtype)
    v, j, threshold = (signed(rng, count) for _ in range(3))
    j = np.choose(
        rng.integers(0, 10, count), [0 * j, j * 10 ** rng.uniform(-30, 0, count), *[j] * 8]
    )
    v, threshold = np.minimum(v, threshold), np.maximum(v, threshold)
    case = Case(v, j, threshold, tau_mem, tau_syn, 10 ** rng.uniform(-9, 9, count) * tau_mem)
    case = Case(*(array.astype(dtype) for array in case))
    # A tenth of the thresholds are just below, or above, the maximum of V.
    peak = membrane(case, peak_time(case))[0]
    close = peak * (1 + rng.choice([-1, 1], count) * 10 ** rng.uniform(-18, -1, count))
    tangent = (rng.random(count) < 0.1) & (close > case.v) & (abs(close) > 1e-20 * abs(case.v))
    case = case._replace(threshold=np.where(tangent, close, case.threshold).astype(dtype))
    below = case.v < case.threshold
    return Case(*(array[below] for array in case))


def membrane(case, t):
    """V after a time in extended precision, and the size of what rounding moves: its parts, whose
    exponents are rounded too.
    """
    v, j, _, tau_mem, tau_syn, _ = (array.astype(Extended) for array in case)
    t = t.astype(Extended)
    em, es = np.exp(-t / tau_mem), np.exp(-t / tau_syn)
    gap = 1 / tau_syn - 1 / tau_mem
    z = -t * abs(gap)
    safe = np.where(z == 0, 1, z)
    phi1 = np.where(z == 0, 1, np.expm1(safe) / safe)
    k = t / tau_mem * np.where(gap >= 0, em, es) * phi1
    longer = np.maximum(tau_mem, tau_syn)
    size = abs(v) * em * (1 + t / tau_mem) + abs(j) * k * (1 + t / longer)
    return v * em + j * k, size


def peak_time(case):
    """When V has its extremum, in extended precision; 0 where none lies ahead."""
    v, j, _, tau_mem, tau_syn, duration = (array.astype(Extended) for array in case)
    d = tau_mem / tau_syn - 1
    with np.errstate(all="ignore"):
        z = d * (v - j) / (j * (1 + d))
        rise = tau_mem * (j - v) / (j * (1 + d))
        time = np.where(z == 0, rise, rise * np.log1p(z) / z)
    time = np.where((j != 0) & (z > -1) & np.isfinite(time), time, 0)
    return np.clip(time, 0, duration)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_crossing_is_seen_and_found_to_the_last_digits(shape, dtype):
    case = random_cases(shape, np.random.default_rng(1), CASES, dtype)
    crosses, time = crossings(shape, case)
    eps = np.finfo(dtype).eps
    at_end, end_size = membrane(case, case.duration)
    at_peak, peak_size = membrane(case, peak_time(case))
    highest = np.maximum(at_end, at_peak)
    size = np.where(at_end >= at_peak, end_size, peak_size) + abs(case.threshold)
    true = highest >= case.threshold
    undecided = abs(highest - case.threshold) <= ROUNDINGS * eps * size
    np.testing.assert_array_equal(crosses[~undecided], true[~undecided])
    assert crosses.sum() > CASES / 8
    # V has one crossing at most: it lies where V - threshold changes its sign
    both = crosses & true
    case, time = Case(*(array[both] for array in case)), time[both].astype(Extended)
    step = 2 * eps * case.duration.astype(Extended)
    before = membrane(case, np.maximum(time - step, 0))[0] - case.threshold
    behind = membrane(case, np.minimum(time + step, case.duration))[0] - case.threshold
    value, size = membrane(case, time)
    residual = abs(value - case.threshold) / (eps * (size + abs(case.threshold)))
    assert np.isfinite(time).all()
    exact = ((before < 0) | (time <= step)) & (behind >= 0)
    assert residual[~exact].max(initial=0) < ROUNDINGS


@pytest.mark.parametrize(
    ("dtype", "rounding", "accuracy"), [(np.float64, 1e-13, 1e-9), (np.float32, 2e-6, 1e-5)]
)
def test_crossings_at_time_constants_that_lie_apart(dtype, rounding, accuracy):
    """Their formula loses digits: by roundings of the parts that V has at first."""
    case = random_cases(TauShape.APART, np.random.default_rng(1), CASES, dtype)
    duration = np.minimum(case.duration, 30 * np.maximum(case.tau_mem, case.tau_syn))
    case = case._replace(duration=duration.astype(dtype))
    crosses, time = crossings(TauShape.APART, case)
    assert np.isfinite(time).all()
    assert ((time >= 0) & (time <= case.duration * (1 + rounding))).all()
    slack = rounding * (abs(case.v) + abs(case.j) + abs(case.threshold)).astype(Extended)
    ends = (membrane(case, t)[0] for t in (case.duration, peak_time(case)))
    highest = np.maximum(*ends) - case.threshold
    clear = abs(highest) > slack
    np.testing.assert_array_equal(crosses[clear], highest[clear] >= 0)
    both, step = crosses & clear, accuracy * case.tau_syn.astype(Extended)
    assert both.sum() > CASES / 8
    before = membrane(case, np.maximum(time - step, 0))[0] - case.threshold
    behind = membrane(case, np.minimum(time + step, case.duration))[0] - case.threshold
    assert ((time <= step) | (before <= slack))[both].all()
    assert (behind >= -slack)[both].all()


def crossings(shape, case):
    """Whether V crosses, and when, as the engine computes it."""

    @jax.jit
    def run(v, j, threshold, tau_mem, tau_syn, duration):
        em, es, k = crossing.decay(shape, tau_mem, tau_syn, duration)
        end = v * em + j * k, j * es
        crosses = crossing.crosses(shape, v, j, *end, threshold, tau_mem, tau_syn)
        return crosses, crossing.solve(shape, v, j, threshold, tau_mem, tau_syn, duration, crosses)

    return map(np.asarray, run(*map(jnp.asarray, case)))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_samples_agree_with_mpmath(shape):
    """Roots that are well conditioned, to 2 ulp of the interval, against 50 digits."""
    case = random_cases(shape, np.random.default_rng(2), 4000, np.float64)
    crosses, time = crossings(shape, case)
    mpmath.mp.dps = 50
    samples = np.flatnonzero(crosses)[:150]
    assert len(samples) == 150
    for n in samples:
        v, j, threshold, tau_mem, tau_syn, duration = (mpmath.mpf(float(a[n])) for a in case)
        gap = 1 / tau_syn - 1 / tau_mem

        def excess(t, v=v, j=j, threshold=threshold, tau_mem=tau_mem, tau_syn=tau_syn, gap=gap):
            ramp = t if gap == 0 else -mpmath.expm1(-t * gap) / gap
            return (v + j * ramp / tau_mem) * mpmath.exp(-t / tau_mem) - threshold

        t = mpmath.mpf(float(time[n]))
        slope = mpmath.diff(excess, t)
        root = mpmath.findroot(excess, (t, t * (1 + mpmath.mpf(10) ** -12)), tol=1e-60)
        rounding = ROUNDINGS * np.finfo(float).eps * (abs(v) + abs(j) + abs(threshold)) / abs(slope)
        assert abs(root - t) <= 2 * np.finfo(float).eps * duration + rounding


def lanes_of(case, **others):
    ones = jnp.ones_like(case.v)
    values = {"v_reset": ones, "v_start": ones, "j_start": ones, **others}
    return Constants(threshold=jnp.asarray(case.threshold), tau_mem=jnp.asarray(case.tau_mem),
                 tau_syn=jnp.asarray(case.tau_syn), **values)  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("model", [LIFBox(width=1.0), IFBox(width=1.0)], ids=["LIF", "IF"])
def test_membranes_under_constant_drive_cross_where_they_do(model, dtype):
    case = random_cases(TauShape.ANY, np.random.default_rng(3), CASES, dtype)
    lanes, state = lanes_of(case), (jnp.asarray(case.v), jnp.asarray(case.j))

    @jax.jit
    def run(duration):
        end = model.flow(model.decay(lanes, duration), state)
        crosses = model.crosses(lanes, state, end, duration)
        return crosses, model.solve(lanes, state, duration, crosses)

    crosses, time = map(np.asarray, run(jnp.asarray(case.duration)))
    v, j, threshold, tau_mem, _, duration = (array.astype(Extended) for array in case)
    gap = threshold - v
    with np.errstate(all="ignore"):
        if isinstance(model, IFBox):
            true_time = np.where(j > 0, gap / j, np.inf)
        else:
            true_time = np.where(j > threshold, -tau_mem * np.log1p(-gap / (j - v)), np.inf)
    rounding = ROUNDINGS * np.finfo(dtype).eps * (abs(v) + abs(j) + abs(threshold))
    slope = j if isinstance(model, IFBox) else (j - threshold) / tau_mem
    tolerance = 2 * np.finfo(dtype).eps * duration + rounding / np.where(slope == 0, 1, abs(slope))
    # Rounding decides if V ends close to the threshold at the end of the interval, or at rest.
    clear = (abs(true_time - duration) > tolerance) & (abs(j - threshold) > rounding)
    np.testing.assert_array_equal(crosses[clear], (true_time <= duration)[clear])
    both = crosses & clear
    assert both.sum() > CASES / 20
    assert (abs(time - true_time)[both] <= tolerance[both]).all()
