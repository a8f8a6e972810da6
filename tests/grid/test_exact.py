"""The literal equations on a grid: against closed forms, a fine Euler integration, and the event
engine.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate
from jaxsnn.errors import LoweringError
from jaxsnn.grid import exact
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import dense_to_events
from jaxsnn.nir import build, parse
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


@pytest.mark.parametrize("kind", ["CubaLI", "LI", "I"])
def test_membranes_follow_the_equations(kind, x64):
    import nir

    rng = np.random.default_rng(0)
    p = {"tau_syn": 2e-3, "tau_mem": 3e-3, "tau": 1.5e-3, "r": 2.0, "v_leak": 0.3, "w_in": 0.7}
    names = {
        "CubaLI": ("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
        "LI": ("tau", "r", "v_leak"),
        "I": ("r",),
    }[kind]
    node = getattr(nir, kind)(**{name: np.array([p[name]]) for name in names})
    nodes = {
        "input": nir.Input(np.array([1])),
        "w": nir.Affine(np.array([[0.01]]), np.array([0.4])),
    }
    nodes |= {"n": node, "output": nir.Output(np.array([1]))}
    edges = [("input", "w"), ("w", "n"), ("n", "output")]
    graph = parse(nir.NIRGraph(nodes, edges), dialect="nir", time_unit="s", dt=DT)
    x = rng.poisson(0.5, size=(40, 1, 1))
    y = simulate(lower(graph, dtype=float), x, engine=TimeStepped()).output()[:, 0, 0]
    numbers = {name: p[name] for name in names} | {
        "area": 1.0,
        "tau": p["tau"] if kind == "LI" else 1.0,
    }
    expected = membrane_euler.voltages(kind, numbers, 0.01 * x[:, 0, 0], 0.4, DT, fine=2000)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-6)


def test_unit_of_time_does_not_matter(x64):
    import nir

    one = np.ones(1)

    def play(unit, seconds):
        nodes = {
            "input": nir.Input(np.array([1])),
            "w": nir.Linear(np.array([[0.9]])),
            "a": nir.IF(r=np.array([0.5]), v_threshold=np.array([1.0])),
            "v": nir.Linear(np.array([[0.02 / seconds]])),
            "b": nir.LIF(tau=0.004 / seconds * one, r=one, v_leak=0 * one, v_threshold=2 * one),
            "output": nir.Output(np.array([1])),
        }
        graph = nir.NIRGraph(
            nodes, list(itertools.pairwise(["input", "w", "a", "v", "b", "output"]))
        )
        network = lower(parse(graph, dialect="nir", time_unit=unit), dtype=float)
        x = np.random.default_rng(1).poisson(0.7, size=(80, 3, 1))
        solution = simulate(network, x, engine=TimeStepped(dt=DT, record=("b",)))
        return np.asarray(solution.output()), np.asarray(solution.voltages["b"])

    seconds, milliseconds = play("s", 1.0), play("ms", 1e-3)
    assert 0 < seconds[0].mean() < 1
    np.testing.assert_array_equal(*(spikes for spikes, _ in (seconds, milliseconds)))
    np.testing.assert_allclose(seconds[1], milliseconds[1], rtol=1e-9)


def test_it_converges_to_the_event_engine(x64):
    graph = build.sequential(
        build.input(5),
        build.linear(20),
        build.cubalif(tau_mem="10ms", tau_syn="5ms", v_threshold=0.6),
        build.linear(3),
        build.cubali(tau_mem="10ms", tau_syn="7ms"),
        seed=3,
    )
    network, coarse, duration = (
        lower(graph, dtype=float),
        np.random.default_rng(0).random((20, 4, 5)) < 0.4,
        0.04,
    )
    for dt, close in ((1e-3, 0.5), (1e-5, 0.02)):
        x = np.zeros((round(duration / dt), 4, 5))
        x[: len(x) // 2 : round(1e-3 / dt)] = coarse
        events = simulate(
            network, dense_to_events(x, dt), duration, sample_times=np.arange(len(x)) * dt
        )
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
    ratios = jnp.asarray([0.5, 1 - 1e-2, 1 - 1e-4, 1 - 1e-9, 1.0, 1 + 1e-9, 1 + 1e-4, 1.02, 2.0])
    mem = 0.3

    def direct(syn):
        high = np.longdouble(1)
        a, b = np.longdouble(mem), np.asarray(syn, np.longdouble)
        return high * a * (np.exp(-b) - np.exp(-a)) / (a - b)

    found = np.asarray(jax.vmap(lambda syn: exact.share(mem, syn))(mem * ratios))
    apart = np.abs(np.asarray(ratios) - 1) > 1e-5
    np.testing.assert_allclose(
        found[apart], direct(mem * np.asarray(ratios)[apart]).astype(float), rtol=1e-11
    )
    np.testing.assert_allclose(found[~apart], mem * np.exp(-mem), rtol=1e-8)
    for syn in mem * np.asarray(ratios):
        slope = jax.grad(exact.share, argnums=(0, 1))(mem, syn)
        h = 1e-5
        numeric = [
            (exact.share(mem + h, syn) - exact.share(mem - h, syn)) / (2 * h),
            (exact.share(mem, syn + h) - exact.share(mem, syn - h)) / (2 * h),
        ]
        np.testing.assert_allclose(slope, numeric, rtol=1e-6)


def test_a_delayed_reset_makes_no_sense_in_continuous_time():
    graph = one_neuron(build.lif(tau="10ms"), reset_delay=True)
    with pytest.raises(
        LoweringError, match=r"""node '2' .* one time step late, .* pass reset_delay={"2": False}"""
    ):
        simulate(lower(graph), np.zeros((3, 1, 1)), engine=TimeStepped(dt=DT))
