"""What a population sends to itself, as NIR has it: spikes and gradients are those of the weights turned
and scaled before, and no number gets lost on the way.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, Result, lower, simulate
from jaxsnn.event import populations
from jaxsnn.event.native import native_weights
from jaxsnn.event.native.native_build import target_name
from jaxsnn.event.native.native_group import ByTarget, native_group_spikes
from jaxsnn.nir import build
from tests.event.agreement import assert_trees_close, assert_trees_equal, finite_times
from tests.event.group_cases import CASES, SPARSE, T_END, Group

pytestmark = pytest.mark.usefixtures("native_kernels")

GROUPS = {
    **{name: SPARSE[name] for name in ("at once", "at once and later", "once")},
    "held": CASES["held"],
    # Full and partial vectors, sparse and dense rows.
    "mixed": Group(sizes=(81,), edges=((0, 0, "none"),), share=0.06, max_events=900),
    "hub": Group(sizes=(65,), edges=((0, 0, "none"),), share=0.06, max_events=900),
    "dense": Group(sizes=(70,), edges=((0, 0, "none"),), max_events=900),
    "own": Group(
        sizes=(75,), edges=((0, 0, "none"),), share=0.05, heterogeneous=True, max_events=900
    ),
}


def drawn(name, dtype=jnp.float64):
    """Numbers whose first feedback is (targets, sources) and a factor for each target."""
    group, rng = GROUPS[name], np.random.default_rng(5)
    (outside, feedback, lanes), rows = group.numbers(dtype=dtype)
    (weight, _), *later = feedback
    if name == "mixed":
        weight = weight.at[3].set(0.02).at[77].set(0.0)
    elif name == "hub":
        weight = weight.at[:, 0].set(0.01)
    elif name == "dense":
        weight = 0.1 * weight  # with larger weights all neurons fire all the time
    scale = jnp.asarray(rng.uniform(0.5, 1.5, len(weight)), dtype)
    return group.spec(), (outside, ByTarget(weight.T / scale[:, None], scale), later, lanes), rows


def sum_of_times(spec, rows, threads, apart, numbers):
    """A sum over all spike times; the spikes, and what the kernel reports of its numbers.

    Args:
        apart: weights and their scale are given to the kernel, which turns them.
    """
    outside, by_target, later, lanes = numbers
    first = by_target if apart else by_target.weight.T * by_target.scale
    arrivals = tuple((*weights, row) for weights, row in zip(outside, rows, strict=True))
    feedback = ((first, None), *map(tuple, later))
    group, numbers = native_group_spikes(spec, threads, arrivals, feedback, tuple(lanes), T_END)
    ((time, neuron),) = group.trains
    return jnp.sum(jnp.sin(1.0 + neuron) * finite_times(time) ** 2), (group, numbers)


@pytest.mark.parametrize("name", GROUPS)
def test_weights_turned_by_the_kernel_give_what_weights_turned_before_give(name, x64):
    spec, numbers, rows = drawn(name)

    def spikes_and_gradient(threads, apart):
        value = partial(sum_of_times, spec, rows, threads, apart)
        (_, (group, _)), gradient = jax.jit(jax.value_and_grad(value, has_aux=True))(numbers)
        return group, gradient

    expected, expected_gradient = spikes_and_gradient(1, False)
    assert int(expected.events_needed.sum()) > 60
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(expected_gradient[1]))
    for threads in (1, 2):
        group, gradient = spikes_and_gradient(threads, True)
        assert_trees_equal(group, expected)
        assert_trees_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["at once", "mixed", "dense"])
def test_a_product_that_is_not_finite_is_noticed(name):
    spec, (outside, (weight, scale), later, lanes), rows = drawn(name, jnp.float32)
    run = jax.jit(partial(sum_of_times, spec, rows, 2, True))

    def nan_or_zero(weight, scale):
        return run((outside, ByTarget(weight, scale), later, lanes))[1][1][1]

    assert nan_or_zero(weight, scale) == 0
    for place in ((1, 2), (-1, -1), (4, 3)):
        assert np.isnan(nan_or_zero(weight.at[place].set(np.nan), scale))
        assert np.isnan(nan_or_zero(weight.at[place].set(1e30), scale.at[place[0]].set(1e30)))


def test_shapes_that_do_not_fit_are_errors():
    def call(by_target, scale, immediate=True, nothing=()):
        real, integer = (partial(jax.ShapeDtypeStruct, dtype=kind) for kind in ("float32", "int32"))
        slots, train, steps, listed = (1, 4, 2), (1, 3), (1, 6), (1, 5)
        results = [
            real(slots),
            real(slots),
            integer((1, 4)),
            real(train),
            integer(train),
            integer((1,)),
        ]
        results += [real(steps), integer(steps), real(steps), integer((1,)), integer((1, 0))]
        results += [real(listed), integer(listed), integer(listed), integer((1,)), real(nothing)]
        lanes = jnp.ones((6, 1, 4)).at[2:4].set(0)
        no_lists = jnp.zeros(0, jnp.int32)
        return jax.ffi.ffi_call(target_name("jaxsnn_group_forward", "float32"), results)(
            *(jnp.ones((2, 4)), no_lists, no_lists, by_target, scale, lanes, jnp.zeros((1, 5))),
            *(jnp.zeros((1, 5), jnp.int32), jnp.float32(1), jnp.zeros(0)),
            *(jnp.zeros(0, jnp.int32), jnp.zeros(0)),
            max_spikes=np.int64(2),
            once=False,
            subtract=False,
            immediate=immediate,
            threads=np.int64(1),
        )

    assert len(call(jnp.ones((4, 4)), jnp.ones(4))) == 16
    for shape, size in (((4, 3), 4), ((3, 3), 3), ((4, 4), 3), ((16,), 4), ((0, 4), 4)):
        with pytest.raises(Exception, match="targets"):
            call(jnp.ones(shape), jnp.ones(size))
    with pytest.raises(Exception, match="targets"):
        call(jnp.ones((4, 4)), jnp.ones(4), immediate=False)
    with pytest.raises(Exception, match="types"):
        call(jnp.ones((4, 4), jnp.int32), jnp.ones(4))
    with pytest.raises(Exception, match="shape"):
        call(jnp.ones((4, 4)), jnp.ones(4), nothing=(1,))


# -- in a network


def network(more=None, ways=()):
    """Two populations, the first of which feeds back into itself through one matrix, and more."""
    rng = np.random.default_rng(1)
    neurons = {"tau_mem": "10ms", "tau_syn": "5ms"}
    nodes = {
        "in": build.input(12),
        "to": build.linear(weight=rng.normal(0.4, 0.8, (9, 12))),
        "hidden": build.cubalif(9, **neurons),
        "recurrent": build.linear(weight=rng.normal(0, 0.2, (9, 9))),
        "on": build.linear(weight=rng.normal(0.5, 0.8, (4, 9))),
        "out": build.cubalif(4, **neurons),
        **(more or {}),
    }
    first = ("in", "to", "hidden", "on", "out"), ("hidden", "recurrent", "hidden")
    return lower(build.network(nodes, [*first, *ways]))


def some_events():
    rng = np.random.default_rng(2)
    time = np.sort(rng.uniform(0, 0.05, (3, 60)), axis=1)
    index = rng.integers(0, 12, (3, 60))
    return Events(time=jnp.asarray(time, jnp.float32), index=jnp.asarray(index, jnp.int32))


def both_ways(net, monkeypatch):
    """Spike times of the first population, its weights taken as NIR has them where they are, and
    turned before in any case.
    """
    times = []
    for threads, own_matrix in ((1, native_weights.own_matrix), (2, lambda *_: None)):
        monkeypatch.setattr(populations, "own_matrix", own_matrix)
        # Different engines share no compiled program.
        engine = EventDriven(backend="native", max_spikes=100, threads=threads)
        times.append(simulate(net, some_events(), 0.06, engine=engine).spikes["hidden"].time)
    return times


def test_which_matrix_stands_alone():
    assert native_weights.own_matrix(network(), "hidden") == "recurrent"
    assert native_weights.own_matrix(network(), "out") is None
    net = network({"own": build.linear(weight=0.1 * np.eye(4))}, [("out", "own", "out")])
    assert native_weights.own_matrix(net, "out") == "own"
    assert native_weights.own_matrix(net, "hidden") == "recurrent"


_SMALL = np.random.default_rng(3).normal(0, 0.15, (3, 9))
SECOND = {
    "a spike itself": ({}, [("hidden", "hidden")]),
    "a matrix": ({"a": build.linear(weight=0.1 * np.eye(9))}, [("hidden", "a", "hidden")]),
    "a scale": ({"a": build.scale(np.full(9, 0.1))}, [("hidden", "a", "hidden")]),
    "two matrices": (
        {"a": build.linear(weight=_SMALL), "b": build.linear(weight=_SMALL.T)},
        [("hidden", "a", "b", "hidden")],
    ),
    "a matrix before the matrix": (
        {"a": build.linear(weight=0.1 * np.eye(9))},
        [("hidden", "a", "recurrent")],
    ),
}


@pytest.mark.parametrize("name", SECOND)
def test_feedback_by_a_second_path_is_added(name, monkeypatch):
    net = network(*SECOND[name])
    assert native_weights.own_matrix(net, "hidden") is None
    times, expected = both_ways(net, monkeypatch)
    assert not np.array_equal(expected, both_ways(network(), monkeypatch)[0])
    np.testing.assert_array_equal(times, expected)


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "int32"])
def test_weights_of_other_types_are_turned_before(kind, monkeypatch):
    net = network()
    weight = (3 * net.parameters["recurrent"]["weight"]).astype(kind)
    net = net.with_parameters({**net.parameters, "recurrent": {"weight": weight}})
    times, expected = both_ways(net, monkeypatch)
    assert np.isfinite(times).sum() > 20
    np.testing.assert_array_equal(times, expected)


def test_a_weight_that_overflows_ends_the_run():
    net = network()
    events = Events(time=jnp.asarray([[1e-3]]), index=jnp.asarray([[0]]))
    engine = EventDriven(backend="native")

    initial_weight, initial_r = net.parameters["recurrent"]["weight"], net.parameters["hidden"]["r"]
    large_weight, large_r = initial_weight.at[5, 2].set(3e38), initial_r.at[5].set(1e9)
    for weight, r, result in (
        (initial_weight, initial_r, Result.SUCCESS),
        (large_weight, large_r, Result.NOT_FINITE),
        (initial_weight, large_r, Result.SUCCESS),
    ):
        overrides = {
            "recurrent": {"weight": weight},
            "hidden": {**net.parameters["hidden"], "r": r},
        }
        changed = net.with_parameters({**net.parameters, **overrides})
        assert simulate(changed, events, 0.02, engine=engine, throw=False).result == result
