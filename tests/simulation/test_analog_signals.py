"""Thresholds and voltages that drive neurons: the time-stepped engine runs them, the event engine names
them before anything is simulated.
"""

import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest

import jaxsnn
from jaxsnn import Events, TimeStepped, lower, simulate
from jaxsnn.commands.cli import main
from jaxsnn.compatibility.checks import check
from jaxsnn.errors import LoweringError
from jaxsnn.nir import build
from tests.helpers.random_spikes import random_raster

STEP, STEPS = 1e-4, 400
STEPPED = "simulate with engine=TimeStepped()"
SILENCE = Events(time=np.full((1, 1), np.inf), index=np.full((1, 1), 2))
NODES = {
    "in": build.input(2),
    "w": build.linear(weight=np.array([[0.02, -0.016], [-0.022, 0.016]])),
    "li": build.li(2, tau=8e-3),
    "i": build.integrator(2),
    "cubali": build.cubali(2, tau_mem=8e-3, tau_syn=4e-3),
    "lif": build.lif(2, tau=10e-3, v_threshold=0.5),
    "scale": build.node("Scale", scale=np.array([2.0, -1.0])),
    "delay": build.node("Delay", delay=np.array([1e-3, 2e-3])),
    "th": build.node("Threshold", threshold=np.array([0.05, 0.01])),
    "on": build.linear(weight=np.array([[1.8, 0.24], [0.48, 1.44]])),
    "next": build.lif(2, tau=10e-3, v_threshold=0.5),
    "cuba": build.cubalif(2, tau_mem=8e-3, tau_syn=4e-3, v_threshold=0.5),
    "more": build.li(2, tau=8e-3),
    "out": build.output(2),
    "seen": build.output(2),
}
LEVELS = ["in", "w", "li", "scale", "th", "on", "next", "out"]
VOLTAGES = ["in", "w", "li", "scale", "on", "next", "out"]


def graph_of(*chains):
    """A network of some of the nodes, in NIR's own reading."""
    used = set(itertools.chain(*chains))
    nodes = {name: node for name, node in NODES.items() if name in used}
    options = {"dialect": "nir", "time_unit": "s", "dt": STEP, "spike_kernel": "box"}
    return build.network(nodes, [tuple(chain) for chain in chains], seed=0, **options)


THRESHOLD = f"the event engine does not support node 'th' (Threshold): {STEPPED}"
SENT = f"the event engine transmits only spikes: put spiking neurons in between, or {STEPPED}"
#: Chains of nodes, and the errors of `check`; a simulation raises the first.
REFUSED = {
    "a level drives neurons": ([LEVELS], [THRESHOLD]),
    "a level is written": ([["in", "w", "li", "th", "out"]], [THRESHOLD]),
    "spikes": ([["in", "w", "lif", "th", "out"]], [THRESHOLD]),
    "an input": ([["in", "th", "on", "next", "out"]], [THRESHOLD]),
    "a loop": ([["in", "w", "li", "th", "li"], ["th", "out"]], [THRESHOLD]),
    "LI to LIF": (
        [VOLTAGES],
        [f"the membrane potential of node 'li' (LI) drives node 'next' (LIF); {SENT}"],
    ),
    "I to LI": (
        [["in", "w", "i", "on", "more", "out"]],
        [f"the membrane potential of node 'i' (I) drives node 'more' (LI); {SENT}"],
    ),
    "CubaLI to CubaLIF, delayed": (
        [["in", "w", "cubali", "delay", "cuba", "out"]],
        [f"the membrane potential of node 'cubali' (CubaLI) drives node 'cuba' (CubaLIF); {SENT}"],
    ),
    "voltages and spikes": (
        [VOLTAGES, ["w", "i", "next"], ["w", "next"]],
        [
            f"the membrane potential of node 'i' (I) drives node 'next' (LIF); {SENT}",
            f"the membrane potential of node 'li' (LI) drives node 'next' (LIF); {SENT}",
        ],
    ),
    "a voltage behind other nodes": (
        [["in", "w", "li", "scale", "seen"], ["li", "out"]],
        [
            "the membrane potential of node 'li' (LI) reaches Output 'seen' through other nodes; the"
            f" event engine records only membrane potentials of neurons: {STEPPED}"
        ],
    ),
    "both": (
        [LEVELS, ["li", "more", "seen"]],
        [f"the membrane potential of node 'li' (LI) drives node 'more' (LI); {SENT}", THRESHOLD],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_event_engine_names_them_and_the_other_one_runs_them(name):
    chains, expected = REFUSED[name]
    graph = graph_of(*chains)
    errors = [problem for problem in check(graph, "event").problems if problem.severity == "error"]
    assert [str(problem) for problem in errors] == expected
    network = lower(graph)
    with pytest.raises(LoweringError) as caught:
        simulate(network, SILENCE, 0.1)
    assert caught.value.problem == errors[0]
    assert f"'{caught.value.node}'" in expected[0]
    if name not in ("spikes", "an input"):  # NIR does not define the height of their signals
        y = simulate(network, jnp.ones((5, 1, 2)), engine=TimeStepped()).y
        assert all(np.isfinite(array).all() for array in y.values())


def test_what_reads_out_alone_is_not_refused():
    graph = graph_of(["in", "w", "li", "out"])
    assert check(graph, "event").ok
    assert simulate(lower(graph), SILENCE, 0.1).voltages["li"].shape == (1, 101, 2)


def test_the_command_line_names_the_engine_that_runs_them(tmp_path, capsys):
    file, x, out = (str(tmp_path / name) for name in ("net.nir", "x.npz", "out.npz"))
    jaxsnn.write(file, graph_of(LEVELS))
    np.savez(x, x=random_raster(0, (STEPS, 2, 2), 0.05))
    options = ["--dialect", "nir", "--time-unit", "s", "--dt", "0.1ms", "--spike-kernel", "box"]
    run = ["run", file, "--input", x, "-o", out, *options]
    assert main(run) == 1
    advice = "simulate with jaxsnn run --engine grid"
    assert "(Threshold): simulate with --engine grid" in capsys.readouterr().err
    assert main(["check", file, "--for", "event", *options, "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["node"], problem["fix"]) == ("th", advice)
    assert main([*run, "--engine", "grid"]) == 0
    assert np.load(out)["out.y"].sum() > 0


def test_a_trained_threshold_goes_back_into_the_file():
    graph = graph_of(LEVELS)
    network = lower(graph)
    moved = {
        **network.parameters,
        "th": {"threshold": network.parameters["th"]["threshold"] + 0.01},
    }
    raised = jaxsnn.update_graph(graph, network.with_parameters(moved))
    np.testing.assert_allclose(raised.nodes["th"].threshold, [0.06, 0.02], rtol=1e-6)
