"""Events in pieces: the spikes of `simulate` and of the reference, the same bits for every way of
cutting them, and messages where they do not fit.
"""

import copy
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import threading

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn import (
    Currents,
    EventDriven,
    Events,
    GradedEvents,
    TimeStepped,
    lower,
    simulate,
    stream,
)
from jaxsnn.errors import FileError, LoweringError, SimulationError, UsageError
from jaxsnn.nir import build
from tests.fuzz import engine_runs, event_engine, random_networks
from tests.helpers.command_line import ROOT

pytestmark = pytest.mark.usefixtures("x64", "native_kernels")
TAU = 5e-3
T_END = 0.06


def network(ratio=2.0, last=None, v_reset=0.0):
    rng = np.random.default_rng(3)
    scale = min(ratio / 2, 1)  # what j does to V grows as tau_mem gets shorter
    neurons = {"tau_mem": ratio * TAU, "tau_syn": TAU}
    return lower(
        build.sequential(
            build.input(12),
            build.linear(weight=scale * rng.normal(0.3, 0.8, (9, 12))),
            build.cubalif(9, v_reset=v_reset, **neurons),
            build.linear(weight=scale * rng.normal(0.4, 0.8, (4, 9))),
            last or build.cubalif(4, **neurons),
        )
    )


def events(count=150):
    rng = np.random.default_rng(4)
    return Events(time=np.sort(rng.uniform(0, 0.05, count)), index=rng.integers(0, 12, count))


def pieces(session, given, edges, end):
    """All spikes of a stream that is given its events between edges, and run to each."""
    found = {}
    for low, high in zip([0, *edges], [*edges, np.inf], strict=True):
        own = (given.time >= low) & (given.time < high)
        piece = Events(time=given.time[own], index=given.index[own])
        for name, spikes in session.push(piece, until=min(high, end)).items():
            found.setdefault(name, []).append((spikes.time, spikes.index))
    return {
        name: tuple(np.concatenate(arrays) for arrays in zip(*own, strict=True))
        for name, own in found.items()
    }


@pytest.mark.parametrize("ratio", [2.0, 0.5, 1.0, 3.0])
def test_a_stream_fires_what_a_simulation_fires(ratio):
    net, given = network(ratio), events()
    whole = simulate(net, given, T_END, engine=EventDriven(max_spikes=300))
    session = stream(net, record=["2", "4"])
    found = session.push(given, until=T_END)
    for name, spikes in found.items():
        expected = np.sort(np.asarray(whole.spikes[name].time), axis=None)
        expected = expected[np.isfinite(expected)]
        assert len(expected) > 20
        np.testing.assert_allclose(spikes.time, expected, rtol=0, atol=1e-11 * TAU)
        assert (np.diff(spikes.time) >= 0).all()
    assert session.time == T_END


def test_one_event_may_make_many_spikes():
    """More than the arrays for few hold, of two populations that fire in turn."""
    neurons = {"tau_mem": 2 * TAU, "tau_syn": TAU}
    net = lower(
        build.sequential(
            build.input(1),
            build.linear(weight=np.linspace(5.0, 9.0, 150)[:, None]),
            build.cubalif(150, **neurons),
            build.linear(weight=np.full((3, 150), 0.1)),
            build.cubalif(3, **neurons),
        )
    )
    one = Events(time=np.array([0.001]), index=np.array([0]))
    whole = simulate(net, one, T_END, engine=EventDriven(max_spikes=300)).spikes
    found = stream(net, record=["2", "4"]).push(one, until=T_END)
    cut = pieces(stream(net, record=["2", "4"]), one, [0.002, 0.004], T_END)
    for name in ("2", "4"):
        count = np.isfinite(np.asarray(whole[name].time)[0]).sum(axis=-1)  # of each neuron
        assert count.min() > 0
        np.testing.assert_array_equal(np.bincount(found[name].index, minlength=len(count)), count)
        np.testing.assert_array_equal(cut[name][0], found[name].time)
        np.testing.assert_array_equal(cut[name][1], found[name].index)
        assert (np.diff(found[name].time) >= 0).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, T_END), max_size=12))
def test_pieces_of_any_size_give_the_same_bits(edges):
    net, given = network(1.7), events()
    whole = pieces(stream(net, record=["2", "4"]), given, [], T_END)
    cut = pieces(stream(net, record=["2", "4"]), given, sorted(edges), T_END)
    for name, (time, index) in whole.items():
        np.testing.assert_array_equal(cut[name][0], time)
        np.testing.assert_array_equal(cut[name][1], index)


def test_one_event_at_a_time_gives_the_same_bits():
    net, given = network(), events()
    whole = stream(net).push(given, until=T_END)["4"]
    session, found = stream(net), []
    for time, index in zip(given.time, given.index, strict=True):
        found.append(session.push(Events(time=[time], index=[index]))["4"])
        assert session.waiting < 60  # what is over is forgotten
    found.append(session.push(until=T_END)["4"])
    np.testing.assert_array_equal(np.concatenate([own.time for own in found]), whole.time)
    np.testing.assert_array_equal(np.concatenate([own.index for own in found]), whole.index)


def drawn_networks(structures):
    """Networks of all kinds, with delays, loops, boxes, convolutions, subtraction."""
    for group in structures:
        structure = random_networks.structure_of(group)
        kept = event_engine.drawn_of(structure, 10 * group, event_engine.Summary())
        if kept is not None:
            yield *kept, structure


@pytest.mark.parametrize(
    "structures", [(5, 13), pytest.param(range(20, 60), marks=pytest.mark.slow)]
)
def test_a_stream_fires_what_the_reference_fires(structures):
    spikes = 0
    for drawn, found, structure in drawn_networks(structures):
        net = lower(engine_runs.graph_of(drawn), dtype="float64")
        firing = [name for name, own in net.populations.items() if own.fires]
        for sample, wanted in enumerate(found):
            session = stream(net, engine_runs.engine_of(structure), record=firing)
            given = {
                name: Events(time=time[sample], index=drawn.channels[name][sample])
                for name, time in drawn.times.items()
            }
            here = session.push(given, until=drawn.t_end)
            for name in firing:
                for neuron, own in enumerate(wanted.spikes[name]):
                    times = here[name].time[here[name].index == neuron]
                    np.testing.assert_allclose(times, own, rtol=0, atol=1e-11)
                    spikes += len(own)
    assert spikes > 20 * len(structures)


def test_a_readout_has_the_voltage_of_a_simulation():
    net, given = network(last=build.cubali(4, tau_mem=2 * TAU, tau_syn=TAU)), events()
    times = np.array([0.013, 0.031, 0.059])
    whole = simulate(net, given, T_END, sample_times=times, engine=EventDriven(max_spikes=300))
    session, low = stream(net), 0.0
    for n, time in enumerate(times):
        own = (given.time >= low) & (given.time < time)
        assert session.push(Events(time=given.time[own], index=given.index[own]), time) == {}
        wanted = np.asarray(whole.voltages["4"])[0, n]
        np.testing.assert_allclose(session.voltage("4"), wanted, atol=1e-12)
        low = time


def test_events_have_values():
    net, given = network(), events()
    value = np.random.default_rng(5).uniform(0.2, 1.5, given.time.size)
    graded = GradedEvents(time=given.time, index=given.index, value=value)
    whole = simulate(net, graded, T_END, engine=EventDriven(max_spikes=300))
    expected = np.sort(np.asarray(whole.spikes["4"].time), axis=None)
    found = stream(net).push(graded, until=T_END)["4"].time
    np.testing.assert_allclose(found, expected[np.isfinite(expected)], rtol=0, atol=1e-11 * TAU)
    assert len(found) != len(stream(net).push(given, until=T_END)["4"].time)


def test_numbers_of_float32_are_taken_as_they_are():
    small = lower(
        build.sequential(
            build.input(1),
            build.linear(weight=[[9.1]]),
            build.cubalif(tau_mem=2 * TAU, tau_syn=TAU),
        ),
        dtype="float32",
    )
    found = stream(small).push(Events(time=[0.0], index=[0]), until=T_END)["2"].time
    weight = float(small.parameters["1"]["weight"][0, 0])
    taus = small.parameters["2"]
    ratio = float(taus["tau_mem"][0]) / float(taus["tau_syn"][0])
    assert ratio == pytest.approx(2)
    # with x = exp(-t / tau_mem): w (x - x^2) = threshold
    x = (1 + np.sqrt(1 - 4 / weight)) / 2
    assert found[0] == pytest.approx(-np.log(x) * float(taus["tau_mem"][0]), rel=1e-12)


def test_what_does_not_fit_is_refused_and_changes_nothing():
    session = stream(network())
    session.push(Events(time=[0.01], index=[0]))
    for piece, words in (
        (Events(time=[0.005], index=[0]), "1 of 1 events come before 0.01 s"),
        (Events(time=[0.02], index=[12]), "12 channels (0 to 11)"),
        (Events(time=[[0.02]], index=[[1]]), "a stream is one sample"),
        (Events(time=[np.nan], index=[1]), "an event at time nan"),
        (GradedEvents(time=[0.02], index=[1], value=[np.inf]), "not finite"),
        (Currents(time=jnp.zeros(1), value=jnp.zeros((1, 12))), "supports only events"),
        ([0.02], "is a list"),
        (Events(time=["20ms"], index=[1]), "time holds <U4: give numbers"),
        (Events(time=[0.02 + 0j], index=[1]), "time holds complex128"),
        (Events(time=[0.02], index=[1.5]), "channel 1.5"),
        (Events(time=[0.02], index=[-1]), "12 channels (0 to 11)"),
        (Events(time=[0.02], index=np.array([2**63], np.uint64)), "12 channels (0 to 11)"),
        ({"input": None, "other": None}, "no input 'other'"),
    ):
        with pytest.raises(UsageError) as caught:
            session.push(piece)
        assert words in str(caught.value)
    with pytest.raises(UsageError, match=r"until is 0.001 s, and the stream is at 0.01 s"):
        session.push(until=1e-3)
    with pytest.raises(UsageError, match=r"until is 0.001 s, and the stream is at 0.01 s"):
        session.push(Events(time=[0.02], index=[1]), until=1e-3)
    with pytest.raises(UsageError, match=r"until is inf s, and the stream is at 0.01 s"):
        session.push(Events(time=[0.02], index=[1]), until=np.inf)
    with pytest.raises(UsageError, match=r"until is '1ms' s, and the stream is at 0.01 s"):
        session.push(until="1ms")
    assert (session.time, session.waiting) == (0.01, 1)
    with pytest.raises(UsageError, match="did you mean '4'"):
        session.voltage("44")


@pytest.mark.parametrize(
    ("tau_syn", "weight", "wanted"),
    [
        # the closed form of V, bisected in double precision
        (1.0, -1.0, 2.7844227437438063),
        (1.0, -5.0, 4.715133502351886),
        (0.5, -1.0, 2.1312766112786266),
        (0.5, -5.0, 3.3274066029957146),
        (0.3, -5.0, 2.704037568584593),
    ],
)
def test_a_neuron_above_its_threshold_that_is_pulled_down_comes_back(tau_syn, weight, wanted):
    neuron = build.cubalif(1, tau_mem=1.0, tau_syn=tau_syn, v_leak=1.3, v_reset=-1.0)
    net = lower(build.sequential(build.input(1), build.linear(weight=[[weight]]), neuron))
    event = Events(time=np.array([0.4]), index=np.array([0]))
    found = stream(net, record=["2"]).push(event, until=6.0)["2"].time
    assert found[0] == pytest.approx(wanted, abs=1e-12)
    whole = simulate(net, event, 6.0, engine=EventDriven(max_spikes=16, backend="native"))
    np.testing.assert_allclose(found, whole.spikes["2"].time[0, 0][: len(found)], rtol=1e-12)


@pytest.mark.parametrize("options", [{}, {"refractory": 0.25}, {"first_spike_only": True}])
@pytest.mark.parametrize("kind", [build.lif(1, tau=1.0, v_threshold=-1.0, v_reset=-2.0), None])
def test_what_comes_at_time_0_meets_neurons_that_begin_above_their_threshold(kind, options):
    """They fire once of both, as in a simulation, and not before what comes and of it again."""
    if kind is None:
        kind = build.integrate_and_fire(1, v_threshold=-1.0, v_reset=-2.0)
    first = build.cubalif(1, tau_mem=1.0, tau_syn=0.5, v_threshold=-0.5, v_reset=-1.0)
    weights = [build.linear(weight=[[0.0]]), build.linear(weight=[[1.5]])]
    net = lower(build.sequential(build.input(1), weights[0], first, weights[1], kind))
    options = EventDriven(max_spikes=16, **options)
    found = stream(net, options, record=["2", "4"]).push(until=2.0)
    whole = simulate(net, Events(time=np.zeros(0), index=np.zeros(0, int)), 2.0, engine=options)
    for name, spikes in found.items():
        expected = np.asarray(whole.spikes[name].time[0, 0])
        expected = expected[np.isfinite(expected)]
        np.testing.assert_allclose(spikes.time, expected, rtol=0, atol=1e-11)
        assert list(spikes.time).count(0.0) == 1


@pytest.mark.parametrize("names", [("n1", "n2"), ("n2", "n1")])
def test_what_a_loop_sends_arrives_in_the_next_round_whatever_the_names(names):
    first, second = names
    nodes = {
        "a": build.input(1),
        "wa": build.linear(weight=[[2.0]]),
        "wb": build.linear(weight=[[2.0]]),
        first: build.lif(1, tau=1.0),
        second: build.lif(1, tau=1.0),
        "on": build.linear(weight=[[-1.5]]),
        "back": build.linear(weight=[[0.125]]),
        "output": build.output(),
    }
    edges = [("a", "wa", first, "on", second, "output"), ("a", "wb", second, "back", first)]
    net = lower(build.network(nodes, edges))
    event = Events(time=np.array([0.5]), index=np.array([0]))
    session = stream(net, record=names)
    found = session.push(event, until=2.0)
    # +2 lifts both above 1 at once; what each sends comes when the other has fired
    assert [len(found[name].time) for name in names] == [1, 1]
    fallen = np.exp(-1.5)
    assert session.voltage(first)[0] == pytest.approx(0.125 * fallen, abs=1e-12)
    assert session.voltage(second)[0] == pytest.approx(-1.5 * fallen, abs=1e-12)
    whole = simulate(net, event, 2.0, engine=EventDriven(max_spikes=4))
    assert [int(whole.spikes[name].count.sum()) for name in names] == [1, 1]


@pytest.mark.parametrize("until", [float("nan"), np.float64("nan"), np.inf, -1.0])
def test_a_time_that_is_none_is_no_end_of_a_push(until):
    session = stream(network())
    with pytest.raises(UsageError, match="until is"):
        session.push(Events(time=np.array([0.01]), index=np.array([0])), until=until)


def test_unused_slots_and_the_order_of_a_piece_do_not_matter():
    net, given = network(), events()
    whole = stream(net).push(given, until=T_END)["4"]
    order = np.random.default_rng(1).permutation(given.time.size)
    mixed = Events(
        time=np.append(given.time[order], np.inf), index=np.append(given.index[order], 12)
    )
    found = stream(net).push(mixed, until=T_END)["4"]
    np.testing.assert_array_equal(found.time, whole.time)


def test_what_unused_slots_carry_does_not_count():
    """As in a simulation."""
    one = {"time": np.array([0.001, np.inf]), "index": np.array([0, 12])}
    found = stream(network()).push(GradedEvents(value=np.array([9.0, np.nan]), **one), until=T_END)
    used = GradedEvents(time=one["time"][:1], index=one["index"][:1], value=np.array([9.0]))
    wanted = stream(network()).push(used, until=T_END)
    np.testing.assert_array_equal(found["4"].time, wanted["4"].time)
    with pytest.raises(UsageError, match="a value that is not finite"):
        stream(network()).push(GradedEvents(value=np.array([np.nan, 1.0]), **one))


@pytest.mark.parametrize("only", [np.True_, jnp.array(True), ["a"]])
def test_options_are_taken_as_by_a_simulation(only):
    neurons = build.cubalif(tau_mem="10ms", tau_syn="5ms")
    nodes = {"in": build.input(1), "w": build.linear(weight=[[9.0]]), "a": neurons}
    net = lower(build.network(nodes | {"out": build.output()}, [("in", "w", "a", "out")]))
    session = stream(net, options=EventDriven(first_spike_only=only))
    assert session.push(Events(time=[0.0], index=[0]), until=30e-3)["a"].time.size == 1


def test_options_of_another_engine_are_refused():
    with pytest.raises(UsageError, match="options are a TimeStepped, and streams run in contin"):
        stream(network(), TimeStepped())


def test_what_a_stream_cannot_take_is_named():
    with pytest.raises(UsageError, match='backend is "xla"'):
        stream(network(), EventDriven(backend="xla"))
    with pytest.raises(UsageError, match="record names '1', which is not a spiking population"):
        stream(network(), record=["1"])
    thresholded = build.sequential(
        build.input(1),
        build.linear(weight=[[1.0]]),
        build.li(1, tau=TAU),
        build.node("Threshold", 1, threshold=0.2),
        build.linear(weight=[[1.0]]),
        build.cubalif(1, tau_mem=2 * TAU, tau_syn=TAU),
    )
    with pytest.raises(LoweringError, match=r"node '3' is a Threshold, .*: simulate with"):
        stream(lower(thresholded))


def runaway(count=1):
    """A loop without delay whose spikes have no end."""
    nodes = {
        "in": build.input(1),
        "to": build.linear(weight=[[2.0]] * count),
        "loop": build.lif(count, tau=TAU),
        "back": build.linear(weight=2.0 * np.eye(count)),
        "out": build.output(count),
    }
    return lower(build.network(nodes, [("in", "to", "loop", "out"), ("loop", "back", "loop")]))


def test_spikes_without_end_at_one_time_are_an_error():
    with pytest.raises(SimulationError, match=r"spikes and arrivals at one time, 0\.01"):
        stream(runaway()).push(Events(time=[0.01], index=[0]), until=T_END)


@pytest.mark.parametrize("events", [1, 2])
def test_a_stream_that_has_ended_says_so_whatever_is_asked(events):
    """In both ways of a push, that of a single event and that of any."""
    session, message = stream(runaway()), r"the stream has ended: .* at one time, 0\.01"
    given = Events(time=[0.01, np.inf][:events], index=[0, 1][:events])
    calls = [
        lambda: session.push(given, until=T_END),
        lambda: session.push(until=0.005),
        lambda: session.push(Events(time=[0.001], index=[0]), until=0.005),
        lambda: session.push(Events(time=[-1.0], index=[0])),
        lambda: session.push(GradedEvents(time=[0.001], index=[0], value=[1.0])),
        lambda: session.voltage("loop"),
        lambda: session.waiting,
    ]
    for call in calls:
        with pytest.raises(SimulationError, match=message):
            call()
    assert session.time == 0.0


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_is_not_copied(copied):
    """Copies would share one state, and take each other's spikes."""
    with pytest.raises(UsageError, match=r"cannot be copied or pickled: .* jaxsnn\.stream"):
        copied(stream(network()))


def test_threads_that_share_a_stream_take_turns():
    """All readouts are the same, so that V is torn where they differ."""
    readouts = build.cubali(500, tau_mem=2 * TAU, tau_syn=TAU)
    layers = build.input(1), build.linear(weight=np.full((500, 1), 9.0)), readouts
    session, torn, over = stream(lower(build.sequential(*layers))), [], threading.Event()

    def look():
        while not over.is_set():
            torn.append(np.ptp(session.voltage("2")))
            session.waiting  # noqa: B018

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(1000):
        time = number * 1e-3 + np.arange(50) * 1e-5
        session.push(Events(time=time, index=np.zeros(50, int)))
    over.set()
    reader.join()
    assert torn
    assert max(torn) == 0


def test_threads_that_push_wait_for_each_other():
    session, given = stream(network()), Events(time=np.full(100, 1.0), index=np.zeros(100, int))
    session.push(given, until=0.0)
    once = session.waiting

    def work():
        for _ in range(300):
            session.push(given, until=0.0)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.waiting == 901 * once


# ---- interrupts


def tonic():
    """A neuron that fires for ever by itself, every 7 ms or so."""
    neuron = build.cubalif(1, tau_mem=2 * TAU, tau_syn=TAU, v_leak=2.0)
    return lower(build.sequential(build.input(1), build.linear(weight=[[0.5]]), neuron))


def interrupted_by_a_signal(push):
    """Calls it, and sends the process SIGINT, as Ctrl-C does, while it runs; also in a process of the
    background, which ignores it otherwise.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            push()
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize("count", [1, 200])
def test_ctrl_c_ends_a_push_and_leaves_the_session_as_it_was(count):
    """In both ways of a push. It would take hours: a year of spikes."""
    given = Events(time=np.linspace(0.01, 0.05, count), index=np.zeros(count, int))
    session, other = stream(tonic()), stream(tonic())
    for each in (session, other):
        each.push(until=0.005)
    interrupted_by_a_signal(lambda: session.push(given, until=3e7))
    assert (session.time, session.waiting) == (0.005, 0)
    assert session.voltage("2") == other.voltage("2")
    for until in (0.06, 1.0):
        piece = given if until == 0.06 else None
        spikes, expected = (each.push(piece, until=until)["2"] for each in (session, other))
        np.testing.assert_array_equal(spikes.time, expected.time)
        assert len(spikes.time)


def test_a_signal_handler_in_the_middle_of_a_push_cannot_use_the_stream():
    """It would wait for itself, or see half of a push."""
    session, caught = stream(tonic()), []

    def handle(*_):
        for call in (lambda: session.time, lambda: session.push(until=9e7)):
            with pytest.raises(UsageError, match="in the middle of a push"):
                call()
            caught.append(call)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        interrupted_by_a_signal(lambda: session.push(until=3e7))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(caught) == 2
    assert session.time == 0.0


def test_ctrl_c_ends_the_taking_in_of_many_events():
    count = 300_000
    weights = build.linear(weight=np.full((1, 1), 1e-9))
    delays = build.node("Delay", delay=np.array([0.5]))
    net = lower(build.sequential(build.input(1), weights, delays, build.lif(1, tau=TAU)))
    session = stream(net)
    session._native.set_slice(0.0)  # so that a quick machine looks for signals, too
    given = Events(time=np.full(count, 0.1), index=np.zeros(count, int))
    pushed, call = [], session._native._call

    def interrupted(name, *arguments):
        if name == "push":
            pushed.append(call(name, *arguments))
            signal.raise_signal(signal.SIGINT)
            return pushed[-1]
        return call(name, *arguments)

    session._native._call = interrupted
    with pytest.raises(KeyboardInterrupt):
        session.push(given)
    assert 0 < sum(pushed) < count / 10
    session._native._call = call
    assert (session.time, session.waiting) == (0.0, 0)
    assert session.push(given, until=0.2)["3"].time.size == 0
    assert session.waiting == count


def interrupt_after(session, calls):
    """Lets Ctrl-C come when so many calls of the library have returned."""
    left, call = [calls], session._native._call

    def counted(name, *arguments):
        found = call(name, *arguments)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return found

    session._native._call = counted
    return lambda: setattr(session._native, "_call", call)


@pytest.mark.parametrize(
    "structures", [(5, 13), pytest.param(range(20, 40), marks=pytest.mark.slow)]
)
def test_pushes_that_are_interrupted_anywhere_can_be_repeated(structures):
    """Whatever is going on: delays, loops, boxes, refractory times; and many pushes in a row."""
    rng, interrupts = np.random.default_rng(0), 0
    for drawn, _, structure in drawn_networks(structures):
        net = lower(engine_runs.graph_of(drawn), dtype="float64")
        firing = [name for name, own in net.populations.items() if own.fires]
        options = engine_runs.engine_of(structure)
        whole, session = (stream(net, options, record=firing) for _ in range(2))
        session._native.set_slice(0.0)  # each step is a call
        edges = [*np.sort(rng.uniform(0, drawn.t_end, 30)), drawn.t_end]
        for low, high in zip([0.0, *edges], edges, strict=False):
            piece = {}
            for name, time in drawn.times.items():
                own = (time[0] >= low) & (time[0] < high)
                piece[name] = Events(time=time[0][own], index=drawn.channels[name][0][own])
            before = session.time, session.waiting, [session.voltage(n) for n in firing]
            release = interrupt_after(session, int(rng.integers(1, 40)))
            try:
                spikes = session.push(piece, until=high)
            except KeyboardInterrupt:
                interrupts += 1
                release()
                after = session.time, session.waiting, [session.voltage(n) for n in firing]
                assert before[:2] == after[:2]
                for one, other in zip(before[2], after[2], strict=True):
                    np.testing.assert_array_equal(one, other)
                spikes = session.push(piece, until=high)
            release()
            for name, expected in whole.push(piece, until=high).items():
                np.testing.assert_array_equal(spikes[name].time, expected.time)
                np.testing.assert_array_equal(spikes[name].index, expected.index)
    assert interrupts > 4 * len(structures)


# ---- saved states


RESTORED = """
import sys
import numpy as np
from jaxsnn import Events, stream
from tests.event.test_streaming import T_END, events, network
import jax
jax.config.update("jax_enable_x64", True)
given = events()
session = stream(network())
session.restore(sys.argv[1])
late = given.time >= session.time
spikes = session.push(Events(time=given.time[late], index=given.index[late]), until=T_END)["4"]
print(spikes.time.tobytes().hex(), spikes.index.tobytes().hex(), session.voltage("2").tobytes().hex())
"""


def test_a_saved_stream_goes_on_in_another_process_to_the_same_bits(tmp_path):
    given, session = events(), stream(network())
    early = given.time < 0.02
    session.push(Events(time=given.time[early], index=given.index[early]), until=0.02)
    session.save(tmp_path / "state")
    done = subprocess.run(
        [sys.executable, "-c", RESTORED, str(tmp_path / "state")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    late = Events(time=given.time[~early], index=given.index[~early])
    spikes = session.push(late, until=T_END)["4"]
    arrays = spikes.time, spikes.index, session.voltage("2")
    assert done.stdout.split() == [array.tobytes().hex() for array in arrays]
    assert len(spikes.time) > 10


@pytest.mark.parametrize(
    "structures", [(5, 13), pytest.param(range(20, 40), marks=pytest.mark.slow)]
)
def test_networks_of_all_kinds_are_saved_and_restored(structures, tmp_path):
    rng, waiting, spikes = np.random.default_rng(0), 0, 0
    for number, (drawn, _, structure) in enumerate(drawn_networks(structures)):
        net = lower(engine_runs.graph_of(drawn), dtype="float64")
        firing = [name for name, own in net.populations.items() if own.fires]
        options = engine_runs.engine_of(structure)
        session, path = stream(net, options, record=firing), tmp_path / str(number)
        given = {
            name: Events(time=time[0], index=drawn.channels[name][0])
            for name, time in drawn.times.items()
        }
        middle = rng.uniform(0.2, 0.8) * drawn.t_end
        session.push(given, until=middle)
        session.save(path)
        waiting += session.waiting
        restored = stream(net, options, record=firing)
        restored.push(until=0.9 * drawn.t_end)  # of which nothing stays
        restored.restore(path)
        assert (restored.time, restored.waiting) == (session.time, session.waiting)
        expected = session.push(until=drawn.t_end)
        for name, own in restored.push(until=drawn.t_end).items():
            np.testing.assert_array_equal(own.time, expected[name].time)
            np.testing.assert_array_equal(own.index, expected[name].index)
            spikes += len(own.time)
    assert waiting > 0
    assert spikes > 10


def test_a_restored_stream_records_what_it_is_asked_for(tmp_path):
    session, given = stream(network()), events()
    session.push(given, until=0.02)
    session.save(tmp_path / "state")
    restored = stream(network(), record=["2"])
    restored.restore(tmp_path / "state")
    assert restored.push(until=T_END)["2"].time.size > 0


@pytest.mark.parametrize(
    "other",
    [
        lambda: stream(network(1.7)),
        lambda: stream(network(v_reset=-0.1)),
        lambda: stream(network(), EventDriven(refractory=1e-3)),
        lambda: stream(network(), EventDriven(first_spike_only=True)),
        lambda: stream(tonic()),
        lambda: stream(network(last=build.cubali(4, tau_mem=2 * TAU, tau_syn=TAU))),
    ],
    ids=["time constants", "reset", "refractory time", "first spike", "network", "readout"],
)
def test_a_state_of_another_network_is_refused(other, tmp_path):
    session = stream(network())
    session.push(events(), until=0.02)
    session.save(tmp_path / "state")
    refusing = other()
    with pytest.raises(UsageError, match="another network, or of other options"):
        refusing.restore(tmp_path / "state")
    assert refusing.time == 0.0


def test_a_state_is_not_written_over_a_file_unasked(tmp_path):
    (tmp_path / "state").write_text("mine")
    session = stream(network())
    with pytest.raises(FileError, match="exists"):
        session.save(tmp_path / "state")
    assert (tmp_path / "state").read_text() == "mine"
    session.save(tmp_path / "state", force=True)
    session.restore(tmp_path / "state")


def sealed(content):
    return content + hashlib.sha256(content).digest()


def test_a_damaged_state_is_refused_and_changes_nothing(tmp_path):
    path, session = tmp_path / "state", stream(network())
    session.push(events(), until=0.02)
    session.save(path)
    content = path.read_bytes()
    rng, refused = np.random.default_rng(0), 0
    fresh = stream(network())
    for place in rng.integers(0, len(content), 25).tolist():
        changed = bytearray(content)
        changed[place] ^= 0x10
        for damaged in (bytes(changed), content[:place], content + content[:place]):
            path.write_bytes(damaged)
            with pytest.raises((FileError, UsageError)):
                fresh.restore(path)
            refused += 1
    assert refused == 75
    assert (fresh.time, fresh.waiting) == (0.0, 0)
    path.write_bytes(content)
    fresh.restore(path)
    np.testing.assert_array_equal(
        fresh.push(until=T_END)["4"].time, session.push(until=T_END)["4"].time
    )


def test_a_state_that_was_made_up_harms_nobody(tmp_path):
    """Its hash is right, and its numbers are anything: no index leads out of an array."""
    path, session = tmp_path / "state", stream(network())
    session.push(events(), until=0.02)
    session.save(path)
    content = path.read_bytes()[:-32]
    head = content.index(b"\n") + 1 + 32
    words = np.frombuffer(content[head:], "<i8")
    rng, odd = np.random.default_rng(0), [-1, 2**31, 2**62, -(2**63), 0x7FF8 << 48, 0x7FF0 << 48]
    refused = 0
    for _ in range(150):
        changed = words.copy()
        places = rng.integers(0, len(words), 3)
        changed[places] = rng.choice(np.array([*odd, 0, 1, 7]), 3)
        path.write_bytes(sealed(content[:head] + changed.tobytes()))
        fresh = stream(network())
        try:
            fresh.restore(path)
            if fresh.time < T_END:
                fresh.push(until=T_END)
        except (FileError, SimulationError, UsageError):
            refused += 1
    assert 30 < refused < 150


def test_a_stream_that_has_ended_is_neither_saved_nor_restored(tmp_path):
    session = stream(runaway())
    session.save(tmp_path / "state")
    with pytest.raises(SimulationError):
        session.push(Events(time=[0.01], index=[0]), until=T_END)
    for call in (lambda: session.save(tmp_path / "b"), lambda: session.restore(tmp_path / "state")):
        with pytest.raises(SimulationError, match="has ended"):
            call()
