"""Constraints hold whatever the optimiser does, and a start outside them is refused."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn import EventDriven, Events, simulate
from jaxsnn.errors import ApproximationWarning, UsageError
from jaxsnn.network.lowering.lower import lower, update_graph
from jaxsnn.network.network import with_synaptic_delays
from jaxsnn.nir import build, read, write
from jaxsnn.nir.initializers import normal
from jaxsnn.nir.model.node import CONSTANT_KEY
from jaxsnn.train import (
    Bounded,
    FirstSpike,
    Free,
    Latency,
    Positive,
    WeightBumping,
    fit,
    unconstrain,
)
from jaxsnn.train.loop.constraints import as_constraints, find_trainables, to_raw, to_values
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import DATA, QUICK, small_net


def trainables(requested, network=None):
    return find_trainables(network or lower(small_net()), requested, longest_delay=0.01)


@settings(max_examples=50)
@given(
    raw=st.floats(-80, 80),
    constraint=st.sampled_from([Positive(low=-0.5), Bounded(low=-1.0, high=2.0)]),
)
def test_no_raw_number_leaves_the_limits(raw, constraint):
    value = float(constraint.to_value(jnp.asarray(raw), {}))
    assert value >= constraint.low
    assert value <= getattr(constraint, "high", np.inf)


def test_raw_numbers_give_the_values_that_they_stand_for():
    network = lower(small_net())
    rules = {
        "weight": Free(),
        "2.tau_mem": Positive(shared=True),
        "tau_syn": Bounded(low=0.001, high=0.05),
        "v_threshold": Positive(low="v_reset"),
    }
    constraints, _ = trainables(rules, network)
    raw = to_raw(network, constraints)
    assert raw["2"]["tau_mem"].shape == ()
    assert "tau_mem" not in raw["4"]
    for node, values in to_values(network, constraints, raw).items():
        for name, value in values.items():
            np.testing.assert_allclose(
                value, network.parameters[node][name], rtol=1e-6, err_msg=f"{node}.{name}"
            )


def test_constants_are_trained_only_by_name():
    """Constants are, for example, the zeros that a transposed convolution inserts."""
    network = lower(small_net())
    for requested in (("weight",), {"weight": Free()}):
        trained, _ = find_trainables(network, requested, longest_delay=0.01, constant_nodes=("1",))
        assert [node for node, _ in trained] == ["3"]
    named = find_trainables(network, ("1.weight",), longest_delay=0.01, constant_nodes=("1",))[0]
    assert [node for node, _ in named] == ["1"]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"tau_mem": Positive(low=0.03)},
            r"node '2': the initial value of tau_mem is 0\.02, outside its limits 0\.03 and inf",
        ),
        (
            {"tau_syn": Bounded(low=0.0, high=0.005)},
            r"the initial value of tau_syn is 0\.01, outside its limits 0 and 0\.005",
        ),
        (
            {"weight": Free(shared=True)},
            r"node '1': weight is shared, and its initial values range from",
        ),
        ({"7.weight": Free()}, r"the network has no parameter 7\.weight"),
        ({"tau_men": Free()}, r"'tau_men' cannot be trained: did you mean 'tau_mem'"),
        ({}, "trainable is empty"),
        (
            {"tau_mem": Positive(low="tau_sin")},
            "low of tau_mem is 'tau_sin': did you mean 'tau_syn'",
        ),
        (
            {"tau_mem": Bounded(low="v_reset", high=1.0)},
            "low of tau_mem is 'v_reset': pass a finite number",
        ),
        ({"weight": Bounded(low=0.0, high=np.inf)}, "node '1': high of weight is inf"),
        ({"weight": Positive(low=-np.inf)}, "node '1': low of weight is -inf"),
        (
            {"tau_mem": Bounded(low=0.02, high=0.02)},
            r"the limits of tau_mem are 0\.02 and 0\.02: pass low < high",
        ),
        ({"tau_mem": Positive(rate=-1.0)}, "the rate of tau_mem is -1"),
        (
            {"tau_mem": Positive(low="tau_syn"), "tau_syn": Positive(low="tau_mem")},
            "the initial value of tau_syn is 0.01, outside its limits 0.02 and inf",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(rules, message):
    assert_refused(lambda: trainables(rules), UsageError, message)


def test_delays_at_a_bound_begin_inside_and_it_is_noted():
    network = with_synaptic_delays(lower(small_net()), "1", np.zeros((20, 5)))
    trained, notes = trainables(("weight", "delay"), network)
    assert notes == (
        "node '1': initial values of delay that are moved away from a limit, to a hundredth of the range: 100 of 100",
    )
    values = to_values(network, trained, to_raw(network, trained))
    np.testing.assert_allclose(values["1"]["delay"], 1e-4, rtol=1e-4)


@pytest.mark.slow
def test_everything_trains_within_its_limits():
    trained = fit(
        small_net(),
        DATA,
        **QUICK,
        synaptic_delays={"1": 0.002},
        trainable={
            "weight": Free(),
            "delay": Bounded(low=0.0, high=0.01),
            "tau_mem": Positive(shared=True),
            "2.tau_syn": Bounded(low=0.009, high=0.011),
            "v_threshold": Positive(low="v_reset"),
        },
    )
    parameter_names = ("tau_mem", "tau_syn", "v_threshold")
    tau_mem, tau_syn, threshold = (
        np.asarray(trained.graph.nodes["2"].parameters[name]) for name in parameter_names
    )
    assert len(np.unique(tau_mem)) == 1
    assert abs(float(tau_mem.flat[0]) - 0.02) > 1e-5
    assert ((tau_syn > 0.009) & (tau_syn < 0.011)).all()
    assert len(np.unique(tau_syn)) > 1
    assert (threshold > 0).all()
    assert "1_delays" in trained.graph.nodes
    assert trained.history[-1].train_loss < trained.history[0].train_loss


def test_a_bound_that_is_trained_moves_along():
    network = lower(small_net())
    requested = {"tau_mem": Positive(low="tau_syn"), "tau_syn": Positive()}
    trained = trainables(requested, network)[0]
    raw = to_raw(network, trained)
    raw["2"]["tau_syn"] = raw["2"]["tau_syn"] + 3.0
    time_constants = to_values(network, trained, raw)["2"]
    np.testing.assert_allclose(time_constants["tau_syn"], 10e-3 * np.exp(3.0), rtol=1e-5)
    np.testing.assert_allclose(
        time_constants["tau_mem"], time_constants["tau_syn"] + 10e-3, rtol=1e-5
    )


@pytest.mark.parametrize("low", [".0199s", "19.9ms", "19900us"])
def test_a_bound_in_a_table_may_have_a_unit(low):
    constraint = as_constraints({"tau_mem": {"kind": "positive", "low": low}})["tau_mem"]
    assert constraint == Positive(low=pytest.approx(19.9e-3))


def test_a_bound_without_a_unit_is_refused():
    table = {"tau_mem": {"kind": "bounded", "low": "-1x", "high": 1.0}}
    assert_refused(lambda: as_constraints(table), UsageError)


@pytest.mark.parametrize("optimiser", ["adam", "sgd", "momentum"])
def test_a_rate_is_that_of_the_step(optimiser):
    settings = QUICK | {"epochs": 1, "batch_size": len(DATA.train), "optimiser": optimiser}
    settings |= {"weight_bumping": {"label": 0.0, "hidden": 0.0}}

    def moved(rate):
        trained = fit(small_net(), DATA, **settings, trainable={"1.weight": Free(rate=rate)}).graph
        before, after = (np.asarray(g.nodes["1"].weight, float) for g in (small_net(), trained))
        return np.linalg.norm(after - before)

    assert moved(0.1) == pytest.approx(0.1 * moved(1.0), rel=1e-3)


@pytest.mark.parametrize("options", [{"optimiser": "adamw"}, {"weight_decay": 0.1}])
def test_weights_with_limits_do_not_decay(options):
    settings = QUICK | {"trainable": {"1.weight": Positive(low=-100.0)}} | options
    message = "node '1': its weight has limits, and weight decay"
    assert_refused(lambda: fit(small_net(), DATA, **settings), UsageError, message)


SNNTORCH = {"dialect": "snntorch", "reset": "zero", "reset_delay": True}


@pytest.mark.parametrize(
    ("neurons", "gains"),
    [
        (build.lif(tau=2e-3, r=20.0), {"tau": "r"}),
        (
            build.cubalif(tau_mem=2e-3, tau_syn=1e-3, r=20.0, w_in=10.0),
            {"tau_mem": "r", "tau_syn": "w_in"},
        ),
    ],
    ids=["Leaky", "Synaptic"],
)
def test_what_a_framework_ties_to_a_time_constant_follows_it(neurons, gains, tmp_path):
    """beta of snnTorch is 1 - 1/r: trained by tau, which its file has beside r."""
    weights = build.linear(12, weight=normal(0.8, 0.4)), build.linear(3, weight=normal(0.5, 0.3))
    layers = weights[0], neurons, weights[1], neurons
    graph = build.sequential(build.input(5), *layers, seed=0, **SNNTORCH)
    settings = {**QUICK, "epochs": 2, "learning_rate": 0.05}
    options = {"engine": "grid", "loss": "count", "trainable": ("weight", *gains)}
    trained = fit(graph, DATA, **settings, **options).graph
    before, after = graph.nodes["2"], trained.nodes["2"]
    for tau, gain in gains.items():
        assert np.max(np.abs(after.value(tau) / before.value(tau) - 1)) > 1e-3
        np.testing.assert_allclose(after.value(tau) / after.value(gain), 1e-4, rtol=1e-5)
        assert np.min(after.value(tau)) > 1e-4
    write(tmp_path / "trained.nir", trained)
    read(tmp_path / "trained.nir", **SNNTORCH)
    assert_refused(
        lambda: fit(graph, DATA, **settings, trainable=("v_leak",)),
        UsageError,
        "the network has no parameter v_leak",
    )
    _, notes = trainables(("weight", "v_leak", "tau"), lower(graph))
    assert any(
        "v_leak is not trained, because the source framework does not use it" in n for n in notes
    )


@pytest.mark.parametrize("ratio", [20.0, 600.0, 3000.0])
def test_long_time_constants_of_spyx_can_be_written(ratio):
    """r = 1 - dt/tau has few digits of tau where tau is long: tau is what they tell."""
    dt, steps = 1e-3, jnp.array([0.1, -0.2, 0.3])
    layers = build.linear(3), build.lif(tau=ratio * dt, r=1 - 1 / ratio)
    settings = {"dialect": "spyx", "time_unit": "s", "dt": dt}
    graph = build.sequential(build.input(5), *layers, seed=0, **settings)
    network = lower(graph)
    constraints, _ = trainables({"tau": Positive(low=dt)}, network)
    raw = to_raw(network, constraints)
    raw["2"]["tau"] = raw["2"]["tau"] + steps
    values = to_values(network, constraints, raw)
    changed = {
        node: {**arrays, **values.get(node, {})} for node, arrays in network.parameters.items()
    }
    neurons = update_graph(graph, network.with_parameters(changed)).nodes["2"]
    np.testing.assert_allclose(neurons.value("tau") * (1 - neurons.value("r")), dt, rtol=1e-6)
    expected = dt + (ratio - 1) * dt * np.exp(steps)
    np.testing.assert_allclose(neurons.value("tau"), expected, rtol=1e-6 * ratio)


def test_names_that_nothing_has_are_noted():
    notes = trainables(("weight", "tau"))[1]
    assert notes == ("tau is not trained, because no node has it",)
    assert trainables(("weight", "bias"))[1] == ()


@dataclass(frozen=True)
class Beside:
    """A constraint of one's own, which only names another parameter."""

    low: str
    shared: bool = False
    rate: float = 1.0

    def to_raw(self, value, node_parameters):
        """The value itself."""
        return value

    def to_value(self, raw, node_parameters):
        """The value itself."""
        return raw


def test_constraints_of_ones_own_may_name_each_other():
    rules = {"v_leak": Beside("v_reset"), "tau_syn": Beside("tau_syn")}
    assert [name for name, _ in dict(trainables(rules)[0])["2"]] == ["v_leak", "tau_syn"]


# -- the same constraints in a loop of the user

TAUS = "tau_mem", "tau_syn"


def adam_step(raw, gradient, learning_rate):
    optimiser = optax.adam(learning_rate)
    updates, _ = optimiser.update(gradient, optimiser.init(raw), raw)
    return optax.apply_updates(raw, updates)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_step_of_adam_changes_time_constants_by_one_percent(sign):
    network = lower(small_net())
    raw, network_of = unconstrain(network, TAUS)
    assert jax.tree.structure(raw) == jax.tree.structure(
        {node: dict.fromkeys(TAUS, 0.0) for node in ("2", "4")}
    )
    for node, name in (("2", "tau_mem"), ("4", "tau_syn")):
        np.testing.assert_allclose(
            network_of(raw).parameters[node][name], network.parameters[node][name], rtol=1e-6
        )
    gradient = jax.tree.map(lambda number: -sign * 3.0 * jnp.ones_like(number), raw)
    changed = network_of(adam_step(raw, gradient, 0.01))
    for node in ("2", "4"):
        for name in TAUS:
            ratio = changed.parameters[node][name] / network.parameters[node][name]
            np.testing.assert_allclose(ratio, np.exp(sign * 0.01), rtol=1e-5)
    for node in ("1", "3"):  # not trained
        assert changed.parameters[node]["weight"] is network.parameters[node]["weight"]


def test_time_constants_stay_positive_after_many_large_steps():
    raw, network_of = unconstrain(small_net(), TAUS)
    for _ in range(20):
        raw = adam_step(raw, jax.tree.map(jnp.ones_like, raw), 1.0)
    for node in ("2", "4"):
        tau = network_of(raw).parameters[node]["tau_mem"]
        np.testing.assert_allclose(np.log(tau / 0.02), -20.0, rtol=1e-4)
        assert (tau > 0).all()


def test_time_constants_of_a_time_stepped_framework_stay_above_its_time_step():
    layers = build.affine(3), build.lif(tau=2e-3, r=20.0)
    graph = build.sequential(
        build.input(2), *layers, seed=0, dialect="snntorch", reset="subtract", reset_delay=True
    )
    network = lower(graph)
    raw, network_of = unconstrain(network, ("tau",))
    np.testing.assert_allclose(network_of(raw).parameters["2"]["tau"], 2e-3, rtol=1e-5)
    raw = jax.tree.map(lambda number: number - 30.0, raw)
    changed = network_of(raw).parameters["2"]
    np.testing.assert_allclose(changed["tau"], 1e-4, rtol=1e-5)
    # r = tau / dt follows, so that the file stays consistent
    np.testing.assert_allclose(changed["r"], changed["tau"] / 1e-4, rtol=1e-5)


def test_the_gradient_in_log_space_is_that_of_finite_differences():
    with jax.enable_x64(True):
        graph = build.sequential(
            build.input(3),
            build.linear(weight=np.array([[3.0, 2.0, 2.4]])),
            build.cubalif(tau_mem="20ms", tau_syn="10ms"),
        )
        network = lower(graph, dtype=np.float64)
        events = Events(time=jnp.array([[0.0, 2e-3, 5e-3]]), index=jnp.array([[0, 1, 2]]))
        raw, network_of = unconstrain(network, ("weight", *TAUS))

        def first_spike(network):
            return simulate(network, events, 40e-3, throw=False).first_spike("2")[0, 0]

        gradient = jax.grad(lambda raw: first_spike(network_of(raw)))(raw)
        direct = jax.grad(lambda values: first_spike(network.with_parameters(values)))(
            network.parameters
        )
        for name in TAUS:
            tau = network.parameters["2"][name]
            np.testing.assert_allclose(gradient["2"][name], tau * direct["2"][name], rtol=1e-9)
            shifted = [
                first_spike(network_of({**raw, "2": {**raw["2"], name: raw["2"][name] + step}}))
                for step in (1e-5, -1e-5)
            ]
            slope = (shifted[0] - shifted[1]) / 2e-5
            np.testing.assert_allclose(gradient["2"][name], [slope], rtol=1e-6)
        np.testing.assert_allclose(gradient["1"]["weight"], direct["1"]["weight"], rtol=1e-12)


def test_a_loop_of_the_user_trains_time_constants_as_fit_does():
    steps, rate, reports = 3, 0.02, []
    trained = fit(
        small_net(),
        DATA,
        epochs=steps,
        batch_size=len(DATA.train),
        learning_rate=rate,
        schedule="constant",
        trainable=TAUS,
        loss_options={"t_max": 0.065, "tau": 0.01},
        weight_bumping=WeightBumping(label=0.0, hidden=0.0),
        progress=None,
        callbacks=(reports.append,),
    )
    network = lower(small_net())
    settings = trained.settings
    loss = FirstSpike(**{name: value for name, value in settings["loss"].items() if name != "name"})
    engine = EventDriven(
        min_slope=settings["engine"]["min_slope"], first_spike_only=("4",), max_spikes=16
    )
    encoder = Latency(
        **{name: value for name, value in settings["encoder"].items() if name != "name"}
    )
    events = encoder(DATA.train.x)
    raw, network_of = unconstrain(network, TAUS)
    optimiser = optax.adam(rate)
    state = optimiser.init(raw)

    @jax.jit
    def step(raw, state):
        def objective(raw):
            solution = simulate(
                network_of(raw), events, settings["t_end"], engine=engine, throw=False
            )
            return loss(solution, jnp.asarray(DATA.train.y)).mean()

        value, gradient = jax.value_and_grad(objective)(raw)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(raw, updates), state, value

    for number in range(1, steps + 1):
        raw, state, value = step(raw, state)
        assert float(value) == pytest.approx(trained.history[number].train_loss, rel=1e-4)
    for node in ("2", "4"):
        for name in TAUS:
            tau = network_of(raw).parameters[node][name]
            np.testing.assert_allclose(tau, reports[-1].graph().nodes[node].value(name), rtol=1e-4)


def test_a_graph_without_constants_and_its_network_have_the_same_numbers():
    graph = small_net()
    constant = graph.nodes["3"].replace(metadata={CONSTANT_KEY: True})
    raw, _ = unconstrain(graph.with_nodes([constant]))
    assert list(raw) == ["1"]
    raw, network_of = unconstrain(lower(graph))
    assert list(raw) == ["1", "3"]
    for node in ("1", "3"):
        np.testing.assert_array_equal(
            network_of(raw).parameters[node]["weight"], np.float32(graph.nodes[node].weight)
        )


def test_what_a_loop_of_the_user_cannot_train_is_refused():
    network = with_synaptic_delays(lower(small_net()), "1", np.full((20, 5), 1e-3))
    for trainable, message in (
        (("weight", "delay"), "delay"),
        ({"weight": Free(rate=0.1)}, "0.1"),
        (("tau_men",), "did you mean 'tau_mem'"),
    ):
        assert_refused(lambda chosen=trainable: unconstrain(network, chosen), UsageError, message)
    raw, network_of = unconstrain(network, {"delay": Bounded(low=0.0, high=0.01)})
    np.testing.assert_allclose(network_of(raw).parameters["1"]["delay"], 1e-3, rtol=1e-5)


def test_what_a_loop_of_the_user_does_not_train_is_a_warning():
    with pytest.warns(ApproximationWarning, match="tau is not trained"):
        raw, _ = unconstrain(lower(small_net()), ("weight", "tau"))
    assert list(raw) == ["1", "3"]
    network = with_synaptic_delays(lower(small_net()), "1", np.zeros((20, 5)))
    with pytest.warns(ApproximationWarning, match="100 of 100"):
        unconstrain(network, {"delay": Bounded(low=0.0, high=0.01)})
