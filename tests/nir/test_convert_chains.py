"""Chains A -> B -> A give the same spikes, wherever B has a dialect of what was written for it."""

import numpy as np
import pytest

from jaxsnn.nir import build
from jaxsnn.nir.convert.pipeline import convert
from jaxsnn.nir.initializers import normal
from tests.helpers.random_spikes import random_raster
from tests.nir.conversions import assert_same, network, played

#: Source, its reset, and target; other tests cover refusals.
PAIRS = [
    *((source, "zero", to) for source in ("snntorch", "norse", "spikingjelly")
      for to in ("snntorch", "norse", "spikingjelly")),
    *(("snntorch", "subtract", to) for to in ("snntorch", "spikingjelly", "spyx")),
    *(("spikingjelly", "subtract", to) for to in ("snntorch", "spikingjelly")),
    *(("spyx", "subtract", to) for to in ("snntorch", "spikingjelly", "spyx")),
]  # fmt: skip


def shift_of(conversion):
    return next(iter(conversion.shift.values()), 0)


@pytest.mark.parametrize(("source", "reset", "target"), PAIRS)
def test_conversions_there_and_back_keep_spikes(source, reset, target):
    graph = network(source, reset)
    x = random_raster(0, (40, 4, 5), 0.4)
    y = played(graph, x)
    assert 0.03 < y.mean() < 0.9
    there = convert(graph, to=target)
    assert there.graph.dialect.name == target
    shift, converted = shift_of(there), played(there.graph, x)
    # Compare the steps that both have: converted spikes are `shift` steps late, or early.
    late, early = max(shift, 0), max(-shift, 0)
    steps = len(y) - late - early
    np.testing.assert_array_equal(converted[late:][:steps], y[early:][:steps])
    back = convert(there.graph, to=source)
    assert back.graph.dialect.name == source
    assert shift + shift_of(back) == 0
    # Steps that were shifted out on the way there are missing at the end.
    np.testing.assert_array_equal(played(back.graph, x)[:steps], y[:steps])


#: Neurons that reset to values other than 0, and currents that jump by values other than 1.
UNUSUAL = {
    "reset": (
        build.lif(tau=1e-3, r=1.0, v_reset=0.25, v_leak=0.25),
        {"dialect": "spikingjelly", "dt": 1e-4, "initial": "v_reset"},
    ),
    "current": (
        build.cubalif(tau_mem=2e-3, tau_syn=1e-3, r=1.0, w_in=2.5, v_threshold=2.0),
        {"dialect": "norse==importer", "dt": 1e-3},
    ),
}


@pytest.mark.parametrize("target", ["snntorch", "norse", "sinabs", "spikingjelly", "snn_mlir"])
@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_scales_and_resets_are_carried_over(name, target):
    neuron, options = UNUSUAL[name]
    weights = build.linear(4, weight=normal(0.6, 0.5))
    graph = build.sequential(build.input(5), weights, neuron, seed=1, **options)
    conversion = convert(graph, to=target)
    assert (conversion.losses, conversion.shift) == ((), {})
    assert_same(graph, conversion, random_raster(1, (60, 3, 5), 0.4), low=0.05, high=0.7)
