"""The bundled digits, and who else's networks fit them."""

import numpy as np

from jaxsnn.nir import build
from jaxsnn.train import digits_splits, fit


def test_values_are_brightness_and_the_own_encoder_adds_the_inverted_image():
    splits = digits_splits()
    assert splits.train.x.shape[1:] == (64,)
    encode = splits.encoder(1e-3)
    events = encode(splits.train.x[:3])
    assert encode.channels(splits.train.x[:3]) == 129
    bright = splits.train.x[0] >= 1 / 32
    assert np.isfinite(events.time[0, :64]).tolist() == bright.tolist()
    assert np.isfinite(events.time[0, 64:]).all()
    twice = digits_splits(copies=2).train.x
    assert len(twice) == 2 * len(splits.train.x)
    np.testing.assert_array_equal(twice[: len(splits.train.x)], splits.train.x)
    assert 0 <= twice.min() < twice.max() <= 1


def test_a_network_of_64_inputs_takes_them_as_currents():
    layers = build.input(64), build.linear(10), build.lif(tau=5e-3)
    graph = build.sequential(*layers, build.output(), seed=0)
    done = fit(
        graph, "digits", encoder="current", t_end=10e-3, epochs=1, loss="count", progress=None
    )
    assert 0.0 <= done.test_accuracy <= 1.0
