"""Node types that NIR does not have, as docs/extending.md writes them, outside the package:
registered, they are read, checked, described, drawn, simulated by both engines, trained, placed and
written. So are those that an installed package offers.

"Gather" copies channels, each with a gain of its own, and lists its connections. "Smooth" is a
moving sum along the last axis with a bias, and does not: what it connects is found by applying it.
"Adaptive" is a population, without a neuron model.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsnn
from jaxsnn.bss2.search import unroll
from jaxsnn.bss2.search.unroll import arrivals
from jaxsnn.compatibility.checks import purposes
from jaxsnn.errors import (
    ConversionError,
    DialectError,
    GraphError,
    LoweringError,
    MappingError,
    UnsupportedNodeError,
    UsageError,
)
from jaxsnn.network.linear_nodes import applied
from jaxsnn.network.lowering.lower_nodes import plan
from jaxsnn.network.signals import signals
from jaxsnn.nir import NodeTraits, Parameter, build, dialect_of, read, register_node, write
from jaxsnn.nir.model import nodes
from jaxsnn.nir.model.description import describe
from jaxsnn.nir.model.passes import shapes, transfer
from jaxsnn.plot.graph_drawing import draw, mermaid, svg
from jaxsnn.train.loop.constraints import find_trainables
from jaxsnn.train.loop.optimisers import step_scales
from tests.extending_page import code_of, made_by
from tests.helpers import packages
from tests.helpers.command_line import finished
from tests.helpers.random_spikes import random_events
from tests.helpers.refusals import assert_refused
from tests.oracles import linear_nodes

#: The types, as an installed package would have them: the code of the page.
PACKAGE, MADE = code_of("A node type"), made_by("A node type")
GATHER, SMOOTH, ADAPTIVE = (MADE[name] for name in ("GATHER", "SMOOTH", "ADAPTIVE"))

INDEX = np.array([3, 1, 1, 0])
SECOND = np.array([5, 0, 2, 2])
TAPS = np.array([0.25, 1.5, -0.5])
NEURONS = {"tau_mem": 10e-3, "tau_syn": 5e-3}
#: An snnTorch Leaky with beta 0.9 in a step of 0.1 ms.
LEAKY = {"tau": 1e-3, "r": 10.0}
T_END = 40e-3


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    """The types are registered for the time of a test."""
    monkeypatch.setattr(nodes, "_REGISTERED", {})
    for traits in (GATHER, SMOOTH, ADAPTIVE):
        register_node(traits)


@pytest.fixture
def again(monkeypatch):
    """`again(traits, **changes)`: one type alone is registered, with other traits."""

    def register(traits, **changes):
        monkeypatch.setattr(nodes, "_REGISTERED", {})
        register_node(dataclasses.replace(traits, **changes))

    return register


def gains(seed, size=4):
    return np.random.default_rng(seed).uniform(0.5, 2.0, size)


def gather(index, seed):
    return build.node("Gather", index=index, gain=gains(seed, len(index)))


def two_layers(own, **dialect):
    """Two Gathers, each before a population; or Linears that do the same."""
    weight = np.random.default_rng(7).normal(1.0, 1.0, (6, 4))
    if own:
        first, second = gather(INDEX, 1), gather(SECOND, 2)
    else:
        first = build.linear(weight=linear_nodes.gather(INDEX, gains(1), 5))
        second = build.linear(weight=linear_nodes.gather(SECOND, gains(2), 6))
    neurons = build.cubalif(**NEURONS, v_threshold=0.6)
    if dialect:
        neurons = build.lif(**LEAKY, v_threshold=2.0)
    return build.sequential(
        build.input(5), first, build.linear(weight=weight), neurons, second, neurons, **dialect
    )


STEPPED = {"dialect": "snntorch", "reset": "subtract", "reset_delay": True}
STEPPED_LI = {"dialect": "rockpool"}


def events(seed=0, channels=5, dtype=np.float64):
    time, index = random_events(np.random.default_rng(seed), (2, 30), channels, T_END / 2)
    time = jnp.asarray(np.sort(time, axis=1), dtype)
    return jaxsnn.Events(time=time, index=jnp.asarray(index, jnp.int32))


def steps(seed=0, shape=(5,)):
    x = np.random.default_rng(seed).integers(0, 2, (60, 3, *shape))
    return x.astype(np.float64)


def simulated(network, arriving):
    return jaxsnn.simulate(network, arriving, T_END, engine=jaxsnn.EventDriven(max_spikes=64))


# -- files


def test_files_are_read_and_written_bit_for_bit(tmp_path):
    written = two_layers(own=True)
    write(tmp_path / "a.nir", written)
    graph = read(tmp_path / "a.nir")
    node = graph.nodes["1"]
    assert (type(node).__name__, node.type, node.names) == ("Gather", "Gather", ("index", "gain"))
    assert node.value("index").dtype == INDEX.dtype
    assert node.value("gain").tolist() == gains(1).tolist()
    write(tmp_path / "b.nir", graph)
    assert (tmp_path / "a.nir").read_bytes() == (tmp_path / "b.nir").read_bytes()
    changed = graph.with_nodes([node.replace(gain=2 * gains(1))])
    write(tmp_path / "c.nir", changed)
    again = read(tmp_path / "c.nir")
    assert again.nodes["1"].value("gain").tolist() == (2 * gains(1)).tolist()
    assert again.nodes["4"].value("gain").tolist() == gains(2).tolist()


def test_without_its_registration_a_type_is_refused_by_name(tmp_path, monkeypatch):
    write(tmp_path / "a.nir", two_layers(own=True))
    monkeypatch.setattr(nodes, "_REGISTERED", {})
    call, says, fix = lambda: read(tmp_path / "a.nir"), "type Gather", "supported are Input, "
    assert_refused(call, UnsupportedNodeError, says, node="1", fix=fix)
    assert_refused(lambda: build.node("Gather", index=INDEX), UnsupportedNodeError, says)


def test_a_class_without_traits_is_refused_everywhere():
    class Stranger(nodes.Node):
        pass

    graph = two_layers(own=True)
    stranger = Stranger(name="1")
    graph = dataclasses.replace(graph, nodes={**graph.nodes, "1": stranger})
    for ask in (
        lambda: transfer(stranger, (3,)),
        lambda: shapes(graph),
        lambda: graph.neurons,
        lambda: svg(graph),
        lambda: describe(graph),
        lambda: jaxsnn.lower(graph),
        lambda: jaxsnn.check(graph, "event"),
        lambda: jaxsnn.check(graph, "bss2"),
        lambda: write("a.nir", graph),
    ):
        assert_refused(ask, UnsupportedNodeError, r"\(Stranger\) has no traits")


def test_parameters_and_shapes_are_checked():
    def chain(**changes):
        made = dataclasses.replace(
            gather(INDEX, 1), own={"index": INDEX, "gain": gains(1)} | changes
        )
        return build.sequential(build.input(5), made, build.cubalif(**NEURONS))

    chain()
    missing = dataclasses.replace(gather(INDEX, 1), own={"index": INDEX})
    behind = build.linear(weight=np.ones((2, 7)))
    for call, says in (
        (lambda: chain(index=np.array([0, 9])), r"'1' \(Gather\) takes channel 9 of 5"),
        (lambda: chain(index=np.array([0, -1])), "index = -1 at index 1"),
        (lambda: chain(gain=np.full(4, np.nan)), "4 of 4 gain that are nan"),
        (lambda: chain(gain="loud"), "gain = 'loud'"),
        (lambda: image_net(missing, shape=(5,)), r"'1' \(Gather\) has no gain"),
        (
            lambda: build.sequential(build.input(5), gather(INDEX, 1), behind),
            r"'2': weight of shape \(2, 7\) does not fit \(2, 4\)",
        ),
    ):
        assert_refused(call, GraphError, says)


def test_build_says_what_a_type_has():
    for call, error, says in (
        (lambda: build.node("Gather", index=INDEX, gains=gains(1)), UsageError, "mean 'gain'"),
        (lambda: build.node("Gather", 4, index=INDEX), UsageError, "no size of its own"),
        (lambda: build.node("Gathering"), UnsupportedNodeError, "the type Gathering"),
    ):
        assert_refused(call, error, says)
    pooled = build.node("SumPool2d", kernel_size=[1, 2], stride=[1, 2], padding=0)
    kernel = np.ones((3, 2, 1, 1))
    settings = {"stride": 1, "padding": "same", "dilation": 1, "groups": 1, "bias": np.zeros(3)}
    convolved = build.node("Conv2d", weight=kernel, **settings)
    graph = build.sequential(build.input((2, 4, 6)), pooled, convolved, build.li(tau="10ms"))
    assert shapes(graph)["3"] == ((3, 4, 3), (3, 4, 3))


# -- what is known of a graph


def test_it_is_checked_described_and_drawn(tmp_path):
    graph = two_layers(own=True)
    assert jaxsnn.check(graph, "event").problems == ()
    assert jaxsnn.check(two_layers(own=True, **STEPPED), "grid").problems == ()
    assert jaxsnn.check(graph, "bss2").ok
    content = describe(graph)
    assert content["synapses"] == 4 + 24 + 4
    entry = content["nodes"][0]
    assert (entry["type"], entry["input_shape"], entry["output_shape"]) == ("Gather", [5], [4])
    assert "Gather 5 to 4, 4 synapses" in svg(graph)
    assert draw(graph, tmp_path / "net.svg").nodes == 7
    assert ":::neuron" in mermaid(build.sequential(build.input(2), adaptive()))


def test_importers_that_do_not_know_it_say_so():
    graph = two_layers(own=True, **STEPPED)
    for target in sorted(set(purposes()) - {"event", "grid", "bss2"}):
        found = [problem.node for problem in jaxsnn.check(graph, target).problems]
        assert {"1", "4"} <= set(found), target
    for target in ("norse", "snntorch", "spikingjelly", "spyx"):
        call = lambda target=target: jaxsnn.convert(graph, to=target)  # noqa: E731
        assert_refused(call, ConversionError, "'1' is a Gather")
    assert_refused(lambda: jaxsnn.export(graph), GraphError, "'1' is a Gather")


# -- both engines


@pytest.mark.usefixtures("x64")
def test_spikes_and_gradients_are_those_of_a_linear_that_does_the_same():
    def loss(parameters, network):
        spikes = simulated(network.with_parameters(parameters), events()).spikes
        times = spikes["5"].time
        return jnp.sum(jnp.where(jnp.isfinite(times), jnp.cos(300 * times), 0.0)), spikes

    grads, fired = [], []
    for own in (True, False):
        network = jaxsnn.lower(two_layers(own), dtype=np.float64)
        grad, spikes = jax.grad(loss, has_aux=True)(network.parameters, network)
        grads.append(grad)
        fired.append(spikes)
    for name in ("3", "5"):
        assert fired[0][name].count.sum() > 50
        np.testing.assert_array_equal(fired[0][name].count, fired[1][name].count)
        np.testing.assert_allclose(fired[0][name].time, fired[1][name].time, rtol=1e-12)
    own, other = grads
    for name, index in (("1", INDEX), ("4", SECOND)):
        expected = np.asarray(other[name]["weight"])[np.arange(4), index]
        assert np.abs(expected).min() > 0
        np.testing.assert_allclose(own[name]["gain"], expected, rtol=1e-9)
    np.testing.assert_allclose(own["2"]["weight"], other["2"]["weight"], rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_in_time_steps_too():
    grads, outputs = [], []
    for own in (True, False):
        network = jaxsnn.lower(two_layers(own, **STEPPED), dtype=np.float64)

        def played(parameters, network=network):
            changed = network.with_parameters(parameters)
            return jaxsnn.simulate(changed, steps(), engine=jaxsnn.TimeStepped()).output()

        outputs.append(played(network.parameters))
        loss = lambda parameters, played=played: jnp.sum(played(parameters) ** 2)  # noqa: E731
        grads.append(jax.grad(loss)(network.parameters))
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert outputs[0].sum() > 20
    expected = np.asarray(grads[1]["1"]["weight"])[np.arange(4), INDEX]
    assert np.abs(expected).min() > 0
    np.testing.assert_allclose(grads[0]["1"]["gain"], expected, rtol=1e-9)


def image_net(*layers, shape=(2, 6)):
    size = build.sequential(build.input(shape), *layers, build.li(tau=1.0)).nodes
    last = build.cubalif(**NEURONS, v_threshold=0.7)
    assert len(size) == len(layers) + 3
    return build.sequential(build.input(shape), *layers, last)


def smooth(channels=2, taps=TAPS):
    return build.node("Smooth", taps=taps, bias=0.1 * np.arange(1.0, channels + 1))


def conv1d(weight, groups=1):
    settings = {"stride": 1, "padding": 1, "dilation": 1, "groups": groups}
    return build.node("Conv1d", weight=weight, bias=np.zeros(len(weight)), **settings)


def flatten(start=0):
    return build.node("Flatten", start_dim=start, end_dim=-1)


RNG = np.random.default_rng(3)
KERNEL = RNG.normal(size=(4, 2, 3))
GROUPED = RNG.normal(size=(4, 1, 3))
DENSE = RNG.normal(size=(5, 12))
FACTORS = RNG.uniform(0.5, 2.0, (2, 6))
CHAINS = {
    "alone": lambda: [smooth()],
    "twice": lambda: [smooth(), smooth()],
    "before a Scale": lambda: [smooth(), build.scale(FACTORS)],
    "behind a Scale": lambda: [build.scale(FACTORS), smooth()],
    "before a convolution": lambda: [smooth(), conv1d(KERNEL)],
    "behind a convolution": lambda: [conv1d(KERNEL), smooth(4)],
    "behind one with groups": lambda: [conv1d(GROUPED, 2), smooth(4)],
    "before a matrix": lambda: [smooth(), flatten(), build.linear(weight=DENSE)],
    "behind a matrix": lambda: [flatten(), build.linear(weight=DENSE), smooth(5)],
    "between all": lambda: [
        conv1d(KERNEL),
        smooth(4),
        conv1d(RNG.normal(size=(2, 4, 3))),
        flatten(),
        gather(np.array([11, 0, 5, 5, 3]), 4),
        build.linear(weight=RNG.normal(size=(3, 5))),
        smooth(3),
    ],
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.usefixtures("x64")
def test_it_joins_other_linear_nodes(chain):
    """The composed operator of the event engine, against the nodes applied one after the other."""
    network = jaxsnn.lower(image_net(*CHAINS[chain]()), dtype=np.float64)
    x, constant = jnp.eye(12).reshape(12, 2, 6), jnp.zeros((1, 2, 6))
    for wire in network.wires[1:-2]:
        parameters = network.parameters.get(wire.name, {})
        x, constant = (applied(wire, each.shape[1:], parameters, each) for each in (x, constant))
        bias = wire.bias(parameters)
        if bias is not None:
            constant = constant + bias.reshape(-1, *[1] * (constant.ndim - 2))
    (found,) = signals(network).values()
    matrix = x.reshape(12, -1)
    np.testing.assert_allclose(found.matrices(np.float64)["input"], matrix, atol=1e-12)
    np.testing.assert_allclose(found.constant, constant.reshape(-1), atol=1e-12)


@pytest.mark.parametrize("taps", [TAPS, np.array([0.25, 0.0, -0.5])])
def test_what_it_connects_is_found_by_applying_it(taps):
    """A weight of zero is a connection too, which can be trained."""
    (found,) = signals(jaxsnn.lower(image_net(smooth(taps=taps)))).values()
    (_, operator) = found.paths[0]
    source, position, row = operator.entries()
    expected = linear_nodes.moving_sum((2, 6), taps)
    assert len(source) == np.count_nonzero(linear_nodes.moving_sum((2, 6), np.ones(3))) == 32
    got = np.zeros((12, 12))
    got[position, source] = np.asarray(operator.weight)[row, 0]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_bias_of_each_element_is_added_to_its_own(monkeypatch):
    """In both engines; a bias per feature is in the chains above."""
    monkeypatch.setattr(nodes, "_REGISTERED", {})
    own = (SMOOTH.parameters[0], Parameter(name="bias", per="element"))
    register_node(dataclasses.replace(SMOOTH, parameters=own))
    bias = np.arange(12.0).reshape(2, 6)
    layer = build.node("Smooth", taps=TAPS, bias=bias)
    graph = build.sequential(build.input((2, 6)), layer, build.li(**LEAKY), **STEPPED_LI)
    network = jaxsnn.lower(graph)
    (found,) = signals(network).values()
    np.testing.assert_array_equal(found.constant, bias.reshape(-1))
    nothing = np.zeros((1, 1, 2, 6), np.float32)
    (voltage,) = jaxsnn.simulate(network, nothing, engine=jaxsnn.TimeStepped()).output()
    np.testing.assert_allclose(voltage[0], bias, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_gradients_where_connections_were_found():
    """Spikes and gradients of a Smooth, against those of an Affine that does the same."""
    arriving = events(1, 12)
    own = jaxsnn.lower(image_net(smooth(), flatten()), dtype=np.float64)
    weight, bias = linear_nodes.moving_sum((2, 6), TAPS), np.repeat([0.1, 0.2], 6)
    other = build.affine(weight=weight, bias=lambda rng, shape: bias)
    neurons = build.cubalif(**NEURONS, v_threshold=0.7)
    graph = build.sequential(build.input((2, 6)), flatten(), other, neurons, seed=0)
    dense = jaxsnn.lower(graph, dtype=np.float64)

    def loss(network, name, parameters):
        found = simulated(network.with_parameters(parameters), arriving).spikes[name]
        times = jnp.where(jnp.isfinite(found.time), jnp.cos(300 * found.time), 0.0)
        return jnp.sum(times), jnp.sum(found.count)

    (value, count), grad = jax.value_and_grad(lambda p: loss(own, "3", p), has_aux=True)(
        own.parameters
    )
    (same_value, same_count), by_weight = jax.value_and_grad(
        lambda p: loss(dense, "3", p), has_aux=True
    )(dense.parameters)
    assert count == same_count > 20
    assert value == pytest.approx(float(same_value), rel=1e-9)
    each = [linear_nodes.moving_sum((2, 6), np.eye(3)[k]) for k in range(3)]
    expected = [float(np.sum(np.asarray(by_weight["2"]["weight"]) * one)) for one in each]
    np.testing.assert_allclose(grad["1"]["taps"], expected, rtol=1e-8)
    by_bias = np.asarray(by_weight["2"]["bias"]).reshape(2, 6).sum(axis=1)
    np.testing.assert_allclose(grad["1"]["bias"], by_bias, rtol=1e-8)


@pytest.mark.parametrize("before", [[], [build.linear(weight=np.eye(5) + 0.2)]])
@pytest.mark.usefixtures("x64")
def test_delays_before_it_go_with_their_channels(before):
    """Delays of the input, and those of what a Linear makes of it."""
    delay = np.arange(5) * 2e-3
    found = []
    for layers in (
        [*before, build.node("Delay", delay=delay), gather(INDEX, 1)],
        [*before, gather(INDEX, 1), build.node("Delay", delay=delay[INDEX])],
    ):
        neurons = build.cubalif(**NEURONS, v_threshold=0.4)
        graph = build.sequential(build.input(5), *layers, neurons)
        spikes = simulated(jaxsnn.lower(graph, dtype=np.float64), events()).spikes
        found += spikes.values()
    assert np.sum(found[0].count) > 20
    np.testing.assert_array_equal(found[0].count, found[1].count)
    np.testing.assert_allclose(found[0].time, found[1].time, rtol=1e-12)


def test_trained_numbers_go_back_into_the_graph():
    graph = two_layers(own=True)
    network = jaxsnn.lower(graph)
    gain = network.parameters["4"]["gain"].at[2].set(7.0)
    changed = network.with_parameters({**network.parameters, "4": {"gain": gain}})
    back = jaxsnn.update_graph(graph, changed)
    assert back.nodes["4"].value("gain")[2] == 7.0
    kept = [0, 1, 3]
    assert back.nodes["4"].value("gain")[kept].tolist() == gains(2)[kept].tolist()
    assert back.nodes["1"] is graph.nodes["1"]


def test_steps_of_the_optimiser_see_through_it():
    scales = []
    weight = np.random.default_rng(5).normal(size=(5, 3))
    for own in (True, False):
        same_linear = build.linear(weight=linear_nodes.gather(INDEX, gains(1), 5))
        layer = gather(INDEX, 1) if own else same_linear
        neurons = build.cubalif(**NEURONS, v_threshold=[0.5, 1.0, 2.0, 4.0])
        graph = build.sequential(build.input(3), build.linear(weight=weight), layer, neurons)
        network = jaxsnn.lower(graph)
        wanted = ("weight", "gain") if own else ("weight",)
        trained = find_trainables(network, wanted, longest_delay=1.0).constraints
        scales.append(step_scales(network, trained, T_END))
    np.testing.assert_allclose(scales[0]["1"]["weight"], scales[1]["1"]["weight"], rtol=1e-6)
    assert len(np.unique(scales[0]["1"]["weight"])) == 4  # nothing takes channels 2 and 4
    assert float(scales[0]["2"]["gain"]) == pytest.approx(gains(1).max())


def test_its_numbers_are_trained():
    x = np.random.default_rng(0).uniform(size=(40, 5))
    graph = two_layers(own=True)
    options = {"epochs": 1, "batch_size": 8, "learning_rate": 0.01, "trainable": ("gain",)}
    done = jaxsnn.fit(graph, (x, np.arange(40) % 4), **options)
    for name in ("1", "4"):
        assert not np.array_equal(
            done.graph.nodes[name].value("gain"), graph.nodes[name].value("gain")
        )
    assert done.graph.nodes["2"] is graph.nodes["2"]


# -- the chip


@pytest.mark.parametrize("found_by", ["entries", "apply"])
def test_the_chip_gets_the_same_connections(found_by, again):
    if found_by == "apply":
        again(GATHER, entries=None)
    links = []
    for own in (True, False):
        ready = plan(two_layers(own))
        links.append(arrivals(ready, {name: ready.part(name) for name in ready.order}))
    for name, source in (("3", "input"), ("5", "3")):
        one, other = (each[name].links[source] for each in links)
        np.testing.assert_array_equal(one.source, other.source)
        np.testing.assert_array_equal(one.target, other.target)
        np.testing.assert_allclose(
            one.value, other.value, rtol=1e-12 if found_by == "entries" else 1e-6
        )
    weights = [jaxsnn.quantize(two_layers(own)).netlist.weight for own in (True, False)]
    np.testing.assert_array_equal(*weights)


def test_without_a_list_of_its_connections_a_large_type_is_refused(monkeypatch, again):
    again(GATHER, entries=None)
    monkeypatch.setattr(unroll, "MOST_CONNECTIONS", 20)  # 5 channels to 4
    net = build.sequential(build.input(5), gather(INDEX, 1), build.cubalif(**NEURONS))
    assert jaxsnn.quantize(net).netlist.weight.size == 4
    monkeypatch.setattr(unroll, "MOST_CONNECTIONS", 19)
    says = r"'1' \(Gather\) has 20 connections"
    assert_refused(lambda: jaxsnn.quantize(net), MappingError, says, fix="entries")


# -- a population


def adaptive(**changes):
    given = {"tau": "10ms", "tau_adaptation": 0.1, "rate": 50.0, "v_threshold": [1.0, 2.0]}
    return build.node("Adaptive", 2, **given | changes)


@pytest.mark.parametrize(("dialect", "area"), [("jaxsnn", None), ("nir", 1e-3)])
def test_a_type_with_a_state_becomes_a_population(dialect, area):
    """Times are in seconds; the file has milliseconds."""
    layer = adaptive(tau=10.0, tau_adaptation=100.0, rate=0.05)
    graph = build.sequential(build.input(2), layer, dialect=dialect, time_unit="ms")
    assert graph.neurons == ("1",)
    part = plan(graph).part("1")
    assert part.wire.kind == "neuron"
    population = part.population
    assert (population.kind, population.size, population.readout) == ("Adaptive", 2, False)
    assert population.spike_area == area
    assert {name: value.tolist() for name, value in part.parameters.items()} == {
        "tau": pytest.approx([10e-3] * 2),
        "tau_adaptation": pytest.approx([100e-3] * 2),
        "rate": pytest.approx([50.0] * 2),
        "step": [0.5, 0.5],
        "v_threshold": [1.0, 2.0],
    }


@pytest.mark.parametrize(
    ("purpose", "engine"), [("event", jaxsnn.EventDriven), ("grid", jaxsnn.TimeStepped)]
)
def test_without_a_neuron_model_it_is_not_simulated(purpose, engine):
    graph = build.sequential(build.input(2), adaptive(), dt=1e-3)
    (problem,) = jaxsnn.check(graph, purpose).problems
    message = "node '1' is a Adaptive, and there is no neuron model for that type"
    assert (problem.code, problem.message) == ("unsupported-node", message)
    arriving, end = steps(shape=(2,)), None
    if purpose == "event":
        arriving, end = events(channels=2, dtype=np.float32), T_END
    assert_refused(
        lambda: jaxsnn.simulate(jaxsnn.lower(graph), arriving, end, engine=engine()),
        LoweringError,
        message,
    )


@pytest.mark.parametrize("fires", [True, False])
def test_it_fires_if_its_traits_say_so(fires, again):
    again(ADAPTIVE, fires=fires)
    graph = build.sequential(build.input(2), adaptive())
    population = plan(graph).part("1").population
    assert (population.fires, population.readout) == (fires, not fires)
    assert population.reset == ("zero" if fires else "none")
    if not fires:
        assert_refused(
            lambda: jaxsnn.parse(graph.source, dialect="jaxsnn", time_unit="s", readout="1"),
            UsageError,
            "a Adaptive, which does not spike anyway",
        )


def test_a_voltage_of_its_own_drives_no_other_population(again):
    """In continuous time, where populations send on spikes alone."""
    again(ADAPTIVE, fires=False)
    last = build.lif(tau="5ms")
    graph = build.sequential(
        build.input(2), adaptive(), build.linear(weight=np.eye(2)), last, dialect="jaxsnn"
    )
    facts = [
        (problem.facts["kind"], problem.facts["target"])
        for problem in jaxsnn.check(graph, "event").problems
        if (problem.node, problem.code) == ("1", "analog-signal")
    ]
    assert facts == [("Adaptive", "3")]


def test_a_population_is_read_and_written(tmp_path):
    graph = build.sequential(build.input(2), adaptive(), build.linear(2), adaptive(), seed=0)
    write(tmp_path / "a.nir", graph)
    again = read(tmp_path / "a.nir")
    assert again.dialect.name == "jaxsnn"
    assert again.nodes["1"].value("tau").tolist() == [10e-3, 10e-3]
    write(tmp_path / "b.nir", again)
    assert (tmp_path / "a.nir").read_bytes() == (tmp_path / "b.nir").read_bytes()


def test_frameworks_that_never_write_it_are_refused_by_name(tmp_path):
    graph = build.sequential(build.input(2), adaptive(), dialect="nir", time_unit="s")
    document = dataclasses.replace(graph).source
    del document["node"]["metadata"]
    undecided = jaxsnn.parse(document)
    assert set(undecided.dialect.choices) == {"nir", "jaxsnn"}
    for name in ("snntorch", "norse", "sinabs", "rockpool", "spyx", "spikingjelly", "hxtorch"):
        call = lambda name=name: jaxsnn.parse(document, dialect=name, time_unit=None)  # noqa: E731
        assert_refused(call, DialectError, f"a Adaptive, which {name} never writes", node="1")
    foreign = graph.with_dialect(dialect_of("norse"))
    says = "a Adaptive, which norse never writes"
    assert_refused(lambda: plan(foreign).part("1"), DialectError, says)
    problems = jaxsnn.check(graph, "bss2").problems
    assert [problem.node for problem in problems] == ["1"]
    assert "the chip has no neurons of that type" in problems[0].message


def test_infinite_time_constants_of_a_population_stand_in_the_way():
    graph = build.sequential(build.input(2), adaptive(tau_adaptation=[0.1, np.inf]))
    population = plan(graph).part("1").population
    found = dict(population.obstacles)["tau"]
    assert found.message.startswith("node '1' (Adaptive): tau_adaptation of neuron 1 is infinite: ")
    call = lambda: build.sequential(build.input(2), adaptive(tau_adaptation=[0.1, 0.0]))  # noqa: E731
    assert_refused(call, GraphError, "tau_adaptation that is not positive, 0 at index 1")


# -- what is registered wrongly


def test_traits_without_a_transfer_do_not_pass_for_those_that_keep_the_shape():
    node = nodes.Linear(name="a")
    assert_refused(
        lambda: NodeTraits(type="Odd").output_shape(node, (3,)),
        UnsupportedNodeError,
        "the traits of node 'a' .Odd. do not specify",
    )
    assert NodeTraits(type="Even", elementwise=True).output_shape(node, (3,)) == (3,)


def changed(traits, **changes):
    return dataclasses.replace(traits, type="Changed", **changes)


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        (lambda: changed(GATHER, apply=None), "is linear without an operator"),
        (lambda: changed(GATHER, transfer=None), "does not tell the shape of its output"),
        (lambda: changed(GATHER, state=True), "has a state and is linear"),
        (lambda: changed(GATHER, port=True), "is a port"),
        (lambda: changed(GATHER, bias="offset"), "has no parameter 'offset' for its bias"),
        (lambda: changed(SMOOTH, fires=True), "fires without a state"),
        (
            lambda: changed(GATHER, parameters=(Parameter(name="name"),)),
            "has a parameter with the reserved name name",
        ),
        (
            lambda: changed(GATHER, parameters=(*GATHER.parameters, *GATHER.parameters)),
            "has a parameter twice",
        ),
        (lambda: dataclasses.replace(GATHER, type="Linear"), "is NIR's own"),
        (lambda: dataclasses.replace(GATHER, type="a b"), "is no name of a type"),
        (lambda: dataclasses.replace(SMOOTH, type="Gather"), "is registered already, with other"),
    ],
)
def test_traits_that_make_no_sense_are_refused(traits, message):
    assert_refused(lambda: register_node(traits()), UsageError, message)
    assert register_node(GATHER) is nodes.class_of("Gather")  # the same one again


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"apply": lambda parameters, detail, x: x},
            r"its operator returns the shape \(2, 5\) for \(2, 5\), and its traits specify \(2, 4\)",
        ),
        (
            {"apply": lambda parameters, detail, x: x[:, :4] + 1},
            "its operator returns 1 for zeros: make that its bias",
        ),
        (
            {"apply": lambda parameters, detail, x: x[:, :4] ** 2},
            "its operator is not linear",
        ),
        (
            {"apply": lambda parameters, detail, x: x[:, :4] @ parameters["weight"]},
            "its operator fails on the shape \\(2, 5\\): 'weight'",
        ),
        (
            {"apply": lambda parameters, detail, x: x[:, :4]},
            "its operator has entries= that make another sum than apply=",
        ),
        (
            {"apply": lambda parameters, detail, x: x[:, :4] + 0.01 * x[:, :4] ** 2},
            "its operator is not linear",
        ),
        (
            {"apply": lambda *given: 1.01 * GATHER.apply(*given)},
            "its operator has entries= that make another sum than apply=",
        ),
    ],
)
def test_an_operator_that_is_not_what_its_traits_say_is_refused(changes, message, again):
    again(GATHER, **changes)
    assert_refused(
        lambda: jaxsnn.lower(two_layers(own=True)),
        LoweringError,
        f"node '1' \\(Gather\\): {message}",
    )


def test_a_stateless_type_that_is_not_linear_is_read_but_not_simulated(again):
    again(GATHER, linear=False, apply=None, entries=None)
    graph = two_layers(own=True)
    assert shapes(graph)["1"] == ((5,), (4,))
    for purpose, engine in (("event", "event"), ("grid", "time-stepped")):
        problems = [each for each in jaxsnn.check(graph, purpose).problems if each.node == "1"]
        assert (problems[0].code, problems[0].facts["kind"]) == ("unsupported-node", "Gather")
        assert f"the {engine} engine does not simulate" in problems[0].message
    network = jaxsnn.lower(graph)
    assert_refused(
        lambda: simulated(network, events(dtype=np.float32)), LoweringError, "node '1' is a Gather"
    )
    assert "the chip has no node of that type" in jaxsnn.check(graph, "bss2").problems[0].message


# -- NIR's own types


def test_fields_of_all_classes_are_the_parameters_of_their_traits():
    own = {field.name for field in dataclasses.fields(nodes.Node)}
    for kind, cls in nodes.TYPES.items():
        assert cls.traits.type == kind == cls.__name__
        names = [field.name for field in dataclasses.fields(cls) if field.name not in own]
        assert tuple(names) == cls.names == cls.traits.names
        assert cls.traits.linear or not (cls.traits.apply or cls.traits.entries or cls.traits.bias)
        assert cls.traits.keeps_shape or cls.traits.transfer is not None


def test_networks_made_by_hand_have_the_operators_of_the_traits():
    from jaxsnn.network.structure import OPERATORS

    linear = {kind: cls.traits for kind, cls in nodes.TYPES.items() if cls.traits.linear}
    assert {kind: (each.apply, each.bias) for kind, each in OPERATORS.items()} == {
        kind: (traits.apply, traits.bias) for kind, traits in linear.items()
    }


# -- at the command line


def installed(tmp_path, **types):
    """A package with the types, installed into a folder."""
    points = {name: f"my_nodes:{target}" for name, target in types.items()}
    files = {"my_nodes.py": PACKAGE}
    return packages.installed(tmp_path / "site", "my_nodes", files=files, nodes=points)


@pytest.fixture
def graph_file(tmp_path):
    write(tmp_path / "net.nir", two_layers(own=True))
    return tmp_path / "net.nir"


def test_an_installed_package_adds_its_own(graph_file, tmp_path):
    site = installed(tmp_path, Gather="GATHER", Smooth="SMOOTH")
    done = finished("info", graph_file, "--json", site=site)
    assert json.loads(done.stdout)["nodes"][0]["type"] == "Gather"
    finished("check", graph_file, "--for", "event", site=site)
    finished("draw", graph_file, "-o", tmp_path / "net.svg", site=site)
    assert "Gather 5 to 4" in (tmp_path / "net.svg").read_text()
    arriving = events(dtype=np.float32)
    np.savez(tmp_path / "x.npz", time=arriving.time, index=arriving.index)
    options = ["--input", tmp_path / "x.npz", "-o", tmp_path / "y.npz", "--t-end", "40ms"]
    finished("run", graph_file, *options, "--max-spikes", "64", site=site)
    expected = simulated(jaxsnn.lower(two_layers(own=True)), arriving).spikes["5"].count
    with np.load(tmp_path / "y.npz") as y:
        times = [y[key] for key in y.files if key.endswith("time")]
    assert sum(int(np.isfinite(time).sum()) for time in times) == int(np.sum(expected))
    mapping = tmp_path / "m.json"
    finished("map", graph_file, "-o", mapping, site=site)


def test_without_the_package_the_node_is_named(graph_file):
    done = finished("info", graph_file, code=1)
    assert "node '1' has the type Gather, which is not supported" in done.stderr
    done = finished("check", graph_file, "--for", "event", "--json", code=1)
    codes = [(each["node"], each["code"]) for each in json.loads(done.stdout)["problems"]]
    assert codes == [("1", "unknown-type"), ("4", "unknown-type")]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("ABSENT", "the node type 'Gather' cannot be loaded from my_nodes:ABSENT"),
        ("SMOOTH", "the entry point 'Gather' of jaxsnn.nodes leads to Smooth"),
        ("gathered", "the entry point 'Gather' of jaxsnn.nodes leads to a function"),
    ],
)
def test_a_broken_package_is_named_where_its_type_is_met(target, message, graph_file, tmp_path):
    site = installed(tmp_path, Gather=target)
    assert message in finished("info", graph_file, code=2, site=site).stderr
    write(tmp_path / "plain.nir", two_layers(own=False))
    finished("info", tmp_path / "plain.nir", site=site)
