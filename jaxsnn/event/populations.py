"""Populations as parts of a network: what arrives at them, what they do, what others see of it."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxsnn.errors import LoweringError
from jaxsnn.event.adjoint.layer_adjoint import clipped_slopes, layer_spikes
from jaxsnn.event.adjoint.recurrent_adjoint import group_spikes, group_spikes_forward
from jaxsnn.event.adjoint.tangents import layer_spikes_forward
from jaxsnn.event.dynamics.kinds import neuron_of
from jaxsnn.event.event_record import Budget
from jaxsnn.event.forward.group import GroupSpec
from jaxsnn.event.forward.layer import LayerSpec
from jaxsnn.event.forward.readout import Drive, membrane
from jaxsnn.event.projections.arrivals import Arrivals, Train, arrivals
from jaxsnn.event.projections.driven_signals import driven_parameters, tau_range
from jaxsnn.event.projections.sources import Readout, Sources, earliest, edges, hand_on
from jaxsnn.network.operators import added, as_matrix, through
from jaxsnn.network.structure import Wire


class _Part:
    """One population by itself."""

    def __init__(self, sources: Sources, name: str):
        self.sources, self.engine, self.name = sources, sources.engine, name
        self.population, self.parameters = (
            sources.network.populations[name],
            sources.network.parameters[name],
        )
        self.signal = sources.arriving[name]
        levels = [source in sources.levels for source, _ in self.signal.paths]
        #: a level is among what arrives: everything is then simulated as boxes that have two edges;
        #: spikes are, too
        self.leveled, self.mixed = any(levels), any(levels) and not all(levels)
        # without spikes it does not matter what spikes would be
        simulated_as = (
            replace(self.population, spike_kernel="box") if self.leveled else self.population
        )
        self.neuron = neuron_of(simulated_as)
        if name not in sources.known:
            self.neuron = self.neuron.guessed()
        if not (self.population.fires or self.neuron.certain):
            self.neuron = self.neuron.unassuming()
        if self.population.chain is not None:
            self.parameters = self.parameters | driven_parameters(
                sources.network, self.population, self.signal
            )
        arrives = (
            self.neuron.current_factor
            if self.leveled and not self.mixed
            else self.neuron.arrival_factor
        )
        self.scale = arrives(self.parameters)

    def spec(self, in_order=False):
        """Static description of its scan."""
        once = self.engine.stops(self.name)
        return LayerSpec(
            neuron=self.neuron,
            max_spikes=1 if once else self.engine.of("max_spikes", self.name),
            once=once,
            min_slope=self.engine.min_slope,
            refractory=0.0 if once else self.engine.of("refractory", self.name),
            jump_width=self.engine.jump_width,
            in_order=in_order and not self.neuron.width,
        )

    def lanes(self):
        """Its neurons."""
        return self.neuron.lanes(self.parameters, self.signal.constant)

    def arrivals(self, paths) -> Arrivals:
        """What arrives through some of its paths."""
        room, trains = self.engine.of("max_arrivals", self.name), self.sources.trains
        if self.leveled:
            paths, trains = self._edges(paths)
        return arrivals(paths, trains, self.population.size, self.sources.network.dtype, room)

    def _edges(self, paths):
        """Paths and trains in which every box, level or spike, is one event that opens it and one
        that closes it.
        """
        dtype, trains = self.sources.network.dtype, dict(self.sources.trains)
        found = []
        for source, operator in paths:
            if source in self.sources.levels:
                operator = self._in_units(operator) if self.mixed else operator
            else:
                time, channel, _ = self.sources.trains[source]
                time = jnp.concatenate([time, time + self.neuron.width], axis=1)
                trains[source] = Train(
                    time, jnp.concatenate([channel, channel + operator.inward], axis=-1)
                )
            found.append((source, edges(operator, dtype)))
        return found, trains

    def _in_units(self, operator):
        """The operator of a level among spikes: its current in units of that of a box spike of
        weight 1.
        """
        ratio, dtype = self.neuron.level_weight(self.parameters), self.sources.network.dtype
        if isinstance(ratio, float):  # one number for all neurons
            return replace(operator, weight=ratio * operator.rows(dtype))
        scale = Wire(name=self.name, kind="Scale", sources=(), shape=(self.population.size,))
        return through(scale, (operator.size,), {"scale": ratio}, operator, dtype)

    def boxes(self, weight, time, row):
        """Arrivals as they are, or, where spikes are boxes, one that opens and one that closes for
        each.
        """
        if self.leveled or not self.neuron.width:
            return weight, time, row
        row = jnp.concatenate([row, row + weight.shape[0]], axis=-1)
        time = jnp.concatenate([time, time + self.neuron.width], axis=1)
        return jnp.concatenate([weight, -weight]), time, row

    def write_down(self, record, spikes):
        """Write down its spikes."""
        name = self.name
        record.spikes[name] = spikes
        record.heights[name] = self.neuron.height(self.parameters)
        record.degenerate[name] = jnp.sum(jnp.isinf(spikes.slope))
        record.budgets["max_spikes"][name] = Budget(
            needed=jnp.max(spikes.count), room=jnp.int32(self.engine.of("max_spikes", name))
        )


class FeedForwardPart(_Part):
    """A population that does not feed back into itself."""

    def run(self, record, t_end, sample_times):
        """Simulate it, and write what happened into the record and the trains."""
        given = self.arrivals(self.signal.paths)
        weight, lanes, time, row = self._weighted(given)
        record.numbers[self.name] = weight, sum(jax.tree.leaves(lanes))
        if (taus := tau_range(self.sources.network, self.population)) is not None:
            record.voltage_taus[self.name] = taus
        if given.budget:
            record.budgets["max_arrivals"][self.name] = Budget(
                needed=given.needed, room=jnp.int32(given.budget)
            )
        v_inf = self.neuron.v_inf(self.parameters, self.signal.constant)
        neuron = self.neuron if self.neuron.certain else self.neuron.unassuming()
        drive = Drive(neuron=neuron, lanes=lanes, v_inf=v_inf, weight=weight, time=time, row=row)
        if given.positions == 1:
            record.drives[self.name] = drive
        if not self.population.fires:
            unit = None if given.positions == 1 else self.scale
            self.sources.readouts[self.name] = Readout(
                drive=drive, given=given, unit=unit, v_inf=v_inf
            )
        if self.population.fires:
            spikes = self._spikes(record, given, weight, lanes, time, row, t_end)
            self.write_down(record, spikes)
            channel = jnp.repeat(
                jnp.arange(self.population.size, dtype=jnp.int32), spikes.time.shape[2]
            )
            hand_on(
                self.sources, record, self.name, spikes.time.reshape(len(spikes.time), -1), channel
            )
        elif given.positions == 1:
            record.voltages[self.name] = membrane(drive, sample_times)
        else:
            v = membrane(replace(drive, v_inf=0.0), sample_times)
            v = jnp.moveaxis(given.neurons(jnp.moveaxis(v, 1, 2)), 1, 2)
            record.voltages[self.name] = v * self.scale + v_inf

    def _weighted(self, given: Arrivals):
        """Weight, lanes, time and row as the scans take them.

        Where neurons share weights between positions their voltages are measured in units of the
        arrival factor.
        """
        if given.positions == 1:
            weight, time, row = self.boxes(given.weight * self.scale, given.time, given.row)
            return weight, self.lanes(), time, row
        lanes, scale = self.lanes(), jnp.where(self.scale > 0, self.scale, jnp.nan)
        lanes = self.neuron.in_units(lanes, scale)
        weight, time, row = self.boxes(given.weight, given.time, given.row)
        return weight, jax.tree.map(given.lanes, lanes), time, row

    def _spikes(self, record, given, weight, lanes, time, row, t_end):
        spec = self.spec(given.in_order)
        way = layer_spikes_forward if self.engine.forward_mode else layer_spikes
        found: Any = way(spec, weight, lanes, time, row, t_end)
        record.clipped[self.name] = clipped_slopes(spec, lanes, found)
        spikes = jax.tree.map(given.neurons, found)
        if given.positions == 1:
            return spikes
        return replace(
            spikes,
            slope=jnp.where(jnp.isfinite(spikes.time), spikes.slope * self.scale[:, None], 1.0),
        )


class RecurrentPart:
    """Populations that feed back into each other, or one that feeds back into itself."""

    def __init__(self, sources: Sources, names: tuple[str, ...]):
        self.names, self.parts, self.sources = (
            names,
            [_Part(sources, name) for name in names],
            sources,
        )

    def run(self, record, t_end):
        """Simulate it, and write what happened into the record and the trains."""
        spec, feedback = self._feedback()
        from_outside, lanes = [], [part.lanes() for part in self.parts]
        for part in self.parts:
            given = part.arrivals(self._external(part))
            from_outside.append(part.boxes(given.weight * part.scale, given.time, given.row))
        way = group_spikes_forward if self.sources.engine.forward_mode else group_spikes
        found: Any = way(spec, tuple(from_outside), tuple(feedback), tuple(lanes), t_end)
        record.budgets["max_events"][self.names[0]] = Budget(
            needed=jnp.max(found.events_needed), room=jnp.int32(spec.max_events)
        )
        outcome = zip(self.parts, spec.layers, lanes, found.spikes, found.trains, strict=True)
        for part, layer, own, spikes, (time, neuron) in outcome:
            record.numbers[part.name] = (
                sum(jax.tree.leaves(own)),
                [weight for weight, _, _ in from_outside],
                feedback,
            )
            record.clipped[part.name] = clipped_slopes(layer, own, spikes)
            part.write_down(record, spikes)
            room = min(spec.max_events, layer.max_spikes * part.population.size)
            self.sources.trains[part.name] = earliest(time, neuron, room)

    def _external(self, part):
        return [path for path in self._matrices(part) if path[0] not in self.names]

    def _matrices(self, part):
        """What arrives at a population through matrices, with delays of their source channels at
        most.
        """
        dtype, paths = self.sources.network.dtype, part.signal.paths
        for source, operator in paths:
            if operator.row_delay is not None:
                raise LoweringError(
                    f"node '{part.name}' is part of a cycle, and what comes from '{source}' has delays that differ "
                    "between its neurons: let them differ between source neurons only, or simulate it in time steps"
                )
        return added([(source, as_matrix(operator, dtype)) for source, operator in paths], dtype)

    def _feedback(self):
        """The group's description, and (weight, delay) of each feedback edge; a box closes by an
        edge of its own.
        """
        edges, feedback = [], []
        for target, part in enumerate(self.parts):
            for source, matrix in self._matrices(part):
                if source not in self.names:
                    continue
                edge = self.names.index(source), target
                weight, delay = (
                    matrix.weight * part.scale,
                    self._later(matrix.delay, matrix, self._steps(edge)),
                )
                edges.append(edge)
                feedback.append((weight, delay))
                if part.neuron.width:
                    edges.append(edge)
                    feedback.append((-weight, self._later(delay, matrix, part.neuron.width)))
        layers = tuple(part.spec() for part in self.parts)
        return GroupSpec(layers=layers, edges=tuple(edges), max_events=self._room(layers)), feedback

    def _steps(self, edge):
        """By how much spikes are late that go back in the order of the group: the steps that the
        framework takes.
        """
        source, target = edge
        population = self.parts[source].population
        return population.recurrent_delay * (population.dt or 0.0) if source >= target else 0.0

    @staticmethod
    def _later(delay, matrix, seconds):
        """A delay of each source channel, or None, and some seconds."""
        if not seconds:
            return delay
        late = jnp.full(matrix.inward, seconds, matrix.weight.dtype)
        return late if delay is None else delay + late

    def _room(self, layers):
        """Spikes of the whole group that are recorded in each sample."""
        given = [part.engine.of("max_events", part.name) for part in self.parts]
        if any(room is not None for room in given):
            return sum(room or 0 for room in given)
        return sum(
            layer.max_spikes * part.population.size
            for layer, part in zip(layers, self.parts, strict=True)
        )
