"""What a simulation with the event engine leaves."""

from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array, Float, Int

from jaxsnn.event.forward.layer import LayerSpikes
from jaxsnn.event.forward.readout import Drive


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much of something a run took and how much there was room for, scalars."""

    needed: jax.Array
    room: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Levels:
    """When a Threshold is high; arrays (batch, neurons, max_spikes), but count (batch, neurons).

    Attributes:
        rise: seconds, rising along the last axis; 0 where it is high from the beginning, inf in
            unused slots.
        fall: seconds, the end of what began at the same place in `rise`; inf where it is still high
            at the end.
        count: how often it rose, which may exceed what is recorded.
    """

    rise: Float[Array, "batch neurons rises"]
    fall: Float[Array, "batch neurons rises"]
    count: Int[Array, "batch neurons"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class EventRecord:
    """What a run leaves, by NIR node name.

    Attributes:
        spikes: population, or Threshold that is played as events -> `LayerSpikes`.
        levels: Threshold that is played as a level -> `Levels`.
        voltages: readout -> (batch, samples, neurons).
        drives: population -> all that moves it, its own resets left out; not behind a convolution
            or a pool.
        clipped: population or Threshold -> number of spikes or passages whose slope a gradient
            clips.
        degenerate: population or Threshold -> number of those at the very time of an arrival that
            moved V.
        voltage_taus: population that voltages drive -> the smallest and the largest tau of these,
            (2,) seconds.
        numbers: population -> weights of what arrives there and sums of its neurons' numbers; all
            must be finite.
        budgets: option of `Event` -> population -> `Budget`.
    """

    spikes: dict[str, LayerSpikes]
    levels: dict[str, Levels]
    voltages: dict[str, jax.Array]
    drives: dict[str, Drive]
    clipped: dict[str, jax.Array]
    degenerate: dict[str, jax.Array]
    voltage_taus: dict[str, jax.Array]
    numbers: dict[str, Any]
    budgets: dict[str, dict[str, Budget]]


def empty_record() -> EventRecord:
    """A record to be written into while a network runs."""
    budgets = {"max_spikes": {}, "max_events": {}, "max_arrivals": {}}
    return EventRecord(
        spikes={},
        levels={},
        voltages={},
        drives={},
        clipped={},
        degenerate={},
        voltage_taus={},
        numbers={},
        budgets=budgets,
    )
