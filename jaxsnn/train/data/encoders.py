"""Values to spikes: latency, rate, level crossings (delta), population codes; or to currents.

All return NumPy arrays. A user's encoder is any function or record that implements `Encoder`; it is
passed to `fit(..., encoder=...)`, or is the `encoder` of `Splits`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from jaxsnn.errors import UsageError, as_integer, as_number, shown
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.spikes import Events, refuse_traced
from jaxsnn.network.valued_inputs import Currents, Input
from jaxsnn.nir.initializers import Seed, generator_of
from jaxsnn.wording import Text


class Encoder(Protocol):
    """Encoder of values as spikes: a function, or a frozen dataclass, whose fields are shown in the
    record of a run.

    It is called once for each part of the data, before training, outside of compiled code, and
    need not be traceable. It has no gradient: training differentiates with respect to the
    parameters of the network, not to its inputs. It must return the same spikes each time, so
    that a run that is resumed equals an uninterrupted run.
    """

    def __call__(self, values: Any, /) -> Input:
        """Return the spikes of all samples.

        Args:
            values: numbers of the data, (samples, ...).

        Returns:
            Events with NumPy or JAX arrays (samples, events): `time` in seconds from the start of
            the sample, in any order, `inf` in slots that are not used; `index` int32, the number
            of the input channel from 0, in unused slots the number of channels. `GradedEvents` and
            `Currents` will do, too.

        Raises:
            UsageError: values that the encoder does not support.
        """
        ...


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class Latency:
    """Encoder of each value from 0 to 1 as one spike of its channel: 1 at t_min, 0 at t_max.

    By convention large values, such as bright pixels, spike first.

    Attributes:
        t_min, t_max: first and last spike time of values, in seconds.
        bias: whether to add a channel after the others that spikes at t_min in every sample.
        first: values that spike first, "large" or "small"; small values spike at t_min + value
            (t_max - t_min).
        least: largest value that is encoded without a spike, such as that of dark pixels; None:
            each value has a spike.
        clock: times in seconds; each adds a channel, after all others, that spikes at this time in
            every sample. Late times help neurons fire that receive little other input.

    >>> encode = Latency(t_min=0.0, t_max=0.01, bias=True)
    >>> events = encode(np.array([[0.5, 1.0]]))
    >>> events.time.tolist(), events.index.tolist()
    ([[0.005, 0.0, 0.0]], [[0, 1, 2]])
    >>> Latency(t_min=0.0, t_max=0.01, first="small")(np.array([[0.5, 1.0]])).time.tolist()
    [[0.005, 0.01]]
    """

    t_min: float
    t_max: float
    bias: bool = False
    first: Literal["large", "small"] = "large"
    least: float | None = None
    clock: tuple[float, ...] = ()

    def last(self, _values: Any) -> float:
        """Return the latest possible time of an event, seconds."""
        return max([self.t_max, *self.clock])

    def __call__(self, values: Any) -> Events:
        """Return the events (samples, channels) of values (samples, ...), their other axes
        flattened; NaN is no spike. With `least` events are in order of time, and have the number of
        slots of the longest sample.

        Raises:
            UsageError: a value outside 0 to 1, no values, times that do not increase, or fields that
                are not finite numbers.
        """
        if self.first not in ("large", "small"):
            raise UsageError(
                Text("first is {first!r}", first=self.first),
                fix='pass first="large" or first="small"',
            )
        if not 0 <= as_number(self.t_min) <= as_number(self.t_max) < np.inf:
            raise UsageError(
                Text(
                    "t_min is {t_min} s, and t_max is {t_max} s",
                    t_min=shown(self.t_min),
                    t_max=shown(self.t_max),
                ),
                fix="pass 0 <= t_min <= t_max, in seconds",
            )
        if self.least is not None:
            _refuse_numbers(least=self.least)
        if not np.iterable(self.clock):
            raise UsageError(
                Text("clock is {clock}", clock=shown(self.clock)),
                fix="pass times in seconds, such as (0.0, 0.01)",
            )
        for moment in self.clock:
            _refuse_numbers(0.0, clock=moment)
        flat = _flat_values(values, "latency")
        channels = flat.shape[1] + len(self._always)
        return _joined([self._of_part(part) for part in _split(flat, channels)], channels)

    def channels(self, values: Any) -> int:
        """Return the number of channels for values (samples, ...)."""
        return math.prod(np.shape(values)[1:]) + len(self._always)

    @property
    def _always(self) -> tuple[float, ...]:
        """Spike times of the channels that spike in every sample."""
        return (*([self.t_min] if self.bias else []), *self.clock)

    def _of_part(self, values: np.ndarray) -> Events:
        """Encode some of the samples, to limit the memory for copies of each."""
        share = values if self.first == "small" else 1 - values
        time = self.t_min + share * (self.t_max - self.t_min)
        if self.least is not None:
            time = np.where(values > self.least, time, np.inf)
        always = np.broadcast_to(
            np.asarray(self._always, time.dtype), (len(time), len(self._always))
        )
        time = np.concatenate([time, always], axis=1)
        if self.least is None:
            return _events(time, np.arange(time.shape[1]), time.shape[1])
        return _packed(time, np.broadcast_to(np.arange(time.shape[1]), time.shape), time.shape[1])


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class Current:
    """Encoder of each value as a constant current of its channel, for example of images.

    Attributes:
        scale: current of the value 1.
        bias: whether to add a channel after the others that has the value 1 in every sample.

    >>> currents = Current(bias=True)(np.array([[0.5, -2.0]]))
    >>> currents.time.tolist(), currents.value.tolist()
    ([[0.0]], [[[0.5, -2.0, 1.0]]])
    """

    scale: float = 1.0
    bias: bool = False

    def last(self, _values: Any) -> float:
        """Return the time at which the last piece of the current begins, seconds."""
        return 0.0

    def __call__(self, values: Any) -> Currents:
        """Return the currents (samples, 1 piece, channels) of values (samples, ...), any finite
        numbers, their other axes flattened.

        Raises:
            UsageError: a value or scale that is not finite, or no values.
        """
        _refuse_numbers(scale=self.scale)
        values = _in_numpy(values, float)
        if values.ndim < 2:
            raise UsageError(
                Text("the values have shape {shape}", shape=values.shape),
                fix="pass values of shape (samples, channels)",
            )
        flat = values.reshape(len(values), -1)
        _refuse_values(flat, ~np.isfinite(flat), "pass finite numbers")
        if self.bias:
            flat = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
        return Currents.constant(self.scale * flat)


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class Rate:
    """Encoder of each value from 0 to 1 as a Poisson train of its channel with the rate value *
    highest.

    Attributes:
        highest: rate of the value 1, in spikes per second.
        duration: duration of the trains in seconds.
        seed: random seed of the spikes, an integer or a `jax.random` key: equal values are encoded
            as equal spikes.

    >>> events = Rate(highest=100.0, duration=1.0)(np.array([[0.0, 1.0]]))
    >>> 70 < events.count[0] < 130, set(events.index[0].tolist()) <= {1, 2}
    (Array(True, dtype=bool), True)
    """

    highest: float
    duration: float
    seed: Seed = 0

    def last(self, _values: Any) -> float:
        """Return the latest possible time of an event, seconds."""
        return self.duration

    def __call__(self, values: Any) -> Events:
        """Return the events (samples, events) of values (samples, ...), their other axes flattened;
        NaN is silence.

        Raises:
            UsageError: a value outside 0 to 1, or a rate or duration below 0.
        """
        _refuse_numbers(0.0, highest=self.highest, duration=self.duration)
        values = np.nan_to_num(_flat_values(values, "rate"), nan=0.0)
        generator = generator_of(self.seed)
        counts = generator.poisson(values * self.highest * self.duration)
        slots, channels = max(int(counts.max(initial=0)), 1), values.shape[1]

        def of_part(counts: np.ndarray) -> Events:
            time = generator.uniform(0.0, self.duration, (*counts.shape, slots))
            time[np.arange(slots) >= counts[..., None]] = np.inf
            index = np.broadcast_to(np.arange(counts.shape[1])[:, None], time.shape)
            time, index = (array.reshape(len(counts), -1) for array in (time, index))
            return _packed(time, index, channels)

        return _joined([of_part(part) for part in _split(counts, channels * slots)], channels)

    def channels(self, values: Any) -> int:
        """Return the number of channels for values (samples, ...)."""
        return math.prod(np.shape(values)[1:])


class _OfSignals:
    """Base class of encoders of signals in frames."""

    frame: float

    def last(self, values: Any) -> float:
        """Return the latest possible time of an event, seconds."""
        shape = np.shape(values)
        return (shape[1] if len(shape) > 2 else 1) * self.frame


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class Delta(_OfSignals):
    """Encoder of signals by level crossings: a spike whenever a signal has moved by `step` since
    the last one; two channels for each signal.

    Channel 2n fires where signal n rises, channel 2n + 1 where it falls. Between frames signals are
    straight lines, so that times are exact.

    Attributes:
        step: change of the signal per spike.
        frame: seconds from one value to the next.

    >>> events = Delta(step=1.0, frame=0.01)(np.array([[[0.0], [2.0], [1.0]]]))
    >>> events.time.round(6).tolist(), events.index.tolist()
    ([[0.005, 0.01, 0.02]], [[0, 0, 1]])
    """

    step: float
    frame: float

    def __call__(self, values: Any) -> Events:
        """Return the events (samples, events) of values (samples, time, channels); NaN ends a
        signal.

        Raises:
            UsageError: values of another shape, infinite ones, or a step or frame that is not above
                0.
        """
        _refuse_numbers(_ABOVE, step=self.step, frame=self.frame)
        values = _signals(_in_numpy(values, float), "delta encoding")
        _refuse_values(
            values, np.isinf(values), "pass finite numbers, or NaN after the end of a signal"
        )
        values = _until_nan(values)
        trains = [self._sample(sample) for sample in values]
        slots = max([len(times) for times, _ in trains] + [1])
        time = np.full((len(trains), slots), np.inf)
        index = np.zeros(time.shape, np.int32)
        for n, (times, channels) in enumerate(trains):
            time[n, : len(times)], index[n, : len(times)] = times, channels
        return _events(time, index, self.channels(values))

    def channels(self, values: Any) -> int:
        """Return the number of channels for values (samples, time, channels)."""
        return 2 * np.shape(values)[-1]

    def _sample(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        times, channels = [], []
        for channel, signal in enumerate(values.T if len(values) else ()):
            level = signal[0]
            for frame in range(len(signal) - 1):
                before, after = signal[frame], signal[frame + 1]
                if np.isnan(after):
                    break
                # Rounding must not drop a crossing that coincides with a frame.
                crossed = int(np.floor(abs(after - level) / self.step + _ROUNDING))
                sign = 1 if after >= level else -1
                for _ in range(crossed):
                    level += sign * self.step
                    share = (
                        np.clip((level - before) / (after - before), 0.0, 1.0)
                        if after != before
                        else 0.0
                    )
                    times.append((frame + share) * self.frame)
                    channels.append(2 * channel + (sign < 0))
        order = np.argsort(times, kind="stable")
        return np.asarray(times)[order], np.asarray(channels, np.int32)[order]


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class LevelCrossing(_OfSignals):
    """Encoder of signals by level crossings with a channel for each level: a spike whenever a
    signal reaches it.

    Channel (2 n + 1) L + m fires where signal n falls to level m of L, channel 2 n L + m where it
    rises to it. Before its first value a signal is below all levels. Between frames signals are
    straight lines, so that times are exact.

    Attributes:
        levels: increasing levels.
        frame: seconds from one value to the next.

    >>> encode = LevelCrossing(levels=(0.5, 1.0), frame=0.01)
    >>> events = encode(np.array([[[0.0], [2.0], [0.75]]]))
    >>> events.time.round(6).tolist(), events.index.tolist()
    ([[0.0025, 0.005, 0.018]], [[0, 1, 3]])
    """

    levels: tuple[float, ...]
    frame: float

    def __call__(self, values: Any) -> Events:
        """Return the events (samples, events) of values (samples, time, channels), or (samples,
        channels), which are one frame: a spike at time 0 for each level that a value exceeds; NaN
        ends a signal.

        Raises:
            UsageError: levels that do not increase, values of another shape, or a frame that is not
                above 0.
        """
        _refuse_numbers(_ABOVE, frame=self.frame)
        levels = _rising("levels", self.levels)
        values = _in_numpy(values)
        values = _signals(
            values[:, None] if values.ndim == 2 else values, "level-crossing encoding"
        )
        parts = _split(values, math.prod(values.shape[1:]) * len(levels))
        return _joined([self._of_part(part, levels) for part in parts], self.channels(values))

    def channels(self, values: Any) -> int:
        """Return the number of channels for values (samples, time, channels), or (samples,
        channels).
        """
        return 2 * np.shape(values)[-1] * len(self.levels)

    def _of_part(self, values: np.ndarray, levels: np.ndarray) -> Events:
        """Encode some of the samples."""
        # (samples, frames, signals, levels); before the first frame signals are below all levels
        after = _until_nan(np.asarray(values, float))[..., None]
        before = np.concatenate([np.full_like(after[:, :1], -np.inf), after[:, :-1]], axis=1)
        rises, falls = (before < levels) & (after >= levels), (before >= levels) & (after < levels)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(np.isfinite(before), (levels - before) / (after - before), 1.0)
        ends = np.arange(values.shape[1])[:, None, None]
        time = np.maximum(ends - 1 + share, 0.0) * self.frame
        signal = np.arange(values.shape[2])[:, None] * 2
        index = signal * len(levels) + np.arange(len(levels))
        # A signal either rises or falls from frame to frame, so rises and falls share a slot.
        flat = np.where(falls, index + len(levels), index).reshape(len(values), -1)
        time = np.where(rises | falls, time, np.inf).reshape(len(values), -1)
        return _packed(time, flat, self.channels(values))


@suggests_keywords
@dataclass(frozen=True, kw_only=True)
class PopulationCode(_OfSignals):
    """Encoder of each value as spikes of the channels with the nearest centres; the farther away the
    centre, the later the spike.

    Channel n * (number of centres) + m belongs to centre m of signal n. With the distance d to the
    centre and s the smallest distance between centres, the spike comes min(d / s, 1) of a frame
    after the frame begins.

    Attributes:
        centres: increasing centres.
        frame: seconds from one value to the next.
        nearest: number of the nearest centres that fire.

    >>> encode = PopulationCode(centres=(0.0, 1.0), frame=0.01)
    >>> events = encode(np.array([[[0.25], [1.0]]]))
    >>> events.time.tolist(), events.index.tolist()
    ([[0.0025, 0.01]], [[0, 1]])
    """

    centres: tuple[float, ...]
    frame: float
    nearest: int = 1

    def __call__(self, values: Any) -> Events:
        """Return the events (samples, events) of values (samples, time, channels), or (samples,
        channels); NaN is no spike.

        Raises:
            UsageError: centres that do not increase, values of another shape or infinite ones, or fields
                that are invalid.
        """
        _refuse_numbers(_ABOVE, frame=self.frame)
        _rising("centres", self.centres)
        values = _in_numpy(values, float)
        values = _signals(values[:, None] if values.ndim == 2 else values, "population encoding")
        if not 1 <= (as_integer(self.nearest) or 0) <= len(self.centres):
            raise UsageError(
                Text(
                    "nearest is {nearest}, and the number of centres is {centres}",
                    nearest=self.nearest,
                    centres=len(self.centres),
                ),
                fix="pass an integer from 1 to the number of centres",
            )
        _refuse_values(values, np.isinf(values), "pass finite numbers, or NaN for no spike")
        _, frames, signals = values.shape
        parts = _split(values, frames * signals * len(self.centres))
        return _joined([self._of_part(part) for part in parts], self.channels(values))

    def channels(self, values: Any) -> int:
        """Return the number of channels for values (samples, time, channels), or (samples,
        channels).
        """
        return np.shape(values)[-1] * len(self.centres)

    def _of_part(self, values: np.ndarray) -> Events:
        """Encode some of the samples."""
        centres = np.asarray(self.centres)
        spacing = float(np.diff(centres).min()) if len(centres) > 1 else 1.0
        away = np.abs(values[..., None] - centres)
        closest = np.argsort(away, axis=-1, kind="stable")[..., : self.nearest]
        share = np.minimum(np.take_along_axis(away, closest, axis=-1) / spacing, 1.0)
        _, frames, channels = values.shape
        time = (np.arange(frames)[:, None, None] + share) * self.frame
        index = closest + len(centres) * np.arange(channels)[:, None]
        time, index = (array.reshape(len(time), -1) for array in (time, index))
        return _packed(time, index, self.channels(values))


_ROUNDING = 1e-9
#: Smallest number above 0.
_ABOVE = float(np.finfo(float).tiny)
#: Maximum number of intermediate values in memory at once; those of all samples would need far more
#: memory than the events.
_AT_ONCE = 2**21


def _split(values: np.ndarray, numbers: int) -> list[np.ndarray]:
    """Split the samples into parts that fit into memory.

    Args:
        numbers: intermediate numbers of each sample.
    """
    parts = len(values) * numbers // _AT_ONCE + 1
    return np.array_split(values, min(parts, max(len(values), 1)))


def _joined(parts: list[Events], channels: int) -> Events:
    """Return the events of all parts, padded to the slots of the widest."""
    if len(parts) == 1:
        return parts[0]
    slots = max(part.time.shape[1] for part in parts)

    def joined_field(name: str, unused: float) -> np.ndarray:
        arrays = [np.asarray(getattr(part, name)) for part in parts]
        padded = [
            np.pad(array, [(0, 0), (0, slots - array.shape[1])], constant_values=unused)
            for array in arrays
        ]
        return np.concatenate(padded)

    return Events(time=joined_field("time", np.inf), index=joined_field("index", channels))


def _refuse_numbers(least: float = -np.inf, /, **fields: Any) -> None:
    """Refuse fields of an encoder that are not finite numbers, or below `least`."""
    named = {_ABOVE: "a number above 0", 0.0: "a number of at least 0"}
    requirement = named.get(least, "a finite number")
    for name, value in fields.items():
        number = as_number(value)
        if not (np.isfinite(number) and number >= least):
            raise UsageError(
                Text("{parameter} is {value}", parameter=name, value=shown(value)),
                fix=f"pass {requirement}",
            )


def _refuse_values(values: np.ndarray, bad: np.ndarray, fix: str) -> None:
    """Refuse values (samples, channels) or (samples, time, channels) of which some are `bad`."""
    if bad.any():
        sample, *_, channel = place = tuple(map(int, np.argwhere(bad)[0]))
        raise UsageError(
            Text(
                "sample {sample}, channel {channel} has the value {value:.9g}",
                sample=sample,
                channel=channel,
                value=values[place],
            ),
            fix=fix,
        )


def _rising(name: str, numbers: Any) -> np.ndarray:
    """Return levels or centres, checked to be finite and to rise."""
    values = np.array([*map(as_number, numbers if np.iterable(numbers) else ())])
    if values.size == 0 or not np.isfinite(values).all() or (np.diff(values) <= 0).any():
        raise UsageError(
            Text("{parameter} are {value}", parameter=name, value=numbers),
            fix=f"pass increasing {name}",
        )
    return values


def _signals(values: np.ndarray, purpose: str) -> np.ndarray:
    """Return values, checked to be signals (samples, time, channels)."""
    if values.ndim != 3:
        fix = f"pass values of shape (samples, time, channels), which {purpose} requires"
        raise UsageError(Text("the values have shape {shape}", shape=values.shape), fix=fix)
    return values


def _until_nan(values: np.ndarray) -> np.ndarray:
    """Return signals (samples, time, channels) that are NaN from their first NaN on."""
    return np.where(np.logical_or.accumulate(np.isnan(values), axis=1), np.nan, values)


def _in_numpy(values: Any, dtype: Any = None) -> np.ndarray:
    """Return values as a NumPy array.

    Raises:
        UsageError: the values are traced.
    """
    refuse_traced(values, "values")
    return np.asarray(values, dtype)


def _flat_values(values: Any, encoding: str) -> np.ndarray:
    """Return values (samples, channels), checked to lie between 0 and 1; NaN passes. float32 is
    kept.
    """
    values = _in_numpy(values)
    values = values if values.dtype == np.float32 else values.astype(float)
    if values.ndim < 2:
        raise UsageError(
            Text("the values have shape {shape}", shape=values.shape),
            fix="pass values of shape (samples, channels)",
        )
    values = values.reshape(len(values), -1)
    fix = f"scale the data: {encoding} encoding requires values from 0 to 1"
    _refuse_values(values, (values < 0) | (values > 1), fix)
    return values


def _packed(time: np.ndarray, index: np.ndarray, channels: int) -> Events:
    """Return events in order of time, without slots that no sample uses; a time that is not finite
    is unused.
    """
    time = np.where(np.isfinite(time), time, np.inf)
    order = np.argsort(time, axis=1, kind="stable")
    slots = max(int(np.isfinite(time).sum(axis=1).max(initial=0)), 1)
    time, index = (np.take_along_axis(array, order, axis=1)[:, :slots] for array in (time, index))
    return _events(time, index, channels)


def _events(time: np.ndarray, index: np.ndarray, channels: int) -> Events:
    used = np.isfinite(time)
    index = np.where(used, index, channels).astype(np.int32)
    return Events(time=np.where(used, time, np.inf), index=index)
