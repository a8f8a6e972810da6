"""24 networks, deployed and run to the end in the stack: what they fire there, through placement,
routing and calibration, is what the network fires.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.bss2.deploy.content import values_of
from jaxsnn.bss2.emulate import EmulatedChip, emulate
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import QuantizeOptions, quantize
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build
from jaxsnn.units import parse_time
from tests.bss2.deployment import Deployment, random_events, trains
from tests.bss2.recipes import layer_by_layer_mapping
from tests.bss2.stack.dynamics import Circuits

NEURONS = {"tau_mem": 10e-3, "tau_syn": 5e-3}
#: Spikes of the chip are at whole cycles of 8 ns, inputs too: seconds of the network, 1000 times
#: slower.
CYCLE = 8e-6


def weights(shape, seed=0, mean=0.3, deviation=1.0):
    return np.random.default_rng(seed).normal(mean, deviation, shape)


def layers(*sizes, seed=0, mean=0.3, neurons=None, last=None, deviation=1.0):
    """Dense layers; `neurons` for all, `last` for the last one."""
    found = [build.input(sizes[0])]
    for number, (before, size) in enumerate(itertools.pairwise(sizes)):
        found.append(build.linear(weight=weights((size, before), seed + number, mean, deviation)))
        own = neurons or build.cubalif(**NEURONS)
        found.append(last if last is not None and number == len(sizes) - 2 else own)
    return build.sequential(*found)


def one_synapse():
    """A neuron that one input drives over a threshold that lies low."""
    return build.sequential(
        build.input(1),
        build.linear(weight=np.ones((1, 1))),
        build.cubalif(**NEURONS, v_threshold=0.1),
    )


def skip():
    """A diamond: the output hears the inputs and the hidden layer."""
    return build.network(
        {
            "in": build.input(6),
            "w": build.linear(weight=weights((5, 6))),
            "hidden": build.cubalif(**NEURONS),
            "v": build.linear(weight=weights((3, 5), 1)),
            "skip": build.linear(weight=weights((3, 6), 2)),
            "out": build.cubalif(**NEURONS),
            "end": build.output(),
        },
        [("in", "w", "hidden", "v", "out", "end"), ("in", "skip", "out")],
    )


def recurrent(size=8, mean=0.1):
    return build.network(
        {
            "in": build.input(5),
            "w": build.linear(weight=weights((size, 5))),
            "n": build.cubalif(**NEURONS),
            "back": build.linear(weight=weights((size, size), 1, mean, 0.5)),
            "end": build.output(),
        },
        [("in", "w", "n", "end"), ("n", "back", "n")],
    )


def two_loops():
    """Two populations that feed each other and themselves."""
    nodes = {
        "in": build.input(4),
        "w": build.linear(weight=weights((5, 4))),
        "a": build.cubalif(**NEURONS),
        "b": build.cubalif(**NEURONS),
        "ab": build.linear(weight=weights((4, 5), 1)),
        "ba": build.linear(weight=weights((5, 4), 2, -0.2, 0.5)),
        "aa": build.linear(weight=weights((5, 5), 3, -0.2, 0.5)),
        "end": build.output(),
    }
    return build.network(
        nodes, [("in", "w", "a", "ab", "b", "end"), ("b", "ba", "a"), ("a", "aa", "a")]
    )


def two_inputs():
    nodes = {
        "left": build.input(4),
        "right": build.input(3),
        "wl": build.linear(weight=weights((5, 4))),
        "wr": build.linear(weight=weights((5, 3), 1)),
        "n": build.cubalif(**NEURONS),
        "end": build.output(),
    }
    return build.network(nodes, [("left", "wl", "n", "end"), ("right", "wr", "n")])


def convolution():
    """Two channels of exciting kernels: a link of one sign."""
    kernel = np.abs(weights((2, 1, 3, 3)))
    settings = {"stride": 2, "padding": 0, "dilation": 1, "groups": 1, "bias": np.zeros(2)}
    return build.sequential(
        build.input((1, 7, 7)),
        build.node("Conv2d", weight=kernel, **settings),
        build.cubalif(**NEURONS),
        build.node("Flatten", start_dim=0, end_dim=-1),
        build.linear(weight=weights((3, 18), 1)),
        build.cubalif(**NEURONS),
    )


def affine():
    return build.sequential(
        build.input(6),
        build.affine(weight=weights((5, 6)), bias=np.full(5, 0.3)),
        build.cubalif(**NEURONS),
    )


def sparse():
    weight = weights((20, 40), deviation=2.0)
    weight[np.random.default_rng(9).random(weight.shape) < 0.8] = 0
    silent = weight.copy()
    silent[3] = 0  # a neuron that nothing reaches
    return build.sequential(build.input(40), build.linear(weight=silent), build.cubalif(**NEURONS))


def nothing_arrives():
    """A population in a run of its own that no weight reaches."""
    return build.sequential(
        build.input(3),
        build.linear(weight=weights((4, 3))),
        build.cubalif(**NEURONS),
        build.linear(weight=np.zeros((2, 4))),
        build.cubalif(**NEURONS),
    )


def positive(shape, seed=0):
    return np.abs(weights(shape, seed))


NETS = {
    "two layers": lambda: layers(12, 9, 4),
    "three layers": lambda: layers(8, 7, 6, 5),
    "free signs": lambda: (layers(12, 9, 4), QuantizeOptions(), {"signs": "free"}),
    "one synapse": one_synapse,
    "all excite": lambda: build.sequential(
        build.input(5), build.linear(weight=positive((4, 5))), build.cubalif(**NEURONS)
    ),
    "a link that inhibits": lambda: build.network(
        {
            "in": build.input(5),
            "w": build.linear(weight=positive((4, 5))),
            "n": build.cubalif(**NEURONS),
            "back": build.linear(weight=-positive((4, 4), 1)),
            "end": build.output(),
        },
        [("in", "w", "n", "end"), ("n", "back", "n")],
    ),
    "skip connection": skip,
    "recurrent": recurrent,
    "two loops": two_loops,
    "two inputs": two_inputs,
    "a convolution": convolution,
    "sparse": sparse,
    "a readout": lambda: layers(8, 6, 3, last=build.cubali(**NEURONS)),
    "biases": lambda: (affine(), QuantizeOptions(bias="source"), {}),
    "several synapses": lambda: (layers(6, 5, 3), QuantizeOptions(synapses_per_weight=3), {}),
    "several circuits": lambda: (
        layers(300, 12, 3, mean=0.05),
        QuantizeOptions(),
        {"signs": "free"},
    ),
    "many inputs": lambda: layers(400, 10, mean=0.05),
    "two runs": lambda: (layers(4, 3, 2, mean=0.8), QuantizeOptions(), "by layer"),
    "more neurons than circuits": lambda: layers(
        3, 500, 15, mean=0.45, deviation=0.1, neurons=build.cubalif(**NEURONS, v_threshold=0.25)
    ),
    "own time constants": lambda: build.sequential(
        build.input(4),
        build.linear(weight=weights((3, 4), mean=0.6)),
        build.cubalif(tau_mem=np.array([8e-3, 16e-3, 9e-3]), tau_syn=np.array([4e-3, 5e-3, 6e-3])),
    ),
    "equal time constants": lambda: layers(6, 5, neurons=build.cubalif(tau_mem=6e-3, tau_syn=6e-3)),
    "other time constants by layer": lambda: (
        layers(5, 4, 3, last=build.cubalif(tau_mem=20e-3, tau_syn=8e-3), mean=0.8),
        QuantizeOptions(),
        "by layer",
    ),
    "nothing arrives": nothing_arrives,
    "784-256-10": lambda: layers(784, 256, 10, mean=0.01, deviation=0.2),
}


def told(name):
    made = NETS[name]()
    graph, options, search = made if isinstance(made, tuple) else (made, QuantizeOptions(), {})
    quantized = quantize(graph, options)
    if search == "by layer":
        return quantized, layer_by_layer_mapping(quantized.netlist)
    return quantized, place_and_route(quantized.netlist, **search).mapping


def by_itself(quantized, events, duration, sampled=()):
    """The quantised network in one run, every neuron a circuit of its own: by population, sample
    and neuron, seconds of the network; and voltages of readouts at times of the chip.
    """
    net, speedup = quantized.netlist, quantized.speedup
    heads = {}
    for number, part in enumerate(net.populations):
        for one in range(0 if part.external else part.size):
            own = values_of(quantized.populations[part.name], one)
            fires = quantized.populations[part.name].fires
            defaults = {"reset": 0.0, "threshold": 0.0, "refractory_time": 0.0, "fires": fires}
            heads[int(net.offsets[number]) + one] = (
                defaults | own | {"tau_syn": (own["tau_syn"], own["tau_syn"])}
            )
    reached = {}
    for pre, post, weight in zip(net.pre, net.post, net.weight, strict=True):
        reached.setdefault(int(pre), []).append((int(post), int(weight)))
    slope = 0.0 if quantized.slope is None else quantized.slope / parse_time("1us")
    circuits, samples = Circuits(heads, slope), len(next(iter(events.values()))[0])
    found, voltages = [], []
    for sample in range(samples):
        sent = [
            (time / speedup, int(net.offsets[number]) + int(index))
            for number, part in enumerate(net.populations)
            if part.name in events
            for time, index in zip(*(own[sample] for own in events[part.name]), strict=True)
            if np.isfinite(time)
        ]
        if quantized.bias_source is not None:
            number = [part.name for part in net.populations].index(quantized.bias_source)
            regular = np.arange(0, duration / speedup, quantized.bias_period)
            sent += [(float(time), int(net.offsets[number])) for time in regular]
        spikes, membranes = circuits.run(sorted(sent), reached, duration / speedup, sampled)
        own = {}
        for time, neuron in spikes:
            own.setdefault(neuron, []).append(time * speedup)
        found.append(own)
        voltages.append(membranes)
    return found, np.array(voltages)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            one, marks=[pytest.mark.slow] * (one in ("784-256-10", "more neurons than circuits"))
        )
        for one in NETS
    ],
)
def test_what_a_deployed_network_fires_is_what_the_network_fires(name, tmp_path, monkeypatch):
    quantized, mapping = told(name)
    net = quantized.netlist
    deployed = Deployment(tmp_path, monkeypatch, quantized, mapping)
    large = name in ("784-256-10", "more neurons than circuits")
    duration, samples = 0.03, 1 if large else 2
    events = random_events(deployed.net, samples, 1 if large else 3, duration)
    recorded = deployed.run(events, duration)
    assert deployed.stack.calls == ["init", "release"]
    assert deployed.stack.counts["calibrated"] == (2 if name.startswith("other time") else 1)
    assert len(deployed.stack.experiments) == len(mapping.runs)
    readout = not all(one.fires for one in quantized.populations.values())
    sampled = np.arange(0, duration / quantized.speedup, 1e-6) if readout else ()
    expected, voltages = by_itself(quantized, events, duration, sampled)
    fired = 0
    for number, part in enumerate(net.populations):
        if part.external:
            continue
        if not quantized.populations[part.name].fires:
            place = int(net.offsets[number]) - int(np.sum(net.external))
            measured = recorded[f"{part.name}.membrane"][: len(sampled)].transpose(1, 0, 2)
            wanted = voltages[:, :, place : place + part.size]
            np.testing.assert_allclose(measured, wanted, atol=0.2)
            times = recorded[f"{part.name}.sample_time"]
            assert times.shape == recorded[f"{part.name}.membrane"].shape[:1]
            np.testing.assert_allclose(times[: len(sampled)], sampled * quantized.speedup)
            continue
        found = trains(recorded[f"{part.name}.time"], recorded[f"{part.name}.index"], part.size)
        for sample in range(samples):
            for neuron in range(part.size):
                wanted = expected[sample].get(int(net.offsets[number]) + neuron, [])
                fired += len(wanted)
                np.testing.assert_allclose(
                    found[sample][neuron], wanted, atol=20 * CYCLE, err_msg=f"{part.name} {neuron}"
                )
    assert fired


@pytest.mark.parametrize("name", ["recurrent"])
def test_the_network_by_itself_is_what_the_engine_simulates(name):
    quantized, _ = told(name)
    random = np.random.default_rng(0)
    time, index = random.uniform(0, 0.02, (1, 15)), np.tile(np.arange(5), (1, 3))
    done = emulate(
        quantized,
        None,
        Events(time=jnp.asarray(time), index=jnp.asarray(index)),
        0.03,
        chip=EmulatedChip(ideal=True),
    )
    ((found,), _) = by_itself(quantized, {"in": (time, index)}, 0.03)
    spikes = done.spikes["n"][0]
    assert sum(map(len, found.values())) == np.isfinite(spikes).sum() > 5
    for neuron, own in enumerate(spikes):
        np.testing.assert_allclose(found.get(5 + neuron, []), own[np.isfinite(own)], atol=1e-6)
