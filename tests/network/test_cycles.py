"""Recurrent networks on the grid: order, delays, and what is refused."""

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
from tests.oracles.framework_steps import norse_box

STEPS, BATCH, SIZE = 30, 3, 4


def wire(name, *sources, kind="neuron"):
    return Wire(name=name, kind=kind, sources=sources, shape=(1,))


def names(group):
    return [wire.name for wire in group.wires] if isinstance(group, Cycle) else group.name


def test_cycles_are_found_where_they_are():
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
    assert [names(group) for group in groups(wires)] == [
        "in",
        ["a", "b"],
        ["c"],
        "d",
        ["e", "f", "g"],
        "out",
    ]


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
    with pytest.raises(LoweringError, match="nodes a, b form a cycle without a neuron") as caught:
        groups(wires)
    assert (caught.value.node, caught.value.problem.code) == ("a", "instant-cycle")
    assert caught.value.fix == "break it, or put one of the two into it"


def lif(size=SIZE, threshold=1.0):
    one = np.ones(size)
    return nir.LIF(tau=4 * one, r=one, v_leak=0 * one, v_threshold=threshold * one)


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


def fired(network, x):
    y = np.asarray(simulate(network, x, engine=TimeStepped()).output())
    assert 0.05 < y.mean() < 0.95
    return y


def test_a_spike_to_itself_takes_one_step():
    back = matrix(1)
    edges = [("input", "n"), ("n", "w"), ("w", "n"), ("n", "output")]
    x = inputs()
    v = spikes = np.zeros((BATCH, SIZE), np.float32)
    for number, y in enumerate(fired(network({"n": lif(), "w": nir.Linear(back)}, edges), x)):
        v, spikes = step(v, x[number] + spikes @ back.T)
        np.testing.assert_array_equal(y, spikes)


def test_a_self_loop_without_a_node_between():
    x = inputs()
    v = spikes = np.zeros((BATCH, SIZE), np.float32)
    for number, y in enumerate(
        fired(network({"n": lif()}, [("input", "n"), ("n", "n"), ("n", "output")]), x)
    ):
        v, spikes = step(v, x[number] + spikes)
        np.testing.assert_array_equal(y, spikes)


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("z", "b")])
def test_forward_in_the_same_step_back_in_the_next(first, second):
    """Two populations that feed each other, whatever their names: what the input reaches first
    steps first.
    """
    there, back = matrix(2, gain=3), matrix(3, gain=2)
    nodes = {
        first: lif(),
        second: lif(),
        "there": nir.Linear(there),
        "back": nir.Affine(back, np.full(SIZE, 0.5)),
    }
    edges = [
        ("input", first),
        (first, "there"),
        ("there", second),
        (second, "back"),
        ("back", first),
    ]
    x = inputs()
    va = vb = b = np.zeros((BATCH, SIZE), np.float32)
    for number, y in enumerate(fired(network(nodes, [*edges, (second, "output")]), x)):
        va, a = step(va, x[number] + (b @ back.T + np.float32(0.5)))
        vb, b = step(vb, a @ there.T)
        np.testing.assert_array_equal(y, b)


@pytest.mark.parametrize("delays", [[3.0] * SIZE, [1.0, 2.0, 3.0, 5.0]])
def test_a_delay_in_a_cycle_is_all_the_delay_there_is(delays):
    back = matrix(4)
    nodes = {"n": lif(), "d": nir.Delay(np.array(delays)), "w": nir.Linear(back)}
    edges = [("input", "n"), ("n", "d"), ("d", "w"), ("w", "n"), ("n", "output")]
    x = inputs()
    v, history = np.zeros((BATCH, SIZE), np.float32), np.zeros((STEPS + 5, BATCH, SIZE), np.float32)
    for number, y in enumerate(fired(network(nodes, edges), x)):
        late = np.stack(
            [history[number + 5 - int(delay), :, place] for place, delay in enumerate(delays)],
            axis=-1,
        )
        v, history[number + 5] = step(v, x[number] + late @ back.T)
        np.testing.assert_array_equal(y, history[number + 5])


def test_a_delay_of_nothing_in_a_cycle_is_refused():
    nodes = {"n": lif(), "d": nir.Delay(np.array([1.0, 2.0, 0.0, 1.0]))}
    edges = [("input", "n"), ("n", "d"), ("d", "n"), ("n", "output")]
    with pytest.raises(
        LoweringError,
        match=r"'d' \(Delay\) is part of a cycle and delays by 0 steps; the minimum is 1",
    ):
        simulate(network(nodes, edges), inputs(), engine=TimeStepped())


def test_a_node_of_the_cycle_may_feed_others():
    """What leaves recurrent weights towards the outside is of this step, towards the cycle of the
    last one.
    """
    back = matrix(1)
    edges = [("input", "n"), ("n", "w"), ("w", "n"), ("w", "output")]
    x = inputs()
    v = spikes = np.zeros((BATCH, SIZE), np.float32)
    got = np.asarray(
        simulate(
            network({"n": lif(), "w": nir.Linear(back)}, edges), x, engine=TimeStepped()
        ).output()
    )
    for number in range(STEPS):
        v, spikes = step(v, x[number] + spikes @ back.T)
        np.testing.assert_allclose(got[number], spikes @ back.T, rtol=1e-5, atol=1e-6)


def test_a_readout_in_a_cycle_feeds_its_membrane_back():
    one = np.ones(SIZE)
    nodes = {"n": lif(), "m": nir.LI(tau=4 * one, r=one, v_leak=0.5 * one), "s": nir.Scale(2 * one)}
    edges = [("input", "n"), ("n", "m"), ("m", "s"), ("s", "n"), ("m", "output")]
    x = inputs()
    v, m = np.zeros((BATCH, SIZE)), np.full((BATCH, SIZE), 0.5)
    got = np.asarray(simulate(network(nodes, edges), x, engine=TimeStepped()).output())
    for number in range(STEPS):
        v, spikes = step(v, x[number] + 2 * m)
        m = m + 0.25 * (0.5 - m + spikes)
        np.testing.assert_allclose(got[number], m, rtol=1e-4)


@given(st.permutations(["n", "w", "input", "output"]), st.sampled_from(["a.w", "0", "zz"]))
def test_neither_names_nor_their_order_matter(order, name):
    back = matrix(1)
    nodes = {
        "input": nir.Input(np.array([SIZE])),
        "n": lif(),
        "w": nir.Linear(back),
        "output": nir.Output(np.array([SIZE])),
    }
    renamed = {"w": name}
    edges = [("input", "n"), ("n", "w"), ("w", "n"), ("n", "output")]
    graph = nir.NIRGraph(
        {renamed.get(key, key): nodes[key] for key in order},
        [tuple(renamed.get(end, end) for end in edge) for edge in edges],
        type_check=False,
    )
    network = lower(parse(graph, dialect="norse", dt_export=1, dt=1.0))
    (cycle,) = [group for group in groups(network.wires) if isinstance(group, Cycle)]
    assert cycle.order == ("n",)
    assert sorted(wire.name for wire in cycle.wires) == sorted(["n", name])


def test_no_feedback_is_feedback_of_weight_zero():
    x = inputs()
    loop = network(
        {"n": lif(), "w": nir.Linear(0 * matrix(1))},
        [("input", "n"), ("n", "w"), ("w", "n"), ("n", "output")],
    )
    plain = network({"n": lif()}, [("input", "n"), ("n", "output")])
    np.testing.assert_array_equal(fired(loop, x), fired(plain, x))


def test_the_step_that_the_equations_do_not_know_is_noted():
    back = matrix(1)
    edges = [("input", "n"), ("n", "w"), ("w", "n"), ("n", "output")]
    nodes = {"n": lif(), "w": nir.Linear(back)}
    assert approximations(network(nodes, edges)) == ()
    (note,) = approximations(network(nodes, edges, dialect="nir", time_unit="s"))
    assert note.startswith("node 'n'")
    assert "one step" in note
    delayed = {"n": lif(), "d": nir.Delay(np.full(SIZE, 2e-3)), "w": nir.Linear(back)}
    edges = [("input", "n"), ("n", "d"), ("d", "w"), ("w", "n"), ("n", "output")]
    assert approximations(network(delayed, edges, dialect="nir", time_unit="s")) == ()
    beside = [*edges, ("n", "w")]
    assert len(approximations(network(delayed, beside, dialect="nir", time_unit="s"))) == 1


def test_gradients_flow_through_a_cycle_and_its_delays():
    nodes = {"n": lif(), "d": nir.Delay(np.full(SIZE, 2.0)), "w": nir.Linear(matrix(4))}
    edges = [("input", "n"), ("n", "d"), ("d", "w"), ("w", "n"), ("n", "output")]
    loop, x = network(nodes, edges), inputs()

    def loss(parameters):
        return (
            simulate(loop.with_parameters(parameters), x, engine=TimeStepped(), throw=False)
            .output()[-1]
            .sum()
        )

    slopes = jax.grad(loss)(loop.parameters)
    assert np.abs(slopes["w"]["weight"]).max() > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
