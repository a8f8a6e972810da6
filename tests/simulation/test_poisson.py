"""Poisson spike trains of many channels."""

import jax
import numpy as np
import pytest

import jaxsnn
from jaxsnn.errors import UsageError
from tests.helpers.refusals import assert_refused

RATES = np.random.default_rng(0).uniform(0, 50, 400)
RATES[[3, 100]] = 0.0


def trains(**options):
    events = jaxsnn.poisson_events(RATES, 20.0, **{"seed": 1, **options})
    return np.asarray(events.time), np.asarray(events.index)


def test_counts_and_times_are_those_of_poisson_processes():
    time, index = trains()
    used = np.isfinite(time[0])
    assert time[0][used].max() < 20.0
    assert (np.diff(time[0][used]) >= 0).all()
    assert (index[0][~used] == len(RATES)).all()
    counts = np.bincount(index[0][used], minlength=len(RATES))
    assert counts[3] == counts[100] == 0
    deviations = ((counts - 20 * RATES) / np.sqrt(20 * RATES + 1e-9))[RATES > 1]
    # mean and variance of independent counts, within four standard errors
    assert abs(deviations.mean()) < 4 / np.sqrt(len(deviations))
    assert abs(deviations.var() - 1) < 4 * np.sqrt(2 / len(deviations))
    channel = int(np.argmax(RATES))
    waits = np.diff(time[0][index[0] == channel]) * RATES[channel]
    # the waits of one channel are exponential: their mean and standard deviation are 1
    assert abs(waits.mean() - 1) < 4 / np.sqrt(len(waits))
    assert abs(waits.std() - 1) < 4 * np.sqrt(2 / len(waits))


def test_samples_differ_and_a_seed_repeats():
    time, _ = trains(samples=2)
    assert time.shape[0] == 2
    assert not np.array_equal(time[0], time[1])
    np.testing.assert_array_equal(trains(samples=2)[0], time)
    assert not np.array_equal(trains(seed=2)[0][0, :100], time[0, :100])
    key = jax.random.key(3)
    np.testing.assert_array_equal(trains(seed=key)[1], trains(seed=key)[1])


def test_channels_without_events():
    for rates, t_end in (([0.0, 0.0], 1.0), ([5.0], 0.0)):
        assert int(jaxsnn.poisson_events(rates, t_end, seed=0).count[0]) == 0


@pytest.mark.parametrize(
    ("rates", "t_end"), [([1.0, -1.0], 1.0), ([np.nan], 1.0), ([[1.0]], 1.0), ([1.0], -1.0)]
)
def test_rates_and_times_that_make_no_sense_are_refused(rates, t_end):
    assert_refused(lambda: jaxsnn.poisson_events(rates, t_end, seed=0), UsageError)
