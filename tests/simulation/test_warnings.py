"""Notes on dropped, truncated, approximated or assumed data are issued as one warning for a call, at
the line of the user; notes that inform are not.
"""

import pickle
import warnings

import jax
import numpy as np
import pytest

import jaxsnn
from jaxsnn import (
    Currents,
    EventDriven,
    Events,
    Note,
    TimeStepped,
    fidelity,
    simulate,
    verify,
    write,
)
from jaxsnn.commands.cli import main
from jaxsnn.nir import build

DT = 1e-3
STEPPED = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}


def continuous(**parameters):
    neurons = build.cubalif(**{"tau_mem": "20ms", "tau_syn": "10ms"} | parameters)
    return build.sequential(build.input(1), build.linear(weight=[[9.0]]), neurons)


def stepped(dt=DT, beta=0.9):
    tau, gain = dt / (1 - beta), 1 / (1 - beta)
    layers = [build.linear(weight=[[0.6]]), build.lif(tau=tau, r=gain)]
    return build.sequential(build.input(1), *layers, dt=dt, **STEPPED)


def events(*times):
    return Events(time=np.array([times]), index=np.zeros((1, len(times)), int))


def raster(steps=20):
    return np.ones((steps, 1, 1), np.float32)


def issued(call):
    """The approximation warnings of a call, repeated ones too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [
        warning for warning in caught if issubclass(warning.category, jaxsnn.ApproximationWarning)
    ]


def codes(notes):
    return {note.code for note in notes if isinstance(note, Note) and note.kind != "information"}


# -- how warnings are issued


def test_one_call_issues_one_warning_at_the_line_of_the_user():
    def call():
        simulate(stepped(), events(0.001, 0.5, 0.6), 0.05)

    (warning,) = issued(call)
    assert warning.filename == __file__
    assert warning.lineno == call.__code__.co_firstlineno + 1
    assert len(str(warning.message).splitlines()) == 2  # late events, and continuous time


def test_each_call_issues_its_own_and_repeats_none():
    assert len(issued(lambda: [simulate(stepped(), events(0.001), 0.05) for _ in range(3)])) == 3
    # Both engines run, each with its own notes.
    assert issued(lambda: fidelity(stepped(), {"x": raster()})) == []
    assert len(issued(lambda: verify(stepped(), raster(), raster()))) == 0


def test_they_are_silenced_by_their_category():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", category=jaxsnn.ApproximationWarning)
        simulate(stepped(), events(0.001, 0.5), 0.05)
    assert caught == []
    assert issubclass(jaxsnn.ApproximationWarning, UserWarning)


def test_nothing_to_say_issues_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulate(continuous(), events(0.001), 0.05)
        simulate(stepped(), raster(), engine=TimeStepped())


def test_notes_on_gradients_inform():
    """Spikes of LIF neurons at the very time of an arrival, with an exact gradient of zero."""
    neuron = build.lif(1, tau=0.02, v_threshold=0.1)
    graph = build.sequential(
        build.input(1),
        build.linear(weight=[[5.0]]),
        neuron,
        dialect="nir",
        time_unit="s",
        spike_kernel="delta",
    )
    solutions = []
    assert issued(lambda: solutions.append(simulate(graph, events(0.001), 0.05))) == []
    assert solutions[0].notes
    assert codes(solutions[0].notes) == set()


def test_traced_runs_issue_what_is_known_without_numbers():
    network = jaxsnn.lower(stepped())

    @jax.jit
    def count(inputs):
        return simulate(network, inputs, 0.05).spikes_recorded

    (warning,) = issued(lambda: count(events(0.001, 0.5)))
    assert len(str(warning.message).splitlines()) == 1

    def loss(parameters):
        run = simulate(network.with_parameters(parameters), events(0.001, 0.5), 0.05)
        return run.first_spike("2").sum()

    assert len(issued(lambda: jax.grad(loss)(network.parameters))) == 1


def test_the_command_prints_notes_once_and_issues_nothing(tmp_path, capfd):
    file, input_file = tmp_path / "a.nir", tmp_path / "x.npz"
    write(file, stepped())
    np.savez(input_file, time=np.array([[0.001, 0.5]]), index=np.zeros((1, 2), int))
    words = ["run", str(file), "--input", str(input_file), "-o", str(tmp_path / "y.npz")]
    assert issued(lambda: main([*words, "--t-end", "50ms"])) == []
    err = capfd.readouterr().err
    assert err.count("that are ignored: 1 ") == err.count("continuous time") == 1
    assert "Warning" not in err


def test_a_note_is_a_string_that_keeps_its_kind():
    note = Note("text", kind="dropped", code="late-events")
    again = pickle.loads(pickle.dumps(note))
    assert (again, again.kind, again.code) == ("text", "dropped", "late-events")
    assert note == "text"


# -- notes


@pytest.mark.parametrize(
    ("inputs", "engine", "expected"),
    [
        (events(0.001), EventDriven(), {"continuous-time"}),
        (Events.of_steps(raster(), dt=DT), EventDriven(), {"continuous-time"}),
        (
            Events.of_steps(raster(), dt=10 * DT),
            EventDriven(),
            {"continuous-time", "step-length", "late-events"},
        ),
        (
            Currents.held(raster(), dt=10 * DT),
            EventDriven(max_spikes=64),
            {"continuous-time", "step-length"},
        ),
        (Events.of_steps(raster(), dt=DT / 10), TimeStepped(), {"step-length", "moved-events"}),
        (Events.of_steps(raster(), dt=DT), TimeStepped(), set()),
        (raster(50), TimeStepped(), set()),
    ],
)
def test_a_network_of_a_framework_with_steps(inputs, engine, expected):
    t_end = None if isinstance(inputs, np.ndarray) else 0.05
    assert codes(simulate(stepped(), inputs, t_end, engine=engine).notes) >= expected
    assert ("step-length" in expected) == (
        "step-length" in codes(simulate(stepped(), inputs, t_end, engine=engine).notes)
    )


def test_steps_of_a_graph_without_steps_are_its_users_choice():
    inputs = Events.of_steps(raster(), dt=DT)
    assert codes(simulate(continuous(), inputs, 0.05).notes) == set()


def test_milliseconds_that_are_given_as_seconds_are_noted_where_they_are_given():
    graphs = []
    (warning,) = issued(lambda: graphs.append(continuous(tau_mem=20, tau_syn=10)))
    assert warning.filename == __file__
    nodes_and_codes = [(problem.node, problem.code) for problem in graphs[0].warnings]
    assert nodes_and_codes == [("2", "time-constant")] * 2
    assert "tau_mem is 20," in graphs[0].warnings[0].message


@pytest.mark.parametrize(
    ("make", "noted"),
    [
        (lambda: continuous(tau_mem=20, tau_syn=10), True),
        (lambda: continuous(tau_mem=np.array([0.02]), tau_syn=5.0), True),
        (lambda: continuous(tau_mem="20s", tau_syn="10s"), False),
        (lambda: continuous(tau_mem=0.02, tau_syn=0.01), False),
        (lambda: continuous(tau_mem=1.0, tau_syn=0.5), False),  # no unit of time is specified
        (lambda: continuous(tau_mem=1e6, tau_syn=0.01), False),  # an integrator
        (lambda: stepped(dt=1e-4, beta=0.99999), False),  # a time constant of 10 s, from a decay
        (
            lambda: build.sequential(
                build.input(1),
                build.linear(weight=[[1.0]]),
                build.lif(tau=20.0, r=0.95),
                dialect="spyx",
                time_unit="step",
            ),
            False,
        ),
        (
            lambda: build.sequential(
                build.input(1), build.linear(weight=[[1.0]]), build.lif(tau=20.0), dialect="sinabs"
            ),
            False,
        ),
    ],
)
def test_time_constants_that_look_like_milliseconds(make, noted):
    assert bool(issued(make)) is noted
    assert ("time-constant" in {warning.code for warning in make().warnings}) is noted


@pytest.mark.parametrize(
    ("make", "t_end", "nodes"),
    [
        (lambda: continuous(tau_mem=20, tau_syn=10), 0.05, 2),
        (lambda: continuous(tau_mem="20s", tau_syn="10ms"), 0.05, 1),
        (lambda: continuous(tau_mem=20, tau_syn=10), 50.0, 0),  # all times have the same other unit
        (lambda: continuous(), 1e-4, 0),
        (lambda: continuous(tau_mem=1e6), 0.05, 0),
        (lambda: stepped(dt=1e-4, beta=0.99999), 0.05, 0),
    ],
)
def test_a_run_much_shorter_than_its_time_constants(make, t_end, nodes):
    notes = simulate(make(), events(1e-5), t_end).notes
    named = [note for note in notes if isinstance(note, Note) and note.code == "time-constant"]
    assert len(named) == nodes
    assert all("node '2'" in note for note in named)
