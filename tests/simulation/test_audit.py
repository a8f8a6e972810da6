"""The second opinion must be able to convict: spikes that are wrong, missing or made up are found."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.lowering.lower import lower
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from jaxsnn.simulation.audit import audit
from jaxsnn.simulation.simulate import simulate

T_END = 0.06


@pytest.fixture(params=[(0.02, 0.01), (0.01, 0.01), (0.013, 0.007)], ids=["double", "equal", "any"])
def played(request):
    tau_mem, tau_syn = request.param
    neurons = build.cubalif(tau_mem=tau_mem, tau_syn=tau_syn, v_leak=0.1, v_reset=-0.2)
    graph = build.sequential(
        build.input(4),
        build.affine(8, weight=normal(2.0, 1.0), bias=normal(0.0, 0.1)),
        neurons,
        build.linear(3, weight=normal(0.8, 0.5)),
        neurons,
        seed=1,
    )
    network = lower(graph)
    generator = np.random.default_rng(0)
    time = jnp.asarray(generator.uniform(0, 0.03, (5, 4)), network.dtype)
    events = Events(time=time, index=jnp.tile(jnp.arange(4), (5, 1)))
    return (
        network,
        {"input": events},
        simulate(network, events, T_END, engine=EventDriven(max_spikes=32)),
    )


def changed(solution, name, time):
    spikes = dataclasses.replace(solution.spikes[name], time=time)
    return dataclasses.replace(solution, spikes={**solution.spikes, name: spikes})


def test_a_right_solution_passes(played):
    report = audit(*played, T_END)
    for name, deviations in report.items():
        assert deviations.spikes == int(jnp.sum(played[2].spikes[name].count)) > 0
        assert deviations.at_spikes < 1e-4
        assert deviations.elsewhere < 1e-4


def test_a_late_spike_is_found(played):
    network, inputs, solution = played
    time = solution.spikes["4"].time
    report = audit(network, inputs, changed(solution, "4", time.at[0, 0, 0].add(1e-3)), T_END)
    assert report["4"].at_spikes > 1e-3


def test_a_missing_spike_is_found(played):
    network, inputs, solution = played
    time = solution.spikes["4"].time
    last = int(jnp.sum(jnp.isfinite(time[0, 0]))) - 1
    assert last >= 0
    report = audit(network, inputs, changed(solution, "4", time.at[0, 0, last].set(jnp.inf)), T_END)
    assert report["4"].elsewhere > 1e-3


def test_a_wrong_weight_is_found(played):
    network, inputs, solution = played
    parameters = {
        **network.parameters,
        "3": {"weight": network.parameters["3"]["weight"].at[0, 0].add(0.1)},
    }
    report = audit(network.with_parameters(parameters), inputs, solution, T_END)
    assert report["4"].at_spikes > 1e-3
