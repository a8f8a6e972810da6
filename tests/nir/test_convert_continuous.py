"""The importers that solve the equations: hxtorch's, and that of the jaxsnn of the Electronic
Vision(s) group. What is written is read back in ms, and fires at the source's times.
"""

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.nir import build, read, write
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.initializers import normal

TARGETS = ("jaxsnn", "hxtorch")


CELL: dict[str, Any] = {"tau_mem": 20e-3, "tau_syn": 10e-3}


def fed(*layers, dialect="jaxsnn", size=5, **options):
    return build.sequential(build.input(size), *layers, seed=1, dialect=dialect, **options)


def network(dialect="jaxsnn", mean=2.0, last=None, **numbers):
    """Two layers; `last`: other numbers of the second population."""
    layers = []
    for size, changes in ((6, {}), (4, last or {})):
        weights = build.linear(size, weight=normal(mean, mean))
        layers += [weights, build.cubalif(**CELL | numbers | changes)]
    options: dict[str, Any] = {"time_unit": "s"} if dialect != "jaxsnn" else {}
    return fed(*layers, dialect=dialect, **options)


def fired(graph):
    """Times in seconds of the last population by neuron, in order; inf where there is none."""
    rng = np.random.default_rng(0)
    time, index = np.sort(rng.uniform(0, 0.05, 24)), rng.integers(0, 5, 24)
    inputs = Events(time=jnp.asarray(time), index=jnp.asarray(index, jnp.int32))
    engine = EventDriven(max_spikes=400)
    spikes = simulate(lower(graph), inputs, 0.1, engine=engine).spikes["4"]
    return np.sort(np.asarray(spikes.time), axis=-1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("options", "target"),
    [
        *(({}, target) for target in TARGETS),
        ({"dialect": "hxtorch"}, "jaxsnn"),
        ({"dialect": "nir", "mean": 0.02, "r": 2.0, "w_in": 0.5}, "hxtorch"),
        ({"r": 3.0, "v_reset": -0.5, "mean": 0.4}, "jaxsnn"),
        ({"last": {"v_threshold": np.array([1.0, 2.0, 1.5, 1.0])}}, "hxtorch"),
    ],
)
def test_there_and_back_fires_at_the_same_times(options, target, tmp_path):
    graph = network(**options)
    converted = convert(graph, to=target).graph
    assert (converted.dialect.name, converted.dialect.seconds) == (target, 1e-3)
    write(tmp_path / "a.nir", converted)
    reread = read(tmp_path / "a.nir", dialect=target, time_unit="ms", initial="zero")
    time = fired(graph)
    assert np.isfinite(time).sum() > 5
    for same in (reread, convert(converted, to="jaxsnn").graph):
        np.testing.assert_allclose(fired(same), time, rtol=1e-9)
    for node in (reread.nodes["2"], reread.nodes["4"]):
        assert {float(value) for value in np.ravel(node.value("r"))} == {1.0}
        assert all(np.ptp(np.asarray(value, float)) == 0 for value in node.parameters.values())


@pytest.mark.parametrize(
    ("tau_mem", "written"),
    [(10, 10), (14, 10), (16, 20), (20, 20), (10 + 4e-5, 10), (20 - 4e-5, 20)],
)
def test_the_solver_of_jaxsnn_takes_two_ratios(tau_mem, written):
    conversion = convert(network(tau_mem=tau_mem * 1e-3), to="jaxsnn", approximate=True)
    np.testing.assert_allclose(conversion.graph.nodes["2"].value("tau_mem"), written)
    assert bool(conversion.losses) is (tau_mem != written)


def test_ratios_of_the_solver_of_jaxsnn_are_compared_with_a_tolerance():
    between = network(tau_mem=15e-3)
    convert(between, to="hxtorch")
    losses = convert(between, to="jaxsnn", approximate=True).losses
    assert "tau_mem is written as 20 ms" in losses[0]
    for tau_mem in (10 + 1e-6, 20 - 1e-6):
        assert convert(network(tau_mem=tau_mem * 1e-3), to="jaxsnn").losses == ()
    # Exactly twice, regardless of rounding in the conversion to milliseconds.
    node = convert(network(tau_mem=2 * 3.3e-3, tau_syn=3.3e-3), to="jaxsnn").graph.nodes["2"]
    assert np.all(np.asarray(node.value("tau_mem")) == 2 * np.asarray(node.value("tau_syn")))


def test_a_readout_for_hxtorch_alone():
    layers = build.linear(4), build.cubalif(**CELL), build.linear(2), build.cubali(**CELL)
    assert convert(fed(*layers), to="hxtorch").graph.nodes["4"].type == "CubaLI"


def test_the_leak_is_written_for_jaxsnn_that_starts_at_0():
    node = convert(network(v_leak=0.3), to="jaxsnn").graph.nodes["2"]
    assert np.all(np.asarray(node.value("v_leak")) == 0.3)


def wired(*chains):
    nodes = {"in": build.input(3), "out": build.output()}
    nodes |= {name: build.linear(4) for name in ("w", "v", "back")}
    nodes |= {name: build.cubalif(**CELL) for name in ("a", "b")}
    used = {name: nodes[name] for chain in chains for name in chain}
    return build.network(used, list(chains), seed=0, dialect="jaxsnn")


@pytest.mark.parametrize(
    "chains",
    [
        [("in", "w", "a", "out"), ("a", "back", "a")],
        [("in", "w", "a", "v", "b", "out"), ("in", "back", "b")],
    ],
)
def test_jaxsnn_takes_loops_and_sums(chains):
    nodes = convert(wired(*chains), to="jaxsnn").graph.nodes.values()
    assert {node.type for node in nodes} == {"Input", "Output", "Linear", "CubaLIF"}


def test_edges_come_in_the_order_in_which_they_run():
    chain = ("in", "w", "b", "v", "a", "out")
    converted = convert(wired(chain), to="hxtorch").graph
    assert converted.written_edges == tuple(itertools.pairwise(chain))


def test_populations_that_follow_each_other_get_a_matrix():
    converted = convert(wired(("in", "w", "a", "b", "out")), to="hxtorch").graph
    (between,) = converted.predecessors("b")
    assert converted.nodes[between].type == "Linear"
    np.testing.assert_array_equal(converted.nodes[between].value("weight"), np.eye(4))


def test_time_steps_become_equations_by_approximation_only():
    cell = build.cubalif(tau_mem=1e-3, tau_syn=5e-4, r=10.0, w_in=5.0)
    options = {"dialect": "snntorch", "reset": "zero", "reset_delay": False}
    conversion = convert(fed(build.linear(4), cell, **options), to="jaxsnn", approximate=True)
    assert any("is time-stepped" in loss for loss in conversion.losses)
    assert conversion.graph.nodes["2"].value("tau_mem")[0] == pytest.approx(1.0)


def test_names_that_a_dictionary_of_modules_does_not_take():
    nodes = {"in.put": build.input(3), "keys": build.linear(4), "a": build.cubalif(**CELL)}
    nodes["out"] = build.output()
    graph = build.network(nodes, [tuple(nodes)], seed=0, dialect="jaxsnn")
    assert set(convert(graph, to="hxtorch").graph.nodes) == {"in_put", "keys_", "a", "out"}


def test_files_of_hxtorch_start_at_the_leak():
    """From v_leak, one spike at 1 ms reaches 0.6 at 2.196 ms, by V' = (v_leak - V + I) / tau_mem."""
    cell = build.cubalif(tau_mem=10.0, tau_syn=5.0, v_leak=0.5, v_threshold=0.6)
    graph = fed(build.linear(1, weight=[[1.0]]), cell, size=1, dialect="hxtorch", time_unit="ms")
    event = Events(time=jnp.array([[1e-3]]), index=jnp.array([[0]]))
    first = simulate(graph, event, 20e-3).first_spike("2")
    np.testing.assert_allclose(first, [[2.1957e-3]], rtol=1e-4)
    assert convert(graph, to="hxtorch").losses == ()


@pytest.mark.parametrize(("target", "ran"), [("jaxsnn", True), ("hxtorch", False)])
def test_what_is_written_without_steps_reads_back(target, ran, tmp_path):
    conversion = convert(network(), to=target)
    assert conversion.graph.dialect.dt is None
    unrun = [note for note in conversion.notes if "based on its source code" in note]
    assert bool(unrun) is not ran
    write(tmp_path / "a.nir", conversion.graph)
    dialect = read(tmp_path / "a.nir").dialect
    assert (dialect.name, dialect.time_unit) == (target, "ms")
