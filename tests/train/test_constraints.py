"""Constraints hold whatever the optimiser does, and a start outside them is refused."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn.errors import UsageError
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.network import with_synaptic_delays
from jaxsnn.train import Bounded, Free, Positive, fit
from jaxsnn.train.loop.constraints import find_trainables, to_raw, to_values
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
    found = trainables(wanted, network).constraints
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
        ({"weight": Free(shared=True)}, r"node '1': weight is to be shared, but runs from"),
        ({"7.weight": Free()}, r"no 7\.weight to train"),
        ({"tau_men": Free()}, r"'tau_men' cannot be trained: did you mean 'tau_mem'"),
        ({}, "no none to train"),
    ],
)
def test_what_makes_no_sense_is_refused(wanted, message):
    with pytest.raises(UsageError, match=message):
        trainables(wanted)


def test_delays_at_a_bound_begin_inside_and_it_is_said():
    network = with_synaptic_delays(lower(small_net()), "1", np.zeros((20, 5)))
    found = trainables(("weight", "delay"), network)
    assert found.notes == (
        "node '1': 100 of 100 numbers of delay begin a hundredth of their range inside it",
    )
    values = to_values(network, found.constraints, to_raw(network, found.constraints))
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
