"""Native kernels for neuron models whose equations are integrated: spikes against a Runge-Kutta
method, and gradients against finite differences.
"""

import math
from dataclasses import dataclass, fields, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.errors import LoweringError, UsageError
from jaxsnn.event.dynamics.integrated_neuron import IntegratedNeuron
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.native.model_source import integration_obstacles
from jaxsnn.event.native.native_layer import native_layer_spikes
from tests.event.agreement import finite_times
from tests.event.differences import some_relative_errors
from tests.event.grazing import (
    TAU_MEM,
    TAU_SYN,
    THRESHOLD,
    WEIGHTS,
    assert_grazed,
    grazing_arrivals,
)
from tests.oracles import integrated_neuron

run_native: Any = native_layer_spikes
T_END, ROWS, ARRIVALS = 0.1, 4, 25


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ModelConstants:
    """Constants of all models of this file; each uses some of them."""

    v_rest: Any
    v_critical: Any
    sharpness: Any
    v_spike: Any
    v_reset: Any
    tau_mem: Any
    tau_syn: Any
    tau_slow: Any
    step: Any


class CurrentBased(IntegratedNeuron):
    """A neuron that starts at rest, whose arrivals raise a current."""

    def begin(self, constants):
        return constants.v_rest, jnp.zeros_like(constants.v_rest)

    def arrive(self, state, weight):
        return state[0], state[1] + weight, *state[2:]

    def excess(self, constants, state):
        return state[0] - constants.v_spike

    def reset(self, constants, state):
        return jnp.zeros_like(state[0]) + constants.v_reset, *state[1:]


class QIF(CurrentBased):
    """tau_mem v' = (v - v_rest) (v - v_critical) + j."""

    def rate(self, constants, state):
        c, (v, j) = constants, state
        parabola = (v - c.v_rest) * (v - c.v_critical)
        return (parabola + j) / c.tau_mem, -j / c.tau_syn


class EIF(CurrentBased):
    """tau_mem v' = v_rest - v + sharpness exp((v - v_critical) / sharpness) + j."""

    def rate(self, constants, state):
        c, (v, j) = constants, state
        upstroke = c.sharpness * jnp.exp((v - c.v_critical) / c.sharpness)
        return (c.v_rest - v + upstroke + j) / c.tau_mem, -j / c.tau_syn


class AdEx(CurrentBased):
    """EIF with a current a that V drives and that each spike raises; arrivals saturate."""

    def begin(self, constants):
        return (*super().begin(constants), jnp.zeros_like(constants.v_rest))

    def rate(self, constants, state):
        c, (v, j, a) = constants, state
        upstroke = c.sharpness * jnp.exp((v - c.v_critical) / c.sharpness)
        v_rate = (c.v_rest - v + upstroke + j - a) / c.tau_mem
        return v_rate, -j / c.tau_syn, (0.2 * (v - c.v_rest) - a) / c.tau_slow

    def reset(self, constants, state):
        v, j, a = super().reset(constants, state)
        return v, j, a + constants.step

    def arrive(self, state, weight):
        v, j, a = state
        return v, j + weight * (1 - 0.02 * j), a


class AllFunctions(CurrentBased):
    """tau_mem v' = v_rest - v + j + a sum of all functions of v that the kernels translate."""

    @staticmethod
    def functions(xp, v):
        u, w = 0.3 * xp.tanh(v), 2.0 + 0.5 * xp.cos(v)
        circular = xp.sin(2 * v) + xp.tan(u) + xp.arcsin(u) - xp.arccos(u) + xp.arctan(v)
        hyperbolic = xp.sinh(u) - xp.cosh(u) + xp.arcsinh(v) + xp.arccosh(w) + xp.arctanh(u)
        exponential = xp.exp(u) + xp.expm1(v / 4) + xp.log(w) + xp.log1p(u) + xp.erf(v) - xp.erfc(u)
        powers = xp.sqrt(w) + xp.cbrt(w) + w**1.3 + 1.5**u + u**3 - 1 / w + u / w**2
        return 0.05 * (circular + hyperbolic + exponential + powers)

    def rate(self, constants, state):
        c, (v, j) = constants, state
        library = SimpleNamespace(
            **vars(jnp), erf=jax.scipy.special.erf, erfc=jax.scipy.special.erfc
        )
        return (c.v_rest - v + j + self.functions(library, v)) / c.tau_mem, -j / c.tau_syn


#: Model -> mean and deviation of its weights, and v_spike.
MODELS = {
    QIF: (3.0, 2.0, 10.0),
    EIF: (4.0, 2.0, 2.5),
    AdEx: (5.0, 2.0, 2.5),
    AllFunctions: (3.0, 2.0, 1.2),
}


def case(model, seed, *, neurons=3, batch=2, dtype=float, **spec):
    """A spec and its arguments (weight, constants, time, row, t_end), drawn at random."""
    rng, (mean, deviation, v_spike) = np.random.default_rng(seed), MODELS[model]
    means = {"v_critical": 1.0, "sharpness": 0.2, "v_spike": v_spike, "tau_mem": 0.02}
    means |= {"tau_syn": 0.005, "tau_slow": 0.05, "step": 0.3}
    values = {name: mean * rng.uniform(0.85, 1.2, neurons) for name, mean in means.items()}
    values["v_rest"], values["v_reset"] = rng.uniform(-0.2, 0.2, (2, neurons))
    constants = ModelConstants(**{name: jnp.asarray(v, dtype) for name, v in values.items()})
    weight = rng.normal(mean, deviation, (ROWS, neurons))
    time = rng.uniform(0, 1.1 * T_END, (batch, ARRIVALS))
    time[rng.random(time.shape) < 0.1] = np.inf
    row = rng.integers(0, ROWS, time.shape)
    arguments = jnp.asarray(weight, dtype), constants, jnp.asarray(time, dtype), jnp.asarray(row)
    spec = LayerSpec(neuron=model(), max_spikes=60, **spec)
    return spec, (*arguments, jnp.asarray(T_END, dtype))


class NumPyConstants:
    """Constants of a neuron as numbers."""

    def __init__(self, constants, neuron):
        for field in fields(constants):
            setattr(self, field.name, float(getattr(constants, field.name)[neuron]))


def numpy_equations(model, c):
    """Functions (rate, arrive, reset) of states, without the code under test."""
    if model is QIF:
        rate = lambda x: (  # noqa: E731
            ((x[0] - c.v_rest) * (x[0] - c.v_critical) + x[1]) / c.tau_mem,
            -x[1] / c.tau_syn,
        )
    elif model is AllFunctions:
        library = SimpleNamespace(**vars(np), erf=math.erf, erfc=math.erfc)
        rate = lambda x: (  # noqa: E731
            (c.v_rest - x[0] + x[1] + model.functions(library, x[0])) / c.tau_mem,
            -x[1] / c.tau_syn,
        )
    else:

        def rate(x):
            upstroke = c.sharpness * np.exp((x[0] - c.v_critical) / c.sharpness)
            a = x[2] if model is AdEx else 0.0
            rates = [(c.v_rest - x[0] + upstroke + x[1] - a) / c.tau_mem, -x[1] / c.tau_syn]
            if model is AdEx:
                rates.append((0.2 * (x[0] - c.v_rest) - a) / c.tau_slow)
            return rates

    if model is AdEx:
        arrive = lambda x, w: (x[0], x[1] + w * (1 - 0.02 * x[1]), x[2])  # noqa: E731
        reset = lambda x: (c.v_reset, x[1], x[2] + c.step)  # noqa: E731
    else:
        arrive = lambda x, w: (x[0], x[1] + w)  # noqa: E731
        reset = lambda x: (c.v_reset, x[1])  # noqa: E731
    return rate, arrive, reset


def assert_as_expected(model, spec, arguments):
    """Compare the spikes with those of the oracle; return their number, 0 if a maximum touches."""
    weight, constants, time, row, t_end = (jax.tree.map(np.asarray, part) for part in arguments)
    spikes, total = run_native(spec, 1, *arguments), 0
    for sample, neuron in np.ndindex(len(time), weight.shape[1]):
        c = NumPyConstants(constants, neuron)
        rate, arrive, reset = numpy_equations(model, c)
        order = np.argsort(time[sample])
        arrivals = [(time[sample, n], weight[row[sample, n], neuron]) for n in order]
        start = (c.v_rest, 0.0, 0.0)[: 3 if model is AdEx else 2]
        excess = lambda x, c=c: x[0] - c.v_spike  # noqa: E731
        train, closest = integrated_neuron.spikes(
            rate, excess, reset, arrive, start, arrivals, float(t_end)
        )
        if closest < 1e-9:  # rounding decides whether the neuron fires
            return 0
        assert spikes.count[sample, neuron] == len(train)
        times = np.asarray(spikes.time[sample, neuron])[: len(train)]
        np.testing.assert_allclose(times, train[: len(times)], rtol=0, atol=1e-10)
        total += len(train)
    return total


@pytest.mark.parametrize("model", MODELS)
def test_no_spike_is_missed(x64, model):
    assert sum(assert_as_expected(model, *case(model, seed, batch=1)) for seed in range(4)) > 20


@pytest.mark.slow
@pytest.mark.parametrize("model", [QIF, EIF])
def test_no_spike_of_a_thousand_trains_is_missed(x64, model):
    counts = [
        assert_as_expected(model, *case(model, seed, neurons=1, batch=1)) for seed in range(1000)
    ]
    assert sum(counts) > 2000


@pytest.mark.parametrize("distance", [0.5, 5.0, 50.0])
def test_a_sharp_upstroke_far_above_the_reset_is_not_missed(x64, distance):
    """Its first Taylor coefficients are below the smallest number while V is far away."""
    spec, (weight, constants, *others) = case(EIF, 1, batch=1)
    sharpness = constants.sharpness / 20
    constants = replace(
        constants,
        sharpness=sharpness,
        v_spike=constants.v_critical + 8 * sharpness,
        v_reset=constants.v_reset - distance,
    )
    weight = jnp.abs(weight) * (1 + distance)
    assert assert_as_expected(EIF, spec, (weight, constants, *others)) > 10


@pytest.mark.parametrize("model", MODELS)
def test_gradients_are_those_of_differences(x64, model):
    """By weights, all constants and the arrival times."""
    spec, arguments = case(model, 5, neurons=2)
    weight, constants, time, row, t_end = arguments
    factors = np.random.default_rng(1).normal(size=(len(time), 2, spec.max_spikes))
    late = jnp.where(jnp.isfinite(time), 0.0, jnp.inf)

    variables = weight, constants, jnp.where(jnp.isfinite(time), time, 0.0)

    def value(shares):
        """With all numbers larger by a share of themselves."""
        weight, constants, time = jax.tree.map(lambda x, y: x * (1 + y), variables, shares)
        spikes = run_native(spec, 1, weight, constants, time + late, row, t_end)
        return jnp.sum(finite_times(spikes.time) * factors), spikes.count

    nothing = jax.tree.map(jnp.zeros_like, variables)
    assert value(nothing)[1].sum() > 10
    errors = some_relative_errors(value, nothing, np.random.default_rng(0), per_leaf=4)
    assert len(errors) > 18
    assert errors.max() < 1e-5


@pytest.mark.parametrize("model", MODELS)
def test_results_do_not_depend_on_threads(x64, model):
    spec, (weight, constants, time, *others) = case(model, 1, neurons=20, batch=3)

    def total(weight, constants, time, threads):
        spikes = run_native(spec, threads, weight, constants, time, *others)
        return jnp.sum(finite_times(spikes.time)), spikes.count

    runs = [
        jax.value_and_grad(total, (0, 1, 2), has_aux=True)(weight, constants, time, threads)
        for threads in (1, 3)
    ]
    for array, expected in zip(*map(jax.tree.leaves, runs), strict=True):
        np.testing.assert_array_equal(array, expected)
    assert runs[0][0][1].sum() > 100


@pytest.mark.parametrize("model", MODELS)
def test_single_precision_is_close(x64, model):
    spec, arguments = case(model, 2, batch=4)

    def rounded(array):
        return array.astype("float32") if array.dtype == float else array

    single = jax.tree.map(rounded, arguments)
    as_double = jax.tree.map(
        lambda array: array.astype(float) if array.dtype == np.float32 else array, single
    )
    expected, spikes = run_native(spec, 1, *as_double), run_native(spec, 1, *single)
    np.testing.assert_array_equal(spikes.count, expected.count)
    np.testing.assert_allclose(spikes.time, expected.time, rtol=0, atol=1e-8)
    assert spikes.count.sum() > 20


class Linear(CurrentBased):
    """tau_mem v' = j - v."""

    def rate(self, constants, state):
        v, j = state
        return (j - v) / constants.tau_mem, -j / constants.tau_syn


def test_maxima_just_above_the_threshold_fire(x64):
    constants = dict.fromkeys((field.name for field in fields(ModelConstants)), 0.0)
    constants |= {"tau_mem": TAU_MEM, "tau_syn": TAU_SYN, "v_spike": THRESHOLD}
    shape = THRESHOLD.shape
    arrays = {name: jnp.broadcast_to(value, shape) for name, value in constants.items()}
    time, row = grazing_arrivals(0)
    weight = jnp.broadcast_to(WEIGHTS, (len(WEIGHTS), *shape))
    spec = LayerSpec(neuron=Linear(), max_spikes=3)
    spikes = run_native(spec, 1, weight, ModelConstants(**arrays), time, row, jnp.asarray(T_END))
    assert_grazed(spikes, time)


class Escaping(QIF):
    """V grows without bounds in finite time, before it could reach a threshold."""

    def excess(self, constants, state):
        return state[1] - constants.v_spike


def test_a_state_without_bounds_is_reported(x64):
    """As NaN, which ends a simulation as NOT_FINITE."""
    spec, arguments = case(QIF, 0)
    spikes = run_native(replace(spec, neuron=Escaping()), 1, *arguments)
    assert np.isnan(spikes.time).any(axis=-1).any()
    assert not np.isnan(run_native(spec, 1, *arguments).time).any()


@pytest.mark.parametrize("once", [False, True])
def test_a_threshold_below_the_start_fires_at_once(x64, once):
    spec, (weight, constants, *others) = case(EIF, 1, once=once)
    constants = replace(constants, v_spike=constants.v_rest - 0.1, v_reset=constants.v_rest - 0.5)
    spikes = run_native(spec, 1, weight, constants, *others)
    assert (spikes.time[:, :, 0] == 0).all()
    assert (spikes.count == 1).all() if once else (spikes.count > 1).all()


class Doubled(CurrentBased):
    """QIF whose first, third, ... spike puts V above the threshold, so that another follows at once."""

    def begin(self, constants):
        return (*super().begin(constants), jnp.zeros_like(constants.v_rest))

    def rate(self, constants, state):
        v_rate, j_rate = QIF().rate(constants, state[:2])
        return v_rate, j_rate, jnp.zeros_like(v_rate)

    def reset(self, constants, state):
        v, j, doubled = state
        rest, peak = constants.v_reset * v / constants.v_spike, v + constants.step * (1 + j**2)
        after = jnp.where(doubled > 0.5, rest, peak)
        return after, j + constants.step * doubled, 1 - doubled


def test_spikes_at_once_have_the_gradients_of_differences(x64):
    spec, (weight, constants, *others) = case(QIF, 5)
    spec = replace(spec, neuron=Doubled())
    factors = np.random.default_rng(1).normal(size=(2, 3, spec.max_spikes))

    def spikes_of(shares):
        changed = jax.tree.map(lambda x, y: x * (1 + y), (weight, constants), shares)
        return run_native(spec, 1, *changed, *others)

    def value(shares):
        spikes = spikes_of(shares)
        return jnp.sum(finite_times(spikes.time) * factors), spikes.count

    nothing = jax.tree.map(jnp.zeros_like, (weight, constants))
    spikes = spikes_of(nothing)
    np.testing.assert_array_equal(spikes.count % 2, 0)
    np.testing.assert_array_equal(spikes.time[:, :, ::2], spikes.time[:, :, 1::2])
    assert spikes.count.sum() > 20
    errors = some_relative_errors(value, nothing, np.random.default_rng(0), per_leaf=4)
    assert errors.max() < 1e-5


# -- operations of models


#: Functions of s, between 0 and 0.6, and of a constant c near 1.
OPERATIONS = (
    lambda s, c: jnp.exp(s) + jnp.exp2(-s) + jnp.expm1(s),
    lambda s, c: jnp.log(s + 0.5) - jnp.log1p(c * s),
    lambda s, c: jnp.sqrt(s + 0.1) * jnp.cbrt(s + c) - jax.lax.rsqrt(s + 1),
    lambda s, c: jnp.sin(2 * s) - jnp.cos(c - s) + jnp.tan(s),
    lambda s, c: jnp.sinh(s) / jnp.cosh(s + 1) - jnp.tanh(c * s),
    lambda s, c: jnp.arcsin(s) + c * jnp.arccos(s - 0.1) + jnp.arctan(3 * s),
    lambda s, c: jnp.arcsinh(s) + jnp.arccosh(s + 1.5) - jnp.arctanh(c * s),
    lambda s, c: jax.lax.erf(s) * jax.lax.erfc(s - c) + jax.nn.sigmoid(3 * s),
    lambda s, c: jnp.square(s) * s**3 + (s + c) ** -2 - 0.5 ** (s + c),
    lambda s, c: (s + 0.3) ** c + (s + 0.5) ** s + (s + 0.1) ** 2.5,
    lambda s, c: jnp.where(c > 0.9, c - s, 2 * s) / jnp.minimum(c, 1.0) + abs(c - 1),
)


class EveryOperation(CurrentBased):
    """V grows by all operations of a saturating function s of the current."""

    def rate(self, constants, state):
        c, (_, j) = constants, state
        s = 0.6 * j / (1 + j)
        drive = sum((1 + 0.1 * n) * f(s, c.v_critical) for n, f in enumerate(OPERATIONS))
        return drive / c.tau_mem, -j / c.tau_syn

    def reset(self, constants, state):
        return jnp.minimum(constants.v_reset, 0.1) + 0 * state[0], jnp.clip(state[1], 0.1, 2.0)


def operations_case(seed):
    spec, (weight, constants, *others) = case(QIF, seed)
    constants = replace(constants, v_spike=constants.v_spike / 2)
    return replace(spec, neuron=EveryOperation()), (jnp.abs(weight) / 3, constants, *others)


def test_all_operations_have_their_series(x64):
    spec, arguments = operations_case(0)
    weight, constants, time, row, t_end = (jax.tree.map(np.asarray, part) for part in arguments)
    spikes, neuron = run_native(spec, 1, *arguments), EveryOperation()
    rates, resets = jax.jit(neuron.rate), jax.jit(neuron.reset)
    for index in range(weight.shape[1]):
        c = jax.tree.map(lambda value, index=index: value[index], constants)
        order = np.argsort(time[0])
        train, _ = integrated_neuron.spikes(
            lambda x, c=c: np.array(rates(c, tuple(x))),
            lambda x, c=c: x[0] - c.v_spike,
            lambda x, c=c: np.array(resets(c, tuple(x))),
            lambda x, weight: (x[0], x[1] + weight),
            (c.v_rest, 0.0),
            [(time[0, n], weight[row[0, n], index]) for n in order],
            float(t_end),
        )
        assert len(train) > 5
        assert spikes.count[0, index] == len(train)
        np.testing.assert_allclose(spikes.time[0, index, : len(train)], train, rtol=0, atol=1e-10)


def test_gradients_of_all_operations_are_those_of_differences(x64):
    spec, (weight, constants, *others) = operations_case(1)
    factors = np.random.default_rng(1).normal(size=(2, 3, spec.max_spikes))

    def value(shares):
        changed = jax.tree.map(lambda x, y: x * (1 + y), (weight, constants), shares)
        spikes = run_native(spec, 1, *changed, *others)
        return jnp.sum(finite_times(spikes.time) * factors), spikes.count

    nothing = jax.tree.map(jnp.zeros_like, (weight, constants))
    errors = some_relative_errors(value, nothing, np.random.default_rng(0), per_leaf=4)
    assert errors.max() < 1e-5


# -- models that cannot be integrated


class Pushed(QIF):
    def arrive(self, state, weight):
        return state[0] + weight, state[1]


class Depleted(QIF):
    def arrive(self, state, weight):
        return state[0], 0.5 * state[1] + weight


class FoldedThreshold(QIF):
    def excess(self, constants, state):
        return jnp.abs(state[0]) - constants.v_spike


def changed(method, operation):
    """The QIF with an operation of V in a method."""

    def change(self, constants, state):
        v, *others = getattr(super(model, self), method)(constants, state)
        return operation(v), *others

    model = type("Changed", (QIF,), {method: change})
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Pushed, "Pushed move V"),
        (Depleted, "missing connections, change the state of its neuron model Depleted"),
        (FoldedThreshold, "FoldedThreshold: 'excess' contains the operation abs of the state"),
        *(
            (changed("rate", operation), f"Changed: 'rate' contains {reason}")
            for operation, reason in (
                (lambda v: jnp.minimum(v, 1e3), "the operation min of the state"),
                (lambda v: jnp.clip(v, 0, 1), "the operation max of the state"),
                (lambda v: jnp.where(v > 0, v, 0), "the operation gt of the state"),
                (lambda v: v * (v > 0), "the operation gt of the state"),
                (lambda v: v - jnp.sign(v), "the operation sign of the state"),
                (jax.nn.softplus, "the operation max of the state"),
            )
        ),
        *(
            (changed(method, operation), f"Changed: '{method}' contains {reason}")
            for method in ("rate", "reset")
            for operation, reason in (
                (jnp.sort, "the operation sort,"),
                (jnp.mean, "the operation reduce_sum,"),
                (lambda v: jnp.roll(v, 1), "the operation slice between"),
                (lambda v: v * jnp.asarray([1.0, 2.0, 3.0]), "an array of different numbers"),
                (jnp.floor, "the operation floor,"),
                (lambda v: v % 1.0, "the operation rem,"),
                (lambda v: v.astype(int).astype(v.dtype), "the operation convert_element_type of"),
                (lambda v: jax.lax.fori_loop(0, 3, lambda _, x: 2 * x, v), "the operation scan,"),
            )
        ),
    ],
)
def test_other_models_are_refused(model, reason):
    obstacles = list(map(str, integration_obstacles(model(), case(QIF, 0)[1][1], "float32")))
    assert len(obstacles) == 1
    assert reason in obstacles[0]


def test_second_derivatives_are_refused(x64):
    spec, (weight, *others) = case(QIF, 0)
    total = lambda weight: run_native(spec, 1, weight, *others).time[0, 0, 0]  # noqa: E731
    with pytest.raises(UsageError, match="QIF"):
        jax.jacfwd(jax.grad(total))(weight)


def test_a_flow_is_refused():
    constants = case(QIF, 0)[1][1]
    for run in (partial(QIF().decay, constants, 0.0), partial(QIF().flow, None, (0.0, 0.0))):
        with pytest.raises(LoweringError, match="QIF"):
            run()
