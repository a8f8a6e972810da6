"""Populations as parts of a network: their arrivals, their simulation, and their outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import LoweringError
from jaxsnn.event.adjoint.layer_adjoint import clipped_slopes, is_clipped, layer_spikes
from jaxsnn.event.adjoint.recurrent_adjoint import group_spikes, group_spikes_forward
from jaxsnn.event.adjoint.slopes_at_spikes import without_slopes
from jaxsnn.event.adjoint.tangents import layer_spikes_forward
from jaxsnn.event.dynamics.integrated_neuron import IntegratedNeuron
from jaxsnn.event.dynamics.kinds import neuron_of
from jaxsnn.event.event_arrays import (
    Feedback,
    NeuronConstants,
    Numbers,
    Rows,
    Seconds,
    Times,
    Weights,
)
from jaxsnn.event.event_record import Budget, EventRecord
from jaxsnn.event.forward.group import FanOut, GroupSpec, GroupSpikes, layout
from jaxsnn.event.forward.layer import LayerSpec, LayerSpikes
from jaxsnn.event.forward.readout import Drive, Places, membrane
from jaxsnn.event.forward.sample_parts import in_parts
from jaxsnn.event.native.native_group import (
    MOST_STEPS,
    ByTarget,
    SynapseLists,
    native_group_spikes,
    sparse_group_spikes,
)
from jaxsnn.event.native.native_layer import native_layer_spikes
from jaxsnn.event.native.native_limits import (
    group_obstacles,
    kernels_enabled,
    native_obstacles,
    reads_out_native,
    runs_native,
)
from jaxsnn.event.native.native_readout import native_membrane
from jaxsnn.event.native.native_scatter import FirstSpikes, native_scattered_spikes
from jaxsnn.event.native.native_weights import own_matrix
from jaxsnn.event.projections.arrivals import Arrivals, Path, Scattered, Train, arrivals
from jaxsnn.event.projections.current_arrivals import (
    by_source,
    current_arrivals,
    joined,
    lasting_current,
)
from jaxsnn.event.projections.sources import (
    Sources,
    earliest,
    room_behind,
)
from jaxsnn.event.projections.synapse_lists import (
    PopulationPaths,
    group_synapses,
    has_sparse_weights,
)
from jaxsnn.network.array_types import Array, Float, Int
from jaxsnn.network.linear_nodes import LARGEST
from jaxsnn.network.meshes import match_device_axes
from jaxsnn.network.neuron_models import model_of
from jaxsnn.network.operators import (
    Operator,
    added,
    as_matrix,
    by_taps,
    count_line_weights,
    delay_lines,
    delayed_by_source,
)
from jaxsnn.network.reductions import count_over_last, greatest
from jaxsnn.network.structure import Population
from jaxsnn.options import ENGINE
from jaxsnn.wording import Text


class ArrivalArrays(NamedTuple):
    """Arrivals at a population, in the form that the scans take."""

    weight: Weights
    time: Times
    row: Rows


class PopulationPart:
    """Single population: its arrivals, and its neurons.

    Args:
        driven: whether constant currents are biases if there are no other arrivals; False: they are
            open rectangular pulses.
    """

    def __init__(self, sources: Sources, name: str, *, driven: bool = True) -> None:
        self.sources, self.engine, self.name = sources, sources.engine, name
        self.population = sources.network.populations[name]
        self.parameters = sources.network.parameters[name]
        self.signal = sources.arriving[name]
        are_currents = [source in sources.currents for source, _ in self.signal.paths]
        #: whether all arrivals are constant currents, which act as a bias of each sample
        self.driven = driven and all(are_currents) and self._is_driven()
        kernel = self.population.spike_kernel
        if self.driven:  # no spikes arrive, so that the kernel has no effect
            kernel = "delta"
        elif any(are_currents):  # a current acts like an open rectangular pulse
            kernel = "box"
        self.neuron = neuron_of(replace(self.population, spike_kernel=kernel))
        # Assumptions about time constants are known to hold (certain) or are checked in each run
        # (guessed). For a readout, which has no spikes, the check does not pay: it assumes nothing.
        if name not in sources.with_static_facts:
            self.neuron = self.neuron.guessed()
        if not (self.population.fires or self.neuron.certain):
            self.neuron = self.neuron.generic()
        # Scale of the arrivals: the effect of a current of 1 if only currents arrive, else that of
        # a spike of weight 1.
        only_currents = bool(are_currents) and all(are_currents) and not self.driven
        arrives = self.neuron.current_factor if only_currents else self.neuron.arrival_factor
        self.scale = arrives(self.parameters)

    def _is_driven(self) -> bool:
        """Return whether the population fires, has a model of NIR, and receives currents all of
        which are constant from time 0 to the end.
        """
        population, currents = self.population, self.sources.currents
        lasting = [
            currents[source].lasting for source, _ in self.signal.paths if source in currents
        ]
        of_nir = model_of(population.kind).dynamics is None
        return of_nir and population.fires and bool(lasting) and all(lasting)

    def spec(self, in_order: bool = False) -> LayerSpec:
        """Return the static description of the population's scan.

        Args:
            in_order: whether the arrivals are sorted.
        """
        once = self.engine.stops(self.name)
        return LayerSpec(
            neuron=self.neuron,
            max_spikes=1 if once else self.engine.of("max_spikes", self.name),
            once=once,
            min_slope=self.engine.min_slope,
            refractory=0.0 if once else self.engine.of("refractory", self.name),
            jump_width=self.engine.jump_width,
            # `boxes` appends the ends of all pulses after all their starts, which are out of order
            in_order=in_order and not self.neuron.width,
        )

    def constants(self) -> NeuronConstants:
        """Return the neurons' constants; if currents drive them, those of each sample."""
        constants = self.neuron.constants(self.parameters, self.signal.constant)
        return self._driven_constants(constants) if self.driven else constants

    def _driven_constants(self, still: NeuronConstants) -> NeuronConstants:
        """Return the constants under constant currents, in the shape (samples, neurons).

        Args:
            still: constants without the currents, (neurons,).
        """
        sources = self.sources
        operands = self.signal.paths, sources.currents, self.name, sources.network.dtype
        current, missed = lasting_current(*operands)
        constant = jnp.zeros_like(current) if self.signal.constant is None else self.signal.constant
        constants, late = (
            self.neuron.constants(self.parameters, constant + more) for more in (current, missed)
        )
        # `missed` is 0, but not its derivative with respect to the times at which the currents
        # begin: if they begin later by dt, the state lacks the change that they cause during dt.
        rates = [
            self.neuron.rate(neuron_constants, self.neuron.begin(neuron_constants))
            for neuron_constants in (late, still)
        ]
        v, j = (with_them - without for with_them, without in zip(*rates, strict=True))
        every = replace(constants, v_start=constants.v_start - v, j_start=constants.j_start - j)
        return jax.tree.map(lambda field: jnp.broadcast_to(field, current.shape), every)

    def arrivals(self, paths: Sequence[Path]) -> Arrivals:
        """Return the arrivals through some of the population's paths, without currents."""
        room, dtype = self.engine.of("max_arrivals", self.name), self.sources.network.dtype
        paths = [path for path in paths if path[0] not in self.sources.currents]
        return arrivals(paths, self.sources.trains, self.population.size, dtype, room)

    def arriving(self, arrival_lists: Arrivals, paths: Sequence[Path]) -> ArrivalArrays:
        """Return the arrivals through some of the population's paths in the form that the scans
        take, including currents; at one position the weights are multiplied by the arrival factor.

        Args:
            arrival_lists: the arrivals of events, without currents.
        """
        weight = (
            arrival_lists.weight * self.scale
            if arrival_lists.positions == 1
            else arrival_lists.weight
        )
        events = self.boxes(weight, arrival_lists.time, arrival_lists.row)
        held = by_source(paths, self.sources.currents, self.name)
        if self.driven or not held:
            return events
        factor, dtype = self._of_currents(arrival_lists), self.sources.network.dtype
        lists = [
            current_arrivals(operators, self.sources.currents[source], factor, arrival_lists, dtype)
            for source, operators in held.items()
        ]
        if any(source not in held for source, _ in paths):
            lists.append((events.weight, events.time, events.row))
        return ArrivalArrays(*joined(lists))

    def _of_currents(self, arrival_lists: Arrivals) -> Numbers:
        """Return the effect of a current of 1, in the units of the arrivals."""
        if self.neuron.level is None:
            raise LoweringError(
                Text(
                    "node '{node}' ({kind}) receives an input current, which its neuron model "
                    "{type} does not support",
                    node=self.name,
                    kind=self.population.kind,
                    type=type(self.neuron).__name__,
                ),
                fix=Text(
                    "pass spikes as input, or simulate with {engine}", engine=ENGINE.set_to("grid")
                ),
                node=self.name,
            )
        factor = self.neuron.current_factor(self.parameters)
        if arrival_lists.positions == 1:
            return factor
        # a factor that is not positive cannot serve as a unit: see `FeedForwardPart._constants`
        return factor / jnp.where(self.scale > 0, self.scale, jnp.nan)

    def boxes(self, weight: Weights, time: Times, row: Rows) -> ArrivalArrays:
        """Return the arrivals; if spikes are rectangular pulses, replace each arrival by two, one at the
        start and one at the end of the pulse.
        """
        if not self.neuron.width:
            return ArrivalArrays(weight, time, row)
        # A pulse of weight W is an arrival of W at t and one of -W at t + width. The second half of
        # the table has the negative weights.
        row = jnp.concatenate([row, row + weight.shape[0]], axis=-1)
        time = jnp.concatenate([time, time + self.neuron.width], axis=1)
        return ArrivalArrays(jnp.concatenate([weight, -weight]), time, row)

    def _edges_of(self, events: Scattered, rows: int) -> Scattered:
        """Return the events unchanged, or, if they are rectangular pulses, two events for each: its
        start and its end.

        Args:
            rows: number of rows of the table without its second half, the negative weights.
        """
        if not self.neuron.width:
            return events
        count = len(events.place)  # channels
        time = jnp.concatenate([events.time, events.time + self.neuron.width], axis=1)
        channel = jnp.concatenate([events.channel, events.channel + count], axis=1)
        train = earliest(time, channel, time.shape[1], self.engine)
        place = np.concatenate([events.place, events.place])
        row = np.concatenate([events.row, events.row + rows])
        return Scattered(train.time, train.channel, place, row)

    def with_nan_gradients(self, spikes: LayerSpikes, constants: NeuronConstants) -> LayerSpikes:
        """Make the gradient with respect to the constants NaN where the times are NaN, instead of 0
        as for no spike.

        NIR's models do not need this, as their numbers are checked.
        """
        if model_of(self.population.kind).dynamics is None:
            return spikes
        broken = jnp.isnan(spikes.time)
        # The factor must be 0 where nothing is broken: its cotangent is 0 there, and 0 * NaN = NaN.
        factor = jnp.where(broken, jnp.nan, 0.0)
        total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(constants))
        return replace(spikes, time=spikes.time + jnp.where(broken, factor * total, 0.0))

    def write_down(
        self, record: EventRecord, spikes: LayerSpikes, first: FirstSpikes | None = None
    ) -> None:
        """Write the population's spikes into the record.

        Args:
            first: the first spikes of each sample, if the backend has sorted them. Checks read
                these, so that arrays of all slots are built only for other uses.
        """
        name = self.name
        record.spikes[name] = without_slopes(spikes, forward_mode=self.engine.forward_mode)
        record.heights[name] = self.neuron.height(self.parameters)
        checked = spikes if first is None else first
        record.times[name] = checked.time
        record.degenerate[name] = jnp.sum(jnp.isinf(checked.slope))
        room = jnp.int32(self.engine.of("max_spikes", name))
        record.budgets["max_spikes"][name] = Budget(needed=greatest(spikes.count), room=room)


class FeedForwardPart(PopulationPart):
    """Population that does not feed back into itself."""

    def run(
        self, record: EventRecord, t_end: Seconds, sample_times: Float[Array, "samples"]
    ) -> None:
        """Simulate the population, and write the results into the record and the trains.

        Args:
            record: record that receives the results.
            t_end: seconds.
            sample_times: seconds, where a readout is sampled.
        """
        paths = self.signal.paths
        arrival_lists = self.arrivals(paths)
        if any(source in self.sources.currents for source, _ in paths):
            # `arriving` appends the currents, which breaks the order
            arrival_lists = replace(arrival_lists, in_order=False, scattered=None)
        if (
            arrival_lists.scattered is not None
            and self.population.fires
            and self._is_native(arrival_lists)
        ):
            # the native kernels read the events directly: no lists of positions can overflow
            arrival_lists = replace(arrival_lists, needed=0, budget=0)
        constants, (weight, time, row) = (
            self._constants(arrival_lists),
            self.arriving(arrival_lists, paths),
        )
        record.numbers[self.name] = weight, sum(jax.tree.leaves(constants))
        if arrival_lists.budget:
            budget = Budget(
                needed=jnp.asarray(arrival_lists.needed), room=jnp.int32(arrival_lists.budget)
            )
            record.budgets["max_arrivals"][self.name] = budget
        drive = self._drive(constants, ArrivalArrays(weight, time, row))
        if arrival_lists.positions == 1:
            record.drives[self.name] = drive
        elif not self.population.fires:  # lists of a spiking population may be incomplete
            record.drives[self.name] = self._by_place(drive, arrival_lists)
        if self.population.fires:
            spikes, first = self._spikes(
                record, arrival_lists, constants, ArrivalArrays(weight, time, row), t_end
            )
            self._hand_on(record, spikes, first)
        else:
            self._read_out(record, arrival_lists, drive, sample_times)

    def _drive(self, constants: NeuronConstants, arriving: ArrivalArrays) -> Drive:
        """Return the inputs of V, in the form that the functionals take.

        Args:
            constants, arriving: as the scans take them.
        """
        if self.driven:
            paths, boxed = self.signal.paths, FeedForwardPart(self.sources, self.name, driven=False)
            arrival_lists = boxed.arrivals(paths)
            return boxed._drive(
                boxed._constants(arrival_lists), boxed.arriving(arrival_lists, paths)
            )
        return Drive(
            neuron=self.neuron if self.neuron.certain else self.neuron.generic(),
            constants=constants,
            v_inf=self.neuron.v_inf(self.parameters, self.signal.constant),
            **arriving._asdict(),
        )

    def _by_place(self, drive: Drive, arrival_lists: Arrivals) -> Drive:
        """Return the drive of neurons that have separate lists of arrivals."""
        counted = jnp.arange(self.population.size).reshape(arrival_lists.positions, -1)
        places = Places(index=arrival_lists.neurons(counted)[0], unit=self.scale)
        return replace(
            drive, v_inf=arrival_lists.by_position(drive.v_inf / self.scale), places=places
        )

    def _hand_on(self, record: EventRecord, spikes: LayerSpikes, first: FirstSpikes | None) -> None:
        """Record the spikes, and pass them, or the first of them, to the postsynaptic
        populations.
        """
        self.write_down(record, spikes, first)
        batch, size, slots = spikes.time.shape
        if first is None:
            time = spikes.time.reshape(batch, -1)
            channel = jnp.repeat(jnp.arange(size, dtype=jnp.int32), slots)
            room = room_behind(self.sources, self.name, size * slots)
            if room is None:
                self.sources.trains[self.name] = Train(time, channel)
                return
            train = earliest(time, jnp.broadcast_to(channel, time.shape), room, self.engine)
        else:
            train = Train(first.time, first.place // slots, in_order=True)
        self.sources.trains[self.name] = train
        needed = greatest(count_over_last(jnp.minimum(spikes.count, slots)))
        budget = Budget(needed=needed, room=jnp.int32(train.time.shape[1]))
        record.budgets["max_events"][self.name] = budget

    def _read_out(
        self,
        record: EventRecord,
        arrival_lists: Arrivals,
        drive: Drive,
        sample_times: Float[Array, "samples"],
    ) -> None:
        """Write V into the record."""
        if arrival_lists.positions == 1:
            record.voltages[self.name] = self._membrane(drive, sample_times)
            return
        # convert V by position, in units of the arrival factor, to V by neuron, in volts
        v = membrane(replace(drive, v_inf=0.0), sample_times)
        v = jnp.moveaxis(arrival_lists.neurons(jnp.moveaxis(v, 1, 2)), 1, 2)
        record.voltages[self.name] = v * self.scale + drive.v_inf

    def _membrane(
        self, drive: Drive, sample_times: Float[Array, "samples"]
    ) -> Float[Array, "batch samples neurons"]:
        """Return V at some sample times, (batch, samples, neurons)."""
        engine = self.sources.engine
        # A network without spiking populations supports forward mode without the option
        # `forward_mode`, but only if XLA runs it.
        fires = any(population.fires for population in self.sources.network.populations.values())
        if fires and len(sample_times) and reads_out_native(drive.neuron, drive.time, engine):
            return native_membrane(drive, engine.threads, sample_times)
        return membrane(drive, sample_times)

    def _constants(self, arrival_lists: Arrivals) -> NeuronConstants:
        """Return the constants in the form that the scans take.

        Where neurons share weights between positions their voltages are measured in units of the
        arrival factor.
        """
        constants = self.constants()
        if arrival_lists.positions == 1:
            return constants
        # a factor that is not positive cannot serve as a unit: NaN ends the run as NOT_FINITE
        scale = jnp.where(self.scale > 0, self.scale, jnp.nan)
        return jax.tree.map(arrival_lists.by_position, self.neuron.in_units(constants, scale))

    def _is_native(self, arrival_lists: Arrivals) -> bool:
        """Return whether the native backend runs the population."""
        time, spec = arrival_lists.time, self.spec(arrival_lists.in_order)
        constants = self.constants() if arrival_lists.positions == 1 else None
        size = time.dtype.name, time.shape[0]
        obstacles = native_obstacles(spec, self.engine, *size, constants)
        required = isinstance(self.neuron, IntegratedNeuron)
        return runs_native(self.name, self.engine, obstacles, required=required)

    def _spikes(
        self,
        record: EventRecord,
        arrival_lists: Arrivals,
        constants: NeuronConstants,
        arriving: ArrivalArrays,
        t_end: Seconds,
    ) -> tuple[LayerSpikes, FirstSpikes | None]:
        """Return the spikes, by neuron, and the first of them if the backend has sorted these as
        well.

        Args:
            arrival_lists: arrivals of the sources, which define the positions.
            constants, arriving: as the scans take them.
        """
        spec = self.spec(arrival_lists.in_order)
        primals = match_device_axes(
            (arriving.weight, constants, arriving.time, arriving.row, t_end)
        )
        spikes, first, clipped = self._spikes_and_clipped(spec, arrival_lists, primals)
        record.clipped[self.name] = clipped
        spikes = self.with_nan_gradients(spikes, constants)
        if arrival_lists.positions == 1:
            return spikes, first
        # convert slopes from units of the arrival factor to volts per second
        slope = jnp.where(jnp.isfinite(spikes.time), spikes.slope * self.scale[:, None], 1.0)
        return replace(spikes, slope=slope), first

    def _spikes_and_clipped(
        self, spec: LayerSpec, arrival_lists: Arrivals, primals: Any
    ) -> tuple[LayerSpikes, FirstSpikes | None, Int[Array, ""]]:
        """Return the spikes by neuron, the first of them if they are available, and the number of
        slopes below the floor.

        Args:
            primals: weight, constants, time, row and t_end.
        """
        weight, constants, time, row, t_end = primals
        threads, native = self.engine.threads, self._is_native(arrival_lists)
        if native and arrival_lists.scattered is not None:
            slots = self.population.size * spec.max_spikes
            # The kernel numbers spikes in the layout by position, which is that of the neurons only
            # without `order`.
            room = (
                room_behind(self.sources, self.name, slots) if arrival_lists.order is None else None
            )
            events = self._edges_of(arrival_lists.scattered, arrival_lists.weight.shape[0])
            spikes, first = native_scattered_spikes(
                spec, threads, room, weight, constants, events, t_end
            )
            constants = jax.tree.map(lambda values: values.T.reshape(-1), constants)
            if first is None:
                clipped = clipped_slopes(spec, constants, spikes)
            else:
                neuron, slot = jnp.divmod(first.place, spec.max_spikes)
                at_spikes = jax.tree.map(lambda values: values[neuron], constants)
                clipped = jnp.sum(is_clipped(spec, at_spikes, first.time, first.slope, slot))
            return jax.tree.map(arrival_lists.ordered, spikes), first, clipped
        simulate: Any = layer_spikes_forward if self.engine.forward_mode else layer_spikes
        simulate = partial(simulate, spec)
        if native:
            simulate = partial(native_layer_spikes, spec, threads)
        elif arrival_lists.positions > 1:
            simulate = in_parts(simulate, arrival_lists.positions)
        spikes = simulate(weight, constants, time, row, t_end)
        return (
            jax.tree.map(arrival_lists.neurons, spikes),
            None,
            clipped_slopes(spec, constants, spikes),
        )


def steps_late(population: Population, places: tuple[int, int]) -> float:
    """Return the additional delay in seconds of recurrent spikes, whose target is not after their
    source in the order of a group: the time steps by which the source framework delays them.

    Args:
        population: source population.
        places: positions of the source and of the target in the order.
    """
    # Frameworks update populations in order, so that feedback has the spikes of the previous step.
    source, target = places
    return population.recurrent_delay * (population.dt or 0.0) if source >= target else 0.0


class RecurrentPart:
    """Populations that feed back into each other, or a single one that feeds back into itself."""

    def __init__(self, sources: Sources, node_names: tuple[str, ...]) -> None:
        self.names, self.sources = node_names, sources
        self.parts = [PopulationPart(sources, name) for name in node_names]

    def run(self, record: EventRecord, t_end: Seconds) -> None:
        """Simulate the group, and write the results into the record and the trains."""
        if any(has_sparse_weights(part.signal.paths) for part in self.parts):
            self._run_with_lists(record, t_end)
            return
        spec, feedback = self._feedback()
        from_outside = []
        constants = [part.constants() for part in self.parts]
        for part in self.parts:
            paths = self._external(part)
            arriving = part.arriving(part.arrivals(paths), paths)
            # a plain tuple, like the gradients that `group_spikes` returns for it
            from_outside.append(tuple(arriving))
        engine, (_, time, _) = self.sources.engine, from_outside[0]
        if spec.fan_outs:
            deliveries = layout(spec, from_outside, feedback).max_deliveries
            self._refuse_long(spec.max_events, deliveries, time.shape[0])
        simulate: Any = partial(group_spikes_forward if engine.forward_mode else group_spikes, spec)
        neurons = sum(part.population.size for part in self.parts)
        obstacles = group_obstacles(spec, neurons, engine, time.dtype.name, time.shape[0])
        required = any(isinstance(part.neuron, IntegratedNeuron) for part in self.parts)
        native = runs_native(self.names[0], engine, obstacles, required=required)
        weights: Any = [weight for weight, _, _ in from_outside], feedback
        if native:
            feedback = self._by_target(feedback)
        primals = match_device_axes((tuple(from_outside), tuple(feedback), tuple(constants), t_end))
        if native:
            # `of_weights` is a table of all weights that exists already: to check the separate
            # arrays, XLA would copy them
            simulated, of_weights = native_group_spikes(spec, engine.threads, *primals)
            weights = of_weights, [delay for _, delay in feedback]
        else:
            simulated = simulate(*primals)
        self._write_down(record, spec, constants, simulated, weights, native)

    def _run_with_lists(self, record: EventRecord, t_end: Seconds) -> None:
        """Simulate a group with sparse weights by the native kernels, with lists of synapses."""
        engine, dtype = self.sources.engine, self.sources.network.dtype
        sizes = [part.population.size for part in self.parts]
        populations = []
        for number, part in enumerate(self.parts):
            late = {name: self._steps((source, number)) for source, name in enumerate(self.names)}
            populations.append(
                PopulationPaths(
                    name=part.name,
                    size=sizes[number],
                    first=sum(sizes[:number]),
                    scale=part.scale,
                    paths=part.signal.paths,
                    steps_late=late,
                )
            )
        layers = tuple(part.spec() for part in self.parts)
        spec = GroupSpec(layers=layers, edges=(), max_events=self._room(layers))
        batch = next(iter(self.sources.trains.values())).time.shape[0]
        self._refuse_lists(spec, sum(sizes), dtype, batch)
        group = group_synapses(populations, self.sources.trains, batch, dtype)
        synapses = SynapseLists(
            begin=group.begin,
            target=group.target,
            senders=group.senders,
            immediate=group.immediate,
        )
        if len(group.senders) and group.immediate:
            self._refuse_long(spec.max_events, synapses.max_deliveries, batch)
        constants = [part.constants() for part in self.parts]
        primals = match_device_axes(
            (group.weight, group.delay, (group.time, group.row), tuple(constants), t_end)
        )
        simulated, weights = sparse_group_spikes(spec, engine.threads, sizes, synapses, *primals)
        self._write_down(record, spec, constants, simulated, (weights, group.delay), native=True)

    def _refuse_lists(self, spec: GroupSpec, neurons: int, dtype: Any, samples: Any) -> None:
        """Refuse sparse weights where the native kernels do not run the group, and currents.

        Raises:
            LoweringError: what is not supported, and why.
        """
        engine, obstacle = self.sources.engine, None
        if engine.backend == "xla" or not kernels_enabled(engine):
            obstacle = 'only backend="native" supports them'
        elif any(part.neuron.level is not None for part in self.parts):
            obstacle = "spikes are rectangular pulses, or inputs are currents"
        else:
            obstacle = next(group_obstacles(spec, neurons, engine, dtype.name, samples), None)
        if obstacle is not None:
            raise LoweringError(
                Text(
                    "node '{node}' is part of a cycle with sparse weights, which is not simulated: "
                    "{obstacle}",
                    node=self.names[0],
                    obstacle=obstacle,
                ),
                fix="use jaxsnn.nir.build.with_dense_weights(graph)",
                node=self.names[0],
                code="sparse-weights",
            )

    def _write_down(
        self,
        record: EventRecord,
        spec: GroupSpec,
        constants: Sequence[NeuronConstants],
        simulated: GroupSpikes,
        weights: Any,
        native: bool,
    ) -> None:
        """Write the spikes of the group into the record and the trains.

        Args:
            weights: arrays that are finite if all weights are.
        """
        engine = self.sources.engine
        # One budget for the whole group, under the name of its first population.
        budget = Budget(needed=greatest(simulated.events_needed), room=jnp.int32(spec.max_events))
        record.budgets["max_events"][self.names[0]] = budget
        outcome = zip(
            self.parts, spec.layers, constants, simulated.spikes, simulated.trains, strict=True
        )
        for part, layer, layer_constants, spikes, (time, neuron) in outcome:
            record.numbers[part.name] = sum(jax.tree.leaves(layer_constants)), weights
            record.clipped[part.name] = clipped_slopes(layer, layer_constants, spikes)
            part.write_down(record, part.with_nan_gradients(spikes, layer_constants))
            # The population fires only in some steps of the group: the unused slots are cut off.
            room = min(spec.max_events, layer.max_spikes * part.population.size)
            # The native backend returns spikes in order, for a single population without gaps.
            as_is = native and len(self.parts) == 1 and room == time.shape[1]
            train = Train(time, neuron, True) if as_is else earliest(time, neuron, room, engine)
            self.sources.trains[part.name] = train

    def _external(self, part: PopulationPart) -> list[Path]:
        """Return the paths from outside to a population of the group, each to all neurons at
        once.
        """
        dtype, external = self.sources.network.dtype, []
        for source, operator in part.signal.paths:
            if source in self.names:
                continue
            operator = delayed_by_source(operator)
            late = operator.row_delay is not None
            if late:
                self._refuse_large(part, len(operator.entries()[0]) * operator.size)
            taps = by_taps(operator, dtype) if late else [as_matrix(operator, dtype)]
            external += [(source, tap) for tap in taps]
        return list(added(external, dtype))

    def _refuse_long(self, events: int, deliveries: int, samples: Any) -> None:
        """Refuse a log that is too long to store.

        Args:
            events: spikes of the group that each sample has room for.
            deliveries: maximum number of deliveries of a spike.
            samples: number of samples; symbolic in an exported program.
        """
        steps = events * (1 + deliveries)  # of one sample
        if isinstance(samples, int) and samples * steps > MOST_STEPS:
            raise LoweringError(
                Text(
                    "node '{node}' is part of a cycle whose synapses have separate delays: "
                    "{samples} samples with {events} spikes of up to {deliveries} deliveries each "
                    "need {count} steps, the limit is {limit}",
                    node=self.names[0],
                    samples=samples,
                    events=events,
                    deliveries=deliveries,
                    count=samples * steps,
                    limit=MOST_STEPS,
                ),
                fix=Text(
                    "pass EventDriven(max_events={most}) if this many spikes are enough, simulate "
                    "fewer samples at a time, or specify one delay for each source neuron, an "
                    "array of shape (inputs,)",
                    most=MOST_STEPS // (samples * (1 + deliveries) * len(self.parts)),
                ),
                node=self.names[0],
            )

    @staticmethod
    def _refuse_large(part: PopulationPart, numbers: int) -> None:
        """Refuse delays that differ between synapses, if they need too many weights."""
        if numbers > LARGEST:
            raise LoweringError(
                Text(
                    "node '{node}' is part of a cycle, and its input has delays that differ "
                    "between target neurons: this needs {count} weights, the limit is {limit}",
                    node=part.name,
                    count=numbers,
                    limit=LARGEST,
                ),
                fix="specify one delay for each source neuron, an array of shape (inputs,)",
                node=part.name,
            )

    def _fed_back(self, part: PopulationPart) -> Sequence[Path]:
        """Return the paths from the group to one of its populations; matrices except where synapses
        have separate delays.
        """
        dtype, fed_back = self.sources.network.dtype, []
        for source, operator in part.signal.paths:
            if source not in self.names:
                continue
            operator = delayed_by_source(operator)
            if operator.row_delay is None:
                operator = as_matrix(operator, dtype)
            else:
                self._refuse_large(part, count_line_weights(operator))
            fed_back.append((source, operator))
        return added(fed_back, dtype)

    def _feedback(self) -> tuple[GroupSpec, Feedback]:
        """Return the group's description, and (weight, delay) of each feedback edge; a rectangular
        pulse closes by an additional edge.
        """
        edges, feedback, fan_outs = [], [], []
        dtype = self.sources.network.dtype
        for target, part in enumerate(self.parts):
            for source, operator in self._fed_back(part):
                edge = self.names.index(source), target
                weight, delay, fan_out = operator.weight, operator.delay, None
                scale = jnp.broadcast_to(part.scale, part.population.size)
                if operator.row_delay is not None:
                    weight, delay, targets = delay_lines(operator, dtype)
                    fan_out, scale = FanOut(targets=targets), scale[targets]
                weight *= scale
                delay = self._later(delay, operator, self._steps(edge))
                projections = [(weight, delay)]
                # The end of a rectangular pulse: the negative weight, later by the width.
                if part.neuron.width:
                    projections.append((-weight, self._later(delay, operator, part.neuron.width)))
                for projection in projections:
                    if fan_out is not None:
                        fan_outs.append((len(edges), fan_out))
                    edges.append(edge)
                    feedback.append(projection)
        layers = tuple(part.spec() for part in self.parts)
        spec = GroupSpec(
            layers=layers,
            edges=tuple(edges),
            max_events=self._room(layers),
            fan_outs=tuple(fan_outs),
        )
        return spec, feedback

    def _by_target(self, feedback: Feedback) -> Any:
        """Return the feedback in the form that the kernels take: the feedback through a single
        matrix stays in NIR's layout.
        """
        part = self.parts[0]
        matrix = own_matrix(self.sources.network, part.name)
        later = any(delay is not None for _, delay in feedback)
        if len(self.parts) > 1 or matrix is None or len(feedback) > 1 or later:
            return feedback
        scale = jnp.broadcast_to(part.scale, part.population.size)
        return [(ByTarget(self.sources.network_parameters[matrix]["weight"], scale), None)]

    def _steps(self, edge: tuple[int, int]) -> float:
        """Return the additional delay of spikes on an edge of the group, seconds."""
        return steps_late(self.parts[edge[0]].population, edge)

    @staticmethod
    def _later(
        delay: Float[Array, "source"] | None, matrix: Operator, seconds: float
    ) -> Float[Array, "source"] | None:
        """Add some seconds to the delay of each source channel, which may be None, or of each line."""
        if not seconds:
            return delay
        if delay is None:
            return jnp.full(matrix.inward, seconds, matrix.weight.dtype)
        return delay + seconds

    def _room(self, layers: Sequence[LayerSpec]) -> int:
        """Return the number of spikes of the whole group that are recorded in each sample."""
        budgets = [part.engine.of("max_events", part.name) for part in self.parts]
        if any(room is not None for room in budgets):
            return sum(room or 0 for room in budgets)
        return sum(
            layer.max_spikes * part.population.size
            for layer, part in zip(layers, self.parts, strict=True)
        )
