"""The engine for one run: compiled once and quickly, with the results of `EventDriven`."""

from dataclasses import replace

import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.commands.run_command import run_file
from jaxsnn.event import run_once
from jaxsnn.event.run_once import RunOnce, first_room
from jaxsnn.nir import build
from jaxsnn.nir.initializers import normal
from tests.helpers.programs import compiled

T_END = 50e-3
RNG = np.random.default_rng(5)
INPUTS = Events(time=RNG.uniform(0.0, T_END, (3, 60)), index=RNG.integers(0, 8, (3, 60)))


@pytest.fixture(scope="module")
def graph():
    neurons = build.cubalif(tau_mem="10ms", tau_syn="5ms")
    layers = build.linear(12, weight=normal(0.8, 0.6)), neurons
    return build.sequential(
        build.input(8), *layers, build.linear(3, weight=normal(0.3, 0.1)), neurons, seed=2
    )


class Optimised(Exception):
    """What is optimised would be run."""


@pytest.fixture
def stopped(monkeypatch):
    """Nothing is compiled that is optimised."""

    class Stopped:
        trace = staticmethod(run_once.compiled_run.trace)

        def __call__(self, *arguments):
            raise Optimised

    monkeypatch.setattr(run_once, "compiled_run", Stopped())


def test_a_command_compiles_its_network_once(graph, tmp_path, native_kernels):
    np.savez(tmp_path / "x.npz", time=INPUTS.time, index=INPUTS.index)
    with compiled() as programs:
        outcome = run_file(graph, tmp_path / "x.npz", tmp_path / "y.npz", t_end=T_END)
    # More than the initial budget of `EventDriven`.
    assert 16 < max(outcome.spikes_needed.values()) < 128
    # Once per process, an empty program is compiled to find out which options the compiler knows.
    assert [name for name in programs if name != "jit(<lambda>)"] == ["jit(run_and_conclude)"]


def test_a_single_run_gives_the_spikes_of_the_engine(graph, stopped, auto_is_native):
    network = lower(graph)
    engine = RunOnce(max_spikes="auto").with_first_room(network, 3, T_END)
    solution = simulate(network, INPUTS, T_END, engine=engine)
    usual = simulate(network, INPUTS, T_END, engine=EventDriven(max_spikes=128))
    assert int(usual.spikes["2"].count.sum()) > 100
    for name, spikes in usual.spikes.items():
        slots = solution.spikes[name].time.shape[2]
        assert np.array_equal(solution.spikes[name].count, spikes.count)
        np.testing.assert_allclose(solution.spikes[name].time, spikes.time[..., :slots], rtol=1e-5)


def test_loops_of_xla_are_optimised(graph, stopped):
    with pytest.raises(Optimised):
        simulate(lower(graph), INPUTS, T_END, engine=RunOnce(backend="xla"))


def test_large_runs_are_optimised(graph, stopped, monkeypatch, native_kernels):
    monkeypatch.setattr(run_once, "_MANY", 1000)
    with pytest.raises(Optimised):
        simulate(lower(graph), INPUTS, T_END, engine=RunOnce())


def test_the_first_room_is_for_fast_neurons_and_small_batches(graph):
    network = lower(graph)
    assert first_room(network, "2", 3, T_END) == 64  # 8 in each 5 ms: 80
    assert first_room(network, "2", 3, 1e-3) == 16
    assert first_room(network, "2", 3, 10.0) == 1024
    assert first_room(network, "2", 2**19 // 12 // 32, T_END) == 32


def test_explicit_room_takes_precedence_over_the_first_room(graph):
    engine = RunOnce(max_spikes="auto", at_first=(("2", 64), ("4", 32)))
    assert [engine.of("max_spikes", name) for name in ("2", "4", "x")] == [64, 32, 16]
    grown = engine.with_room({"max_spikes": {"2": 100}})
    assert [grown.of("max_spikes", name) for name in ("2", "4")] == [100, 32]
    assert replace(engine, max_spikes=20).of("max_spikes", "2") == 20
    assert engine.of("max_events", "2") is None
