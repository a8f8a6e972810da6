"""One sample whose events come in pieces, in the native backend: a handle to `Stream` in
stream.h.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.errors import SimulationError
from jaxsnn.event.native.native_build import native_library
from jaxsnn.network.array_types import Float, Int
from jaxsnn.wording import Text

_LONG, _REAL, _POINTER = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p
#: Capacity of a stream's reusable buffers: number of events, and of spikes, per call.
FEW = 64
#: Status of a call that was refused and had no effect, and of a call that must be repeated after a
#: slice of time (`kMore` in stream_calls.h).
_REFUSED, _MORE = -2, -3
#: Times and neurons of the spikes of each population, in the order of time.
Spikes = list[tuple[Float[np.ndarray, "spikes"], Int[np.ndarray, "spikes"]]]
#: Quantities that inputs change, as `Drive` in stream.h: a current that decays, V itself, a rate.
DRIVES = ("current", "leak", "rate")
#: Functions of stream_calls.h -> types of the arguments after the handle.
_CALLS = {
    "add": (_LONG, _POINTER, _LONG, _LONG, _REAL, _REAL, _LONG),
    "connect": (*(_LONG,) * 3, *(_POINTER,) * 5, _LONG),
    "slice": (_REAL,),
    "begin": (_LONG,),
    "settle": (_LONG,),
    "push": (_LONG, _LONG, *(_POINTER,) * 3),
    "run": (_REAL,),
    "take": (_POINTER,) * 3,
    "step": (_LONG, *(_POINTER,) * 6, *(_LONG,) * 4),
    "voltage": (_LONG, _REAL, _POINTER),
    "waiting": (),
    "save": (_POINTER,) * 5,
    "restore": (_POINTER,) * 5,
}


@dataclass(frozen=True, kw_only=True)
class StreamPopulation:
    """Parameters of a population in a stream.

    Attributes:
        constants: (fields, neurons), the fields in the order of `Field` in tiles.h.
        drive: kind of the drive of V, one of `DRIVES`.
        fires: whether the population fires; False for a readout.
        once: whether its neurons stop after their first spike.
        subtract: whether a reset keeps the overshoot.
        recorded: whether its spikes are returned.
        at_equality: whether an arrival that moves V exactly onto the threshold makes it fire.
        width: duration of a rectangular pulse, seconds; 0: spikes are deltas.
        refractory: refractory period, seconds.
        group: index of the group of recurrently connected populations, in execution order.
    """

    constants: Float[np.ndarray, "fields neurons"]
    drive: str
    fires: bool
    once: bool
    subtract: bool
    recorded: bool
    at_equality: bool
    width: float
    refractory: float
    group: int


@dataclass(frozen=True, kw_only=True)
class StreamWiring:
    """Projection from a source to a population: groups of synapses with one delay, whose weights
    arrive together.

    Attributes:
        source: index of a population, or -1 - n for input n.
        target: index of a population.
        of_channel: (channels + 1,) synapse groups of_channel[c] to of_channel[c + 1] - 1 belong to
            source channel c.
        delay: (groups,) seconds.
        first: (groups + 1,) synapses first[g] to first[g + 1] - 1 belong to group g.
        weight: (synapses,) jumps of j.
        neuron: (synapses,) neurons of the target.
        neurons: number of neurons of the target.
    """

    source: int
    target: int
    of_channel: Int[np.ndarray, "channels+1"]
    delay: Float[np.ndarray, "groups"]
    first: Int[np.ndarray, "groups+1"]
    weight: Float[np.ndarray, "synapses"]
    neuron: Int[np.ndarray, "synapses"]
    neurons: int


@dataclass(frozen=True, kw_only=True)
class StreamState:
    """Mutable state of a stream as arrays; `StreamState` in stream.h documents their contents.

    Attributes:
        sizes: (4,) number of values, of neurons and of queue entries, and the current round.
        numbers: (numbers,), flags: (2 neurons,).
        due_numbers: (queue, 2), due_indices: (queue, 7).
    """

    sizes: Int[np.ndarray, "4"]
    numbers: Float[np.ndarray, "numbers"]
    flags: Int[np.ndarray, "flags"]
    due_numbers: Float[np.ndarray, "queue 2"]
    due_indices: Int[np.ndarray, "queue 7"]

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """Arrays of the state, in the order of the attributes."""
        return self.sizes, self.numbers, self.flags, self.due_numbers, self.due_indices


class NativeStream:
    """Handle of a stream in the native library. It does not validate the sizes and values of
    arrays: `EventStream` does that.

    Long calls return to Python after each slice of time, so that signals are handled: an exception
    leaves a push incomplete. `begin`, `step` and `settle` roll such a push back. They detect it by
    the number of `committed` pushes.

    Attributes:
        committed: number of completed pushes; the caller increments it at the very end of a push.
    """

    def __init__(
        self, dtype: str, populations: Iterable[StreamPopulation], wirings: Iterable[StreamWiring]
    ) -> None:
        """
        Args:
            dtype: number type of the loaded library; numbers of a stream are float64.
            populations: populations in the order of their indices.
        """
        self.committed = 0
        self._problem = ""  # why the stream has ended; empty if it has not
        self._library = library = _library(dtype)
        self._calls = {name: getattr(library, f"jaxsnn_stream_{name}") for name in _CALLS}
        self._handle = library.jaxsnn_stream_new()
        if not self._handle:
            raise MemoryError("a stream")
        weakref.finalize(self, library.jaxsnn_stream_free, self._handle)
        count = 0
        for population in populations:
            count = self._add(population)
        for wiring in wirings:
            self._connect(wiring)
        self._time, self._channel = np.empty(FEW), np.empty(FEW, np.int64)
        self._spike_time, self._spike_neuron = np.empty(FEW), np.empty(FEW, np.int32)
        self._counts = np.zeros(count, np.int64)
        few = self._time, self._channel, self._spike_time, self._spike_neuron, self._counts
        arrays = [_POINTER(_pointer(array)) for array in few]
        self._end = _REAL()
        self._step = functools.partial(
            self._calls["step"], self._handle, FEW, *arrays, ctypes.byref(self._end)
        )

    def _add(self, population: StreamPopulation) -> int:
        """Add a population and return the number of populations."""
        constants = np.ascontiguousarray(population.constants, np.float64)
        switches = (
            population.fires,
            population.once,
            population.subtract,
            population.recorded,
            population.at_equality,
        )
        flags = sum(flag << bit for bit, flag in enumerate(switches))
        numbers = (
            DRIVES.index(population.drive),
            flags,
            population.width,
            population.refractory,
            population.group,
        )
        return self._call("add", constants.shape[1], _pointer(constants), *numbers)

    def _connect(self, wiring: StreamWiring) -> None:
        """Add the projection from a source to a population."""
        arrays = [
            np.ascontiguousarray(array, dtype)
            for array, dtype in (
                (wiring.of_channel, np.int64),
                (wiring.delay, np.float64),
                (wiring.first, np.int64),
                (wiring.weight, np.float64),
                (wiring.neuron, np.int32),
            )
        ]
        ends = wiring.source, wiring.target, len(wiring.of_channel) - 1
        self._call("connect", *ends, *map(_pointer, arrays), wiring.neurons)

    def push(
        self,
        number: int,
        time: Float[np.ndarray, "events"],
        channel: Int[np.ndarray, "events"],
        value: Float[np.ndarray, "events"] | None,
    ) -> None:
        """Add events to an input."""
        time = np.ascontiguousarray(time, np.float64)
        channel = np.ascontiguousarray(channel, np.int32)
        size = None if value is None else np.ascontiguousarray(value, np.float64)
        first = 0
        while first < len(time):
            rest = [
                None if array is None else _pointer(array[first:])
                for array in (time, channel, size)
            ]
            first += self._call("push", number, len(time) - first, *rest)

    def run(self, end: float) -> Spikes:
        """Simulate up to a time and return the recorded spikes of each population, or an empty list
        if there are none.

        Raises:
            SimulationError: an endless number of spikes at one time, or a lack of memory.
        """
        return self._take(self._run(end))

    def _run(self, end: float) -> int:
        """Simulate up to a time and return the number of spikes to collect."""
        count = _MORE
        while count == _MORE:
            count = self._call("run", end)
        return count

    def step(self, number: int, events: Any, size: int, end: float) -> Spikes | None:
        """Push a few `Events` without values and run, with little overhead.

        Args:
            size: channels of the input.
            end: time up to which to run; nan: the time of the last event.

        Returns:
            As in `run`; None if the events or the end are not of this simple form: the stream is
            then unchanged.
        """
        time, channel = np.asarray(events.time), np.asarray(events.index)
        count = len(time) if time.ndim == 1 else 0
        numbers = time.dtype.kind in "fiu" and channel.dtype.kind in "iu"
        if not (0 < count <= FEW and channel.shape == time.shape and numbers):
            return None
        self._time[:count], self._channel[:count] = time, channel
        self._end.value = end
        status = self._step(number, count, size, self.committed)
        if status == _REFUSED:
            return None
        if status == _MORE:
            return self._take(self._run(self._end.value))
        return self._take(self._checked(status), handed_over=status <= FEW)

    def _take(self, count: int, *, handed_over: bool = False) -> Spikes:
        """Return the recorded spikes, which the library has already written into the reusable
        buffers if they are `handed_over`.
        """
        if not count:
            return []
        if handed_over:
            time, neuron = self._spike_time[:count].copy(), self._spike_neuron[:count].copy()
        else:
            time, neuron = np.empty(count), np.empty(count, np.int32)
            self._call("take", *map(_pointer, (time, neuron, self._counts)))
        spikes, end = [], 0
        for spike_count in self._counts.tolist():
            spikes.append((time[end : end + spike_count], neuron[end : end + spike_count]))
            end += spike_count
        return spikes

    def begin(self) -> None:
        """Begin a push."""
        self._call("begin", self.committed)

    def settle(self) -> None:
        """Roll back the last push if it was interrupted."""
        if not self._problem:
            self._call("settle", self.committed)

    @property
    def time(self) -> float:
        """Time in seconds up to which the last completed push has run."""
        self.settle()
        return self._library.jaxsnn_stream_time(self._handle)

    def set_slice(self, seconds: float) -> None:
        """Set the time that a call works before Python handles signals; 0: after each step."""
        self._call("slice", seconds)

    def state(self) -> StreamState:
        """Return the mutable state, which can be restored in a stream of the same network."""
        self.settle()
        sizes = np.zeros(4, np.int64)
        self._call("save", _pointer(sizes), None, None, None, None)
        state = empty_state(sizes)
        self._call("save", *map(_pointer, state.arrays))
        return state

    def restore(self, state: StreamState) -> bool:
        """Restore a state; return False, with the stream unchanged, if it cannot belong to this
        network. The arrays must have the expected sizes.
        """
        self.settle()
        arrays = [np.ascontiguousarray(array) for array in state.arrays]
        status = self._calls["restore"](self._handle, *map(_pointer, arrays))
        return status != _REFUSED and not self._checked(status)

    def voltage(self, number: int, time: float, neurons: int) -> Float[np.ndarray, "neurons"]:
        """Return v of a population at the time up to which the stream has run."""
        v = np.empty(neurons)
        self._call("voltage", number, time, _pointer(v))
        return v

    def waiting(self) -> int:
        """Return the number of events that have not acted yet.

        Raises:
            SimulationError: the stream has ended; all later calls raise this error, too.
        """
        return self._call("waiting")

    def _call(self, name: str, *arguments: Any) -> int:
        return self._checked(self._calls[name](self._handle, *arguments))

    def _checked(self, status: int) -> int:
        """Return the status of a call, or raise its error."""
        if status < 0 and status != _MORE:
            problem = self._library.jaxsnn_stream_problem(self._handle).decode()
            self._problem = problem or "the reason is unknown"
            self.refuse_ended()
        return status

    def refuse_ended(self) -> None:
        """Raise an error if the stream has ended.

        Raises:
            SimulationError: the stream has ended; the message contains the reason.
        """
        if self._problem:
            raise SimulationError(
                Text("the stream has ended: {reason}", reason=self._problem),
                fix="check that v_reset is below v_threshold and that cycles have a delay, and "
                "start a new stream",
            )


def empty_state(sizes: Int[np.ndarray, "4"]) -> StreamState:
    """Return a state of these sizes with uninitialised arrays."""
    numbers, neurons, queue, _ = sizes.tolist()
    return StreamState(
        sizes=sizes,
        numbers=np.empty(numbers),
        flags=np.empty(2 * neurons, np.int64),
        due_numbers=np.empty((queue, 2)),
        due_indices=np.empty((queue, 7), np.int64),
    )


def _pointer(array: np.ndarray) -> int:
    return array.ctypes.data


@functools.cache
def _library(dtype: str) -> Any:
    """Return the library, with the argument and result types of its functions set."""
    library: Any = native_library(dtype).handle
    for name, arguments in _CALLS.items():
        call = getattr(library, f"jaxsnn_stream_{name}")
        call.argtypes, call.restype = (_POINTER, *arguments), _LONG
    library.jaxsnn_stream_new.restype = _POINTER
    library.jaxsnn_stream_free.argtypes, library.jaxsnn_stream_free.restype = (_POINTER,), None
    library.jaxsnn_stream_time.argtypes = (_POINTER,)
    library.jaxsnn_stream_time.restype = _REAL
    library.jaxsnn_stream_problem.argtypes = (_POINTER,)
    library.jaxsnn_stream_problem.restype = ctypes.c_char_p
    return library
