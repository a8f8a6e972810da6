"""The literal equations on a grid: against closed forms, a fine Euler integration, and the event
engine.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import nir
import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate
from jaxsnn.errors import LoweringError
from jaxsnn.grid import exact
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import dense_to_events
from jaxsnn.nir import build, parse
from tests.helpers.refusals import assert_refused
from tests.oracles import membrane_euler, nir_paper_lif

DT = 1e-4


def one_neuron(neuron, **options):
    return build.sequential(build.input(1), build.linear(weight=np.ones((1, 1))), neuron, **options)


def with_populations(network, **changes):
    populations = {
        name: dataclasses.replace(old, **changes) for name, old in network.populations.items()
    }
    return Network(parameters=network.parameters, wires=network.wires, populations=populations)


@pytest.mark.parametrize(
    ("kernel", "steps"), [("box", nir_paper_lif.SPIKE_STEPS), ("delta", [450, 500, 710, 760])]
)
def test_lif_spikes_fall_in_the_steps_of_nirs_reference(kernel, steps, x64):
    neuron = build.lif(**nir_paper_lif.LIF)
    network = lower(one_neuron(neuron, dialect="nir", time_unit="s", dt=DT), dtype=float)
    network = with_populations(network, spike_kernel=kernel, spike_area=DT)
    x = np.zeros((nir_paper_lif.STEPS, 1, 1))
    x[nir_paper_lif.INPUT_STEPS] = 1
    y = simulate(network, x, engine=TimeStepped()).output()
    assert np.flatnonzero(np.asarray(y)).tolist() == steps


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("CubaLI", ("tau_syn", "tau_mem", "r", "v_leak", "w_in")),
        ("LI", ("tau", "r", "v_leak")),
        ("I", ("r",)),
    ],
)
def test_membranes_follow_the_equations(kind, parameters, x64):
    p = {"tau_syn": 2e-3, "tau_mem": 3e-3, "tau": 1.5e-3, "r": 2.0, "v_leak": 0.3, "w_in": 0.7}
    p = {name: p[name] for name in parameters}
    nodes = {
        "input": nir.Input(np.array([1])),
        "w": nir.Affine(np.array([[0.01]]), np.array([0.4])),
        "n": getattr(nir, kind)(**{name: np.array([value]) for name, value in p.items()}),
        "output": nir.Output(np.array([1])),
    }
    graph = nir.NIRGraph(nodes, list(itertools.pairwise(nodes)))
    network = lower(parse(graph, dialect="nir", time_unit="s", dt=DT), dtype=float)
    x = np.random.default_rng(0).poisson(0.5, size=(40, 1, 1))
    y = simulate(network, x, engine=TimeStepped()).output()[:, 0, 0]
    numbers = {"tau": 1.0} | p | {"area": 1.0}
    expected = membrane_euler.voltages(kind, numbers, 0.01 * x[:, 0, 0], 0.4, DT, fine=2000)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-6)


def test_unit_of_time_does_not_matter(x64):
    ones = np.ones(1)

    def play(unit, seconds):
        nodes = {
            "input": nir.Input(np.array([1])),
            "w": nir.Linear(np.array([[0.9]])),
            "a": nir.IF(r=np.array([0.5]), v_threshold=np.array([1.0])),
            "v": nir.Linear(np.array([[0.02 / seconds]])),
            "b": nir.LIF(tau=0.004 / seconds * ones, r=ones, v_leak=0 * ones, v_threshold=2 * ones),
            "output": nir.Output(np.array([1])),
        }
        graph = nir.NIRGraph(nodes, list(itertools.pairwise(nodes)))
        network = lower(parse(graph, dialect="nir", time_unit=unit), dtype=float)
        x = np.random.default_rng(1).poisson(0.7, size=(80, 3, 1))
        solution = simulate(network, x, engine=TimeStepped(dt=DT, record=("b",)))
        return np.asarray(solution.output()), np.asarray(solution.voltages["b"])

    (spikes, voltages), (same_spikes, same_voltages) = play("s", 1.0), play("ms", 1e-3)
    assert 0 < spikes.mean() < 1
    np.testing.assert_array_equal(spikes, same_spikes)
    np.testing.assert_allclose(voltages, same_voltages, rtol=1e-9)


def test_time_steps_converge_to_the_event_engine(x64):
    layers = [build.linear(20), build.cubalif(tau_mem="10ms", tau_syn="5ms", v_threshold=0.6)]
    layers += [build.linear(3), build.cubali(tau_mem="10ms", tau_syn="7ms")]
    network = lower(build.sequential(build.input(5), *layers, seed=3), dtype=float)
    coarse, duration = np.random.default_rng(0).random((20, 4, 5)) < 0.4, 0.04
    for dt, close in ((1e-3, 0.5), (1e-5, 0.02)):
        x = np.zeros((round(duration / dt), 4, 5))
        x[: len(x) // 2 : round(1e-3 / dt)] = coarse
        inputs, times = dense_to_events(x, dt), np.arange(len(x)) * dt
        events = simulate(network, inputs, duration, sample_times=times)
        grid = simulate(network, x, engine=TimeStepped(dt=dt, record=True))
        counts, first = np.asarray(events.spikes["2"].count), np.asarray(events.first_spike("2"))
        steps = np.asarray(grid.spikes["2"])
        both = (counts > 0) & (steps.sum(axis=0) > 0)
        late = (steps.argmax(axis=0) * dt - first)[both]
        assert both.sum() > 30
        assert late.min() > -1e-9  # a crossing counts at the end of its step
        difference = np.moveaxis(np.asarray(events.voltages["4"]), 1, 0) - grid.output()
        assert np.abs(difference).max() < close * np.abs(grid.output()).max()
    assert late.max() < 1.01 * dt
    np.testing.assert_array_equal(steps.sum(axis=0), counts)


def test_share_of_the_current_is_smooth_where_time_constants_meet(x64):
    mem, h = 0.3, 1e-5
    ratios = np.array([0.5, 1 - 1e-2, 1 - 1e-4, 1 - 1e-9, 1.0, 1 + 1e-9, 1 + 1e-4, 1.02, 2.0])
    syn, differ = jnp.asarray(mem * ratios), np.abs(ratios - 1) > 1e-5
    share = jax.vmap(exact.share, in_axes=(None, 0))
    shares = np.asarray(share(mem, syn))
    a, b = np.longdouble(mem), np.asarray(syn, np.longdouble)[differ]
    expected = (a * (np.exp(-b) - np.exp(-a)) / (a - b)).astype(float)
    np.testing.assert_allclose(shares[differ], expected, rtol=1e-11)
    np.testing.assert_allclose(shares[~differ], mem * np.exp(-mem), rtol=1e-8)
    slopes = jax.vmap(jax.grad(exact.share, argnums=(0, 1)), in_axes=(None, 0))
    by_mem, by_syn = slopes(mem, syn)
    numeric = (share(mem + h, syn) - share(mem - h, syn)) / (2 * h)
    np.testing.assert_allclose(by_mem, numeric, rtol=1e-6)
    numeric = (share(mem, syn + h) - share(mem, syn - h)) / (2 * h)
    np.testing.assert_allclose(by_syn, numeric, rtol=1e-6)


def test_a_delayed_reset_makes_no_sense_in_continuous_time():
    network = lower(one_neuron(build.lif(tau="10ms"), reset_delay=True))
    run = lambda: simulate(network, np.zeros((3, 1, 1)), engine=TimeStepped(dt=DT))  # noqa: E731
    says = """node '2' .* one time step after its spike, .* pass reset_delay={"2": False}"""
    assert_refused(run, LoweringError, says)
