"""Recorded spikes against expected ones: how late they are, and which are missing or too many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.errors import UsageError

#: A normal distribution's standard deviation is so many median absolute deviations.
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True, kw_only=True)
class SpikeResiduals:
    """Of one population; the k-th spike of a neuron is compared with its k-th.

    Attributes:
        expected, recorded: spikes.
        missing, extra: spikes that a neuron fired less, and more, than expected.
        mean, deviation, sigma: of recorded minus expected times, in `tau`: mean, standard
            deviation, and median absolute deviation as that of a normal distribution; None without
            pairs.
        tau: seconds, the unit.
    """

    expected: int
    recorded: int
    missing: int
    extra: int
    mean: float | None
    deviation: float | None
    sigma: float | None
    tau: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))

    def as_text(self) -> str:
        """For people."""
        text = (
            f"{self.expected} spikes expected, {self.recorded} recorded, {self.missing} missing, "
            f"{self.extra} too many"
        )
        if self.mean is None:
            return text
        return (
            f"{text}; recorded - expected: mean {self.mean:+.3f}, std {self.deviation:.3f}, "
            f"MAD sigma {self.sigma:.3f} tau"
        )


def residuals(expected: np.ndarray, recorded: np.ndarray, tau: float) -> SpikeResiduals:
    """Compare spike times (samples, neurons, spikes), rising, inf where unused; seconds.

    >>> inf = float("inf")
    >>> found = residuals(np.array([[[1.0, 2.0]]]), np.array([[[1.5, inf]]]), tau=0.5)
    >>> found.missing, found.extra, found.mean
    (1, 0, 1.0)
    """
    counts = [np.isfinite(one).sum(axis=2) for one in (expected, recorded)]
    most = min(expected.shape[2], recorded.shape[2])
    pairs = np.isfinite(expected[..., :most]) & np.isfinite(recorded[..., :most])
    late = (recorded[..., :most][pairs] - expected[..., :most][pairs]) / tau
    centre = np.median(late) if late.size else 0.0
    return SpikeResiduals(
        expected=int(counts[0].sum()),
        recorded=int(counts[1].sum()),
        missing=int(np.maximum(counts[0] - counts[1], 0).sum()),
        extra=int(np.maximum(counts[1] - counts[0], 0).sum()),
        mean=float(late.mean()) if late.size else None,
        deviation=float(late.std()) if late.size else None,
        sigma=float(MAD_TO_SIGMA * np.median(np.abs(late - centre))) if late.size else None,
        tau=tau,
    )


def first_spike_accuracy(times: np.ndarray, labels: np.ndarray) -> float:
    """How often the neuron of a sample's label fires before all others of a population (samples,
    neurons, spikes); nobody's spike is no answer.

    Args:
        labels: (samples,) whole numbers, the neurons.

    Raises:
        UsageError: a label that is no neuron, or not one for each sample.
    """
    samples, neurons = times.shape[:2]
    if labels.shape != (samples,) or labels.dtype.kind not in "iu":
        raise UsageError(
            f"label is {labels.dtype} of shape {labels.shape}, and there are {samples} samples",
            fix="give a whole number for each sample, (samples,)",
        )
    if labels.size and not (labels.min() >= 0 and labels.max() < neurons):
        raise UsageError(
            f"labels run from {labels.min()} to {labels.max()}, and {neurons} neurons answer",
            fix=f"number the classes from 0 to {neurons - 1}",
        )
    first = times[..., 0] if times.shape[2] else np.full(times.shape[:2], np.inf)
    answered = np.isfinite(first.min(axis=1))
    return float(np.mean(answered & (first.argmin(axis=1) == labels)))
