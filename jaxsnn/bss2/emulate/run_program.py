"""Simulation of the runs of a mapping by the event engine, with voltages in LSB of the chip and times
in seconds of the file.

Populations are simulated one after the other, recurrently connected ones together. `transport`
delays and drops events between populations, and to and from the host. Everything can be traced: by
`jax.jit`, and inside a training step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.bss2.emulate.connections import (
    LOWEST_THRESHOLD,
    HostEvents,
    Neurons,
    Program,
    RunWiring,
)
from jaxsnn.bss2.emulate.transport import jittered, queued, serialised
from jaxsnn.event.event_driven import simulate_events
from jaxsnn.event.event_options import EventOptions
from jaxsnn.event.forward.layer import LayerSpikes
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.cycles import Cycle, groups
from jaxsnn.network.network import Network
from jaxsnn.network.sorting import sorted_times
from jaxsnn.network.spikes import Events
from jaxsnn.network.structure import Population, Wire

#: (source, target) -> weights in LSB, (neurons of the source, neurons of the target).
Weights = Mapping[tuple[str, str], Any]


#: Maximum shift of a spike by membrane noise, as a fraction of tau_syn.
FURTHEST_SHIFT = 0.5
#: Locations at which spikes are lost while a program runs.
LOST = ("outputs", "links", "unrecorded", "late_inputs")


class Recorded(NamedTuple):
    """Recordings of the host, by population.

    Attributes:
        time: (batch, neurons, spikes) seconds of the file, ascending, inf in unused slots.
        count: (batch, neurons) number of emitted spikes, including those that were lost or found no
            slot.
        voltages: (batch, samples, neurons) CADC LSB, by readout.
        lost: Scalars by location: spikes lost at the event outputs of the neurons, at the links to
            the host, and because the mapping does not record their neurons; input events that the
            host sends only at or after the end.
        late: Scalar, largest delay of an event from the host, seconds of the file.
    """

    time: dict[str, jax.Array]
    count: dict[str, jax.Array]
    voltages: dict[str, jax.Array]
    lost: dict[str, jax.Array]
    late: jax.Array


def execute(
    program: Program,
    weights: Weights,
    inputs: Mapping[str, Events],
    t_end: Any,
    sample_times: Any,
    key: jax.Array,
    options: EventOptions,
) -> Recorded:
    """Execute all runs of a program.

    Args:
        inputs: Events (batch, events) by external population, seconds of the file.
        t_end: Duration of a sample, seconds of the file.
        sample_times: (samples,) sample times of readouts, seconds of the file.
        key: Random key of the noise of the trial.
        options: Capacity for the spikes of each neuron, and the neurons that stop after their first
            spike.
    """
    dtype = _dtype_of(weights)
    options = replace(options, refractory=program.refractory_time * program.speedup).hashable()
    zero = jnp.zeros((), dtype)
    recorded = Recorded(time={}, count={}, voltages={}, lost=dict.fromkeys(LOST, zero), late=zero)
    for number, wiring in enumerate(program.runs):
        own_key = jax.random.fold_in(key, number)
        once = _Run(program, wiring, weights, inputs, recorded, own_key, t_end)
        recorded = once.all(sample_times, options)
    return recorded


def late_inputs(program: Program, inputs: Mapping[str, Events], t_end: Any) -> jax.Array:
    """Return the number of input events, a scalar, that the host sends only at or after the end,
    because it sends one event per cycle; replayed spikes, which increase the delay, are not
    counted.

    Args:
        inputs, t_end: See `execute`.
    """
    zero = jnp.zeros((), jnp.int32)
    seen = Recorded(time={}, count={}, voltages={}, lost=dict.fromkeys(LOST, zero), late=zero)
    for wiring in program.runs:
        sent = replace(
            wiring,
            host=tuple(host_events for host_events in wiring.host if host_events.source in inputs),
        )
        seen = _Run(program, sent, {}, inputs, seen, jax.random.key(0), t_end).recorded
    return seen.lost["late_inputs"]


def _dtype_of(weights: Any) -> Any:
    """Return the type of the weights, or the default if there are no synapses."""
    return jnp.result_type(*jax.tree.leaves(weights) or [float])


class _Run:
    """State of one run: its events, and the recordings so far."""

    def __init__(
        self,
        program: Program,
        wiring: RunWiring,
        weights: Weights,
        inputs: Mapping[str, Events],
        recorded: Recorded,
        key: jax.Array,
        t_end: Any,
    ):
        self.program, self.wiring, self.weights, self.key = program, wiring, weights, key
        self.t_end = t_end
        self.recorded, self.batch = recorded, next(iter(inputs.values())).time.shape[0]
        self.cycle = program.layout.clock_period * program.speedup
        self.dtype = _dtype_of(weights)
        self.trains = self._from_host(inputs)

    def all(self, sample_times: Any, options: EventOptions) -> Recorded:
        """Run the populations in order, and return all recordings."""
        for number, population_names in enumerate(self._order()):
            network = self._network(population_names, jax.random.fold_in(self.key, 2 * number))
            inputs = {name: self.trains[name] for name in network.inputs}
            record = simulate_events(network, inputs, self.t_end, sample_times, options)
            for neuron_group in (
                neuron_group
                for neuron_group in self.wiring.neurons
                if neuron_group.name in population_names
            ):
                if neuron_group.fires:
                    spikes = record.spikes[neuron_group.name]
                    self._fired(neuron_group, spikes, jax.random.fold_in(self.key, 2 * number + 1))
                else:
                    self._sampled(neuron_group, record.voltages[neuron_group.name])
        return self.recorded

    def _order(self) -> list[tuple[str, ...]]:
        """Return the groups of populations that run together, sources before targets."""
        inside = [part.name for part in self.wiring.neurons]
        feeds = [
            (part.source, part.target) for part in self.wiring.projections if not part.from_host
        ]
        wires = [
            Wire(
                name=name,
                kind="neuron",
                sources=tuple(source for source, target in feeds if target == name),
                shape=(1,),
            )
            for name in inside
        ]
        return [part.order if isinstance(part, Cycle) else (part.name,) for part in groups(wires)]

    # -- incoming events
    def _from_host(self, inputs: Mapping[str, Events]) -> dict[str, Events]:
        """Return all events from the host, in one stream."""
        sent = {_entry(part.source, True): self._sent(part, inputs) for part in self.wiring.host}
        if not self.program.chip.ideal and sent:
            requested = jnp.concatenate([events.time for events in sent.values()], axis=1)
            served = serialised(requested, self.cycle)
            late = jnp.max(jnp.where(jnp.isfinite(requested), served - requested, 0.0), initial=0.0)
            lost, behind = self.recorded.lost, (requested < self.t_end) & (served >= self.t_end)
            self.recorded = self.recorded._replace(
                late=jnp.maximum(self.recorded.late, late),
                lost={**lost, "late_inputs": lost["late_inputs"] + jnp.sum(behind)},
            )
            ends = np.cumsum([events.time.shape[1] for events in sent.values()])[:-1]
            times = jnp.split(served, ends.tolist(), axis=1)
            sent = {
                name: Events(time=time, index=events.index)
                for (name, events), time in zip(sent.items(), times, strict=True)
            }
        return sent

    def _sent(self, part: HostEvents, inputs: Mapping[str, Events]) -> Events:
        """Return the events that represent the spikes of one population."""
        size = self.program.sizes[part.source]
        if part.source in inputs:
            time, index = inputs[part.source].time, inputs[part.source].index
        else:
            times = self.recorded.time[part.source]
            time = times.reshape(len(times), -1)
            if self.program.chip.several and not self.program.chip.ideal:
                time = time + self.program.chip.between_chips * self.program.speedup
            index = jnp.broadcast_to(jnp.repeat(jnp.arange(size), times.shape[2]), time.shape)
        table = np.concatenate([part.channels, np.full((1, part.channels.shape[1]), -1)])
        channel = jnp.asarray(table, jnp.int32)[jnp.minimum(index, size)]
        time = jnp.where(channel >= 0, time[..., None], jnp.inf).astype(self.dtype)
        channel = jnp.where(channel >= 0, channel, len(part.sender))
        return Events(time=time.reshape(len(time), -1), index=channel.reshape(len(time), -1))

    # -- the network
    def _network(self, population_names: tuple[str, ...], key: jax.Array) -> Network:
        """Return the network of some populations with inputs, in LSB and the file's seconds."""
        wires, parameters = [], {}
        populations: dict[str, Population] = {}
        members = [
            neuron_group
            for neuron_group in self.wiring.neurons
            if neuron_group.name in population_names
        ]
        for number, neuron_group in enumerate(members):
            fed = list(self._projections(neuron_group, population_names, wires, parameters))
            wires.append(
                Wire(
                    name=neuron_group.name,
                    kind="neuron",
                    sources=tuple(fed),
                    shape=(len(neuron_group.index),),
                )
            )
            parameters[neuron_group.name] = self._parameters(neuron_group)
            assert neuron_group.population is not None
            populations[neuron_group.name] = neuron_group.population
            if neuron_group.fires and not self.program.chip.ideal:
                noisy = self._trial(neuron_group, jax.random.fold_in(key, number))
                parameters[neuron_group.name] = {
                    **parameters[neuron_group.name],
                    "v_threshold": noisy,
                }
        inputs = [wire for wire in wires if wire.kind == "input"]
        if not inputs:
            inputs = [Wire(name=_NOTHING, kind="input", sources=(), shape=(1,))]
            self.trains[_NOTHING] = self._nothing()
        entries = [wire.name for wire in inputs]
        outside = [wire for wire in wires if set(entries) & set(wire.sources)]
        inside = [
            wire for wire in wires if wire.kind != "input" and wire not in outside
        ]  # last, so that the wires of a cycle are contiguous
        return Network(
            parameters=parameters, wires=(*inputs, *outside, *inside), populations=populations
        )

    def _projections(
        self,
        neuron_group: Neurons,
        population_names: tuple[str, ...],
        wires: list[Wire],
        parameters: dict[str, Any],
    ) -> Iterator[str]:
        """Add the inputs of a population, and yield the names of the nodes that feed it."""
        for part in self.wiring.projections:
            if part.target != neuron_group.name:
                continue
            entry = (
                part.source
                if part.source in population_names and not part.from_host
                else _entry(part.source, part.from_host)
            )
            name = f"{entry}>{neuron_group.name}"
            rounded = self.weights[part.source, part.target][part.sender][:, neuron_group.index]
            excite, inhibit = (
                jnp.asarray(gain, self.dtype) for gain in (part.excite, part.inhibit)
            )
            weight = (rounded * jnp.where(rounded > 0, excite, inhibit)).T  # (neurons, channels)
            if entry not in population_names and entry not in [wire.name for wire in wires]:
                wires.append(Wire(name=entry, kind="input", sources=(), shape=(weight.shape[1],)))
            wires.append(Wire(name=name, kind="Linear", sources=(entry,), shape=(weight.shape[0],)))
            parameters[name] = {"weight": weight}
            yield name

    def _parameters(self, neuron_group: Neurons) -> dict[str, Any]:
        """Return the parameters of CubaLIF neurons whose current jumps by the weight: dV/dt changes
        by r / tau_mem for each LSB.
        """
        seconds = self.program.speedup
        values = {
            "tau_mem": neuron_group.tau_mem * seconds,
            "tau_syn": neuron_group.tau_syn * seconds,
            "r": self.program.slope * neuron_group.tau_mem / neuron_group.capacitance,
            "w_in": jnp.ones(len(neuron_group.index)),
            "v_leak": neuron_group.v_leak,
        }
        if neuron_group.fires:
            values |= {"v_threshold": neuron_group.v_threshold, "v_reset": neuron_group.v_reset}
        return {name: jnp.asarray(value, self.dtype) for name, value in values.items()}

    def _trial(self, neuron_group: Neurons, key: jax.Array) -> Float[Array, "neurons"]:
        """Return the thresholds of this trial."""
        noise = jax.random.truncated_normal(key, -3.0, 3.0, (len(neuron_group.index),), self.dtype)
        v_threshold, v_reset = (
            jnp.asarray(values, self.dtype)
            for values in (neuron_group.v_threshold, neuron_group.v_reset)
        )
        trial = self.program.chip.spread.v_threshold_trial * noise
        return jnp.maximum(v_threshold + trial, v_reset + LOWEST_THRESHOLD)

    def _nothing(self) -> Events:
        shape = (self.batch, 1)
        return Events(time=jnp.full(shape, jnp.inf, self.dtype), index=jnp.ones(shape, jnp.int32))

    # -- outgoing spikes
    def _fired(
        self,
        neuron_group: Neurons,
        spikes: LayerSpikes,
        key: jax.Array,
    ) -> None:
        """Send spikes to other neurons of the run, and to the host."""
        time, count = spikes.time, spikes.count
        recorded, lost = time, self.recorded.lost
        if not self.program.chip.ideal:
            chip, layout = self.program.chip, self.program.layout
            key = jax.random.fold_in(key, _number(self.wiring, neuron_group.name))
            time = jittered(
                time, chip.spread.jitter * neuron_group.tau_syn * self.program.speedup, key
            )
            time = self._noisy(neuron_group, time, spikes.slope, jax.random.fold_in(key, 1))
            time, at_outputs = queued(time, neuron_group.output, self.cycle, chip.queue)
            recorded, at_links = queued(
                time, neuron_group.output % layout.buses, self.cycle, chip.queue
            )
            recorded, _ = sorted_times(recorded)
            lost = {
                **lost,
                "outputs": lost["outputs"] + at_outputs,
                "links": lost["links"] + at_links,
            }
        unseen = jnp.asarray(~neuron_group.recorded)[None, :, None] & jnp.isfinite(recorded)
        recorded = jnp.where(unseen, jnp.inf, recorded)
        lost = {**lost, "unrecorded": lost["unrecorded"] + jnp.sum(unseen)}
        batch, neurons, slots = time.shape
        index = jnp.repeat(jnp.arange(neurons, dtype=jnp.int32), slots)
        flat = time.reshape(batch, -1)
        self.trains[_entry(neuron_group.name, False)] = Events(
            time=flat, index=jnp.broadcast_to(index, flat.shape)
        )
        size, seen = self.program.sizes[neuron_group.name], self.recorded
        times, counts = seen.time.get(neuron_group.name), seen.count.get(neuron_group.name)
        # No neurons of this population have been recorded yet.
        if times is None or counts is None:
            times = jnp.full((batch, size, slots), jnp.inf, self.dtype)
            counts = jnp.zeros((batch, size), jnp.int32)
        times, counts = (
            times.at[:, neuron_group.index].set(recorded),
            counts.at[:, neuron_group.index].set(count),
        )
        self.recorded = seen._replace(
            time={**seen.time, neuron_group.name: times},
            count={**seen.count, neuron_group.name: counts},
            lost=lost,
        )

    def _noisy(
        self,
        neuron_group: Neurons,
        time: Float[Array, "batch neurons spikes"],
        slope: Float[Array, "batch neurons spikes"],
        key: jax.Array,
    ) -> Float[Array, "batch neurons spikes"]:
        """Return spikes delayed by the chip's latency, and shifted by the membrane's noise over its
        slope.
        """
        spread, seconds = self.program.chip.spread, self.program.speedup
        if not spread.v_noise and not spread.latency:
            return time
        noise = spread.v_noise * jax.random.normal(key, time.shape, self.dtype)
        most = jnp.asarray(FURTHEST_SHIFT * neuron_group.tau_syn * seconds, self.dtype)[:, None]
        steep = jnp.isfinite(time) & (slope > 0)
        shift = jnp.clip(noise / jnp.where(steep, slope, 1.0), -most, most)
        late = jnp.where(steep, shift, 0.0) + spread.latency * seconds
        return jnp.maximum(time + late, 0.0)

    def _sampled(
        self, neuron_group: Neurons, voltages: Float[Array, "batch samples neurons"]
    ) -> None:
        """Record voltages of some neurons of a readout, beside those of its other neurons."""
        batch, samples, _ = voltages.shape
        every = self.recorded.voltages.get(neuron_group.name)
        if every is None:
            every = jnp.zeros(
                (batch, samples, self.program.sizes[neuron_group.name]), voltages.dtype
            )
        every = every.at[:, :, neuron_group.index].set(voltages)
        self.recorded = self.recorded._replace(
            voltages={**self.recorded.voltages, neuron_group.name: every}
        )


_NOTHING = "nothing arrives"


def _entry(source: str, from_host: bool) -> str:
    """Return the name of the unprocessed train of a population's events."""
    return f"{'host' if from_host else 'chip'}: {source}"


def _number(wiring: RunWiring, name: str) -> int:
    return [neuron_group.name for neuron_group in wiring.neurons].index(name)
