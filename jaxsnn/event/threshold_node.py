"""NIR's Threshold in continuous time: 1 while the voltage of a readout is above the threshold, or
an event whenever it comes there from below."""

import jax.numpy as jnp
import numpy as np

from jaxsnn.event.event_record import Budget, EventRecord, Levels
from jaxsnn.event.forward.layer import LayerSpikes
from jaxsnn.event.forward.threshold_crossings import Crossings, Watched, crossings, trace
from jaxsnn.event.projections.sources import Sources, hand_on
from jaxsnn.event.threshold_feeds import Feed, feed_of
from jaxsnn.network.network import Network


class ThresholdPart:
    """A Threshold node behind the readout that feeds it."""

    def __init__(self, sources: Sources, name: str):
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
        gain = scale if readout.unit is None else scale * readout.unit
        self.watched = Watched(
            drive=readout.drive,
            gain=self.given.lanes(gain),
            threshold=self.given.lanes(level - scale * readout.v_inf),
        )

    def run(self, record: EventRecord, t_end) -> None:
        """Find out when it is high, write that into the record, and hand it on."""
        found = trace(self.watched, t_end)
        room, above = self.engine.of("max_spikes", self.name), found.above.astype(jnp.int32)
        rises = (
            found.count + 1 - above
        ) // 2  # crossings of one that begins high are fall, rise, fall, ...
        nth = jnp.arange(room, dtype=jnp.int32)[:, None, None]
        if self.name in self.sources.levels:
            rise, fall = 2 * nth + 1 - above, 2 * nth + 2 - above
            number, upwards = (
                jnp.concatenate([rise, fall]),
                jnp.arange(2 * room)[:, None, None] < room,
            )
            times, count = (
                self._crossings(record, found, number, upwards).time,
                self._neurons(rises + above),
            )
            record.levels[self.name] = Levels(
                rise=times[..., :room], fall=times[..., room:], count=count
            )
        else:
            own = self._crossings(record, found, 2 * nth + 1 + above, jnp.ones((1, 1, 1), bool))
            times, count = own.time, self._neurons(rises)
            record.spikes[self.name] = LayerSpikes(time=own.time, slope=own.slope, count=count)
        record.budgets["max_spikes"][self.name] = Budget(
            needed=jnp.max(count), room=jnp.int32(room)
        )
        channel = np.arange(self.size)[:, None] + self.size * (np.arange(times.shape[2]) // room)
        batch = times.shape[0]
        hand_on(
            self.sources,
            record,
            self.name,
            times.reshape(batch, -1),
            jnp.asarray(channel.reshape(-1), jnp.int32),
        )

    def _crossings(self, record, found, number, upwards) -> Crossings:
        """Crossings with arrays (batch, neurons, crossings), counted in the record where their
        gradient is not exact.
        """
        engine = self.engine
        own = crossings(self.watched, found, number, upwards, engine.min_slope, engine.jump_width)
        record.clipped[self.name] = jnp.sum(own.clipped)
        record.degenerate[self.name] = jnp.sum(jnp.isinf(own.slope))
        return Crossings(*(self._neurons(jnp.moveaxis(array, 0, -1)) for array in own))

    def _neurons(self, lanes):
        """Values of the readout's lanes (batch, ...) as those of the channels."""
        return self.given.neurons(lanes)[:, self.place]


def _through(feed: Feed, network: Network, size):
    """The readout's neuron that each channel comes from, and by how much its voltage is scaled on
    the way.
    """
    wires = {wire.name: wire for wire in network.wires}
    place, scale = np.arange(size), jnp.ones(size, network.dtype)
    for wire in feed.through:
        if wire.kind == "Scale":
            scale = scale * network.parameters[wire.name]["scale"]
        elif wire.detail is not None:  # a Flatten that joins the axes in another order
            order = (
                np.arange(size)
                .reshape(wires[wire.sources[0]].shape)
                .transpose(wire.detail)
                .reshape(-1)
            )
            place, scale = place[order], scale[order]
    return place, scale
