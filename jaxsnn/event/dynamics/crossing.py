"""Threshold crossings of a current-based neuron (CubaLIF) between two arrivals.

Between two arrivals nothing enters the neuron: its synaptic current decays, and its membrane
potential follows the current up or down and then decays, too. So V has at most one maximum, and
at most one upward crossing of the threshold:

    V             _.-"-._
    threshold ---x-------o--------       x: the crossing
               .'         '-._
             .'               '-._
             |------- duration -------|  time until the next arrival

`crosses` returns whether there is a crossing: V ends above the threshold, or a maximum inside of
the interval reaches it. `solve` returns the time of the crossing. With v = V - V_inf and
j = R (I - I_inf),

    v' = (j - v) / tau_mem,    j' = -j / tau_syn,
    v(t) = v em + j k,         j(t) = j es,
    em = exp(-t / tau_mem),  es = exp(-t / tau_syn),  k = (t / tau_mem) em phi1(-t d),

where d = 1 / tau_syn - 1 / tau_mem and phi1(z) = expm1(z) / z.

The relation of the two time constants (`TauShape`) is known before compilation and selects the
formulas: a quadratic equation in em or es at tau_mem / tau_syn = 2 and 1/2 (Goeltz et al., Nature
Machine Intelligence 3, 2021), Newton's method inside of a bracket elsewhere.

All functions are elementwise. Arguments are in seconds and volts (`threshold` is
v_threshold - V_inf) and broadcast against each other, for example

    v, j, duration, crossing       (batch, neurons)
    threshold, tau_mem, tau_syn    (neurons,)
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.dynamics.bracketed_root import Value, bracketed_root
from jaxsnn.event.event_arrays import Numbers
from jaxsnn.network.array_types import Array, Bool
from jaxsnn.network.promotion import usual_promotion
from jaxsnn.network.structure import TauShape

#: Coefficients (em, es, k) of the flow over a time.
Coefficients = tuple[Numbers, Numbers, Numbers]

#: Value of z above which 1 + z is computed as a quotient.
_LARGE = 2.0**20
_SERIES = 24  # terms of `divided_difference_series`


@jax.custom_jvp
def phi1(z: Numbers) -> Numbers:
    """Return expm1(z) / z for z <= 0, with its limit 1 at zero."""
    safe = jnp.where(z == 0, 1.0, z)
    return jnp.where(z == 0, 1.0, jnp.expm1(safe) / safe)


def phi1_derivative(z: Numbers) -> Numbers:
    """Return the derivative of phi1 for z <= 0: (e^z (z - 1) + 1) / z^2, by its series near
    zero.
    """
    # sum over n of (n + 1) / (n + 2)! z^n, by Horner's rule
    series = jnp.zeros_like(z)
    for n in range(15, -1, -1):
        series = series * z + (n + 1) / math.factorial(n + 2)
    near = z > -0.7
    safe = jnp.where(near, -1.0, z)
    quotient = (jnp.exp(safe) * (safe - 1) + 1) / (safe * safe)
    return jnp.where(near, series, quotient)


def _phi1_tangent(dz: Numbers, _: Numbers, z: Numbers) -> Numbers:
    return phi1_derivative(z) * dz


# Differentiating the quotient would lose digits near zero.
phi1.defjvps(usual_promotion(_phi1_tangent))


# ---- the flow


def decay(shape: TauShape, tau_mem: Numbers, tau_syn: Numbers, t: Numbers) -> Coefficients:
    """Return the flow's coefficients (em, es, k) over a time t >= 0 (inf allowed)."""
    match shape:
        case TauShape.DOUBLE:
            em = jnp.exp(-t / tau_mem)
            # es = em^2. Without the barrier the compiler computes a second exponential.
            es = em * lax.optimization_barrier(em)
            # em - es, exact for short times
            return em, es, em * -jnp.expm1(-t / tau_mem)
        case TauShape.HALF:
            es = jnp.exp(-t / tau_syn)
            em = es * lax.optimization_barrier(es)
            return em, es, es * (-2 * jnp.expm1(-t / tau_syn))
        case TauShape.APART:
            em = jnp.exp(-t / tau_mem)
            es = jnp.exp(-t / tau_syn)
            return em, es, tau_syn / (tau_mem - tau_syn) * (em - es)
        case TauShape.EQUAL:
            em = jnp.exp(-t / tau_mem)
            return em, em, jnp.where(jnp.isinf(t), 0.0, t / tau_mem) * em
    return _decay_of_any(tau_mem, tau_syn, t)


def _decay_of_any(tau_mem: Numbers, tau_syn: Numbers, t: Numbers) -> Coefficients:
    """Return the coefficients by phi1, exact also where the time constants are nearly equal."""
    em = jnp.exp(-t / tau_mem)
    es = jnp.exp(-t / tau_syn)
    finite = jnp.where(jnp.isinf(t), 0.0, t)
    # k is symmetric in its two exponentials. Factoring out the slower one keeps the argument of
    # phi1 negative; one formula for both orders has the right derivatives at equal constants.
    mem_longer = tau_mem >= tau_syn
    gap = jnp.where(mem_longer, 1 / tau_syn - 1 / tau_mem, 1 / tau_mem - 1 / tau_syn)
    slower = finite / tau_mem * jnp.where(mem_longer, em, es)
    return em, es, slower * phi1(-finite * gap)


def decay_derivatives(
    shape: TauShape, tau_mem: Numbers, tau_syn: Numbers, t: Numbers
) -> tuple[Numbers, Numbers, Numbers, Numbers, Numbers]:
    """Return the flow's coefficients (em, es, k) over t and the derivatives of k with respect to
    tau_mem and tau_syn.

    The general kernel is always used: a closed form at a fixed ratio would tie the two constants
    together.
    """
    em, es, k = decay(shape, tau_mem, tau_syn, t)
    t = jnp.where(jnp.isinf(t), 0.0, t)
    if shape in (TauShape.DOUBLE, TauShape.HALF, TauShape.APART):
        # the quotient rule on k = tau_syn / (tau_mem - tau_syn) (em - es)
        gap = tau_mem - tau_syn
        by_tau_mem = (tau_syn * t * em / (tau_mem * tau_mem) - k) / gap
        by_tau_syn = (tau_mem * k - t * es) / (tau_syn * gap)
        return em, es, k, by_tau_mem, by_tau_syn
    # k = (t / tau_mem) e^(-t / longer) phi1(-t |d|): its factor 1 / tau_mem, the slower
    # exponential (`stretch`) and phi1 (`bend`) each move with a time constant.
    mem_longer = tau_mem >= tau_syn
    longer = jnp.where(mem_longer, tau_mem, tau_syn)
    # Select both by one condition: at equal constants the derivatives of max and abs are wrong.
    slower = jnp.where(mem_longer, em, es)
    rate_gap = jnp.where(mem_longer, 1 / tau_syn - 1 / tau_mem, 1 / tau_mem - 1 / tau_syn)
    bend = t * t / tau_mem * slower * phi1_derivative(-t * rate_gap)
    sign = jnp.where(mem_longer, 1.0, -1.0)
    stretch = k * t / (longer * longer)
    bent_by_mem = sign * bend / (tau_mem * tau_mem)
    bent_by_syn = sign * bend / (tau_syn * tau_syn)
    by_tau_mem = jnp.where(mem_longer, stretch, 0.0) - k / tau_mem - bent_by_mem
    by_tau_syn = jnp.where(mem_longer, 0.0, stretch) + bent_by_syn
    return em, es, k, by_tau_mem, by_tau_syn


# ---- existence of a crossing


def peak_reaches(
    shape: TauShape, v: Numbers, j: Numbers, threshold: Numbers, tau_mem: Numbers, tau_syn: Numbers
) -> Bool[Array, "..."]:
    """Return whether the maximum of v reaches the threshold, if v has a maximum ahead (`peaks`)."""
    match shape:
        # The maximum of a parabola, without an exponential: in x = em it is (v + j) x - j x^2, and
        # in x = es, where tau_syn is the longer one, 2 j x + (v - 2 j) x^2.
        case TauShape.DOUBLE:
            return (v + j) * (v + j) - 4 * j * threshold >= 0
        case TauShape.HALF:
            return j * j - (2 * j - v) * threshold >= 0
    return extremum(v, j, tau_mem, tau_syn)[1] >= threshold


def extremum(v: Numbers, j: Numbers, tau_mem: Numbers, tau_syn: Numbers) -> tuple[Numbers, Numbers]:
    """Return time and value of the extremum of v (there v = j); time 0 if none lies ahead."""
    # v(t) = j(t) is e^(-t d) = 1 + z with z = D (v - j) / (j (1 + D)) and D = tau_mem d, so that
    # t = -log(1 + z) / d. With log(1 + z) / z it stays exact where the constants are equal.
    d_tau = tau_mem / tau_syn - 1  # D
    safe_j = jnp.where(j == 0, 1.0, j)
    scale = safe_j * (1 + d_tau)
    z = jnp.where(j == 0, 0.0, d_tau * (v - j) / scale)
    ahead = (z > -1) & (j != 0)
    z = jnp.where(ahead, z, 0.0)
    near = (
        tau_mem * (j - v) / scale * jnp.where(z == 0, 1.0, jnp.log1p(z) / jnp.where(z == 0, 1.0, z))
    )
    # 1 + z = (j + D v) / (j (1 + D)), without a difference where z is near -1, and as a difference
    # of logarithms where j is so small that z overflows
    ratio = jnp.log(abs(j + d_tau * v)) - jnp.log(abs(scale))
    apart = abs(d_tau) > 0.1
    far = -ratio * tau_mem / jnp.where(apart, d_tau, 1.0)
    by_ratio = apart & ((z < -0.25) | (z > _LARGE))
    time = jnp.where(ahead, jnp.where(by_ratio, far, near), 0.0)
    time = jnp.maximum(time, 0.0)
    return time, j * jnp.exp(-time / tau_syn)


def crosses(
    shape: TauShape,
    v: Numbers,
    j: Numbers,
    v_end: Numbers,
    j_end: Numbers,
    threshold: Numbers,
    tau_mem: Numbers,
    tau_syn: Numbers,
) -> Bool[Array, "..."]:
    """Return whether v, below the threshold now, reaches it before the interval ends at (v_end,
    j_end).
    """
    inside = peaks(shape, v, j, v_end, j_end, tau_mem, tau_syn)
    return (v_end >= threshold) | (inside & peak_reaches(shape, v, j, threshold, tau_mem, tau_syn))


def peaks(
    shape: TauShape,
    v: Numbers,
    j: Numbers,
    v_end: Numbers,
    j_end: Numbers,
    tau_mem: Numbers,
    tau_syn: Numbers,
) -> Bool[Array, "..."]:
    """Return whether v has a maximum between (v, j) and (v_end, j_end).

    From 0 < j, v < j it has one eventually, unless it is so far below zero, and decays so slowly,
    that it never reaches j. After a long time both have decayed to the same number, finally to
    zero, so that j_end = v_end lies behind the maximum.
    """
    match shape:
        # whether the part of v that decays most slowly is positive
        case TauShape.DOUBLE:
            crosses_upwards = v + j > 0
        case TauShape.HALF | TauShape.EQUAL:
            crosses_upwards = True  # j decays at least as slowly as v
        case _:
            crosses_upwards = j * tau_syn + (tau_mem - tau_syn) * v > 0
    # bound of the change of v_end and j_end by underflow
    limits = jnp.finfo(v.dtype)
    underflow = limits.tiny / limits.eps * (abs(v) + abs(j))
    return (j > v) & (j > 0) & (j_end - v_end <= underflow) & crosses_upwards


# ---- time of the crossing


def solve(
    shape: TauShape,
    v: Numbers,
    j: Numbers,
    threshold: Numbers,
    tau_mem: Numbers,
    tau_syn: Numbers,
    duration: Numbers,
    crossing: Bool[Array, "..."],
) -> Numbers:
    """Return the time until v crosses the threshold upwards, for the elements in which `crossing`
    says that it does within `duration`.

    Elsewhere the value is some number in [0, duration].
    """
    match shape:
        case TauShape.DOUBLE:  # in x = em
            time = tau_mem * _quadratic(v + j, -j, j - v, threshold, threshold - v)
        case TauShape.HALF:  # in x = es
            time = tau_syn * _quadratic(2 * j, v - 2 * j, 2 * (j - v), threshold, threshold - v)
        case _:
            return _solve_any(shape, v, j, threshold, tau_mem, tau_syn, duration, crossing)
    return jnp.clip(jnp.where(crossing, time, 0.0), 0.0, duration)


def _quadratic(a: Numbers, b: Numbers, rise: Numbers, threshold: Numbers, gap: Numbers) -> Numbers:
    """Return -log x at the root x in (0, 1] of a x + b x^2 = threshold at which v crosses upwards
    (x falls with time).

    Long times are computed from x. Short times are computed from y = 1 - x, the root of
    rise y + b y^2 = gap with rise = -(a + 2 b) and gap = threshold - (a + b), since x would lose
    digits.
    """
    # The two equations have the same discriminant: take the sum with less cancellation.
    of_x = a * a, 4 * b * threshold
    of_y = rise * rise, 4 * b * gap
    by_x = of_x[0] + abs(of_x[1]) < of_y[0] + abs(of_y[1])
    sqrt = jnp.sqrt(jnp.maximum(jnp.where(by_x, sum(of_x), sum(of_y)), 0.0))
    # Each root has two forms. The sign selects that without a difference of nearly equal numbers.
    y = _quotient(rise > 0, 2 * gap, rise + sqrt, rise - sqrt, -2 * b)
    x = _quotient(a > 0, a + sqrt, -2 * b, -2 * threshold, sqrt - a)
    tiny = jnp.finfo(x.dtype).tiny
    return minus_log(jnp.clip(x, tiny, 1.0), jnp.maximum(y, 0.0))


def minus_log(x: Numbers, y: Numbers) -> Numbers:
    """Return -log x of a number x in (0, 1], from x or from y = 1 - x, whichever is more accurate.

    Near -0.4 the error of JAX's log1p is a hundred times that of rounding, so x is used for y from
    1/4 on.
    """
    return jnp.where(y < 0.25, -jnp.log1p(-jnp.minimum(y, 0.25)), -jnp.log(x))


def _quotient(
    first: Bool[Array, "..."], up: Numbers, down: Numbers, else_up: Numbers, else_down: Numbers
) -> Numbers:
    """Return up / down, or else_up / else_down; the numerator where the denominator is 0."""
    numerator = jnp.where(first, up, else_up)
    denominator = jnp.where(first, down, else_down)
    return numerator / jnp.where(denominator == 0, 1.0, denominator)


def _solve_any(
    shape: TauShape,
    v: Numbers,
    j: Numbers,
    threshold: Numbers,
    tau_mem: Numbers,
    tau_syn: Numbers,
    duration: Numbers,
    crossing: Bool[Array, "..."],
) -> Numbers:
    """Solve for the crossing by Newton's method inside a bracket, from a start on the side where it
    converges monotonically.
    """
    start, high = _newton_start(v, j, threshold, tau_mem, tau_syn, duration)
    eps = jnp.finfo(v.dtype).eps

    def excess(t: Numbers) -> Value:
        em, es, k = decay(shape, tau_mem, tau_syn, t)
        rest = v * em
        drive = j * k
        value = rest + drive
        slope = (j * es - value) / tau_mem
        rounding = 2 * eps * (abs(rest) + abs(drive) + abs(threshold))
        return Value(value - threshold, slope, rounding)

    low = jnp.zeros_like(start)
    root = bracketed_root(excess, low, high, start=start, rising=True, required=crossing)
    return jnp.clip(root, 0.0, duration)


def _newton_start(
    v: Numbers,
    j: Numbers,
    threshold: Numbers,
    tau_mem: Numbers,
    tau_syn: Numbers,
    duration: Numbers,
) -> tuple[Numbers, Numbers]:
    """Return the start of Newton's iteration, and an upper bound on the crossing time.

    Where a maximum lies ahead, v is concave and rises up to it: start from the parabola at the
    peak, exact near tangency. Elsewhere start at the inflection, clipped to the interval.
    """
    peak_time, peak = extremum(v, j, tau_mem, tau_syn)
    has_peak = (j > v) & (peak_time > 0)
    high = jnp.where(has_peak, jnp.minimum(peak_time, duration), duration)
    # v is about peak - curvature (t - peak_time)^2 / 2
    curvature = jnp.where(has_peak, peak / (tau_mem * tau_syn), 1.0)  # -v'' where v = j
    bowl = 2 * jnp.maximum(peak - threshold, 0.0) / jnp.where(curvature > 0, curvature, 1.0)
    # The inflection lies log(tau_mem / tau_syn) / d after the extremum, tau for equal constants.
    d = 1 / tau_syn - 1 / tau_mem
    nearly_equal = abs(d) * tau_mem < 1e-4
    quotient = jnp.log(tau_mem / tau_syn) / jnp.where(nearly_equal, 1.0, d)
    behind = jnp.where(nearly_equal, tau_mem, quotient)
    start = jnp.where(has_peak, peak_time - jnp.sqrt(bowl), peak_time + behind)
    return jnp.clip(start, 0.0, high), high


def decayed(v: Numbers, j: Numbers, threshold: Numbers) -> Numbers:
    """Return exp(-t / tau_mem) at the upward crossing of v = threshold, for tau_mem = 2 tau_syn: 1
    if v is already at or above the threshold, 0 if there is no crossing.

    This is the larger root x of (v + j) x - j x^2 = threshold. From below, v crosses the threshold
    if its final value 0 is above (threshold < 0), or if its maximum is.
    """
    half = 0.5 * (v + j)
    discriminant = half * half - j * threshold
    root = jnp.sqrt(jnp.maximum(discriminant, 0.0))
    # two forms of one root, as in `_quadratic`
    falls = half <= 0
    x = jnp.where(falls, -threshold, half + root) / jnp.where(falls, root - half, j)
    over_maximum = (j > v) & (half > 0) & (discriminant >= 0)
    reaches = (threshold < 0) | over_maximum
    x = jnp.clip(x, jnp.finfo(v.dtype).tiny, 1.0)
    return jnp.where(v >= threshold, 1.0, jnp.where(reaches, x, 0.0))


# ---- integrals


def integrated_exponential(rate: Numbers | float, t: Numbers) -> Numbers:
    """Return the integral of e^(-rate t) over [0, t]: t phi1(-rate t)."""
    return t * phi1(-rate * t)


def integrated_ramp(rate: Numbers | float, t: Numbers) -> Numbers:
    """Return the integral of t e^(-rate t) over [0, t]: t^2 phi1'(-rate t)."""
    return t * t * phi1_derivative(-rate * t)


def divided_difference_series(x: Numbers, y: Numbers) -> Numbers:
    """Return phi1[x, y] by its power series, for |x| up to 1 and |y| up to 2, where it is exact in
    float64.
    """
    # sum over n of h_n(x, y) / (n + 2)!, with h_n the complete homogeneous polynomial of degree n
    power = jnp.ones_like(x)  # y^n
    homogeneous = jnp.ones_like(x * y)  # of degree n in x and y, all coefficients 1
    series = jnp.zeros_like(homogeneous)
    for n in range(_SERIES):
        series += homogeneous * (1 / math.factorial(n + 2))
        power = power * y
        homogeneous = x * homogeneous + power
    return series
