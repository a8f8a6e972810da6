"""Biases as shifts of the leak potential: exact up to rounding, and without an input channel.

A bias is a constant input, which shifts the resting potential of a neuron by `Dynamics.drive`. On the
chip, the leak potential of the neuron is shifted instead:

    v_leak = v_leak + round(lsb_per_volt * drive)        CADC LSB, (neurons,)

Thresholds and resets remain where they are without biases. A neuron whose leak is above its
threshold fires without input, as in the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from jaxsnn.bss2.chip import PARAMETERS
from jaxsnn.bss2.search.chip_dynamics import Dynamics
from jaxsnn.bss2.search.rounding import SPREAD, CadcLevels, rounded
from jaxsnn.errors import MappingError
from jaxsnn.nir.model.changes import Change
from jaxsnn.options import BIAS, V_LEAK, V_THRESHOLD
from jaxsnn.wording import Text

#: Part of the range of leaks that recommended potentials use: rounding may take the rest.
_USED = 0.98
#: Largest shift that is calculated, CADC LSB: far outside the range, and an exact integer.
_FARTHEST = 1e9
#: Rounding error, CADC LSB, up to which a shift counts as an integer.
_EXACT = 2.0**-20


def with_leak_shifts(neurons: Mapping[str, Dynamics], voltages: CadcLevels) -> CadcLevels:
    """Return potentials whose leaks are shifted by the biases of the neurons, with notes.

    The range of the calibration is not checked; see `refuse_unreachable_leaks`.

    Args:
        neurons: Populations by NIR name.
        voltages: Potentials without biases.

    Raises:
        MappingError: The size of a volt on the chip is undetermined for a population with biases.
    """
    leaks, notes = dict(voltages.v_leak), list(voltages.notes)
    for name, dynamics in neurons.items():
        if not dynamics.drive.any():
            continue
        factor = voltages.lsb_per_volt[name]
        if factor is None:
            raise MappingError(
                Text(
                    "node '{node}' ({type}) has biases, but it is undetermined how many CADC LSB "
                    "correspond to a volt of its membrane potential, because {reason}",
                    node=name,
                    type=dynamics.population.kind,
                    reason="no weights arrive at it"
                    if voltages.slope is not None
                    else "no weights arrive at spiking neurons",
                ),
                fix=Text("remove its biases, or pass {bias}", bias=BIAS.set_to("source")),
                node=name,
            )
        exact = factor * dynamics.drive
        shifts = rounded(np.clip(exact, -_FARTHEST, _FARTHEST)).astype(np.int64)
        leaks[name] = voltages.v_leak[name] + shifts
        notes += _notes(dynamics, exact, shifts, leaks[name], voltages.v_threshold[name], factor)
    return replace(voltages, v_leak=leaks, notes=tuple(notes))


def _notes(
    dynamics: Dynamics,
    exact: np.ndarray,
    shifts: np.ndarray,
    v_leak: np.ndarray,
    v_threshold: np.ndarray,
    lsb_per_volt: float,
) -> Iterator[Change]:
    """Yield notes on the leaks of a population: their rounding errors, and how close they are to the
    thresholds.
    """
    name, fires = dynamics.population.name, dynamics.population.fires
    biased = dynamics.drive != 0
    error = np.abs(shifts - exact)
    distance = np.abs(lsb_per_volt * (dynamics.v_threshold - dynamics.v_leak))
    description = Text(
        "biases shift the leak by {lowest:+d} to {highest:+d} CADC LSB",
        lowest=int(shifts[biased].min()),
        highest=int(shifts[biased].max()),
    )
    if error.max() > _EXACT:
        description += Text(
            "; rounding changes a shift by up to {error:.2g} LSB", error=float(error.max())
        )
        if fires:
            share = float(np.max(error / np.maximum(distance, 1)))
            description += Text(
                ", {share:.2%} of the distance of the threshold from the unshifted leak",
                share=share,
            )
    yield Change(
        node=name,
        what=description,
        why=Text("requested with {bias}", bias=BIAS.set_to("leak")),
    )
    if lost := int(np.sum(biased & (shifts == 0))):
        yield Change(
            node=name,
            what=Text(
                "biases that round to 0: {count} of {biases}", count=lost, biases=int(biased.sum())
            ),
            why="they shift the leak by less than half an LSB",
        )
    if not fires:
        return
    active = biased & (v_leak >= v_threshold)
    active_in_file = biased & (dynamics.v_leak + dynamics.drive >= dynamics.v_threshold)
    if active.any():
        yield Change(
            node=name,
            what=Text(
                "neurons whose leak is at or above their threshold: {count}; on the chip they also "
                "fire between samples, so that their first spike comes at an arbitrary phase, on the "
                "emulated chip at time 0",
                count=int(active.sum()),
            ),
            why="their biases alone reach the threshold",
        )
    if moved := int(np.sum(active != active_in_file)):
        yield Change(
            node=name,
            what=Text(
                "neurons whose leak rounding moves across the threshold: {count}; they fire without "
                "input either on the chip or in the file",
                count=moved,
            ),
            why="potentials on the chip are integers in LSB",
        )
    if near := int(np.sum(biased & (np.abs(v_threshold - v_leak) < SPREAD))):
        yield Change(
            node=name,
            what=Text(
                "neurons whose leak is less than {limit} LSB from their threshold: {count}",
                limit=SPREAD,
                count=near,
            ),
            why=Text("calibrated thresholds deviate by up to {limit} LSB", limit=SPREAD),
        )


def is_reachable(v_leak: Mapping[str, np.ndarray]) -> bool:
    """Return whether all leaks are in the range of the calibration."""
    reach = PARAMETERS["v_leak"]
    return all(((reach.low <= leaks) & (leaks <= reach.high)).all() for leaks in v_leak.values())


def refuse_unreachable_leaks(
    neurons: Mapping[str, Dynamics],
    voltages: CadcLevels,
    v_leak: int,
    v_threshold: int,
    scales: Mapping[str, float | None],
    fits: Callable[[int, int, Mapping[str, float]], bool],
) -> None:
    """Refuse leaks outside the range of the calibration.

    Args:
        voltages: Potentials with shifted leaks.
        v_leak, v_threshold: Requested leak and highest threshold, CADC LSB.
        scales: LSB of a weight of 1, by population; None without weights.
        fits: Whether all leaks are in the range with another leak, highest threshold, and other
            scales (of some populations): called with what the message is to recommend.

    Raises:
        MappingError: A leak is outside the range.
    """
    reach = PARAMETERS["v_leak"]
    for name, leaks in voltages.v_leak.items():
        beyond = np.maximum(reach.low - leaks, leaks - reach.high)
        if beyond.max() <= 0:
            continue
        neuron = int(beyond.argmax())
        ways = [Text("{bias}", bias=BIAS.set_to("source"))]
        potentials = _other_potentials(voltages, v_leak, v_threshold)
        if potentials is not None and fits(*potentials, {}):
            leak, threshold = V_LEAK.set_to(potentials[0]), V_THRESHOLD.set_to(potentials[1])
            ways.append(Text("{leak} and {threshold}", leak=leak, threshold=threshold))
        if (scale := scales[name]) is not None:
            room = (reach.high if leaks[neuron] > reach.high else reach.low) - v_leak
            smaller = float(f"{_USED * scale * room / (leaks[neuron] - v_leak):.3g}")
            if smaller > 0 and fits(v_leak, v_threshold, {name: smaller}):
                ways.append(
                    Text(
                        "a scale of {smaller:g} instead of {scale:.4g} for '{node}'",
                        smaller=smaller,
                        scale=scale,
                        node=name,
                    )
                )
        raise MappingError(
            Text(
                "node '{node}' ({type}): the bias of neuron {neuron} shifts its leak from {v_leak} to "
                "{shifted} CADC LSB; the calibration supports {minimum:g} to {maximum:g}",
                node=name,
                type=neurons[name].population.kind,
                neuron=neuron,
                v_leak=v_leak,
                shifted=int(leaks[neuron]),
                minimum=reach.low,
                maximum=reach.high,
            ),
            fix="pass " + Text.joined(" or ", ways),
            node=name,
        )


def _other_potentials(
    voltages: CadcLevels, v_leak: int, v_threshold: int
) -> tuple[int, int] | None:
    """Return another leak and highest threshold, CADC LSB, for which the leaks may be in the range;
    None if there is none.

    All potentials are shifted; if the shifts alone exceed the range, the threshold is brought closer
    to the leak, which reduces them in proportion.
    """
    reach, limit = PARAMETERS["v_leak"], PARAMETERS["v_threshold"]
    shifts = [leaks - v_leak for leaks in voltages.v_leak.values()]
    lowest = min(0, *(int(shift.min()) for shift in shifts))
    highest = max(0, *(int(shift.max()) for shift in shifts))
    factor = min(1.0, _USED * (reach.high - reach.low) / (highest - lowest))
    leak = min(v_leak, int(reach.high - np.ceil(highest * factor)))
    leak = max(leak, int(reach.low + np.ceil(-lowest * factor)))
    threshold = leak + int((v_threshold - v_leak) * factor)
    return (leak, threshold) if leak + SPREAD <= threshold <= limit.high else None
