"""No silent success: what a run left out, clipped or could not resolve is in its notes, once and in
words; and a number that spoils a run is named.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, Result, TimeStepped, check, lower, simulate, write
from jaxsnn.errors import SimulationError, UsageError
from jaxsnn.nir import build
from jaxsnn.train import evaluate, fit
from tests.helpers.command_line import run_cli, run_cli_json
from tests.helpers.refusals import assert_refused
from tests.helpers.small_task import DATA, QUICK, small_net

DT = 1e-3
#: Arguments of `graph_of` that omit its defaults for the dialect nir.
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


def notes_of(graph, times, t_end=0.05, throw=True, sample_times=None, **options):
    sampled = {} if sample_times is None else {"sample_times": sample_times}
    engine = EventDriven(**options)
    return simulate(
        lower(graph), events(*times), t_end, engine=engine, throw=throw, **sampled
    ).notes


def only(notes, *words):
    """The single note with some words; there is no other note."""
    (note,) = notes
    for word in words:
        assert word in note
    return note


# -- notes


def leaky():
    return graph_of(build.lif(2, tau=0.02))


def boxes():
    return graph_of(build.integrate_and_fire(2), spike_kernel="box", dt=DT)


AT_ARRIVALS = ("node 'n': spikes that coincide with an input spike: 4 of 4", "jump_width")
COARSE = ("float32", "to 1.2e-05 s", "t_end = 100 s", "10 ms", "x64")
#: Graph, times of events, options of the run, and words of the single note; None: no note.
NOTES = {
    "nothing": (graph_of, [0.001], {}, None),
    "a sampled readout": (lambda: graph_of(readout=True), [0.001], {"sample_times": [0.01]}, None),
    "events behind the end": (
        graph_of, [0.001, 0.05, 0.06], {}, ("input 'in': events at", "t_end = 50 ms that are ignored: 2"),
    ),
    "samples of nothing": (graph_of, [0.001], {"sample_times": [0.01, 0.02]}, ("sample_times",)),
    "no samples": (graph_of, [0.001], {"sample_times": ()}, None),
    "a short budget": (
        lambda: graph_of(weight=0.3), [0.001], {"max_spikes": 1, "throw": False},
        ("max_spikes", "a neuron of 'n' fires", "the budget is 1 for each neuron"),
    ),
    # The slope of V is larger at all spikes.
    "no clipped slopes": (graph_of, [0.001], {"min_slope": 1e-9}, None),
    "spikes at arrivals": (leaky, [0.001, 0.03], {"jump_width": None}, AT_ARRIVALS),
    "spikes at arrivals on a ramp": (
        leaky, [0.001, 0.03], {"jump_width": 1e-3}, (*AT_ARRIVALS, "ramp"),
    ),
    # At t_end = 81.9 s, eps t_end is 1e-5 s, 1/1024 of the shortest time constant.
    **{
        f"float32 at {t_end} s": (graph_of, [0.001, 0.99 * t_end], {"t_end": t_end}, words)
        for t_end, words in ((1.0, None), (80.0, None), (100.0, COARSE))
    },
    # The length of a pulse of 1 ms that begins at 8.2 s has an error of up to a thousandth.
    "boxes at 8 s": (boxes, [0.001, 0.99 * 8.0], {"t_end": 8.0}, None),
    "boxes at 8.4 s": (
        boxes, [0.001, 0.99 * 8.4], {"t_end": 8.4},
        ("float32", "to 1e-06 s", "the shortest rectangular pulse lasts 1 ms", "x64"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "times", "options", "words"), NOTES.values(), ids=NOTES)
def test_what_a_run_could_not_do_is_noted_once(make, times, options, words):
    notes = notes_of(make(), times, **options)
    if words is None:
        assert notes == ()
    else:
        assert ("ramp" in only(notes, *words)) is ("ramp" in words)


def test_clipped_slopes():
    """Both neurons fire where V is flatter than a million times the usual."""
    number = int(simulate(lower(graph_of()), events(0.001), 0.05).spikes_recorded)
    notes = notes_of(graph_of(), [0.001], min_slope=1e6)
    only(notes, "node 'n'", f"at the threshold: {number} of {number}", "min_slope=1e+06")


def test_events_behind_the_last_step():
    network = lower(graph_of(dt=DT))
    notes = simulate(network, events(0.001, 0.06), 0.05, engine=TimeStepped(dt=DT)).notes
    assert (
        sum("'in': events after the last time step that are ignored: 1" in note for note in notes)
        == 1
    )


@pytest.mark.parametrize(
    ("dt", "words"),
    [(DT, None), *((dt, "the shortest time constant, 10 ms (times are in seconds)") for dt in (10.5e-3, 1.0))],
)  # fmt: skip
def test_a_step_that_is_longer_than_a_time_constant(dt, words):
    """As where dt=1 was meant to be a millisecond: nothing fires, and nothing else says why."""
    raster = np.ones((3, 1, 1), np.float32)
    notes = simulate(lower(graph_of()), raster, engine=TimeStepped(dt=dt)).notes
    if words is None:
        assert notes == ()
    else:
        only(notes, "the time step, ", words)


def test_decays_that_a_file_has_in_steps_are_no_matter_of_the_step():
    neurons = build.lif(2, tau=DT / 1.5, r=1 / 1.5)  # beta is -0.5, which snnTorch clamps to 0
    graph = graph_of(neurons, dialect="snntorch", dt=DT, reset="zero", reset_delay=False, **NOTHING)
    assert simulate(graph, np.ones((3, 1, 1)), engine=TimeStepped()).notes == ()


def test_float64_reaches_further(x64):
    assert notes_of(graph_of(), (0.001, 99.0), 100.0) == ()


def overshooting(dialect, weight=9.1, threshold=4.0, **overrides):
    """An IF that loses its threshold at a spike, and its spikes: an input in every other step."""
    gain = 1 / DT if dialect == "spikingjelly" else 1.0
    neurons = build.integrate_and_fire(v_threshold=threshold, r=gain)
    layers = build.linear(weight=[[weight]]), neurons
    options = {"reset": "subtract", "dt": DT} | overrides
    graph = build.sequential(build.input(1), *layers, dialect=dialect, **options)
    x = np.zeros((40, 1, 1), np.float32)
    x[::2] = 1.0
    return graph, Events.of_steps(x, dt=DT)


@pytest.mark.parametrize(
    ("dialect", "options"),
    [
        ("norse", {"dt_export": 1.0}),
        ("spikingjelly", {}),
        ("sinabs", {"spike_fn": "single", "min_v_mem": "none"}),
    ],
)
def test_spikes_of_which_a_step_of_the_framework_has_one(dialect, options):
    """9.1 comes in every other step and 4 goes at each spike: two or three spikes at each input."""
    graph, events = overshooting(dialect, **options)
    v, fired = 0.0, []
    for _ in range(20):
        v, now = v + 9.1, 0
        while v > 4.0:
            v, now = v - 4.0, now + 1
        fired.append(now)
    solution = simulate(graph, events, 40 * DT)
    assert solution.count("2")[0, 0] == sum(fired)
    (note,) = (note for note in solution.notes if "time step" in note)
    assert note.code == "several-spikes-per-step"
    assert note.startswith("node '2': inter-spike intervals shorter than the time step")
    assert f": {sum(fired) - 20} of {sum(fired)} recorded spikes" in note


@pytest.mark.parametrize(
    ("dialect", "options"),
    [
        ("sinabs", {"spike_fn": "multi", "min_v_mem": "none"}),  # several spikes in a step
        ("jaxsnn", {}),  # the dialect has no steps, even if dt is specified
        ("norse", {"dt_export": 1.0, "weight": 3.6}),  # V never exceeds twice the threshold
        # In the middle of each step: intervals of one step, up to the rounding of times.
        ("spikingjelly", {"weight": 8.0, "threshold": 4.0, "reset": "zero"}),
    ],
)
def test_spikes_that_steps_have_too_are_no_matter(dialect, options):
    graph, events = overshooting(dialect, **options)
    if (
        options.get("reset") == "zero"
    ):  # an input that takes V from 0 to the threshold in every step
        graph, _ = overshooting(dialect, **options | {"weight": 4.0})
        events = Events.of_steps(np.ones((400, 1, 1), np.float32), dt=DT)
    solution = simulate(graph, events, 1.0)
    assert solution.count("2")[0, 0] >= 15
    assert not any("time step" in note for note in solution.notes)


def test_inside_jit_only_what_is_known_without_numbers():
    traced = []

    def run(trains):
        solution = simulate(lower(graph_of()), trains, 0.05, sample_times=[0.01])
        traced.append(solution.notes)
        return solution

    outside = jax.jit(run)(events(0.001, 0.06))
    only(traced[0], "sample_times")
    assert len(outside.notes) == 2
    assert outside.notes[1].code == "late-events"
    assert "that are ignored: 1 " in outside.notes[1]


def test_several_runs_at_once_are_added_up():
    def run(time):
        return simulate(lower(graph_of()), Events(time=time, index=jnp.zeros(2, int)), 0.05)

    solutions = jax.vmap(run)(jnp.array([[0.001, 0.06], [0.07, 0.08]]))
    note = only(solutions.notes, "input 'in': events at or after t_end = 50 ms", "ignored: 3 ")
    assert note.code == "late-events"


def run_command(graph, folder, capsys, *options, **arrays):
    """The notes of `jaxsnn run` on arrays, and what it prints beside them."""
    write(folder / "a.nir", graph)
    np.savez(folder / "x.npz", **arrays)
    argv = ["run", folder / "a.nir", "--input", folder / "x.npz", "-o", folder / "y.npz", *options]
    content, err = run_cli_json(capsys, *argv)
    return content["notes"], err


def test_the_command_says_the_same_once(tmp_path, capsys):
    trains = {"time": np.array([[0.001, 0.06]]), "index": np.zeros((1, 2), int)}
    options = ["--t-end", "50ms", "--max-spikes", "auto"]
    notes, err = run_command(leaky(), tmp_path, capsys, *options, **trains)
    assert len(notes) == 2
    for word in (
        "events at or after --t-end 50 ms that are ignored: 1",
        "coincide with an input spike",
    ):
        assert sum(word in note for note in notes) == err.count(word) == 1


def test_the_command_samples_nothing_where_there_is_nothing(tmp_path, capsys):
    assert run_command(graph_of(dt=DT), tmp_path, capsys, x=np.ones((5, 1, 1)))[0] == []


# -- invalid numbers


def spoilt(network, node, key, value, place=-1):
    numbers = np.array(network.parameters[node][key])
    numbers.flat[place] = value
    changed = {**network.parameters[node], key: jnp.asarray(numbers)}
    return network.with_parameters({**network.parameters, node: changed})


def delayed():
    """The channel behind a delay."""
    nodes = {
        "in": build.input(1),
        "late": build.node("Delay", 1, delay=np.array([1e-3])),
        "w": build.linear(weight=np.full((2, 1), 0.09)),
        "n": build.cubalif(2, tau_mem=0.02, tau_syn=0.01),
        "out": build.output(2),
    }
    return build.network(nodes, [("in", "late", "w", "n", "out")], dialect="nir", time_unit="s")


STEPPED = TimeStepped(dt=DT)


@pytest.mark.parametrize(
    ("engine", "node", "key", "value", "words"),
    [
        (None, "n", "tau_mem", -0.5, r"node 'n': tau_mem\[1\] is -0.5 and must be above 0"),
        (None, "n", "tau_syn", 0.0, r"node 'n': tau_syn\[1\] is 0 and must be above 0"),
        (None, "n", "v_threshold", np.nan, r"node 'n': v_threshold\[1\] is nan and must be finite"),
        (None, "w", "weight", np.inf, r"node 'w': weight\[1, 0\] is inf and must be finite"),
        (None, "late", "delay", -1e-3, r"node 'late': delay\[0\] is -0.001 and must be at least 0"),
        (STEPPED, "n", "v_threshold", np.nan, r"node 'n': v_threshold\[1\] is nan"),
        (STEPPED, "w", "weight", np.inf, r"node 'w': weight\[1, 0\] is inf"),
        (STEPPED, "n", "tau_mem", -0.5, r"node 'n': tau_mem\[1\] is -0.5 and must be above 0"),
    ],
)
def test_a_parameter_that_spoils_a_run_is_named(engine, node, key, value, words):
    network = spoilt(lower(graph_of(dt=DT) if engine else delayed()), node, key, value)
    run = partial(simulate, network, events(0.001), 0.05, engine=engine)
    assert_refused(run, SimulationError, words, node=node, code="not-finite")
    if engine is None:
        solution = run(throw=False)
        assert solution.result == Result.NOT_FINITE
        assert re.search(words, solution.message)


def with_one(array, place, value):
    array = np.array(array)
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("inputs", "engine", "error", "words"),
    [
        (Events(time=with_one(np.full((3, 4), 0.01), (1, 2), np.nan), index=np.zeros((3, 4), int)),
         None, UsageError, r"input 'in' .* nan s \(sample 1, slot 2\)"),
        (Events(time=np.full((3, 4), 0.01), index=with_one(np.zeros((3, 4), int), (2, 0), 7)),
         None, UsageError, r"channel 7 \(sample 2, slot 0\)"),
        (with_one(np.zeros((5, 3, 1)), (4, 2, 0), np.nan),
         STEPPED, SimulationError, "input 'in': the value in step 4, sample 2, channel 0 is nan"),
    ],
)  # fmt: skip
def test_a_number_of_an_input_that_is_none_is_named(inputs, engine, error, words):
    t_end = None if engine else 0.05
    run = partial(simulate, lower(graph_of(dt=DT)), inputs, t_end, engine=engine)
    assert_refused(run, error, words)


def test_training_names_the_parameter(monkeypatch):
    def broken(graph, **options):
        return spoilt(lower(graph, **options), "2", "tau_mem", -0.25, place=0)

    for module in ("jaxsnn.train.fitting", "jaxsnn.train.loop.evaluation"):
        monkeypatch.setattr(f"{module}.lower", broken)
    for run in (
        partial(fit, small_net(), DATA, **QUICK),
        partial(evaluate, small_net(), DATA.test, bias=True),
    ):
        assert_refused(run, SimulationError, r"node '2': tau_mem\[0\] is -0.25", node="2")


# Parameters that the framework of a file ignores

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
    problems = check(graph, "grid").problems
    ignored = [problem for problem in problems if problem.code != "suspicious"]
    assert list(dict.fromkeys(problem.node for problem in ignored)) == expected
    assert {problem.severity for problem in ignored} <= {"warning"}
    assert bool(expected) == any(
        problem.severity == "error" and problem.code != "needs-load-line"
        for problem in check(graph, graph.dialect.name).problems
    )
    notes = simulate(graph, np.ones((3, 1, 2)), engine=TimeStepped()).notes
    assert notes == tuple(str(problem) for problem in ignored)


@pytest.mark.parametrize("engine", ["event", "grid"])
def test_commands_note_what_a_framework_ignores(engine, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph, x = ignoring("snnTorch resets to 0"), np.ones((6, 1, 2), np.float32)
    write("net.nir", graph)
    y = simulate(graph, x, engine=TimeStepped()).output()
    np.savez("r.npz", x=x, y=np.asarray(y))
    np.savez("x.npz", x=x)
    for line in (
        f"run net.nir --input x.npz --engine {engine} -o y.npz --force",
        "verify net.nir --recording r.npz",
    ):
        content, _ = run_cli_json(capsys, *line.split())
        assert sum("'n'" in note and "v_reset = -0.5" in note for note in content["notes"]) == 1
        assert "v_reset = -0.5" in run_cli(capsys, *line.split())[1]
