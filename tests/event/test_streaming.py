"""Streams of events: they fire what `simulate` and a reference fire, to the same bits however events
are cut into pieces, and refuse events that do not fit.
"""

import copy
import hashlib
import itertools
import os
import pickle
import signal
import threading
from functools import cache, partial

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
from tests.event.agreement import sorted_finite
from tests.fuzz import engine_runs, event_engine, random_networks
from tests.helpers.refusals import assert_refused

pytestmark = pytest.mark.usefixtures("x64", "native_kernels")
TAU = 5e-3
T_END = 0.06
NEURONS = {"tau_mem": 2 * TAU, "tau_syn": TAU}
ENGINE = EventDriven(max_spikes=300)
ONE_EVENT = Events(time=[0.01], index=[0])


def network(ratio=2.0, last=None, v_reset=0.0):
    """Populations "2" and "4", tau_mem of the first being `ratio` times tau_syn."""
    rng = np.random.default_rng(3)
    scale = min(ratio / 2, 1)  # the effect of j on V grows as tau_mem decreases
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


def events_between(train, low, high=np.inf):
    chosen = (train.time >= low) & (train.time < high)
    return Events(time=train.time[chosen], index=train.index[chosen])


def push_in_pieces(session, train, edges):
    """All spikes of a stream that is run from edge to edge, with the events between them."""
    pushes = [
        session.push(events_between(train, low, high), until=min(high, T_END))
        for low, high in zip([0, *edges], [*edges, np.inf], strict=True)
    ]
    return {
        name: Events(
            time=np.concatenate([spikes[name].time for spikes in pushes]),
            index=np.concatenate([spikes[name].index for spikes in pushes]),
        )
        for name in pushes[0]
    }


def assert_same_bits(spikes, expected):
    """Compare spikes of populations, by name."""
    assert spikes.keys() == expected.keys()
    for name, train in expected.items():
        np.testing.assert_array_equal(spikes[name].time, train.time)
        np.testing.assert_array_equal(spikes[name].index, train.index)


@pytest.mark.parametrize("ratio", [2.0, 0.5, 1.0, 3.0])
def test_a_stream_fires_what_a_simulation_fires(ratio):
    net = network(ratio)
    solution = simulate(net, events(), T_END, engine=ENGINE)
    session = stream(net, record=["2", "4"])
    for name, spikes in session.push(events(), until=T_END).items():
        expected = sorted_finite(solution.spikes[name].time)
        assert len(expected) > 20
        np.testing.assert_allclose(spikes.time, expected, rtol=0, atol=1e-11 * TAU)
        assert (np.diff(spikes.time) >= 0).all()
    assert session.time == T_END


def test_one_event_may_make_many_spikes():
    """More than the arrays for few hold, of two populations that fire in turn."""
    net = lower(
        build.sequential(
            build.input(1),
            build.linear(weight=np.linspace(5.0, 9.0, 150)[:, None]),
            build.cubalif(150, **NEURONS),
            build.linear(weight=np.full((3, 150), 0.1)),
            build.cubalif(3, **NEURONS),
        )
    )
    event = Events(time=np.array([0.001]), index=np.array([0]))
    solution = simulate(net, event, T_END, engine=ENGINE)
    streamed = stream(net, record=["2", "4"]).push(event, until=T_END)
    pieces = push_in_pieces(stream(net, record=["2", "4"]), event, [0.002, 0.004])
    assert_same_bits(pieces, streamed)
    for name, spikes in streamed.items():
        count = solution.spikes[name].count[0]
        assert count.min() > 0
        np.testing.assert_array_equal(np.bincount(spikes.index, minlength=len(count)), count)
        assert (np.diff(spikes.time) >= 0).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, T_END), max_size=12))
def test_pieces_of_any_size_give_the_same_bits(edges):
    net = network(1.7)
    expected = push_in_pieces(stream(net, record=["2", "4"]), events(), [])
    pieces = push_in_pieces(stream(net, record=["2", "4"]), events(), sorted(edges))
    assert_same_bits(pieces, expected)


def test_one_event_at_a_time_gives_the_same_bits():
    net, train = network(), events()
    session, times = stream(net), []
    for time, index in zip(train.time, train.index, strict=True):
        times.append(session.push(Events(time=[time], index=[index]))["4"].time)
        assert session.waiting < 60  # events without remaining effect are forgotten
    times.append(session.push(until=T_END)["4"].time)
    expected = stream(net).push(train, until=T_END)["4"].time
    np.testing.assert_array_equal(np.concatenate(times), expected)


@cache
def drawn_network(structure_number):
    """A random network with its reference solution: delays, loops, boxes, convolutions, subtraction
    and refractory times; None if the reference gives up.
    """
    structure = random_networks.structure_of(structure_number)
    drawn = event_engine.drawn_of(structure, 10 * structure_number, event_engine.Summary())
    return drawn and (*drawn, engine_runs.engine_of(structure))


def drawn_streams(structures):
    """For each network: its description, its reference, and a maker of streams that record all."""
    for drawn, reference, engine in filter(None, map(drawn_network, structures)):
        net = lower(engine_runs.graph_of(drawn), dtype="float64")
        firing = [name for name, population in net.populations.items() if population.fires]
        yield (
            drawn,
            reference,
            lambda net=net, engine=engine, firing=firing: stream(net, engine, record=firing),
        )


def drawn_events(drawn, sample, low=0.0, high=np.inf):
    """The input events of a sample of a random network, by name of the input."""
    return {
        name: events_between(
            Events(time=time[sample], index=drawn.channels[name][sample]), low, high
        )
        for name, time in drawn.times.items()
    }


def structures(last):
    return pytest.mark.parametrize(
        "structures", [(5, 13), pytest.param(range(20, last), marks=pytest.mark.slow)]
    )


@structures(60)
def test_a_stream_fires_what_the_reference_fires(structures):
    spike_count = 0
    for drawn, reference, make_stream in drawn_streams(structures):
        for sample, expected in enumerate(reference):
            spikes = make_stream().push(drawn_events(drawn, sample), until=drawn.t_end)
            for name, train in spikes.items():
                for neuron, times in enumerate(expected.spikes[name]):
                    streamed = train.time[train.index == neuron]
                    np.testing.assert_allclose(streamed, times, rtol=0, atol=1e-11)
                    spike_count += len(times)
    assert spike_count > 20 * len(structures)


def test_a_readout_has_the_voltage_of_a_simulation():
    net, train = network(last=build.cubali(4, **NEURONS)), events()
    times = np.array([0.0, 0.013, 0.031, 0.059])
    solution = simulate(net, train, T_END, sample_times=times[1:], engine=ENGINE)
    session = stream(net)
    for low, high, expected in zip(times[:-1], times[1:], solution.voltages["4"][0], strict=True):
        assert session.push(events_between(train, low, high), high) == {}
        np.testing.assert_allclose(session.voltage("4"), expected, atol=1e-12)


def test_events_have_values():
    net, train = network(), events()
    value = np.random.default_rng(5).uniform(0.2, 1.5, train.time.size)
    graded = GradedEvents(time=train.time, index=train.index, value=value)
    solution = simulate(net, graded, T_END, engine=ENGINE)
    times = stream(net).push(graded, until=T_END)["4"].time
    expected = sorted_finite(solution.spikes["4"].time)
    np.testing.assert_allclose(times, expected, rtol=0, atol=1e-11 * TAU)
    assert len(times) != len(stream(net).push(train, until=T_END)["4"].time)


def test_float32_parameters_are_not_rounded_again():
    layers = build.input(1), build.linear(weight=[[9.1]]), build.cubalif(**NEURONS)
    net = lower(build.sequential(*layers), dtype="float32")
    times = stream(net).push(Events(time=[0.0], index=[0]), until=T_END)["2"].time
    weight = float(net.parameters["1"]["weight"][0, 0])
    tau_mem, tau_syn = (float(net.parameters["2"][name][0]) for name in ("tau_mem", "tau_syn"))
    assert tau_mem / tau_syn == pytest.approx(2)
    # with x = exp(-t / tau_mem): w (x - x^2) = threshold
    x = (1 + np.sqrt(1 - 4 / weight)) / 2
    assert times[0] == pytest.approx(-np.log(x) * tau_mem, rel=1e-12)


#: Events that a stream at 0.01 s with 12 channels refuses, and a pattern of the refusal.
BAD_PIECES = [
    (Events(time=[0.005], index=[0]), r"before the current time of the stream \(0\.01 s\): 1 of 1"),
    (Events(time=[0.02], index=[12]), r"12 channels \(0 to 11\)"),
    (Events(time=[[0.02]], index=[[1]]), "a stream is a single sample"),
    (Events(time=[np.nan], index=[1]), "an event at time nan"),
    (GradedEvents(time=[0.02], index=[1], value=[np.inf]), "not finite"),
    (GradedEvents(time=[0.02, np.inf], index=[1, 12], value=[np.nan, 1.0]), "not finite"),
    (Currents(time=np.zeros(1), value=np.zeros((1, 12))), "a stream supports only events"),
    ([0.02], r"\(list\) is not supported"),
    (Events(time=["20ms"], index=[1]), "time has values of type <U4: pass numbers"),
    (Events(time=[0.02 + 0j], index=[1]), "time has values of type complex128"),
    (Events(time=[0.02], index=[1.5]), "channel 1.5"),
    (Events(time=[0.02], index=[-1]), r"12 channels \(0 to 11\)"),
    (Events(time=[0.02], index=np.array([2**63], np.uint64)), r"12 channels \(0 to 11\)"),
    ({"input": None, "other": None}, "no input 'other'"),
]


def test_events_and_ends_that_do_not_fit_are_refused_and_change_nothing():
    session = stream(network())
    session.push(ONE_EVENT)
    for piece, message in BAD_PIECES:
        assert_refused(partial(session.push, piece), UsageError, message)
    bad_ends = 1e-3, float("nan"), np.float64("nan"), np.inf, -1.0, "1ms"
    for until, piece in itertools.product(bad_ends, (None, Events(time=[0.02], index=[1]))):
        push = partial(session.push, piece, until=until)
        assert_refused(push, UsageError, r"until is .* 0\.01 s")
    assert (session.time, session.waiting) == (0.01, 1)
    assert_refused(lambda: session.voltage("44"), UsageError, fix="did you mean '4'")


@pytest.mark.parametrize(
    ("tau_syn", "weight", "expected"),
    [
        # the closed form of V, bisected in double precision
        (1.0, -1.0, 2.7844227437438063),
        (1.0, -5.0, 4.715133502351886),
        (0.5, -1.0, 2.1312766112786266),
        (0.5, -5.0, 3.3274066029957146),
        (0.3, -5.0, 2.704037568584593),
    ],
)
def test_a_neuron_above_its_threshold_that_is_pulled_down_comes_back(tau_syn, weight, expected):
    neuron = build.cubalif(1, tau_mem=1.0, tau_syn=tau_syn, v_leak=1.3, v_reset=-1.0)
    net = lower(build.sequential(build.input(1), build.linear(weight=[[weight]]), neuron))
    event = Events(time=np.array([0.4]), index=np.array([0]))
    times = stream(net, record=["2"]).push(event, until=6.0)["2"].time
    assert times[0] == pytest.approx(expected, abs=1e-12)
    solution = simulate(net, event, 6.0, engine=EventDriven(max_spikes=16, backend="native"))
    np.testing.assert_allclose(times, solution.spikes["2"].time[0, 0][: len(times)], rtol=1e-12)


@pytest.mark.parametrize("options", [{}, {"refractory": 0.25}, {"first_spike_only": True}])
@pytest.mark.parametrize(
    "last",
    [
        build.lif(1, tau=1.0, v_threshold=-1.0, v_reset=-2.0),
        build.integrate_and_fire(1, v_threshold=-1.0, v_reset=-2.0),
    ],
    ids=["LIF", "IF"],
)
def test_spikes_at_time_0_reach_neurons_that_begin_above_their_threshold(last, options):
    """They fire once, as in a simulation, and not before the spikes arrive and once more after."""
    first = build.cubalif(1, tau_mem=1.0, tau_syn=0.5, v_threshold=-0.5, v_reset=-1.0)
    to_first, to_last = build.linear(weight=[[0.0]]), build.linear(weight=[[1.5]])
    net = lower(build.sequential(build.input(1), to_first, first, to_last, last))
    engine = EventDriven(max_spikes=16, **options)
    solution = simulate(net, Events(time=np.zeros(0), index=np.zeros(0, int)), 2.0, engine=engine)
    for name, spikes in stream(net, engine, record=["2", "4"]).push(until=2.0).items():
        expected = sorted_finite(solution.spikes[name].time)
        np.testing.assert_allclose(spikes.time, expected, rtol=0, atol=1e-11)
        assert list(spikes.time).count(0.0) == 1


@pytest.mark.parametrize("node_names", [("n1", "n2"), ("n2", "n1")])
def test_spikes_within_a_loop_arrive_in_the_next_round_whatever_the_names(node_names):
    first, second = node_names
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
    session = stream(net, record=node_names)
    spikes = session.push(event, until=2.0)
    solution = simulate(net, event, 2.0, engine=EventDriven(max_spikes=4))
    # +2 lifts both above 1 at once; each spike arrives after the other neuron has fired.
    for name, sent in ((first, 0.125), (second, -1.5)):
        assert len(spikes[name].time) == solution.spikes[name].count.sum() == 1
        assert session.voltage(name)[0] == pytest.approx(sent * np.exp(-1.5), abs=1e-12)


@pytest.mark.parametrize("node_names", [("n1", "n2", "n3"), ("n1", "n3", "n2")])
def test_each_spike_of_a_chain_within_a_loop_begins_a_round(node_names):
    """The last neuron gets +2 in the first round, and fires before -1.5 comes in the second one."""
    first, second, last = node_names
    nodes = {
        "a": build.input(1),
        **{name: build.linear(weight=[[2.0]]) for name in ("in", "on", "over")},
        **{name: build.lif(1, tau=1.0) for name in node_names},
        "lower": build.linear(weight=[[-1.5]]),
        "back": build.linear(weight=[[0.125]]),
        "output": build.output(),
    }
    chain = ("a", "in", first, "on", second, "lower", last, "output")
    net = lower(build.network(nodes, [chain, (first, "over", last), (last, "back", first)]))
    event = Events(time=np.array([0.5]), index=np.array([0]))
    session = stream(net, record=node_names)
    spikes = session.push(event, until=2.0)
    solution = simulate(net, event, 2.0, engine=EventDriven(max_spikes=4))
    for name, received in ((first, 0.125), (second, 0.0), (last, -1.5)):
        np.testing.assert_allclose(spikes[name].time, [0.5])
        assert solution.spikes[name].count.sum() == 1
        assert session.voltage(name)[0] == pytest.approx(received * np.exp(-1.5), abs=1e-12)


def test_unused_slots_and_the_order_of_a_piece_do_not_matter():
    """Nor what unused slots carry."""
    net, train = network(), events()
    expected = stream(net).push(train, until=T_END)["4"]
    order = np.random.default_rng(1).permutation(train.time.size)
    time, index = np.append(train.time[order], np.inf), np.append(train.index[order], 12)
    value = np.append(np.ones(len(order)), np.nan)
    for mixed in (
        Events(time=time, index=index),
        GradedEvents(time=time, index=index, value=value),
    ):
        spikes = stream(net).push(mixed, until=T_END)["4"]
        np.testing.assert_array_equal(spikes.time, expected.time)


@pytest.mark.parametrize("only", [np.True_, jnp.array(True), ["2"]])
def test_options_are_read_as_by_a_simulation(only):
    layers = build.input(1), build.linear(weight=[[9.0]]), build.cubalif(**NEURONS)
    session = stream(lower(build.sequential(*layers)), EventDriven(first_spike_only=only))
    assert session.push(Events(time=[0.0], index=[0]), until=30e-3)["2"].time.size == 1


def test_options_and_networks_that_streams_do_not_run_are_refused():
    net = network()
    thresholded = build.sequential(
        build.input(1),
        build.linear(weight=[[1.0]]),
        build.li(1, tau=TAU),
        build.node("Threshold", 1, threshold=0.2),
        build.linear(weight=[[1.0]]),
        build.cubalif(1, **NEURONS),
    )
    for arguments, error, options in (
        ((net, TimeStepped()), UsageError, {"says": "TimeStepped"}),
        ((net, EventDriven(backend="xla")), UsageError, {"says": "xla", "fix": "auto"}),
        (
            (net, None, ["1"]),
            UsageError,
            {"says": "record contains '1', which is not a spiking population"},
        ),
        ((lower(thresholded),), LoweringError, {"says": "Threshold", "node": "3"}),
    ):
        assert_refused(lambda arguments=arguments: stream(*arguments), error, **options)


def runaway():
    """A loop without delay whose spikes have no end."""
    nodes = {
        "in": build.input(1),
        "to": build.linear(weight=[[2.0]]),
        "loop": build.lif(1, tau=TAU),
        "back": build.linear(weight=[[2.0]]),
        "out": build.output(1),
    }
    return lower(build.network(nodes, [("in", "to", "loop", "out"), ("loop", "back", "loop")]))


@pytest.mark.parametrize("count", [1, 2])
def test_a_stream_ends_with_spikes_without_end_and_refuses_all_further_use(count, tmp_path):
    """In both ways of a push, that of a single event and that of any."""
    session = stream(runaway())
    session.save(tmp_path / "state")
    train = Events(time=[0.01, np.inf][:count], index=[0, 1][:count])
    calls = [
        lambda: session.push(train, until=T_END),
        lambda: session.push(until=0.005),
        lambda: session.push(Events(time=[0.001], index=[0]), until=0.005),
        lambda: session.push(Events(time=[-1.0], index=[0])),
        lambda: session.push(GradedEvents(time=[0.001], index=[0], value=[1.0])),
        lambda: session.voltage("loop"),
        lambda: session.waiting,
        lambda: session.save(tmp_path / "other"),
        lambda: session.restore(tmp_path / "state"),
    ]
    for call in calls:
        message = r"the stream has ended: .*spikes and arrivals at one time, 0\.01"
        assert_refused(call, SimulationError, message)
    assert session.time == 0.0


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_is_not_copied(copier):
    """Copies would share one state, and take each other's spikes."""
    session = stream(network())
    message = "cannot be copied or pickled"
    assert_refused(lambda: copier(session), UsageError, message, fix="jaxsnn.stream")


def test_threads_that_share_a_stream_take_turns():
    """All readouts are the same, so that V is torn where they differ."""
    layers = (
        build.input(1),
        build.linear(weight=np.full((500, 1), 9.0)),
        build.cubali(500, **NEURONS),
    )
    session, spreads, over = stream(lower(build.sequential(*layers))), [], threading.Event()

    def look():
        while not over.is_set():
            spreads.append(np.ptp(session.voltage("2")))
            session.waiting  # noqa: B018

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(1000):
        time = number * 1e-3 + np.arange(50) * 1e-5
        session.push(Events(time=time, index=np.zeros(50, int)))
    over.set()
    reader.join()
    assert spreads
    assert max(spreads) == 0


def test_threads_that_push_wait_for_each_other():
    session, train = stream(network()), Events(time=np.full(100, 1.0), index=np.zeros(100, int))
    session.push(train, until=0.0)
    waiting_after_one = session.waiting

    def work():
        for _ in range(300):
            session.push(train, until=0.0)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.waiting == 901 * waiting_after_one


# -- interrupts


def tonic():
    """A neuron that fires for ever by itself, every 7 ms or so."""
    neuron = build.cubalif(1, v_leak=2.0, **NEURONS)
    return lower(build.sequential(build.input(1), build.linear(weight=[[0.5]]), neuron))


def interrupt_by_signal(push):
    """Send the process SIGINT, as Ctrl-C does, during a push; also in a process of the background,
    which ignores it otherwise.
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
    train = Events(time=np.linspace(0.01, 0.05, count), index=np.zeros(count, int))
    session, undisturbed = stream(tonic()), stream(tonic())
    for each_session in (session, undisturbed):
        each_session.push(until=0.005)
    interrupt_by_signal(lambda: session.push(train, until=3e7))
    assert (session.time, session.waiting) == (0.005, 0)
    assert session.voltage("2") == undisturbed.voltage("2")
    for piece, until in ((train, 0.06), (None, 1.0)):
        spikes = session.push(piece, until=until)
        assert_same_bits(spikes, undisturbed.push(piece, until=until))
        assert len(spikes["2"].time)


def test_a_signal_handler_in_the_middle_of_a_push_cannot_use_the_stream():
    """It would wait for itself, or see half of a push."""
    session, calls = stream(tonic()), []

    def handle(*_):
        for call in (lambda: session.time, lambda: session.push(until=9e7)):
            assert_refused(call, UsageError, "called from a signal handler")
            calls.append(call)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        interrupt_by_signal(lambda: session.push(until=3e7))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(calls) == 2
    assert session.time == 0.0


def test_ctrl_c_ends_a_push_of_many_events():
    count = 300_000
    weights = build.linear(weight=np.full((1, 1), 1e-9))
    delays = build.node("Delay", delay=np.array([0.5]))
    net = lower(build.sequential(build.input(1), weights, delays, build.lif(1, tau=TAU)))
    session = stream(net)
    session._native.set_slice(0.0)  # a fast machine must look for signals, too
    train = Events(time=np.full(count, 0.1), index=np.zeros(count, int))
    pushed, call = [], session._native._call

    def call_and_interrupt(name, *arguments):
        result = call(name, *arguments)
        if name == "push":
            pushed.append(result)
            signal.raise_signal(signal.SIGINT)
        return result

    session._native._call = call_and_interrupt
    with pytest.raises(KeyboardInterrupt):
        session.push(train)
    assert 0 < sum(pushed) < count / 10
    session._native._call = call
    assert (session.time, session.waiting) == (0.0, 0)
    assert session.push(train, until=0.2)["3"].time.size == 0
    assert session.waiting == count


def interrupt_after(session, calls):
    """Raise KeyboardInterrupt when so many calls of the library have returned; returns an undo."""
    counter, call = itertools.count(1), session._native._call

    def count_call(name, *arguments):
        result = call(name, *arguments)
        if next(counter) == calls:
            raise KeyboardInterrupt
        return result

    session._native._call = count_call
    return lambda: setattr(session._native, "_call", call)


def state_of(session):
    return session.time, session.waiting, [session.voltage(name).tolist() for name in session._rest]


@structures(40)
def test_pushes_that_are_interrupted_anywhere_can_be_repeated(structures):
    rng, interrupts = np.random.default_rng(0), 0
    for drawn, _, make_stream in drawn_streams(structures):
        undisturbed, session = make_stream(), make_stream()
        session._native.set_slice(0.0)  # each step is a call
        edges = [0.0, *np.sort(rng.uniform(0, drawn.t_end, 30)), drawn.t_end]
        for low, high in itertools.pairwise(edges):
            piece, before = drawn_events(drawn, 0, low, high), state_of(session)
            release = interrupt_after(session, int(rng.integers(1, 40)))
            try:
                spikes = session.push(piece, until=high)
                release()
            except KeyboardInterrupt:
                interrupts += 1
                release()
                assert state_of(session) == before
                spikes = session.push(piece, until=high)
            assert_same_bits(spikes, undisturbed.push(piece, until=high))
    assert interrupts > 4 * len(structures)


# -- saved states


@pytest.fixture
def saved(tmp_path):
    """A stream at 0.02 s, in which events wait, and the file of its state."""
    session, path = stream(network()), tmp_path / "state"
    session.push(events_between(events(), 0, 0.03), until=0.02)
    session.save(path)
    return session, path


RESTORED = """
import jax
from jaxsnn import stream
from tests.event.test_streaming import T_END, events, events_between, network
jax.config.update("jax_enable_x64", True)
session = stream(network())
session.restore({path!r})
spikes = session.push(events_between(events(), 0.03), until=T_END)["4"]
print(spikes.time.tobytes().hex(), spikes.index.tobytes().hex(), session.voltage("2").tobytes().hex())
"""


def test_a_saved_stream_goes_on_in_another_process_to_the_same_bits(saved, run_python):
    session, path = saved
    restored = run_python(RESTORED.format(path=str(path))).stdout.split()
    spikes = session.push(events_between(events(), 0.03), until=T_END)["4"]
    arrays = spikes.time, spikes.index, session.voltage("2")
    assert restored == [array.tobytes().hex() for array in arrays]
    assert len(spikes.time) > 10


@structures(40)
def test_networks_of_all_kinds_are_saved_and_restored(structures, tmp_path):
    rng, waiting, spike_count = np.random.default_rng(0), 0, 0
    for number, (drawn, _, make_stream) in enumerate(drawn_streams(structures)):
        session, path = make_stream(), tmp_path / str(number)
        session.push(drawn_events(drawn, 0), until=rng.uniform(0.2, 0.8) * drawn.t_end)
        session.save(path)
        waiting += session.waiting
        restored = make_stream()
        restored.push(until=0.9 * drawn.t_end)  # restoring undoes this
        restored.restore(path)
        assert state_of(restored) == state_of(session)
        spikes = restored.push(until=drawn.t_end)
        assert_same_bits(spikes, session.push(until=drawn.t_end))
        spike_count += sum(len(train.time) for train in spikes.values())
    assert waiting > 0
    assert spike_count > 10


def test_a_restored_stream_records_what_it_is_asked_for(saved):
    restored = stream(network(), record=["2"])
    restored.restore(saved[1])
    assert restored.push(until=T_END)["2"].time.size > 0


@pytest.mark.parametrize(
    "make_stream",
    [
        lambda: stream(network(1.7)),
        lambda: stream(network(v_reset=-0.1)),
        lambda: stream(network(), EventDriven(refractory=1e-3)),
        lambda: stream(network(), EventDriven(first_spike_only=True)),
        lambda: stream(tonic()),
        lambda: stream(network(last=build.cubali(4, **NEURONS))),
    ],
    ids=["time constants", "reset", "refractory time", "first spike", "network", "readout"],
)
def test_a_state_of_another_network_is_refused(make_stream, saved):
    session, message = make_stream(), "a different network or different options"
    assert_refused(lambda: session.restore(saved[1]), UsageError, message)
    assert session.time == 0.0


def test_a_state_is_not_written_over_a_file_without_force(tmp_path):
    path, session = tmp_path / "state", stream(network())
    path.write_text("mine")
    with pytest.raises(FileError, match="exists"):
        session.save(path)
    assert path.read_text() == "mine"
    session.save(path, force=True)
    session.restore(path)


def test_a_damaged_state_is_refused_and_changes_nothing(saved):
    session, path = saved
    content, fresh = path.read_bytes(), stream(network())
    for place in np.random.default_rng(0).integers(0, len(content), 25).tolist():
        flipped = bytes([content[place] ^ 0x10])
        changed = content[:place] + flipped + content[place + 1 :]
        for damaged in (changed, content[:place], content + content[:place]):
            path.write_bytes(damaged)
            with pytest.raises((FileError, UsageError)):
                fresh.restore(path)
    assert (fresh.time, fresh.waiting) == (0.0, 0)
    path.write_bytes(content)
    fresh.restore(path)
    assert_same_bits(fresh.push(until=T_END), session.push(until=T_END))


def test_a_state_of_arbitrary_numbers_with_the_right_hash_does_no_harm(saved):
    """No index leads out of an array."""
    _, path = saved
    content = path.read_bytes()[:-32]
    head = content.index(b"\n") + 1 + 32
    words = np.frombuffer(content[head:], "<i8")
    odd = [-1, 2**31, 2**62, -(2**63), 0x7FF8 << 48, 0x7FF0 << 48, 0, 1, 7]
    rng, refused = np.random.default_rng(0), 0
    for _ in range(150):
        changed = words.copy()
        changed[rng.integers(0, len(words), 3)] = rng.choice(np.array(odd), 3)
        forged = content[:head] + changed.tobytes()
        path.write_bytes(forged + hashlib.sha256(forged).digest())
        fresh = stream(network())
        try:
            fresh.restore(path)
            if fresh.time < T_END:
                fresh.push(until=T_END)
        except (FileError, SimulationError, UsageError):
            refused += 1
    assert 30 < refused < 150
