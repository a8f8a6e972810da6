"""Weights as whole numbers: the choice of a scale, rounding, and what they lose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxsnn.bss2.netlist import LARGEST, synapses_of
from jaxsnn.bss2.search.unroll import Links

#: By this part more, 31.5 stays 31.5 where a weight in float32, or its product with a scale, was
#: rounded.
HAIR = 2**-22


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """What became of the weights that arrive at a population.

    Attributes:
        scale: LSB of a weight of 1 (in the neuron with the largest gain, where gains differ); None
            without weights.
        connections: pairs of neurons with a weight other than zero in the file.
        synapses: of the chip that they take.
        saturated: weights beyond the largest.
        zeroed: weights that were rounded to zero.
        rms_error: root mean square of the difference, in the file's weights.
        relative_error: the same over the root mean square of the weights.
        threshold_error: largest relative error of a threshold's distance from its leak, by rounding
            to LSB; None in a readout.
    """

    scale: float | None
    connections: int
    synapses: int
    saturated: int
    zeroed: int
    rms_error: float
    relative_error: float
    threshold_error: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True, eq=False)
class Scaled:
    """Whole weights of one population: `whole` (links,) int64 is what `exact` LSB became under a
    scale.
    """

    scale: float | None
    exact: np.ndarray
    whole: np.ndarray
    gain: np.ndarray
    limit: int

    def report(self, threshold_error: float | None) -> NodeReport:
        """What was lost."""
        lost = (self.whole - self.exact) / (self.gain * (self.scale or 1.0))
        file = self.exact / (self.gain * (self.scale or 1.0))
        error, size = _rms(lost), _rms(file)
        return NodeReport(
            scale=self.scale,
            connections=self.exact.size,
            synapses=int(synapses_of(self.whole).sum()),
            saturated=int((np.abs(rounded(self.exact)) > self.limit).sum()),
            zeroed=int((self.whole == 0).sum()),
            rms_error=error,
            relative_error=error / size if size else 0.0,
            threshold_error=threshold_error,
        )


def whole_weights(
    links: Mapping[str, Links],
    gain: np.ndarray,
    scale: str | float,
    synapses_per_weight: int,
    percentile: float,
) -> Scaled:
    """The weights of all links of a population as whole numbers.

    Args:
        links: source -> weights of the file.
        gain: (neurons,) what r, w_in and time constants do to a weight, relative to the neuron
            where they do most.
        scale: a key of `SCALES`, or LSB of a weight of 1.
        synapses_per_weight: how many synapses may add up to one weight.
        percentile: of the magnitudes, for the scale of that name.
    """
    limit = LARGEST * synapses_per_weight
    value = np.concatenate(
        [np.zeros(0), *(part.value * gain[part.post] for part in links.values())]
    )
    gains = np.concatenate([np.zeros(0), *(gain[part.post] for part in links.values())])
    if not isinstance(scale, str):
        factor = float(scale)
    else:
        factor = SCALES[scale](np.abs(value), limit, percentile) if value.size else None
    exact = value * (factor or 1.0)
    whole = np.clip(rounded(exact), -limit, limit).astype(np.int64)
    return Scaled(scale=factor, exact=exact, whole=whole, gain=gains, limit=limit)


def _rms(values: np.ndarray) -> float:
    """Root of the mean of squares, also of numbers whose squares are none."""
    largest = np.max(np.abs(values), initial=0.0)
    return float(largest * np.sqrt(np.mean(np.square(values / largest)))) if largest else 0.0


def rounded(values: np.ndarray) -> np.ndarray:
    """Whole numbers: half away from zero."""
    return np.sign(values) * np.floor(np.abs(values) * (1 + HAIR) + 0.5)


def _by_max(magnitude: np.ndarray, limit: int, percentile: float) -> float:
    return limit / float(magnitude.max())


def _by_percentile(magnitude: np.ndarray, limit: int, percentile: float) -> float:
    return limit / float(np.percentile(magnitude, percentile, method="higher"))


def _by_least_error(magnitude: np.ndarray, limit: int, percentile: float) -> float:
    """The best of scales from that of the largest weight up to eight times as much."""
    candidates = limit / float(magnitude.max()) * 2 ** np.linspace(0, 3, 97)
    errors = [
        np.square(np.minimum(rounded(magnitude * one), limit) / one - magnitude).sum()
        for one in candidates
    ]
    return float(candidates[int(np.argmin(errors))])


SCALES: Mapping[str, Callable[[np.ndarray, int, float], float]] = MappingProxyType(
    {"max": _by_max, "percentile": _by_percentile, "least-error": _by_least_error}
)
