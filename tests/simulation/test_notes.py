"""No silent success: what a run left out, clipped or could not resolve is in its notes, once and in
words; and a number that spoils a run is named.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, Result, TimeStepped, check, lower, simulate, write
from jaxsnn.commands.cli import main
from jaxsnn.errors import SimulationError, UsageError
from jaxsnn.nir import build
from jaxsnn.train import evaluate, fit
from tests.helpers.small_task import DATA, QUICK, small_net

DT = 1e-3
#: What `graph_of` says of NIR itself, left out.
NOTHING = {"spike_kernel": None, "time_unit": None}


def graph_of(*neurons, weight=0.09, readout=False, **dialect):
    """A channel, two neurons "n", and maybe a readout "r" behind them."""
    nodes = {
        "in": build.input(1),
        "w": build.linear(weight=np.full((2, 1), weight)),
        "n": neurons[0] if neurons else build.cubalif(2, tau_mem=0.02, tau_syn=0.01),
        "out": build.output(2),
    }
    chains = [("in", "w", "n", "out")]
    if readout:
        nodes["wr"] = build.linear(weight=np.ones((1, 2)))
        nodes |= {"r": build.cubali(1, tau_mem=0.02, tau_syn=0.01), "v": build.output(1)}
        chains.append(("n", "wr", "r", "v"))
    options = {"spike_kernel": "delta", "dialect": "nir", "time_unit": "s"} | dialect
    return build.network(nodes, chains, **options)


def events(*times):
    return Events(time=np.array([times]), index=np.zeros((1, len(times)), int))


def notes_of(graph, given, t_end=0.05, **options):
    chosen = {name: options.pop(name) for name in ("sample_times", "throw") if name in options}
    return simulate(lower(graph), given, t_end, engine=EventDriven(**options), **chosen).notes


def only(notes, *words):
    """The single note with some words; there is no other note."""
    assert len(notes) == 1, notes
    for word in words:
        assert word in notes[0]
    return notes[0]


# ---- what is noted


def test_nothing_to_say_is_nothing():
    assert notes_of(graph_of(), events(0.001)) == ()
    assert notes_of(graph_of(readout=True), events(0.001), sample_times=[0.01]) == ()


def test_events_behind_the_end():
    only(notes_of(graph_of(), events(0.001, 0.05, 0.06)), "input 'in': 2 events", "t_end = 50 ms")


def test_events_behind_the_last_step():
    network = lower(graph_of(dt=DT))
    found = simulate(network, events(0.001, 0.06), 0.05, engine=TimeStepped(dt=DT))
    assert len([note for note in found.notes if "'in': 1 events lie behind the last" in note]) == 1


@pytest.mark.parametrize(("dt", "notes"), [(DT, 0), (10.5e-3, 1), (1.0, 1)])
def test_a_step_that_is_longer_than_a_time_constant(dt, notes):
    """As where dt=1 was meant to be a millisecond: nothing fires, and nothing else says why."""
    raster = np.ones((3, 1, 1), np.float32)
    found = simulate(lower(graph_of()), raster, engine=TimeStepped(dt=dt))
    assert len(found.notes) == notes
    if notes:
        only(found.notes, "a step of", "the shortest time constant, 10 ms (times are in seconds)")


def test_decays_that_a_file_has_in_steps_are_no_matter_of_the_step():
    neurons = build.lif(2, tau=DT / 1.5, r=1 / 1.5)  # beta is -0.5, which snnTorch clamps to 0
    graph = graph_of(neurons, dialect="snntorch", dt=DT, reset="zero", reset_delay=False, **NOTHING)
    assert simulate(graph, np.ones((3, 1, 1)), engine=TimeStepped()).notes == ()


def test_sample_times_where_nothing_is_sampled():
    only(notes_of(graph_of(), events(0.001), sample_times=[0.01, 0.02]), "sample_times")
    inside = jax.jit(lambda given: simulate(lower(graph_of()), given, 0.05, sample_times=[0.01]))
    only(inside(events(0.001)).notes, "sample_times")
    assert notes_of(graph_of(), events(0.001), sample_times=()) == ()


def test_a_short_budget_of_a_run_that_is_not_refused():
    notes = notes_of(graph_of(weight=0.3), events(0.001), max_spikes=1, throw=False)
    only(notes, "max_spikes", "a neuron of 'n' fires", "1 spikes of each neuron are recorded")


def test_clipped_slopes():
    """Both neurons fire once, where V is steeper than 1e-9 and flatter than a million times the
    usual.
    """
    assert notes_of(graph_of(), events(0.001), min_slope=1e-9) == ()
    notes = notes_of(graph_of(), events(0.001), min_slope=1e6)
    number = int(simulate(lower(graph_of()), events(0.001), 0.05).spikes_recorded)
    only(notes, "node 'n'", f"{number} of {number} recorded spikes", "min_slope=1e+06")


@pytest.mark.parametrize("width", [None, 1e-3])
def test_degenerate_spikes(width):
    neuron = build.lif(2, tau=0.02)
    notes = notes_of(graph_of(neuron), events(0.001, 0.03), jump_width=width)
    only(notes, "node 'n': 4 of 4 recorded spikes coincide with an arrival", "jump_width")
    assert ("ramp" in notes[0]) is (width is not None)


@pytest.mark.parametrize(("t_end", "coarse"), [(1.0, False), (80.0, False), (100.0, True)])
def test_float32_beyond_what_it_resolves(t_end, coarse):
    """eps t_end is 1e-5 s, 1/1024 of the shortest time constant, at t_end = 81.9 s."""
    notes = notes_of(graph_of(), events(0.001, 0.99 * t_end), t_end)
    assert bool(notes) is coarse
    if coarse:
        only(notes, "float32", "to 1.2e-05 s", "t_end = 100 s", "10 ms", "x64")


@pytest.mark.parametrize(("t_end", "coarse"), [(8.0, False), (8.4, True)])
def test_float32_beyond_what_it_resolves_of_boxes(t_end, coarse):
    """A box of 1 ms that begins at 8.2 s is as much as a thousandth too long or too short."""
    graph = graph_of(build.integrate_and_fire(2), spike_kernel="box", dt=DT)
    notes = notes_of(graph, events(0.001, 0.99 * t_end), t_end)
    assert bool(notes) is coarse
    if coarse:
        only(notes, "float32", "to 1e-06 s", "the shortest box spike lasts 1 ms", "x64")


def test_float64_reaches_further(x64):
    assert notes_of(graph_of(), events(0.001, 99.0), 100.0) == ()


def overshooting(dialect, weight=9.1, threshold=4.0, **said):
    """An IF that loses its threshold at a spike, and its spikes: an input in every other step."""
    gain = 1 / DT if dialect == "spikingjelly" else 1.0
    neurons = build.integrate_and_fire(v_threshold=threshold, r=gain)
    layers = build.linear(weight=[[weight]]), neurons
    options = {"reset": "subtract", "dt": DT} | said
    graph = build.sequential(build.input(1), *layers, dialect=dialect, **options)
    x = np.zeros((40, 1, 1), np.float32)
    x[::2] = 1.0
    return graph, Events.of_steps(x, dt=DT)


@pytest.mark.parametrize(
    ("dialect", "said"),
    [
        ("norse", {"dt_export": 1.0}),
        ("spikingjelly", {}),
        ("sinabs", {"spike_fn": "single", "min_v_mem": "none"}),
    ],
)
def test_spikes_of_which_a_step_of_the_framework_has_one(dialect, said):
    """9.1 comes in every other step and 4 goes at each spike: two or three spikes at each input."""
    graph, given = overshooting(dialect, **said)
    v, fired = 0.0, []
    for _ in range(20):
        v, now = v + 9.1, 0
        while v > 4.0:
            v, now = v - 4.0, now + 1
        fired.append(now)
    solution = simulate(graph, given, 40 * DT)
    assert solution.count("2")[0, 0] == sum(fired)
    (note,) = (note for note in solution.notes if "time step" in note)
    assert f"node '2': {sum(fired) - 20} of {sum(fired)} " in note


@pytest.mark.parametrize(
    ("dialect", "said"),
    [
        ("sinabs", {"spike_fn": "multi", "min_v_mem": "none"}),  # several spikes in a step
        ("jaxsnn", {}),  # no steps, though one may be said
        ("norse", {"dt_export": 1.0, "weight": 3.6}),  # never above the threshold twice
        # in the middle of each step: as far apart as steps are, to the rounding of their times
        ("spikingjelly", {"weight": 8.0, "threshold": 4.0, "reset": "zero"}),
    ],
)
def test_spikes_that_steps_have_too_are_no_matter(dialect, said):
    graph, given = overshooting(dialect, **said)
    if said.get("reset") == "zero":  # an input of V from 0 to the threshold in a step, every step
        graph, _ = overshooting(dialect, **said | {"weight": 4.0})
        given = Events.of_steps(np.ones((400, 1, 1), np.float32), dt=DT)
    solution = simulate(graph, given, 1.0)
    assert solution.count("2")[0, 0] >= 15
    assert not any("time step" in note for note in solution.notes)


def test_inside_jit_only_what_is_known_without_numbers():
    seen = []

    def run(given):
        found = simulate(lower(graph_of()), given, 0.05, sample_times=[0.01])
        seen.append(found.notes)
        return found

    outside = jax.jit(run)(events(0.001, 0.06))
    only(seen[0], "sample_times")
    assert len(outside.notes) == 2
    assert "left out" in outside.notes[1]


def test_several_runs_at_once_are_added_up():
    def run(time):
        return simulate(lower(graph_of()), Events(time=time, index=jnp.zeros(2, int)), 0.05)

    found = jax.vmap(run)(jnp.array([[0.001, 0.06], [0.07, 0.08]]))
    only(found.notes, "input 'in': 3 events")


def test_the_command_says_the_same_once(tmp_path, capsys):
    file, given = tmp_path / "a.nir", tmp_path / "x.npz"
    write(file, graph_of(build.lif(2, tau=0.02)))
    np.savez(given, time=np.array([[0.001, 0.06]]), index=np.zeros((1, 2), int))
    words = ["run", str(file), "--input", str(given), "-o", str(tmp_path / "y.npz")]
    words += ["--t-end", "50ms", "--max-spikes", "auto", "--json"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    notes = json.loads(out)["notes"]
    assert len(notes) == 2
    for word in ("1 events at or after --t-end 50 ms were left out", "coincide with an arrival"):
        assert sum(word in note for note in notes) == err.count(word) == 1


def test_the_command_samples_nothing_where_there_is_nothing(tmp_path, capsys):
    file, given = tmp_path / "a.nir", tmp_path / "x.npz"
    write(file, graph_of(dt=DT))
    np.savez(given, x=np.ones((5, 1, 1)))
    words = ["run", str(file), "--input", str(given), "-o", str(tmp_path / "y.npz"), "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []


# ---- numbers that make no sense


def spoilt(network, node, key, value, place=-1):
    numbers = np.array(network.parameters[node][key])
    numbers.flat[place] = value
    parameters = {name: dict(own) for name, own in network.parameters.items()}
    parameters[node][key] = jnp.asarray(numbers)
    return network.with_parameters(parameters)


@pytest.mark.parametrize(
    ("node", "key", "value", "words"),
    [
        ("n", "tau_mem", -0.5, "node 'n': tau_mem[1] is -0.5 and must be above 0"),
        ("n", "tau_syn", 0.0, "node 'n': tau_syn[1] is 0 and must be above 0"),
        ("n", "v_threshold", np.nan, "node 'n': v_threshold[1] is nan and must be finite"),
        ("w", "weight", np.inf, "node 'w': weight[1, 0] is inf and must be finite"),
        ("late", "delay", -1e-3, "node 'late': delay[0] is -0.001 and must be at least 0"),
    ],
)
def test_a_parameter_that_spoils_a_run_is_named(node, key, value, words):
    nodes = {
        "in": build.input(1),
        "late": build.node("Delay", 1, delay=np.array([1e-3])),
        "w": build.linear(weight=np.full((2, 1), 0.09)),
        "n": build.cubalif(2, tau_mem=0.02, tau_syn=0.01),
        "out": build.output(2),
    }
    graph = build.network(nodes, [("in", "late", "w", "n", "out")], dialect="nir", time_unit="s")
    network = spoilt(lower(graph), node, key, value)
    with pytest.raises(SimulationError) as error:
        simulate(network, events(0.001), 0.05)
    assert words in str(error.value)
    assert (error.value.problem.node, error.value.problem.code) == (node, "not-finite")
    found = simulate(network, events(0.001), 0.05, throw=False)
    assert found.result == Result.NOT_FINITE
    assert words in found.message


@pytest.mark.parametrize(
    ("node", "key", "value", "words"),
    [
        ("n", "v_threshold", np.nan, "node 'n': v_threshold[1] is nan"),
        ("w", "weight", np.inf, "node 'w': weight[1, 0] is inf"),
        ("n", "tau_mem", -0.5, "node 'n': tau_mem[1] is -0.5 and must be above 0"),
    ],
)
def test_in_time_steps_too(node, key, value, words):
    network = spoilt(lower(graph_of(dt=DT)), node, key, value)
    with pytest.raises(SimulationError) as error:
        simulate(network, events(0.001), 0.05, engine=TimeStepped(dt=DT))
    assert words in str(error.value)
    assert error.value.problem.node == node


def test_a_number_of_an_input_that_is_none_is_named():
    network = lower(graph_of(dt=DT))
    time = np.full((3, 4), 0.01)
    time[1, 2] = np.nan
    given = Events(time=time, index=np.zeros((3, 4), int))
    with pytest.raises(UsageError, match=r"input 'in' .* nan s \(sample 1, slot 2\)"):
        simulate(network, given, 0.05)
    index = np.zeros((3, 4), int)
    index[2, 0] = 7
    stranger = Events(time=np.full((3, 4), 0.01), index=index)
    with pytest.raises(UsageError, match=r"channel 7 \(sample 2, slot 0\)"):
        simulate(network, stranger, 0.05)
    x = np.zeros((5, 3, 1))
    x[4, 2, 0] = np.nan
    with pytest.raises(SimulationError, match="input 'in': step 4, sample 2, channel 0 is nan"):
        simulate(network, x, engine=TimeStepped(dt=DT))


def test_training_names_the_parameter(monkeypatch):
    real = lower

    def broken(graph, **options):
        return spoilt(real(graph, **options), "2", "tau_mem", -0.25, place=0)

    for module in ("jaxsnn.train.fitting", "jaxsnn.train.loop.evaluation"):
        monkeypatch.setattr(f"{module}.lower", broken)
    with pytest.raises(SimulationError, match=r"node '2': tau_mem\[0\] is -0.25") as error:
        fit(small_net(), DATA, **QUICK)
    assert error.value.problem.node == "2"
    with pytest.raises(SimulationError, match=r"node '2': tau_mem\[0\] is -0.25"):
        evaluate(small_net(), DATA.test, bias=True)


# What the framework of a file ignores.

SNNTORCH = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
NORSE = {"dialect": "norse==importer", "reset": "zero", "dt": 1e-4}
SPIKINGJELLY = {"dialect": "spikingjelly", "dt": 1e-4}
#: Chains of nodes, v_reset of the neurons, a dialect, and the nodes that notes must name.
IGNORED = {
    "snnTorch resets to 0": (["in w n out"], -0.5, SNNTORCH, ["n"]),
    "snnTorch's own reset": (["in w n out"], 0.0, SNNTORCH, []),
    "snnTorch subtracts": (["in w n out"], -0.5, SNNTORCH | {"reset": "subtract"}, []),
    "Norse's importer": (["in w n b m out"], 0.0, NORSE, []),
    "a branch": (["in w n out", "in w2 n"], 0.0, NORSE, ["w"]),
    "a long loop": (["in w n b m out", "m c n"], 0.0, NORSE, ["c"]),
    "a summed Output": (["in w n b m out", "n out"], 0.0, NORSE, ["out"]),
    "a Threshold": (["in w n b t out"], 0.0, NORSE, ["t"]),
    "a bias in a loop": (["in w n out", "n biased n"], 0.0, SPIKINGJELLY, ["biased"]),
    "a bias before a loop": (["in biased n out", "n b n"], 0.0, SPIKINGJELLY, []),
}


def ignoring(case):
    """The graph of a case of `IGNORED`."""
    chains, v_reset, dialect, _ = IGNORED[case]
    weight = np.array([[1.0, 0.5], [0.5, 1.0]])
    tau, r = (2e-4, 1.0) if dialect is NORSE else (1e-3, 10.0)
    nodes = {"in": build.input(2), "out": build.output(2)}
    nodes |= {name: build.linear(weight=weight) for name in ("w", "w2", "b", "c")}
    nodes |= {name: build.lif(tau=tau, r=r, v_reset=v_reset) for name in "nm"}
    nodes["biased"] = build.affine(weight=weight, bias=0.5)
    nodes["t"] = build.node("Threshold", threshold=np.full(2, 0.5))
    chains = [tuple(chain.split()) for chain in chains]
    used = {name for chain in chains for name in chain}
    nodes = {name: node for name, node in nodes.items() if name in used}
    return build.network(nodes, chains, **dialect)


@pytest.mark.parametrize("case", IGNORED)
def test_what_the_framework_of_a_file_ignores_is_noted_by_node(case):
    graph, expected = ignoring(case), IGNORED[case][-1]
    ignored = [each for each in check(graph, "grid").problems if each.code != "suspicious"]
    assert list(dict.fromkeys(each.node for each in ignored)) == expected
    assert {each.severity for each in ignored} <= {"warning"}
    assert bool(expected) == any(
        each.severity == "error"
        for each in check(graph, graph.dialect.name).problems
        if each.code != "needs-load-line"
    )
    x = np.ones((3, 1, 2))
    assert simulate(graph, x, engine=TimeStepped()).notes == tuple(str(each) for each in ignored)


@pytest.mark.parametrize("engine", ["event", "grid"])
def test_commands_note_what_a_framework_ignores(engine, tmp_path, capsys):
    write(tmp_path / "net.nir", ignoring("snnTorch resets to 0"))
    x = np.ones((6, 1, 2), np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    y = simulate(ignoring("snnTorch resets to 0"), x, engine=TimeStepped()).output()
    np.savez(tmp_path / "r.npz", x=x, y=np.asarray(y))
    run = ["run", str(tmp_path / "net.nir"), "--input", str(tmp_path / "x.npz"), "--engine", engine]
    verify = ["verify", str(tmp_path / "net.nir"), "--recording", str(tmp_path / "r.npz")]
    for command in ([*run, "-o", str(tmp_path / "y.npz")], verify):
        assert main([*command, "--json"]) == 0
        notes = json.loads(capsys.readouterr().out)["notes"]
        assert len([note for note in notes if "'n'" in note and "v_reset = -0.5" in note]) == 1
        assert main([*command, *(["--force"] if command is not verify else [])]) == 0
        assert "v_reset = -0.5" in capsys.readouterr().err
