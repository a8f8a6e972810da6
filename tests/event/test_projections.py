"""Convolutions, pools, fan-in and delays event by event, against matrices and against shifted
inputs.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.errors import SimulationError
from jaxsnn.event.event_driven import EventDriven
from jaxsnn.network.network import Network
from jaxsnn.network.signals import signals
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Population, TauShape, Wire
from jaxsnn.simulation.retry import with_enough_room
from jaxsnn.simulation.simulate import simulate
from tests.event.differences import ENOUGH, some_relative_errors
from tests.event.draft import Draft
from tests.oracles.linear_nodes import convolution

T_END, SAMPLES, EVENTS = 6.0, 2, 30
PLENTY = EventDriven(max_spikes=40, max_events=600, max_arrivals=800)

pytestmark = pytest.mark.usefixtures("x64")


def deep(groups=1):
    """Convolutions with strides, padding and groups, pools, a Flatten that keeps channels last,
    fan-in, a skip.
    """
    draft = Draft(groups, (2, 7, 8))
    frame = {
        "kernel": (3, 2),
        "stride": (2, 1),
        "padding": ((1, 0), (0, 2)),
        "dilation": (1, 2),
        "groups": groups,
    }
    draft.window("conv", "Conv2d", "in", (4, 3, 8), scale=float(groups), **frame)
    draft.fire("first", "conv", (4, 3, 8))
    draft.window(
        "sum",
        "SumPool2d",
        "first",
        (4, 2, 4),
        kernel=(2, 2),
        stride=(2, 2),
        padding=((0, 1), (0, 0)),
    )
    draft.window("mean", "AvgPool2d", "first", (4, 2, 7), kernel=(2, 2))
    draft.window("conv 2", "Conv2d", "mean", (2, 2, 4), kernel=(1, 4), scale=1.5)
    draft.add("skip", "Flatten", "sum", (32,))
    draft.add("narrow", "Linear", "skip", (16,), weight=draft.rng.normal(0.1, 0.3, (16, 32)))
    draft.fire("second", ("conv 2", "narrow"), (2, 2, 4))
    draft.add("scale", "Scale", "second", (2, 2, 4), scale=draft.rng.uniform(0.8, 1.2, 16))
    draft.add("flat", "Flatten", "scale", (16,), detail=(1, 2, 0))
    draft.add(
        "dense",
        "Affine",
        "flat",
        (5,),
        weight=draft.rng.normal(0.4, 0.5, (5, 16)),
        bias=draft.rng.normal(size=5),
    )
    draft.fire("last", "dense", (5,))
    return draft.network()


def line():
    """A Conv1d, linear nodes one after the other without neurons between them, and an identity."""
    draft = Draft(4, (3, 12))
    draft.window(
        "conv", "Conv1d", "in", (4, 10), kernel=(3,), stride=(1,), padding=((0, 0),), scale=0.8
    )
    draft.window(
        "conv 2", "Conv1d", "conv", (2, 4), kernel=(4,), stride=(2,), padding=((0, 0),), scale=0.4
    )
    draft.fire("first", "conv 2", (2, 4), spike_kernel="box", dt=0.3, spike_area=0.3)
    draft.fire("same", "first", (2, 4))
    draft.window(
        "conv 3", "Conv1d", "same", (3, 3), kernel=(2,), stride=(1,), padding=((0, 0),), scale=1.5
    )
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


def by_matrices(network):
    """The same network with a matrix in the place of each path between populations."""
    wires, parameters = [], {name: network.parameters[name] for name in network.populations}
    arriving = signals(network)
    for wire in network.wires:
        if wire.kind == "input":
            wires.append(wire)
        if wire.kind != "neuron":
            continue
        before = []
        for source, matrix in arriving[wire.name].matrices(network.dtype).items():
            name = f"{source} to {wire.name}"
            bias = (
                jnp.zeros(wire.size)
                if before or arriving[wire.name].constant is None
                else arriving[wire.name].constant
            )
            parameters[name] = {"weight": matrix.T, "bias": bias}
            wires.append(Wire(name=name, kind="Affine", sources=(source,), shape=(wire.size,)))
            before.append(name)
        wires.append(Wire(name=wire.name, kind="neuron", sources=tuple(before), shape=wire.shape))
    return Network(parameters=parameters, wires=wires, populations=network.populations)


@pytest.mark.parametrize("name", NAMES)
def test_events_give_what_matrices_give(name):
    network = NETS[name]()
    events = inputs(network)
    found = simulate(network, events, T_END, engine=PLENTY)
    expected = simulate(by_matrices(network), events, T_END, engine=PLENTY)
    for population, spikes in found.spikes.items():
        other = expected.spikes[population]
        assert spikes.count.sum() > 10, population
        np.testing.assert_array_equal(spikes.count, other.count)
        np.testing.assert_allclose(spikes.time, other.time, rtol=1e-11)
        np.testing.assert_allclose(spikes.slope, other.slope, rtol=1e-7)


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
    events = inputs(network)
    rng = np.random.default_rng(7)
    readout = {
        name: jnp.asarray(rng.normal(size=(SAMPLES, each.size, 40)))
        for name, each in network.populations.items()
    }

    def loss(arguments):
        parameters, time = arguments
        given = Events(time=time, index=events.index)
        solution = simulate(
            network.with_parameters(parameters), given, T_END, engine=PLENTY, throw=False
        )
        value = sum(
            jnp.sum(jnp.where(jnp.isfinite(spikes.time), readout[name] * spikes.time, 0.0))
            for name, spikes in solution.spikes.items()
        )
        return value, {name: spikes.count for name, spikes in solution.spikes.items()}

    errors = some_relative_errors(loss, (network.parameters, events.time), rng, per_leaf=4)
    assert len(errors) > 45
    assert errors.max() < ENOUGH


# Delays


def delayed(kind, delay):
    """5 inputs, Linear, neurons, with a Delay before or behind the Linear, or a delay for each
    synapse.
    """
    draft = Draft(11, (5,))
    weight = draft.rng.normal(0.9, 0.8, (4, 5))
    draft.add("early", "Delay", "in", (5,), delay=delay if kind == "axons" else np.zeros(5))
    own = {"delay": delay} if kind == "synapses" else {}
    draft.add("dense", "Linear", "early", (4,), weight=weight, **own)
    draft.add("late", "Delay", "dense", (4,), delay=delay if kind == "dendrites" else np.zeros(4))
    draft.fire("n", "late", (4,))
    if kind == "synapses":
        draft.wires[2] = Wire(name="dense", kind="Linear", sources=("in",), shape=(4,))
        draft.wires = [
            draft.wires[0],
            draft.wires[2],
            Wire(name="n", kind="neuron", sources=("dense",), shape=(4,)),
        ]
        draft.parameters = {name: draft.parameters[name] for name in ("dense", "n")}
    return draft.network()


DELAYS = {"axons": (5,), "dendrites": (4,), "synapses": (4, 5)}
KINDS = [pytest.param("axons", marks=pytest.mark.slow), "dendrites", "synapses"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_delay_is_an_input_that_comes_later(kind):
    """Neuron by neuron: with a delay for each synapse, what a neuron sees are events that each come
    so much later.
    """
    rng = np.random.default_rng(2)
    delay = rng.uniform(0, 1, DELAYS[kind])
    network, events = delayed(kind, delay), inputs(delayed(kind, delay))
    found = simulate(network, events, T_END, engine=PLENTY).spikes["n"]
    by_synapse = np.broadcast_to(delay if kind != "dendrites" else delay[:, None], (4, 5))
    plain = delayed("axons", np.zeros(5))
    assert found.count.sum() > 8
    for neuron in range(4):
        later = Events(time=events.time + by_synapse[neuron][events.index], index=events.index)
        expected = simulate(plain, later, T_END, engine=PLENTY).spikes["n"]
        np.testing.assert_allclose(found.time[:, neuron], expected.time[:, neuron], rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_delays_agree_with_central_differences(kind):
    rng = np.random.default_rng(2)
    network = delayed(kind, rng.uniform(0.1, 1, DELAYS[kind]))
    events = inputs(network)

    def loss(arguments):
        parameters, time = arguments
        given = Events(time=time, index=events.index)
        spikes = simulate(
            network.with_parameters(parameters), given, T_END, engine=PLENTY, throw=False
        ).spikes["n"]
        return jnp.sum(
            jnp.where(jnp.isfinite(spikes.time), jnp.sin(spikes.time), 0.0)
        ), spikes.count

    errors = some_relative_errors(loss, (network.parameters, events.time), rng, per_leaf=20)
    assert len(errors) > 60
    assert errors.max() < ENOUGH


def test_a_negative_delay_is_an_error():
    network = delayed("axons", np.array([0.1, 0.2, -0.1, 0.0, 0.3]))
    with pytest.raises(SimulationError, match=r"node 'early': delay\[2\] is -0.1"):
        simulate(network, inputs(network), T_END)


# Budgets


def test_budgets_are_reported_and_found():
    network = small()
    events = inputs(network)
    tight = EventDriven(max_spikes=16, max_arrivals={"first": 3}, backend="xla")
    few = simulate(network, events, T_END, engine=tight, throw=False)
    assert (
        "arrive at one position of 'first', and there is room for 3: pass max_arrivals="
        in few.message
    )
    _, found = with_enough_room(tight, lambda engine: engine.run(network, events, T_END))
    expected = simulate(network, events, T_END, engine=PLENTY)
    for name, spikes in found.spikes.items():
        assert spikes.count.sum() > 5
        np.testing.assert_allclose(
            spikes.time, expected.spikes[name].time[..., : spikes.time.shape[2]], rtol=1e-12
        )


def integrators(feed, shape, threshold=1.0):
    """IF neurons under delta spikes, whose V an arrival moves at once, behind the nodes that `feed`
    draws and names.
    """
    draft = Draft(0, shape)
    sources = feed(draft)
    fed = next(wire.shape for wire in draft.wires if wire.name == sources[0])
    size = int(np.prod(fed))
    values = {
        "r": np.ones(size),
        "v_threshold": np.full(size, threshold),
        "v_reset": np.zeros(size),
    }
    draft.add("fire", "neuron", sources, fed, **values)
    draft.populations["fire"] = Population(name="fire", kind="IF", size=size)
    return draft.network()


def taps_and_matrix(draft, *weights):
    draft.window("conv", "Conv1d", "in", (1, 3), kernel=(2,), padding=((1, 1),))
    draft.parameters["conv"] = {"weight": np.reshape(weights, (1, 1, 2)), "bias": np.zeros(1)}
    draft.add("sum", "Linear", "conv", (1,), weight=np.ones((1, 3)))
    return ("sum",)


def taps_and_pool(draft, *weights):
    draft.window("conv", "Conv2d", "in", (1, 3, 1), kernel=(2, 1), padding=((1, 1), (0, 0)))
    draft.parameters["conv"] = {"weight": np.reshape(weights, (1, 1, 2, 1)), "bias": np.zeros(1)}
    draft.window("sum", "SumPool2d", "conv", (1, 1, 1), kernel=(3, 1))
    return ("sum",)


def scale_and_matrix(draft, one, other):
    draft.add("one", "Scale", "in", (1, 2, 1), scale=np.full(2, one))
    draft.add("other", "Linear", "in", (1, 2, 1), weight=other * np.eye(2))
    return "one", "other"


def two_convolutions(draft, *weights):
    for name, weight in zip(("one", "other"), weights, strict=True):
        draft.window(name, "Conv2d", "in", (1, 2, 1), kernel=(1, 1))
        draft.parameters[name] = {"weight": np.full((1, 1, 1, 1), weight), "bias": np.zeros(1)}
    return "one", "other"


def two_delayed(draft, *weights):
    draft.add("late", "Delay", "in", (1, 2, 1), delay=np.full(2, 0.01))
    for name, weight in zip(("one", "other"), weights, strict=True):
        draft.add(name, "Linear", "late", (1, 2, 1), weight=weight * np.eye(2))
    return "one", "other"


@pytest.mark.parametrize("weights", [(1.5, -0.9), (-0.9, 1.5)])
@pytest.mark.parametrize(
    ("feed", "shape", "late"),
    [
        (taps_and_matrix, (1, 2), 0.0),
        (taps_and_pool, (1, 2, 1), 0.0),
        (scale_and_matrix, (1, 2, 1), 0.0),
        (two_convolutions, (1, 2, 1), 0.0),
        (two_delayed, (1, 2, 1), 0.01),
    ],
)
def test_an_event_acts_once_on_whatever_paths_it_comes(feed, shape, late, weights):
    """+1.5 and -0.9 from one event are 0.6: the second event brings V above its threshold of 1, and
    not the first one on the way.
    """
    net = integrators(lambda draft: feed(draft, *weights), shape)
    events = Events(time=jnp.array([[0.1, 0.2, 0.3]]), index=jnp.array([[0, 0, 0]]))
    spikes = simulate(net, events, 1.0).spikes["fire"]
    assert int(spikes.count.sum()) == 1
    np.testing.assert_allclose(spikes.time.min(), 0.2 + late)


def test_in_a_cycle_an_event_acts_once_too():
    def feed(draft):
        two_convolutions(draft, 1.5, -0.9)
        draft.add("back", "Linear", "fire", (1, 2, 1), weight=np.zeros((2, 2)))
        return "one", "other", "back"

    events = Events(time=jnp.array([[0.1, 0.2, 0.3]]), index=jnp.array([[0, 0, 0]]))
    spikes = simulate(integrators(feed, (1, 2, 1)), events, 1.0).spikes["fire"]
    assert int(spikes.count.sum()) == 1
    np.testing.assert_allclose(spikes.time.min(), 0.2)


def test_delays_apart_an_event_comes_once_by_each():
    def feed(draft):
        scale_and_matrix(draft, 1.5, -1.0)
        draft.add("late", "Delay", "other", (1, 2, 1), delay=np.full(2, 0.05))
        return "one", "late"

    net = integrators(feed, (1, 2, 1))
    solution = simulate(net, Events(time=jnp.array([[0.1]]), index=jnp.array([[0]])), 1.0)
    np.testing.assert_allclose(
        solution.spikes["fire"].time[0, 0, 0], 0.1
    )  # before the rest of it comes


@pytest.mark.parametrize("other", ["Linear", "Scale", "AvgPool2d", "identity"])
def test_fan_in_behind_a_flatten_that_keeps_channels_last(other):
    """Channel k of the second path meets neuron k, however the first path counts its channels."""

    def feed(draft):
        draft.window("conv", "Conv2d", "in", (2, 2, 2), kernel=(1, 1), groups=2)
        draft.parameters["conv"] = {"weight": np.full((2, 1, 1, 1), 0.1), "bias": np.zeros(2)}
        draft.add("flat", "Flatten", "conv", (8,), (1, 2, 0))
        if other == "AvgPool2d":
            draft.window("other", "AvgPool2d", "in", (2, 2, 2), kernel=(1, 1))
            draft.add("second", "Scale", "other", (8,), scale=np.full(8, 1.5))
        elif other == "identity":
            draft.add("second", "Flatten", "in", (8,))
        else:
            values = (
                {"weight": 1.5 * np.eye(8)} if other == "Linear" else {"scale": np.full(8, 1.5)}
            )
            draft.add("second", other, "in", (8,), **values)
        return "flat", "second"

    net = integrators(feed, (2, 2, 2), threshold=0.95)
    for channel in range(8):
        events = Events(time=jnp.array([[0.1]]), index=jnp.array([[channel]]))
        fired = np.flatnonzero(simulate(net, events, 1.0).spikes["fire"].count[0])
        # by the Flatten, channel c at pixel p is neuron 2 p + c, but 0.1 is not enough there
        np.testing.assert_array_equal(fired, [channel])


#: A window behind a convolution: kind, groups of that, groups of the window.
BEHIND = (
    ("SumPool2d", 2, 6),
    ("AvgPool2d", 2, 6),
    ("Conv2d", 2, 1),
    ("Conv2d", 2, 3),
    ("Conv2d", 1, 6),
)


@pytest.mark.parametrize(("kind", "groups", "own"), BEHIND)
def test_a_window_behind_a_convolution_whatever_its_groups(kind, groups, own):
    draft = Draft(1, (4, 4, 5))
    strength = {"AvgPool2d": 3.0, "Conv2d": 0.5}.get(kind, 1.0)
    draft.window("first", "Conv2d", "in", (6, 4, 5), (1, 1), groups=groups, scale=strength)
    draft.window("then", kind, "first", (6, 2, 4), (2, 2), stride=(2, 1), groups=own)
    draft.fire("fire", "then", (6, 2, 4))
    network = draft.network()
    one = np.ones((6, 1, 2, 2)) / (4 if kind == "AvgPool2d" else 1)
    weights = [network.parameters.get(name, {}).get("weight", one) for name in ("first", "then")]
    [(_, operator)] = signals(network)["fire"].paths
    # a row for each tap of the first that meets one of the other, not for each place where they do
    assert len(operator.rows(network.dtype)) <= 24 * (4 if kind == "Conv2d" else 1)
    image, none = np.random.default_rng(1).normal(size=(4, 4, 5)), np.zeros(6)
    expected = convolution(image, weights[0], none, (1, 1), (0, 0), (1, 1), groups)
    expected = convolution(expected, weights[1], none, (2, 1), (0, 0), (1, 1), own)
    matrix = signals(network)["fire"].matrices(network.dtype)["in"]
    np.testing.assert_allclose(image.reshape(-1) @ matrix, expected.reshape(-1), atol=1e-12)
    events = inputs(network)
    found = simulate(network, events, T_END, engine=PLENTY).spikes["fire"]
    same = simulate(by_matrices(network), events, T_END, engine=PLENTY).spikes["fire"]
    assert found.count.sum() > 10
    np.testing.assert_allclose(found.time, same.time, rtol=1e-11)


@pytest.mark.parametrize("backend", ["auto", "xla"])
def test_windows_that_see_only_padding_leave_readouts_and_gradients(backend):
    draft = Draft(0, (1, 2))
    draft.add("scale", "Scale", "in", (1, 2), scale=np.array([1.5, 2.0]))
    draft.window("conv", "Conv1d", "scale", (1, 2), kernel=(1,), stride=(3,), padding=((1, 1),))
    rest = {"r": np.ones(2), "tau": np.ones(2), "v_leak": np.zeros(2)}
    draft.add("read", "neuron", "conv", (1, 2), **rest)
    draft.populations["read"] = Population(name="read", kind="LI", size=2)
    threshold = {"v_threshold": np.full(2, 0.3), "v_reset": np.zeros(2)}
    draft.add("fire", "neuron", "conv", (1, 2), **rest | threshold)
    draft.populations["fire"] = Population(name="fire", kind="LIF", size=2)
    network = draft.network()
    events = Events(time=jnp.array([[0.1]]), index=jnp.array([[0]]))

    def results(bias):
        conv = network.parameters["conv"] | {"bias": bias}
        own = network.with_parameters(network.parameters | {"conv": conv})
        engine = EventDriven(backend=backend, max_spikes=1)
        solution = engine.run(own, {"in": events}, 1.0, jnp.array([0.5]))
        return jnp.stack(
            [solution.spikes["fire"].time[0, 0, 0], solution.voltages["read"][0, 0, 0]]
        )

    bias = jnp.array([0.6])
    spike, voltage = results(bias)
    np.testing.assert_allclose(spike, np.log(2), rtol=1e-12)
    np.testing.assert_allclose(voltage, 0.6 * (1 - np.exp(-0.5)), rtol=1e-12)
    slopes = jax.jacrev(results)(bias)
    # t = -log(1 - 0.3 / b)
    np.testing.assert_allclose(slopes[:, 0], [-0.3 / 0.36 / 0.5, 1 - np.exp(-0.5)], rtol=1e-9)


def test_a_convolution_that_sees_only_padding():
    def feed(draft):
        draft.add("scale", "Scale", "in", (2, 1), scale=np.ones(2))
        draft.window("conv", "Conv1d", "scale", (1, 2), kernel=(1,), stride=(2,), padding=((1, 1),))
        return ("conv",)

    net = integrators(feed, (2, 1))
    assert (
        not simulate(net, Events(time=jnp.array([[0.1]]), index=jnp.array([[0]])), 1.0)
        .spikes["fire"]
        .count.any()
    )
