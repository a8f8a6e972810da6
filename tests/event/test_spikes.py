"""Spike times of one population, against the oracle and under changes that must not matter."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.forward.simulate_layer import simulate_layer
from jaxsnn.network.structure import TauShape
from tests.event.agreement import assert_same_spikes, padded, sorted_finite
from tests.event.cases import SHAPES, population
from tests.oracles import continuous_time

SOURCES, ARRIVALS, SAMPLES, T_END = 4, 12, 3, 8.0
#: Numbers of neurons of the populations.
SIZES = (5, 9)

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
#: One shape for each method of solving for a crossing.
some_shapes = pytest.mark.parametrize(
    "shape", [TauShape.DOUBLE, TauShape.EQUAL, TauShape.ANY], ids=lambda shape: shape.name
)
every_population = pytest.mark.parametrize(
    ("shape", "neurons", "uniform"),
    [
        *(
            pytest.param(shape, SIZES[n], False, marks=pytest.mark.slow if (number + n) % 2 else ())
            for (number, shape), n in itertools.product(enumerate(SHAPES), (0, 1))
        ),
        (TauShape.DOUBLE, 5, True),
        (TauShape.APART, 9, True),
        (TauShape.ANY, 5, True),
    ],
    ids=lambda value: value.name if isinstance(value, TauShape) else str(value),
)
pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.last_digits]

run = jax.jit(lambda *args: simulate_layer(*args)[0], static_argnums=0)


def spec_of(shape, *, uniform=False, once=False, max_spikes=96):
    neuron = CubaLIFDelta(tau_shape=shape, uniform=uniform)
    return LayerSpec(neuron=neuron, max_spikes=1 if once else max_spikes, once=once)


def drawn(shape, neurons=9, *, uniform=False, seed=0):
    """A population and what arrives at it."""
    rng = np.random.default_rng([SHAPES.index(shape), neurons, uniform, seed])
    return {
        "p": population(shape, rng, neurons, uniform=uniform),
        "weight": rng.normal(0.8, 1.5, (SOURCES, neurons)),
        "current": rng.normal(0.3, 0.6, neurons),
        "times": rng.uniform(0, 6, (SAMPLES, ARRIVALS)),
        "rows": rng.integers(0, SOURCES, (SAMPLES, ARRIVALS)).astype("int32"),
    }


def simulated(spec, case, *, t_end=T_END, **options):
    """The engine's spikes; the options are those of `CubaLIFDelta` that enter before the scan."""
    neuron = CubaLIFDelta(**{"spike_area": 0.7} | options)
    lanes = neuron.constants(case["p"], case["current"])
    weight = case["weight"] * neuron.arrival_factor(case["p"])
    return run(spec, weight, lanes, case["times"], case["rows"], float(t_end))


def reference(case, *, spike_area=0.7, step=None, initial="zero", reset_kind="zero"):
    """The oracle's outcome of each sample."""
    p, bias = case["p"], case["current"]
    if step is not None:  # I_inf, from NIR's equation under a constant current: w_in u
        bias = bias * (p["tau_syn"] / p["w_in"] if spike_area is None else spike_area) / step
    options = {"area": spike_area, "bias": bias, "v_start": {"zero": 0.0, **p}[initial]}
    arrivals = case["weight"], case["times"], case["rows"]
    subtract = reset_kind == "subtract"
    return continuous_time.simulate_population(p, *arrivals, T_END, subtract=subtract, **options)


def expected(case, **options):
    """The oracle's spike times, (samples, neurons, slots)."""
    return padded([outcome.spikes["n"] for outcome in reference(case, **options)])


# Against the oracle


@every_population
def test_spikes_agree_with_the_oracle(shape, neurons, uniform):
    case = drawn(shape, neurons, uniform=uniform)
    ways = [
        {},
        {"spike_area": None, "initial": "v_leak"},
        {"initial": "v_reset", "reset_kind": "subtract"},
        {"spike_area": None, "step": 0.4, "reset_kind": "subtract"},
        {"step": 0.4, "initial": "v_leak"},
    ]
    number = SHAPES.index(shape) + neurons + uniform
    for chosen in (ways[number % 5], ways[(number + 2) % 5]):
        times = expected(case, **chosen)
        assert np.isfinite(times).sum() > 10
        assert_same_spikes(simulated(spec_of(shape, uniform=uniform), case, **chosen), times)


@every_shape
def test_slopes_are_those_of_the_voltage(shape):
    case = drawn(shape)
    spikes = simulated(spec_of(shape), case)
    slopes = padded([outcome.slopes["n"] for outcome in reference(case)])
    slopes = slopes[np.isfinite(expected(case))]
    fired = np.isfinite(spikes.time)
    assert fired.sum() > 20
    np.testing.assert_allclose(spikes.slope[fired], slopes, rtol=1e-9, atol=1e-9)
    assert (spikes.slope[~fired] == 1).all()


@some_shapes
def test_first_spikes_are_the_first_of_all(shape):
    case = drawn(shape, 5 if shape is TauShape.EQUAL else 9, seed=1)
    every, first = (
        simulated(spec_of(shape, once=once), case, initial="v_leak") for once in (False, True)
    )
    assert_same_spikes(first, np.asarray(every.time)[..., :1], 1e-13)
    np.testing.assert_allclose(first.slope, every.slope[..., :1], rtol=1e-12)


# The budget


@pytest.mark.parametrize("neurons", SIZES)
def test_spikes_beyond_the_budget_are_counted(neurons):
    case = drawn(TauShape.DOUBLE, neurons)
    case["current"] = case["current"] + 3.0
    every, few = (simulated(spec_of(TauShape.DOUBLE, max_spikes=n), case) for n in (96, 2))
    assert np.max(every.count) > 15
    np.testing.assert_array_equal(few.count, every.count)
    np.testing.assert_array_equal(few.time, every.time[..., :2])
    np.testing.assert_array_equal(few.slope, every.slope[..., :2])


def test_a_neuron_that_never_stops_is_stopped():
    case = drawn(TauShape.DOUBLE)
    case["current"] = np.where(np.arange(9) == 3, 1e4, case["current"])
    spec = spec_of(TauShape.DOUBLE, max_spikes=2)
    spikes, others = simulated(spec, case), np.arange(9) != 3
    assert (np.asarray(spikes.count)[:, 3] == spec.counted).all()
    case["current"][3] = 0.0
    np.testing.assert_array_equal(spikes.count[:, others], simulated(spec, case).count[:, others])


# Arrivals


def test_arrivals_may_come_in_any_order_with_gaps():
    case, spec = drawn(TauShape.HALF), spec_of(TauShape.HALF)
    order = np.argsort(case["times"], axis=1)
    in_order = {name: np.take_along_axis(case[name], order, 1) for name in ("times", "rows")}
    gaps = np.zeros((SAMPLES, 5))
    gappy = {
        "times": np.concatenate([gaps + np.inf, case["times"][:, ::-1], gaps + np.inf], 1),
        "rows": np.concatenate([gaps + 3, case["rows"][:, ::-1], gaps + 10**6], 1).astype("int32"),
    }
    times = simulated(spec, case).time
    np.testing.assert_array_equal(simulated(spec, case | in_order).time, times)
    assert_same_spikes(simulated(spec, case | gappy), times, 1e-13)


@every_shape
def test_arrivals_at_one_time_add_up(shape):
    case = drawn(shape)
    case["times"] = np.repeat(case["times"][:, ::3], 3, axis=1)
    case["times"][:, :3] = 0.0
    spikes = simulated(spec_of(shape), case)
    assert_same_spikes(spikes, expected(case))
    reversed_rows = case["rows"].reshape(SAMPLES, -1, 3)[..., ::-1].reshape(SAMPLES, -1)
    assert_same_spikes(
        simulated(spec_of(shape), case | {"rows": reversed_rows}), spikes.time, 1e-12
    )


def test_rows_may_be_the_same_for_all_samples():
    case, spec = drawn(TauShape.DOUBLE), spec_of(TauShape.DOUBLE)
    row = case["rows"][0]
    repeated = case | {"rows": np.broadcast_to(row, case["rows"].shape)}
    shared = simulated(spec, case | {"rows": row}).time
    np.testing.assert_array_equal(shared, simulated(spec, repeated).time)


@pytest.mark.parametrize(
    ("shape", "slots", "once"),
    [
        *((shape, ARRIVALS, False) for shape in SHAPES),
        *((TauShape.DOUBLE, 0, once) for once in (False, True)),
    ],
)
def test_a_bias_alone_makes_neurons_fire(shape, slots, once):
    case = drawn(shape)
    case["current"] = case["current"] + 1.5
    case["times"], case["rows"] = np.full((SAMPLES, slots), np.inf), case["rows"][:, :slots]
    times = expected(case)[..., : 1 if once else None]
    assert np.isfinite(times[0, :, 0]).sum() > 4
    assert_same_spikes(simulated(spec_of(shape, once=once), case), times)


@pytest.mark.parametrize("first", [0.0, 3.0])
@pytest.mark.parametrize(
    ("shape", "once"), [*((shape, False) for shape in SHAPES), (TauShape.DOUBLE, True)]
)
def test_neurons_that_start_above_threshold_fire_at_once(shape, once, first):
    """Even where they would fall below it before the first arrival; others start below it."""
    case, above = drawn(shape), np.arange(9) < 7
    case["times"] = first + case["times"] / 2
    case["p"]["v_leak"] = case["p"]["v_threshold"] + np.where(above, 0.3, -0.3)
    case["current"] = np.where(np.arange(9) < 5, -2.0, case["current"])
    spikes = simulated(spec_of(shape, once=once), case, initial="v_leak")
    assert not np.any(spikes.time[:, above, 0])
    assert_same_spikes(spikes, expected(case, initial="v_leak")[..., : 1 if once else None])


# The end


@every_shape
def test_nothing_happens_after_the_end(shape):
    case, run_to = drawn(shape), partial(simulated, spec_of(shape))
    times = np.asarray(run_to(case).time)
    eighth = sorted_finite(times)[7]
    for end in (eighth - 1e-7, eighth + 1e-7, *case["times"][0, :2], 1e-9):
        before = np.where(times <= end, times, np.inf)
        assert_same_spikes(run_to(case, t_end=end), before, 1e-12)
    late, unused = (
        run_to(case | {"times": np.where(case["times"] > 3.0, at, case["times"])}, t_end=3.0).time
        for at in (100.0, np.inf)
    )
    np.testing.assert_array_equal(late, unused)


# Symmetries


@every_shape
@pytest.mark.parametrize("neurons", SIZES)
def test_samples_do_not_see_each_other(shape, neurons):
    """Up to the last bit, where Newton's iteration goes on until all lanes are done."""
    case, spec = drawn(shape, neurons), spec_of(shape)
    # The other samples receive other, far more frequent spikes.
    others, strongest = [[True], [False], [True]], np.argmax(case["weight"].sum(1))
    crowded = {
        "times": np.where(others, case["times"] / 7, case["times"]),
        "rows": np.where(others, strongest, case["rows"]).astype("int32"),
    }
    times = simulated(spec, case | crowded).time[1:2]
    accuracy = 1e-13 if shape in (TauShape.APART, TauShape.ANY) else 0.0
    assert_same_spikes(times, simulated(spec, case).time[1:2], accuracy)


@every_shape
def test_neurons_and_sources_have_no_order(shape):
    case, rng = drawn(shape), np.random.default_rng(0)
    turn, swap = rng.permutation(9), rng.permutation(SOURCES)
    permuted = {
        "p": {name: values[turn] for name, values in case["p"].items()},
        "weight": case["weight"][swap][:, turn],
        "current": case["current"][turn],
        "rows": np.argsort(swap)[case["rows"]].astype("int32"),
    }
    times = simulated(spec_of(shape), case).time
    assert_same_spikes(simulated(spec_of(shape), case | permuted), times[:, turn], 1e-12)


@every_shape
@pytest.mark.parametrize("scale", [2.0**-7, 5e-3])
def test_time_has_no_scale(shape, scale):
    case = drawn(shape)
    times = simulated(spec_of(shape), case).time
    taus = {name: case["p"][name] * scale for name in ("tau_mem", "tau_syn")}
    fast = case | {"times": case["times"] * scale, "p": case["p"] | taus}
    spikes = simulated(spec_of(shape), fast, spike_area=0.7 * scale, t_end=T_END * scale)
    assert_same_spikes(spikes.time / scale, times, 0.0 if scale == 2.0**-7 else 1e-11)


# Single precision


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(
            shape,
            id=shape.name,
            marks=[] if shape is TauShape.DOUBLE else pytest.mark.slow,
        )
        for shape in SHAPES
    ],
)
def test_long_runs_in_single_precision_lose_no_spike(shape):
    """200 tau_syn; neurons whose number of spikes hangs on 1e-4 of the threshold are left out."""
    rng, span, neurons, arrivals = np.random.default_rng(7), 200.0, 16, 200
    case = {
        "p": population(shape, rng, neurons),
        "weight": rng.normal(0.8, 1.2, (SOURCES, neurons)),
        "current": rng.normal(0.2, 0.2, neurons),
        "times": rng.uniform(0, span, (SAMPLES, arrivals)),
        "rows": rng.integers(0, SOURCES, (SAMPLES, arrivals)).astype("int32"),
    }
    spec = spec_of(shape, max_spikes=256)
    rounded = jax.tree.map(lambda x: x.astype("float32") if x.dtype == float else x, case)
    ratio = {TauShape.DOUBLE: 2, TauShape.HALF: 0.5, TauShape.EQUAL: 1}
    if shape in ratio:
        rounded["p"]["tau_mem"] = np.float32(ratio[shape]) * rounded["p"]["tau_syn"]
    case = jax.tree.map(lambda x: x.astype(float) if x.dtype == np.float32 else x, rounded)

    def with_thresholds_times(factor):
        higher = case["p"] | {"v_threshold": case["p"]["v_threshold"] * factor}
        return simulated(spec, case | {"p": higher}, t_end=span)

    exact, lower, higher = map(with_thresholds_times, (1.0, 1 - 1e-4, 1 + 1e-4))
    with jax.enable_x64(False):
        rough = simulated(spec, rounded, t_end=span)
    assert rough.time.dtype == jnp.float32
    clear = np.asarray(lower.count == higher.count)
    assert clear.mean() > 0.7
    np.testing.assert_array_equal(np.asarray(rough.count)[clear], np.asarray(exact.count)[clear])
    fired = np.isfinite(exact.time) & clear[..., None]
    error = abs(np.asarray(rough.time)[fired].astype(float) - np.asarray(exact.time)[fired])
    assert error.size > 500
    assert error.max() < 3e-4
    assert np.quantile(error, 0.99) < 5e-5
