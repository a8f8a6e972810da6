"""The flow between events and the threshold crossing solver, against matrix exponentials and the
oracle.
"""

from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxsnn.event.dynamics import crossing
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.lif import LIFDelta
from jaxsnn.event.dynamics.neuron_model import by_facts
from jaxsnn.network.structure import TauShape, find_tau_shape
from tests.event.cases import NEAR_ONE, SHAPES, population, ratios
from tests.oracles import cubalif_expm, cubalif_series, two_exponential_flow

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)


# The oracle itself


def test_oracle_agrees_with_matrix_exponentials_and_brent():
    rng = np.random.default_rng(0)
    p = {name: values[2:] for name, values in population(TauShape.ANY, rng, 4).items()}
    weight, times, current = (
        rng.normal(4.0, 0.5, (2, 2)),
        np.array([0.3, 1.1]),
        np.array([0.2, 0.5]),
    )
    fast = cubalif_series.population(
        p, weight, times[None], np.array([[0, 1]]), 3.0, current=current, area=0.7, start=0.1
    )[0]
    slow = cubalif_expm.population(
        p, weight, [(0.3, 0), (1.1, 1)], 3.0, current=current, area=0.7, start=[0.1, 0.1]
    )
    assert min(map(len, slow)) >= 2
    for got, expected in zip(fast, slow, strict=True):
        np.testing.assert_allclose(got[np.isfinite(got)], expected, rtol=0, atol=1e-13)


# The flow


def intervals(shape, rng, count):
    tau_syn = rng.uniform(0.3, 3.0, count)
    tau_mem = ratios(shape, rng, count) * tau_syn
    return (
        tau_mem,
        tau_syn,
        rng.exponential(2.0, count) * rng.choice([0.0, 1e-6, 0.1, 1.0, 3.0], count),
    )


@every_shape
@pytest.mark.parametrize("count", [40, pytest.param(150, marks=pytest.mark.slow)])
def test_flow_and_its_derivatives_are_those_of_the_matrix_exponential(x64, shape, count):
    tau_mem, tau_syn, t = intervals(shape, np.random.default_rng(1), count)
    expected = np.array(
        [two_exponential_flow.decay(*case) for case in zip(tau_mem, tau_syn, t, strict=True)]
    ).T
    got = jax.jit(partial(crossing.decay_derivatives, shape))(tau_mem, tau_syn, t)
    np.testing.assert_allclose(np.array(got), expected, rtol=1e-11, atol=2e-13)
    np.testing.assert_array_equal(
        np.array(got[:3]), np.array(jax.jit(partial(crossing.decay, shape))(tau_mem, tau_syn, t))
    )


@pytest.mark.parametrize(
    "gap",
    [
        pytest.param(gap, marks=() if number % 4 < 2 else pytest.mark.slow)  # one sign of each size
        for number, gap in enumerate(NEAR_ONE)
    ],
)
def test_flow_of_nearly_equal_time_constants_loses_no_digits(x64, gap):
    tau_syn = np.full(40, 0.8)
    tau_mem, t = tau_syn * (1 + gap), np.geomspace(1e-8, 20.0, 40)
    expected = np.array(
        [two_exponential_flow.decay(*case) for case in zip(tau_mem, tau_syn, t, strict=True)]
    ).T
    got = np.array(crossing.decay_derivatives(TauShape.ANY, tau_mem, tau_syn, t))
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=4e-15)


@every_shape
def test_flow_over_infinite_time_is_zero(x64, shape):
    tau_mem, tau_syn, _ = intervals(shape, np.random.default_rng(2), 20)
    assert not np.any(crossing.decay_derivatives(shape, tau_mem, tau_syn, np.full(20, np.inf)))


@every_shape
def test_flow_in_float32(shape):
    tau_mem, tau_syn, t = (
        x.astype("float32") for x in intervals(shape, np.random.default_rng(3), 2000)
    )
    tau_mem = {TauShape.DOUBLE: 2 * tau_syn, TauShape.HALF: tau_syn / 2}.get(shape, tau_mem)
    with jax.enable_x64(True):
        exact = crossing.decay(TauShape.ANY, *(x.astype(float) for x in (tau_mem, tau_syn, t)))
    rough = crossing.decay(shape, tau_mem, tau_syn, t)
    assert all(array.dtype == jnp.float32 for array in rough)
    np.testing.assert_allclose(np.array(rough), np.array(exact), rtol=0, atol=2e-6)


def test_tau_shapes_are_found():
    ones = np.ones(3)
    assert find_tau_shape(2 * ones, ones) is TauShape.DOUBLE
    assert find_tau_shape(ones / 2, ones) is TauShape.HALF
    assert find_tau_shape(ones, ones) is TauShape.EQUAL
    assert find_tau_shape(ones * [2.0, 0.5, 5.0], ones) is TauShape.APART
    assert find_tau_shape(ones * [2.0, 0.5, 1.05], ones) is TauShape.ANY
    assert find_tau_shape(ones * (1 + 1e-9), ones) is TauShape.ANY


@pytest.mark.parametrize("rate", [0.0, 0.7])
@pytest.mark.parametrize("t", [1e-3, 0.5, 3.0, 40.0])
def test_integrals_of_the_flow_are_those_by_quadrature(x64, t, rate):
    tau_mem, tau_syn = np.array([0.5, 1.0, 3.0]), np.array([1.0, 1.0, 0.4])
    parameters = {name: np.ones(3) for name in ("r", "w_in", "v_leak", "v_threshold", "v_reset")}
    neuron = CubaLIFDelta(tau_shape=TauShape.ANY)
    lanes = neuron.lanes(parameters | {"tau_mem": tau_mem, "tau_syn": tau_syn}, None)
    nodes, weights = np.polynomial.legendre.leggauss(120)
    at = t * (nodes[:, None] + 1) / 2
    weights = t / 2 * weights[:, None] * np.exp(-rate * at)
    expected = [np.sum(weights * np.asarray(part), axis=0) for part in neuron.decay(lanes, at)]
    found = neuron.integrals(lanes, np.full(3, t), rate)
    np.testing.assert_allclose(np.array([found.em, found.es, found.k]), expected, rtol=1e-10)


# The crossing


def engine(shape, v, j, threshold, tau_mem, tau_syn, duration):
    """Whether v crosses, and when, as the engine has it."""
    em, es, k = crossing.decay(shape, tau_mem, tau_syn, duration)
    hits = crossing.crosses(shape, v, j, v * em + j * k, j * es, threshold, tau_mem, tau_syn)
    return hits, crossing.solve(shape, v, j, threshold, tau_mem, tau_syn, duration, hits)


jitted = {shape: jax.jit(partial(engine, shape)) for shape in SHAPES}


def exact(v, j, threshold, tau_mem, tau_syn, duration):
    """Crossing times in the oracle, inf where there is none."""
    ones = np.ones_like(v)
    p = {
        "tau_mem": tau_mem,
        "tau_syn": tau_syn,
        "r": ones,
        "w_in": ones,
        "v_leak": 0 * ones,
        "v_threshold": threshold,
    }
    lanes = cubalif_series.Lanes(**{**vars(cubalif_series.cuba(p, start=v)), "i": j})
    nothing = np.zeros((v.size, 0))
    return cubalif_series.spike_times(lanes, nothing, nothing, duration, limit=1)[:, 0]


def check(shape, case, *, rounding=1e-13, accuracy=1e-9):
    """Compares the engine with the oracle; returns how many cases cross, and how many are too close
    to call.

    `rounding` is what v may be wrong by, relative to its terms: near tangency it decides whether
    there is a crossing, and when. The oracle at a threshold that much lower and higher says how
    much.
    """
    v, j, threshold, tau_mem, tau_syn, duration = (x.astype(float) for x in case)
    hits, time = (np.asarray(x) for x in jitted[shape](*case))
    slack = rounding * (abs(v) + abs(j) + abs(threshold))
    early = exact(v, j, threshold - slack, tau_mem, tau_syn, duration)
    late = exact(v, j, threshold + slack, tau_mem, tau_syn, duration)
    clear = np.isfinite(early) == np.isfinite(late)
    np.testing.assert_array_equal(hits[clear], np.isfinite(late)[clear])
    assert np.isfinite(time).all()
    assert (time >= 0).all()
    assert (time <= duration * (1 + rounding)).all()
    both = hits & clear
    margin = accuracy * tau_syn
    assert (time >= early - margin)[both].all(), np.max((early - time)[both])
    assert (time <= late + margin)[both].all(), np.max((time - late)[both])
    return np.count_nonzero(both), np.count_nonzero(~clear)


def scattered(shape, rng, count):
    """States of all sizes below thresholds of either sign."""
    tau_syn = rng.uniform(0.5, 2.0, count) * rng.choice([1.0, 0.005], count)
    tau_mem = ratios(shape, rng, count) * tau_syn
    v = rng.normal(size=count)
    j = rng.normal(size=count) * 10 ** np.where(
        rng.random(count) < 0.3, rng.uniform(-20, -6, count), rng.uniform(-6, 1.5, count)
    )
    j[rng.random(count) < 0.02] = 0.0
    v[rng.random(count) < 0.1] = 0.0
    threshold = v + 10 ** rng.uniform(-5, 0.5, count)
    duration = rng.exponential(2.0, count) * np.maximum(tau_mem, tau_syn)
    return v, j, threshold, tau_mem, tau_syn, duration


def nearly_tangential(shape, rng, count):
    """Thresholds slightly below and above a maximum of v."""
    _, _, _, tau_mem, tau_syn, _ = scattered(shape, rng, count)
    j = rng.uniform(0.5, 5.0, count)
    v = j - 10 ** rng.uniform(-3, 0.7, count)
    top = maximum(v, j, tau_mem, tau_syn)
    threshold = top + rng.choice([-1, 1], count) * 10 ** rng.uniform(-12, np.log10(0.1 * (top - v)))
    return v, j, threshold, tau_mem, tau_syn, 30 * np.maximum(tau_mem, tau_syn)


def maximum(v, j, tau_mem, tau_syn):
    """Largest v to come, by golden section on the flow (tested above)."""
    flow = jax.jit(partial(crossing.decay, TauShape.ANY))

    def value(t):
        em, _, k = flow(tau_mem, tau_syn, t)
        return np.asarray(v * em + j * k)

    low, high = np.zeros_like(v), 20 * np.minimum(tau_mem, tau_syn)
    for _ in range(90):
        left, right = (
            high - (high - low) / 1.618033988749895,
            low + (high - low) / 1.618033988749895,
        )
        rising = value(left) < value(right)
        low, high = np.where(rising, left, low), np.where(rising, high, right)
    return value(0.5 * (low + high))


@every_shape
def test_crossings_are_found_and_hit(x64, shape):
    crossings, unclear = check(shape, scattered(shape, np.random.default_rng(4), 6000))
    assert crossings > 1500
    assert unclear < 10


@every_shape
def test_crossings_near_tangency(x64, shape):
    crossings, unclear = check(shape, nearly_tangential(shape, np.random.default_rng(5), 3000))
    assert crossings > 1000
    assert unclear < 200


@every_shape
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    v=st.floats(-3, 3),
    j=st.floats(-30, 30) | st.floats(-1e-3, 1e-3),
    rise=st.floats(1e-6, 3),
    ratio=st.floats(0.05, 20) | st.sampled_from([1 + gap for gap in NEAR_ONE]),
    tau_syn=st.sampled_from([0.005, 1.0]),
    duration=st.floats(1e-6, 30),
)
def test_any_crossing(x64, shape, v, j, rise, ratio, tau_syn, duration):
    fixed = {TauShape.DOUBLE: 2.0, TauShape.HALF: 0.5, TauShape.EQUAL: 1.0}
    if shape is TauShape.APART and 0.88 < ratio < 1.12:
        ratio = 0.8
    tau_mem = fixed.get(shape, ratio) * tau_syn
    case = np.array([v, j, v + rise, tau_mem, tau_syn, duration * tau_syn])
    check(shape, tuple(case[:, None]))


@every_shape
def test_crossings_in_float32(shape):
    case = [x.astype("float32") for x in scattered(shape, np.random.default_rng(6), 6000)]
    fixed = {
        TauShape.DOUBLE: np.float32(2),
        TauShape.HALF: np.float32(0.5),
        TauShape.EQUAL: np.float32(1),
    }
    if shape in fixed:
        case[3] = fixed[shape] * case[4]
    case[2] = np.maximum(case[2], case[0] + np.float32(1e-5))
    crossings, unclear = check(shape, case, rounding=2e-6, accuracy=1e-5)
    assert crossings > 1500
    assert unclear < 120


@every_shape
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_state_gives_nan(shape, dtype):
    """All pairings of zeros, tiny and huge numbers."""
    values = [0.0, 1e-30, -1e-30, 1e-6, -1e-6, 1.0, -1.0, 1e6, -1e6]
    v, j, rise, duration = (
        x.ravel()
        for x in np.meshgrid(values, values, [1e-20, 1e-6, 1.0, 1e6], [0.0, 1e-9, 1.0, 1e3])
    )
    tau = {
        TauShape.DOUBLE: 2.0,
        TauShape.HALF: 0.5,
        TauShape.EQUAL: 1.0,
        TauShape.APART: 3.0,
        TauShape.ANY: 1.001,
    }
    with jax.enable_x64(dtype == "float64"):
        v, j, duration = (x.astype(dtype) for x in (v, j, duration))
        threshold = np.maximum(v + rise.astype(dtype), np.nextafter(v, np.inf, dtype=dtype))
        ones = np.ones_like(v)
        _, time = jitted[shape](v, j, threshold, tau[shape] * ones, ones, duration)
        assert time.dtype == dtype
        assert np.isfinite(time).all()
        assert ((time >= 0) & (time <= duration)).all()
        assert np.isfinite(
            np.array(crossing.decay_derivatives(shape, tau[shape] * ones, ones, duration))
        ).all()


# What is assumed


@pytest.mark.parametrize(
    ("tau_mem", "tau_syn", "holds"),
    [
        ([2.0, 2.0], [1.0, 1.0], True),
        ([2.0, 3.0], [1.0, 1.0], False),
        ([2.0, 4.0], [1.0, 2.0], False),  # of the right ratio, but not one decay for all
        ([3.0, 3.0], [1.0, 1.0], False),
    ],
)
def test_a_guess_is_looked_at(x64, tau_mem, tau_syn, holds):
    parameters = {name: np.ones(2) for name in ("r", "w_in", "v_leak", "v_threshold", "v_reset")}
    parameters |= {"tau_mem": np.array(tau_mem), "tau_syn": np.array(tau_syn)}
    known = CubaLIFDelta(tau_shape=TauShape.DOUBLE, uniform=True)
    guess = known.guessed()
    assert (known.certain, guess.certain) == (True, False)
    lanes = known.lanes(parameters, None)

    def assumed(neurons):
        (neuron,) = neurons
        return jnp.array([neuron.certain, neuron.uniform, neuron.tau_shape is TauShape.DOUBLE])

    assert by_facts([known], [lanes], assumed).tolist() == [True, True, True]
    assert by_facts([guess], [lanes], assumed).tolist() == [True, holds, holds]


@pytest.mark.parametrize(
    ("v", "v_inf", "v_end", "by_equality", "fires"),
    [
        (0.5, 2.0, 0.9, False, False),  # on its way
        (0.5, 1.5, 1.0, False, True),  # comes there at the very end, at a slope below 1
        (0.5, 1.0, 1.0, False, False),  # would be there after infinite time; the rest is rounding
        (1.0, 1.5, 1.0, False, False),  # an arrival moved it there, and not above
        (1.0, 0.5, 0.9, True, True),
        (1.0, 0.5, 0.9, False, False),
        (1.1, 0.5, 0.9, False, True),  # above at once, below again by the end
        (0.5, 1.5, 1.1, False, True),
    ],
)
def test_membranes_at_the_threshold_exactly(v, v_inf, v_end, by_equality, fires, x64):
    neuron, one = LIFDelta(fires_at_equality=by_equality), jnp.ones(1)
    p = dict.fromkeys(("tau", "r", "v_threshold"), one)
    lanes = neuron.lanes(p | {"v_leak": v_inf * one}, None)
    state, end = ((jnp.full(1, at - v_inf), 0 * one) for at in (v, v_end))
    assert bool(neuron.crosses(lanes, state, end, one)[0]) is fires


@pytest.mark.parametrize("ratio", [1.01, 1.3, 2.0, 30.0, 0.99, 0.7, 0.5, 0.03])
def test_the_time_of_a_maximum_has_all_digits(x64, ratio):
    """Also where it comes soon, V being nearly at what drives it, and where it comes late."""
    sizes = 10.0 ** np.arange(-11, 7)
    z = np.concatenate([-sizes[sizes < 0.5], [-0.2, -0.24, -0.26, -0.5, -0.8]])
    z = z if ratio > 1 else np.concatenate([sizes, [0.2, 0.3]])
    tau_mem, d = ratio * 0.7, ratio * 0.7 / 0.7 - 1
    j = np.full_like(z, 1.3)
    v = j + z * j * (1 + d) / d
    found = np.asarray(crossing.extremum(v, j, np.full_like(z, tau_mem), np.full_like(z, 0.7))[0])
    for time, now in zip(found, v, strict=True):
        exact, drive, own = mpmath.mpf(tau_mem) / mpmath.mpf(0.7) - 1, mpmath.mpf(1.3), float(now)
        part = exact * (own - drive) / (drive * (1 + exact))
        wanted = -mpmath.log1p(part) * mpmath.mpf(tau_mem) / exact
        np.testing.assert_allclose(time, float(wanted), rtol=2e-13)


@pytest.mark.parametrize(
    ("ratio", "v", "j"),
    [(2.0, -1.3 * (1 - 2.0**-30), 1.3), (2.0, -1.3 * (1 - 2.0**-45), 1.3), (0.5, -1e10, 1e-305)],
)
def test_the_time_of_a_late_maximum_has_all_digits(x64, ratio, v, j):
    """Where V comes up to what drives it when both have nearly gone."""
    one = np.ones(1)
    found = crossing.extremum(v * one, j * one, ratio * one, one)[0]
    d = mpmath.mpf(ratio) - 1
    wanted = -mpmath.log((mpmath.mpf(j) + d * mpmath.mpf(v)) / (mpmath.mpf(j) * (1 + d)))
    np.testing.assert_allclose(found, float(wanted * ratio / d), rtol=1e-14)


@every_shape
def test_a_membrane_that_ends_at_the_threshold_has_come_to_it(shape):
    """It still rises there, so that no peak within the interval tells."""
    tau_mem = {TauShape.DOUBLE: 2.0, TauShape.HALF: 0.5, TauShape.EQUAL: 1.0}.get(shape, 3.0)
    v_end = jnp.asarray([1.0 - 2**-20, 1.0, 1.0 + 2**-20])
    begin = jnp.zeros(3), jnp.full(3, 3.0)
    found = crossing.crosses(shape, *begin, v_end, jnp.full(3, 2.0), 1.0, tau_mem, 1.0)
    assert found.tolist() == [False, True, True]
