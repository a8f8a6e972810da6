"""Events that come while a network runs: from a camera, a microphone, a chip."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from jaxsnn.capabilities import unsupported
from jaxsnn.errors import (
    LoweringError,
    Problem,
    UsageError,
    as_number,
    listing,
    refuse,
    shown,
    suggestion,
)
from jaxsnn.event.capabilities import EVENT
from jaxsnn.event.dynamics.cubalif import CubaLIFBox, CubaLIFDelta
from jaxsnn.event.dynamics.integrate_and_fire import IFBox, IFDelta
from jaxsnn.event.dynamics.lif import LIFBox, LIFDelta
from jaxsnn.event.dynamics.two_variables import TwoVariables
from jaxsnn.event.event_driven import EventDriven, check_options, refuse_strangers, sources_of
from jaxsnn.event.native.native_build import native_library
from jaxsnn.event.native.native_layer import stacked
from jaxsnn.event.native.native_stream import NativeStream, Spikes, StreamPopulation, StreamWiring
from jaxsnn.event.native.stream_state import damaged, fingerprint, read_state, state_bytes
from jaxsnn.event.populations import PopulationPart, steps_late
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.array_types import Float
from jaxsnn.network.cycles import Cycle, groups
from jaxsnn.network.features import StaticNetwork
from jaxsnn.network.inputs import by_input, refuse_bad_events, refuse_no_numbers
from jaxsnn.network.network import Network, check_precision
from jaxsnn.network.operators import Operator
from jaxsnn.network.spikes import Events
from jaxsnn.network.valued_inputs import Currents, GradedEvents
from jaxsnn.output import refuse_unwritable, write_atomically
from jaxsnn.units import format_time
from jaxsnn.wording import Text

_WHOLE = "use jaxsnn.simulate on the complete recording"
#: Model -> quantity that its inputs change, of `native_stream.DRIVES`. Subclasses may have
#: different equations.
_DRIVES = {
    CubaLIFDelta: "current",
    CubaLIFBox: "current",
    LIFDelta: "leak",
    LIFBox: "leak",
    IFDelta: "rate",
    IFBox: "rate",
}


#: Events of an input: its number, times, channels, and values or None.
_Piece = tuple[int, np.ndarray, np.ndarray, np.ndarray | None]


class EventStream:
    """Session in which a network receives events while it runs: exact, one sample, bounded memory.

    The state is kept between calls: spikes are the same, bit by bit, for any partition of the
        events.
    Computations are in float64, whatever the dtype of the network. Created by `jaxsnn.stream`.
    Threads may share it and take turns; it cannot be copied or pickled, but its state can be saved.
    """

    def __init__(self, network: Network, options: EventDriven, record: Iterable[str]) -> None:
        """
        Args:
            network, options, record: see `stream`.
        """
        # Other threads can run during calls into the library, and signal handlers between calls.
        self._lock = threading.RLock()
        self._network = network
        self._inputs, self._sizes = list(network.inputs), list(network.inputs.values())
        self._options = options
        recorded_names, population_names = set(record), list(network.populations)
        self._recorded = {
            name: population_names.index(name)
            for name in population_names
            if name in recorded_names
        }
        parts = self._parts()
        refuse(obstacles(parts.values(), network.dtype.name))
        self._none = {name: _spikes(np.empty(0), np.empty(0, np.int32)) for name in self._recorded}
        self._rest = {name: _rest(part) for name, part in parts.items()}
        self._native = NativeStream(network.dtype.name, *self._described(parts))

    def __repr__(self) -> str:
        recorded = listing(f"'{name}'" for name in self._recorded)
        return f"EventStream({format_time(self._native.time)} simulated, records {recorded})"

    def _turn(self) -> threading.RLock:
        """Return the lock, to be acquired by the caller; refuse a thread that holds it already: a
        signal handler.

        Raises:
            UsageError: this thread is in the middle of another call.
        """
        if self._lock._is_owned():  # pyright: ignore[reportAttributeAccessIssue]
            raise UsageError(
                "the stream was called from a signal handler that interrupted a push",
                fix="set a flag in the signal handler, and check it after the push",
            )
        return self._lock

    def _parts(self) -> dict[str, PopulationPart]:
        """Return the populations of the network."""
        network_and_facts = self._network.with_known_facts()
        sources = sources_of(network_and_facts[0], {}, self._options, network_and_facts[1])
        return {name: PopulationPart(sources, name) for name in self._network.populations}

    def _described(
        self, parts: Mapping[str, PopulationPart]
    ) -> tuple[list[StreamPopulation], Iterator[StreamWiring]]:
        """Return the network in the form that the native backend takes."""
        order = _order(self._network)
        populations = [
            _stream_population(part, order[n][0], recorded=n in self._recorded)
            for n, part in parts.items()
        ]
        return populations, _wirings(parts, order, self._network)

    @property
    def time(self) -> float:
        """Time in seconds up to which the stream is simulated: every earlier spike has been
        returned, and earlier events are refused.
        """
        with self._turn():
            return self._native.time

    def push(self, events: Any = None, until: float | None = None) -> dict[str, Events]:
        """Take events, and return the spikes that are certain by now.

        A push is atomic: if an exception ends it (also Ctrl-C, which acts within about a tenth of a
        second), the session is unchanged, and the same push returns the same spikes.

        Args:
            events: `Events` or `GradedEvents` with arrays (events,), in any order, none before
                `time`; for several inputs a mapping from the names of Input nodes, which need not
                be complete; None: no events.
            until: end of this push, seconds; no later push may contain earlier events. Default: the
                time of the last event. Later events wait.

        Returns:
            Recorded population -> Events (spikes,), NumPy: its spikes in [`time` as it was,
            `until`), in the order of time.

        Raises:
            UsageError: events that do not fit the network or come too late.
            SimulationError: neurons that fire infinitely often at one time. This ends the stream:
                every later call raises the error, too.
        """
        with self._turn():
            spikes = self._few(events, until)
            if spikes is None:
                spikes = self._any(events, until)
            new_spikes = dict(self._none)
            for name in self._recorded if spikes else ():
                time, neuron = spikes[self._recorded[name]]
                if len(time):
                    new_spikes[name] = _spikes(time, neuron)
            self._native.committed += 1  # last: without it the next call rolls this push back
        return new_spikes

    def voltage(self, population: str) -> Float[np.ndarray, "neurons"]:
        """Return V of a population's neurons at `time`, volts, before arrivals at that time.

        Raises:
            UsageError: the population does not exist.
            SimulationError: the stream has ended.
        """
        population_names = list(self._network.populations)
        if population not in population_names:
            raise UsageError(
                Text("the network has no population '{population}'", population=population),
                fix=suggestion(population, population_names),
            )
        rest = self._rest[population]
        with self._turn():
            time = self._native.time
            return rest + self._native.voltage(population_names.index(population), time, len(rest))

    @property
    def waiting(self) -> int:
        """Number of events, from inputs or between populations, that have not acted yet."""
        with self._turn():
            self._native.settle()
            return self._native.waiting()

    def save(self, path: str | os.PathLike[str], force: bool = False) -> None:
        """Write the state to a file, atomically. A stream that has restored it continues with bitwise
        identical results, also in another process.

        Raises:
            FileError: the file exists and `force` is not set, or it cannot be written.
            SimulationError: the stream has ended.
        """
        refuse_unwritable(path, force)
        with self._turn():
            self._native.refuse_ended()
            state = self._native.state()
        write_atomically(path, state_bytes(state, self._fingerprint()), force)

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Replace the state by the saved state of a stream with the same network and options. The
        recorded populations may differ.

        Raises:
            FileError: the file does not exist or is damaged; the session remains unchanged.
            UsageError: the saved stream had a network with other parameters, or other options.
            SimulationError: the stream has ended.
        """
        state = read_state(path, self._fingerprint())
        with self._turn():
            self._native.refuse_ended()
            fits = self._native.restore(state)
        if not fits:
            raise damaged(path)

    def _fingerprint(self) -> bytes:
        """Return a hash that distinguishes streams of other parameters, options or inputs."""
        populations, wirings = self._described(self._parts())
        return fingerprint(dict(self._network.inputs), populations, wirings)

    def __reduce__(self) -> NoReturn:
        """Refuse copies and pickles: the state lies in the native library, and two objects would
        share it.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "a stream cannot be copied or pickled",
            fix="create another stream with jaxsnn.stream, and transfer the state with save and "
            "restore",
        )

    def _few(self, events: Any, until: float | None) -> Spikes | None:
        """Return the spikes of a push that has only a few plain events of the only input; None for
        other pushes.
        """
        if type(events) is not Events or len(self._sizes) > 1:
            return None
        if until is not None and (type(until) is not float or until != until):
            return None
        end = np.nan if until is None else until
        return self._native.step(0, events, self._sizes[0], end)

    def _any(self, events: Any, until: float | None) -> Spikes:
        """Return the spikes of a push."""
        self._native.refuse_ended()  # before any other error
        now = self._native.time
        pieces = self._checked(events, now)
        last = max((float(time.max()) for _, time, _, _ in pieces), default=now)
        end = last if until is None else self._end(until, now)
        self._native.begin()
        for number, time, channel, value in pieces:
            self._native.push(number, time, channel, value)
        return self._native.run(end)

    def _end(self, until: float, now: float) -> float:
        if not now <= as_number(until) < np.inf:
            raise UsageError(
                Text(
                    "until is {until} s, which is not a finite time at or after the current time "
                    "of the stream, {time:g} s",
                    until=shown(until),
                    time=now,
                ),
                fix="pass a finite time that is not before the current time of the stream",
            )
        return float(until)

    def _checked(self, events: Any, now: float) -> list[_Piece]:
        """Return the checked events of each input, without unused slots; none comes before
        `now`.
        """
        if events is None:
            return []
        if not isinstance(events, Mapping) and len(self._inputs) == 1:
            events_by_input = {self._inputs[0]: events}
        elif isinstance(events, Mapping):
            events_by_input = {name: events[name] for name in self._inputs if name in events}
            if len(events_by_input) < len(events):  # names the unknown input
                by_input(self._network, events)
        else:
            events_by_input = by_input(self._network, events)
        pieces = [
            self._piece(number, events_by_input.get(name), now)
            for number, name in enumerate(self._inputs)
        ]
        return [piece for piece in pieces if piece is not None]

    def _piece(self, number: int, events: Any, now: float) -> _Piece | None:
        """Return the checked events of one input; None if there are none."""
        if events is None:
            return None
        name, size = self._inputs[number], self._sizes[number]
        if isinstance(events, Currents) or not hasattr(events, "time"):
            raise UsageError(
                Text(
                    "input '{input}' ({type}) is not supported: a stream supports only events",
                    input=name,
                    type=type(events).__name__,
                ),
                fix="pass jaxsnn.Events(time=..., index=...) or jaxsnn.GradedEvents",
                node=name,
            )
        refuse_no_numbers(name, events)
        time, channel = np.asarray(events.time, float), np.asarray(events.index)
        value = np.asarray(events.value, float) if isinstance(events, GradedEvents) else None
        shapes = [array.shape for array in (time, channel, value) if array is not None]
        if time.ndim != 1 or len(set(shapes)) > 1:
            raise UsageError(
                Text(
                    "input '{input}': the arrays of the events have shapes {shapes}",
                    input=name,
                    shapes=shapes,
                ),
                fix="pass arrays of shape (events,): a stream is a single sample",
                node=name,
            )
        if _is_plain(time, channel, size, now) and value is None:
            return number, time, channel, None
        refuse_bad_events(name, time, channel, size, np.float64)
        if (late := time < now).any():
            raise UsageError(
                Text(
                    "input '{input}': events before the current time of the stream ({limit:g} s): "
                    "{count} of {size}, the first at {time:g} s",
                    input=name,
                    count=late.sum(),
                    size=time.size,
                    limit=now,
                    time=time[late][0],
                ),
                fix="push events in order of time, or pass an earlier until",
                node=name,
            )
        used = np.isfinite(time)
        time, channel = time[used], channel[used]
        value = None if value is None else value[used]
        if value is not None and not np.isfinite(value).all():
            raise UsageError(
                Text("input '{input}' has a value that is not finite", input=name),
                fix="pass finite values",
                node=name,
            )
        return (number, time, channel, value) if time.size else None


def _is_plain(time: np.ndarray, channel: np.ndarray, size: int, now: float) -> bool:
    """Return whether events are valid and all slots used, with few operations: a piece may be a
    single event.
    """
    return (
        time.size > 0
        and channel.dtype.kind in "iu"
        and now <= time.min()
        and time.max() < np.inf
        and channel.min() >= 0
        and channel.max() < size
    )


@suggests_keywords
def stream(
    network: Network,
    options: EventDriven | None = None,
    record: Iterable[str] | None = None,
) -> EventStream:
    """Start a session in which a network takes events as they come, and returns its spikes as soon
    as they are certain.

    It runs in the native backend: all of NIR's neurons, under delta spikes and rectangular pulses,
    in any wiring, with delays, loops, convolutions, refractory periods, and events with values, but
    without currents. It needs no budgets: `max_spikes` and the others have no effect.

    Args:
        network: network from `jaxsnn.lower`.
        options: options of the event engine; only `first_spike_only` and `refractory` are used.
        record: populations whose spikes are returned; default: those that feed an Output.

    Raises:
        UsageError: the population does not exist, or an option is invalid.
        LoweringError: a population that cannot be streamed, or no compiler for the native backend.

    >>> from jaxsnn.nir import build
    >>> neurons = build.cubalif(tau_mem="10ms", tau_syn="5ms")
    >>> graph = build.sequential(build.input(1), build.linear(weight=[[9.0]]), neurons)
    >>> from jaxsnn import lower
    >>> session = stream(lower(graph))
    >>> session.push(Events(time=[0.0], index=[0]))["2"].time.size
    0
    >>> session.push(until=30e-3)["2"].time.round(4)
    array([0.0014, 0.0033, 0.0071])
    """
    options = EventDriven() if options is None else options
    if not isinstance(options, EventDriven):
        raise UsageError(
            Text(
                "options of type {type} are not supported: streams run in continuous time",
                type=type(options).__name__,
            ),
            fix=f"pass EventDriven options or omit them, or {_WHOLE}",
        )
    check_precision(network)
    check_options(network, options)
    if options.backend == "xla":
        raise UsageError(
            'backend is "xla", and streams run only in the native backend',
            fix=f'pass backend="auto", or {_WHOLE}',
        )
    refuse(unsupported(StaticNetwork.of(network), EVENT))
    firing = [name for name, population in network.populations.items() if population.fires]
    if record is None:
        fed = {name for output_sources in network.outputs.values() for name in output_sources}
        record = [name for name in firing if name in fed]
    record = [record] if isinstance(record, str) else list(record)
    refuse_strangers("record", record, firing, "a spiking population")
    return EventStream(network, options.hashable(), record)


def obstacles(parts: Iterable[PopulationPart], dtype: str) -> Iterator[Problem]:
    """Yield the problems that prevent populations from being streamed.

    Args:
        dtype: floating-point type of the network.
    """
    library = native_library(dtype)
    if not library.there:
        yield Problem(
            code="no-native",
            message=Text("a stream needs the native backend: {reason}", reason=library.reason),
            fix=f"{library.fix}, or {_WHOLE}",
        )
    for part in parts:
        if type(part.neuron) not in _DRIVES:
            yield Problem(
                node=part.name,
                code="cannot-stream",
                message=Text(
                    "streams do not support the neuron model of population '{population}', {type}",
                    population=part.name,
                    type=type(part.neuron).__name__,
                ),
                fix=_WHOLE,
            )


def _spikes(time: np.ndarray, neuron: np.ndarray) -> Events:
    """Return events in NumPy arrays."""
    return Events(time=time, index=neuron)


def _rest(part: PopulationPart) -> Float[np.ndarray, "neurons"]:
    """Return the voltage that v is measured from."""
    return np.asarray(part.neuron.v_inf(part.parameters, part.signal.constant), float)


def _order(network: Network) -> dict[str, tuple[int, int]]:
    """Map each population to the index of its group, in execution order, and its index in the
    group.
    """
    order = {}
    for number, part in enumerate(groups(network.wires)):
        members = part.order if isinstance(part, Cycle) else (part.name,)
        order |= {name: (number, place) for place, name in enumerate(members)}
    return order


def _stream_population(part: PopulationPart, group: int, *, recorded: bool) -> StreamPopulation:
    """Return the parameters of a population in a stream."""
    constants = np.array(stacked(part.constants()), float)[:, 0]
    drive = _DRIVES[type(part.neuron)]
    if drive == "leak":
        constants[5] = constants[4]  # j stays 0, whatever its time constant
    fields = constants if part.population.fires else constants[2:]  # a readout has no threshold
    if not (np.isfinite(fields).all() and (constants[4:] > 0).all()):
        raise LoweringError(
            Text(
                "population '{population}' has a parameter that is not finite, or a time constant "
                "that is not positive",
                population=part.name,
            ),
            fix="use jaxsnn.check to locate it",
            node=part.name,
        )
    once, neuron = part.engine.stops(part.name), part.neuron
    assert isinstance(neuron, TwoVariables)  # as all models of `_DRIVES`
    return StreamPopulation(
        constants=constants,
        drive=drive,
        fires=part.population.fires,
        once=once,
        subtract=neuron.keeps_overshoot,
        recorded=recorded,
        at_equality=neuron.fires_at_equality,
        width=neuron.width,
        refractory=0.0 if once else float(part.engine.of("refractory", part.name)),
        group=group,
    )


def _wirings(
    parts: Mapping[str, PopulationPart], order: Mapping[str, tuple[int, int]], network: Network
) -> Iterator[StreamWiring]:
    """Yield all projections between inputs and populations."""
    number = {name: n for n, name in enumerate(parts)}
    number |= {name: -1 - n for n, name in enumerate(network.inputs)}
    for name, part in parts.items():
        scale = np.asarray(part.scale, float)
        for source, operator in part.signal.paths:
            late = 0.0
            if source in order and order[source][0] == order[name][0]:
                places = order[source][1], order[name][1]
                late = steps_late(network.populations[source], places)
            ends = number[source], number[name]
            yield _wiring(ends, operator, scale, late, network.dtype)


def _wiring(
    ends: tuple[int, int],
    operator: Operator,
    scale: Float[np.ndarray, "neurons"],
    late: float,
    dtype: Any,
) -> StreamWiring:
    """Return the projection of an operator, synapse by synapse.

    Args:
        ends: numbers of source and target.
        scale: (neurons,) jump of j for a weight of 1.
        late: additional delay of all synapses, seconds.
    """
    source, position, row = operator.entries()
    by_source = np.lexsort((position, source))  # sorted by source channel
    source, position, row = source[by_source], position[by_source], row[by_source]
    weight = np.asarray(operator.rows(dtype), float)[row]  # (pairs, columns)
    columns, count = operator.columns, len(source)
    target = np.arange(columns) * operator.positions + position[:, None]
    if operator.order is not None:
        target = np.argsort(operator.order)[target]
    delay = np.full(count, late)
    if operator.delay is not None:
        delay += np.asarray(operator.delay, float)[source]
    if operator.row_delay is not None:
        delay += np.asarray(operator.row_delay, float)[row]
        first_pair = np.arange(count)  # each pair has an individual delay
    else:
        first_pair = np.flatnonzero(np.diff(source, prepend=-1))
    return StreamWiring(
        source=ends[0],
        target=ends[1],
        of_channel=np.searchsorted(source[first_pair], np.arange(operator.inward + 1)),
        delay=delay[first_pair],
        first=np.append(first_pair, count) * columns,
        weight=(weight * scale[target]).reshape(-1),
        neuron=target.reshape(-1),
        neurons=operator.size,
    )
