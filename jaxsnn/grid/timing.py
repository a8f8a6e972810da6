"""How long a step is, what the grid needs to know for it, and what it only approximates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from jaxsnn.errors import LoweringError, UsageError
from jaxsnn.network.structure import Population, Wire

if TYPE_CHECKING:
    from jaxsnn.network.network import Network

#: Delays and given steps may differ from what they should be by the rounding of float32, relative.
_TOLERANCE = 2**-18


def step_length(network: Network, dt: float | None) -> float | None:
    """Length of a step in seconds; None where nobody knows it and no neuron needs it.

    Args:
        dt: what the user says, or None.

    Raises:
        UsageError: what the user says contradicts the network.
        LoweringError: it is needed, and nobody knows it.
    """
    if dt is not None and not (math.isfinite(dt) and dt > 0):
        raise UsageError(f"Grid has dt = {dt:g} s: it must be positive")
    for population in network.populations.values():
        if (
            dt is not None
            and population.dt is not None
            and abs(dt - population.dt) > _TOLERANCE * population.dt
        ):
            raise UsageError(
                f"Grid has dt = {dt:g} s, but the steps of node '{population.name}' last {population.dt:g} s: leave dt "
                "out, or read the file with another --dt"
            )
        if needs_dt(population) and not population.counts_steps:
            population.require("seconds", *(["dt"] if dt is None else []))
    known = [
        population.dt for population in network.populations.values() if population.dt is not None
    ]
    return dt if dt is not None or not known else known[0]


def steps_of(network: Network, dt: float | None) -> float | None:
    """Length of a step in the unit of the network's times: 1 where they count steps."""
    counted = any(population.counts_steps for population in network.populations.values())
    return 1.0 if counted else dt


def delay_steps(wire: Wire, dt: float | None) -> tuple[int, ...]:
    """Delays of a Delay node in steps, one or one for each channel.

    Args:
        dt: length of a step in the unit of the delays.

    Raises:
        LoweringError: dt is unknown, or a delay is no multiple of it.
    """
    if dt is None:
        raise LoweringError(
            f"node '{wire.name}' (Delay) needs dt, which the file does not say: say --dt"
        )
    exact = np.asarray(wire.detail) / dt
    steps = np.rint(exact)
    if (bad := np.abs(steps - exact) > _TOLERANCE * np.maximum(steps, 1)).any():
        channel = int(bad.argmax())
        raise LoweringError(
            f"node '{wire.name}' (Delay): channel {channel} is late by {wire.detail[channel]:g} s, which is "
            f"{exact[channel]:g} steps of {dt:g} s: choose a dt that divides it"
        )
    return tuple(int(step) for step in steps)


def needs_dt(population: Population) -> bool:
    """Whether a step of the population depends on how long it is."""
    formulas = (population.membrane_decay, population.synapse_decay)
    return population.membrane in ("exact", "euler", "relax") or any(
        "dt" in formula for formula in formulas
    )
