"""Notes on runs whose times look like milliseconds."""

import jax.numpy as jnp
import pytest

import jaxsnn
from jaxsnn.nir import build, initializers


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("t_end", "noted"), [(60.0, True), (20.0, False)])
def test_a_silent_run_of_thousands_of_time_constants_names_the_unit(t_end, noted):
    graph = build.sequential(
        build.input(2),
        build.linear(3, weight=initializers.constant(1e-3)),
        build.cubalif(tau_mem="20ms", tau_syn="10ms"),
        seed=0,
    )
    events = jaxsnn.Events(time=jnp.array([[0.0, 5.0]]), index=jnp.array([[0, 1]]))
    solution = jaxsnn.simulate(graph, events, t_end=t_end)
    assert ("times-in-seconds" in [note.code for note in solution.notes]) == noted


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tau", "weight", "noted"), [("10s", 1e-3, True), ("10ms", 1e-3, False), ("10s", 30.0, False)]
)
def test_a_silent_run_names_the_unit_of_long_time_constants(tau, weight, noted):
    graph = build.sequential(
        build.input(2),
        build.linear(3, weight=initializers.constant(weight)),
        build.cubalif(tau_mem=tau, tau_syn=tau),
        seed=0,
    )
    events = jaxsnn.Events(time=jnp.array([[1.0, 2.0]]), index=jnp.array([[0, 1]]))
    solution = jaxsnn.simulate(graph, events, t_end=100.0)
    codes = [note.code for note in solution.notes]
    assert ("time-constant" in codes) == noted
