"""24 networks, deployed and run to the end in the stack: what they fire there, through placement,
routing and calibration, is what the network fires.
"""

import collections
import itertools
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.bss2.deploy.content import values_of
from jaxsnn.bss2.emulate import EmulatedChip, emulate
from jaxsnn.bss2.mapping import from_json, to_json
from jaxsnn.bss2.mapping_files import quantize_as_mapped
from jaxsnn.bss2.search.measured_slopes import MeasuredSlope
from jaxsnn.bss2.search.portfolio import place_and_route
from jaxsnn.bss2.search.quantize import QuantizeOptions, quantize
from jaxsnn.network.spikes import Events
from jaxsnn.nir import build
from jaxsnn.units import parse_time
from tests.bss2.deployment import Deployment, random_events, trains
from tests.bss2.recipes import layer_by_layer_mapping
from tests.bss2.stack.calibration import as_arrays
from tests.bss2.stack.dynamics import Circuits

NEURONS = {"tau_mem": 10e-3, "tau_syn": 5e-3}
#: Clock cycle of the chip, 8 ns, in seconds of the network, which is 1000 times slower. Spikes and
#: inputs are at multiples of it.
CYCLE = 8e-6


def weights(shape, seed=0, mean=0.3, deviation=1.0):
    return np.random.default_rng(seed).normal(mean, deviation, shape)


CUBA = build.cubalif(**NEURONS)


def layers(*sizes, seed=0, mean=0.3, neurons=CUBA, last=None, deviation=1.0):
    """Dense layers; `neurons` for all, `last` for the last one."""
    nodes = [build.input(sizes[0])]
    for number, (before, size) in enumerate(itertools.pairwise(sizes)):
        matrix = weights((size, before), seed + number, mean, deviation)
        nodes += [build.linear(weight=matrix), neurons]
    return build.sequential(*nodes[:-1], last or neurons)


def dense(matrix, neurons=CUBA):
    """One layer."""
    return build.sequential(build.input(matrix.shape[1]), build.linear(weight=matrix), neurons)


def linked(chains, **nodes):
    """A network whose matrices are Linear nodes and whose numbers are sizes of inputs."""
    kinds = {int: build.input, np.ndarray: lambda matrix: build.linear(weight=matrix)}
    layers = {name: kinds.get(type(node), lambda node: node)(node) for name, node in nodes.items()}
    return build.network(layers | {"end": build.output()}, [chain.split() for chain in chains])


def convolution():
    """Two channels of exciting kernels: a link of one sign."""
    kernel = np.abs(weights((2, 1, 3, 3)))
    settings = {"stride": 2, "padding": 0, "dilation": 1, "groups": 1, "bias": np.zeros(2)}
    return build.sequential(
        build.input((1, 7, 7)),
        build.node("Conv2d", weight=kernel, **settings),
        CUBA,
        build.node("Flatten", start_dim=0, end_dim=-1),
        build.linear(weight=weights((3, 18), 1)),
        CUBA,
    )


def affine(bias=0.3, inputs=6, mean=0.3):
    layer = build.affine(weight=weights((5, inputs), mean=mean), bias=np.full(5, bias))
    return build.sequential(build.input(inputs), layer, CUBA)


def sparse():
    weight = weights((20, 40), deviation=2.0)
    weight[np.random.default_rng(9).random(weight.shape) < 0.8] = 0
    weight[3] = 0  # a neuron without inputs
    return dense(weight)


def positive(shape, seed=0):
    return np.abs(weights(shape, seed))


NETS = {
    "two layers": lambda: layers(12, 9, 4),
    "three layers": lambda: layers(8, 7, 6, 5),
    "free signs": lambda: (layers(12, 9, 4), QuantizeOptions(), {"signs": "free"}),
    # The threshold is so low that one input spike crosses it.
    "one synapse": lambda: dense(np.ones((1, 1)), build.cubalif(**NEURONS, v_threshold=0.1)),
    "all excite": lambda: dense(positive((4, 5))),
    "a link that inhibits": lambda: linked(
        RECURRENT, **{"in": 5, "w": positive((4, 5)), "n": CUBA, "back": -positive((4, 4), 1)}
    ),
    # A diamond: the output receives the inputs and the hidden layer.
    "skip connection": lambda: linked(
        ["in w hidden v out end", "in skip out"],
        **{"in": 6, "w": weights((5, 6)), "hidden": CUBA, "v": weights((3, 5), 1)},
        **{"skip": weights((3, 6), 2), "out": CUBA},
    ),
    "recurrent": lambda: linked(
        RECURRENT,
        **{"in": 5, "w": weights((8, 5)), "n": CUBA, "back": weights((8, 8), 1, 0.1, 0.5)},
    ),
    # Two populations that feed each other and themselves.
    "two loops": lambda: linked(
        ["in w a ab b end", "b ba a", "a aa a"],
        **{"in": 4, "w": weights((5, 4)), "a": CUBA, "b": CUBA, "ab": weights((4, 5), 1)},
        **{"ba": weights((5, 4), 2, -0.2, 0.5), "aa": weights((5, 5), 3, -0.2, 0.5)},
    ),
    "two inputs": lambda: linked(
        ["left wl n end", "right wr n"],
        **{"left": 4, "right": 3, "wl": weights((5, 4)), "wr": weights((5, 3), 1), "n": CUBA},
    ),
    "a convolution": convolution,
    "sparse": sparse,
    "a readout": lambda: layers(8, 6, 3, last=build.cubali(**NEURONS)),
    "biases": lambda: (affine(), QuantizeOptions(bias="source"), {}),
    "biases as leaks": lambda: (affine(SHIFTS), QuantizeOptions(bias="leak"), {}),
    "biases as leaks of several circuits": lambda: (
        affine(SHIFTS, inputs=300, mean=0.05),
        QuantizeOptions(bias="leak"),
        {"signs": "free"},
    ),
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
    "own time constants": lambda: dense(
        weights((3, 4), mean=0.6),
        build.cubalif(tau_mem=np.array([8e-3, 16e-3, 9e-3]), tau_syn=np.array([4e-3, 5e-3, 6e-3])),
    ),
    "equal time constants": lambda: layers(6, 5, neurons=build.cubalif(tau_mem=6e-3, tau_syn=6e-3)),
    "other time constants by layer": lambda: (
        layers(5, 4, 3, last=build.cubalif(tau_mem=20e-3, tau_syn=8e-3), mean=0.8),
        QuantizeOptions(),
        "by layer",
    ),
    # A population that no weight reaches, and that has its own run.
    "nothing arrives": lambda: build.sequential(
        build.input(3),
        build.linear(weight=weights((4, 3))),
        CUBA,
        build.linear(weight=np.zeros((2, 4))),
        CUBA,
    ),
    "784-256-10": lambda: layers(784, 256, 10, mean=0.01, deviation=0.2),
}
RECURRENT = ["in w n end", "n back n"]
#: Biases of five neurons, volts.
SHIFTS = np.array([-0.4, -0.1, 0.0, 0.3, 0.8])
LARGE = ("784-256-10", "more neurons than circuits")


def mapped(name):
    """A network of the 24, quantised and mapped."""
    content = NETS[name]()
    graph, options, search = (
        content if isinstance(content, tuple) else (content, QuantizeOptions(), {})
    )
    quantized = quantize(graph, options)
    if search == "by layer":
        return quantized, layer_by_layer_mapping(quantized.netlist)
    return quantized, place_and_route(quantized.netlist, **search).mapping


def by_itself(quantized, events, duration, sampled=()):
    """The quantised network in one run, every neuron a circuit of its own: by population, sample
    and neuron, seconds of the network; and voltages of readouts at times of the chip.
    """
    net, speedup = quantized.netlist, quantized.speedup
    first = {
        part.name: int(offset) for part, offset in zip(net.populations, net.offsets, strict=False)
    }
    heads, reached = {}, collections.defaultdict(list)
    for name, population in quantized.populations.items():
        for neuron in range(population.size):
            values = {"reset": 0.0, "threshold": 0.0, "refractory_time": 0.0}
            values |= values_of(population, neuron) | {"fires": population.fires}
            heads[first[name] + neuron] = values | {"tau_syn": (values["tau_syn"],) * 2}
    for pre, post, weight in zip(net.pre, net.post, net.weight, strict=True):
        reached[int(pre)].append((int(post), int(weight)))
    slope = 0.0 if quantized.slope is None else quantized.slope / parse_time("1us")
    circuits, regular = Circuits(heads, slope), []
    if quantized.bias_source is not None:
        times = np.arange(0, duration / speedup, quantized.bias_period)
        regular = [(float(time), first[quantized.bias_source]) for time in times]
    fired, voltages = [], []
    for sample in range(len(next(iter(events.values()))[0])):
        sent = [
            (time / speedup, first[name] + int(index))
            for name, (times, indices) in events.items()
            for time, index in zip(times[sample], indices[sample], strict=True)
            if np.isfinite(time)
        ]
        spikes, membranes = circuits.run(
            sorted(sent + regular), reached, duration / speedup, sampled
        )
        trains_of = collections.defaultdict(list)
        for time, neuron in spikes:
            trains_of[neuron].append(time * speedup)
        fired.append(trains_of)
        voltages.append(membranes)
    return fired, np.array(voltages)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in NETS]
)
def test_what_a_deployed_network_fires_is_what_the_network_fires(name, tmp_path, monkeypatch):
    quantized, mapping = mapped(name)
    deployed = Deployment(tmp_path, monkeypatch, quantized, mapping)
    assert_fires_as_by_itself(deployed, *((1, 1) if name in LARGE else (2, 3)))
    assert deployed.stack.calls == ["init", "release"]
    assert deployed.stack.counts["calibrated"] == (2 if name.startswith("other time") else 1)
    assert len(deployed.stack.experiments) == len(mapping.runs)


def assert_fires_as_by_itself(deployed, samples, most):
    """Run a deployment on random inputs, and compare it with the network by itself; return what it
    recorded.

    Args:
        most: largest number of events of an input channel.
    """
    quantized, net, duration = deployed.quantized, deployed.quantized.netlist, 0.03
    events = random_events(deployed.net, samples, most, duration)
    recorded = deployed.run(events, duration)
    readout = not all(population.fires for population in quantized.populations.values())
    sampled = np.arange(0, duration / quantized.speedup, 1e-6) if readout else ()
    expected, voltages = by_itself(quantized, events, duration, sampled)
    for offset, part in zip(net.offsets, net.populations, strict=False):
        if part.external:
            continue
        if not quantized.populations[part.name].fires:
            place = int(offset) - int(np.sum(net.external))
            membrane, times = (
                recorded[f"{part.name}.{kind}"] for kind in ("membrane", "sample_time")
            )
            np.testing.assert_allclose(
                membrane[: len(sampled)].transpose(1, 0, 2),
                voltages[:, :, place : place + part.size],
                atol=0.2,
            )
            assert times.shape == membrane.shape[:1]
            np.testing.assert_allclose(times[: len(sampled)], sampled * quantized.speedup)
            continue
        fired = trains(recorded[f"{part.name}.time"], recorded[f"{part.name}.index"], part.size)
        for sample, neuron in np.ndindex(samples, part.size):
            np.testing.assert_allclose(
                fired[sample][neuron],
                expected[sample].get(int(offset) + neuron, []),
                atol=20 * CYCLE,
                err_msg=f"{part.name} {neuron}",
            )
    assert any(expected)
    return recorded


#: Options of quantisation that change what the chip is calibrated to, and whether layers are runs.
OPTIONS = {
    "shifted leaks": (
        {"bias": "leak", "v_leak": 85, "v_threshold": 140, "refractory_time": 5e-6},
        False,
    ),
    "a bias channel": (
        {"bias": "source", "bias_period": 2e-6, "speedup": 500.0, "refractory_time": 0.5e-6},
        False,
    ),
    "a measured slope": (
        {
            **{"bias": "leak", "scale": "max", "refractory_time": 2e-6, "v_threshold": 145},
            "slope": (MeasuredSlope(slope=0.4, i_synin_gm=700, synapse_dac_bias=900),),
        },
        True,
    ),
}


@pytest.mark.parametrize("records", [False, True], ids=["arrays", "records"])
@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_the_mapping_reach_both_forms_of_the_calibration(
    name, records, tmp_path, monkeypatch
):
    """The scripts calibrate with refined potentials, and fire what the network by itself fires."""
    options, by_layer = OPTIONS[name]
    hidden = build.affine(weight=weights((5, 6), mean=0.8), bias=SHIFTS / 4)
    graph = build.sequential(
        build.input(6), hidden, CUBA, build.linear(weight=weights((3, 5), 1, mean=1.0)), CUBA
    )
    quantized = quantize(graph, **options)
    mapping = (
        layer_by_layer_mapping(quantized.netlist)
        if by_layer
        else place_and_route(quantized.netlist).mapping
    )
    assert mapping.quantization == quantized.netlist.quantization
    stored = from_json(to_json(mapping))
    deployed = Deployment(tmp_path, monkeypatch, quantize_as_mapped(graph, stored), stored, records)
    recorded = assert_fires_as_by_itself(deployed, samples=2, most=3)
    counts = deployed.stack.counts
    assert (counts["calibrated"], counts["potentials again"]) == (1, 1)
    assert recorded["refractory"] == pytest.approx(
        options["refractory_time"] * options.get("speedup", 1000.0)
    )
    files = sorted(tmp_path.glob("calibration.*.pkl"))
    results = [pickle.loads(path.read_bytes()) for path in files]
    assert counts["refined"] == len(files) - 1
    settings = [700, 900] if "slope" in options else [500, 600]
    for run, content in zip(mapping.runs, deployed.net["runs"], strict=True):
        target = as_arrays(results[content["calibration"]].target.neuron_target)
        assert [int(np.max(target.i_synin_gm)), target.synapse_dac_bias] == settings
        for neuron in run.neurons:
            population = quantized.populations[mapping.populations[neuron.population].name]
            row, column = neuron.circuits[neuron.head]
            circuit = 256 * row + column
            for parameter in ("leak", "reset", "threshold"):
                value = getattr(population, f"v_{parameter}")[neuron.index]
                assert getattr(target, parameter)[circuit] == value
            refractory = np.asarray(target.refractory_time)[circuit]
            assert refractory == pytest.approx(options["refractory_time"])
    # the results are accepted as calibrations of the user
    passed = ("--calibration", *map(str, files))
    deployed.run(random_events(deployed.net, 1, 1, 0.01), 0.01, *passed)
    assert (counts["calibrated"], counts["refined"]) == (1, len(files) - 1)
    first = quantized.populations["2"]
    if options["bias"] == "leak":
        assert len(set(first.v_leak.tolist())) > 2
    assert max(part.v_threshold.max() for part in quantized.populations.values()) <= options.get(
        "v_threshold", 150
    )


def test_the_network_by_itself_is_what_the_engine_simulates():
    quantized, _ = mapped("recurrent")
    time = np.random.default_rng(0).uniform(0, 0.02, (1, 15))
    index = np.tile(np.arange(5), (1, 3))
    inputs, ideal = (
        Events(time=jnp.asarray(time), index=jnp.asarray(index)),
        EmulatedChip(ideal=True),
    )
    spikes = emulate(quantized, None, inputs, 0.03, chip=ideal).spikes["n"][0]
    ((fired,), _) = by_itself(quantized, {"in": (time, index)}, 0.03)
    assert sum(map(len, fired.values())) == np.isfinite(spikes).sum() > 5
    for neuron, times in enumerate(spikes):
        np.testing.assert_allclose(fired.get(5 + neuron, []), times[np.isfinite(times)], atol=1e-6)
