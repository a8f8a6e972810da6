"""Budgets that are "auto" end: a neuron that fires for ever, or infinitely often at one time, is
named, with its rate and the cause.
"""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.bss2.emulate.emulated_chip import EmulatedChip
from jaxsnn.bss2.emulate.emulation import emulate
from jaxsnn.bss2.search.quantize import quantize
from jaxsnn.commands.run_command import run_file
from jaxsnn.event.event_record import Budget
from jaxsnn.network.network import Network
from jaxsnn.network.results import Result
from jaxsnn.nir import build
from jaxsnn.simulation.retry import (
    LARGEST_BUDGET,
    MOST_EVENTS,
    TooManySpikes,
    busiest,
    frequent_problem,
    with_enough_room,
)

AUTO = {"max_spikes": "auto", "max_events": "auto", "max_arrivals": "auto"}
#: Maximum number of runs; each one is compiled separately.
MOST_RUNS = 6


@pytest.fixture
def runs(monkeypatch):
    """The engines that ran, one after the other."""
    ran, run = [], EventDriven.run

    def noted(engine, *arguments):
        ran.append(engine)
        return run(engine, *arguments)

    monkeypatch.setattr(EventDriven, "run", noted)
    return ran


def graph_of(neuron, *, weight=1.0, back=None, size=1, **dialect):
    """One channel into neurons, of which `back` sends back to all of them without a delay."""
    nodes = {
        "in": build.input(1),
        "w": build.linear(weight=np.full((size, 1), weight)),
        "n": neuron,
        "out": build.output(size),
    }
    chains = [("in", "w", "n", "out")]
    if back is not None:
        nodes["back"] = build.linear(weight=np.full((size, size), back))
        chains.append(("n", "back", "n"))
    options = {"spike_kernel": "delta", "dialect": "nir", "time_unit": "s"} | dialect
    return build.network(nodes, chains, **options)


def one_event(samples=1, fires=0):
    """At 10 ms, in one of some samples."""
    time = np.full((samples, 1), np.inf)
    time[fires] = 0.01
    return Events(time=time, index=np.zeros((samples, 1), int))


def refused(network, inputs, t_end, *words, fix=""):
    """The message about a neuron that fires too often, with some words, and some of the advice."""
    with pytest.raises(TooManySpikes) as refusal:
        simulate(network, inputs, t_end, engine=EventDriven(**AUTO))
    message = refusal.value.problem.message
    assert [word for word in words if word not in message] == []
    assert refusal.value.problem.node == "n"
    assert fix in refusal.value.fix
    return message


def rate_in(message):
    return float(message.split("about ")[1].split(" spikes/s")[0])


def largest(engine, option):
    value = getattr(engine, option)
    return max(dict(value).values()) if isinstance(value, tuple) else value


def above(network, v_reset):
    """The network with v_reset at or above the threshold: `with_parameters` cannot check values that
    are traced, as in training.
    """
    size = network.populations["n"].size
    neurons = {**network.parameters["n"], "v_reset": np.full(size, v_reset, network.dtype)}
    parameters = {**network.parameters, "n": neurons}
    return Network(parameters=parameters, wires=network.wires, populations=network.populations)


@pytest.mark.parametrize(
    ("neuron", "v_reset"),
    [
        (build.lif(2, tau=0.02, v_threshold=1.0), 1.5),
        (build.integrate_and_fire(2, v_threshold=1.0), 1.5),
        (build.cubalif(2, tau_mem=0.02, tau_syn=0.01, v_threshold=1.0), 1.5),
        (build.cubalif(2, tau_mem=0.02, tau_syn=0.01, v_threshold=1.0), 1.0),
    ],
    ids=["LIF", "IF", "CubaLIF", "CubaLIF, equal"],
)
def test_a_reset_above_the_threshold_is_told_at_once(runs, neuron, v_reset):
    network = above(lower(graph_of(neuron, weight=9.0, size=2)), v_reset)
    words = (
        "neuron 0 of 'n' fires infinitely often in sample",
        f"v_threshold - v_reset is {1 - v_reset:g}",
    )
    refused(network, one_event(2, 1), 0.05, *words, fix="v_reset")
    assert len(runs) <= 2


@pytest.mark.parametrize(
    "neuron",
    [
        build.integrate_and_fire(3, v_threshold=1.0),
        build.lif(3, tau=0.02, v_threshold=1.0),
    ],
    ids=["IF", "LIF"],
)
def test_a_loop_without_a_delay_that_excites_itself_for_ever(runs, neuron):
    network = lower(graph_of(neuron, weight=2.0, back=2.0, size=3))
    words = (
        "of 'n' fires infinitely often in sample 1, at 10 ms",
        "its spikes excite it again without a delay",
    )
    refused(network, one_event(2, 1), 1.0, *words)
    assert len(runs) <= MOST_RUNS
    assert largest(runs[-1], "max_spikes") <= LARGEST_BUDGET


def driven(tau, weight=1.0):
    """A neuron that fires at a rate of 1 / (tau ln(10/9)) by itself."""
    return lower(graph_of(build.lif(1, tau=tau, v_threshold=1.0, v_leak=10.0), weight=weight))


@pytest.mark.slow
def test_a_high_rate():
    """A period of tau ln(10/9): 105 us for 1 ms, 9,491 spikes in 1 s."""
    silence = Events(time=np.array([np.inf]), index=np.array([0]))
    solution = simulate(driven(1e-3, 0.1), silence, 1.0, engine=EventDriven(**AUTO))
    assert abs(int(solution.counts["n"][0, 0]) - 1e3 / np.log(10 / 9)) < 3


@pytest.mark.slow
def test_a_high_rate_over_a_long_time(runs):
    """About 949,000 spikes."""
    words = "neuron 0 of 'n' fires at least", f"the limit is {LARGEST_BUDGET}"
    message = refused(driven(1e-3, 0.1), one_event(), 100.0, *words, fix="t_end")
    assert rate_in(message) == pytest.approx(1e3 / np.log(10 / 9), rel=0.01)
    assert len(runs) <= 4
    assert largest(runs[-1], "max_spikes") <= LARGEST_BUDGET // 16


@pytest.mark.slow
def test_a_tiny_time_constant(runs):
    message = refused(driven(1e-9), one_event(), 1.0)
    without_engine = simulate(driven(1e-9), one_event(), 1.0, throw=False)
    assert without_engine.result == Result.BUDGET_EXHAUSTED  # of the first run: no budget suffices
    assert rate_in(message) == pytest.approx(1e9 / np.log(10 / 9), rel=0.05)
    assert len(runs) <= 10


def test_without_an_engine_no_run_is_made_twice(runs):
    network = lower(graph_of(build.lif(1, tau=1e-2, v_leak=2.0)))
    assert simulate(network, one_event(), 0.5).counts["n"].max() > 16
    assert len(runs) == 2


def test_one_busy_neuron_among_many_takes_no_memory_unasked(monkeypatch):
    """Room is the same for all neurons of all samples: without an engine it is bounded, not with one."""
    monkeypatch.setattr("jaxsnn.simulation.simulate.MOST_SLOTS", 3 * 2 * 40)
    neurons = build.integrate_and_fire(2, v_threshold=np.array([1.0, 1e9]))
    graph = graph_of(neurons, size=2, weight=40.5, spike_kernel="box", dt=1e-3)
    network = lower(graph)
    with pytest.raises(TooManySpikes, match=r"'n' fires 40 spikes.* 45 for each of 6 ") as raised:
        simulate(network, one_event(3), 1.0)
    assert "max_spikes=45" in raised.value.fix
    assert simulate(network, one_event(2), 1.0).counts["n"].max() == 40
    with_engine = simulate(network, one_event(3), 1.0, engine=EventDriven(max_spikes="auto"))
    assert with_engine.counts["n"].max() == 40
    shown = simulate(network, one_event(3), 1.0, throw=False)
    assert shown.result == Result.BUDGET_EXHAUSTED


@pytest.mark.slow
def test_a_reset_by_subtraction_of_a_tiny_threshold(runs):
    """An overshoot of a million thresholds is a million spikes at one time."""
    neuron = build.integrate_and_fire(1, v_threshold=1e-6)
    network = lower(graph_of(neuron, reset="subtract"))
    refused(network, one_event(), 1.0, "infinitely often in sample 0, at 10 ms", "each reset")
    assert len(runs) <= 4


def test_many_spikes_at_one_time_that_end_are_no_fault():
    """V = 700 over a threshold of 1, of which each spike takes 1."""
    neuron = build.integrate_and_fire(1, v_threshold=1.0)
    network = lower(graph_of(neuron, weight=700.5, reset="subtract"))
    solution = simulate(network, one_event(), 1.0, engine=EventDriven(**AUTO))
    assert int(solution.counts["n"][0, 0]) == 700


@pytest.mark.slow
def test_a_refractory_time_makes_a_rate_finite():
    """V is at v_reset above the threshold whenever it is let go: a spike every 1 ms."""
    network = above(lower(graph_of(build.lif(1, tau=0.02), weight=9.0)), 1.5)
    engine = EventDriven(refractory=1e-3, **AUTO)
    assert 85 < int(simulate(network, one_event(), 0.1, engine=engine).counts["n"][0, 0]) < 95


@pytest.mark.slow
def test_a_loop_with_a_delay_takes_few_runs(runs):
    """Two thousand spikes one after the other, each of which brings the next; or 50,000."""
    nodes = {
        "in": build.input(1),
        "w": build.linear(weight=np.array([[2.0]])),
        "n": build.integrate_and_fire(1, v_threshold=1.0),
        "back": build.linear(weight=np.array([[2.0]])),
        "late": build.node("Delay", 1, delay=np.array([1e-3])),
        "out": build.output(1),
    }
    chains = [("in", "w", "n", "out"), ("n", "late", "back", "n")]
    options = {"spike_kernel": "delta", "dialect": "nir", "time_unit": "s"}
    network = lower(build.network(nodes, chains, **options))
    solution = simulate(network, one_event(), 2.0105, engine=EventDriven(**AUTO))
    assert abs(int(solution.counts["n"][0, 0]) - 2001) <= 1
    assert len(runs) <= 4
    refused(network, one_event(), 50.0, "neuron 0 of 'n' fires at least")
    assert largest(runs[-1], "max_events") <= LARGEST_BUDGET


class Endless:
    """A run whose budgets are never enough; an engine and its outcome."""

    result = Result.BUDGET_EXHAUSTED

    def __init__(self, option, room=16, runs=None):
        self.option, self.room, self.runs = option, room, [] if runs is None else runs
        self.runs.append(room)
        self.budgets = {option: {"n": Budget(needed=room + 1, room=room)}}

    def with_room(self, needed):
        return Endless(self.option, needed[self.option]["n"], self.runs)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["max_events", "max_arrivals"])
def test_no_budget_grows_for_ever(option):
    """Only that more is needed is known: rooms grow fast, and end."""
    engine = Endless(option)
    with pytest.raises(TooManySpikes, match=f"'n'.* the limit is {MOST_EVENTS}") as refusal:
        with_enough_room(engine, lambda engine: engine)
    # Commands have no flag for this option.
    advice = refusal.value.problem.as_text()
    assert f"or in Python pass EventDriven({option}=" in advice
    assert "--max" not in advice
    assert option in refusal.value.fix
    assert len(engine.runs) <= 12
    assert max(engine.runs) <= MOST_EVENTS


def test_the_command_names_the_neuron_too(tmp_path):
    graph = graph_of(build.integrate_and_fire(1, v_threshold=1.0), weight=2.0, back=2.0)
    np.savez(tmp_path / "x.npz", time=np.array([[0.01]]), index=np.array([[0]]))
    with pytest.raises(TooManySpikes, match="neuron 0 of 'n' fires infinitely often in sample 0"):
        run_file(graph, tmp_path / "x.npz", tmp_path / "y.npz", t_end=1.0)
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.slow
def test_emulation_names_the_neuron_too():
    neuron = build.cubalif(tau_mem="10ms", tau_syn="5ms", v_leak=5.0)
    weight = np.array([[9.0], [6.0]])
    graph = build.sequential(build.input(1), build.linear(weight=weight), neuron)
    events = Events(time=np.zeros((1, 1)), index=np.zeros((1, 1), int))
    with pytest.raises(TooManySpikes, match=r"neuron \d of '2' fires at least \d+ spikes"):
        emulate(quantize(graph), None, events, t_end=200.0, chip=EmulatedChip(ideal=True))


def test_a_rate_is_counted_on_to_the_end():
    """A neuron that was followed for 9 of its spikes, 1 ms apart, up to 10 ms of 100 ms."""
    times = np.append(np.arange(2, 11) * 1e-3, np.inf)
    outcome = SimpleNamespace(
        spikes={"n": SimpleNamespace(time=times[None, None], count=np.array([[12]]))}, t_end=0.1
    )
    busiest_neuron = busiest(outcome, "n")
    assert (busiest_neuron.count, busiest_neuron.recorded, busiest_neuron.by_the_end) == (
        12,
        9,
        9 + 90,
    )
    message = str(frequent_problem(busiest_neuron, 16))
    assert "neuron 0 of 'n' fires at least 12 spikes in sample 0, at about 1000 spikes/s" in message
    assert "until 10 ms, about 99 spikes until t_end = 100 ms; the limit is 16" in message
    assert "pass max_spikes=111 if this" in message
    alone = dataclasses.replace(busiest_neuron, rate=0.0, t_end=None)
    assert alone.by_the_end == 12
    message = str(frequent_problem(alone, 16))
    assert "fires at least 12 spikes in sample 0; the limit is 16" in message
    assert "max_spikes=13" in message
    # A larger budget than the engine supports is not offered as advice.
    message = str(frequent_problem(dataclasses.replace(busiest_neuron, rate=1e12), 16))
    assert "or pass an earlier t_end" in message
    assert "max_spikes" not in message
    assert busiest(SimpleNamespace(spikes={}), "n") is None
    outcome.spikes["n"].time[:] = np.inf
    assert busiest(outcome, "n") is None
