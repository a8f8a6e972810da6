"""Convolutions, pools, fan-in and delays event by event, against matrices and against shifted
inputs.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.errors import SimulationError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.signals import signals
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Population, TauShape
from jaxsnn.simulation.retry import with_enough_room
from jaxsnn.simulation.simulate import simulate
from tests.event.agreement import finite_times
from tests.event.differences import ENOUGH, some_relative_errors
from tests.event.draft import Draft, with_matrices
from tests.helpers.refusals import assert_refused
from tests.oracles.linear_nodes import convolution

T_END, SAMPLES, EVENTS = 6.0, 2, 30
ENGINE = EventDriven(max_spikes=40, max_events=600, max_arrivals=800)

pytestmark = pytest.mark.usefixtures("x64")


def deep(groups=1):
    """Convolutions with strides, padding and groups, pools, a Flatten that keeps channels last,
    fan-in, a skip.
    """
    draft = Draft(groups, (2, 7, 8))
    frame = {"kernel": (3, 2), "stride": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2)}
    draft.window("conv", "Conv2d", "in", (4, 3, 8), scale=float(groups), groups=groups, **frame)
    draft.fire("first", "conv", (4, 3, 8))
    halved = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 1), (0, 0))}
    draft.window("sum", "SumPool2d", "first", (4, 2, 4), **halved)
    draft.window("mean", "AvgPool2d", "first", (4, 2, 7), kernel=(2, 2))
    draft.window("conv 2", "Conv2d", "mean", (2, 2, 4), kernel=(1, 4), scale=1.5)
    draft.add("skip", "Flatten", "sum", (32,))
    draft.add("narrow", "Linear", "skip", (16,), weight=draft.rng.normal(0.1, 0.3, (16, 32)))
    draft.fire("second", ("conv 2", "narrow"), (2, 2, 4))
    draft.add("scale", "Scale", "second", (2, 2, 4), scale=draft.rng.uniform(0.8, 1.2, 16))
    draft.add("flat", "Flatten", "scale", (16,), detail=(1, 2, 0))
    affine = {"weight": draft.rng.normal(0.4, 0.5, (5, 16)), "bias": draft.rng.normal(size=5)}
    draft.add("dense", "Affine", "flat", (5,), **affine)
    draft.fire("last", "dense", (5,))
    return draft.network()


def line():
    """A Conv1d, linear nodes one after the other without neurons between them, and an identity."""
    draft = Draft(4, (3, 12))
    draft.window("conv", "Conv1d", "in", (4, 10), kernel=(3,), scale=0.8)
    draft.window("conv 2", "Conv1d", "conv", (2, 4), kernel=(4,), stride=(2,), scale=0.4)
    draft.fire("first", "conv 2", (2, 4), spike_kernel="box", dt=0.3, spike_area=0.3)
    draft.fire("same", "first", (2, 4))
    draft.window("conv 3", "Conv1d", "same", (3, 3), kernel=(2,), scale=1.5)
    draft.add("scale", "Scale", "conv 3", (3, 3), scale=draft.rng.uniform(0.8, 1.2, 9))
    draft.add("dense", "Linear", "scale", (6,), weight=draft.rng.normal(0.2, 0.6, (6, 9)))
    draft.fire("last", "dense", (6,))
    return draft.network()


def small():
    """A convolution and a pool."""
    draft = Draft(5, (1, 4, 4))
    draft.window("conv", "Conv2d", "in", (2, 3, 3), kernel=(2, 2), scale=2.0)
    draft.fire("first", "conv", (2, 3, 3), tau_shape=TauShape.DOUBLE)
    draft.window("sum", "SumPool2d", "first", (2, 1, 1), kernel=(3, 3))
    draft.fire("last", "sum", (2, 1, 1), tau_shape=TauShape.DOUBLE)
    return draft.network()


NETS = {"small": small, "deep": deep, "groups": lambda: deep(2), "line": line}
NAMES = ["deep", *(pytest.param(name, marks=pytest.mark.slow) for name in ("groups", "line"))]


def inputs(network, seed=0):
    rng = np.random.default_rng(seed)
    index = rng.integers(0, next(iter(network.inputs.values())), (SAMPLES, EVENTS))
    return Events(
        time=jnp.asarray(rng.uniform(0, 4, (SAMPLES, EVENTS))), index=jnp.asarray(index, jnp.int32)
    )


def spikes_of(network, events, t_end=T_END, engine=ENGINE, **options):
    return simulate(network, events, t_end, engine=engine, **options).spikes


@pytest.mark.parametrize("name", NAMES)
def test_events_give_what_matrices_give(name):
    network = NETS[name]()
    events = inputs(network)
    expected = spikes_of(with_matrices(network), events)
    for population, spikes in spikes_of(network, events).items():
        reference = expected[population]
        assert spikes.count.sum() > 10, population
        np.testing.assert_array_equal(spikes.count, reference.count)
        np.testing.assert_allclose(spikes.time, reference.time, rtol=1e-11)
        np.testing.assert_allclose(spikes.slope, reference.slope, rtol=1e-7)


@pytest.mark.parametrize("groups", [1, 2])
def test_matrices_are_what_the_convolution_does(groups):
    network = deep(groups)
    window = next(wire.detail for wire in network.wires if wire.name == "conv")
    matrix = signals(network)["first"].matrices(network.dtype)["in"]
    image = np.random.default_rng(1).normal(size=(2, 7, 8))
    expected = jax.lax.conv_general_dilated(
        image[None],
        network.parameters["conv"]["weight"],
        window.stride,
        window.padding,
        rhs_dilation=window.dilation,
        feature_group_count=groups,
    )
    np.testing.assert_allclose(image.reshape(-1) @ matrix, expected.reshape(-1), atol=1e-12)


@pytest.mark.parametrize(
    "name",
    ["small", *(pytest.param(name, marks=pytest.mark.slow) for name in ("deep", "groups", "line"))],
)
def test_gradients_agree_with_central_differences(name):
    network = NETS[name]()
    rng = np.random.default_rng(7)
    weights = {
        name: jnp.asarray(rng.normal(size=(SAMPLES, population.size, 40)))
        for name, population in network.populations.items()
    }

    def functional(name, times):
        return jnp.sum(weights[name] * finite_times(times))

    assert_gradients_agree(network, functional, rng, per_leaf=4, compared=45)


def assert_gradients_agree(network, functional, rng, *, per_leaf, compared):
    """Compare some derivatives of a sum over populations with central differences."""
    events = inputs(network)

    def loss(arguments):
        parameters, time = arguments
        train = Events(time=time, index=events.index)
        spikes = spikes_of(network.with_parameters(parameters), train, throw=False)
        total = sum(functional(name, train.time) for name, train in spikes.items())
        return total, {name: train.count for name, train in spikes.items()}

    errors = some_relative_errors(loss, (network.parameters, events.time), rng, per_leaf=per_leaf)
    assert len(errors) > compared
    assert errors.max() < ENOUGH


# Delays


def delayed(kind, delay):
    """5 inputs, Linear, neurons, with a Delay before or behind the Linear, or a delay for each
    synapse.
    """
    draft = Draft(11, (5,))
    weight = draft.rng.normal(0.9, 0.8, (4, 5))
    if kind == "synapses":
        draft.add("dense", "Linear", "in", (4,), weight=weight, delay=delay)
        draft.fire("n", "dense", (4,))
        return draft.network()
    draft.add("early", "Delay", "in", (5,), delay=delay if kind == "axons" else np.zeros(5))
    draft.add("dense", "Linear", "early", (4,), weight=weight)
    draft.add("late", "Delay", "dense", (4,), delay=delay if kind == "dendrites" else np.zeros(4))
    draft.fire("n", "late", (4,))
    return draft.network()


DELAYS = {"axons": (5,), "dendrites": (4,), "synapses": (4, 5)}
KINDS = [pytest.param("axons", marks=pytest.mark.slow), "dendrites", "synapses"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_delay_is_an_input_that_comes_later(kind):
    """Neuron by neuron: with a delay for each synapse, a neuron sees events that each come so much
    later.
    """
    delay = np.random.default_rng(2).uniform(0, 1, DELAYS[kind])
    network, plain = delayed(kind, delay), delayed("axons", np.zeros(5))
    events = inputs(network)
    spikes = spikes_of(network, events)["n"]
    by_synapse = np.broadcast_to(delay if kind != "dendrites" else delay[:, None], (4, 5))
    assert spikes.count.sum() > 8
    for neuron in range(4):
        later = Events(time=events.time + by_synapse[neuron][events.index], index=events.index)
        expected = spikes_of(plain, later)["n"]
        np.testing.assert_allclose(spikes.time[:, neuron], expected.time[:, neuron], rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_delays_agree_with_central_differences(kind):
    rng = np.random.default_rng(2)
    network = delayed(kind, rng.uniform(0.1, 1, DELAYS[kind]))

    def functional(_, times):
        return jnp.sum(jnp.where(jnp.isfinite(times), jnp.sin(times), 0.0))

    assert_gradients_agree(network, functional, rng, per_leaf=20, compared=60)


def test_a_negative_delay_is_an_error():
    network = delayed("axons", np.array([0.1, 0.2, -0.1, 0.0, 0.3]))
    run = partial(simulate, network, inputs(network), T_END)
    assert_refused(run, SimulationError, r"delay\[2\] is -0.1", node="early")


# Budgets


def test_too_small_a_budget_is_reported_and_grows():
    network = small()
    events = inputs(network)
    tight = EventDriven(max_spikes=16, max_arrivals={"first": 3}, backend="xla")
    message = simulate(network, events, T_END, engine=tight, throw=False).message
    assert "'first', and the budget is 3: pass max_arrivals=11" in message
    _, solution = with_enough_room(tight, lambda engine: engine.run(network, events, T_END))
    expected = spikes_of(network, events)
    for name, spikes in solution.spikes.items():
        assert spikes.count.sum() > 5
        times = expected[name].time[..., : spikes.time.shape[2]]
        np.testing.assert_allclose(spikes.time, times, rtol=1e-12)


def integrators(feed, shape, threshold=1.0):
    """IF neurons under delta spikes, whose V an arrival moves at once, behind the nodes that `feed`
    draws and names.
    """
    draft = Draft(0, shape)
    sources = feed(draft)
    source_shape = next(wire.shape for wire in draft.wires if wire.name == sources[0])
    size = int(np.prod(source_shape))
    values = {
        "r": np.ones(size),
        "v_reset": np.zeros(size),
        "v_threshold": np.full(size, threshold),
    }
    draft.add("fire", "neuron", sources, source_shape, **values)
    draft.populations["fire"] = Population(name="fire", kind="IF", size=size)
    return draft.network()


def spikes_at(network, times, channel=0):
    """Spikes of the neurons "fire" until 1 s for events of one channel."""
    events = Events(time=jnp.array([times]), index=jnp.full((1, len(times)), channel))
    return simulate(network, events, 1.0).spikes["fire"]


def taps_and_matrix(draft, *weights):
    window = {"kernel": (2,), "padding": ((1, 1),), "weight": weights}
    draft.window("conv", "Conv1d", "in", (1, 3), **window)
    draft.add("sum", "Linear", "conv", (1,), weight=np.ones((1, 3)))
    return ("sum",)


def taps_and_pool(draft, *weights):
    window = {"kernel": (2, 1), "padding": ((1, 1), (0, 0)), "weight": weights}
    draft.window("conv", "Conv2d", "in", (1, 3, 1), **window)
    draft.window("sum", "SumPool2d", "conv", (1, 1, 1), kernel=(3, 1))
    return ("sum",)


def scale_and_matrix(draft, first, second):
    draft.add("first", "Scale", "in", (1, 2, 1), scale=np.full(2, first))
    draft.add("second", "Linear", "in", (1, 2, 1), weight=second * np.eye(2))
    return "first", "second"


def two_convolutions(draft, *weights):
    for name, weight in zip(("first", "second"), weights, strict=True):
        draft.window(name, "Conv2d", "in", (1, 2, 1), kernel=(1, 1), weight=weight)
    return "first", "second"


def two_delayed(draft, *weights):
    draft.add("late", "Delay", "in", (1, 2, 1), delay=np.full(2, 0.01))
    for name, weight in zip(("first", "second"), weights, strict=True):
        draft.add(name, "Linear", "late", (1, 2, 1), weight=weight * np.eye(2))
    return "first", "second"


def two_in_a_cycle(draft, *weights):
    draft.add("back", "Linear", "fire", (1, 2, 1), weight=np.zeros((2, 2)))
    return *two_convolutions(draft, *weights), "back"


@pytest.mark.parametrize("weights", [(1.5, -0.9), (-0.9, 1.5)])
@pytest.mark.parametrize(
    ("feed", "shape", "late"),
    [
        (taps_and_matrix, (1, 2), 0.0),
        (taps_and_pool, (1, 2, 1), 0.0),
        (scale_and_matrix, (1, 2, 1), 0.0),
        (two_convolutions, (1, 2, 1), 0.0),
        (two_delayed, (1, 2, 1), 0.01),
        (two_in_a_cycle, (1, 2, 1), 0.0),
    ],
)
def test_an_event_acts_once_on_whatever_paths_it_comes(feed, shape, late, weights):
    """+1.5 and -0.9 from one event are 0.6: the second event brings V above its threshold of 1, and
    not the first one on the way.
    """
    spikes = spikes_at(integrators(lambda draft: feed(draft, *weights), shape), [0.1, 0.2, 0.3])
    assert int(spikes.count.sum()) == 1
    np.testing.assert_allclose(spikes.time.min(), 0.2 + late)


def test_delays_apart_an_event_comes_once_by_each():
    def feed(draft):
        scale_and_matrix(draft, 1.5, -1.0)
        draft.add("late", "Delay", "second", (1, 2, 1), delay=np.full(2, 0.05))
        return "first", "late"

    spikes = spikes_at(integrators(feed, (1, 2, 1)), [0.1])
    np.testing.assert_allclose(spikes.time[0, 0, 0], 0.1)  # before the delayed part arrives


@pytest.mark.parametrize("kind", ["Linear", "Scale", "AvgPool2d", "identity"])
def test_fan_in_behind_a_flatten_that_keeps_channels_last(kind):
    """Channel k of the second path meets neuron k, however the first path counts its channels."""

    def feed(draft):
        window = {"kernel": (1, 1), "groups": 2, "weight": np.full(2, 0.1)}
        draft.window("conv", "Conv2d", "in", (2, 2, 2), **window)
        draft.add("flat", "Flatten", "conv", (8,), (1, 2, 0))
        if kind == "Linear":
            draft.add("second", kind, "in", (8,), weight=1.5 * np.eye(8))
        elif kind == "identity":
            draft.add("second", "Flatten", "in", (8,))
        else:
            if kind == "AvgPool2d":
                draft.window("pool", kind, "in", (2, 2, 2), kernel=(1, 1))
            source = "pool" if kind == "AvgPool2d" else "in"
            draft.add("second", "Scale", source, (8,), scale=np.full(8, 1.5))
        return "flat", "second"

    network = integrators(feed, (2, 2, 2), threshold=0.95)
    for channel in range(8):
        # By the Flatten, channel c at pixel p is neuron 2 p + c, for which 0.1 is below threshold.
        count = spikes_at(network, [0.1], channel).count[0]
        np.testing.assert_array_equal(np.flatnonzero(count), [channel])


#: A window behind a convolution: kind, groups of the convolution, groups of the window.
BEHIND = (
    ("SumPool2d", 2, 6),
    ("AvgPool2d", 2, 6),
    ("Conv2d", 2, 1),
    ("Conv2d", 2, 3),
    ("Conv2d", 1, 6),
)


@pytest.mark.parametrize(("kind", "first_groups", "groups"), BEHIND)
def test_a_window_behind_a_convolution_whatever_its_groups(kind, first_groups, groups):
    draft = Draft(1, (4, 4, 5))
    scale = {"AvgPool2d": 3.0, "Conv2d": 0.5}.get(kind, 1.0)
    draft.window("first", "Conv2d", "in", (6, 4, 5), (1, 1), groups=first_groups, scale=scale)
    draft.window("then", kind, "first", (6, 2, 4), (2, 2), stride=(2, 1), groups=groups)
    draft.fire("fire", "then", (6, 2, 4))
    network = draft.network()
    pool = np.ones((6, 1, 2, 2)) / (4 if kind == "AvgPool2d" else 1)
    weights = [network.parameters.get(name, {}).get("weight", pool) for name in ("first", "then")]
    [(_, operator)] = signals(network)["fire"].paths
    # One row for each pair of taps that meet, not for each position at which they meet.
    assert len(operator.rows(network.dtype)) <= 24 * (4 if kind == "Conv2d" else 1)
    image, none = np.random.default_rng(1).normal(size=(4, 4, 5)), np.zeros(6)
    expected = convolution(image, weights[0], none, (1, 1), (0, 0), (1, 1), first_groups)
    expected = convolution(expected, weights[1], none, (2, 1), (0, 0), (1, 1), groups)
    matrix = signals(network)["fire"].matrices(network.dtype)["in"]
    np.testing.assert_allclose(image.reshape(-1) @ matrix, expected.reshape(-1), atol=1e-12)
    events = inputs(network)
    spikes = spikes_of(network, events)["fire"]
    assert spikes.count.sum() > 10
    expected_times = spikes_of(with_matrices(network), events)["fire"].time
    np.testing.assert_allclose(spikes.time, expected_times, rtol=1e-11)


@pytest.mark.parametrize("backend", ["auto", "xla"])
def test_windows_that_see_only_padding_leave_readouts_and_gradients(backend):
    draft = Draft(0, (1, 2))
    draft.add("scale", "Scale", "in", (1, 2), scale=np.array([1.5, 2.0]))
    draft.window("conv", "Conv1d", "scale", (1, 2), (1,), stride=(3,), padding=((1, 1),))
    leak = {"r": np.ones(2), "tau": np.ones(2), "v_leak": np.zeros(2)}
    threshold = {"v_threshold": np.full(2, 0.3), "v_reset": np.zeros(2)}
    for name, kind, values in (("read", "LI", leak), ("fire", "LIF", leak | threshold)):
        draft.add(name, "neuron", "conv", (1, 2), **values)
        draft.populations[name] = Population(name=name, kind=kind, size=2)
    network = draft.network()
    events = Events(time=jnp.array([[0.1]]), index=jnp.array([[0]]))

    def results(bias):
        conv = network.parameters["conv"] | {"bias": bias}
        changed = network.with_parameters(network.parameters | {"conv": conv})
        engine = EventDriven(backend=backend, max_spikes=1)
        solution = engine.run(changed, {"in": events}, 1.0, jnp.array([0.5]))
        spike, voltage = solution.spikes["fire"].time, solution.voltages["read"]
        return jnp.stack([spike[0, 0, 0], voltage[0, 0, 0]])

    bias = jnp.array([0.6])
    np.testing.assert_allclose(results(bias), [np.log(2), 0.6 * (1 - np.exp(-0.5))], rtol=1e-12)
    # t = -log(1 - 0.3 / b)
    slopes = jax.jacrev(results)(bias)[:, 0]
    np.testing.assert_allclose(slopes, [-0.3 / 0.36 / 0.5, 1 - np.exp(-0.5)], rtol=1e-9)


def test_a_convolution_that_sees_only_padding():
    def feed(draft):
        draft.add("scale", "Scale", "in", (2, 1), scale=np.ones(2))
        draft.window("conv", "Conv1d", "scale", (1, 2), (1,), stride=(2,), padding=((1, 1),))
        return ("conv",)

    assert not spikes_at(integrators(feed, (2, 1)), [0.1]).count.any()
