"""What the parts of a network have in common, and what they hand on to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxsnn.event.event_options import EventOptions
from jaxsnn.event.event_record import Budget, EventRecord
from jaxsnn.event.forward.readout import Drive
from jaxsnn.event.native.native_limits import calls_kernels
from jaxsnn.event.native.native_places import native_places
from jaxsnn.event.projections.arrivals import Arrivals, Train
from jaxsnn.network.array_types import Array, Float, Int, Shaped
from jaxsnn.network.lookups import at_places
from jaxsnn.network.network import Network, Parameters
from jaxsnn.network.operators import Operator, one_lane
from jaxsnn.network.reductions import count_over_last, greatest
from jaxsnn.network.signals import Signal
from jaxsnn.network.sorting import first_times
from jaxsnn.network.structure import Wire
from jaxsnn.network.valued_inputs import Currents

#: Spikes of a population in one sample that others see at least, where they are gathered by
#: position.
_GATHERED = 4096


@dataclass(frozen=True, kw_only=True)
class Readout:
    """A population that does not fire, as a Threshold sees it.

    Attributes:
        drive: all that moves it. Where it has positions V is counted from rest, in units of `unit`.
        given: what arrives, which knows the positions.
        unit: (neurons,) volts, or None for volts.
        v_inf: (neurons,) V at rest.
    """

    drive: Drive
    given: Arrivals
    unit: Float[Array, "neurons"] | None
    v_inf: Float[Array, "neurons"]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What all parts of a network have in common.

    Attributes:
        arriving: population -> the signal that arrives there.
        trains: input, population or Threshold -> its events; populations and Thresholds add theirs.
            Of a level these are its rises and then, with channels counted on, its falls.
        currents: inputs that are currents; among the trains they have times and no events.
        gathered: populations and Thresholds whose events go through a convolution or a pool.
        readouts: population that does not fire -> what a Threshold sees of it; these add
            themselves.
        levels: Thresholds that are simulated as levels.
        given: parameters as they were given, where the network's are prepared: no matrix is turned.
        known: populations whose static facts about time constants hold for their numbers; those of
            others are guesses.
    """

    network: Network
    engine: EventOptions
    arriving: dict[str, Signal]
    trains: dict[str, Train]
    gathered: frozenset[str]
    readouts: dict[str, Readout] = field(default_factory=dict)
    levels: frozenset[str] = frozenset()
    currents: Mapping[str, Currents] = field(default_factory=dict)
    given: Parameters = field(default_factory=dict)
    known: frozenset[str] = frozenset()


def room_behind(sources: Sources, name: str, slots: int) -> int | None:
    """How many events of each sample of a part those behind it see; None: all slots."""
    room = sources.engine.of("max_events", name)
    # A convolution does work for each slot and tap, so that empty slots are cut off before it.
    if room is None and name in sources.gathered:
        size = next(wire.size for wire in sources.network.wires if wire.name == name)
        room = max(_GATHERED, 2 * size)
    # Where all slots fit, those behind sort them if they need to.
    return None if room is None or room >= slots else room


def hand_on(
    sources: Sources,
    record: EventRecord,
    name: str,
    time: Float[Array, "batch events"],
    channel: Int[Array, "events"],
    recorded: Int[Array, "batch neurons"],
) -> None:
    """Give the events of a part to those behind it.

    Args:
        time: seconds, inf in unused slots.
        channel: of each slot.
        recorded: how many of the slots of each neuron are used.
    """
    room = room_behind(sources, name, time.shape[1])
    if room is None:
        sources.trains[name] = Train(time, channel)
        return
    channel = jnp.broadcast_to(channel, time.shape)
    hand_on_first(sources, record, name, earliest(time, channel, room, sources.engine), recorded)


def hand_on_first(
    sources: Sources,
    record: EventRecord,
    name: str,
    train: Train,
    recorded: Int[Array, "batch neurons"],
) -> None:
    """Give the first events of a part to those behind it.

    Args:
        train: of as many events as `room_behind` says.
        recorded: as of `hand_on`.
    """
    sources.trains[name] = train
    needed = greatest(count_over_last(recorded))
    room = jnp.int32(train.time.shape[1])
    record.budgets["max_events"][name] = Budget(needed=needed, room=room)


def earliest(
    time: Float[Array, "batch events"],
    channel: Int[Array, "batch events"],
    room: int,
    options: EventOptions,
) -> Train:
    """The first `room` events of each sample in order."""
    # The order has no derivative; the gradient reaches the times through their places.
    still = lax.stop_gradient(time)
    if calls_kernels(time.dtype.name, time.shape[0], options):
        place = native_places(still, min(room, time.shape[1]), options.threads)
    else:
        place = first_times(still, room)
    return Train(at_places(time, place, 1), at_places(channel, place, 1), in_order=True)


def edges(operator: Operator, dtype: DTypeLike) -> Operator:
    """What levels do that pass an operator: twice the channels, rises first, and falls with
    opposite weights behind.
    """
    if operator.is_identity:
        wire = Wire(name="level", kind="Linear", sources=(), shape=(operator.size,))
        operator = one_lane(wire, operator, dtype)
    rows, count = operator.rows(dtype), operator.inward
    # Channel c rises as channel c and falls as channel count + c, whose row is the negative one.
    entries: dict[str, Any] = {}
    if operator.source is not None:
        source, position, row = operator.entries()
        entries = {
            "source": np.concatenate([source, source + count]),
            "position": np.tile(position, 2),
            "row": np.concatenate([row, row + rows.shape[0]]),
        }

    def twice(array: Shaped[Array, "n"] | None) -> Shaped[Array, "n"] | None:
        return None if array is None else jnp.concatenate([array, array])

    return replace(
        operator,
        **entries,
        inward=2 * count,
        weight=jnp.concatenate([rows, -rows]),
        delay=twice(operator.delay),
        row_delay=twice(operator.row_delay),
    )
