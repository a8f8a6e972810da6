"""Chains A -> B -> A give the same spikes, wherever B has a dialect of what was written for it."""

import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, simulate
from jaxsnn.nir import build
from jaxsnn.nir.convert import convert
from jaxsnn.nir.initializers import normal
from tests.helpers.random_spikes import random_raster


def played(graph, x):
    return np.asarray(simulate(lower(graph, dtype=np.float32), x, engine=TimeStepped()).output())


def network(framework, reset="zero"):
    """Two layers of LIF neurons with one time constant as a framework writes them."""
    dt, decay = 1e-4, 0.9
    tau = dt / (1 - decay)
    said = {
        "snntorch": {"reset": reset, "reset_delay": reset == "subtract"},
        "norse": {"dt": dt, "dt_export": 1.0},
        "spikingjelly": {"dt": dt, "reset": reset},
        "spyx": {"time_unit": "s", "dt": dt},
    }[framework]
    r = {"snntorch": 10.0, "norse": 1.0, "spikingjelly": 10.0, "spyx": decay}[framework]
    gain = 10.0 if framework == "norse" else 1.0
    layers = []
    for size in (8, 4):
        layers += [build.linear(size, weight=normal(0.3 * gain, 0.5 * gain))]
        layers += [build.lif(tau=tau, r=r)]
    return build.sequential(build.input(5), *layers, seed=1, dialect=framework, **said)


#: Source, its reset, and a target; what each pair cannot do is refused elsewhere.
PAIRS = [
    *((source, "zero", to) for source in ("snntorch", "norse", "spikingjelly")
      for to in ("snntorch", "norse", "spikingjelly")),
    *(("snntorch", "subtract", to) for to in ("snntorch", "spikingjelly", "spyx")),
    *(("spikingjelly", "subtract", to) for to in ("snntorch", "spikingjelly")),
    *(("spyx", "subtract", to) for to in ("snntorch", "spikingjelly", "spyx")),
]  # fmt: skip


@pytest.mark.parametrize(("source", "reset", "target"), PAIRS)
def test_there_and_back(source, reset, target):
    graph = network(source, reset)
    x = random_raster(0, (40, 4, 5), 0.4)
    y = played(graph, x)
    assert 0.03 < y.mean() < 0.9
    there = convert(graph, to=target)
    assert there.graph.dialect.name == target
    np.testing.assert_array_equal(*aligned(y, played(there.graph, x), there.shift))
    back = convert(there.graph, to=source)
    assert back.graph.dialect.name == source
    total = sum(next(iter(made.shift.values()), 0) for made in (there, back))
    assert total == 0
    got = played(back.graph, x)
    # Steps that left on the way there are missing at the end.
    lost = abs(next(iter(there.shift.values()), 0))
    np.testing.assert_array_equal(got[: len(y) - lost], y[: len(y) - lost])


def aligned(expected, got, shift):
    """Both without what lies outside, for spikes that leave `shift` steps later."""
    late = next(iter(shift.values()), 0)
    if late >= 0:
        return expected[: len(expected) - late], got[late:]
    return expected[-late:], got[: len(got) + late]
