"""Length of a time step, and what the time-stepped engine needs to determine it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from jaxsnn.errors import LoweringError, UsageError, as_number, shown
from jaxsnn.network.structure import Population, Wire
from jaxsnn.options import DT
from jaxsnn.units import SECONDS
from jaxsnn.wording import Text

if TYPE_CHECKING:
    from jaxsnn.network.network import Network

#: Relative tolerance of delays and specified steps, which may be rounded to float32.
_TOLERANCE = 2**-18


def step_length(network: Network, dt: float | None) -> float | None:
    """Return the length of a step in seconds; None if it is unknown and no neuron needs it.

    Args:
        dt: length that the engine specifies, seconds, or None.

    Raises:
        UsageError: the engine's dt is not positive, or contradicts the network.
        LoweringError: the length is needed and unknown.
    """
    if dt is not None and not (math.isfinite(as_number(dt)) and as_number(dt) > 0):
        raise UsageError(f"the engine has dt = {shown(dt)} s", fix="pass a positive dt in seconds")
    for population in network.populations.values():
        population_dt = population.dt
        if (
            dt is not None
            and population_dt is not None
            and abs(dt - population_dt) > _TOLERANCE * population_dt
        ):
            raise UsageError(
                f"the engine has dt = {dt:g} s, but node '{population.name}' has a time step of "
                f"{population_dt:g} s",
                fix="omit dt of the engine, or read the file with this dt",
                node=population.name,
            )
        if needs_dt(population) and not population.counts_steps:
            population.require("seconds", *(["dt"] if dt is None else []))
    return known_dt(network.populations, dt)


def known_dt(populations: Mapping[str, Population], dt: float | None) -> float | None:
    """Return the length of a step in seconds: that which the engine specifies, else that of the first
    population that has one.
    """
    if dt is not None:
        return dt
    population_dts = (population.dt for population in populations.values())
    return next(
        (population_dt for population_dt in population_dts if population_dt is not None), None
    )


def step_in_units(populations: Mapping[str, Population], dt: float | None) -> float | None:
    """Return the length of a step in the unit of the network's times: 1 where they count steps."""
    counted = any(population.counts_steps for population in populations.values())
    return 1.0 if counted else dt


def delay_steps(wire: Wire, dt: float | None) -> tuple[int, ...]:
    """Return the delays of a Delay node in steps, one or one for each channel.

    Args:
        dt: length of a step in the unit of the delays.

    Raises:
        LoweringError: dt is unknown, or a delay is not a multiple of it.
    """
    if dt is None:
        raise LoweringError(
            f"node '{wire.name}' (Delay) needs dt, which the file does not specify",
            fix=Text("pass {dt}, for example", dt=DT.set_to(SECONDS["ms"])),
            node=wire.name,
            code="delay",
        )
    exact = np.asarray(wire.detail) / dt
    steps = np.rint(exact)
    if (bad := np.abs(steps - exact) > _TOLERANCE * np.maximum(steps, 1)).any():
        channel = int(bad.argmax())
        raise LoweringError(
            f"node '{wire.name}' (Delay): the delay of channel {channel} is "
            f"{wire.detail[channel]:g} s, which is {exact[channel]:g} time steps of {dt:g} s; it "
            "must be an integer number of time steps",
            fix="choose a dt of which the delay is a multiple",
            node=wire.name,
            code="delay",
        )
    return tuple(int(step) for step in steps)


def needs_dt(population: Population) -> bool:
    """Return whether a step of the population depends on its length."""
    decays = (population.membrane_decay, population.synapse_decay)
    return population.membrane in ("exact", "euler", "relax") or any(
        decay is not None and decay.needs_dt for decay in decays
    )
