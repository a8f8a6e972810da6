"""Recurrent networks on the grid: order, delays, and what is refused."""

import itertools

import jax
import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsnn import TimeStepped, lower, simulate
from jaxsnn.errors import LoweringError
from jaxsnn.grid.stepped_solution import approximations
from jaxsnn.network.cycles import Cycle, groups
from jaxsnn.network.structure import Wire
from jaxsnn.nir import parse
from tests.helpers.refusals import assert_refused
from tests.oracles.framework_steps import norse_box

STEPS, BATCH, SIZE = 30, 3, 4


def wire(name, *sources, kind="neuron"):
    return Wire(name=name, kind=kind, sources=sources, shape=(1,))


def node_names(group):
    return [wire.name for wire in group.wires] if isinstance(group, Cycle) else group.name


def test_cycles_are_detected():
    wires = [
        wire("in", kind="input"),
        wire("a", "in", "b"),
        wire("b", "a"),
        wire("c", "b", "c"),
        wire("d", "c", kind="Linear"),
        wire("e", "d", "g"),
        wire("f", "e", kind="Linear"),
        wire("g", "f"),
        wire("out", "g", kind="output"),
    ]
    expected = ["in", ["a", "b"], ["c"], "d", ["e", "f", "g"], "out"]
    assert [node_names(group) for group in groups(wires)] == expected


@pytest.mark.parametrize(("b", "c"), [("b", "c"), ("c", "b")])
def test_neurons_step_along_the_edges(b, c):
    """Fed are x; from it lead x -> b -> c and x -> c, and from c back to x."""
    wires = sorted([wire(b, "x"), wire(c, "x", b), wire("x", "in", c)], key=lambda wire: wire.name)
    (cycle,) = groups([wire("in", kind="input"), *wires])[1:]
    assert isinstance(cycle, Cycle)
    assert cycle.order == ("x", b, c)


def test_a_cycle_in_which_nothing_takes_time_is_refused():
    wires = [
        wire("in", kind="input"),
        wire("a", "in", "b", kind="Scale"),
        wire("b", "a", kind="Linear"),
        wire("n", "b"),
    ]
    assert_refused(
        lambda: groups(wires),
        LoweringError,
        "nodes a, b form a cycle without a neuron",
        node="a",
        code="instant-cycle",
        fix="break the cycle, or insert a neuron or a Delay",
    )


def lif(size=SIZE, threshold=1.0):
    ones = np.ones(size)
    return nir.LIF(tau=4 * ones, r=ones, v_leak=0 * ones, v_threshold=threshold * ones)


def matrix(seed, gain=1.0):
    return (gain * np.random.default_rng(seed).normal(size=(SIZE, SIZE))).astype(np.float32)


def network(nodes, edges, dialect="norse", **options):
    options = {"dt_export": 1, "dt": 1.0} if dialect == "norse" else options
    nodes = {"input": nir.Input(np.array([SIZE])), **nodes, "output": nir.Output(np.array([SIZE]))}
    return lower(parse(nir.NIRGraph(nodes, edges, type_check=False), dialect=dialect, **options))


def step(v, x):
    """One step of Norse's box neuron with tau of four steps: membrane and spikes."""
    return norse_box(v, x, rate=0.25, threshold=1)


def inputs(seed=0):
    return np.random.default_rng(seed).poisson(2.0, size=(STEPS, BATCH, SIZE)).astype(np.float32)


LOOP = [("input", "n"), ("n", "w"), ("w", "n"), ("n", "output")]


def played(network, x):
    return np.asarray(simulate(network, x, engine=TimeStepped()).output())


def fired(network, x):
    y = played(network, x)
    assert 0.05 < y.mean() < 0.95
    return y


@pytest.mark.parametrize(
    ("nodes", "edges", "back"),
    [
        ({"w": nir.Linear(matrix(1))}, LOOP, matrix(1)),
        ({}, [("input", "n"), ("n", "n"), ("n", "output")], np.eye(SIZE, dtype=np.float32)),
    ],
    ids=["weights", "no node between"],
)
def test_a_spike_to_itself_takes_one_step(nodes, edges, back):
    x = inputs()
    v = spikes = np.zeros((BATCH, SIZE), np.float32)
    for x_now, y in zip(x, fired(network({"n": lif(), **nodes}, edges), x), strict=True):
        v, spikes = step(v, x_now + spikes @ back.T)
        np.testing.assert_array_equal(y, spikes)


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("z", "b")])
def test_forward_in_the_same_step_back_in_the_next(first, second):
    """Two populations that feed each other, whatever their names: what the input reaches first
    steps first.
    """
    there, back = matrix(2, gain=3), matrix(3, gain=2)
    bias = np.full(SIZE, 0.5, np.float32)
    nodes = {first: lif(), second: lif()}
    nodes |= {"there": nir.Linear(there), "back": nir.Affine(back, bias)}
    chain = ["input", first, "there", second, "back", first]
    edges = [*itertools.pairwise(chain), (second, "output")]
    x = inputs()
    va = vb = b = np.zeros((BATCH, SIZE), np.float32)
    for x_now, y in zip(x, fired(network(nodes, edges), x), strict=True):
        va, a = step(va, x_now + (b @ back.T + bias))
        vb, b = step(vb, a @ there.T)
        np.testing.assert_array_equal(y, b)


@pytest.mark.parametrize("delays", [[3.0] * SIZE, [1.0, 2.0, 3.0, 5.0]])
def test_a_delay_in_a_cycle_is_all_the_delay_there_is(delays):
    back = matrix(4)
    nodes = {"n": lif(), "d": nir.Delay(np.array(delays)), "w": nir.Linear(back)}
    x, channel = inputs(), np.arange(SIZE)
    v, history = np.zeros((BATCH, SIZE), np.float32), np.zeros((STEPS + 5, BATCH, SIZE), np.float32)
    for number, y in enumerate(fired(network(nodes, DELAYED), x), 5):
        late = history[number - np.int64(delays), :, channel].T
        v, history[number] = step(v, x[number - 5] + late @ back.T)
        np.testing.assert_array_equal(y, history[number])


def test_a_delay_of_nothing_in_a_cycle_is_refused():
    nodes = {"n": lif(), "d": nir.Delay(np.array([1.0, 2.0, 0.0, 1.0]))}
    edges = [("input", "n"), ("n", "d"), ("d", "n"), ("n", "output")]
    says = r"'d' \(Delay\) is part of a cycle and delays by 0 time steps; the minimum is 1"
    run = lambda: played(network(nodes, edges), inputs())  # noqa: E731
    assert_refused(run, LoweringError, says, node="d", fix="increase its delay")


def test_a_node_of_the_cycle_may_feed_others():
    """What leaves recurrent weights towards the outside is of this step, towards the cycle of the
    last one.
    """
    back, x = matrix(1), inputs()
    v = spikes = np.zeros((BATCH, SIZE), np.float32)
    loop = network({"n": lif(), "w": nir.Linear(back)}, [*LOOP[:3], ("w", "output")])
    for x_now, y in zip(x, played(loop, x), strict=True):
        v, spikes = step(v, x_now + spikes @ back.T)
        np.testing.assert_allclose(y, spikes @ back.T, rtol=1e-5, atol=1e-6)


def test_a_readout_in_a_cycle_feeds_its_membrane_back():
    ones, x = np.ones(SIZE), inputs()
    nodes = {
        "n": lif(),
        "m": nir.LI(tau=4 * ones, r=ones, v_leak=0.5 * ones),
        "s": nir.Scale(2 * ones),
    }
    edges = [("input", "n"), ("n", "m"), ("m", "s"), ("s", "n"), ("m", "output")]
    v, m = np.zeros((BATCH, SIZE)), np.full((BATCH, SIZE), 0.5)
    for x_now, y in zip(x, played(network(nodes, edges), x), strict=True):
        v, spikes = step(v, x_now + 2 * m)
        m = m + 0.25 * (0.5 - m + spikes)
        np.testing.assert_allclose(y, m, rtol=1e-4)


@given(st.permutations(["n", "w", "input", "output"]), st.sampled_from(["a.w", "0", "zz"]))
def test_neither_names_nor_their_order_matter(order, name):
    nodes = {
        "input": nir.Input(np.array([SIZE])),
        "n": lif(),
        "w": nir.Linear(matrix(1)),
        "output": nir.Output(np.array([SIZE])),
    }
    renamed = {"w": name}
    graph = nir.NIRGraph(
        {renamed.get(key, key): nodes[key] for key in order},
        [tuple(renamed.get(end, end) for end in edge) for edge in LOOP],
        type_check=False,
    )
    network = lower(parse(graph, dialect="norse", dt_export=1, dt=1.0))
    (cycle,) = [group for group in groups(network.wires) if isinstance(group, Cycle)]
    assert cycle.order == ("n",)
    assert sorted(node_names(cycle)) == sorted(["n", name])


def test_no_feedback_is_feedback_of_weight_zero():
    x = inputs()
    loop = network({"n": lif(), "w": nir.Linear(0 * matrix(1))}, LOOP)
    plain = network({"n": lif()}, [("input", "n"), ("n", "output")])
    np.testing.assert_array_equal(fired(loop, x), fired(plain, x))


DELAYED = [("input", "n"), ("n", "d"), ("d", "w"), ("w", "n"), ("n", "output")]


def test_the_step_that_the_equations_do_not_know_is_noted():
    nodes, literal = {"n": lif(), "w": nir.Linear(matrix(1))}, {"dialect": "nir", "time_unit": "s"}
    delayed = {**nodes, "d": nir.Delay(np.full(SIZE, 2e-3))}
    assert approximations(network(nodes, LOOP)) == ()
    assert approximations(network(delayed, DELAYED, **literal)) == ()
    for loop in (
        network(nodes, LOOP, **literal),
        network(delayed, [*DELAYED, ("n", "w")], **literal),
    ):
        (note,) = approximations(loop)
        assert note.startswith("node 'n'")
        assert "one time step later" in note


def test_gradients_flow_through_a_cycle_and_its_delays():
    nodes = {"n": lif(), "d": nir.Delay(np.full(SIZE, 2.0)), "w": nir.Linear(matrix(4))}
    loop = network(nodes, DELAYED)

    def loss(parameters):
        changed = loop.with_parameters(parameters)
        return simulate(changed, inputs(), engine=TimeStepped(), throw=False).output()[-1].sum()

    slopes = jax.grad(loss)(loop.parameters)
    assert np.abs(slopes["w"]["weight"]).max() > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
