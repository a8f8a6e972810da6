"""Leak, threshold and reset voltages in LSB of the chip's CADC, under one strength of a weight's
LSB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from jaxsnn.bss2.chip import PARAMETERS
from jaxsnn.bss2.search.chip_dynamics import Dynamics
from jaxsnn.bss2.search.whole_weights import rounded
from jaxsnn.errors import MappingError
from jaxsnn.nir.model.changes import Change

#: CADC LSB: up to 5 % of the neurons of a calibrated chip deviate by more from the threshold asked
#: for (calix, test_neuron_threshold_calibration.py).
SPREAD = 8


#: Relative error of a threshold by rounding that is noted.
_WORTH_SAYING = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class CadcLevels:
    """Voltages of populations by NIR name.

    Attributes:
        v_leak, v_threshold, v_reset: (neurons,) CADC LSB, whole numbers; thresholds and resets are
            0 in a readout.
        lsb_per_volt: CADC LSB of one volt of the file; None where nothing fixes it.
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
    """Voltages such that one LSB of a weight has the same strength in all populations.

    The strength is the largest under which no threshold lies above `v_threshold` and no threshold
    or reset leaves what the calibration reaches. Each neuron's own leak is put to `v_leak`: only
    differences matter.

    Args:
        neurons: populations by NIR name.
        slope_of: by how many volts per second (of the file) one LSB of a weight changes dV/dt; NaN
            without weights.
        v_leak, v_threshold: CADC LSB.
        slope: the strength that the chip has, CADC LSB per second of the file; None for the
            largest one.

    Raises:
        MappingError: a threshold so close to its leak that the rounding puts it there.
    """
    driven = {
        name: one
        for name, one in neurons.items()
        if one.population.fires and not math.isnan(slope_of[name])
    }
    if slope is None:
        slope = _largest_slope(driven, slope_of, v_leak, v_threshold)
    leaks, thresholds, resets, factors, errors, notes = {}, {}, {}, {}, {}, []
    for name, one in neurons.items():
        size, fires = one.population.size, one.population.fires
        factor = None if slope is None or math.isnan(slope_of[name]) else slope / slope_of[name]
        if factor is None and fires:  # nothing arrives: any scale is right
            factor = largest(one, v_leak, v_threshold)
        leaks[name], factors[name], errors[name] = np.full(size, v_leak), factor, None
        thresholds[name] = resets[name] = np.zeros(size, np.int64)
        if fires:
            assert factor is not None
            exact = factor * (one.v_threshold - one.v_leak)
            steps = rounded(exact).astype(np.int64)
            thresholds[name] = v_leak + steps
            resets[name] = v_leak + rounded(factor * (one.v_reset - one.v_leak)).astype(np.int64)
            errors[name] = float(np.max(np.abs(steps - exact) / np.maximum(np.abs(exact), 1)))
            notes += _close(one, exact, thresholds[name], resets[name])
            if errors[name] > _WORTH_SAYING:
                what = f"its threshold's distance from the leak is rounded by {errors[name]:.1%}"
                notes.append(Change(node=name, what=what, why="the chip takes whole LSB"))
    return CadcLevels(
        v_leak=leaks,
        v_threshold=thresholds,
        v_reset=resets,
        lsb_per_volt=factors,
        error=errors,
        slope=slope,
        notes=tuple(notes),
    )


def _largest_slope(
    driven: Mapping[str, Dynamics], slope_of: Mapping[str, float], v_leak: int, v_threshold: int
) -> float | None:
    """The largest strength under which all voltages fit, a little less where the one threshold of
    the population that limits it would be rounded; None without thresholds.
    """
    limits = {name: largest(one, v_leak, v_threshold) for name, one in driven.items()}
    name = min(limits, key=lambda name: limits[name] * slope_of[name], default=None)
    if name is None:
        return None
    slope, one = limits[name] * slope_of[name], driven[name]
    distance = np.abs(one.v_threshold - one.v_leak)
    exact = float(distance.max()) * limits[name]
    below = math.floor(exact * (1 + 2**-40))
    is_rounded = np.ptp(distance) == 0 and SPREAD <= below < exact * (1 - 2**-40)
    return slope * below / exact if is_rounded else slope


def largest(one: Dynamics, v_leak: int, v_threshold: int) -> float:
    """CADC LSB per volt at which a population's thresholds and resets just fit."""
    threshold, reset = one.v_threshold - one.v_leak, one.v_reset - one.v_leak
    lowest = PARAMETERS["v_threshold"].low, PARAMETERS["v_reset"].low
    room = [
        (threshold.max(), v_threshold - v_leak),
        (-threshold.min(), v_leak - lowest[0]),
        (reset.max(), PARAMETERS["v_reset"].high - v_leak),
        (-reset.min(), v_leak - lowest[1]),
    ]
    return min((allowed / needed for needed, allowed in room if needed > 0), default=1.0)


def _close(
    one: Dynamics, exact: np.ndarray, thresholds: np.ndarray, resets: np.ndarray
) -> Iterator[Change]:
    name = one.population.name
    if (lost := (thresholds <= resets) | ((exact > 0) & (rounded(exact) == 0))).any():
        neuron = int(lost.argmax())
        threshold, reset = one.v_threshold - one.v_leak, one.v_reset - one.v_leak
        far = np.abs(reset).max() > np.abs(threshold).max()
        raise MappingError(
            f"node '{name}' ({one.population.kind}): the threshold of neuron {neuron} is "
            f"{exact[neuron]:.2g} LSB above its leak and rounds to {thresholds[neuron]}, its reset "
            f"to {resets[neuron]}; "
            + (
                f"the resets lie up to {np.abs(reset).max():.3g} V from the leak, the thresholds "
                f"{np.abs(threshold).max():.3g} V"
                if far
                else "the populations' weights are too different in size"
            ),
            fix="bring v_reset closer to v_leak"
            if far
            else "raise v_threshold, or choose another scale",
            node=name,
        )
    nearest = float(np.abs(exact).min())
    if nearest < SPREAD:
        what = f"its threshold is {nearest:.3g} LSB from its leak"
        yield Change(
            node=name, what=what, why=f"calibrated thresholds spread by up to {SPREAD} LSB"
        )
