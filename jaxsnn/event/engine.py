"""The event engine: a whole network, population by population, exact in continuous time."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxsnn.event.adjoint import clipped_slopes, layer_spikes
from jaxsnn.event.events import Events
from jaxsnn.event.feedforward import LayerSpec, LayerSpikes
from jaxsnn.event.kinds import neuron_of
from jaxsnn.event.readout import Drive, membrane
from jaxsnn.limits import event_limits, refuse
from jaxsnn.network import Network, signals


@dataclass(frozen=True, kw_only=True)
class Event:
    """Exact event-based simulation in continuous time.

    Attributes:
        max_spikes: spikes recorded of each neuron. A neuron that fires more often ends the run with a result code that
            says how many it takes; its spikes are never dropped in silence.
        first_spike_only: True, or the names of populations: neurons stop after their first spike. For a population that
            feeds no other it only leaves the later spikes out. For others it changes what the network does, and NIR
            cannot say it: other simulators of the exported file will not do it.
        min_slope: smallest slope of V at a spike that a gradient is divided by, as a fraction of
            (v_threshold - v_reset) / tau_mem. Near a tangential crossing exact gradients grow without bound;
            `Solution.clipped_slopes` counts the spikes that this touched.
    """

    max_spikes: int = 16
    first_spike_only: bool | tuple[str, ...] = False
    min_slope: float = 2**-20

    def stops(self, population):
        """Whether the neurons of a population stop after their first spike."""
        only = self.first_spike_only
        return only if isinstance(only, bool) else population in only


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class EventRecord:
    """What a run leaves, by NIR node name.

    Attributes:
        spikes: population -> `LayerSpikes`.
        voltages: readout -> (batch, samples, neurons).
        drives: population -> all that moves it, its own resets left out.
        clipped: population -> number of spikes whose slope a gradient clips.
        shapes_hold: population -> whether the time constants are what the network was lowered for.
    """

    spikes: dict[str, LayerSpikes]
    voltages: dict[str, jax.Array]
    drives: dict[str, Drive]
    clipped: dict[str, jax.Array]
    shapes_hold: dict[str, jax.Array]


def run(network: Network, inputs: dict[str, Events], t_end, sample_times, engine: Event) -> EventRecord:
    """Simulate a batch.

    Args:
        inputs: input name -> Events (batch, events).
        t_end: seconds.
        sample_times: (samples,) seconds, where readouts are sampled.

    Raises:
        LoweringError: the network has something that the engine does not run, or that nobody said.
    """
    refuse(event_limits(network.wires, network.populations))
    trains = {name: (events.time, events.index) for name, events in inputs.items()}
    record = EventRecord(spikes={}, voltages={}, drives={}, clipped={}, shapes_hold={})
    for name, signal in signals(network).items():
        population, parameters = network.populations[name], network.parameters[name]
        neuron = neuron_of(population)
        lanes = neuron.lanes(parameters, signal.constant)
        weight, time, row = _arrivals(signal, trains, population.size, lanes.threshold.dtype)
        weight = weight * neuron.arrival_factor(parameters)
        if neuron.width:
            weight, time, row = _boxes(weight, time, row, neuron.width)
        record.shapes_hold[name] = neuron.shape_holds(lanes)
        v_inf = neuron.v_inf(parameters, signal.constant)
        drive = Drive(neuron=neuron, lanes=lanes, v_inf=v_inf, weight=weight, time=time, row=row)
        record.drives[name] = drive
        if not population.fires:
            record.voltages[name] = membrane(drive, sample_times)
            continue
        once = engine.stops(name)
        spec = LayerSpec(
            neuron=neuron,
            max_spikes=1 if once else engine.max_spikes,
            once=once,
            min_slope=engine.min_slope,
        )
        spikes: Any = layer_spikes(spec, weight, lanes, time, row, t_end)
        record.spikes[name] = spikes
        record.clipped[name] = clipped_slopes(spec, lanes, spikes)
        slots = jnp.repeat(jnp.arange(population.size, dtype=jnp.int32), spec.max_spikes)
        trains[name] = (spikes.time.reshape(spikes.time.shape[0], -1), slots)
    return record


def _boxes(weight, time, row, width):
    """Box spikes as two arrivals each, one that opens and one that closes."""
    row = jnp.concatenate([row, row + weight.shape[0]], axis=-1)
    return jnp.concatenate([weight, -weight]), jnp.concatenate([time, time + width], axis=1), row


def _arrivals(signal, trains, size, dtype):
    """Everything that arrives at a population: one weight matrix, times (batch, arrivals), rows of that matrix."""
    weights, times, rows, offset = [], [], [], 0
    batch = next(iter(trains.values()))[0].shape[0]
    for source, matrix in signal.maps.items():
        weights.append(jnp.eye(size, dtype=dtype) if matrix is None else matrix)
        time, row = trains[source]
        times.append(time)
        rows.append(row + offset)
        offset += weights[-1].shape[0]
    if not weights:  # driven by its bias alone
        return jnp.zeros((1, size), dtype), jnp.full((batch, 1), jnp.inf, dtype), jnp.zeros(1, jnp.int32)
    if any(row.ndim > 1 for row in rows):
        rows = [jnp.broadcast_to(row, time.shape) for row, time in zip(rows, times, strict=True)]
    return jnp.concatenate(weights), jnp.concatenate(times, axis=1), jnp.concatenate(rows, axis=-1)
