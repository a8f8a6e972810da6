"""Native kernels for registered neuron models with linear equations: spikes against a search with
matrix exponentials, and gradients against finite differences.
"""

import re
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.dynamics import crossing
from jaxsnn.event.dynamics.linear_form import flow_matrix, flow_scale, linear_obstacles
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.native.native_layer import native_layer_spikes
from jaxsnn.network.structure import TauShape
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
from tests.oracles import linear_neuron

run_native: Any = native_layer_spikes
T_END, ROWS, ARRIVALS = 0.1, 4, 25


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ModelConstants:
    """Constants of all models of this file; each uses some of them."""

    threshold: Any
    v_reset: Any
    step: Any
    tau_mem: Any
    tau_syn: Any
    tau_slow: Any


class LinearModel(Neuron):
    """A neuron at rest at time 0, whose arrivals raise a current (the second variable)."""

    drops = False
    variables = 3

    def begin(self, constants):
        return (jnp.zeros_like(constants.threshold),) * self.variables

    def arrive(self, state, weight):
        return state[0], state[1] + weight, *state[2:]

    def excess(self, constants, state):
        return state[0] - constants.threshold


class AdaptiveThreshold(LinearModel):
    """x = (v, j, a), a raises the threshold and grows by `step` at a spike."""

    def decay(self, constants, t):
        em, es, k = crossing.decay(TauShape.ANY, constants.tau_mem, constants.tau_syn, t)
        return em, es, k, jnp.exp(-t / constants.tau_slow)

    def flow(self, decay, state):
        (em, es, k, ea), (v, j, a) = decay, state
        return v * em + j * k, j * es, a * ea

    def rate(self, constants, state):
        v, j, a = state
        return (j - v) / constants.tau_mem, -j / constants.tau_syn, -a / constants.tau_slow

    def excess(self, constants, state):
        return state[0] - state[2] - constants.threshold

    def reset(self, constants, state):
        v, j, a = state
        return jnp.zeros_like(v) + constants.v_reset, j, a + constants.step

    @staticmethod
    def equations(p):
        a = [[-1 / p["tau_mem"], 1 / p["tau_mem"], 0], [0, -1 / p["tau_syn"], 0]]
        a.append([0, 0, -1 / p["tau_slow"]])
        return a, [1, 0, -1], [p["v_reset"], 0, p["step"]], [0, 1, 0]


class TwoSynapses(LinearModel):
    """x = (v, j, k), two currents of different time constants, both raised by an arrival."""

    def decay(self, constants, t):
        fast = crossing.decay(TauShape.ANY, constants.tau_mem, constants.tau_syn, t)
        slow = crossing.decay(TauShape.ANY, constants.tau_mem, constants.tau_slow, t)
        return *fast, *slow[1:]

    def flow(self, decay, state):
        (em, es, k, e_slow, k_slow), (v, j, slow) = decay, state
        return v * em + j * k + slow * k_slow, j * es, slow * e_slow

    def rate(self, constants, state):
        v, j, slow = state
        v_rate = (j + slow - v) / constants.tau_mem
        return v_rate, -j / constants.tau_syn, -slow / constants.tau_slow

    def arrive(self, state, weight):
        return state[0], state[1] + weight, state[2] + 0.1 * weight

    def reset(self, constants, state):
        return jnp.zeros_like(state[0]) + constants.v_reset, state[1] - constants.step, state[2]

    @staticmethod
    def equations(p):
        m = 1 / p["tau_mem"]
        a = [[-m, m, m], [0, -1 / p["tau_syn"], 0], [0, 0, -1 / p["tau_slow"]]]
        return a, [1, 0, 0], [p["v_reset"], -p["step"], 0], [0, 1, 0.1]


class Resonator(LinearModel):
    """x = (v, j, w), (v + i w)' = (-1 / tau_mem + i / tau_slow) (v + i w) + j / tau_mem."""

    def decay(self, constants, t):
        m, s, frequency = 1 / constants.tau_mem, 1 / constants.tau_syn, 1 / constants.tau_slow
        em, es = jnp.exp(-m * t), jnp.exp(-s * t)
        real, imaginary = em * jnp.cos(frequency * t), em * jnp.sin(frequency * t)
        # (e^(l t) - e^(-s t)) / (l + s) with l = -m + i frequency
        size = (s - m) ** 2 + frequency**2
        by_v = m * ((real - es) * (s - m) + imaginary * frequency) / size
        by_w = m * (imaginary * (s - m) - (real - es) * frequency) / size
        return real, imaginary, by_v, by_w, es

    def flow(self, decay, state):
        (real, imaginary, by_v, by_w, es), (v, j, w) = decay, state
        return v * real - w * imaginary + j * by_v, j * es, v * imaginary + w * real + j * by_w

    def rate(self, constants, state):
        (v, j, w), m, frequency = state, 1 / constants.tau_mem, 1 / constants.tau_slow
        return m * (j - v) - frequency * w, -j / constants.tau_syn, frequency * v - m * w

    def reset(self, constants, state):
        return jnp.zeros_like(state[0]) + constants.v_reset, state[1], state[2] + constants.step

    @staticmethod
    def equations(p):
        m, f = 1 / p["tau_mem"], 1 / p["tau_slow"]
        a = [[-m, m, -f], [0, -1 / p["tau_syn"], 0], [f, 0, -m]]
        return a, [1, 0, 0], [p["v_reset"], 0, p["step"]], [0, 1, 0]


class PartialReset(TwoSynapses):
    """Spikes scale the currents."""

    def reset(self, constants, state):
        v, j, slow = state
        lost = constants.step * j
        return constants.v_reset + 0.1 * constants.step * v, j - lost, slow + 0.5 * lost


#: Model -> mean of its constant tau_slow, and of its weights.
MODELS = {AdaptiveThreshold: (0.03, 1.5), TwoSynapses: (0.04, 1.5), Resonator: (0.004, 6.0)}


def case(model, seed, *, uniform=False, neurons=3, batch=2, dtype=float, **spec):
    """A spec and its arguments (weight, constants, time, row, t_end), drawn at random."""
    rng, (tau_slow, strength) = np.random.default_rng(seed), MODELS[model]
    means = {"threshold": 1.0, "v_reset": -0.1, "step": 0.3, "tau_mem": 0.02, "tau_syn": 0.005}
    means["tau_slow"] = tau_slow
    spread = rng.uniform(0.7, 1.4, (len(means), 1 if uniform else neurons))
    constants = ModelConstants(
        **{
            name: jnp.asarray(np.broadcast_to(mean * factor, neurons), dtype)
            for (name, mean), factor in zip(means.items(), spread, strict=True)
        }
    )
    if seed % 3 == 0:
        constants = replace(constants, tau_syn=constants.tau_mem * (1, 1 + 1e-9)[seed % 2])
    weight = rng.normal(strength, strength, (ROWS, neurons))
    time = rng.uniform(0, 1.1 * T_END, (batch, ARRIVALS))
    time[rng.random(time.shape) < 0.1] = np.inf
    row = rng.integers(0, ROWS, time.shape)
    arguments = jnp.asarray(weight, dtype), constants, jnp.asarray(time, dtype), jnp.asarray(row)
    spec = LayerSpec(neuron=model(uniform=uniform), max_spikes=40, **spec)
    return spec, (*arguments, jnp.asarray(T_END, dtype))


def expected_spikes(spec, arguments):
    """Spikes of each sample and neuron by the oracle, and the smallest distance of a maximum."""
    weight, constants, time, row, t_end = (jax.tree.map(np.asarray, part) for part in arguments)
    trains, closest = [], np.inf
    for sample in range(len(time)):
        trains.append([])
        order = np.argsort(time[sample])
        for neuron in range(weight.shape[1]):
            p = {field.name: getattr(constants, field.name)[neuron] for field in fields(constants)}
            a, c, offset, e = (np.array(part, float) for part in spec.neuron.equations(p))
            arrivals = [(time[sample, n], weight[row[sample, n], neuron]) for n in order]
            start, reset = np.zeros(len(c)), np.diag([0.0, *np.ones(len(c) - 1)])
            train, gap = linear_neuron.spikes(
                a, c, p["threshold"], reset, offset, start, e, arrivals, float(t_end), limit=60
            )
            trains[-1].append(train)
            closest = min(closest, gap)
    return trains, closest


def assert_as_expected(model, seed, **options):
    """Compare the spikes of a random case; return their number, 0 if a maximum touches."""
    spec, arguments = case(model, seed, **options)
    assert not list(linear_obstacles(spec.neuron, arguments[1]))
    expected, closest = expected_spikes(spec, arguments)
    if closest < 1e-12:  # rounding decides whether the neuron fires
        return 0
    spikes = run_native(spec, 1, *arguments)
    for sample, trains in enumerate(expected):
        for neuron, train in enumerate(trains):
            assert spikes.count[sample, neuron] == len(train) or len(train) >= spec.max_spikes
            times = np.asarray(spikes.time[sample, neuron])[: len(train)]
            np.testing.assert_allclose(times, train[: len(times)], rtol=0, atol=1e-9)
    return sum(len(train) for trains in expected for train in trains)


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_no_spike_is_missed(x64, model, uniform):
    assert sum(assert_as_expected(model, seed, uniform=uniform) for seed in range(4)) > 60


@pytest.mark.parametrize("uniform", [False, True])
def test_maxima_just_above_the_threshold_fire(x64, uniform):
    shape, others = THRESHOLD.shape, {"v_reset": -0.1, "step": 0.3, "tau_slow": 0.03}
    constants = {"threshold": THRESHOLD, "tau_mem": TAU_MEM, "tau_syn": TAU_SYN, **others}
    arrays = {name: jnp.broadcast_to(value, shape) for name, value in constants.items()}
    time, row = grazing_arrivals(0)
    weight = jnp.broadcast_to(WEIGHTS, (len(WEIGHTS), *shape))
    spec = LayerSpec(neuron=AdaptiveThreshold(uniform=uniform), max_spikes=3)
    spikes = run_native(spec, 1, weight, ModelConstants(**arrays), time, row, jnp.asarray(T_END))
    assert_grazed(spikes, time)


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("model", [*MODELS, PartialReset])
def test_gradients_are_those_of_differences(x64, model, uniform):
    """By weights, all constants and the arrival times."""
    drawn = TwoSynapses if model is PartialReset else model
    spec, arguments = case(drawn, 4, uniform=uniform, neurons=2)
    spec = replace(spec, neuron=model(uniform=uniform))
    assert not list(linear_obstacles(spec.neuron, arguments[1]))
    weight, constants, time, row, t_end = arguments
    factors = np.random.default_rng(1).normal(size=(len(time), 2, spec.max_spikes))
    late = jnp.where(jnp.isfinite(time), 0.0, jnp.inf)

    def value(tree):
        weight, constants, time = tree
        spikes = run_native(spec, 1, weight, constants, time + late, row, t_end)
        return jnp.sum(finite_times(spikes.time) * factors), spikes.count

    tree = weight, constants, jnp.where(jnp.isfinite(time), time, 0.0)
    assert value(tree)[1].sum() > 10
    errors = some_relative_errors(value, tree, np.random.default_rng(0), per_leaf=4)
    assert len(errors) > 18
    assert errors.max() < 2e-5  # the precision of the differences


@pytest.mark.parametrize("model", MODELS)
def test_results_depend_neither_on_threads_nor_on_tiles(x64, model):
    """70 neurons with equal coefficients take the path of a shared flow; one that differs ends it."""
    spec, (weight, constants, *others) = case(model, 1, uniform=True, neurons=70)
    mixed = replace(constants, tau_mem=constants.tau_mem.at[-1].multiply(1.5))
    runs = [
        run_native(spec, threads, weight, numbers, *others)
        for threads, numbers in ((1, constants), (3, constants), (2, mixed))
    ]
    np.testing.assert_array_equal(runs[0].time, runs[1].time)
    np.testing.assert_array_equal(runs[0].count[:, :-1], runs[2].count[:, :-1])
    np.testing.assert_allclose(runs[0].time[:, :-1], runs[2].time[:, :-1], rtol=0, atol=1e-13)
    assert runs[0].count.sum() > 100


@pytest.mark.parametrize("model", MODELS)
def test_single_precision_is_close(x64, model):
    spec, arguments = case(model, 2, batch=8)
    rounded = jax.tree.map(
        lambda array: array.astype("float32") if array.dtype == float else array, arguments
    )
    expected = run_native(spec, 1, *jax.tree.map(_as_double, rounded))
    spikes = run_native(spec, 1, *rounded)
    np.testing.assert_array_equal(spikes.count, expected.count)
    np.testing.assert_allclose(spikes.time, expected.time, rtol=0, atol=3e-6)
    assert spikes.count.sum() > 40


def _as_double(array):
    return array.astype(float) if array.dtype == np.float32 else array


def test_long_intervals_and_stiff_equations(x64):
    """A fast synapse and a slow membrane: |A| t is 1e6 in the intervals."""
    spec, (weight, constants, time, row, t_end) = case(TwoSynapses, 5)
    constants = replace(constants, tau_syn=1e-6 * constants.tau_syn)
    arguments = weight * 3, constants, jnp.where(time < T_END / 2, time, jnp.inf), row, t_end
    expected, _ = expected_spikes(spec, arguments)
    # The oracle's grid is too coarse for the fast current, whose effect on V is tiny.
    count = run_native(spec, 1, *arguments).count
    np.testing.assert_array_equal(count, [[len(train) for train in sample] for sample in expected])


@pytest.mark.parametrize("once", [False, True])
def test_a_threshold_below_the_start_fires_at_once(x64, once):
    """At time 0, and again while the reset lies above the threshold."""
    spec, (weight, constants, *others) = case(AdaptiveThreshold, 1, once=once)
    constants = replace(constants, threshold=constants.threshold - 1.8, v_reset=constants.v_reset)
    spikes = run_native(spec, 1, weight, constants, *others)
    assert (spikes.time[:, :, 0] == 0).all()
    assert (spikes.count == 1).all() if once else (spikes.count > 1).all()


# -- models that are not linear


class Quadratic(AdaptiveThreshold):
    def rate(self, constants, state):
        v, j, a = state
        return (v * v + j) / constants.tau_mem, -j / constants.tau_syn, -a / constants.tau_slow


class Clipped(AdaptiveThreshold):
    def reset(self, constants, state):
        v, j, a = super().reset(constants, state)
        return v, j, jnp.minimum(a, 1.0)


class Saturating(AdaptiveThreshold):
    def arrive(self, state, weight):
        return state[0], state[1] + weight * (1 - state[1]), state[2]


class Halving(AdaptiveThreshold):
    def arrive(self, state, weight):
        return state[0], 0.5 * state[1] + weight, state[2]


class Pushed(AdaptiveThreshold):
    def arrive(self, state, weight):
        return state[0], state[1], state[2] - weight


class Mixing(AdaptiveThreshold):
    """The neurons act on each other."""

    def rate(self, constants, state):
        v, j, _ = state
        return (jnp.mean(j) - v) / constants.tau_mem, *super().rate(constants, state)[1:]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Quadratic, r"^rate of .* \(mul\)"),
        (Clipped, r"^reset of .* \(min\)"),
        (Saturating, "arrive of its neuron model"),
        (Halving, "more than add its weight"),
        (Pushed, "move V or its threshold"),
        (Mixing, r"^rate of .* \(reduce_sum\)"),
    ],
)
def test_other_models_are_left_to_xla(model, reason):
    constants = case(AdaptiveThreshold, 0)[1][1]
    obstacles = list(map(str, linear_obstacles(model(), constants)))
    assert len(obstacles) == 1
    assert re.search(reason, obstacles[0])


class Contradicting(AdaptiveThreshold):
    """`rate` is not the derivative of `flow`."""

    def rate(self, constants, state):
        v_rate, j_rate, a_rate = super().rate(constants, state)
        return v_rate, j_rate, 1.1 * a_rate


def test_a_model_whose_methods_contradict_each_other_gives_nan(x64):
    spec, arguments = case(AdaptiveThreshold, 1)
    spikes = run_native(replace(spec, neuron=Contradicting()), 1, *arguments)
    assert np.isnan(spikes.time).all()
    assert not np.isnan(run_native(spec, 1, *arguments).time).any()


def test_the_units_of_variables_do_not_matter(x64):
    """The scales of the variables make up for a current in other units."""

    class InPicoamperes(TwoSynapses):
        def arrive(self, state, weight):
            return super().arrive(state, 1e12 * weight)

        def rate(self, constants, state):
            v, j, slow = state
            return super().rate(constants, (v, 1e-12 * j, 1e-12 * slow))[0], *(
                1e12 * part for part in super().rate(constants, (v, 1e-12 * j, 1e-12 * slow))[1:]
            )

    constants = case(TwoSynapses, 1)[1][1]
    norms = [
        np.abs(flow_matrix(model(), constants, flow_scale(model(), constants))).sum(1).max()
        for model in (TwoSynapses, InPicoamperes)
    ]
    assert norms[1] < 4 * norms[0]
