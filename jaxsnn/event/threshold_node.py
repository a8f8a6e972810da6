"""NIR's Threshold in continuous time: 1 while the voltage of a readout is above the threshold, or
an event whenever it comes there from below."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsnn.event.event_arrays import Seconds
from jaxsnn.event.event_record import Budget, EventRecord, Levels
from jaxsnn.event.forward.layer import LayerSpikes
from jaxsnn.event.forward.threshold_crossings import Crossings, Trace, Watched, crossings, trace
from jaxsnn.event.projections.sources import Sources, hand_on
from jaxsnn.event.threshold_feeds import Feed, feed_of
from jaxsnn.network.array_types import Array, Bool, Float, Int, Shaped
from jaxsnn.network.network import Network
from jaxsnn.network.reductions import greatest


class _Edges(NamedTuple):
    """What a Threshold hands on: its upward crossings, and of a level then its downward ones."""

    time: Float[Array, "batch neurons edges"]  # seconds, inf where unused
    count: Int[Array, "batch neurons"]  # how often it rose


class ThresholdPart:
    """A Threshold node behind the readout that feeds it."""

    def __init__(self, sources: Sources, name: str) -> None:
        wires = {wire.name: wire for wire in sources.network.wires}
        self.sources, self.name, self.engine = sources, name, sources.engine
        self.size = wires[name].size
        feed = feed_of(wires[name], wires)
        readout = sources.readouts[feed.readout or ""]
        self.given = readout.given
        #: the readout's neuron that each channel comes from
        self.place, scale = _through(feed, sources.network, self.size)
        back = np.argsort(self.place)
        scale, level = scale[back], sources.network.parameters[name]["threshold"][back]
        # It looks for s V > theta with V = V_inf + unit v: s unit v > theta - s V_inf.
        gain = scale if readout.unit is None else scale * readout.unit
        self.watched = Watched(
            drive=readout.drive,
            gain=self.given.lanes(gain),
            threshold=self.given.lanes(level - scale * readout.v_inf),
        )

    def run(self, record: EventRecord, t_end: Seconds) -> None:
        """Find out when it is high, write that into the record, and hand it on."""
        found = trace(self.watched, t_end)
        # V that is NaN is above no threshold, and would pass for one that never rises.
        record.numbers[self.name] = tuple(part[-1] for part in found.state)
        room = self.engine.of("max_spikes", self.name)
        as_level = self.name in self.sources.levels
        edges = self._levels(record, found) if as_level else self._events(record, found)
        budget = Budget(needed=greatest(edges.count), room=jnp.int32(room))
        record.budgets["max_spikes"][self.name] = budget
        # slot k of neuron n: channel n where it rises (k < room), size + n where it falls
        batch, _, slots = edges.time.shape
        channel = np.arange(self.size)[:, None] + self.size * (np.arange(slots) // room)
        channel = jnp.asarray(channel.reshape(-1), jnp.int32)
        recorded = jnp.sum(jnp.isfinite(edges.time), axis=2, dtype=jnp.int32)
        time = edges.time.reshape(batch, -1)
        hand_on(self.sources, record, self.name, time, channel, recorded)

    def _levels(self, record: EventRecord, found: Trace) -> _Edges:
        """Its rises and falls, written into the record."""
        room, above = self.engine.of("max_spikes", self.name), found.above.astype(jnp.int32)
        nth = jnp.arange(room, dtype=jnp.int32)[:, None, None]
        # Crossings, counted from 1, are rise, fall, rise, ...; of one that begins high fall, rise,
        # fall, ..., with rise 0 at time 0.
        rise, fall = 2 * nth + 1 - above, 2 * nth + 2 - above
        number = jnp.concatenate([rise, fall])
        upwards = jnp.arange(2 * room)[:, None, None] < room
        times = self._crossings(record, found, number, upwards).time
        count = self._neurons(_rises(found) + above)
        record.levels[self.name] = Levels(
            rise=times[..., :room], fall=times[..., room:], count=count
        )
        return _Edges(times, count)

    def _events(self, record: EventRecord, found: Trace) -> _Edges:
        """Its rises as spikes, written into the record."""
        room, above = self.engine.of("max_spikes", self.name), found.above.astype(jnp.int32)
        nth = jnp.arange(room, dtype=jnp.int32)[:, None, None]
        # Of one that begins high the first crossing is a fall: its rises are 2, 4, ...
        upwards = jnp.ones((1, 1, 1), bool)
        own = self._crossings(record, found, 2 * nth + 1 + above, upwards)
        count = self._neurons(_rises(found))
        record.spikes[self.name] = LayerSpikes(time=own.time, slope=own.slope, count=count)
        return _Edges(own.time, count)

    def _crossings(
        self,
        record: EventRecord,
        found: Trace,
        number: Int[Array, "crossings batch lanes"],
        upwards: Bool[Array, "#crossings #batch #lanes"],
    ) -> Crossings:
        """Crossings with arrays (batch, neurons, crossings), counted in the record where their
        gradient is not exact.

        Args:
            number: which of each lane's crossings, from 1; 0 is at time 0.
            upwards: whether V rises there.
        """
        engine = self.engine
        own = crossings(self.watched, found, number, upwards, engine.min_slope, engine.jump_width)
        record.clipped[self.name] = jnp.sum(own.clipped)
        record.degenerate[self.name] = jnp.sum(jnp.isinf(own.slope))
        return Crossings(*(self._neurons(jnp.moveaxis(array, 0, -1)) for array in own))

    def _neurons(
        self, lanes: Shaped[Array, "rows lanes ..."]
    ) -> Shaped[Array, "batch neurons ..."]:
        """Values of the readout's lanes (batch * positions, lanes, ...) as those of the channels."""
        return self.given.neurons(lanes)[:, self.place]


def _rises(found: Trace) -> Int[Array, "rows lanes"]:
    """How often each lane crosses the threshold upwards."""
    above = found.above.astype(jnp.int32)
    # every other crossing, the first one if it begins low
    return (found.count + 1 - above) // 2


class _Through(NamedTuple):
    """What Scale and Flatten nodes do on the way from a readout to a Threshold."""

    place: np.ndarray  # the readout's neuron that each channel comes from
    scale: Float[Array, "channels"]  # by how much its voltage is multiplied


def _through(feed: Feed, network: Network, size: int) -> _Through:
    """What the nodes on the way do, one after the other.

    Args:
        size: channels of the readout, and of each node.
    """
    wires = {wire.name: wire for wire in network.wires}
    place, scale = np.arange(size), jnp.ones(size, network.dtype)
    for wire in feed.through:
        if wire.kind == "Scale":
            scale = scale * network.parameters[wire.name]["scale"]
        elif wire.detail is not None:  # a Flatten that joins the axes in another order
            channels = np.arange(size).reshape(wires[wire.sources[0]].shape)
            order = channels.transpose(wire.detail).reshape(-1)
            place, scale = place[order], scale[order]
    return _Through(place, scale)
