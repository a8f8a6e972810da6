"""NIR files with a Threshold on the event engine: what runs, what is refused, what the commands
write.
"""

import itertools
import json

import nir
import numpy as np
import pytest

import jaxsnn
from jaxsnn.commands.cli import main
from jaxsnn.compatibility.checks import check
from jaxsnn.errors import LoweringError, UsageError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.grid.time_stepped import TimeStepped
from jaxsnn.network.spikes import Events, dense_to_events
from jaxsnn.nir import parse
from jaxsnn.simulation.simulate import simulate
from tests.helpers.random_spikes import random_raster

TWO = np.ones(2)
NODES = {
    "in": nir.Input({"input": np.array([2])}),
    "w": nir.Linear(np.array([[1.0, -0.8], [-1.1, 0.8]])),
    "li": nir.LI(tau=8e-3 * TWO, r=TWO, v_leak=0 * TWO),
    "lif": nir.LIF(tau=10e-3 * TWO, r=TWO, v_leak=0 * TWO, v_threshold=0.5 * TWO, v_reset=0 * TWO),
    "scale": nir.Scale(np.array([2.0, -1.0])),
    "th": nir.Threshold(np.array([0.05, 0.01])),
    "back": nir.Linear(np.eye(2)),
    "on": nir.Linear(np.array([[1.5, 0.2], [0.4, 1.2]])),
    "next": nir.LIF(tau=10e-3 * TWO, r=TWO, v_leak=0 * TWO, v_threshold=0.5 * TWO, v_reset=0 * TWO),
    "out": nir.Output({"output": np.array([2])}),
    "seen": nir.Output({"output": np.array([2])}),
    "more": nir.LI(tau=8e-3 * TWO, r=TWO, v_leak=0 * TWO),
}
PLAIN = [["in", "w", "li", "scale", "th", "on", "next", "out"]]


def graph_of(chains, nodes=NODES, **options):
    edges = list(dict.fromkeys(pair for chain in chains for pair in itertools.pairwise(chain)))
    used = {name: nodes[name] for chain in chains for name in chain}
    graph = nir.NIRGraph(nodes=used, edges=edges, type_check=False)
    return parse(graph, **{"dialect": "nir", "time_unit": "s", "dt": 1e-4, **options})


REFUSED = {
    "sum": (
        [["in", "w", "li", "th", "out"], ["in", "th"]],
        "node 'th' (Threshold) adds up what in, li send: feed it by one LI, CubaLI or I, through Scale and Flatten",
    ),
    "sum before": (
        [["in", "w", "li", "scale", "th", "out"], ["w", "scale"]],
        "node 'th' (Threshold) adds up what w, li send at 'scale': feed it by one LI, CubaLI or I",
    ),
    "input": (
        [["in", "th", "on", "next", "out"]],
        "node 'th' (Threshold) receives the input 'in': feed it by one LI",
    ),
    "spikes": (
        [["in", "w", "lif", "scale", "th", "out"]],
        "node 'th' (Threshold) receives the spikes of 'lif': feed it by one LI, CubaLI or I, through Scale",
    ),
    "mixture": (
        [["in", "w", "li", "on", "th", "out"]],
        "node 'th' (Threshold) receives what 'on' (Linear) sends: feed it by one LI, CubaLI or I, through Scale",
    ),
    "cycle": (
        [["in", "w", "li", "th", "back", "li"], ["th", "out"]],
        "node 'th' (Threshold) is part of a cycle: break the cycle before it, or simulate with engine=",
    ),
    "scaled voltage": (
        [["in", "w", "li", "scale", "th", "out"], ["scale", "seen"]],
        "node 'li' (LI) sends its voltage through other nodes to Output 'seen': simulate with engine=TimeStepped(), "
        "the event engine records voltages of neurons only",
    ),
    "level and voltage": (
        [[*PLAIN[0]], ["li", "back", "next"]],
        "node 'next' (LIF) takes what th sends and the voltage of 'li' (LI): drive it by one of the two, or "
        "simulate with engine=TimeStepped()",
    ),
    "voltage of a level": (
        [["in", "w", "li", "th", "back", "more", "on", "next", "out"]],
        "node 'more' (LI) takes the level of a Threshold and sends its voltage on to 'next' (LIF): "
        'pass threshold="event", or simulate with engine=TimeStepped()',
    ),
    "deltas": (
        [[*PLAIN[0]], ["w", "next"]],
        "node 'next' (LIF) receives a level from 'on' and delta spikes from 'w': "
        'pass spike_kernel={"next": "box"} or threshold="event", or simulate with engine=TimeStepped()',
    ),
    "own deltas": (
        [[*PLAIN[0]], ["next", "back", "next"]],
        "node 'next' (LIF) receives a level from 'on' and delta spikes from 'back': "
        'pass spike_kernel={"next": "box"}',
    ),
}


def test_one_voltage_may_go_to_a_threshold_and_to_neurons():
    thresholds, neurons = (
        ["in", "w", "li", "scale", "th", "out"],
        ["in", "w", "li", "scale", "on", "next", "seen"],
    )
    nodes = NODES | {"w": nir.Linear(np.array([[0.01, -0.008], [-0.011, 0.008]]))}
    events = Events(time=np.linspace(1e-3, 50e-3, 30)[None], index=np.arange(30)[None] % 2)
    both, level, spikes = (
        simulate(
            jaxsnn.lower(graph_of(chains, nodes)), events, 0.1, engine=EventDriven(max_spikes=400)
        )
        for chains in ([thresholds, neurons], [thresholds], [neurons])
    )
    assert level.levels["th"].count.sum() > 2
    assert np.isfinite(spikes.spikes["next"].time).sum() > 2
    np.testing.assert_array_equal(both.levels["th"].rise, level.levels["th"].rise)
    np.testing.assert_array_equal(both.spikes["next"].time, spikes.spikes["next"].time)


@pytest.mark.parametrize("threshold", ["level", "event"])
@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_arrivals_at_one_time_pass_the_threshold_together(order, threshold):
    """What one of them lifts above it and the other takes down again has never been above it."""
    nodes = NODES | {
        "w": nir.Linear(np.array([[0.006, -0.006], [0.0, 0.0]])),
        "th": nir.Threshold(np.array([0.5, 0.5])),
    }
    network = jaxsnn.lower(graph_of([["in", "w", "li", "th", "on", "next", "out"]], nodes))
    for times, count in (([1e-3, 1e-3], 0), ([1e-3, 2e-3], int(order[0] == 0))):
        events = Events(time=np.array([times]), index=np.array([order]))
        found = simulate(network, events, 0.1, engine=EventDriven(threshold=threshold))
        got = found.levels["th"] if threshold == "level" else found.spikes["th"]
        assert got.count.sum() == count


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    chains, message = REFUSED[name]
    graph = graph_of(chains)
    silence = Events(time=np.full((1, 1), np.inf), index=np.full((1, 1), 2))
    with pytest.raises(LoweringError) as caught:
        simulate(jaxsnn.lower(graph), silence, 0.1)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert f"'{caught.value.node}'" in message
    assert caught.value.fix
    assert caught.value.problem in check(graph, "event").problems
    assert check(graph, "event", "event").ok == (
        name in ("deltas", "own deltas", "voltage of a level")
    )
    assert check(graph_of([*PLAIN, ["li", "seen"]]), "event").ok  # a readout may be seen too


def test_the_check_takes_a_reading_for_the_event_engine_only():
    graph = graph_of(PLAIN)
    with pytest.raises(
        UsageError, match="threshold is for the event engine, not for 'grid': leave it out"
    ):
        check(graph, "grid", "level")
    with pytest.raises(
        UsageError, match="threshold is 'rise', which is not a way to simulate a Threshold"
    ):
        check(graph, "event", "rise")


STEP, STEPS = 1e-4, 400
WEAK = {
    **NODES,
    "w": nir.Linear(2e-3 * NODES["w"].weight),
    "on": nir.Linear(1.2 * NODES["on"].weight),
}


def raster(seed=0):
    return random_raster(seed, (STEPS, 2, 2), 0.05)


def test_the_grid_plays_the_same_levels_in_small_steps():
    graph = graph_of([["in", "w", "li", "scale", "th", "out"]], WEAK, spike_kernel="box")
    network, x = jaxsnn.lower(graph), raster()
    level = simulate(
        network,
        dense_to_events(x, STEP),
        STEPS * STEP,
        engine=EventDriven(max_spikes="auto", max_events="auto"),
    ).levels["th"]
    y = np.asarray(simulate(network, x, engine=TimeStepped()).y["out"])
    ends = STEP * (1 + np.arange(STEPS))
    rise, fall = (np.asarray(times)[..., None] for times in (level.rise, level.fall))
    high = ((rise < ends) & (ends <= fall)).sum(axis=2)
    assert 0.2 < high.mean() < 0.8
    assert int(level.count.sum()) > 8
    assert (np.moveaxis(high, -1, 0) != y).mean() < 0.01


@pytest.fixture
def written(tmp_path):
    """A file whose Threshold feeds a neuron and an Output, and an input of it: their paths."""
    graph = graph_of([*PLAIN, ["th", "seen"]], WEAK)
    jaxsnn.write(tmp_path / "net.nir", graph)
    np.savez(tmp_path / "x.npz", x=raster())
    said = ["--dialect", "nir", "--time-unit", "s", "--dt", "0.1ms"]
    return [str(tmp_path / name) for name in ("net.nir", "x.npz", "out.npz")], said


def run(written, *more, capsys):
    (file, x, out), said = written
    code = main(["run", file, "--input", x, "-o", out, "--json", "--force", *said, *more])
    captured = capsys.readouterr()
    return (
        code,
        json.loads(captured.out) if code == 0 else captured.err,
        np.load(out) if code == 0 else None,
    )


def test_run_writes_rises_and_falls(written, capsys):
    code, content, arrays = run(written, capsys=capsys)
    assert code == 0
    graph = jaxsnn.read(written[0][0], dialect="nir", time_unit="s", dt=STEP)
    network = jaxsnn.lower(graph)
    solution = simulate(
        network,
        dense_to_events(raster(), STEP),
        STEPS * STEP,
        engine=EventDriven(max_spikes="auto", max_events="auto"),
    )
    level = solution.levels["th"]
    for sample in range(2):
        for name, times in (("", level.rise), ("fall_", level.fall)):
            time, index = (arrays[f"seen.{name}{key}"][sample] for key in ("time", "index"))
            used = np.isfinite(time)
            assert (np.diff(time[used]) >= 0).all()
            assert (index[~used] == 2).all()
            for neuron in range(2):
                own = np.asarray(times[sample, neuron])
                np.testing.assert_array_equal(time[used & (index == neuron)], own[np.isfinite(own)])
    assert content["levels"] == {"th": int(level.count.sum())}
    assert content["spikes_needed"]["th"] == int(level.count.max())
    assert content["samples"] == 2
    assert content["spikes"]["next"] == np.isfinite(arrays["out.time"]).sum() > 0
    (note,) = content["notes"]
    assert "come at the very time of an arrival" in note


def test_run_plays_events_where_it_is_told(written, capsys):
    code, content, arrays = run(
        written, "--threshold", "event", "--max-spikes", "40", capsys=capsys
    )
    assert code == 0
    assert content["levels"] == {}
    assert content["spikes"]["th"] == np.isfinite(arrays["seen.time"]).sum() > 0
    assert "seen.fall_time" not in arrays
    assert "fires once where its input comes to the threshold from below" in content["notes"][0]


def test_readings_that_make_no_sense_are_refused(written, capsys):
    code, error, _ = run(written, "--threshold", "edge", capsys=capsys)
    assert (code, "threshold is 'edge', which is not a way to simulate a Threshold" in error) == (
        2,
        True,
    )
    code, error, _ = run(written, "--threshold", "level", "--engine", "grid", capsys=capsys)
    assert (
        code,
        "--threshold is for the event engine, in time steps a Threshold is a level" in error,
    ) == (2, True)
    mixed = graph_of([*PLAIN, ["th", "out"]], WEAK)
    jaxsnn.write(written[0][0], mixed, force=True)
    code, error, _ = run(written, capsys=capsys)
    assert (code, "or by one Threshold" in error) == (1, True)


def test_advice_on_the_command_line_names_its_options(written, capsys):
    (file, _, _), said = written
    jaxsnn.write(file, graph_of([*PLAIN, ["w", "next"]], WEAK), force=True)
    main(["check", file, "--for", "event", *said, "--json"])
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    expected = (
        "--spike-kernel next:box or --threshold event, or simulate with jaxsnn run --engine grid"
    )
    assert problem["fix"] == f"pass {expected}"


@pytest.mark.slow
def test_check_and_fidelity_take_the_reading(written, capsys):
    (file, x, _), said = written
    jaxsnn.write(file, graph_of([*PLAIN, ["w", "next"]], WEAK), force=True)
    codes = [
        main(["check", file, "--for", "event", *said, *more])
        for more in ([], ["--threshold", "event"])
    ]
    assert codes == [1, 0]
    capsys.readouterr()
    more = ["--spike-kernel", "box", "--threshold", "event", "--json"]
    assert main(["fidelity", file, "--input", x, *said, *more]) == 0
    content = json.loads(capsys.readouterr().out)
    assert list(content["populations"]) == ["next"]
    assert any("node 'th' (Threshold) fires once where" in note for note in content["notes"])
    jaxsnn.write(file, graph_of([["in", "w", "next", "out"]], WEAK), force=True)
    assert main(["run", file, "--input", x, "-o", f"{file}.npz", *said, *more]) == 0
    assert (
        "--threshold has no effect: the network has no Threshold"
        in json.loads(capsys.readouterr().out)["notes"]
    )


def test_a_trained_threshold_goes_back_into_the_file():
    graph = graph_of(PLAIN, WEAK)
    network = jaxsnn.lower(graph)
    moved = {
        **network.parameters,
        "th": {"threshold": network.parameters["th"]["threshold"] + 0.01},
    }
    raised = jaxsnn.update_graph(graph, network.with_parameters(moved))
    np.testing.assert_allclose(raised.nodes["th"].threshold, [0.06, 0.02], rtol=1e-6)
