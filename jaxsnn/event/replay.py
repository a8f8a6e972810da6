"""A network whose spikes were fired by another system, such as a chip: nothing is simulated.

The gradient is that of the event engine at the recorded times.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp

from jaxsnn.capabilities import unsupported
from jaxsnn.errors import LoweringError, listing, refuse
from jaxsnn.event.adjoint.layer_adjoint import clipped_slopes
from jaxsnn.event.adjoint.recorded_spikes import recorded_spikes
from jaxsnn.event.capabilities import EVENT
from jaxsnn.event.event_arrays import NeuronConstants, OfSpikes, Seconds
from jaxsnn.event.event_driven import sources_of
from jaxsnn.event.event_options import EventOptions
from jaxsnn.event.event_record import EventRecord, empty_record
from jaxsnn.event.forward.layer import LayerSpikes
from jaxsnn.event.native.native_limits import recorded_obstacles, runs_native
from jaxsnn.event.native.native_recorded import native_recorded_spikes
from jaxsnn.event.populations import ArrivalArrays, FeedForwardPart
from jaxsnn.event.projections.arrivals import Arrivals
from jaxsnn.event.projections.sources import Sources
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.cycles import Cycle, groups
from jaxsnn.network.features import StaticNetwork
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events
from jaxsnn.options import ENGINE
from jaxsnn.wording import Text

#: Population -> times (batch, neurons, spikes), inf where unused, and counts (batch, neurons).
Recorded = dict[str, tuple[OfSpikes, Int[Array, "batch neurons"]]]
_OTHER_ENGINE = Text("simulate with {engine}", engine=ENGINE.set_to("event"))


def replay(
    network: Network,
    inputs: dict[str, Events],
    t_end: Seconds,
    sample_times: Float[Array, "samples"],
    options: EventOptions,
    recorded: Recorded,
) -> EventRecord:
    """Simulate a batch with recorded spikes.

    Args:
        inputs, t_end, sample_times: see `jaxsnn.event.event_driven.simulate_events`.
        recorded: population -> times (batch, neurons, spikes), inf where unused, and counts (batch,
            neurons).

    Raises:
        LoweringError: the network is recurrent, has convolutions, or neurons whose V
            an arrival moves.
    """
    refuse(unsupported(StaticNetwork.of(network), EVENT))
    network, facts = network.with_known_facts()
    sources = sources_of(network, inputs, options, facts)
    # No spikes are simulated, but arrivals are computed: they carry the gradients of weights,
    # delays and times.
    record, end = empty_record(), jnp.asarray(t_end, network.dtype)
    # Sources come before their targets, so that the input spikes of a population exist.
    for part in groups(network.wires):
        if isinstance(part, Cycle):
            raise LoweringError(
                Text(
                    "nodes {nodes} form a cycle; in-the-loop simulation supports only "
                    "feed-forward networks",
                    nodes=listing(part.order),
                ),
                fix=_OTHER_ENGINE,
                node=part.order[0],
            )
        if part.kind == "neuron":
            _RecordedLayer(sources, part.name, recorded).run(record, end, sample_times)
    return record


class _RecordedLayer(FeedForwardPart):
    """Population with recorded spikes."""

    def __init__(self, sources: Sources, name: str, recorded: Recorded) -> None:
        super().__init__(sources, name)
        self.recorded = recorded
        # If an arrival moves V across the threshold, the spike time does not depend on V'.
        if self.population.fires and self.neuron.jumps:
            raise LoweringError(
                Text(
                    "node '{node}' ({kind}): input spikes act directly on the membrane potential, "
                    "so that gradients of recorded spike times are not defined",
                    node=name,
                    kind=self.population.kind,
                ),
                fix="use CubaLIF neurons, which in-the-loop simulation supports, or "
                + _OTHER_ENGINE,
                node=name,
            )

    def _spikes(
        self,
        record: EventRecord,
        arrivals: Arrivals,
        constants: NeuronConstants,
        arriving: ArrivalArrays,
        t_end: Seconds,
    ) -> tuple[LayerSpikes, None]:
        """Return the recorded spikes, differentiable."""
        del t_end
        # `recorded_spikes` takes one list of arrivals for all neurons of a sample.
        if arrivals.positions != 1:
            raise LoweringError(
                Text(
                    "node '{node}' receives its input through a convolution, a pool or synapses "
                    "with individual delays; in-the-loop simulation supports only dense layers "
                    "without such delays",
                    node=self.name,
                ),
                fix=_OTHER_ENGINE,
                node=self.name,
            )
        spec, (times, count) = self.spec(), self.recorded[self.name]
        time = arriving.time
        obstacles = recorded_obstacles(spec, self.engine, time.dtype.name, time.shape[0])
        simulate: Any = partial(recorded_spikes, spec)
        if runs_native(self.name, self.engine, obstacles):
            simulate = partial(native_recorded_spikes, spec, self.engine.threads)
        spikes = simulate(arriving.weight, constants, time, arriving.row, times, count)
        record.clipped[self.name] = clipped_slopes(spec, constants, spikes)
        return spikes, None
