"""A network trained in continuous time and handed to Norse: the same spikes there as on the grid in Norse's dialect."""

import numpy as np
import pytest

from jaxsnn.fidelity import fidelity
from jaxsnn.nir import build, write
from jaxsnn.nir.convert import convert
from jaxsnn.nir.initializers import normal
from jaxsnn.train import Latency, fit, yinyang_splits
from jaxsnn.units import parse_time
from jaxsnn.verify import verify
from tests.interop.players import play

TAU, DT, T_END = parse_time("10ms"), parse_time("0.25ms"), parse_time("60ms")


@pytest.mark.slow
def test_norse_plays_the_whole_test_set_as_the_grid_does(tmp_path, record_property):
    neurons = build.cubalif(tau_mem=2 * TAU, tau_syn=TAU)
    hidden, output = (
        build.linear(size, weight=normal(*weight)) for size, weight in ((120, (1.2, 0.9)), (3, (0.15, 0.3)))
    )
    graph = build.sequential(build.input(5), hidden, neurons, output, neurons, seed=0)
    splits = yinyang_splits(0)
    trained = fit(graph, splits, epochs=15, progress=None)
    assert trained.test_accuracy > 0.95
    path = tmp_path / "norse.nir"
    made = convert(trained.graph, to="norse", approximate=True, dt=DT, path=str(path))
    write(path, made.graph)
    x = rasters(splits.test.x)
    theirs = play(made.load_with, "norse", x)
    outcome = verify(made.graph, x, theirs)
    assert outcome.trains == 3 * len(splits.test)
    assert outcome.identical == outcome.trains
    first = np.where(theirs.any(axis=0), theirs.argmax(axis=0), len(x))
    stepped = float(np.mean(first.argmin(axis=1) == splits.test.y))
    report = fidelity(made.graph, {"x": x})
    for name, value in {
        "event": trained.test_accuracy,
        "norse": stepped,
        "losses": made.losses,
        "fidelity": report.as_dict(),
    }.items():
        record_property(name, value)
    assert stepped > 0.8
    assert all(found.count_cosine > 0.9 for found in report.populations.values())


def rasters(values):
    """Inputs (samples, 4) as `fit` encodes them, cut into steps: (steps, samples, 5)."""
    events = Latency(t_min=0.0, t_max=2 * TAU, bias=True)(np.asarray(values))
    x = np.zeros((round(T_END / DT), len(values), 5), np.float32)
    step = np.rint(np.asarray(events.time) / DT).astype(int)
    x[step, np.arange(len(values))[:, None], np.asarray(events.index)] = 1
    return x
