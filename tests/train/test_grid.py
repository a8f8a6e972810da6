"""Training in time steps, with surrogate gradients."""

import numpy as np
import pytest

from jaxsnn import ArcTan, FastSigmoid, TimeStepped, lower, simulate
from jaxsnn.errors import UsageError
from jaxsnn.nir import build
from jaxsnn.train import Data, Splits, evaluate, fit
from tests.helpers.refusals import assert_refused

STEPS, CHANNELS = 30, 6


def samples(count, seed):
    """Rasters (samples, time, channels): of class 0 the first half of the channels fires more, of
    class 1 the other.
    """
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, count)
    busy = (np.arange(CHANNELS) < CHANNELS // 2)[None, :] == (y[:, None] == 0)
    x = rng.random((count, STEPS, CHANNELS)) < np.where(busy, 0.3, 0.12)[:, None, :]
    return Data(x=x.astype(np.float32), y=y, classes=("left", "right"))


@pytest.fixture(scope="module")
def data():
    return Splits(
        name="rasters", train=samples(256, 0), validation=samples(64, 1), test=samples(128, 2)
    )


@pytest.fixture(scope="module")
def graph():
    neurons = {"tau": 1e-3, "r": 10.0, "v_threshold": 1.0}
    layers = [build.linear(12), build.lif(**neurons), build.linear(2), build.lif(**neurons)]
    return build.sequential(
        build.input(CHANNELS), *layers, seed=0, dialect="snntorch", reset="zero", reset_delay=True
    )


def test_counts_are_trained_through_the_surrogate(graph, data):
    engine = TimeStepped(surrogate=FastSigmoid(slope=5.0))
    before = fit(graph, data, loss="count", engine=engine, epochs=1, learning_rate=1e-9)
    after = fit(
        graph, data, loss="count", engine=engine, epochs=8, batch_size=32, learning_rate=0.02
    )
    assert after.test_accuracy > 0.9
    assert after.test_accuracy > before.test_accuracy + 0.1
    played = simulate(lower(after.graph), np.moveaxis(data.test.x, 1, 0), engine=engine)
    counts = np.asarray(played.output()).sum(axis=0)
    assert np.mean(counts.argmax(axis=1) == data.test.y) == pytest.approx(after.test_accuracy)


def test_losses_of_spike_times_are_refused(graph, data):
    assert_refused(
        lambda: fit(graph, data, loss="ttfs", engine=TimeStepped(), epochs=1),
        UsageError,
        "loss ttfs reads spike times, which have no gradient on the time-stepped engine",
    )


def test_signals_end_with_their_last_step(graph, data):
    """As of `simulate`: another end would contradict the data."""
    options = {"loss": "count", "engine": TimeStepped(), "epochs": 1}
    end = STEPS * 1e-4
    assert fit(graph, data, **options).settings["t_end"] == pytest.approx(end)
    assert fit(graph, data, **options, t_end=end).settings["t_end"] == pytest.approx(end)
    assert_refused(
        lambda: fit(graph, data, **options, t_end=1e-3),
        UsageError,
        r"t_end is 0\.001 s, and the 30 time steps of the signals end",
    )


def test_signals_in_steps_are_evaluated_as_they_are_trained(graph, data):
    engine = TimeStepped()
    done = fit(graph, data, loss="count", engine=engine, epochs=1)
    accuracy = evaluate(done.graph, data.test, loss="count", engine=engine)
    assert accuracy == pytest.approx(done.test_accuracy)
    assert accuracy == evaluate(done.graph, (data.test.x, data.test.y), loss="count", engine="grid")


def test_surrogates_have_names_and_positive_numbers(graph, data):
    options = {"loss": "count", "epochs": 1}
    named = fit(graph, data, engine=TimeStepped(surrogate="atan:3"), **options)
    assert (
        named.history
        == fit(graph, data, engine=TimeStepped(surrogate=ArcTan(alpha=3.0)), **options).history
    )
    assert_refused(
        lambda: FastSigmoid(slope=-1.0),
        UsageError,
        "FastSigmoid: slope is -1: pass a positive number",
    )
    assert_refused(
        lambda: simulate(
            lower(graph), data.test.x[:1].swapaxes(0, 1), engine=TimeStepped(detach_reset="x")
        ),
        UsageError,
        "detach_reset is 'x'",
    )
