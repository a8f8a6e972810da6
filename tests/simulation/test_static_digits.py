"""Static images as currents, the way snnTorch's tutorials train: in both engines, and compared."""

from pathlib import Path

import numpy as np
import pytest

import jaxsnn
from jaxsnn.network.valued_inputs import Currents
from jaxsnn.train import Data, evaluate

DATA = Path(__file__).parents[1] / "data"
STEPS = 25


@pytest.fixture(scope="module")
def net():
    return jaxsnn.read(
        DATA / "static_digits.nir", dialect="snntorch", reset="zero", reset_delay=True
    )


@pytest.fixture(scope="module")
def digits():
    """Images (samples, 64) from 0 to 1, labels, and snnTorch's spikes (time, samples, 10)."""
    with np.load(DATA / "static_digits.npz") as file:
        images, labels = file["x"].astype(np.float32) / 16, file["labels"].astype(int)
        spikes = np.unpackbits(file["y"])[: STEPS * len(images) * 10]
    return images, labels, spikes.reshape(STEPS, len(images), 10)


def test_in_time_steps_it_is_what_snntorch_did(net, digits):
    images, labels, spikes = digits
    x = np.tile(images, (STEPS, 1, 1))
    solution = jaxsnn.simulate(net, x, engine=jaxsnn.TimeStepped())
    np.testing.assert_array_equal(solution.output(), spikes)
    held = jaxsnn.simulate(
        net, Currents.constant(images), STEPS * 1e-4, engine=jaxsnn.TimeStepped()
    )
    np.testing.assert_array_equal(held.output(), spikes)
    assert (spikes.sum(axis=0).argmax(axis=1) == labels).mean() > 0.9


@pytest.mark.slow
def test_in_continuous_time_it_knows_the_digits_too(net, digits):
    images, labels, _ = digits
    found = jaxsnn.fidelity(net, {"x": np.tile(images[:12], (STEPS, 1, 1))}, values="current")
    assert "spikes in continuous time" in found.as_text()
    assert all(population.count_cosine > 0.93 for population in found.populations.values())
    data = Data(x=images, y=labels, classes=tuple("0123456789"))
    engine = jaxsnn.EventDriven(max_spikes=64)
    how = {"loss": "count", "encoder": "current", "t_end": STEPS * 1e-4}
    assert evaluate(net, data, engine=engine, **how) > 0.9
