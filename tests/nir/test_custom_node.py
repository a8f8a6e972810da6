"""Node types that NIR does not have, as docs/guide_neuron.md writes them, outside the package:
registered, they are read, checked, described, drawn, simulated by both engines, trained, placed and
written. So are those that an installed package offers.

"Gather" copies channels, each with a gain of its own, and lists its connections. "Smooth" is a
moving sum along the last axis with a bias, and does not: what it connects is found by applying it.
"Adaptive" is a population, without a neuron model.
"""

import dataclasses
import json
import sys
from functools import partial

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
from jaxsnn.network.structure import OPERATORS
from jaxsnn.nir import NodeTraits, Parameter, build, dialect_of, read, register_node, write
from jaxsnn.nir.model import nodes
from jaxsnn.nir.model.description import describe
from jaxsnn.nir.model.passes import shapes, transfer
from jaxsnn.plot.graph_drawing import draw, mermaid, svg
from jaxsnn.train.loop.constraints import find_trainables
from jaxsnn.train.loop.optimisers import step_scales
from tests.extending_page import code_of, defined_by
from tests.helpers import packages
from tests.helpers.command_line import call, finished
from tests.helpers.random_spikes import random_events
from tests.helpers.refusals import assert_refused
from tests.oracles import linear_nodes

#: Node types of the page, as an installed package would register them.
PACKAGE, PAGE = code_of("A node type"), defined_by("A node type")
GATHER, SMOOTH, ADAPTIVE = (PAGE[name] for name in ("GATHER", "SMOOTH", "ADAPTIVE"))

INDEX = np.array([3, 1, 1, 0])
SECOND = np.array([5, 0, 2, 2])
TAPS = np.array([0.25, 1.5, -0.5])
NEURONS = {"tau_mem": 10e-3, "tau_syn": 5e-3}
#: snnTorch's Leaky with beta = 0.9 and a step of 0.1 ms.
LEAKY = {"tau": 1e-3, "r": 10.0}
T_END = 40e-3


@pytest.fixture
def register(monkeypatch):
    """`register(traits, **changes)`: one type alone is registered, with other traits."""

    def register_alone(traits, **changes):
        monkeypatch.setattr(nodes, "_REGISTERED", {})
        register_node(dataclasses.replace(traits, **changes))

    return register_alone


@pytest.fixture(autouse=True)
def all_registered(monkeypatch):
    """The types are registered for the time of a test."""
    monkeypatch.setattr(nodes, "_REGISTERED", {})
    for traits in (GATHER, SMOOTH, ADAPTIVE):
        register_node(traits)


def gains(seed, size=4):
    return np.random.default_rng(seed).uniform(0.5, 2.0, size)


def gather(index, seed):
    return build.node("Gather", index=index, gain=gains(seed, len(index)))


def gather_matrix(index, seed, inputs):
    """A Linear that does the same as a Gather."""
    return build.linear(weight=linear_nodes.gather(index, gains(seed), inputs))


def two_layers(custom=True, **dialect):
    """Two Gathers, each before a population; or Linears that do the same."""
    weight = np.random.default_rng(7).normal(1.0, 1.0, (6, 4))
    if custom:
        layers = [gather(INDEX, 1), gather(SECOND, 2)]
    else:
        layers = [gather_matrix(INDEX, 1, 5), gather_matrix(SECOND, 2, 6)]
    neurons = build.cubalif(**NEURONS, v_threshold=0.6)
    if dialect:
        neurons = build.lif(**LEAKY, v_threshold=2.0)
    layers[1:1] = build.linear(weight=weight), neurons
    return build.sequential(build.input(5), *layers, neurons, **dialect)


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
    write(tmp_path / "a.nir", two_layers())
    graph = read(tmp_path / "a.nir")
    node = graph.nodes["1"]
    assert (type(node).__name__, node.type, node.names) == ("Gather", "Gather", ("index", "gain"))
    assert node.value("index").dtype == INDEX.dtype
    assert node.value("gain").tolist() == gains(1).tolist()
    write(tmp_path / "b.nir", graph)
    assert (tmp_path / "a.nir").read_bytes() == (tmp_path / "b.nir").read_bytes()
    write(tmp_path / "c.nir", graph.with_nodes([node.replace(gain=2 * gains(1))]))
    changed_nodes = read(tmp_path / "c.nir").nodes
    assert changed_nodes["1"].value("gain").tolist() == (2 * gains(1)).tolist()
    assert changed_nodes["4"].value("gain").tolist() == gains(2).tolist()


def test_without_its_registration_a_type_is_refused_by_name(tmp_path, monkeypatch):
    write(tmp_path / "a.nir", two_layers())
    monkeypatch.setattr(nodes, "_REGISTERED", {})
    refused = partial(assert_refused, error=UnsupportedNodeError, says="type Gather")
    refused(lambda: read(tmp_path / "a.nir"), node="1", fix="supported types: Input, ")
    refused(lambda: build.node("Gather", index=INDEX))


def test_a_class_without_traits_is_refused_everywhere():
    class Stranger(nodes.Node):
        pass

    graph = two_layers()
    stranger = Stranger(name="1")
    graph = dataclasses.replace(graph, nodes={**graph.nodes, "1": stranger})
    for use in (
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
        assert_refused(use, UnsupportedNodeError, r"\(Stranger\) has no traits")


def chain_with(**changes):
    node = dataclasses.replace(
        gather(INDEX, 1), node_fields={"index": INDEX, "gain": gains(1)} | changes
    )
    return build.sequential(build.input(5), node, build.cubalif(**NEURONS))


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (
            lambda: chain_with(index=np.array([0, 9])),
            GraphError,
            r"'1' \(Gather\) takes channel 9 of 5",
        ),
        (lambda: chain_with(index=np.array([0, -1])), GraphError, "index = -1 at index 1"),
        (lambda: chain_with(gain=np.full(4, np.nan)), GraphError, "values of gain that are not finite: 4 of 4"),
        (lambda: chain_with(gain="loud"), GraphError, "gain = 'loud'"),
        (
            lambda: image_net(dataclasses.replace(gather(INDEX, 1), node_fields={"index": INDEX}), shape=(5,)),
            GraphError,
            r"'1' \(Gather\) has no gain",
        ),
        (
            lambda: build.sequential(
                build.input(5), gather(INDEX, 1), build.linear(weight=np.ones((2, 7)))
            ),
            GraphError,
            r"'2': weight of shape \(2, 7\) does not fit \(2, 4\)",
        ),
        (
            lambda: build.node("Gather", index=INDEX, gains=gains(1)),
            UsageError,
            "mean 'gain'",
        ),
        (lambda: build.node("Gather", 4, index=INDEX), UsageError, "no size of its own"),
        (lambda: build.node("Gathering"), UnsupportedNodeError, "the type Gathering"),
        (
            lambda: build.sequential(build.input(2), adaptive(tau_adaptation=[0.1, 0.0])),
            GraphError,
            "tau_adaptation that are not positive: 1 of",
        ),
    ],
)  # fmt: skip
def test_parameters_and_shapes_are_checked(make, error, says):
    assert_refused(make, error, says)


def test_settings_of_one_number_hold_for_both_axes():
    chain_with()  # the graph without the changes of the refusals above
    pooled = build.node("SumPool2d", kernel_size=[1, 2], stride=[1, 2], padding=0)
    settings = {"stride": 1, "padding": "same", "dilation": 1, "groups": 1, "bias": np.zeros(3)}
    convolved = build.node("Conv2d", weight=np.ones((3, 2, 1, 1)), **settings)
    graph = build.sequential(build.input((2, 4, 6)), pooled, convolved, build.li(tau="10ms"))
    assert shapes(graph)["3"] == ((3, 4, 3), (3, 4, 3))


# -- checks, descriptions and drawings


def test_a_custom_node_is_checked_described_and_drawn(tmp_path):
    graph = two_layers()
    assert jaxsnn.check(graph, "event").problems == ()
    assert jaxsnn.check(two_layers(**STEPPED), "grid").problems == ()
    assert jaxsnn.check(graph, "bss2").ok
    content = describe(graph)
    assert content["synapses"] == 4 + 24 + 4
    entry = content["nodes"][0]
    assert (entry["type"], entry["input_shape"], entry["output_shape"]) == ("Gather", [5], [4])
    assert "Gather 5 to 4, 4 synapses" in svg(graph)
    assert draw(graph, tmp_path / "net.svg").nodes == 7
    assert ":::neuron" in mermaid(build.sequential(build.input(2), adaptive()))


def test_importers_that_do_not_know_it_say_so():
    graph = two_layers(**STEPPED)
    for target in sorted(set(purposes()) - {"event", "grid", "bss2"}):
        assert {"1", "4"} <= {problem.node for problem in jaxsnn.check(graph, target).problems}
    for target in ("norse", "snntorch", "spikingjelly", "spyx"):
        assert_refused(
            partial(jaxsnn.convert, graph, to=target), ConversionError, r"'1' \(Gather\)"
        )
    assert_refused(lambda: jaxsnn.export(graph), GraphError, "'1' is a Gather")


# -- simulation with both engines


def event_results(network):
    """A loss of the spike times, and the counts and times of both populations."""
    spikes = simulated(network, events()).spikes
    times = spikes["5"].time
    loss = jnp.sum(jnp.where(jnp.isfinite(times), jnp.cos(300 * times), 0.0))
    return loss, {name: (spikes[name].count, spikes[name].time) for name in ("3", "5")}


def stepped_results(network):
    """A loss of the output, and its spikes."""
    output = jaxsnn.simulate(network, steps(), engine=jaxsnn.TimeStepped()).output()
    return jnp.sum(output**2), {"output": (output,)}


@pytest.mark.parametrize(
    ("results", "dialect", "trained", "least"),
    [
        (event_results, {}, {"1": INDEX, "4": SECOND}, 50),
        (stepped_results, STEPPED, {"1": INDEX}, 20),
    ],
    ids=["event", "grid"],
)
@pytest.mark.usefixtures("x64")
def test_spikes_and_gradients_are_those_of_a_linear_that_does_the_same(
    results, dialect, trained, least
):
    computed = []
    for custom in (True, False):
        network = jaxsnn.lower(two_layers(custom, **dialect), dtype=np.float64)
        loss = lambda parameters, network=network: results(network.with_parameters(parameters))  # noqa: E731
        computed.append(jax.value_and_grad(loss, has_aux=True)(network.parameters))
    ((_, spikes), grads), ((_, same_spikes), same_grads) = computed
    assert all(counts.sum() > least for counts, *_ in spikes.values())
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12), spikes, same_spikes)
    for name, index in trained.items():
        expected = np.asarray(same_grads[name]["weight"])[np.arange(4), index]
        assert np.abs(expected).min() > 0
        np.testing.assert_allclose(grads[name]["gain"], expected, rtol=1e-9)
    np.testing.assert_allclose(grads["2"]["weight"], same_grads["2"]["weight"], rtol=1e-9)


def image_net(*layers, shape=(2, 6)):
    return build.sequential(
        build.input(shape), *layers, build.cubalif(**NEURONS, v_threshold=0.7), seed=0
    )


def smooth(channels=2, taps=TAPS):
    return build.node("Smooth", taps=taps, bias=0.1 * np.arange(1.0, channels + 1))


def conv1d(weight, groups=1):
    settings = {"stride": 1, "padding": 1, "dilation": 1, "groups": groups}
    return build.node("Conv1d", weight=weight, bias=np.zeros(len(weight)), **settings)


FLAT = build.node("Flatten", start_dim=0, end_dim=-1)
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
    "before a matrix": lambda: [smooth(), FLAT, build.linear(weight=DENSE)],
    "behind a matrix": lambda: [FLAT, build.linear(weight=DENSE), smooth(5)],
    "between all": lambda: [
        conv1d(KERNEL),
        smooth(4),
        conv1d(RNG.normal(size=(2, 4, 3))),
        FLAT,
        gather(np.array([11, 0, 5, 5, 3]), 4),
        build.linear(weight=RNG.normal(size=(3, 5))),
        smooth(3),
    ],
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.usefixtures("x64")
def test_a_custom_node_joins_linear_nodes(chain):
    """The composed operator of the event engine, against the nodes applied one after the other."""
    network = jaxsnn.lower(image_net(*CHAINS[chain]()), dtype=np.float64)
    x, constant = jnp.eye(12).reshape(12, 2, 6), jnp.zeros((1, 2, 6))
    for wire in network.wires[1:-2]:
        parameters = network.parameters.get(wire.name, {})
        x, constant = (applied(wire, z.shape[1:], parameters, z) for z in (x, constant))
        bias = wire.bias(parameters)
        if bias is not None:
            constant = constant + bias.reshape(-1, *[1] * (constant.ndim - 2))
    (signal,) = signals(network).values()
    np.testing.assert_allclose(signal.matrices(np.float64)["input"], x.reshape(12, -1), atol=1e-12)
    np.testing.assert_allclose(signal.constant, constant.reshape(-1), atol=1e-12)


@pytest.mark.parametrize("taps", [TAPS, np.array([0.25, 0.0, -0.5])])
def test_connections_that_are_not_listed_are_detected_by_applying_it(taps):
    """A weight of zero is a connection too, which can be trained."""
    (signal,) = signals(jaxsnn.lower(image_net(smooth(taps=taps)))).values()
    (_, operator) = signal.paths[0]
    source, position, row = operator.entries()
    assert len(source) == np.count_nonzero(linear_nodes.moving_sum((2, 6), np.ones(3))) == 32
    matrix = np.zeros((12, 12))
    matrix[position, source] = np.asarray(operator.weight)[row, 0]
    np.testing.assert_allclose(matrix, linear_nodes.moving_sum((2, 6), taps), rtol=1e-6)


def test_a_bias_of_each_element_is_added_to_its_own(register):
    """In both engines; a bias per feature is in the chains above."""
    register(SMOOTH, parameters=(SMOOTH.parameters[0], Parameter(name="bias", per="element")))
    bias = np.arange(12.0).reshape(2, 6)
    layer = build.node("Smooth", taps=TAPS, bias=bias)
    graph = build.sequential(build.input((2, 6)), layer, build.li(**LEAKY), **STEPPED_LI)
    network = jaxsnn.lower(graph)
    (signal,) = signals(network).values()
    np.testing.assert_array_equal(signal.constant, bias.reshape(-1))
    silence = np.zeros((1, 1, 2, 6), np.float32)
    (voltage,) = jaxsnn.simulate(network, silence, engine=jaxsnn.TimeStepped()).output()
    np.testing.assert_allclose(voltage[0], bias, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_gradients_where_connections_were_detected():
    """Spikes and gradients of a Smooth, against those of an Affine that does the same."""
    weight, bias = linear_nodes.moving_sum((2, 6), TAPS), np.repeat([0.1, 0.2], 6)
    affine = build.affine(weight=weight, bias=lambda rng, shape: bias)
    computed = []
    for layers in ((smooth(), FLAT), (FLAT, affine)):
        network = jaxsnn.lower(image_net(*layers), dtype=np.float64)

        def loss(parameters, network=network):
            spikes = simulated(network.with_parameters(parameters), events(1, 12)).spikes["3"]
            times = jnp.where(jnp.isfinite(spikes.time), jnp.cos(300 * spikes.time), 0.0)
            return jnp.sum(times), jnp.sum(spikes.count)

        computed.append(jax.value_and_grad(loss, has_aux=True)(network.parameters))
    ((value, count), grad), ((same_value, same_count), same_grad) = computed
    assert count == same_count > 20
    assert value == pytest.approx(float(same_value), rel=1e-9)
    by_weight = np.asarray(same_grad["2"]["weight"])
    by_taps = [np.sum(by_weight * linear_nodes.moving_sum((2, 6), tap)) for tap in np.eye(3)]
    np.testing.assert_allclose(grad["1"]["taps"], by_taps, rtol=1e-8)
    by_bias = np.asarray(same_grad["2"]["bias"]).reshape(2, 6).sum(axis=1)
    np.testing.assert_allclose(grad["1"]["bias"], by_bias, rtol=1e-8)


@pytest.mark.parametrize("before", [[], [build.linear(weight=np.eye(5) + 0.2)]])
@pytest.mark.usefixtures("x64")
def test_delays_before_it_go_with_their_channels(before):
    """Delays of the input, and those of what a Linear makes of it."""
    delay, trains = np.arange(5) * 2e-3, []
    for layers in (
        [*before, build.node("Delay", delay=delay), gather(INDEX, 1)],
        [*before, gather(INDEX, 1), build.node("Delay", delay=delay[INDEX])],
    ):
        neurons = build.cubalif(**NEURONS, v_threshold=0.4)
        graph = build.sequential(build.input(5), *layers, neurons)
        trains += simulated(jaxsnn.lower(graph, dtype=np.float64), events()).spikes.values()
    assert np.sum(trains[0].count) > 20
    np.testing.assert_array_equal(trains[0].count, trains[1].count)
    np.testing.assert_allclose(trains[0].time, trains[1].time, rtol=1e-12)


def test_trained_numbers_go_back_into_the_graph():
    graph = two_layers()
    network = jaxsnn.lower(graph)
    gain = network.parameters["4"]["gain"].at[2].set(7.0)
    changed = network.with_parameters({**network.parameters, "4": {"gain": gain}})
    after = jaxsnn.update_graph(graph, changed).nodes
    assert after["4"].value("gain").tolist() == [*gains(2)[:2], 7.0, gains(2)[3]]
    assert after["1"] is graph.nodes["1"]


def test_steps_of_the_optimiser_see_through_it():
    weight, scales = np.random.default_rng(5).normal(size=(5, 3)), []
    for layer in (gather(INDEX, 1), gather_matrix(INDEX, 1, 5)):
        neurons = build.cubalif(**NEURONS, v_threshold=[0.5, 1.0, 2.0, 4.0])
        graph = build.sequential(build.input(3), build.linear(weight=weight), layer, neurons)
        network = jaxsnn.lower(graph)
        parameters = ("weight", "gain") if layer.type == "Gather" else ("weight",)
        trained, _ = find_trainables(network, parameters, longest_delay=1.0)
        scales.append(step_scales(network, trained, T_END))
    np.testing.assert_allclose(scales[0]["1"]["weight"], scales[1]["1"]["weight"], rtol=1e-6)
    assert len(np.unique(scales[0]["1"]["weight"])) == 4  # channels 2 and 4 feed nothing
    assert float(scales[0]["2"]["gain"]) == pytest.approx(gains(1).max())


def test_its_numbers_are_trained():
    x = np.random.default_rng(0).uniform(size=(40, 5))
    graph = two_layers()
    options = {"epochs": 1, "batch_size": 8, "learning_rate": 0.01, "trainable": ("gain",)}
    before, after = graph.nodes, jaxsnn.fit(graph, (x, np.arange(40) % 4), **options).graph.nodes
    for name in ("1", "4"):
        assert not np.array_equal(after[name].value("gain"), before[name].value("gain"))
    for key, value in before["2"].parameters.items():
        np.testing.assert_array_equal(after["2"].value(key), value)


# -- the chip


@pytest.mark.parametrize(("entries", "rtol"), [(GATHER.entries, 1e-12), (None, 1e-6)])
def test_the_chip_gets_the_same_connections(entries, rtol, register):
    """From the type's list of entries, or by applying it."""
    register(GATHER, entries=entries)
    plans = [plan(two_layers(custom)) for custom in (True, False)]
    links = [arrivals(p, {name: p.part(name) for name in p.order}) for p in plans]
    for name, source in (("3", "input"), ("5", "3")):
        link, expected = (populations[name].links[source] for populations in links)
        np.testing.assert_array_equal(link.source, expected.source)
        np.testing.assert_array_equal(link.target, expected.target)
        np.testing.assert_allclose(link.value, expected.value, rtol=rtol)
    weights = [jaxsnn.quantize(two_layers(custom)).netlist.weight for custom in (True, False)]
    np.testing.assert_array_equal(*weights)


def test_without_a_list_of_its_connections_a_large_type_is_refused(monkeypatch, register):
    register(GATHER, entries=None)
    monkeypatch.setattr(unroll, "MOST_CONNECTIONS", 20)  # 5 channels to 4
    net = build.sequential(build.input(5), gather(INDEX, 1), build.cubalif(**NEURONS))
    assert jaxsnn.quantize(net).netlist.weight.size == 4
    monkeypatch.setattr(unroll, "MOST_CONNECTIONS", 19)
    says = r"'1' \(Gather\) has 20 connections"
    assert_refused(lambda: jaxsnn.quantize(net), MappingError, says, fix="entries")


# -- a custom population


def adaptive(**changes):
    numbers = {"tau": "10ms", "tau_adaptation": 0.1, "rate": 50.0, "v_threshold": [1.0, 2.0]}
    return build.node("Adaptive", 2, **numbers | changes)


def adaptive_net(*layers, **options):
    return build.sequential(build.input(2), adaptive(), *layers, **options)


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
    ("purpose", "run"),
    [
        (
            "event",
            lambda network: simulated(network, events(channels=2, dtype=np.float32)),
        ),
        (
            "grid",
            lambda network: jaxsnn.simulate(
                network, steps(shape=(2,)), engine=jaxsnn.TimeStepped()
            ),
        ),
    ],
)
def test_without_a_neuron_model_it_is_not_simulated(purpose, run):
    graph = adaptive_net(dt=1e-3)
    (problem,) = jaxsnn.check(graph, purpose).problems
    message = "node '1' (Adaptive) has a type without a neuron model"
    assert (problem.code, problem.message) == ("unsupported-node", message)
    assert_refused(
        lambda: run(jaxsnn.lower(graph)), LoweringError, node="1", code="unsupported-node"
    )


@pytest.mark.parametrize(("fires", "reset"), [(True, "zero"), (False, "none")])
def test_a_custom_neuron_fires_if_its_traits_say_so(fires, reset, register):
    register(ADAPTIVE, fires=fires)
    graph = adaptive_net()
    population = plan(graph).part("1").population
    assert (population.fires, population.readout, population.reset) == (fires, not fires, reset)
    if not fires:
        assert_refused(
            lambda: jaxsnn.parse(graph.source, dialect="jaxsnn", time_unit="s", readout="1"),
            UsageError,
            r"\(Adaptive\), which never spikes",
        )


def test_a_voltage_of_its_own_drives_no_other_population(register):
    """In continuous time, where populations send on spikes alone."""
    register(ADAPTIVE, fires=False)
    graph = adaptive_net(build.linear(weight=np.eye(2)), build.lif(tau="5ms"), dialect="jaxsnn")
    problems = jaxsnn.check(graph, "event").problems
    (problem,) = (problem for problem in problems if problem.code == "analog-signal")
    assert problem.node == "1"
    assert {"Adaptive", "3", "LIF"} <= {*problem.facts.values()}


def test_a_population_is_read_and_written(tmp_path):
    write(tmp_path / "a.nir", adaptive_net(build.linear(2), adaptive(), seed=0))
    graph = read(tmp_path / "a.nir")
    assert graph.dialect.name == "jaxsnn"
    assert graph.nodes["1"].value("tau").tolist() == [10e-3, 10e-3]
    write(tmp_path / "b.nir", graph)
    assert (tmp_path / "a.nir").read_bytes() == (tmp_path / "b.nir").read_bytes()


def test_frameworks_that_never_write_it_are_refused_by_name():
    graph = adaptive_net(dialect="nir", time_unit="s")
    document = graph.source
    del document["node"]["metadata"]
    assert set(jaxsnn.parse(document).dialect.choices) == {"nir", "jaxsnn"}
    for name in ("snntorch", "norse", "sinabs", "rockpool", "spyx", "spikingjelly", "hxtorch"):
        parse = partial(jaxsnn.parse, document, dialect=name, time_unit=None)
        assert_refused(
            parse, DialectError, f"of type Adaptive, which {name} never writes", node="1"
        )
    foreign = graph.with_dialect(dialect_of("norse"))
    says = "of type Adaptive, which norse never writes"
    assert_refused(lambda: plan(foreign).part("1"), DialectError, says)
    (problem,) = jaxsnn.check(graph, "bss2").problems
    assert problem.node == "1"
    assert "the chip has no neurons of that type" in problem.message


def test_infinite_time_constants_of_a_population_stand_in_the_way():
    graph = build.sequential(build.input(2), adaptive(tau_adaptation=[0.1, np.inf]))
    obstacle = dict(plan(graph).part("1").population.obstacles)["tau"]
    assert obstacle.message.startswith(
        "node '1' (Adaptive): tau_adaptation of neuron 1 is infinite, so that "
    )


# -- invalid registrations


def test_traits_without_a_transfer_do_not_pass_for_those_that_keep_the_shape():
    node = nodes.Linear(name="a")
    assert_refused(
        lambda: NodeTraits(type="Odd").output_shape(node, (3,)),
        UnsupportedNodeError,
        "the traits of node 'a' .Odd. do not specify",
    )
    assert NodeTraits(type="Even", elementwise=True).output_shape(node, (3,)) == (3,)


@pytest.mark.parametrize(
    ("traits", "changes", "message"),
    [
        (GATHER, {"apply": None}, "is linear, but has no operator"),
        (GATHER, {"transfer": None}, "does not specify the shape of its output"),
        (GATHER, {"state": True}, "has both state and linear"),
        (GATHER, {"port": True}, "is a port"),
        (GATHER, {"bias": "offset"}, "has no parameter 'offset', which is specified as its bias"),
        (SMOOTH, {"fires": True}, "has fires without state"),
        (
            GATHER,
            {"parameters": (Parameter(name="name"),)},
            "has a parameter with the reserved name name",
        ),
        (GATHER, {"parameters": 2 * GATHER.parameters}, "has two parameters with the same name"),
        (GATHER, {"type": "Linear"}, "is a type of NIR"),
        (GATHER, {"type": "a b"}, "is not a valid type name"),
        (SMOOTH, {"type": "Gather"}, "is already registered with different"),
    ],
)
def test_traits_that_make_no_sense_are_refused(traits, changes, message):
    traits = dataclasses.replace(traits, **{"type": "Changed"} | changes)
    assert_refused(lambda: register_node(traits), UsageError, message)
    assert register_node(GATHER) is nodes.class_of("Gather")  # the same type again is allowed


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (
            lambda parameters, detail, x: x,
            r"its operator returns shape \(2, 5\) for an input of shape \(2, 5\), but its traits specify \(2, 4\)",
        ),
        (
            lambda parameters, detail, x: x[:, :4] + 1,
            "its operator returns 1 for an input of zeros: declare the constant as its bias",
        ),
        (lambda parameters, detail, x: x[:, :4] ** 2, "its operator is not linear"),
        (
            lambda parameters, detail, x: x[:, :4] @ parameters["weight"],
            "its operator fails for an input of shape \\(2, 5\\): 'weight'",
        ),
        (
            lambda parameters, detail, x: x[:, :4],
            "its operator has entries= whose weighted sum differs from the result of apply=",
        ),
        (
            lambda parameters, detail, x: x[:, :4] + 0.01 * x[:, :4] ** 2,
            "its operator is not linear",
        ),
        (
            lambda parameters, detail, x: 1.01 * GATHER.apply(parameters, detail, x),
            "its operator has entries= whose weighted sum differs from the result of apply=",
        ),
    ],
)
def test_an_operator_that_is_not_what_its_traits_say_is_refused(apply, message, register):
    register(GATHER, apply=apply)
    says = f"node '1' \\(Gather\\): {message}"
    assert_refused(lambda: jaxsnn.lower(two_layers()), LoweringError, says)


def test_a_stateless_type_that_is_not_linear_is_read_but_not_simulated(register):
    register(GATHER, linear=False, apply=None, entries=None)
    graph = two_layers()
    assert shapes(graph)["1"] == ((5,), (4,))
    for purpose, engine in (("event", "event"), ("grid", "time-stepped")):
        problems = jaxsnn.check(graph, purpose).problems
        problem = next(problem for problem in problems if problem.node == "1")
        assert (problem.code, problem.facts["kind"]) == ("unsupported-node", "Gather")
        assert f"the {engine} engine does not support" in problem.message
        assert "Linear, Affine" in problem.fix
    run = lambda: simulated(jaxsnn.lower(graph), events(dtype=np.float32))  # noqa: E731
    assert_refused(run, LoweringError, r"node '1' \(Gather\)")
    assert "the chip has no node of that type" in jaxsnn.check(graph, "bss2").problems[0].message


def test_a_function_that_is_not_linear_runs_in_time_steps_alone(register):
    """Squares of spikes times a gain are those of Linears with squared weights."""
    register(
        GATHER,
        linear=False,
        entries=None,
        apply=lambda parameters, detail, x: GATHER.apply(parameters, detail, x) ** 2,
    )
    graph, linear = two_layers(**STEPPED), two_layers(custom=False, **STEPPED)
    squared = [
        linear.nodes[name].replace(weight=linear.nodes[name].value("weight") ** 2) for name in "14"
    ]
    outputs = [
        jaxsnn.simulate(jaxsnn.lower(variant), steps(), engine=jaxsnn.TimeStepped()).output()
        for variant in (graph, linear.with_nodes(squared))
    ]
    assert outputs[0].any()
    np.testing.assert_array_equal(*outputs)
    [problem] = [p for p in jaxsnn.check(graph, "event").problems if p.node == "1"]
    assert "Gather, which the event engine does not simulate" in problem.message
    register(GATHER, linear=False, entries=None, apply=lambda parameters, detail, x: x[:, :2])
    says = r"'1' \(Gather\): its operator returns shape \(2, 2\)"
    assert_refused(lambda: jaxsnn.lower(two_layers(**STEPPED)), LoweringError, says)


# -- NIR's own types


def test_fields_of_all_classes_are_the_parameters_of_their_traits():
    common = {field.name for field in dataclasses.fields(nodes.Node)}
    for kind, cls in nodes.TYPES.items():
        assert cls.traits.type == kind == cls.__name__
        fields = [field.name for field in dataclasses.fields(cls) if field.name not in common]
        assert tuple(fields) == cls.names == cls.traits.names
        assert cls.traits.linear or not (cls.traits.apply or cls.traits.entries or cls.traits.bias)
        assert cls.traits.keeps_shape or cls.traits.transfer is not None


def test_networks_made_by_hand_have_the_operators_of_the_traits():
    linear = {kind: cls.traits for kind, cls in nodes.TYPES.items() if cls.traits.linear}
    assert {kind: (operator.apply, operator.bias) for kind, operator in OPERATORS.items()} == {
        kind: (traits.apply, traits.bias) for kind, traits in linear.items()
    }


# -- on the command line


@pytest.fixture
def graph_file(tmp_path):
    write(tmp_path / "net.nir", two_layers())
    return tmp_path / "net.nir"


@pytest.fixture
def install(tmp_path, graph_file, monkeypatch):
    """`install(Gather="GATHER")`: a package with these types is installed, none is registered."""

    def install_package(**types):
        points = {name: f"my_nodes:{target}" for name, target in types.items()}
        files = {"my_nodes.py": PACKAGE}
        site = packages.installed(tmp_path / "site", "my_nodes", files=files, nodes=points)
        monkeypatch.syspath_prepend(site)
        return site

    monkeypatch.setattr(nodes, "_REGISTERED", {})
    monkeypatch.delitem(sys.modules, "my_nodes", raising=False)
    return install_package


def test_the_commands_take_the_types_of_an_installed_package(graph_file, tmp_path, install, capsys):
    site = install(Gather="GATHER", Smooth="SMOOTH")
    information = finished("info", graph_file, "--json", site=site)  # in a separate process
    assert json.loads(information.stdout)["nodes"][0]["type"] == "Gather"
    arriving = events(dtype=np.float32)
    np.savez(tmp_path / "x.npz", time=arriving.time, index=arriving.index)
    run_options = ["--input", tmp_path / "x.npz", "-o", tmp_path / "y.npz", "--t-end", "40ms"]
    for command in (
        ("check", graph_file, "--for", "event"),
        ("draw", graph_file, "-o", tmp_path / "net.svg"),
        ("run", graph_file, *run_options, "--max-spikes", "64"),
        ("map", graph_file, "-o", tmp_path / "m.json"),
    ):
        code, _, err = call(capsys, *command)
        assert code == 0, err
    assert "Gather 5 to 4" in (tmp_path / "net.svg").read_text()
    expected = simulated(jaxsnn.lower(two_layers()), arriving).spikes["5"].count
    with np.load(tmp_path / "y.npz") as y:
        times = [y[key] for key in y.files if key.endswith("time")]
    assert sum(int(np.isfinite(time).sum()) for time in times) == int(np.sum(expected))


@pytest.mark.usefixtures("install")
def test_without_the_package_the_node_is_named(graph_file, capsys):
    code, _, err = call(capsys, "info", graph_file)
    assert code == 1
    assert "node '1' has the type Gather, which is not supported" in err
    code, out, _ = call(capsys, "check", graph_file, "--for", "event", "--json")
    assert code == 1
    codes = [(problem["node"], problem["code"]) for problem in json.loads(out)["problems"]]
    assert codes == [("1", "unknown-type"), ("4", "unknown-type")]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("ABSENT", "the node type 'Gather' cannot be loaded from my_nodes:ABSENT"),
        ("SMOOTH", "the entry point 'Gather' of jaxsnn.nodes refers to Smooth"),
        (
            "gathered",
            "the entry point 'Gather' of jaxsnn.nodes refers to an object of type function",
        ),
    ],
)
def test_a_broken_package_is_named_where_its_type_is_met(
    target, message, graph_file, tmp_path, install, capsys
):
    write(tmp_path / "plain.nir", two_layers(custom=False))
    install(Gather=target)
    code, _, err = call(capsys, "info", graph_file)
    assert (code, message in err) == (2, True), err
    assert call(capsys, "info", tmp_path / "plain.nir")[0] == 0
