"""Loops without a neuron: weights that feed themselves, as importers run them step by step."""

import nir
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, TimeStepped, check, lower, simulate
from jaxsnn.errors import LoweringError
from jaxsnn.nir import dialect_of, parse
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.model.loops import late_edges, stepped_loops
from tests.helpers.refusals import assert_refused
from tests.nir.conversions import played

SIZE, STEPS = 3, 12
OPTIONS = {
    "norse": {"dialect": "norse", "dt": 1e-3, "dt_export": 1.0},
    "norse==importer": {"dialect": "norse==importer", "dt": 1e-3},
    "snntorch": {"dialect": "snntorch", "reset": "zero", "reset_delay": False},
    "spikingjelly": {"dialect": "spikingjelly", "dt": 1e-4},
}


def remembering(dialect, first="in"):
    """y = x + 0.5 y' of the step before, and nothing else."""
    nodes = {
        first: nir.Input(np.array([SIZE])),
        "y": nir.Affine(np.eye(SIZE, dtype=np.float32), np.full(SIZE, 0.25, np.float32)),
        "leak": nir.Linear(0.5 * np.eye(SIZE, dtype=np.float32)),
        "out": nir.Output(np.array([SIZE])),
    }
    edges = [(first, "y"), ("y", "leak"), ("leak", "y"), ("y", "out")]
    return parse(nir.NIRGraph(nodes, edges, type_check=False), **OPTIONS[dialect])


@pytest.mark.parametrize("dialect", OPTIONS)
def test_weights_that_feed_themselves_remember(dialect):
    graph = remembering(dialect)
    x = np.random.default_rng(0).normal(size=(STEPS, 2, SIZE)).astype(np.float32)
    output = np.asarray(simulate(lower(graph), x, engine=TimeStepped(dt=1e-3)).output())
    expected = np.zeros((2, SIZE))
    for x_now, y in zip(x, output, strict=True):
        expected = x_now + 0.25 + 0.5 * expected
        np.testing.assert_allclose(y, expected, rtol=1e-5)
    assert check(graph, "grid").ok


def test_the_event_engine_refuses_them():
    graph = remembering("norse")
    problems = check(graph, "event").problems
    (problem,) = [problem for problem in problems if problem.code == "instant-cycle"]
    assert problem.node == "y"
    assert "leak" in problem.message
    assert "TimeStepped()" in problem.fix
    silence = Events(time=np.full((1, 1), np.inf), index=np.full((1, 1), SIZE))
    run = lambda: simulate(lower(graph), silence, t_end=1e-2, engine=EventDriven())  # noqa: E731
    assert_refused(run, LoweringError, "form a cycle without a neuron")


def crossed(dialect, edges):
    nodes = {"input": nir.Input(np.array([SIZE])), "z": nir.Output(np.array([SIZE]))}
    nodes |= {name: nir.Linear(np.eye(SIZE, dtype=np.float32)) for name in ("a", "b")}
    return parse(nir.NIRGraph(nodes, edges, type_check=False), **OPTIONS[dialect])


def test_the_order_is_that_of_the_importer():
    """b is reached before a along the edges; by their names both are fed, and a runs first."""
    edges = [("input", "b"), ("b", "a"), ("a", "b"), ("input", "a"), ("a", "z")]
    assert stepped_loops(crossed("norse", edges)) == (("b", "a"),)
    assert late_edges(crossed("norse", edges)) == (("a", "b"),)
    assert late_edges(crossed("snntorch", edges)) == (("b", "a"),)
    # A node with a single input waits for it.
    edges.remove(("input", "a"))
    assert late_edges(crossed("snntorch", edges)) == (("a", "b"),)


def test_other_dialects_refuse_them():
    graph = remembering("norse").with_dialect(dialect_of("nir", time_unit="s"))
    assert stepped_loops(graph) == ()
    assert_refused(lambda: lower(graph), LoweringError, "no neurons")


@pytest.mark.parametrize("target", ["norse", "snntorch", "spikingjelly"])
def test_they_convert_and_keep_their_order(target):
    graph = remembering("norse==importer")
    x = np.random.default_rng(0).normal(size=(STEPS, 2, SIZE)).astype(np.float32)
    y = played(convert(graph, to=target).graph, x)
    np.testing.assert_allclose(y, played(graph, x), rtol=1e-6)
