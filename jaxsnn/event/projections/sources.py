"""Interface between the parts of a network: the events that one part sends to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jax import lax

from jaxsnn.event.event_options import EventOptions
from jaxsnn.event.native.native_limits import calls_kernels
from jaxsnn.event.native.native_places import native_places
from jaxsnn.event.projections.arrivals import Train
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.lookups import gather_along
from jaxsnn.network.network import Network, Parameters
from jaxsnn.network.signals import Signal
from jaxsnn.network.sorting import first_times
from jaxsnn.network.valued_inputs import Currents

#: Minimum capacity for the spikes of a population in a sample when they are gathered by position.
_GATHERED = 4096


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Data shared by all parts of a network.

    Attributes:
        arriving: population -> the signal that arrives there.
        trains: input or population -> its events; populations add theirs.
        currents: inputs that are currents; among the trains they have times and no events.
        gathered: populations whose events go through a convolution or a pool.
        network_parameters: parameters of the original network, without transposed matrices.
        with_static_facts: populations whose static facts about time constants hold for their numbers; those of
            others are guesses.
    """

    network: Network
    engine: EventOptions
    arriving: dict[str, Signal]
    trains: dict[str, Train]
    gathered: frozenset[str]
    currents: Mapping[str, Currents] = field(default_factory=dict)
    network_parameters: Parameters = field(default_factory=dict)
    with_static_facts: frozenset[str] = frozenset()


def room_behind(sources: Sources, name: str, slots: int) -> int | None:
    """Return the number of events of each sample that postsynaptic populations receive from a
    population; None: all slots.
    """
    room = sources.engine.of("max_events", name)
    # The cost of a convolution grows with slots times taps: cut off empty slots before it.
    if room is None and name in sources.gathered:
        room = max(_GATHERED, 2 * sources.network.populations[name].size)
    # If all slots fit, postsynaptic populations sort them if necessary.
    return None if room is None or room >= slots else room


def earliest(
    time: Float[Array, "batch events"],
    channel: Int[Array, "batch events"],
    room: int,
    options: EventOptions,
) -> Train:
    """Return the first `room` events of each sample in order."""
    # Sorting has no derivative: the gradient reaches the times through `gather_along`.
    still = lax.stop_gradient(time)
    if calls_kernels(time.dtype.name, time.shape[0], options):
        place = native_places(still, min(room, time.shape[1]), options.threads)
    else:
        place = first_times(still, room)
    return Train(gather_along(time, place, 1), gather_along(channel, place, 1), in_order=True)
