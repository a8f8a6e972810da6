"""Whole networks, from a NIR graph to spikes, against the oracle that follows every spike along the
edges.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import EventDriven, Events, lower, simulate
from jaxsnn.network.results import Result
from jaxsnn.network.structure import TauShape
from jaxsnn.nir import build
from tests.event.agreement import assert_same_spikes, padded
from tests.event.cases import population
from tests.fuzz import nir_reading
from tests.helpers.random_spikes import random_events
from tests.oracles import continuous_time

SAMPLES, T_END = 2, 5.0

pytestmark = pytest.mark.usefixtures("x64")


def neurons(rng, size, shape=TauShape.ANY, **changes):
    return build.cubalif(size, **population(shape, rng, size) | changes)


def matrix(rng, outputs, inputs, mean=1.2, std=1.0):
    return rng.normal(mean, std, (outputs, inputs))


def wired(seed):
    """Fan-in, skips, biases ahead of linear nodes, one source by two paths, neurons that nothing
    reaches.
    """
    rng = np.random.default_rng(seed)
    nodes = {
        "a": build.input(2),
        "b": build.input(3),
        "wa": build.linear(weight=matrix(rng, 4, 2)),
        "wb": build.linear(weight=matrix(rng, 4, 3)),
        "h1": neurons(rng, 4, TauShape.DOUBLE),
        "bias": build.affine(weight=matrix(rng, 3, 4, 0.3, 0.5), bias=rng.normal(0.3, 0.2, 3)),
        "scale": build.scale(rng.uniform(0.5, 1.5, 3)),
        "mix": build.linear(weight=matrix(rng, 5, 3, 0.5, 0.3)),
        "skip": build.affine(weight=matrix(rng, 5, 2, 1.0, 1.0), bias=rng.normal(0.1, 0.1, 5)),
        "h2": neurons(rng, 5),
        "down": build.linear(weight=matrix(rng, 4, 5, 0.0, 0.5)),
        "double": build.scale(rng.uniform(-0.5, 0.5, 4)),
        "h3": neurons(rng, 4),
        "alone": neurons(rng, 2, v_leak=[0.3, 1.7]),
        "out": build.output(4),
        "other": build.output(2),
    }
    chains = [
        ("a", "wa", "h1"),
        ("b", "wb", "h1", "bias", "scale", "mix", "h2"),
        ("a", "skip", "h2", "down", "h3", "out"),
        ("h1", "h3"),
        ("h1", "double", "h3"),
        ("alone", "other"),
    ]
    return build.network(nodes, chains)


def events(graph, seed, span=4.0):
    rng, trains = np.random.default_rng([seed, 1]), {}
    for name in graph.inputs:
        size = int(graph.nodes[name].value("shape")[0])
        trains[name] = random_events(rng, (SAMPLES, 5), size, span, unused=[(1, 2)])
    return trains


def expected(graph, inputs, area="tau"):
    """The oracle's spike times of every population, (samples, neurons, slots)."""
    nodes = {}
    for name, node in graph.nodes.items():
        values = {key: np.asarray(node.value(key), float) for key in node.names if key != "shape"}
        settings = {"shape": [int(node.value("shape")[0])]} if node.type == "Input" else {}
        if node.type == "CubaLIF":
            settings = {"shape": values["tau_mem"].shape}
        nodes[name] = nir_reading.Node(kind=node.type, numbers=values, settings=settings)
    meaning = nir_reading.Meaning(area={"CubaLIF": area}, dt=1.0)
    read = nir_reading.read(nodes, graph.edges, meaning)
    samples = []
    for sample in range(SAMPLES):
        events = {
            name: list(zip(times[sample], channels[sample], strict=True))
            for name, (times, channels) in inputs.items()
        }
        samples.append(continuous_time.simulate(*read, events, T_END).spikes)
    return {name: padded([spikes[name] for spikes in samples]) for name in samples[0]}


def run(graph, inputs, **options):
    trains = {
        name: Events(time=times, index=channels) for name, (times, channels) in inputs.items()
    }
    return simulate(lower(graph, **options), trains, T_END, engine=EventDriven(max_spikes=100))


def test_every_kind_of_wiring_agrees_with_the_oracle():
    fired = {}
    for seed in range(3):
        graph = wired(seed)
        inputs = events(graph, seed)
        solution = run(
            graph, inputs, free_time_constants=True
        )  # one structure, compiled once for all seeds
        reference = expected(graph, inputs)
        assert list(solution.spikes) == [name for name in graph.order() if name in reference]
        for name, spikes in reference.items():
            assert_same_spikes(solution.spikes[name], spikes)
            fired[name] = fired.get(name, 0) + np.isfinite(spikes).sum()
        assert dict(solution.outputs) == {"out": ("h3",), "other": ("alone",)}
    assert min(fired.values()) > 5


def deep(seed):
    rng = np.random.default_rng(seed)
    layers, before = [build.input(3)], 3
    for size in (6, 9, 4):
        affine = build.affine(
            weight=matrix(rng, size, before, 3.5 / before, 2.5 / before),
            bias=rng.normal(0.2, 0.2, size),
        )
        layers += [affine, neurons(rng, size)]
        before = size
    return build.sequential(*layers, dialect="nir", time_unit="s")


def test_three_layers_agree_with_the_oracle():
    """Under the literal equations of NIR, in which a spike has area 1."""
    graph = deep(0)
    inputs = events(graph, 0)
    solution, reference = run(graph, inputs), expected(graph, inputs, area=1.0)
    assert all(np.isfinite(spikes).sum() > 5 for spikes in reference.values())
    for name, spikes in reference.items():
        assert_same_spikes(solution.spikes[name], spikes)


def test_single_precision_stays_so_in_64_bit_mode():
    """One source by two paths, one of them without a matrix."""
    rng = np.random.default_rng(0)
    nodes = {
        "in": build.input(3),
        "scale": build.scale([1.0, 2.0, 3.0]),
        "n": neurons(rng, 3, TauShape.EQUAL),
    }
    graph = build.network(
        nodes | {"out": build.output(3)}, [("in", "n", "out"), ("in", "scale", "n")]
    )
    inputs = events(graph, 0)
    solution = run(graph, inputs, dtype="float32")
    assert solution.spikes["n"].time.dtype == jnp.float32
    reference = expected(graph, inputs)["n"]
    assert np.isfinite(reference).sum() > 4
    assert_same_spikes(solution.spikes["n"], reference, 1e-5)


def test_a_recurrent_population_says_when_its_events_do_not_fit():
    rng = np.random.default_rng(5)
    nodes = {
        "input": build.input(2),
        "w": build.linear(weight=matrix(rng, 6, 2)),
        "hidden": neurons(rng, 6),
        "back": build.linear(weight=matrix(rng, 6, 6, 0.0, 0.3)),
        "down": build.linear(weight=matrix(rng, 3, 6, 0.2, 0.3)),
        "output": neurons(rng, 3),
    }
    network = lower(
        build.network(
            nodes, [("input", "w", "hidden", "down", "output"), ("hidden", "back", "hidden")]
        )
    )
    times, index = random_events(rng, (SAMPLES, 6), 2, 3.0)
    train = Events(time=jnp.asarray(times), index=jnp.asarray(index))

    def within(room):
        engine = EventDriven(max_spikes=100, max_events={"hidden": room})
        return simulate(network, train, T_END, engine=engine, throw=False)

    plenty = within(600)
    needed = int(plenty.spikes["hidden"].count.sum(axis=1).max())
    assert plenty.result == Result.SUCCESS
    assert needed > 20
    assert plenty.spikes["output"].count.sum() > 5
    for room in (1, needed // 2, needed - 6, needed - 1, needed):
        solution = within(room)
        fits = Result.SUCCESS if room == needed else Result.BUDGET_EXHAUSTED
        assert solution.result == fits
    assert_same_spikes(solution.spikes["output"].time, plenty.spikes["output"].time)
    again = simulate(network, train, T_END, engine=EventDriven(max_spikes=100, max_events="auto"))
    assert_same_spikes(again.spikes["output"].time, plenty.spikes["output"].time)
