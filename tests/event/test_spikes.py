"""Spike times of one population, against the oracle and against each other."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.dynamics.cubalif import CubaLIFDelta
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.forward.simulate_layer import simulate_layer
from jaxsnn.network.structure import TauShape
from tests.event.cases import SHAPES, population
from tests.event.same_spikes import assert_same_spikes
from tests.oracles import cubalif_series, cubalif_superposition

SOURCES, ARRIVALS, SAMPLES, T_END = 4, 12, 3, 8.0
#: Numbers of neurons in a population.
SIZES = (5, 9)

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
#: One for each way to solve for a crossing.
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


def of(shape, uniform=False, once=False, max_spikes=96):
    neuron = CubaLIFDelta(tau_shape=shape, uniform=uniform)
    return LayerSpec(neuron=neuron, max_spikes=1 if once else max_spikes, once=once)


def drawn(shape, neurons, *, uniform=False, seed=0):
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
    neuron = CubaLIFDelta(**options)
    lanes = neuron.lanes(case["p"], case["current"])
    return run(
        spec,
        case["weight"] * neuron.arrival_factor(case["p"]),
        lanes,
        case["times"],
        case["rows"],
        float(t_end),
    )


def expected(case, *, spike_area=None, step=None, initial="zero", reset_kind="zero", t_end=T_END):
    """The oracle's spikes."""
    p, current = case["p"], case["current"]
    if step is not None:  # I_inf, from NIR's equation under a constant current: w_in u
        current = current * (p["tau_syn"] / p["w_in"] if spike_area is None else spike_area) / step
    start = {"zero": 0.0, "v_leak": p["v_leak"], "v_reset": p["v_reset"]}[initial]
    settings = {
        "current": current,
        "start": start,
        "area": spike_area,
        "reset": 0.0 if reset_kind == "subtract" else None,
    }
    return cubalif_series.population(
        p, case["weight"], case["times"], case["rows"], t_end, **settings
    )


# Against the oracle


@every_population
def test_spikes_agree_with_the_oracle(shape, neurons, uniform):
    case = drawn(shape, neurons, uniform=uniform)
    ways = [
        {"spike_area": 0.7},
        {"spike_area": None, "initial": "v_leak"},
        {"spike_area": 0.7, "initial": "v_reset", "reset_kind": "subtract"},
        {"spike_area": None, "step": 0.4, "reset_kind": "subtract"},
        {"spike_area": 0.7, "step": 0.4, "initial": "v_leak"},
    ]
    number = SHAPES.index(shape) + neurons + uniform
    for chosen in (ways[number % 5], ways[(number + 2) % 5]):
        got, wanted = simulated(of(shape, uniform), case, **chosen), expected(case, **chosen)
        assert np.isfinite(wanted).sum() > 10
        assert_same_spikes(got, wanted)


@every_shape
def test_slopes_are_those_of_the_voltage(shape):
    case = drawn(shape, 9)
    got = simulated(of(shape), case, spike_area=0.7)
    time = np.asarray(got.time)
    slope = cubalif_superposition.slopes(
        case["p"],
        case["weight"],
        case["times"],
        case["rows"],
        time,
        area=0.7,
        current=case["current"],
    )
    fired = np.isfinite(time)
    assert fired.sum() > 20
    np.testing.assert_allclose(np.asarray(got.slope)[fired], slope[fired], rtol=1e-9, atol=1e-9)
    assert (np.asarray(got.slope)[~fired] == 1).all()


@some_shapes
def test_first_spikes_are_the_first_of_all(shape):
    case = drawn(shape, 5 if shape is TauShape.EQUAL else 9, seed=1)
    every, first = (
        simulated(of(shape, once=once), case, spike_area=0.7, initial="v_leak")
        for once in (False, True)
    )
    assert_same_spikes(first, np.asarray(every.time)[..., :1], 1e-13)
    np.testing.assert_allclose(first.slope, every.slope[..., :1], rtol=1e-12)


# The budget


@pytest.mark.parametrize("neurons", SIZES)
def test_spikes_beyond_the_budget_are_counted(neurons):
    case = drawn(TauShape.DOUBLE, neurons)
    case["current"] = case["current"] + 3.0
    every, few = (
        simulated(of(TauShape.DOUBLE, max_spikes=n), case, spike_area=0.7) for n in (96, 2)
    )
    assert np.max(every.count) > 15
    np.testing.assert_array_equal(few.count, every.count)
    np.testing.assert_array_equal(few.time, every.time[..., :2])
    np.testing.assert_array_equal(few.slope, every.slope[..., :2])


def test_a_neuron_that_never_stops_is_stopped():
    case = drawn(TauShape.DOUBLE, 9)
    case["current"] = np.where(np.arange(9) == 3, 1e4, case["current"])
    spec = of(TauShape.DOUBLE, max_spikes=2)
    got, others = simulated(spec, case), np.arange(9) != 3
    assert (np.asarray(got.count)[:, 3] == spec.counted).all()
    case["current"][3] = 0.0
    np.testing.assert_array_equal(got.count[:, others], simulated(spec, case).count[:, others])


# Arrivals


def test_arrivals_may_come_in_any_order_with_gaps():
    case = drawn(TauShape.HALF, 9)
    order = np.argsort(case["times"], axis=1)
    ordered = {
        **case,
        **{name: np.take_along_axis(case[name], order, 1) for name in ("times", "rows")},
    }
    gaps = np.zeros((SAMPLES, 5))
    gappy = {
        **case,
        "times": np.concatenate([gaps + np.inf, case["times"][:, ::-1], gaps + np.inf], 1),
        "rows": np.concatenate([gaps + 3, case["rows"][:, ::-1], gaps + 10**6], 1).astype("int32"),
    }
    spec = of(TauShape.HALF)
    wanted = simulated(spec, ordered, spike_area=0.7)
    np.testing.assert_array_equal(simulated(spec, case, spike_area=0.7).time, wanted.time)
    assert_same_spikes(simulated(spec, gappy, spike_area=0.7), np.asarray(wanted.time), 1e-13)


@every_shape
def test_arrivals_at_one_time_add_up(shape):
    case = drawn(shape, 9)
    case["times"] = np.repeat(case["times"][:, ::3], 3, axis=1)
    case["times"][:, :3] = 0.0
    got = simulated(of(shape), case, spike_area=0.7)
    assert_same_spikes(got, expected(case, spike_area=0.7))
    turned = {**case, "rows": case["rows"].reshape(SAMPLES, -1, 3)[..., ::-1].reshape(SAMPLES, -1)}
    assert_same_spikes(simulated(of(shape), turned, spike_area=0.7), np.asarray(got.time), 1e-12)


def test_rows_may_be_the_same_for_all_samples():
    case = drawn(TauShape.DOUBLE, 9)
    case["rows"] = np.broadcast_to(case["rows"][:1], case["rows"].shape)
    one = {**case, "rows": case["rows"][0]}
    np.testing.assert_array_equal(
        simulated(of(TauShape.DOUBLE), one).time, simulated(of(TauShape.DOUBLE), case).time
    )


@every_shape
def test_a_bias_alone_makes_neurons_fire(shape):
    case = drawn(shape, 9)
    case["current"] = case["current"] + 1.5
    case["times"] = np.full((SAMPLES, ARRIVALS), np.inf)
    wanted = expected(case)
    assert np.isfinite(wanted[0, :, 0]).sum() > 4
    assert_same_spikes(simulated(of(shape), case), wanted)


@pytest.mark.parametrize("once", [False, True])
def test_nothing_need_arrive_at_all(once):
    case = drawn(TauShape.DOUBLE, 9)
    case["current"] = case["current"] + 1.5
    case["times"], case["rows"] = case["times"][:, :0], case["rows"][:, :0]
    wanted = expected(case)[..., : 1 if once else None]
    assert_same_spikes(simulated(of(TauShape.DOUBLE, once=once), case), wanted)


@every_shape
@pytest.mark.parametrize("first", [0.0, 3.0])
def test_neurons_that_start_above_threshold_fire_at_once(shape, first):
    """Even where they would fall below it before the first arrival."""
    case = drawn(shape, 9)
    case["times"] = first + case["times"] / 2
    case["p"]["v_leak"] = case["p"]["v_threshold"] + 0.3
    case["current"] = np.where(np.arange(9) < 5, -2.0, case["current"])
    got, wanted = simulated(of(shape), case, initial="v_leak"), expected(case, initial="v_leak")
    assert not np.any(got.time[..., 0])
    assert_same_spikes(got, wanted)


def test_first_spikes_of_neurons_that_start_above_threshold():
    case = drawn(TauShape.DOUBLE, 9)
    case["p"]["v_leak"] = case["p"]["v_threshold"] + np.where(np.arange(9) < 5, 0.3, -0.3)
    case["current"] = np.full(9, -2.0)
    got = simulated(of(TauShape.DOUBLE, once=True), case, initial="v_leak")
    assert not np.any(got.time[:, :5])
    assert_same_spikes(got, expected(case, initial="v_leak")[..., :1])


# The end


@every_shape
def test_nothing_happens_after_the_end(shape):
    case = drawn(shape, 9)
    every = np.asarray(simulated(of(shape), case, spike_area=0.7).time)
    some = np.sort(every[np.isfinite(every)])
    for end in (some[7] - 1e-7, some[7] + 1e-7, *case["times"][0, :2], 1e-9):
        before = np.where(every <= end, every, np.inf)
        assert_same_spikes(simulated(of(shape), case, spike_area=0.7, t_end=end), before, 1e-12)
    late = np.where(case["times"] > 3.0, 100.0, case["times"])
    np.testing.assert_array_equal(
        simulated(of(shape), {**case, "times": late}, spike_area=0.7, t_end=3.0).time,
        simulated(
            of(shape),
            {**case, "times": np.where(late > 3, np.inf, late)},
            spike_area=0.7,
            t_end=3.0,
        ).time,
    )


# Symmetries


@every_shape
@pytest.mark.parametrize("neurons", SIZES)
def test_samples_do_not_see_each_other(shape, neurons):
    """Up to the last bit, where Newton's iteration goes on until all lanes are done."""
    case = drawn(shape, neurons)
    spec = of(shape)
    together = simulated(spec, case, spike_area=0.7)
    # the others fire at other times, and far more often
    crowded = {
        **case,
        "times": np.where([[True], [False], [True]], case["times"] / 7, case["times"]),
    }
    crowded["rows"] = np.where(
        [[True], [False], [True]], np.argmax(case["weight"].sum(1)), case["rows"]
    )
    crowded["rows"] = crowded["rows"].astype("int32")
    got, wanted = (
        np.asarray(spikes.time[1:2])
        for spikes in (simulated(spec, crowded, spike_area=0.7), together)
    )
    assert_same_spikes(got, wanted, 1e-13 if shape in (TauShape.APART, TauShape.ANY) else 0.0)


@every_shape
def test_neurons_and_sources_have_no_order(shape):
    case, rng = drawn(shape, 9), np.random.default_rng(0)
    wanted = np.asarray(simulated(of(shape), case, spike_area=0.7).time)
    turn, swap = rng.permutation(9), rng.permutation(SOURCES)
    turned = {
        "p": {name: values[turn] for name, values in case["p"].items()},
        "weight": case["weight"][swap][:, turn],
        "current": case["current"][turn],
        "times": case["times"],
        "rows": np.argsort(swap)[case["rows"]].astype("int32"),
    }
    assert_same_spikes(simulated(of(shape), turned, spike_area=0.7), wanted[:, turn], 1e-12)


@every_shape
@pytest.mark.parametrize("scale", [2.0**-7, 5e-3])
def test_time_has_no_scale(shape, scale):
    case = drawn(shape, 9)
    times = np.asarray(simulated(of(shape), case, spike_area=0.7).time)
    fast = {**case, "times": case["times"] * scale, "p": dict(case["p"])}
    for tau in ("tau_mem", "tau_syn"):
        fast["p"][tau] = case["p"][tau] * scale
    got = simulated(of(shape), fast, spike_area=0.7 * scale, t_end=T_END * scale)
    assert_same_spikes(got.time / scale, times, 1e-11)
    if scale == 2.0**-7:
        np.testing.assert_array_equal(got.time / scale, times)


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
    rounded = jax.tree.map(
        lambda array: array.astype("float32") if array.dtype == float else array, case
    )
    ratio = {TauShape.DOUBLE: 2, TauShape.HALF: 0.5, TauShape.EQUAL: 1}
    if shape in ratio:
        rounded["p"]["tau_mem"] = np.float32(ratio[shape]) * rounded["p"]["tau_syn"]
    case = jax.tree.map(
        lambda array: array.astype(float) if array.dtype == np.float32 else array, rounded
    )

    def exactly(factor):
        higher = {**case["p"], "v_threshold": case["p"]["v_threshold"] * factor}
        return simulated(
            of(shape, max_spikes=256), {**case, "p": higher}, spike_area=0.7, t_end=span
        )

    exact, lower, higher = exactly(1.0), exactly(1 - 1e-4), exactly(1 + 1e-4)
    with jax.enable_x64(False):
        rough = simulated(of(shape, max_spikes=256), rounded, spike_area=0.7, t_end=span)
    assert rough.time.dtype == jnp.float32
    clear = np.asarray(lower.count == higher.count)
    assert clear.mean() > 0.7
    np.testing.assert_array_equal(np.asarray(rough.count)[clear], np.asarray(exact.count)[clear])
    fired = np.isfinite(exact.time) & clear[..., None]
    error = abs(np.asarray(rough.time)[fired].astype(float) - np.asarray(exact.time)[fired])
    assert error.size > 500
    assert error.max() < 3e-4
    assert np.quantile(error, 0.99) < 5e-5
