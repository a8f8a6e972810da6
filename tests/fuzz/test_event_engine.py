"""The fuzz of the event engine on a few seeds; by hand on many more, see `event_engine`."""

import argparse
import types

import networkx
import numpy as np
import pytest

from jaxsnn.event.event_driven import EventDriven
from tests.fuzz import event_engine, gradients, nir_reading, random_networks, single_precision

pytestmark = pytest.mark.usefixtures("x64")


def run(seeds, **changes):
    options = argparse.Namespace(**{"gradients": False, "float32": False} | changes)
    lines, summary = event_engine.group_result(seeds[0] // event_engine.GROUP, seeds, options)
    return summary, lines


@pytest.mark.parametrize("backend", ["auto", pytest.param("xla", marks=pytest.mark.slow)])
@pytest.mark.parametrize("seeds", [(40, 41, 42), (192, 193), (344, 345)])
def test_the_engine_agrees_with_the_reference(seeds, backend, monkeypatch):
    monkeypatch.setenv("JAXSNN_BACKEND", backend)
    summary, lines = run(seeds)
    assert lines == []
    assert summary.networks == len(seeds)
    assert summary.spikes > 10


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(50346, id="neurons fire together at a rounded time"),
        pytest.param(50810, id="a voltage is read when a neuron fires"),
    ],
)
def test_ties_are_explained(seed):
    summary, lines = run((seed,))
    assert lines
    assert set(summary.labels) == {"explained"}


def test_a_tie_at_an_exact_time_is_not_explained():
    wires = networkx.DiGraph([("a", "b")])
    outcome = types.SimpleNamespace(spikes={"a": [[0.1, 0.5], [0.1, 0.5]], "b": [[0.1, 0.5]]})
    assert event_engine.spikes_are_rounded(wires, outcome, 0.1, "b")
    assert not event_engine.spikes_are_rounded(wires, outcome, 0.5, "b")
    assert not event_engine.spikes_are_rounded(wires, outcome, 0.1, "a")


def test_gradients_agree_with_differences(monkeypatch):
    monkeypatch.setattr(event_engine, "ENTRIES", 12)
    summary, lines = run((40,), gradients=True)
    assert lines == []
    assert summary.entries >= 8


def test_float32_agrees_with_float64(monkeypatch):
    monkeypatch.setattr(single_precision, "BATCH", 4)
    summary, lines = run((40,), float32=True)
    assert lines == []
    assert summary.spikes > 10


def test_an_engine_with_a_fault_is_found(monkeypatch):
    """A refractory time that the reference does not know of."""
    wrong = EventDriven(max_spikes=24, refractory=0.05)
    monkeypatch.setattr(event_engine.engine_runs, "engine_of", lambda *_: wrong)
    _, lines = run((40, 41))
    assert lines
    assert all("UNEXPLAINED" in line for line in lines)


def test_derivatives_with_and_without_a_kink():
    slope, why = gradients.derivative(lambda x: np.exp(2 * x), 1e-3)
    assert why == ""
    assert abs(slope - 2) < 1e-11
    assert gradients.derivative(lambda x: abs(x) + x, 1e-3)[1] == "a kink"
    assert gradients.derivative(lambda x: None if x > 0 else x, 1e-3)[1] == "other spikes"


# -- reading of a graph


def synapse(places, edges):
    meaning = nir_reading.Meaning(area=dict.fromkeys(nir_reading.NEURONS, 1.0), dt=0.1)
    return nir_reading.read(places, edges, meaning)


def test_paths_are_summed_and_delays_kept_apart():
    node = nir_reading.Node
    places = {
        "in": node(kind="Input", settings={"shape": (1,)}),
        "w": node(kind="Linear", numbers={"weight": np.array([[2.0], [3.0]])}),
        "d": node(kind="Delay", numbers={"delay": np.array([0.5, 0.0])}),
        "v": node(kind="Affine", numbers={"weight": np.array([[1.0, 10.0]]), "bias": np.ones(1)}),
        "n": node(kind="IF", numbers={"r": np.ones(1)}, settings={"shape": (1,)}),
    }
    edges = [("in", "w"), ("w", "d"), ("d", "v"), ("v", "n"), ("in", "n")]
    populations, synapses = synapse(places, edges)
    delays_and_weights = {(float(np.max(s.delay)), float(s.weight[0, 0])) for s in synapses}
    assert delays_and_weights == {(0.5, 2.0), (0.0, 31.0)}
    assert np.all(populations["n"].bias == 1.0)


def test_a_convolution_is_unrolled_with_padding_stride_and_groups():
    node = nir_reading.Node
    weight = np.arange(1.0, 7.0).reshape(2, 1, 3)
    settings = {"stride": 2, "padding": 1, "dilation": 1, "groups": 2}
    conv = node(kind="Conv1d", numbers={"weight": weight, "bias": np.zeros(2)}, settings=settings)
    matrix = np.zeros((4, 8))
    for before, after, value in nir_reading.connections(conv, (2, 4)):
        matrix[after, before] += value
    expected = [[2, 3, 0, 0], [0, 1, 2, 3]], [[5, 6, 0, 0], [0, 4, 5, 6]]
    np.testing.assert_array_equal(matrix[:2, :4], expected[0])
    np.testing.assert_array_equal(matrix[2:, 4:], expected[1])
    assert not matrix[:2, 4:].any()
    assert not matrix[2:, :4].any()


def test_structures_cover_what_they_should():
    words = set()
    for group in range(125):
        words |= set(random_networks.structure_of(group).words)
    expected = {"CubaLIF", "CubaLI", "LIF", "LI", "IF", "I", "Affine", "Linear", "Scale", "Conv1d"}
    expected |= {
        "Conv2d",
        "SumPool2d",
        "AvgPool2d",
        "Flatten",
        "Delay",
        "loop",
        "long loop",
        "skip",
    }
    expected |= {
        "diamond",
        "exact",
        "equal",
        "box",
        "subtract",
        "refractory",
        "once",
        "ends",
        "dilation",
        "groups",
        "convolutions",
        *random_networks.LEVELS,
        *random_networks.KINDS,
    }
    expected |= {f"tau {name}" for name in random_networks.TAU_CLASSES}
    assert expected - {"usual"} <= words
