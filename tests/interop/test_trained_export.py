"""A network trained in continuous time and handed to Norse: there it fires what the grid engine
fires.
"""

import numpy as np
import pytest

from jaxsnn import TimeStepped, lower, read, simulate
from jaxsnn.simulation.fidelity import fidelity
from jaxsnn.train import Latency, fit, yinyang_splits
from tests.helpers.command_line import DEMO_NET
from tests.interop.players import compare, import_and_play, shift_of

STEPS = 512


@pytest.mark.slow
def test_norse_fires_what_the_grid_fires_on_the_whole_test_set(tmp_path, record_property):
    splits = yinyang_splits(0)
    graph = read(DEMO_NET, dialect="snntorch", reset="zero", reset_delay=False)
    trained = fit(graph, splits, epochs=8, loss="ttfs", progress=None)
    assert trained.test_accuracy > 0.9
    x = rasters(trained.graph, splits.test.x)
    conversion, theirs = import_and_play(trained.graph, "norse", x, tmp_path / "norse.nir")
    assert conversion.losses == ()
    (ours,) = simulate(lower(trained.graph), x, engine=TimeStepped()).y.values()
    identical, trains, active = compare(np.asarray(ours), theirs, shift_of(conversion))
    assert identical == trains == 3 * len(splits.test)
    assert active > trains / 2
    first = np.where(theirs.any(axis=0), theirs.argmax(axis=0), STEPS)
    norse = float(np.mean(first.argmin(axis=1) == splits.test.y))
    lost = fidelity(trained.graph, {"x": x})
    for name, value in {
        "event": trained.test_accuracy,
        "norse": norse,
        "fidelity": lost.as_dict(),
    }.items():
        record_property(name, value)
    assert norse > trained.test_accuracy - 0.1
    assert all(population.count_cosine > 0.95 for population in lost.populations.values())


def rasters(graph, values):
    """Inputs (samples, 4) as `fit` encodes them, cut into the graph's steps: (steps, samples, 5)."""
    dt, tau = graph.dialect.dt, float(np.ravel(lower(graph).parameters["lif1"]["tau_syn"])[0])
    events = Latency(t_min=0.0, t_max=2 * tau, bias=True, first="small")(np.asarray(values))
    x = np.zeros((STEPS, len(values), 5), np.float32)
    step = np.rint(np.asarray(events.time) / dt).astype(int)
    x[step, np.arange(len(values))[:, None], np.asarray(events.index)] = 1
    return x
