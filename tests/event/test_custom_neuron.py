"""A neuron model that NIR does not have, as docs/guide_neuron.md writes it, outside the package: LIF
whose threshold each spike raises, and which comes back.

    tau_syn I' = -I + w_in sum W S,  tau_mem V' = v_leak - V + r I,  tau_adaptation A' = -A,
    V > v_threshold + A: V = v_reset, A = A + step

It is registered with its node type, and then read, checked, simulated by both engines and trained,
with exact gradients, alone and in a cycle.
"""

import itertools
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsnn
from jaxsnn import EventDriven, Events, TimeStepped, lower, simulate
from jaxsnn.errors import SimulationError, UsageError
from jaxsnn.event.dynamics.neuron_model import Neuron
from jaxsnn.network import neuron_models
from jaxsnn.network.neuron_models import NeuronModel, register_neuron
from jaxsnn.network.results import Result
from jaxsnn.nir import build, read, register_node, write
from jaxsnn.nir.model import nodes
from jaxsnn.train import Free, Positive, fit
from jaxsnn.train.loop.constraints import find_trainables
from tests.event.agreement import finite_times, sorted_finite
from tests.event.differences import some_relative_errors
from tests.extending_page import defined_by
from tests.helpers.random_spikes import random_events
from tests.helpers.refusals import assert_refused
from tests.oracles import adaptive_lif

T_END, STEP, BATCH, CHANNELS = 0.1, 1e-5, 2, 3


PAGE = defined_by("A neuron model")
MODEL, TRAITS, AdaptiveLIF = (PAGE[name] for name in ("MODEL", "TRAITS", "AdaptiveLIF"))
VALUES = {
    "tau_mem": 0.02,
    "tau_syn": 0.005,
    "tau_adaptation": 0.06,
    "r": 1.0,
    "w_in": 1.0,
    "v_leak": 0.1,
    "v_threshold": 1.0,
    "v_reset": 0.05,
    "step": 0.4,
}
ENGINE = EventDriven(max_spikes=40)
in_a_cycle_or_not = pytest.mark.parametrize("recurrent", [False, True])


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The model and its node type, for the time of a test."""
    monkeypatch.setattr(neuron_models, "_REGISTERED", {})
    monkeypatch.setattr(nodes, "_REGISTERED", {}, raising=False)
    register_neuron(MODEL)
    register_node(TRAITS)


# -- networks


def drawn(size, seed=0, recurrent=False, ratio=None):
    """A graph of one population, its weights, and input spikes.

    Args:
        ratio: of tau_syn to tau_mem; None: drawn.
    """
    rng = np.random.default_rng(seed)
    values = {name: value * rng.uniform(0.85, 1.15, size) for name, value in VALUES.items()}
    if ratio is not None:
        values["tau_syn"] = ratio * values["tau_mem"]
    weight = rng.normal(0.012, 0.006, (size, CHANNELS))
    bias = rng.uniform(0.0, 0.8, size)
    back = rng.normal(0.0, 0.002, (size, size))
    neurons = build.node("AdaptiveLIF", **values)
    drive = build.affine(weight=weight, bias=bias)
    layers = {"in": build.input(CHANNELS), "w": drive, "n": neurons, "out": build.output()}
    edges = [("in", "w"), ("w", "n"), ("n", "out")]
    if recurrent:
        layers["back"] = build.linear(weight=back)
        edges += [("n", "back"), ("back", "n")]
    graph = build.network(
        layers, edges, dialect="nir", time_unit="s", spike_kernel="delta", dt=STEP
    )
    times, index = random_events(rng, (BATCH, 30), CHANNELS, 0.8 * T_END)
    events = Events(time=np.sort(times, axis=1), index=index)
    return graph, events, (values, weight, bias, back if recurrent else None)


def expected_times(events, parts):
    """Spike times by the oracle: of each sample the times of each neuron."""
    values, weight, bias, recurrent = parts
    trains = [
        list(zip(*arrays, strict=True)) for arrays in zip(events.time, events.index, strict=True)
    ]
    return [
        adaptive_lif.spikes(values, weight, train, bias, T_END, recurrent=recurrent)
        for train in trains
    ]


def times_of(solution):
    """Spike times of each sample and neuron."""
    return [[sorted_finite(neuron) for neuron in sample] for sample in solution.spikes["n"].time]


# -- dynamics


def near(ratio, recurrent):
    return pytest.param(3, 4, recurrent, ratio, id=f"ratio {ratio}-{recurrent}")


@pytest.mark.parametrize(
    ("size", "seed", "recurrent", "ratio"),
    [
        *((4, seed, recurrent, None) for seed in range(3) for recurrent in (False, True)),
        # tau_syn / tau_mem, equal and nearly so from both sides
        *(
            near(ratio, recurrent)
            for ratio in (1.0, 1 + 1e-12, 1 - 1e-7, 1 + 1e-4)
            for recurrent in (False, True)
        ),
    ],
)
def test_a_custom_neuron_fires_as_its_equations_say(x64, size, seed, recurrent, ratio):
    graph, events, parts = drawn(size, seed, recurrent, ratio)
    solution = simulate(lower(graph, dtype=float), events, T_END, engine=ENGINE)
    expected = expected_times(events, parts)
    counts = [sum(map(len, sample)) for sample in expected]
    assert (min(counts) if ratio is None else sum(counts)) > 8
    for sample, neuron in itertools.product(range(BATCH), range(size)):
        times = times_of(solution)[sample][neuron]
        np.testing.assert_allclose(times, expected[sample][neuron], rtol=0, atol=1e-11)


@in_a_cycle_or_not
@pytest.mark.parametrize("ratio", [1.0, 1 + 1e-7, 1 - 1e-4])
def test_gradients_by_equal_time_constants_are_those_of_differences(x64, ratio, recurrent):
    graph, events, _ = drawn(2, 4, recurrent, ratio)
    network = lower(graph, dtype=float)

    @jax.jit
    def total(values):
        changed = network.with_parameters({**network.parameters, "n": values})
        return simulate(changed, events, T_END, engine=ENGINE).spike_sum("n", 0.05).sum()

    values = network.parameters["n"]
    gradient = jax.grad(total)(values)
    for name, neuron in itertools.product(VALUES, range(2)):
        step = 1e-6 * VALUES[name]
        shift = jnp.zeros(2).at[neuron].set(step)
        high, low = (total({**values, name: values[name] + by}) for by in (shift, -shift))
        difference = (high - low) / (2 * step)
        scale = np.abs(difference) + 1e-3 / VALUES[name]
        assert abs(gradient[name][neuron] - difference) < 1e-5 * scale, name


def test_each_spike_raises_the_threshold(x64):
    """Under a constant input intervals grow, and without the step they do not."""
    network = lower(drawn(1)[0], dtype=float)
    silent = Events(time=np.full((1, 1), np.inf), index=np.zeros((1, 1), int))
    drive = {**network.parameters["w"], "bias": jnp.asarray([2.0])}

    def intervals(step):
        values = {**network.parameters["n"], "step": jnp.asarray([step])}
        changed = network.with_parameters({"w": drive, "n": values})
        solution = simulate(changed, silent, 0.3, engine=EventDriven(max_spikes=64))
        return np.diff(times_of(solution)[0][0])

    assert (np.diff(intervals(0.2))[:3] > 0).all()
    assert np.ptp(intervals(0.0)[6:]) < 1e-9  # the synaptic current is constant by then
    assert intervals(0.2).mean() > 1.5 * intervals(0.0).mean()


def test_time_steps_come_to_the_same(x64):
    """Thresholds are tested once in a step, and each spike delays those behind it."""
    graph, events, _ = drawn(4)
    network = lower(graph, dtype=float)
    on_steps = Events(time=np.rint(np.asarray(events.time) / STEP) * STEP, index=events.index)
    exact = times_of(simulate(network, on_steps, T_END, engine=ENGINE))
    stepped = simulate(network, on_steps, T_END, engine=TimeStepped(record=("n",))).events("n")
    for sample, neuron in itertools.product(range(BATCH), range(4)):
        times = np.asarray(stepped.time[sample])[np.asarray(stepped.index[sample]) == neuron]
        np.testing.assert_allclose(times, exact[sample][neuron], rtol=0, atol=20 * STEP)


# -- models that return NaN


class NoLimit(AdaptiveLIF):  # type: ignore[valid-type, misc]
    """The model by the formula that has no value at equal time constants."""

    def decay(self, lanes, t):
        em, es = jnp.exp(-t / lanes.tau_mem), jnp.exp(-t / lanes.tau_syn)
        k = lanes.tau_syn / (lanes.tau_mem - lanes.tau_syn) * (em - es)
        return em, es, k, jnp.exp(-t / lanes.tau_adaptation)


class NoDistance(AdaptiveLIF):  # type: ignore[valid-type, misc]
    """The model with a distance from the threshold that has no value where V is negative."""

    def excess(self, lanes, state):
        return jnp.sqrt(super().excess(lanes, state) + lanes.threshold) - jnp.sqrt(lanes.threshold)


@pytest.fixture(autouse=True)
def registered_nan_models(registered):
    for model in (NoLimit, NoDistance):
        kind = model.__name__
        register_node(replace(TRAITS, type=kind))
        dynamics = lambda population, model=model: model(uniform=population.uniform)  # noqa: E731
        register_neuron(NeuronModel(kind=kind, fires=True, dynamics=dynamics))


def chain_of(kind, recurrent, *, size=3, broken=True):
    """A population of a sound model, one of another kind with one neuron of equal time constants
    unless it is not broken, and a sound one behind it; and input events.
    """
    values, matrix = {**VALUES, "v_leak": 0.0}, build.linear(weight=np.full((size, size), 0.02))
    tau_syn = np.full(size, VALUES["tau_syn"])
    tau_syn[1] = VALUES["tau_mem"] if broken else VALUES["tau_syn"]
    nodes = {
        "in": build.input(CHANNELS),
        "w1": build.linear(weight=np.full((size, CHANNELS), 0.02)),
        "first": build.node("AdaptiveLIF", size, **values),
        "w2": matrix,
        "broken": build.node(kind, size, **values | {"tau_syn": tau_syn}),
        "w3": matrix,
        "last": build.node("AdaptiveLIF", size, **values),
        "out": build.output(),
    }
    edges = [("in", "w1", "first", "w2", "broken", "w3", "last", "out")]
    if recurrent:
        nodes["back"] = build.linear(weight=np.full((size, size), 1e-3))
        edges.append(("broken", "back", "broken"))
    network = lower(build.network(nodes, edges, dialect="nir", time_unit="s"))
    return network, drawn(1)[1]


@pytest.mark.parametrize("first_only", [False, True])
@in_a_cycle_or_not
def test_a_model_that_gives_nan_is_no_silent_neuron(recurrent, first_only):
    network, events = chain_of("NoLimit", recurrent)
    engine = EventDriven(max_spikes=40, first_spike_only=first_only)
    run = partial(simulate, network, events, T_END, engine=engine)
    assert_refused(run, SimulationError, "NoLimit", code="not-finite", node="broken")
    solution = run(throw=False)
    assert solution.result == Result.NOT_FINITE
    broken = np.isnan(np.asarray(solution.spikes["broken"].time))
    assert broken[:, 1].all()
    assert not broken[:, [0, 2]].any() or recurrent  # in a cycle they receive its spikes
    assert not np.isnan(np.asarray(solution.spikes["first"].time)).any()


@pytest.mark.parametrize("first_only", [False, True])
@in_a_cycle_or_not
def test_a_distance_from_the_threshold_that_is_nan_is_detected(recurrent, first_only):
    network, events = chain_of("NoDistance", recurrent)
    changed = network.with_parameters(
        network.parameters | {"w2": {"weight": jnp.full((3, 3), -0.02)}}
    )
    engine = EventDriven(max_spikes=40, first_spike_only=first_only)
    run = partial(simulate, changed, events, T_END, engine=engine)
    assert_refused(run, SimulationError, code="not-finite", node="broken")


@in_a_cycle_or_not
def test_a_model_that_gives_nan_shows_in_jit_and_in_gradients(recurrent):
    network, events = chain_of("NoLimit", recurrent)

    def run(parameters, **options):
        return simulate(network.with_parameters(parameters), events, T_END, **options)

    def gradient(run, parameters):
        total = lambda parameters: run(parameters).spike_sum("broken", 0.05).sum()  # noqa: E731
        return jax.grad(total)(parameters)

    compiled = jax.jit(run)
    solution = compiled(network.parameters)
    assert solution.result == Result.NOT_FINITE
    assert solution.problem.code == "not-finite"
    for runner in (compiled, partial(run, throw=False)):
        assert np.isnan(gradient(runner, network.parameters)["broken"]["v_threshold"]).all()
    refused = partial(gradient, run, network.parameters)
    assert_refused(refused, SimulationError, code="not-finite", node="broken")
    sound = chain_of("NoLimit", recurrent, broken=False)[0].parameters
    assert compiled(sound).result == Result.SUCCESS
    of_sound = gradient(compiled, sound)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(of_sound))
    assert np.abs(of_sound["broken"]["v_threshold"]).min() > 0


# -- gradients


@pytest.mark.slow
@in_a_cycle_or_not
def test_its_gradients_are_exact(x64, recurrent):
    """Against central differences, by every number of the network and the input times."""
    graph, events, _ = drawn(3, 1, recurrent)
    network = lower(graph, dtype=float)
    weights = np.random.default_rng(5).normal(size=(BATCH, 3, 40))
    variables = (network.parameters, jnp.asarray(events.time))

    def value(shares):
        """With all numbers larger by a share of themselves."""
        parameters, time = jax.tree.map(lambda x, share: x * (1 + share), variables, shares)
        changed, train = network.with_parameters(parameters), Events(time=time, index=events.index)
        spikes = simulate(changed, train, T_END, engine=ENGINE, throw=False).spikes["n"]
        return jnp.sum(finite_times(spikes.time) * weights), spikes.count

    nothing = jax.tree.map(jnp.zeros_like, variables)
    (by_parameters, by_time), counts = jax.jit(jax.grad(value, has_aux=True))(nothing)
    assert counts.sum() > 20
    # One entry after the other, not all in a large batch.
    errors = some_relative_errors(value, nothing, np.random.default_rng(0), per_leaf=60)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(nothing))
    assert len(errors) > 0.98 * numbers  # in other entries spikes appear or vanish
    assert errors.max() < 2e-5
    assert sum(np.count_nonzero(slope) for slope in jax.tree.leaves(by_parameters)) > 35
    assert np.count_nonzero(by_time) > 20


# -- files, checks and training


def test_a_custom_neuron_is_written_and_read(tmp_path):
    graph, events, _ = drawn(4)
    write(tmp_path / "net.nir", graph)
    restored = read(tmp_path / "net.nir")
    assert restored.nodes["n"].type == "AdaptiveLIF"
    times, expected = (
        simulate(net, events, T_END, throw=False).spikes["n"].time for net in (restored, graph)
    )
    np.testing.assert_array_equal(times, expected)


@pytest.mark.parametrize(
    ("purpose", "supported"),
    [("event", True), ("grid", True), ("bss2", False), ("snntorch", False), ("norse", False)],
)
def test_check_names_a_custom_neuron(purpose, supported):
    report = jaxsnn.check(drawn(4)[0], purpose)
    assert report.ok is supported
    assert all("AdaptiveLIF" in problem.message for problem in report.problems[: not supported])


@pytest.mark.usefixtures("native_kernels")
@in_a_cycle_or_not
def test_kernels_run_a_linear_model_outside_cycles(x64, recurrent):
    """With the same spikes as XLA. `check` names it in both cases."""
    graph, events, _ = drawn(4, 0, recurrent)
    (note,) = (
        problem for problem in jaxsnn.check(graph, "event").problems if problem.code == "by-xla"
    )
    assert ("linear" in note.message) is not recurrent
    run = partial(simulate, lower(graph, dtype=float), events, T_END)
    engines = [replace(ENGINE, backend=backend) for backend in ("native", "xla")]
    if recurrent:
        assert_refused(partial(run, engine=engines[0]), UsageError, "AdaptiveLIF")
        return
    native, xla = (run(engine=engine).spikes["n"] for engine in engines)
    np.testing.assert_array_equal(native.count, xla.count)
    np.testing.assert_allclose(native.time, xla.time, rtol=0, atol=1e-14)


@pytest.mark.usefixtures("native_kernels")
def test_kernels_refuse_a_refractory_period_of_a_registered_model():
    graph, events, _ = drawn(2)
    engine = replace(ENGINE, refractory=1e-3)
    run = partial(simulate, lower(graph), events, T_END)
    native = replace(engine, backend="native")
    assert_refused(partial(run, engine=native), UsageError, "refractory")
    assert run(engine=engine).count("n").sum() > 5


@pytest.mark.slow
def test_gradient_steps_lower_a_loss_of_its_spike_times():
    graph, events, _ = drawn(4)
    network = lower(graph)

    def loss(weight):
        parameters = {**network.parameters, "w": {**network.parameters["w"], "weight": weight}}
        solution = simulate(network.with_parameters(parameters), events, T_END, throw=False)
        return jnp.mean((solution.first_spike("n") - 0.03) ** 2)

    weight, values = network.parameters["w"]["weight"], []
    for _ in range(8):
        value, gradient = jax.value_and_grad(loss)(weight)
        values.append(float(value))
        weight = weight - 3e-3 * gradient / jnp.linalg.norm(gradient)
    assert values[-1] < 0.7 * values[0]


QUICK = {"batch_size": 8, "learning_rate": 0.05, "progress": None}


@pytest.mark.slow
def test_fit_trains_it():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    x = np.where(np.arange(CHANNELS) == labels[:, None], 0.1, 0.7) + rng.uniform(0, 0.2, (60, 3))
    trained = fit(drawn(3)[0], (x, labels), epochs=12, **QUICK)
    assert trained.history[-1].train_accuracy > trained.history[0].train_accuracy
    assert trained.test_accuracy > 0.8


def constraints_of(network, trainable):
    """Constraints of parameters by node and name."""
    constraints, _ = find_trainables(network, trainable, longest_delay=1.0)
    return {node: dict(parameters) for node, parameters in constraints}


def test_fit_trains_its_numbers():
    rng = np.random.default_rng(0)
    data = rng.uniform(0.1, 0.9, (30, 3)), rng.integers(0, 3, 30)
    graph, trainable = drawn(3)[0], ("weight", "step", "tau_adaptation")
    expected = {"step": Free(), "tau_adaptation": Positive()}
    assert constraints_of(lower(graph), trainable)["n"] == expected
    trained = fit(graph, data, trainable=trainable, epochs=1, **QUICK)
    assert np.isfinite(trained.history[1].train_loss)
    refused = partial(fit, graph, data, trainable=("stepp",), epochs=1, **QUICK)
    assert_refused(refused, UsageError, "'stepp'", fix="did you mean 'step'")


def test_limits_are_those_of_the_type_of_each_node():
    """Also where two types have a number of one name."""
    limits = {"FloorLIF": {"least": 0.0}, "OddLIF": {"positive": True}, "WholeLIF": {"whole": True}}
    for kind, limit in limits.items():
        changed = [
            replace(parameter, **limit) if parameter.name == "step" else parameter
            for parameter in TRAITS.parameters
        ]
        register_node(replace(TRAITS, type=kind, parameters=tuple(changed)))
        register_neuron(replace(MODEL, kind=kind))
    nodes = {"input": build.input(1)}
    for kind in ("AdaptiveLIF", *limits):
        nodes |= {f"w{kind}": build.linear(2), kind: build.node(kind, 2, **VALUES | {"step": 1.0})}
    network = lower(build.network(nodes, [tuple(nodes)], seed=0))
    assert constraints_of(network, ("step",)) == {
        "AdaptiveLIF": {"step": Free()},
        "FloorLIF": {"step": Positive(low=0.0)},
        "OddLIF": {"step": Positive()},
    }
    assert constraints_of(network, ("OddLIF.step",)) == {"OddLIF": {"step": Positive()}}
    refused = partial(constraints_of, network, ("WholeLIF.step",))
    assert_refused(refused, UsageError, r"'WholeLIF\.step'")


def test_a_neuron_model_assumes_nothing_by_default():
    """Not that all neurons have equal time constants, nor that arrivals move V, nor boxes."""
    neuron = Neuron()
    assert (neuron.uniform, neuron.certain, neuron.width) == (False, True, 0.0)
    assert (neuron.jumps, neuron.drops, neuron.level) == (False, True, None)
    assert (neuron.flow_fields, neuron.voltages, neuron.keeps_overshoot) == ((), (), False)


def test_a_model_without_dynamics_and_another_of_the_same_name_are_refused():
    no_dynamics = partial(register_neuron, NeuronModel(kind="Other", fires=True))
    assert_refused(no_dynamics, UsageError, "'Other'", fix="function")
    for kind in ("LIF", "AdaptiveLIF"):
        model = NeuronModel(kind=kind, fires=True, dynamics=lambda population: AdaptiveLIF())
        assert_refused(partial(register_neuron, model), UsageError, f"'{kind}'", fix="another name")
    register_neuron(MODEL)  # registering the same model again is allowed


class CoupledLIF(AdaptiveLIF):  # type: ignore[valid-type, misc]
    """V drives the third variable, a current: v' = (j - v - a) / tau_mem, tau_adaptation a' = 0.1 v - a.

    With x = (v, a): x' = M x + b j, so that x = exp(M t) (x0 - w j0) + w j with (M + 1/tau_syn) w = -b.
    """

    def matrix(self, constants):
        tm, ta = constants.tau_mem, constants.tau_adaptation
        return -1 / tm, -1 / tm, 0.1 / ta, -1 / ta

    def eigenvalues(self, constants):
        m11, m12, m21, m22 = self.matrix(constants)
        root = jnp.sqrt((m11 - m22) ** 2 + 4 * m12 * m21)
        return (m11 + m22 + root) / 2, (m11 + m22 - root) / 2

    def decay_rates(self, constants):
        first, second = self.eigenvalues(constants)
        return -first, -second, 1 / constants.tau_syn

    def decay(self, constants, t):
        m11, m12, m21, m22 = self.matrix(constants)
        first, second = self.eigenvalues(constants)
        e1, e2 = jnp.exp(first * t), jnp.exp(second * t)
        by_matrix = (e1 - e2) / (first - second)
        rest = (first * e2 - second * e1) / (first - second)
        vv, va, av, aa = m11 * by_matrix + rest, m12 * by_matrix, m21 * by_matrix, m22 * by_matrix
        aa = aa + rest
        s = 1 / constants.tau_syn
        determinant = (m11 + s) * (m22 + s) - m12 * m21
        wv = -(m22 + s) / determinant / constants.tau_mem
        wa = m21 / determinant / constants.tau_mem
        es = jnp.exp(-t * s)
        return vv, va, av, aa, wv * (es - vv) - va * wa, wa * (es - aa) - av * wv, es

    def flow(self, decay, state):
        vv, va, av, aa, vj, aj, es = decay
        v, j, a = state
        return vv * v + va * a + vj * j, j * es, av * v + aa * a + aj * j

    def rate(self, constants, state):
        v, j, a = state
        m11, m12, m21, m22 = self.matrix(constants)
        by_j = j / constants.tau_mem
        return m11 * v + m12 * a + by_j, -j / constants.tau_syn, m21 * v + m22 * a

    def excess(self, constants, state):
        return state[0] - constants.threshold


class FollowingLIF(CoupledLIF):
    """The threshold depends on the variable that V drives."""

    def excess(self, constants, state):
        return state[0] - state[2] - constants.threshold


class PushedLIF(CoupledLIF):
    """An arrival moves V."""

    jumps = True

    def arrive(self, state, weight):
        v, j, a = state
        return v + weight, j, a


def value_of(dynamics, recurrent):
    """Parameters of a network of another model, and a function of them."""
    neuron_models._REGISTERED.clear()
    jax.clear_caches()  # programs do not contain which model has been registered
    register_neuron(
        replace(MODEL, dynamics=lambda population: dynamics(uniform=population.uniform))
    )
    graph, events, _ = drawn(2, 1, recurrent)
    network = lower(graph, dtype=float)
    weights = np.random.default_rng(5).normal(size=(BATCH, 2, 40))

    def value(parameters, engine=ENGINE):
        changed = network.with_parameters(parameters)
        spikes = simulate(changed, events, T_END, engine=engine, throw=False).spikes["n"]
        return jnp.sum(finite_times(spikes.time) * weights), spikes.count

    return network.parameters, value


@pytest.mark.parametrize(
    ("model", "recurrent"), [(CoupledLIF, False), (CoupledLIF, True), (FollowingLIF, False)]
)
def test_gradients_of_a_variable_that_v_drives(x64, model, recurrent):
    """A reset of V changes the rate of that variable. The kernels also know V at a spike if the
    threshold depends on it.
    """
    start, value = value_of(model, recurrent)
    assert value(start)[1].sum() > 10
    errors = some_relative_errors(value, start, np.random.default_rng(0), per_leaf=2)
    assert len(errors) > 15
    assert errors.max() < 2e-5


@in_a_cycle_or_not
@pytest.mark.parametrize(
    ("model", "engine"),
    [
        (FollowingLIF, ENGINE),
        (PushedLIF, ENGINE),
        (CoupledLIF, replace(ENGINE, refractory=1e-3)),
    ],
)
def test_gradients_with_an_unknown_jump_of_v_are_refused(x64, model, engine, recurrent):
    """Spikes are simulated; only their gradients are refused."""
    start, value = value_of(model, recurrent)
    engine = replace(engine, backend="xla")
    assert value(start, engine)[1].sum() > 5
    with pytest.raises(UsageError, match=model.__name__):
        jax.grad(lambda parameters: value(parameters, engine)[0])(start)
