"""Spikes that something else fired, made differentiable: the adjoint of the event engine at
recorded times.

Nothing is simulated. The slope of V at a recorded spike is what the network's own equations give
there for arrivals at recorded times, V taken to be at its threshold.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.errors import LoweringError, refuse
from jaxsnn.event.adjoint.layer_adjoint import clipped_slopes, layer_backward
from jaxsnn.event.event_options import Event
from jaxsnn.event.event_record import EventRecord, empty_record
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes
from jaxsnn.event.limits import event_limits
from jaxsnn.event.populations import FeedForwardPart
from jaxsnn.event.projections.arrivals import Train
from jaxsnn.event.projections.driven_signals import arriving as arriving_signals
from jaxsnn.event.projections.sources import Sources
from jaxsnn.network.cycles import Cycle, groups
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events

Recorded = dict[str, tuple[jax.Array, jax.Array]]


def replay(
    network: Network,
    inputs: dict[str, Events],
    t_end,
    sample_times,
    engine: Event,
    recorded: Recorded,
) -> EventRecord:
    """A batch whose spikes are known.

    Args:
        inputs, t_end, sample_times: as in `jaxsnn.event.event_driven.run`.
        recorded: population -> times (batch, neurons, spikes), inf where unused, and counts (batch,
            neurons).

    Raises:
        LoweringError: the network is recurrent, has Thresholds or convolutions, or neurons whose V
            an arrival moves.
    """
    refuse(event_limits(network.wires, network.populations))
    trains = {name: Train(events.time, events.index) for name, events in inputs.items()}
    arriving = arriving_signals(network)
    sources = Sources(
        network=network, engine=engine, arriving=arriving, trains=trains, gathered=frozenset()
    )
    record, end = empty_record(), jnp.asarray(t_end, network.dtype)
    for part in groups(network.wires):
        if isinstance(part, Cycle):
            raise LoweringError(
                f"nodes {', '.join(part.order)} form a cycle: in the loop only feed-forward networks run, take "
                "the event engine"
            )
        if part.kind == "Threshold":
            raise LoweringError(f"node '{part.name}' is a Threshold: in the loop only neurons run")
        if part.kind == "neuron":
            _RecordedLayer(sources, part.name, recorded).run(record, end, sample_times)
    return record


class _RecordedLayer(FeedForwardPart):
    """A population whose spikes are known."""

    def __init__(self, sources: Sources, name: str, recorded: Recorded):
        super().__init__(sources, name)
        self.recorded = recorded
        if self.population.fires and self.neuron.jumps:
            raise LoweringError(
                f"node '{name}' ({self.population.kind}): arrivals move V itself, so that recorded spike times have no "
                "slope: in the loop CubaLIF neurons train, take those or another engine"
            )

    def _spikes(self, record, given, weight, lanes, time, row, t_end):
        if given.positions != 1:
            raise LoweringError(
                f"node '{self.name}' lies behind a convolution or a pool: not in the loop"
            )
        spec, (times, count) = self.spec(), self.recorded[self.name]
        spikes: Any = recorded_spikes(spec, weight, lanes, time, row, times, count)
        record.clipped[self.name] = clipped_slopes(spec, lanes, spikes)
        return spikes


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def recorded_spikes(spec: LayerSpec, weight, lanes: Any, time, row, times, count) -> LayerSpikes:
    """Recorded spikes of one population, differentiable as
    `jaxsnn.event.adjoint.layer_adjoint.layer_spikes` is.

    Args:
        weight, lanes, time, row: as there.
        times: (batch, neurons, spikes) recorded, seconds; inf where unused.
        count: (batch, neurons) how many there were.
    """
    slopes = jnp.where(jnp.isfinite(times), _slopes(spec, weight, lanes, time, row, times), 1.0)
    return LayerSpikes(time=times, slope=slopes, count=count)


def _slopes(spec, weight, lanes, time, row, times):
    """dV/dt at recorded spikes, (batch, neurons, spikes), one sample after the other."""
    neuron = spec.neuron
    wide = jax.tree.map(lambda array: array[:, None], lanes)
    row = jnp.where(jnp.isfinite(time), row, weight.shape[0])
    rest = jax.tree.map(jnp.zeros_like, neuron.begin(wide))

    def sample(inputs):
        arrival, row, spikes = inputs
        finite = jnp.where(jnp.isfinite(spikes), spikes, 0.0)
        weights = weight.at[row].get(mode="fill", fill_value=0.0)
        state = neuron.flow(neuron.decay(wide, finite), neuron.begin(wide))

        def add(state, arrival_and_weights):
            arrival, weights = arrival_and_weights
            gap = finite - arrival
            later = (gap > 0) & jnp.isfinite(gap)
            pulse = neuron.flow(
                neuron.decay(wide, jnp.where(later, gap, 0.0)),
                neuron.arrive(rest, weights[:, None]),
            )
            return jax.tree.map(
                lambda total, part: total + jnp.where(later, part, 0.0), state, pulse
            ), None

        state, _ = lax.scan(add, state, (arrival, weights))
        return neuron.slope(wide, state)

    return lax.map(sample, (time, jnp.broadcast_to(row, time.shape), times))


def _forward(spec, weight, lanes, time, row, times, count):
    spikes: Any = recorded_spikes(spec, weight, lanes, time, row, times, count)
    return spikes, (weight, lanes, time, row, spikes.time, spikes.slope, None)


def _backward(spec, residuals, cotangent):
    d_weight, d_lanes, d_time, _, _ = layer_backward(spec, residuals, cotangent)
    return d_weight, d_lanes, d_time, None, None, None


recorded_spikes.defvjp(_forward, _backward)
