"""Scales of weights, and the rounding of weights and potentials to integers.

The weights of all connections into a population share one scale. A scale of 63 LSB lets a weight
of 1 become 63, the largest weight of a synapse; `SCALES` lists the methods that choose one. One LSB
has the same strength in all populations, so that the potentials follow from the scales: see
`jaxsnn.bss2.search.quantize` for the formulas.

    exact     (connections,) float64    scale * gain * weight, LSB
    integers  (connections,) int64      rounded half away from zero, clipped to +-limit
    gain      (connections,) float64    strength of the target neuron / largest of its population
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxsnn.bss2.chip import PARAMETERS
from jaxsnn.bss2.netlist import LARGEST, synapses_of
from jaxsnn.bss2.search.chip_dynamics import Dynamics
from jaxsnn.errors import MappingError
from jaxsnn.linear_map import LinearMap
from jaxsnn.nir.model.changes import Change
from jaxsnn.wording import Text

#: Relative tolerance of rounding: a value that float32 arithmetic has put slightly below 31.5
#: counts as 31.5.
HAIR = 2**-22


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """Statistics of the rounding of the weights that arrive at a population.

    Attributes:
        scale: LSB of a weight of 1 (in the neuron with the largest gain, if gains differ); None
            without weights.
        connections: Number of pairs of neurons with a nonzero weight in the file.
        synapses: Number of synapses of the chip that represent them.
        saturated: Number of weights above the largest magnitude.
        zeroed: Number of weights that were rounded to zero.
        rms_error: Root mean square of the rounding errors, in the unit of the file's weights.
        relative_error: `rms_error` divided by the root mean square of the weights.
        threshold_error: Largest relative rounding error of the distance of a threshold from its
            leak; None in a readout.
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
        """Return the report as a dict for JSON."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True, eq=False)
class Scaled:
    """Integer weights of one population: `integers` (links,) int64 are the `exact` LSB rounded
    under a scale.
    """

    scale: float | None
    exact: np.ndarray
    integers: np.ndarray
    gain: np.ndarray
    limit: int

    def report(self, threshold_error: float | None) -> NodeReport:
        """Return the statistics of the rounding errors."""
        lost = (self.integers - self.exact) / (self.gain * (self.scale or 1.0))
        file = self.exact / (self.gain * (self.scale or 1.0))
        error, size = _rms(lost), _rms(file)
        return NodeReport(
            scale=self.scale,
            connections=self.exact.size,
            synapses=int(synapses_of(self.integers).sum()),
            saturated=int((np.abs(rounded(self.exact)) > self.limit).sum()),
            zeroed=int((self.integers == 0).sum()),
            rms_error=error,
            relative_error=error / size if size else 0.0,
            threshold_error=threshold_error,
        )


def integer_weights(
    links: Mapping[str, LinearMap],
    gain: np.ndarray,
    scale: str | float,
    synapses_per_weight: int,
    percentile: float,
) -> Scaled:
    """Return the weights of all links of a population as integers.

    Args:
        links: source -> weights of the file.
        gain: (neurons,) effect of r, w_in and time constants on a weight, relative to the neuron
            with the largest effect.
        scale: Key of `SCALES`, or LSB of a weight of 1.
        synapses_per_weight: Maximum number of synapses whose sum represents one weight.
        percentile: Percentile of the magnitudes, for the scale "percentile".
    """
    limit = LARGEST * synapses_per_weight
    value = np.concatenate(
        [np.zeros(0), *(part.value * gain[part.target] for part in links.values())]
    )
    gains = np.concatenate([np.zeros(0), *(gain[part.target] for part in links.values())])
    if not isinstance(scale, str):
        factor = float(scale)
    else:
        factor = SCALES[scale](np.abs(value), limit, percentile) if value.size else None
    exact = value * (factor or 1.0)
    integers = np.clip(rounded(exact), -limit, limit).astype(np.int64)
    return Scaled(scale=factor, exact=exact, integers=integers, gain=gains, limit=limit)


def _rms(values: np.ndarray) -> float:
    """Return the root mean square, also where the squares overflow or underflow."""
    largest = np.max(np.abs(values), initial=0.0)
    return float(largest * np.sqrt(np.mean(np.square(values / largest)))) if largest else 0.0


def rounded(values: np.ndarray) -> np.ndarray:
    """Round to integers, half away from zero."""
    return np.sign(values) * np.floor(np.abs(values) * (1 + HAIR) + 0.5)


def _by_max(magnitude: np.ndarray, limit: int, percentile: float) -> float:
    return limit / float(magnitude.max())


def _by_percentile(magnitude: np.ndarray, limit: int, percentile: float) -> float:
    return limit / float(np.percentile(magnitude, percentile, method="higher"))


def _by_least_error(magnitude: np.ndarray, limit: int, percentile: float) -> float:
    """Return the scale with the least error, from that of the largest weight up to eight times as
    much.
    """
    candidates = limit / float(magnitude.max()) * 2 ** np.linspace(0, 3, 97)
    errors = [
        np.square(np.minimum(rounded(magnitude * candidate), limit) / candidate - magnitude).sum()
        for candidate in candidates
    ]
    return float(candidates[int(np.argmin(errors))])


#: Method that starts from the scales of "max" and reduces some of them; see `QuantizeOptions.scale`.
BALANCED = "balanced"
SCALES: Mapping[str, Callable[[np.ndarray, int, float], float]] = MappingProxyType(
    {
        BALANCED: _by_max,
        "max": _by_max,
        "percentile": _by_percentile,
        "least-error": _by_least_error,
    }
)


# -- voltages

#: Deviation in CADC LSB that up to 5 % of the neurons of a calibrated chip exceed relative to their
#: target threshold (calix, test_neuron_threshold_calibration.py).
SPREAD = 8
#: Standard deviation of thresholds, CADC LSB, that this corresponds to: 5 % of a normal distribution
#: are beyond 1.96 standard deviations.
DEVIATION = SPREAD / 1.96
#: Minimum relative rounding error of a threshold that a note reports.
_WORTH_SAYING = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class CadcLevels:
    """Voltages of populations by NIR name.

    Attributes:
        v_leak, v_threshold, v_reset: (neurons,) CADC LSB, integers; thresholds and resets are
            0 in a readout.
        lsb_per_volt: CADC LSB of one volt of the file; None if it is undetermined.
        error: largest relative error of a threshold's distance from its leak, by rounding; None in
            a readout.
        slope: CADC LSB per second of the file by which one LSB of a weight must change dV/dt; None
            without thresholds.
        notes: thresholds closer to the leak than calibrated thresholds spread.
    """

    v_leak: Mapping[str, np.ndarray]
    v_threshold: Mapping[str, np.ndarray]
    v_reset: Mapping[str, np.ndarray]
    lsb_per_volt: Mapping[str, float | None]
    error: Mapping[str, float | None]
    slope: float | None
    notes: tuple[Change, ...]


def levels(
    neurons: Mapping[str, Dynamics],
    slope_of: Mapping[str, float],
    v_leak: int,
    v_threshold: int,
    slope: float | None = None,
) -> CadcLevels:
    """Return voltages for which one LSB of a weight has the same strength in all populations.

    The strength is the largest for which no threshold is above `v_threshold` and no threshold or
    reset is outside the range of the calibration. The leak of every neuron is set to `v_leak`: only
    differences matter.

    Args:
        neurons: populations by NIR name.
        slope_of: Change of dV/dt for one LSB of a weight, volts per second of the file, by
            population; NaN without weights.
        v_leak, v_threshold: CADC LSB.
        slope: Change of dV/dt for one LSB of a weight on the chip, CADC LSB per second of the file;
            None for the largest possible value.

    Raises:
        MappingError: Rounding moves a threshold onto its leak, or below its reset.
    """
    if slope is None:
        slope = largest_slope(neurons, slope_of, v_leak, v_threshold)
    leaks, thresholds, resets, factors, errors, notes = {}, {}, {}, {}, {}, []
    for name, dynamics in neurons.items():
        size, fires = dynamics.population.size, dynamics.population.fires
        factor = None if slope is None or math.isnan(slope_of[name]) else slope / slope_of[name]
        if factor is None and fires:  # without inputs any scale is valid
            factor = largest(dynamics, v_leak, v_threshold)
        leaks[name], factors[name], errors[name] = np.full(size, v_leak), factor, None
        thresholds[name] = resets[name] = np.zeros(size, np.int64)
        if fires:
            assert factor is not None
            exact = factor * (dynamics.v_threshold - dynamics.v_leak)
            steps = rounded(exact).astype(np.int64)
            thresholds[name] = v_leak + steps
            resets[name] = v_leak + rounded(factor * (dynamics.v_reset - dynamics.v_leak)).astype(
                np.int64
            )
            errors[name] = float(np.max(np.abs(steps - exact) / np.maximum(np.abs(exact), 1)))
            notes += _close(dynamics, exact, thresholds[name], resets[name])
            if errors[name] > _WORTH_SAYING:
                description = Text(
                    "rounding changes the distance of its threshold from the leak by {error:.1%}",
                    error=errors[name],
                )
                notes.append(
                    Change(
                        node=name,
                        what=description,
                        why="potentials on the chip are integers in LSB",
                    )
                )
    return CadcLevels(
        v_leak=leaks,
        v_threshold=thresholds,
        v_reset=resets,
        lsb_per_volt=factors,
        error=errors,
        slope=slope,
        notes=tuple(notes),
    )


def largest_slope(
    neurons: Mapping[str, Dynamics], slope_of: Mapping[str, float], v_leak: int, v_threshold: int
) -> float | None:
    """Return the largest slope with which all voltages fit, CADC LSB per second of the file; None
    without thresholds.

    If all neurons of the population that limits the slope have the same threshold, and rounding
    would change it, the slope is reduced so that the threshold is an integer.

    Args:
        neurons, slope_of, v_leak, v_threshold: See `levels`.
    """
    limits = {
        name: largest(dynamics, v_leak, v_threshold)
        for name, dynamics in neurons.items()
        if dynamics.population.fires and not math.isnan(slope_of[name])
    }
    name = min(limits, key=lambda name: limits[name] * slope_of[name], default=None)
    if name is None:
        return None
    slope, dynamics = limits[name] * slope_of[name], neurons[name]
    distance = np.abs(dynamics.v_threshold - dynamics.v_leak)
    exact = float(distance.max()) * limits[name]
    below = math.floor(exact * (1 + 2**-40))
    is_rounded = np.ptp(distance) == 0 and SPREAD <= below < exact * (1 - 2**-40)
    return slope * below / exact if is_rounded else slope


def largest(dynamics: Dynamics, v_leak: int, v_threshold: int) -> float:
    """Return the largest scale, CADC LSB per volt, at which a population's thresholds and resets
    fit.
    """
    threshold, reset = dynamics.v_threshold - dynamics.v_leak, dynamics.v_reset - dynamics.v_leak
    lowest = PARAMETERS["v_threshold"].low, PARAMETERS["v_reset"].low
    room = [
        (threshold.max(), v_threshold - v_leak),
        (-threshold.min(), v_leak - lowest[0]),
        (reset.max(), PARAMETERS["v_reset"].high - v_leak),
        (-reset.min(), v_leak - lowest[1]),
    ]
    return min((allowed / needed for needed, allowed in room if needed > 0), default=1.0)


def _close(
    dynamics: Dynamics, exact: np.ndarray, thresholds: np.ndarray, resets: np.ndarray
) -> Iterator[Change]:
    name = dynamics.population.name
    if (lost := (thresholds <= resets) | ((exact > 0) & (rounded(exact) == 0))).any():
        neuron = int(lost.argmax())
        threshold, reset = (
            dynamics.v_threshold - dynamics.v_leak,
            dynamics.v_reset - dynamics.v_leak,
        )
        far = np.abs(reset).max() > np.abs(threshold).max()
        raise MappingError(
            Text(
                "node '{node}' ({type}): the threshold of neuron {neuron} is {distance:.2g} LSB "
                "above its leak; it rounds to {v_threshold}, and the reset to {v_reset}; ",
                node=name,
                type=dynamics.population.kind,
                neuron=neuron,
                distance=float(exact[neuron]),
                v_threshold=int(thresholds[neuron]),
                v_reset=int(resets[neuron]),
            )
            + (
                Text(
                    "the resets are up to {reset_distance:.3g} V from the leak, the thresholds up to "
                    "{threshold_distance:.3g} V",
                    reset_distance=float(np.abs(reset).max()),
                    threshold_distance=float(np.abs(threshold).max()),
                )
                if far
                else "the weights of the populations differ too much in magnitude"
            ),
            fix="bring v_reset closer to v_leak"
            if far
            else "raise v_threshold, or pass another scale",
            node=name,
        )
    nearest = float(np.abs(exact).min())
    if nearest < SPREAD:
        description = Text("its threshold is {distance:.3g} LSB from its leak", distance=nearest)
        yield Change(
            node=name,
            what=description,
            why=Text("calibrated thresholds deviate by up to {limit} LSB", limit=SPREAD),
        )
