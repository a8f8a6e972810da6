"""Static images as currents, the way snnTorch's tutorials train: in both engines, and compared."""

import numpy as np
import pytest

import jaxsnn
from jaxsnn.network.valued_inputs import Currents
from jaxsnn.train import Data, evaluate
from tests.helpers.static_digits import FILE, STEPS, static_digits


@pytest.fixture(scope="module")
def net():
    return jaxsnn.read(FILE, dialect="snntorch", reset="zero", reset_delay=True)


@pytest.fixture(scope="module")
def digits():
    return static_digits()


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
    report = jaxsnn.fidelity(net, {"x": np.tile(images[:12], (STEPS, 1, 1))}, values="current")
    assert "spikes in continuous time" in report.as_text()
    assert all(population.count_cosine > 0.93 for population in report.populations.values())
    data = Data(x=images, y=labels, classes=tuple("0123456789"))
    engine = jaxsnn.EventDriven(max_spikes=64)
    options = {"loss": "count", "encoder": "current", "t_end": STEPS * 1e-4}
    assert evaluate(net, data, engine=engine, **options) > 0.9
