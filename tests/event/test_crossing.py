"""The flow between events, against matrix exponentials, and threshold crossings at the edge of what
numbers hold; crossings in general are in test_crossing_solvers.py.
"""

from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from jaxsnn.event.dynamics import crossing
from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.dynamics.lif import LIFDelta
from jaxsnn.event.dynamics.neuron_model import specialise
from jaxsnn.network.structure import TauShape, find_tau_shape
from tests.event.cases import NEAR_ONE, SHAPES, population, ratios
from tests.event.test_crossing_solvers import Case, crossings
from tests.oracles import continuous_time, cubalif_expm, two_exponential_flow

RATIOS = {TauShape.DOUBLE: 2.0, TauShape.HALF: 0.5, TauShape.EQUAL: 1.0}
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)


def test_oracles_of_different_methods_agree():
    """Closed forms from event to event, and matrix exponentials with Brent's method."""
    rng = np.random.default_rng(0)
    p = {name: values[2:] for name, values in population(TauShape.ANY, rng, 4).items()}
    weight, times, current = rng.normal(4.0, 0.5, (2, 2)), [0.3, 1.1], np.array([0.2, 0.5])
    options = {"area": 0.7, "bias": current, "v_start": 0.1}
    arrivals = np.array([times]), np.array([[0, 1]])
    (outcome,) = continuous_time.simulate_population(p, weight, *arrivals, 3.0, **options)
    pairs = list(zip(times, (0, 1), strict=True))
    slow = cubalif_expm.population(p, weight, pairs, 3.0, current=current, start=0.1, area=0.7)
    assert min(map(len, slow)) >= 2
    for spikes, expected in zip(outcome.spikes["n"], slow, strict=True):
        np.testing.assert_allclose(spikes, expected, rtol=0, atol=1e-13)


# The flow


def intervals(shape, rng, count):
    tau_syn = rng.uniform(0.3, 3.0, count)
    tau_mem = ratios(shape, rng, count) * tau_syn
    scale = rng.choice([0.0, 1e-6, 0.1, 1.0, 3.0], count)
    return tau_mem, tau_syn, rng.exponential(2.0, count) * scale


def exact_flow(tau_mem, tau_syn, t):
    cases = zip(tau_mem, tau_syn, t, strict=True)
    return np.array([two_exponential_flow.decay(*case) for case in cases]).T


@every_shape
@pytest.mark.parametrize("count", [40, pytest.param(150, marks=pytest.mark.slow)])
def test_flow_and_its_derivatives_are_those_of_the_matrix_exponential(x64, shape, count):
    case = intervals(shape, np.random.default_rng(1), count)
    flow = np.array(jax.jit(partial(crossing.decay_derivatives, shape))(*case))
    np.testing.assert_allclose(flow, exact_flow(*case), rtol=1e-11, atol=2e-13)
    np.testing.assert_array_equal(flow[:3], jax.jit(partial(crossing.decay, shape))(*case))


@pytest.mark.parametrize(
    "gap",
    [
        pytest.param(gap, marks=() if number % 4 < 2 else pytest.mark.slow)  # one sign of each size
        for number, gap in enumerate(NEAR_ONE)
    ],
)
def test_flow_of_nearly_equal_time_constants_loses_no_digits(x64, gap):
    tau_syn = np.full(40, 0.8)
    case = tau_syn * (1 + gap), tau_syn, np.geomspace(1e-8, 20.0, 40)
    flow = np.array(crossing.decay_derivatives(TauShape.ANY, *case))
    np.testing.assert_allclose(flow, exact_flow(*case), rtol=1e-12, atol=4e-15)


@every_shape
def test_flow_over_infinite_time_is_zero(x64, shape):
    tau_mem, tau_syn, _ = intervals(shape, np.random.default_rng(2), 20)
    assert not np.any(crossing.decay_derivatives(shape, tau_mem, tau_syn, np.full(20, np.inf)))


@every_shape
def test_flow_in_float32(shape):
    case = intervals(shape, np.random.default_rng(3), 2000)
    tau_mem, tau_syn, t = (array.astype("float32") for array in case)
    tau_mem = RATIOS[shape] * tau_syn if shape in RATIOS else tau_mem
    with jax.enable_x64(True):
        doubles = (array.astype(float) for array in (tau_mem, tau_syn, t))
        exact = np.array(crossing.decay(TauShape.ANY, *doubles))
    rough = crossing.decay(shape, tau_mem, tau_syn, t)
    assert all(array.dtype == jnp.float32 for array in rough)
    np.testing.assert_allclose(np.array(rough), exact, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("ratio", "shape"),
    [
        (2.0, TauShape.DOUBLE),
        (0.5, TauShape.HALF),
        (1.0, TauShape.EQUAL),
        ([2.0, 0.5, 5.0], TauShape.APART),
        ([2.0, 0.5, 1.05], TauShape.ANY),
        (1 + 1e-9, TauShape.ANY),
    ],
)
def test_tau_shapes_are_recognised(ratio, shape):
    ones = np.ones(3)
    assert find_tau_shape(ones * ratio, ones) is shape


@pytest.mark.parametrize("rate", [0.0, 0.7])
@pytest.mark.parametrize("t", [1e-3, 0.5, 3.0, 40.0])
def test_integrals_of_the_flow_are_those_by_quadrature(x64, t, rate):
    tau_mem, tau_syn = np.array([0.5, 1.0, 3.0]), np.array([1.0, 1.0, 0.4])
    parameters = {name: np.ones(3) for name in ("r", "w_in", "v_leak", "v_threshold", "v_reset")}
    neuron = CubaLIFDelta(tau_shape=TauShape.ANY)
    lanes = neuron.constants(parameters | {"tau_mem": tau_mem, "tau_syn": tau_syn}, None)
    nodes, weights = np.polynomial.legendre.leggauss(120)
    at = t * (nodes[:, None] + 1) / 2
    weights = t / 2 * weights[:, None] * np.exp(-rate * at)
    expected = [np.sum(weights * np.asarray(part), axis=0) for part in neuron.decay(lanes, at)]
    integrals = neuron.integrals(lanes, np.full(3, t), rate)
    np.testing.assert_allclose(
        np.array([integrals.em, integrals.es, integrals.k]), expected, rtol=1e-10
    )


# The crossing: see also test_crossing_solvers.py


@every_shape
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_state_gives_nan(shape, dtype):
    """All pairings of zeros, tiny and huge numbers."""
    values = [0.0, 1e-30, -1e-30, 1e-6, -1e-6, 1.0, -1.0, 1e6, -1e6]
    rises, durations = [1e-20, 1e-6, 1.0, 1e6], [0.0, 1e-9, 1.0, 1e3]
    ratio = RATIOS.get(shape, 3.0 if shape is TauShape.APART else 1.001)
    with jax.enable_x64(dtype == "float64"):
        v, j, rise, duration = (
            x.ravel().astype(dtype) for x in np.meshgrid(values, values, rises, durations)
        )
        threshold, ones = (
            np.maximum(v + rise, np.nextafter(v, np.inf, dtype=dtype)),
            np.ones_like(v),
        )
        _, time = crossings(shape, Case(v, j, threshold, ratio * ones, ones, duration))
        assert time.dtype == dtype
        assert ((time >= 0) & (time <= duration)).all()
        derivatives = crossing.decay_derivatives(shape, ratio * ones, ones, duration)
        assert np.isfinite(np.array(derivatives)).all()


# Assumptions about time constants


@pytest.mark.parametrize(
    ("tau_mem", "tau_syn", "holds"),
    [
        ([2.0, 2.0], [1.0, 1.0], True),
        ([2.0, 3.0], [1.0, 1.0], False),
        ([2.0, 4.0], [1.0, 2.0], False),  # the right ratio, but no common decay
        ([3.0, 3.0], [1.0, 1.0], False),
    ],
)
def test_a_guess_of_the_time_constants_is_checked(x64, tau_mem, tau_syn, holds):
    parameters = {name: np.ones(2) for name in ("r", "w_in", "v_leak", "v_threshold", "v_reset")}
    parameters |= {"tau_mem": np.array(tau_mem), "tau_syn": np.array(tau_syn)}
    certain = CubaLIFDelta(tau_shape=TauShape.DOUBLE, uniform=True)
    guess = certain.guessed()
    assert (certain.certain, guess.certain) == (True, False)
    lanes = certain.constants(parameters, None)

    def assumptions(neurons):
        (neuron,) = neurons
        return jnp.array([neuron.certain, neuron.uniform, neuron.tau_shape is TauShape.DOUBLE])

    assert specialise([certain], [lanes], assumptions).tolist() == [True, True, True]
    assert specialise([guess], [lanes], assumptions).tolist() == [True, holds, holds]


@pytest.mark.parametrize(
    ("v", "v_inf", "v_end", "by_equality", "fires"),
    [
        (0.5, 2.0, 0.9, False, False),  # V is still below
        (0.5, 1.5, 1.0, False, True),  # V reaches it at the very end, still rising
        (0.5, 1.0, 1.0, False, False),  # V needs infinite time; v_end is rounding
        (1.0, 1.5, 1.0, False, False),  # an arrival moved V to it, but not above
        (1.0, 0.5, 0.9, True, True),
        (1.0, 0.5, 0.9, False, False),
        (1.1, 0.5, 0.9, False, True),  # V starts above, and is below at the end
        (0.5, 1.5, 1.1, False, True),
    ],
)
def test_membranes_at_the_threshold_exactly(v, v_inf, v_end, by_equality, fires, x64):
    neuron, ones = LIFDelta(fires_at_equality=by_equality), jnp.ones(1)
    p = dict.fromkeys(("tau", "r", "v_threshold"), ones)
    lanes = neuron.constants(p | {"v_leak": v_inf * ones}, None)
    state, end = ((jnp.full(1, at - v_inf), 0 * ones) for at in (v, v_end))
    assert bool(neuron.crosses(lanes, state, end, ones)[0]) is fires


@pytest.mark.parametrize("ratio", [1.01, 1.3, 2.0, 30.0, 0.99, 0.7, 0.5, 0.03])
def test_the_time_of_a_maximum_has_all_digits(x64, ratio):
    """Also where it comes soon, V being nearly at what drives it, and where it comes late."""
    sizes = 10.0 ** np.arange(-11, 7)
    z = np.concatenate([-sizes[sizes < 0.5], [-0.2, -0.24, -0.26, -0.5, -0.8]])
    z = z if ratio > 1 else np.concatenate([sizes, [0.2, 0.3]])
    tau_mem, d = ratio * 0.7, ratio * 0.7 / 0.7 - 1
    j = np.full_like(z, 1.3)
    v = j + z * j * (1 + d) / d
    times = np.asarray(crossing.extremum(v, j, np.full_like(z, tau_mem), np.full_like(z, 0.7))[0])
    exact_d, drive = mpmath.mpf(tau_mem) / mpmath.mpf(0.7) - 1, mpmath.mpf(1.3)
    for time, start in zip(times, v.tolist(), strict=True):
        part = exact_d * (start - drive) / (drive * (1 + exact_d))
        expected = -mpmath.log1p(part) * mpmath.mpf(tau_mem) / exact_d
        np.testing.assert_allclose(time, float(expected), rtol=2e-13)


@pytest.mark.parametrize(
    ("ratio", "v", "j"),
    [(2.0, -1.3 * (1 - 2.0**-30), 1.3), (2.0, -1.3 * (1 - 2.0**-45), 1.3), (0.5, -1e10, 1e-305)],
)
def test_the_time_of_a_late_maximum_has_all_digits(x64, ratio, v, j):
    """Where V comes up to what drives it when both have nearly gone."""
    ones = np.ones(1)
    time = crossing.extremum(v * ones, j * ones, ratio * ones, ones)[0]
    d = mpmath.mpf(ratio) - 1
    expected = -mpmath.log((mpmath.mpf(j) + d * mpmath.mpf(v)) / (mpmath.mpf(j) * (1 + d)))
    np.testing.assert_allclose(time, float(expected * ratio / d), rtol=1e-14)


@every_shape
def test_a_membrane_that_ends_at_the_threshold_has_come_to_it(shape):
    """It still rises there, so that no peak within the interval tells."""
    tau_mem = RATIOS.get(shape, 3.0)
    v_end = jnp.asarray([1.0 - 2**-20, 1.0, 1.0 + 2**-20])
    begin = jnp.zeros(3), jnp.full(3, 3.0)
    crosses = crossing.crosses(shape, *begin, v_end, jnp.full(3, 2.0), 1.0, tau_mem, 1.0)
    assert crosses.tolist() == [False, True, True]
