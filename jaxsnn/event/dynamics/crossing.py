"""The next threshold crossing of a current-based neuron, in substituted coordinates.

Between two arrivals a CubaLIF neuron follows, with v = V - V_inf and j = R (I - I_inf),

    v' = (j - v) / tau_mem,    j' = -j / tau_syn,
    v(t) = v em + j k,         j(t) = j es,
    em = exp(-t / tau_mem),  es = exp(-t / tau_syn),  k = (t / tau_mem) em phi1(-t d),

where d = 1 / tau_syn - 1 / tau_mem and phi1(z) = expm1(z) / z. Every function here is elementwise;
times are in seconds and `threshold` stands for v_threshold - V_inf.

The shape of the neuron's time constants (`TauShape`) is known when a network is lowered and picks
the formulas: closed forms at tau_mem / tau_syn = 2, 1/2 (a quadratic, Goeltz et al., Nature Machine
Intelligence 3, 2021) and 1 (the Lambert W function), a safeguarded Newton iteration elsewhere.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.network.structure import TauShape

_NEWTON_STEPS = 60
_SERIES = 24  # terms of a series at numbers up to 1 and 2


@jax.custom_jvp
def phi1(z):
    """expm1(z) / z for z <= 0, with its limit 1 at zero."""
    safe = jnp.where(z == 0, 1.0, z)
    return jnp.where(z == 0, 1.0, jnp.expm1(safe) / safe)


def phi1_derivative(z):
    """Derivative of phi1 for z <= 0: (e^z (z - 1) + 1) / z^2, by its series near zero."""
    series = jnp.zeros_like(z)
    for n in range(11, -1, -1):
        series = series * z + (n + 1) / math.factorial(n + 2)
    near = z > -0.7
    safe = jnp.where(near, -1.0, z)
    return jnp.where(near, series, (jnp.exp(safe) * (safe - 1) + 1) / (safe * safe))


phi1.defjvps(
    lambda dz, _, z: phi1_derivative(z) * dz
)  # differentiating the quotient would lose digits near zero


def decay(shape, tau_mem, tau_syn, t):
    """The flow's coefficients (em, es, k) over a time t >= 0 (inf allowed)."""
    match shape:
        case TauShape.DOUBLE:
            em = jnp.exp(-t / tau_mem)
            es = em * lax.optimization_barrier(
                em
            )  # else the compiler makes an exponential of its own of it
            return em, es, em - es
        case TauShape.HALF:
            es = jnp.exp(-t / tau_syn)
            em = es * lax.optimization_barrier(es)
            return em, es, 2 * (es - em)
        case TauShape.APART:
            em, es = jnp.exp(-t / tau_mem), jnp.exp(-t / tau_syn)
            return em, es, tau_syn / (tau_mem - tau_syn) * (em - es)
        case TauShape.EQUAL:
            em = jnp.exp(-t / tau_mem)
            return em, em, jnp.where(jnp.isinf(t), 0.0, t / tau_mem) * em
    em, es = jnp.exp(-t / tau_mem), jnp.exp(-t / tau_syn)
    finite = jnp.where(jnp.isinf(t), 0.0, t)
    mem_longer = (
        tau_mem >= tau_syn
    )  # one branch for all, so that derivatives are right at equal constants too
    gap = jnp.where(mem_longer, 1 / tau_syn - 1 / tau_mem, 1 / tau_mem - 1 / tau_syn)
    return em, es, finite / tau_mem * jnp.where(mem_longer, em, es) * phi1(-finite * gap)


def decay_derivatives(shape, tau_mem, tau_syn, t):
    """The flow's coefficients (em, es, k) over t and the derivatives of k by tau_mem and tau_syn.

    Always of the general kernel: a closed form at a fixed ratio would tie the two constants
    together.
    """
    em, es, k = decay(shape, tau_mem, tau_syn, t)
    t = jnp.where(jnp.isinf(t), 0.0, t)
    if shape in (TauShape.DOUBLE, TauShape.HALF, TauShape.APART):
        gap = tau_mem - tau_syn
        by_tau_mem = (tau_syn * t * em / (tau_mem * tau_mem) - k) / gap
        by_tau_syn = (tau_mem * k - t * es) / (tau_syn * gap)
        return em, es, k, by_tau_mem, by_tau_syn
    mem_longer = tau_mem >= tau_syn
    longer = jnp.where(mem_longer, tau_mem, tau_syn)
    bend = (
        t * t / tau_mem * jnp.maximum(em, es) * phi1_derivative(-t * abs(1 / tau_syn - 1 / tau_mem))
    )
    sign = jnp.where(mem_longer, 1.0, -1.0)
    stretch = k * t / (longer * longer)
    by_tau_mem = (
        jnp.where(mem_longer, stretch, 0.0) - k / tau_mem - sign * bend / (tau_mem * tau_mem)
    )
    by_tau_syn = jnp.where(mem_longer, 0.0, stretch) + sign * bend / (tau_syn * tau_syn)
    return em, es, k, by_tau_mem, by_tau_syn


def peak_reaches(shape, v, j, threshold, tau_mem, tau_syn):
    """Whether v's maximum reaches the threshold, given that v has one ahead (`peaks`)."""
    match shape:
        case TauShape.DOUBLE:
            return (v + j) * (v + j) - 4 * j * threshold >= 0
        case TauShape.HALF:
            return j * j - (2 * j - v) * threshold >= 0
    return extremum(v, j, tau_mem, tau_syn)[1] >= threshold


def extremum(v, j, tau_mem, tau_syn):
    """Time and value of the extremum of v (there v = j); time 0 where none lies ahead."""
    d_tau = tau_mem / tau_syn - 1  # tau_mem d
    safe_j = jnp.where(j == 0, 1.0, j)
    z = jnp.where(j == 0, 0.0, d_tau * (v - j) / (safe_j * (1 + d_tau)))
    ahead = (z > -1) & (j != 0)
    z = jnp.where(ahead, z, 0.0)
    log_ratio = jnp.where(z == 0, 1.0, jnp.log1p(z) / jnp.where(z == 0, 1.0, z))
    time = jnp.where(ahead, tau_mem * (j - v) / (safe_j * (1 + d_tau)) * log_ratio, 0.0)
    time = jnp.maximum(time, 0.0)
    return time, j * jnp.exp(-time / tau_syn)


def crosses(shape, v, j, v_end, j_end, threshold, tau_mem, tau_syn):
    """Whether v, below the threshold now, reaches it before the interval ends at (v_end, j_end)."""
    inside = peaks(shape, v, j, v_end, j_end, tau_mem, tau_syn)
    return (v_end >= threshold) | (inside & peak_reaches(shape, v, j, threshold, tau_mem, tau_syn))


def peaks(shape, v, j, v_end, j_end, tau_mem, tau_syn):
    """Whether v has a maximum between (v, j) and (v_end, j_end).

    From 0 < j, v < j it has one sooner or later, unless it is so far below zero, and decays so
    slowly, that it never comes up to j. After a long time both have decayed to the same number, to
    zero at last, so that j_end = v_end lies behind the maximum.
    """
    match shape:
        case TauShape.DOUBLE:
            comes_up = v + j > 0
        case TauShape.HALF | TauShape.EQUAL:
            comes_up = True
        case _:
            comes_up = j * tau_syn + (tau_mem - tau_syn) * v > 0
    return (j > v) & (j > 0) & (j_end <= v_end) & comes_up


def solve(shape, v, j, threshold, tau_mem, tau_syn, duration, crossing):
    """Time until v crosses the threshold upwards, where `crossing` says that it does within
    `duration`.

    Elsewhere the value is some number in [0, duration].
    """
    match shape:
        case TauShape.DOUBLE:
            root = _quadratic(v + j, -j, threshold)
            time = -tau_mem * jnp.log(root)
        case TauShape.HALF:
            root = _quadratic(2 * j, v - 2 * j, threshold)
            time = -tau_syn * jnp.log(root)
        case TauShape.EQUAL:
            time = _solve_equal(v, j, threshold, tau_mem)
        case _:
            return _newton(shape, v, j, threshold, tau_mem, tau_syn, duration, crossing)
    return jnp.clip(jnp.where(crossing, time, 0.0), 0.0, duration)


def _quadratic(a, b, threshold):
    """The root x in (0, 1] of a x + b x^2 = threshold at which v crosses upwards (x falls as time
    goes on).
    """
    sqrt = jnp.sqrt(jnp.maximum(a * a + 4 * b * threshold, 0.0))
    positive = a > 0
    numerator = jnp.where(positive, a + sqrt, -2 * threshold)
    denominator = jnp.where(positive, -2 * b, sqrt - a)
    ratio = numerator / jnp.where(denominator == 0, 1.0, denominator)
    return jnp.clip(ratio, jnp.finfo(ratio.dtype).tiny, 1.0)


def _solve_equal(v, j, threshold, tau):
    """tau_mem = tau_syn: (v + j s) e^-s = threshold with s = t / tau, by the branch of Lambert's W
    that rises.

    s = -v/j - W(-(threshold/j) e^(-v/j)): the principal branch for threshold > 0 and for a rising
    j, the lower branch for threshold < 0 and j < 0.
    """
    tiny = jnp.finfo(v.dtype).tiny
    safe_j = jnp.where(j == 0, 1.0, j)
    start = -v / safe_j
    # log |argument|, so that nothing overflows for small j
    log_argument = jnp.log(jnp.maximum(abs(threshold / safe_j), tiny)) + start
    negative = threshold / safe_j > 0  # the argument's sign
    w_negative = _lambert_negative(log_argument, lower=(j < 0))
    w = jnp.where(negative, w_negative, _lambert_positive(log_argument))
    s = jnp.where(threshold == 0, start, start - w)
    decaying = (threshold < 0) & (
        abs(j) < abs(v) / 128
    )  # there -v/j - W is a difference of large numbers
    s = jnp.where(decaying, _solve_decaying(v, j, threshold), s)
    return tau * _polish_equal(v, j, threshold, jnp.maximum(s, 0.0))


def _solve_decaying(v, j, threshold):
    """s = log((v + j s) / threshold) where v < threshold < 0 and j is small, by Newton."""
    tiny = jnp.finfo(v.dtype).tiny
    threshold = jnp.minimum(threshold, -tiny)

    def step(_, s):
        level = jnp.minimum(v + j * s, -tiny)
        return s - (s - jnp.log(level / threshold)) / (1 - j / level)

    return lax.fori_loop(0, 4, step, jnp.log(jnp.maximum(v / threshold, 1.0)))


def _polish_equal(v, j, threshold, s):
    """One Newton step on the original equation, where its slope is safe: removes the cancellation
    in -v/j - W.
    """
    em = jnp.exp(-s)
    value = (v + j * s) * em - threshold
    slope = j * em - (value + threshold)
    step = value / jnp.where(slope > 0, slope, 1.0)
    better = (slope > 0) & (abs(step) < 0.1 * (1 + s))
    return jnp.where(better, s - step, s)


def _lambert_negative(log_argument, lower):
    """W(-e^log_argument): the principal branch [-1, 0), or the lower branch (-inf, -1] where
    `lower`.

    Corless et al., Advances in Computational Mathematics 5, 1996.  Arguments below -1/e are taken
    at the branch point.
    """
    log_argument = jnp.minimum(log_argument, -1.0)
    p = jnp.sqrt(jnp.maximum(-2 * jnp.expm1(1 + log_argument), 0.0))
    near = -1 + jnp.where(lower, -p, p) - p * p / 3
    principal_far = -jnp.exp(log_argument) * (1 + jnp.exp(log_argument))
    lower_far = log_argument - jnp.log(-log_argument)
    w = jnp.where(log_argument > -1.5, near, jnp.where(lower, lower_far, principal_far))

    def step(_, w):
        # Newton on log(-w) + w = log_argument (lower) and w e^w = argument in its log form
        # (principal)
        at_branch = abs(1 + w) < 1e-7
        update = w * (log_argument - jnp.log(-w) - w) / jnp.where(at_branch, 1.0, 1 + w)
        moved = jnp.where(at_branch, w, w + update)
        return jnp.where(
            lower, jnp.minimum(moved, -1.0), jnp.clip(moved, -1.0, -jnp.finfo(w.dtype).tiny)
        )

    return lax.fori_loop(0, 8, step, w)


def _lambert_positive(log_argument):
    """W(e^log_argument) >= 0, principal branch, by Newton on its logarithm."""
    tiny = jnp.finfo(log_argument.dtype).tiny
    big = jnp.maximum(log_argument, 1.0)
    w = jnp.where(
        log_argument > 1, big - jnp.log(big), jnp.exp(jnp.minimum(log_argument, 1.0)) * 0.5
    )
    w = jnp.maximum(w, tiny)

    def step(_, w):
        return jnp.maximum(w * (1 + log_argument - jnp.log(w)) / (1 + w), tiny)

    return lax.fori_loop(0, 8, step, w)


def _newton(shape, v, j, threshold, tau_mem, tau_syn, duration, crossing):
    """Newton from a start on the side where it converges monotonically, kept inside a shrinking
    bracket.

    Where a maximum lies ahead, v is concave and rises up to it: start from the parabola at the
    peak, exact near tangency.  Elsewhere start at the inflection, clipped to the interval.
    """
    peak_time, peak = extremum(v, j, tau_mem, tau_syn)
    has_peak = (j > v) & (peak_time > 0)
    high = jnp.where(has_peak, jnp.minimum(peak_time, duration), duration)
    curvature = jnp.where(has_peak, peak / (tau_mem * tau_syn), 1.0)  # -v'' where v = j
    bowl = 2 * jnp.maximum(peak - threshold, 0.0) / jnp.where(curvature > 0, curvature, 1.0)
    d = 1 / tau_syn - 1 / tau_mem
    nearly_equal = abs(d) * tau_mem < 1e-4
    log_ratio = jnp.where(
        nearly_equal, tau_mem, jnp.log(tau_mem / tau_syn) / jnp.where(nearly_equal, 1.0, d)
    )
    start = jnp.where(has_peak, peak_time - jnp.sqrt(bowl), peak_time + log_ratio)
    start = jnp.clip(start, 0.0, high)
    tolerance = jnp.finfo(v.dtype).eps

    def body(state):
        t, low, high, busy, count = state
        em, es, k = decay(shape, tau_mem, tau_syn, t)
        value = v * em + j * k
        excess = value - threshold
        low = jnp.where(excess < 0, t, low)
        high = jnp.where(excess >= 0, t, high)
        slope = (j * es - value) / tau_mem
        rising = jnp.where(slope > 0, slope, 1.0)
        proposal = t - excess / rising
        noise = jnp.where(
            slope > 0, (abs(v) + abs(j) + abs(threshold)) / rising, 0.0
        )  # what rounding leaves of t
        # The compiler may work out the excess twice, with different rounding: at the root, t is
        # then an end of the bracket, and the proposal beside it on the wrong side.
        slack = 8 * tolerance * (t + noise)
        newton = (slope > 0) & (proposal >= low - slack) & (proposal <= high + slack)
        after = jnp.where(busy, jnp.where(newton, proposal, 0.5 * (low + high)), t)
        return (
            after,
            low,
            high,
            busy & (abs(after - t) > tolerance * (t + after + noise)),
            count + 1,
        )

    def unfinished(state):
        return jnp.any(state[3]) & (state[4] < _NEWTON_STEPS)

    low = jnp.zeros_like(start)
    state = (start, low, high + low, crossing & (start >= 0), 0)
    return jnp.clip(lax.while_loop(unfinished, body, state)[0], 0.0, duration)


def decayed(v, j, threshold):
    """exp(-t / tau_mem) at the upward crossing of v = threshold, for tau_mem = 2 tau_syn: 1 where v
    is there already, 0 where it never comes.

    The larger root x of (v + j) x - j x^2 = threshold. Where v is below the threshold it comes
    there if it ends above (threshold < 0), or over a maximum.
    """
    half = 0.5 * (v + j)
    discriminant = half * half - j * threshold
    root = jnp.sqrt(jnp.maximum(discriminant, 0.0))
    falls = half <= 0
    x = jnp.where(falls, -threshold, half + root) / jnp.where(falls, root - half, j)
    reaches = (threshold < 0) | ((j > v) & (half > 0) & (discriminant >= 0))
    x = jnp.clip(x, jnp.finfo(v.dtype).tiny, 1.0)
    return jnp.where(v >= threshold, 1.0, jnp.where(reaches, x, 0.0))


def integrated_exponential(rate, t):
    """The integral of e^(-rate t) over [0, t]: t phi1(-rate t)."""
    return t * phi1(-rate * t)


def integrated_ramp(rate, t):
    """The integral of t e^(-rate t) over [0, t]: t^2 phi1'(-rate t)."""
    return t * t * phi1_derivative(-rate * t)


def divided_difference_series(x, y):
    """phi1[x, y] by its power series, for |x| up to 1 and |y| up to 2, where it is exact in float64."""
    series, power = 0.0, jnp.ones_like(x)
    homogeneous = jnp.ones_like(x * y)  # of degree n in x and y, all coefficients 1
    for n in range(_SERIES):
        series += homogeneous * (1 / math.factorial(n + 2))
        power = power * y
        homogeneous = x * homogeneous + power
    return series
