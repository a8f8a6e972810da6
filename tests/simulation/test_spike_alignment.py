"""Spike trains with missing spikes are aligned in order, at the least cost."""

import functools

import numpy as np
import pytest

from jaxsnn.simulation import spike_alignment
from jaxsnn.simulation.spike_alignment import align, distance
from jaxsnn.simulation.verification import residuals

INF = np.inf


def cost(expected, recorded, tau):
    """The metric of Victor and Purpura, spike by spike."""

    @functools.cache
    def least(i, j):
        if i == 0 or j == 0:
            return i + j
        shift = abs(recorded[j - 1] - expected[i - 1]) / tau
        return min(least(i - 1, j) + 1, least(i, j - 1) + 1, least(i - 1, j - 1) + shift)

    return least(len(expected), len(recorded))


def padded(trains):
    most = max(map(len, trains), default=0)
    return np.array([[*train, *[INF] * (most - len(train))] for train in trains])


@pytest.fixture(scope="module")
def pairs():
    """Random trains, and the same with missing, additional and shifted spikes."""
    random = np.random.default_rng(0)
    expected = [np.sort(random.uniform(0, 20, random.integers(0, 12))) for _ in range(60)]
    recorded = []
    for train in expected:
        chosen = train[random.random(len(train)) > 0.25] + random.normal(0, 0.3)
        recorded.append(np.sort(np.append(chosen, random.uniform(0, 20, random.integers(0, 3)))))
    return expected, recorded


@pytest.mark.parametrize("tau", [0.1, 1.0, 50.0])
@pytest.mark.parametrize("entries", [1, 300, 1 << 22])
def test_no_alignment_costs_less(pairs, tau, entries, monkeypatch):
    """Whatever the size of the tables in which the trains are aligned."""
    monkeypatch.setattr(spike_alignment, "_TABLE_ENTRIES", entries)
    expected, recorded = map(padded, pairs)
    costs = [cost(tuple(a), tuple(b), tau) for a, b in zip(*pairs, strict=True)]
    assert distance(expected, recorded, tau) == pytest.approx(sum(costs))
    for train, others, paired in zip(
        expected, recorded, align(expected, recorded, tau), strict=True
    ):
        is_paired = np.isfinite(paired)
        assert np.all(np.diff(paired[is_paired]) > 0)
        assert set(paired[is_paired]) <= set(others[np.isfinite(others)])
        assert np.all(np.abs(paired - train)[is_paired] <= 2 * tau * (1 + 1e-12))


def test_missing_spikes_are_missing_and_not_late():
    """Pairs of equal rank had a mean of +0.4 tau and more at 20 % missing spikes."""
    random = np.random.default_rng(1)
    expected = np.sort(random.uniform(0, 40, (50, 20)), axis=1)
    recorded = expected + random.normal(0, 0.05, expected.shape)
    recorded[random.random(recorded.shape) < 0.2] = INF
    recorded = np.sort(recorded, axis=1)
    report = residuals(expected[None], recorded[None], tau=1.0)
    assert report.missing == np.isinf(recorded).sum()
    assert report.extra == 0
    assert abs(report.mean) < 0.01
    assert report.deviation == pytest.approx(0.05, rel=0.15)
    by_rank = (recorded - expected)[np.isfinite(recorded)]
    assert by_rank.mean() > 0.4


def test_trains_without_spikes_have_no_pairs():
    train, silent = np.array([[1.0, 2.0]]), np.zeros((1, 0))
    assert np.isnan(align(train, silent, 1.0)).all()
    assert align(silent, train, 1.0).shape == (1, 0)
    assert distance(silent, train, 1.0) == distance(train, silent, 1.0) == 2
