"""Constraints hold whatever the optimiser does, and a start outside them is refused."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn.errors import UsageError
from jaxsnn.network.lowering.lower import lower, update_graph
from jaxsnn.network.network import with_synaptic_delays
from jaxsnn.nir import build, read, write
from jaxsnn.nir.initializers import normal
from jaxsnn.train import Bounded, Free, Positive, fit
from jaxsnn.train.loop.constraints import as_constraints, find_trainables, to_raw, to_values
from tests.helpers.small_task import DATA, QUICK, small_net


def trainables(wanted, network=None):
    return find_trainables(network or lower(small_net()), wanted, longest_delay=0.01)


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
    wanted = {
        "weight": Free(),
        "2.tau_mem": Positive(shared=True),
        "tau_syn": Bounded(low=0.001, high=0.05),
        "v_threshold": Positive(low="v_reset"),
    }
    found = trainables(wanted, network)[0]
    raw = to_raw(network, found)
    assert raw["2"]["tau_mem"].shape == ()
    assert "tau_mem" not in raw["4"]
    for node, own in to_values(network, found, raw).items():
        for name, value in own.items():
            np.testing.assert_allclose(
                value, network.parameters[node][name], rtol=1e-6, err_msg=f"{node}.{name}"
            )


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"tau_mem": Positive(low=0.03)},
            r"node '2': tau_mem begins at 0\.02, its limits are 0\.03 and inf",
        ),
        (
            {"tau_syn": Bounded(low=0.0, high=0.005)},
            r"tau_syn begins at 0\.01, its limits are 0 and 0\.005",
        ),
        ({"weight": Free(shared=True)}, r"node '1': weight is shared, but its values range from"),
        ({"7.weight": Free()}, r"no 7\.weight to train"),
        ({"tau_men": Free()}, r"'tau_men' cannot be trained: did you mean 'tau_mem'"),
        ({}, "trainable names nothing"),
        (
            {"tau_mem": Positive(low="tau_sin")},
            "low of tau_mem is 'tau_sin': did you mean 'tau_syn'",
        ),
        (
            {"tau_mem": Bounded(low="v_reset", high=1.0)},
            "low of tau_mem is 'v_reset': give a finite number",
        ),
        ({"weight": Bounded(low=0.0, high=np.inf)}, "node '1': high of weight is inf"),
        ({"weight": Positive(low=-np.inf)}, "node '1': low of weight is -inf"),
        (
            {"tau_mem": Bounded(low=0.02, high=0.02)},
            r"the limits of tau_mem are 0\.02 and 0\.02: give a high above the low",
        ),
        ({"tau_mem": Positive(rate=-1.0)}, "the rate of tau_mem is -1"),
        (
            {"tau_mem": Positive(low="tau_syn"), "tau_syn": Positive(low="tau_mem")},
            "tau_syn begins at 0.01, its limits are 0.02 and inf",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(wanted, message):
    with pytest.raises(UsageError, match=message):
        trainables(wanted)


def test_delays_at_a_bound_begin_inside_and_it_is_said():
    network = with_synaptic_delays(lower(small_net()), "1", np.zeros((20, 5)))
    found, notes = trainables(("weight", "delay"), network)
    assert notes == (
        "node '1': 100 of 100 values of delay are moved inside their limits, by a hundredth of the range",
    )
    values = to_values(network, found, to_raw(network, found))
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
    hidden = trained.graph.nodes["2"]
    assert len(np.unique(hidden.parameters["tau_mem"])) == 1
    assert abs(float(np.asarray(hidden.parameters["tau_mem"]).flat[0]) - 0.02) > 1e-5
    tau_syn = np.asarray(hidden.parameters["tau_syn"])
    assert ((tau_syn > 0.009) & (tau_syn < 0.011)).all()
    assert len(np.unique(tau_syn)) > 1
    assert (np.asarray(hidden.parameters["v_threshold"]) > 0).all()
    assert "1_delays" in trained.graph.nodes
    assert trained.history[-1].train_loss < trained.history[0].train_loss


def test_a_bound_that_is_trained_moves_along():
    network = lower(small_net())
    wanted = {"tau_mem": Positive(low="tau_syn"), "tau_syn": Positive()}
    found = trainables(wanted, network)[0]
    raw = to_raw(network, found)
    raw["2"]["tau_syn"] = raw["2"]["tau_syn"] + 3.0
    own = to_values(network, found, raw)["2"]
    np.testing.assert_allclose(own["tau_syn"], 10e-3 * np.exp(3.0), rtol=1e-5)
    np.testing.assert_allclose(own["tau_mem"], own["tau_syn"] + 10e-3, rtol=1e-5)


@pytest.mark.parametrize("low", [".0199s", "19.9ms", "19900us"])
def test_a_bound_in_a_table_may_have_a_unit(low):
    found = as_constraints({"tau_mem": {"kind": "positive", "low": low}})
    assert found["tau_mem"] == Positive(low=pytest.approx(19.9e-3))
    with pytest.raises(UsageError):
        as_constraints({"tau_mem": {"kind": "bounded", "low": "-1x", "high": 1.0}})


@pytest.mark.parametrize("optimiser", ["adam", "sgd", "momentum"])
def test_a_rate_is_that_of_the_step(optimiser):
    def moved(rate):
        done = fit(
            small_net(),
            DATA,
            **{**QUICK, "epochs": 1, "batch_size": len(DATA.train)},
            optimiser=optimiser,
            weight_bumping={"label": 0.0, "hidden": 0.0},
            trainable={"1.weight": Free(rate=rate)},
        )
        before, after = (
            np.asarray(one.nodes["1"].weight, float) for one in (small_net(), done.graph)
        )
        return np.linalg.norm(after - before)

    assert moved(0.1) == pytest.approx(0.1 * moved(1.0), rel=1e-3)


@pytest.mark.parametrize("options", [{"optimiser": "adamw"}, {"weight_decay": 0.1}])
def test_weights_with_limits_do_not_decay(options):
    wanted = {"1.weight": Positive(low=-100.0)}
    with pytest.raises(UsageError, match="node '1': its weight has limits, and weight_decay"):
        fit(small_net(), DATA, **QUICK, trainable=wanted, **options)


@pytest.mark.parametrize("kind", ["Leaky", "Synaptic"])
def test_what_a_framework_ties_to_a_time_constant_follows_it(kind, tmp_path):
    """beta of snnTorch is 1 - 1/r: trained by tau, which its file has beside r."""
    if kind == "Leaky":
        neurons, taus = build.lif(tau=2e-3, r=20.0), ("tau",)
    else:
        neurons = build.cubalif(tau_mem=2e-3, tau_syn=1e-3, r=20.0, w_in=10.0)
        taus = ("tau_mem", "tau_syn")
    layers = [build.linear(12, weight=normal(0.8, 0.4)), neurons]
    layers += [build.linear(3, weight=normal(0.5, 0.3)), neurons]
    told = {"dialect": "snntorch", "reset": "zero", "reset_delay": True}
    graph = build.sequential(build.input(5), *layers, seed=0, **told)
    trainable = ("weight", *taus)
    kept = {**QUICK, "epochs": 2, "learning_rate": 0.05}
    done = fit(graph, DATA, **kept, engine="grid", loss="count", trainable=trainable)
    trained, before = done.graph.nodes["2"], graph.nodes["2"]
    pairs = zip(taus, ("r", "w_in"), strict=False)
    for tau, gain in pairs:
        assert np.max(np.abs(trained.value(tau) / before.value(tau) - 1)) > 1e-3
        np.testing.assert_allclose(trained.value(tau) / trained.value(gain), 1e-4, rtol=1e-5)
        assert np.min(trained.value(tau)) > 1e-4
    write(tmp_path / "made.nir", done.graph)
    read(tmp_path / "made.nir", dialect="snntorch", reset="zero", reset_delay=True)
    with pytest.raises(UsageError, match="the network has no v_leak to train"):
        fit(graph, DATA, **kept, trainable=("v_leak",))
    notes = find_trainables(lower(graph), ("weight", "v_leak", "tau"), longest_delay=1.0)[1]
    assert any(
        "v_leak is not trained: the framework of the file does not use it" in one for one in notes
    )


@pytest.mark.parametrize("ratio", [20.0, 600.0, 3000.0])
def test_long_time_constants_of_spyx_can_be_written(ratio):
    """r = 1 - dt/tau has few digits of tau where tau is long: tau is what they tell."""
    dt = 1e-3
    neurons = build.lif(tau=ratio * dt, r=1 - 1 / ratio)
    graph = build.sequential(
        build.input(5), build.linear(3), neurons, seed=0, dialect="spyx", time_unit="s", dt=dt
    )
    network = lower(graph)
    found = trainables({"tau": Positive(low=dt)}, network)[0]
    raw = to_raw(network, found)
    raw["2"]["tau"] = raw["2"]["tau"] + jnp.array([0.1, -0.2, 0.3])
    values = to_values(network, found, raw)
    changed = network.with_parameters(
        {node: {**own, **values.get(node, {})} for node, own in network.parameters.items()}
    )
    made = update_graph(graph, changed).nodes["2"]
    np.testing.assert_allclose(made.value("tau") * (1 - made.value("r")), dt, rtol=1e-6)
    wanted = dt + (ratio - 1) * dt * np.exp([0.1, -0.2, 0.3])
    np.testing.assert_allclose(made.value("tau"), wanted, rtol=1e-6 * ratio)


def test_names_that_nothing_has_are_noted():
    notes = trainables(("weight", "tau"))[1]
    assert notes == ("tau is not trained: no node has it",)
    assert trainables(("weight", "bias"))[1] == ()


@dataclass(frozen=True)
class Beside:
    """A constraint of one's own, which only names another parameter."""

    low: str
    shared: bool = False
    rate: float = 1.0

    def to_raw(self, value, own):
        """The value itself."""
        return value

    def to_value(self, raw, own):
        """The value itself."""
        return raw


def test_constraints_of_ones_own_may_name_each_other():
    wanted = {"v_leak": Beside("v_reset"), "tau_syn": Beside("tau_syn")}
    assert [name for name, _ in dict(trainables(wanted)[0])["2"]] == ["v_leak", "tau_syn"]
