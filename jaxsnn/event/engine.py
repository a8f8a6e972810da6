"""The event engine: a whole network, population by population, exact in continuous time."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxsnn.errors import LoweringError, listing
from jaxsnn.event.adjoint import clipped_slopes, layer_spikes
from jaxsnn.event.events import Events
from jaxsnn.event.feedforward import LayerSpec, LayerSpikes
from jaxsnn.event.neurons import NEURONS, neuron_of
from jaxsnn.event.readout import membrane
from jaxsnn.network import LINEAR, Network, Population, signals


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
        clipped: population -> number of spikes whose slope a gradient clips.
        shapes_hold: population -> whether the time constants are what the network was lowered for.
    """

    spikes: dict[str, LayerSpikes]
    voltages: dict[str, jax.Array]
    clipped: dict[str, jax.Array]
    shapes_hold: dict[str, jax.Array]


def run(network: Network, inputs: dict[str, Events], t_end, sample_times, engine: Event) -> EventRecord:
    """Simulate a batch.

    Args:
        inputs: input name -> Events (batch, events).
        t_end: seconds.
        sample_times: (samples,) seconds, where readouts are sampled.
    """
    refuse(network)
    trains = {name: (events.time, events.index) for name, events in inputs.items()}
    record = EventRecord(spikes={}, voltages={}, clipped={}, shapes_hold={})
    for name, signal in signals(network).items():
        population, parameters = network.populations[name], network.parameters[name]
        neuron = neuron_of(population)
        if signal.constant is not None and population.bias == "step":
            population.require("dt")
        lanes = neuron.lanes(parameters, signal.constant)
        weight, time, row = _arrivals(signal, trains, population.size, lanes.threshold.dtype)
        weight = weight * neuron.arrival_factor(parameters)
        if neuron.width:
            weight, time, row = _boxes(weight, time, row, neuron.width)
        record.shapes_hold[name] = neuron.shape_holds(lanes)
        if not population.fires:
            v_inf = neuron.v_inf(parameters, signal.constant)
            record.voltages[name] = membrane(neuron, weight, lanes, v_inf, time, row, sample_times)
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


def refuse(network: Network) -> None:
    """Refuse what the event engine does not run.

    Raises:
        LoweringError: names the node, the reason and the way out.
    """
    done: set[str] = set()
    for wire in network.wires:
        if not done.issuperset(wire.sources):
            late = next(source for source in wire.sources if source not in done)
            raise LoweringError(
                f"nodes '{late}' and '{wire.name}' form a cycle: the event engine runs feed-forward networks so far"
            )
        done.add(wire.name)
        if wire.kind not in ("input", "output", "neuron", *LINEAR):
            supported = listing((*NEURONS, *LINEAR))
            raise LoweringError(f"node '{wire.name}' is a {wire.kind}: the event engine runs {supported}")
    for population in network.populations.values():
        _refuse_population(population)


def _refuse_population(population: Population) -> None:
    where = f"node '{population.name}' ({population.kind})"
    if population.kind not in NEURONS:
        raise LoweringError(f"{where}: the event engine runs {listing((*NEURONS, *LINEAR))}")
    population.require("seconds", "spike_area", "initial", "tau_mem", "tau_syn")
    if population.fires:
        population.require("reset", "v_reset")
        if population.reset == "none":
            raise LoweringError(f"{where} has reset 'none': say --readout {population.name} if it is a leaky readout")
    population.require("spike_kernel", "tau")
    current_based = population.kind in ("CubaLIF", "CubaLI")
    if population.spike_kernel == "delta" and not current_based:
        raise LoweringError(
            f"{where}: under delta spikes it can only fire at an arrival, where its spike time has no gradient; not "
            f"supported so far: say --spike-kernel {population.name}:box"
        )
    if population.spike_kernel == "box" and not current_based:
        population.require("dt")
    elif population.spike_kernel == "box":
        raise LoweringError(f"{where}: no box spikes here so far: say --spike-kernel {population.name}:delta")


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
