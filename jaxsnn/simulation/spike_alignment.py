"""Alignment of recorded spike trains with expected ones, in the presence of missing and additional
spikes.

The alignment keeps the order of the spikes and has the least cost in the metric D_spike[q] of
Victor and Purpura (J. Neurophysiol. 76, 1310, 1996, doi:10.1152/jn.1996.76.2.1310): a missing or an
additional spike costs 1, a spike that is shifted by t costs q |t|. Here q = 1 / tau, so that spikes
more than 2 tau apart are never paired: one is missing, and the other one additional.
"""

from __future__ import annotations

import numpy as np

#: Maximum number of entries in a table of costs. Longer trains are aligned in smaller groups.
_TABLE_ENTRIES = 1 << 22


def align(expected: np.ndarray, recorded: np.ndarray, tau: float) -> np.ndarray:
    """Return the time of the recorded spike that is paired with each expected spike.

    Args:
        expected, recorded: ascending spike times, (trains, spikes) seconds, inf in unused slots.
        tau: shift that costs as much as a missing spike, seconds.

    Returns:
        Array of the shape of `expected`, NaN for missing spikes and in unused slots.

    >>> inf = float("inf")
    >>> align(np.array([[1.0, 2.0, 3.0]]), np.array([[2.1, 3.0, inf]]), tau=1.0).tolist()
    [[nan, 2.1, 3.0]]
    """
    counts = [np.isfinite(times).sum(axis=1) for times in (expected, recorded)]
    longest = np.maximum(*counts)
    # Trains of similar length share a table, the longest first.
    order = np.argsort(-longest, kind="stable")
    order = order[np.minimum(*counts)[order] > 0]
    paired = np.full(expected.shape, np.nan)
    start = 0
    while start < len(order):
        entries = int(longest[order[start]] + 1) ** 2
        trains = order[start : start + max(1, _TABLE_ENTRIES // entries)]
        columns, rows = (int(count[trains].max()) for count in counts)
        paired[trains, :columns] = _align_group(
            expected[trains, :columns], recorded[trains, :rows], tau
        )
        start += len(trains)
    return paired


def _align_group(expected: np.ndarray, recorded: np.ndarray, tau: float) -> np.ndarray:
    """Align trains in one table; arguments and result as in `align`.

    `cost[train, i, j]` is the least cost of the first i expected and the first j recorded spikes:

        cost[i, j] = min(cost[i - 1, j] + 1, cost[i, j - 1] + 1, cost[i - 1, j - 1] + shift[i - 1, j - 1])

    Unused slots follow the spikes and are never paired, since their shift is infinite.
    """
    trains, most_expected = expected.shape
    most_recorded = recorded.shape[1]
    with np.errstate(invalid="ignore"):  # inf - inf
        shift = np.abs(recorded[:, None, :] - expected[:, :, None]) / tau
    shift = np.where(np.isnan(shift), np.inf, shift)
    cost = np.empty((trains, most_expected + 1, most_recorded + 1))
    cost[:, :, 0] = np.arange(most_expected + 1)
    cost[:, 0, :] = np.arange(most_recorded + 1)
    for diagonal in range(
        2, most_expected + most_recorded + 1
    ):  # entries do not depend on each other
        i = np.arange(max(1, diagonal - most_recorded), min(most_expected, diagonal - 1) + 1)
        j = diagonal - i
        unpaired = np.minimum(cost[:, i - 1, j], cost[:, i, j - 1]) + 1
        cost[:, i, j] = np.minimum(unpaired, cost[:, i - 1, j - 1] + shift[:, i - 1, j - 1])
    # Follow the least cost back from the ends of the trains.
    paired = np.full(expected.shape, np.nan)
    train = np.arange(trains)
    i, j = np.full(trains, most_expected), np.full(trains, most_recorded)
    while train.size:
        total = cost[train, i, j]
        is_pair = total == cost[train, i - 1, j - 1] + shift[train, i - 1, j - 1]
        is_missing = ~is_pair & (total == cost[train, i - 1, j] + 1)
        paired[train[is_pair], i[is_pair] - 1] = recorded[train[is_pair], j[is_pair] - 1]
        i, j = np.where(is_pair | is_missing, i - 1, i), np.where(is_missing, j, j - 1)
        is_unfinished = (i > 0) & (j > 0)
        train, i, j = train[is_unfinished], i[is_unfinished], j[is_unfinished]
    return paired


def distance(expected: np.ndarray, recorded: np.ndarray, tau: float) -> float:
    """Return the sum of the distances D_spike[1 / tau] of all trains; arguments as in `align`.

    >>> distance(np.array([[1.0, 2.0]]), np.array([[1.5, float("inf")]]), tau=1.0)
    1.5
    """
    paired = align(expected, recorded, tau)
    is_paired = np.isfinite(paired)
    unpaired = np.isfinite(expected).sum() + np.isfinite(recorded).sum() - 2 * is_paired.sum()
    return float(unpaired + np.abs(paired - expected)[is_paired].sum() / tau)
