"""The reference against closed forms and a published example."""

import numpy as np
import pytest

from jaxsnn.conformance.reference import MEANINGS, Convention, conventions, run_reference
from jaxsnn.nir import build

DT = 1e-4
#: Input spikes of NIR's example of a LIF neuron: time steps.
STEPS = (
    *(60, 220, 270, 310, 320, 350, 370, 400, 410, 430, 440, 450, 460, 470, 480, 490, 500, 510, 520),
    *(530, 670, 680, 690, 700, 710, 720, 730, 740, 750, 760, 770, 780, 840, 850),
)


def example():
    """NIR's example, and its input (1000, 1, 1)."""
    neuron = build.lif(tau=2.5e-3, r=1.0, v_threshold=0.1)
    graph = build.sequential(build.input(1), neuron, dialect="nir", time_unit="s")
    x = np.zeros((1000, 1, 1))
    x[list(STEPS)] = 1
    return graph, x


def spike_steps(graph, x, convention, dt=DT):
    return np.flatnonzero(run_reference(graph, x, dt, convention).output[:, 0, 0]).tolist()


def test_a_spike_is_a_current_that_lasts_one_step():
    """The crossings of the exact solution are at 460.84, 510.90, 710.92 and 760.91 steps."""
    graph, x = example()
    assert spike_steps(graph, x, Convention(decay="exact")) == [460, 510, 710, 760]


def test_a_spike_that_is_a_jump_arrives_at_once():
    graph, x = example()
    graph = graph.with_nodes({"1": graph.nodes["1"].replace(r=np.array([DT / 2.5e-3]))})
    assert spike_steps(graph, x, Convention(decay="exact", spike="jump")) == [450, 500, 710, 760]


@pytest.mark.parametrize(
    ("decay", "factor"), [("euler", 1 - DT / 2e-3), ("exact", np.exp(-DT / 2e-3))]
)
def test_a_membrane_decays(decay, factor):
    graph = build.sequential(build.input(1), build.li(tau=2e-3), dialect="nir", time_unit="s")
    x = np.zeros((5, 1, 1))
    x[0] = 1
    y = run_reference(graph, x, DT, Convention(decay=decay)).output[:, 0, 0]
    np.testing.assert_allclose(y, (1 - factor) * factor ** np.arange(5), rtol=1e-12)


@pytest.mark.parametrize(
    ("convention", "steps"),
    [
        (Convention(), [1, 3, 5, 7]),
        (Convention(reset="subtract"), [1, 2, 4, 5, 7]),
        (Convention(reset="subtract", reset_time="after input"), [1, 2, 4, 5, 7]),
        (Convention(reset_time="after input"), [1, 4, 7]),
        (Convention(output="next step"), [2, 4, 6]),
    ],
)
def test_resets(convention, steps):
    """An IF neuron that receives 0.7 in each step, and fires above 1."""
    neuron = build.integrate_and_fire(r=1 / DT, v_threshold=1.0)
    graph = build.sequential(build.input(1), neuron, dialect="nir", time_unit="s")
    assert spike_steps(graph, np.full((8, 1, 1), 0.7), convention) == steps


@pytest.mark.parametrize(
    ("reset_time", "steps"),
    [
        ("at once", [1, 3, 5]),
        ("before decay", [1, 3, 5]),
        ("after input", [1, 4]),
        ("unless above", [1, 3, 5]),
    ],
)
def test_when_a_decaying_neuron_subtracts(reset_time, steps):
    """A neuron that keeps half of V, receives 0.79 in each step, and fires above 1.

    V is 0.79 and 1.185; then 0.8825 and 1.231 if 1 is subtracted before the decay, and 0.3825, 0.981
    and 1.28 if it is subtracted after it.
    """
    neuron = build.lif(tau=2 * DT, r=2.0, v_threshold=1.0)
    graph = build.sequential(build.input(1), neuron, dialect="nir", time_unit="s")
    convention = Convention(reset="subtract", reset_time=reset_time)
    assert spike_steps(graph, np.full((6, 1, 1), 0.79), convention) == steps


def test_a_recurrent_spike_arrives_one_step_later():
    nodes = {
        "input": build.input(1),
        "neuron": build.integrate_and_fire(r=1 / DT, v_threshold=1.0),
        "loop": build.linear(weight=np.array([[0.5]])),
        "output": build.output(),
    }
    chains = [("input", "neuron", "output"), ("neuron", "loop", "neuron")]
    graph = build.network(nodes, chains, dialect="nir", time_unit="s")
    x = np.zeros((6, 1, 1))
    x[0], x[3] = 1.5, 0.4
    assert spike_steps(graph, x, Convention()) == [0]
    graph = graph.with_nodes({"loop": graph.nodes["loop"].replace(weight=np.array([[1.1]]))})
    assert spike_steps(graph, x, Convention()) == [0, 1, 2, 3, 4, 5]


def test_the_literal_reading_comes_first_and_irrelevant_decisions_are_left_out():
    graph, _ = example()
    candidates = list(conventions(graph))
    assert candidates[0] == Convention()
    assert len({*candidates}) == len(candidates)
    assert {convention.current for convention in candidates} == {"new"}
    assert {convention.decay for convention in candidates} == {*MEANINGS["decay"]}


def test_what_rounding_may_decide_is_marked():
    neuron = build.integrate_and_fire(r=1 / DT, v_threshold=1.0)
    graph = build.sequential(build.input(1), neuron, dialect="nir", time_unit="s")
    x = np.zeros((4, 2, 1))
    x[1] = [[1 + 1e-7], [1.1]]
    decided = run_reference(graph, x, DT, Convention()).decided
    assert decided.T.tolist() == [[True, False, False, False], [True, True, True, True]]
