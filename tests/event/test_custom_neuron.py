"""A neuron model that NIR does not have, as docs/extending.md writes it, outside the package: LIF
whose threshold each spike raises, and which comes back.

    tau_syn I' = -I + w_in sum W S,  tau_mem V' = v_leak - V + r I,  tau_adaptation A' = -A,
    V > v_threshold + A: V = v_reset, A = A + step

It is registered with its node type, and then read, checked, simulated by both engines and trained,
with exact gradients, alone and in a cycle.
"""

from __future__ import annotations

from dataclasses import replace

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
from tests.event.differences import some_relative_errors
from tests.extending_page import made_by
from tests.helpers.random_spikes import random_events
from tests.oracles import adaptive_lif

T_END, STEP, BATCH, CHANNELS = 0.1, 1e-5, 2, 3


# ---- the model: the code of the page
MADE = made_by("A neuron model")
MODEL, TRAITS, AdaptiveLIF = (MADE[name] for name in ("MODEL", "TRAITS", "AdaptiveLIF"))
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


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The model and its node type, for the time of a test."""
    monkeypatch.setattr(neuron_models, "_REGISTERED", {})
    monkeypatch.setattr(nodes, "_REGISTERED", {}, raising=False)
    register_neuron(MODEL)
    register_node(TRAITS)


# ---- networks


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


def expected(events, parts, sample):
    """Spike times by the oracle, (neurons,) lists."""
    values, weight, bias, back = parts
    spikes = list(
        zip(np.asarray(events.time[sample]), np.asarray(events.index[sample]), strict=True)
    )
    return adaptive_lif.spikes(values, weight, spikes, bias, T_END, recurrent=back)


def times_of(solution, name="n"):
    return [
        [[t for t in neuron if np.isfinite(t)] for neuron in sample]
        for sample in np.asarray(solution.spikes[name].time).tolist()
    ]


# ---- what it does


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_it_fires_as_its_equations_say(x64, seed, recurrent):
    graph, events, parts = drawn(4, seed, recurrent)
    network = lower(graph, dtype=float)
    found = times_of(simulate(network, events, T_END, engine=EventDriven(max_spikes=40)))
    for sample in range(BATCH):
        wanted = expected(events, parts, sample)
        assert sum(map(len, wanted)) > 8
        assert [len(own) for own in found[sample]] == [len(own) for own in wanted]
        for ours, theirs in zip(found[sample], wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11)


#: tau_syn / tau_mem, equal and nearly so from both sides.
NEAR = (1.0, 1 + 1e-12, 1 - 1e-7, 1 + 1e-4)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("ratio", NEAR)
def test_it_fires_as_its_equations_say_at_equal_time_constants(x64, ratio, recurrent):
    graph, events, parts = drawn(3, 4, recurrent, ratio)
    network = lower(graph, dtype=float)
    found = times_of(simulate(network, events, T_END, engine=EventDriven(max_spikes=40)))
    wanted = [expected(events, parts, sample) for sample in range(BATCH)]
    assert sum(len(own) for sample in wanted for own in sample) > 8
    for ours, theirs in zip(found, wanted, strict=True):
        assert [len(own) for own in ours] == [len(own) for own in theirs]
        for own, of_theirs in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(own, of_theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("ratio", [1.0, 1 + 1e-7, 1 - 1e-4])
def test_gradients_by_equal_time_constants_are_those_of_differences(x64, ratio, recurrent):
    graph, events, _ = drawn(2, 4, recurrent, ratio)
    network = lower(graph, dtype=float)

    @jax.jit
    def total(own):
        parameters = {**network.parameters, "n": own}
        engine = EventDriven(max_spikes=40)
        solution = simulate(network.with_parameters(parameters), events, T_END, engine=engine)
        return solution.spike_sum("n", 0.05).sum()

    own = network.parameters["n"]
    gradient = jax.grad(total)(own)
    for name in VALUES:
        for neuron in range(2):
            step = 1e-6 * VALUES[name]
            shift = jnp.zeros(2).at[neuron].set(step)
            high, low = (total({**own, name: own[name] + sign * shift}) for sign in (1, -1))
            difference = (high - low) / (2 * step)
            scale = np.abs(difference) + 1e-3 / VALUES[name]
            assert abs(gradient[name][neuron] - difference) < 1e-5 * scale, name


def test_each_spike_raises_the_threshold(x64):
    """Under a constant input intervals grow, and without the step they do not."""
    graph, _, _ = drawn(1)
    network = lower(graph, dtype=float)
    own = network.parameters["n"]
    silent = Events(time=np.full((1, 1), np.inf), index=np.zeros((1, 1), int))
    bias = {"w": {**network.parameters["w"], "bias": jnp.asarray([2.0])}}

    def intervals(step):
        changed = {**network.parameters, **bias, "n": {**own, "step": jnp.asarray([step])}}
        solution = simulate(
            network.with_parameters(changed), silent, 0.3, engine=EventDriven(max_spikes=64)
        )
        return np.diff(times_of(solution)[0][0])

    assert (np.diff(intervals(0.2))[:3] > 0).all()
    assert np.ptp(intervals(0.0)[6:]) < 1e-9  # the current has come up
    assert intervals(0.2).mean() > 1.5 * intervals(0.0).mean()


def test_time_steps_come_to_the_same(x64):
    """Thresholds are tested once in a step, and each spike delays those behind it."""
    graph, events, _ = drawn(4)
    network = lower(graph, dtype=float)
    on_steps = Events(time=np.rint(np.asarray(events.time) / STEP) * STEP, index=events.index)
    exact = times_of(simulate(network, on_steps, T_END, engine=EventDriven(max_spikes=40)))
    stepped = simulate(network, on_steps, T_END, engine=TimeStepped(record=("n",)))
    found = stepped.events("n")
    for sample in range(BATCH):
        for neuron in range(4):
            ours = np.asarray(found.time[sample])[np.asarray(found.index[sample]) == neuron]
            np.testing.assert_allclose(ours, exact[sample][neuron], rtol=0, atol=20 * STEP)


# ---- a model that gives NaN


class _NoLimit(AdaptiveLIF):  # type: ignore[valid-type, misc]
    """The model by the formula that has no value at equal time constants."""

    def decay(self, lanes, t):
        em, es = jnp.exp(-t / lanes.tau_mem), jnp.exp(-t / lanes.tau_syn)
        k = lanes.tau_syn / (lanes.tau_mem - lanes.tau_syn) * (em - es)
        return em, es, k, jnp.exp(-t / lanes.tau_adaptation)


@pytest.fixture
def without_limit():
    kind = "NoLimit"
    register_node(replace(TRAITS, type=kind))
    model = NeuronModel(kind=kind, fires=True, dynamics=lambda own: _NoLimit(uniform=own.uniform))
    register_neuron(model)
    return kind


def chain_of(kind, recurrent, batch_of=3, tau_syn=None):
    """A population of a sound model, one of another kind with one neuron of equal time constants,
    and a sound one behind it.
    """
    sound = {**VALUES, "v_leak": 0.0}
    taus = np.full(batch_of, VALUES["tau_syn"])
    taus[1] = VALUES["tau_mem"]
    values = {**sound, "tau_syn": taus if tau_syn is None else tau_syn}
    nodes = {
        "in": build.input(CHANNELS),
        "w1": build.linear(weight=np.full((batch_of, CHANNELS), 0.02)),
        "first": build.node("AdaptiveLIF", batch_of, **sound),
        "w2": build.linear(weight=np.full((batch_of, batch_of), 0.02)),
        "broken": build.node(kind, batch_of, **values),
        "w3": build.linear(weight=np.full((batch_of, batch_of), 0.02)),
        "last": build.node("AdaptiveLIF", batch_of, **sound),
        "out": build.output(),
    }
    edges = [("in", "w1", "first", "w2", "broken", "w3", "last", "out")]
    if recurrent:
        nodes["back"] = build.linear(weight=np.full((batch_of, batch_of), 1e-3))
        edges.append(("broken", "back", "broken"))
    network = lower(build.network(nodes, edges, dialect="nir", time_unit="s"))
    return network, drawn(1)[1]


@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("recurrent", [False, True])
def test_a_model_that_gives_nan_is_no_silent_neuron(without_limit, recurrent, first_only):
    network, events = chain_of(without_limit, recurrent)
    engine = EventDriven(max_spikes=40, first_spike_only=first_only)
    with pytest.raises(SimulationError) as failed:
        simulate(network, events, T_END, engine=engine)
    assert (failed.value.problem.code, failed.value.node) == ("not-finite", "broken")
    assert without_limit in str(failed.value)
    solution = simulate(network, events, T_END, engine=engine, throw=False)
    assert solution.result == Result.NOT_FINITE
    broken = np.isnan(np.asarray(solution.spikes["broken"].time))
    assert broken[:, 1].all()
    assert not broken[:, [0, 2]].any() or recurrent  # they see the NaN's spikes, which are none
    assert not np.isnan(np.asarray(solution.spikes["first"].time)).any()


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_model_that_gives_nan_shows_in_jit_and_in_gradients(without_limit, recurrent):
    network, events = chain_of(without_limit, recurrent)

    @jax.jit
    def run(parameters):
        return simulate(network.with_parameters(parameters), events, T_END)

    def total(parameters):
        return run(parameters).spike_sum("broken", 0.05).sum()

    solution = run(network.parameters)
    assert solution.result == Result.NOT_FINITE
    assert solution.problem is not None
    assert solution.problem.code == "not-finite"
    gradient = jax.grad(total)(network.parameters)
    assert np.isnan(gradient["broken"]["v_threshold"]).all()
    sound, _ = chain_of(without_limit, recurrent, tau_syn=VALUES["tau_syn"])
    assert run(sound.parameters).result == Result.SUCCESS
    gradient = jax.grad(total)(sound.parameters)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient["broken"]["v_threshold"]).min() > 0


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_model_that_gives_nan_shows_in_gradients_outside_of_jit(without_limit, recurrent):
    network, events = chain_of(without_limit, recurrent)

    def total(parameters, throw):
        solution = simulate(network.with_parameters(parameters), events, T_END, throw=throw)
        return solution.spike_sum("broken", 0.05).sum()

    with pytest.raises(SimulationError, match="its neuron model gives NaN"):
        jax.grad(total)(network.parameters, True)
    gradient = jax.grad(total)(network.parameters, False)
    assert np.isnan(gradient["broken"]["v_threshold"]).all()


class _NoDistance(AdaptiveLIF):  # type: ignore[valid-type, misc]
    """The model with a distance from the threshold that has no value where V is negative."""

    def excess(self, lanes, state):
        return jnp.sqrt(super().excess(lanes, state) + lanes.threshold) - jnp.sqrt(lanes.threshold)


@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("recurrent", [False, True])
def test_a_distance_from_the_threshold_that_is_nan_is_detected(recurrent, first_only):
    register_node(replace(TRAITS, type="NoDistance"))
    register_neuron(
        NeuronModel(
            kind="NoDistance",
            fires=True,
            dynamics=lambda own: _NoDistance(uniform=own.uniform),
        )
    )
    network, events = chain_of("NoDistance", recurrent)
    parameters = network.parameters | {"w2": {"weight": jnp.full((3, 3), -0.02)}}
    engine = EventDriven(max_spikes=40, first_spike_only=first_only)
    with pytest.raises(SimulationError) as failed:
        simulate(network.with_parameters(parameters), events, T_END, engine=engine)
    assert failed.value.node == "broken"


# ---- gradients


@pytest.mark.slow
@pytest.mark.parametrize("recurrent", [pytest.param(False, marks=pytest.mark.slow), True])
def test_its_gradients_are_exact(x64, recurrent):
    """Against central differences, by every number of the network and the input times."""
    graph, events, _ = drawn(3, 1, recurrent)
    network = lower(graph, dtype=float)
    pull = np.random.default_rng(5).normal(size=(BATCH, 3, 40))

    variables = (network.parameters, jnp.asarray(events.time))

    def value(shares):
        """With all numbers larger by a share of themselves."""
        moved = jax.tree.map(lambda number, share: number * (1 + share), variables, shares)
        parameters, time = moved
        solution = simulate(
            network.with_parameters(parameters),
            Events(time=time, index=events.index),
            T_END,
            engine=EventDriven(max_spikes=40),
            throw=False,
        )
        spikes = solution.spikes["n"]
        fired = jnp.isfinite(spikes.time)
        return jnp.sum(jnp.where(fired, spikes.time * pull, 0.0)), spikes.count

    nothing = jax.tree.map(jnp.zeros_like, variables)
    gradient, counts = jax.jit(jax.grad(value, has_aux=True))(nothing)
    assert counts.sum() > 20
    # one after the other: each alone, not in a large batch
    errors = some_relative_errors(value, nothing, np.random.default_rng(0), per_leaf=60)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(nothing))
    assert len(errors) > 0.98 * numbers  # elsewhere a spike comes or goes within the step
    assert errors.max() < 2e-5
    parameters, time = gradient
    moving = sum(int(np.count_nonzero(slope)) for slope in jax.tree.leaves(parameters))
    assert moving > 35
    assert np.count_nonzero(time) > 20


# ---- the rooms around the engines


def test_it_is_written_and_read(tmp_path):
    graph, events, _ = drawn(4)
    write(tmp_path / "net.nir", graph)
    again = read(tmp_path / "net.nir")
    assert again.nodes["n"].type == "AdaptiveLIF"
    one, other = (simulate(net, events, T_END, throw=False) for net in (graph, again))
    np.testing.assert_array_equal(one.spikes["n"].time, other.spikes["n"].time)


@pytest.mark.parametrize("purpose", ["event", "grid"])
def test_it_is_checked(purpose):
    assert jaxsnn.check(drawn(4)[0], purpose).ok


@pytest.mark.slow
def test_it_is_trained():
    """Exact gradients lower a loss of its spike times."""
    graph, events, _ = drawn(4)
    network = lower(graph)

    def loss(weight):
        parameters = {**network.parameters, "w": {**network.parameters["w"], "weight": weight}}
        solution = simulate(network.with_parameters(parameters), events, T_END, throw=False)
        return jnp.mean((solution.first_spike("n") - 0.03) ** 2)

    weight = network.parameters["w"]["weight"]
    values = []
    for _ in range(8):
        value, gradient = jax.value_and_grad(loss)(weight)
        values.append(float(value))
        weight = weight - 3e-3 * gradient / jnp.linalg.norm(gradient)
    assert values[-1] < 0.7 * values[0]


@pytest.mark.slow
def test_fit_takes_it():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    x = np.where(np.arange(CHANNELS) == labels[:, None], 0.1, 0.7) + rng.uniform(0, 0.2, (60, 3))
    trained = fit(
        drawn(3)[0], (x, labels), epochs=12, batch_size=8, learning_rate=0.05, progress=None
    )
    assert trained.history[-1].train_accuracy > trained.history[0].train_accuracy
    assert trained.test_accuracy > 0.8


def test_fit_trains_its_numbers():
    rng = np.random.default_rng(0)
    data = rng.uniform(0.1, 0.9, (30, 3)), rng.integers(0, 3, 30)
    graph = drawn(3)[0]
    options = {"epochs": 1, "batch_size": 8, "learning_rate": 0.05, "progress": None}
    names = ("weight", "step", "tau_adaptation")
    found = dict(find_trainables(lower(graph), names, longest_delay=1.0)[0])
    assert dict(found["n"]) == {"step": Free(), "tau_adaptation": Positive()}
    trained = fit(graph, data, trainable=names, **options)
    assert np.isfinite(trained.history[1].train_loss)
    with pytest.raises(UsageError, match="'stepp' cannot be trained: did you mean 'step'"):
        fit(graph, data, trainable=("stepp",), **options)


def test_limits_are_those_of_the_type_of_each_node():
    """Also where two types have a number of one name."""
    steps = {"FloorLIF": {"least": 0.0}, "OddLIF": {"positive": True}, "WholeLIF": {"whole": True}}
    for kind, said in steps.items():
        changed = [replace(own, **said) if own.name == "step" else own for own in TRAITS.parameters]
        register_node(replace(TRAITS, type=kind, parameters=tuple(changed)))
        register_neuron(replace(MODEL, kind=kind))
    nodes = {"input": build.input(1)}
    for kind in ("AdaptiveLIF", *steps):
        nodes |= {f"w{kind}": build.linear(2), kind: build.node(kind, 2, **VALUES | {"step": 1.0})}
    network = lower(build.network(nodes, [tuple(nodes)], seed=0))
    found = dict(find_trainables(network, ("step",), longest_delay=1.0)[0])
    assert {kind: dict(own)["step"] for kind, own in found.items()} == {
        "AdaptiveLIF": Free(),
        "FloorLIF": Positive(low=0.0),
        "OddLIF": Positive(),
    }
    found = find_trainables(network, ("OddLIF.step",), longest_delay=1.0)[0]
    assert found == (("OddLIF", (("step", Positive()),)),)
    with pytest.raises(UsageError, match=r"'WholeLIF\.step' cannot be trained"):
        find_trainables(network, ("WholeLIF.step",), longest_delay=1.0)


@pytest.mark.parametrize("purpose", ["bss2", "snntorch", "norse"])
def test_who_does_not_know_it_says_so(purpose):
    report = jaxsnn.check(drawn(4)[0], purpose)
    assert not report.ok
    assert all("AdaptiveLIF" in problem.message for problem in report.problems[:1])


def test_a_model_that_says_nothing_assumes_nothing():
    """Not that all neurons flow alike, nor that arrivals move V, nor boxes."""
    neuron = Neuron()
    assert (neuron.uniform, neuron.certain, neuron.width) == (False, True, 0.0)
    assert (neuron.jumps, neuron.drops, neuron.level) == (False, True, None)
    assert (neuron.flow_fields, neuron.voltages, neuron.keeps_overshoot) == ((), (), False)


def test_a_model_without_dynamics_and_another_of_the_same_name_are_refused():
    with pytest.raises(UsageError, match="'Other' has no dynamics: give it a function"):
        register_neuron(NeuronModel(kind="Other", fires=True))
    for kind in ("LIF", "AdaptiveLIF"):
        other = NeuronModel(kind=kind, fires=True, dynamics=lambda population: AdaptiveLIF())
        with pytest.raises(
            UsageError, match=f"there already is a neuron model '{kind}' already: rename"
        ):
            register_neuron(other)
    register_neuron(MODEL)  # the same again
