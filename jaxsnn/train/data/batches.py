"""Samples as arrays for a network, and their order in an epoch; data that do not fit in memory are
encoded a piece at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import Note, UsageError, listing
from jaxsnn.network.inputs import checked_inputs, refuse_other_axes, shape_of_input
from jaxsnn.network.network import Network
from jaxsnn.network.on_processor import to_jax
from jaxsnn.network.slots import bucket, with_slots
from jaxsnn.network.spikes import Events
from jaxsnn.network.valued_inputs import Currents, GradedEvents
from jaxsnn.nir.initializers import Seed, generator_of
from jaxsnn.options import T_END
from jaxsnn.simulation.solution import Engine
from jaxsnn.simulation.stored_events import BYTES_OF_AN_EVENT
from jaxsnn.train.data.datasets import Data, Rows, check_data, select_samples
from jaxsnn.train.data.encoders import (
    Current,
    Delta,
    Encoder,
    Latency,
    LevelCrossing,
    PopulationCode,
    Rate,
)
from jaxsnn.train.options import OPTIONS
from jaxsnn.units import format_time, look_like_milliseconds
from jaxsnn.wording import Text

#: Encoders with a known number of channels.
_BUILTIN_ENCODERS = (Latency, Rate, Delta, LevelCrossing, PopulationCode)


class Batch(NamedTuple):
    """Samples in the form that the training loop scans.

    Attributes:
        inputs: Events or GradedEvents (samples, events), times in seconds, Currents (samples,
            pieces), or on the time-stepped engine an array (samples, time, *shape).
        labels: (samples,) int32.
    """

    inputs: Any
    labels: jax.Array

    def take(self, index: jax.Array) -> Batch:
        """Return the samples of an index array."""
        return jax.tree.map(lambda array: array[index], self)

    def take_here(self, index: np.ndarray) -> Batch:
        """Return the samples of an index array as NumPy arrays, so that nothing is compiled for the
        number of samples.
        """
        return jax.tree.map(lambda array: np.asarray(array)[index], self)

    @property
    def slots(self) -> int:
        """Number of slots of the events or currents; 0 where there are none."""
        return self.inputs.time.shape[-1] if hasattr(self.inputs, "time") else 0


def shuffled_batches(samples: int, batch_size: int, seed: Seed) -> np.ndarray:
    """Return a shuffled order of samples, (batches, batch_size); an incomplete batch is dropped."""
    order = generator_of(seed).permutation(samples).astype(np.int32)
    batches = samples // batch_size
    return order[: batches * batch_size].reshape(batches, batch_size)


def ordered_batches(samples: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all samples in order, (batches, batch_size), the last batch padded with sample 0, and
    the mask of the samples that are not padding.
    """
    batches = -(-samples // batch_size)
    order = np.arange(batches * batch_size, dtype=np.int32).reshape(batches, batch_size)
    used = order < samples
    return np.where(used, order, 0), used


def even_batch_size(batch_size: int, samples: int, devices: int) -> tuple[int, list[str]]:
    """Return the batch size that fits samples and devices, and notes on changes of it.

    Args:
        batch_size: batch size of the options.
        samples: number of training samples.

    Raises:
        UsageError: more devices than samples.
    """
    notes: list[str] = []
    size = min(batch_size, samples)
    if size != batch_size:
        notes.append(
            Text(
                "the batch size is {actual}, not {expected}, because there are no more samples",
                actual=size,
                expected=batch_size,
            )
        )
    if devices > samples:
        raise UsageError(
            Text(
                "{option} is {devices}, and the number of training samples is {samples}",
                option=OPTIONS["devices"],
                devices=devices,
                samples=samples,
            ),
            fix=f"pass at most {samples}",
        )
    shared = max(size // devices, 1) * devices
    if shared != size:
        notes.append(
            Text(
                "the batch size is {actual}, not {expected}, so that {devices} devices share a "
                "batch evenly",
                actual=shared,
                expected=size,
                devices=devices,
            )
        )
    if samples % shared:
        notes.append(
            Text(
                "training samples that are dropped in each epoch, because they do not fill a batch: "
                "{count} of {samples}, chosen at random (a smaller {option} drops fewer)",
                count=samples % shared,
                samples=samples,
                option=OPTIONS["batch_size"],
            )
        )
    return shared, notes


def encoded(
    data: Data,
    network: Network,
    *,
    population: str,
    encoder: Encoder | None,
    engine: Engine,
    data_name: str,
) -> Batch:
    """Encode a split as arrays for the network, and check it.

    Raises:
        UsageError: labels, channels or times that do not match the network; the message begins with
            `data_name`.
    """
    check_data(data, data_name)
    if len(network.inputs) != 1:
        raise UsageError(
            Text(
                "the network has {count} inputs ({inputs}), and training supports 1",
                count=len(network.inputs),
                inputs=listing(network.inputs),
            ),
            fix="use one Input that feeds the former inputs through Linear nodes",
        )
    (name, channels), events = next(iter(network.inputs.items())), data.x
    labels = to_jax(np.asarray(data.y, np.int32))
    outputs = next(wire.size for wire in network.wires if wire.name == population)
    if len(data.classes) > outputs:
        is_population = population in network.populations
        template = (
            "{data} has {classes} classes, and population '{population}' has {neurons} neurons"
            if is_population
            else "{data} has {classes} classes, and node '{population}' has {neurons} channels"
        )
        raise UsageError(
            Text(
                template,
                data=data_name,
                classes=len(data.classes),
                population=population,
                neurons=outputs,
            ),
            fix="number the classes from 0, or use an output population with a neuron for each class"
            if is_population
            else "use an output with a channel for each class",
            node=population,
        )
    if not hasattr(events, "time"):
        if encoder is None and engine.takes_rasters:
            return Batch(inputs=_over_time(network, name, events, data_name), labels=labels)
        if encoder is None:
            raise UsageError(
                Text("{data} contains values, not events", data=data_name),
                fix=Text(
                    "pass an encoder: {encoder}",
                    encoder=OPTIONS["encoder"].set_to("latency", "current"),
                ),
            )
        if isinstance(encoder, Latency | Current | Rate):  # these encoders join the axes
            axes, shape = np.shape(data.x)[1:], shape_of_input(network, name)
            if axes[1:] == shape and axes[0] > 1:  # the encoder takes each channel once
                raise UsageError(
                    Text(
                        "{data} has {steps} time steps of shape {shape}, and {encoder} encodes one "
                        "value per channel",
                        data=data_name,
                        steps=axes[0],
                        shape=shape,
                        encoder=type(encoder).__name__,
                    ),
                    fix="pass events instead, such as Events.of_steps(x, dt) for spikes in time steps",
                )
            refuse_other_axes(name, axes, shape)
        events = encoder(events)
        if (
            isinstance(encoder, _BUILTIN_ENCODERS)
            and (encoder_channels := encoder.channels(data.x)) != channels
        ):
            is_latency = isinstance(encoder, Latency)
            has_bias = is_latency and encoder.bias
            bias = Text(" (including the bias channel)" if has_bias else "")
            raise UsageError(
                Text(
                    "{data} has {actual} channels{bias}, and input '{input}' has {expected}",
                    data=data_name,
                    actual=encoder_channels,
                    bias=bias,
                    input=name,
                    expected=channels,
                ),
                fix="use the same number of channels"
                f"{'; the field bias of Latency adds one channel' * is_latency}",
                node=name,
            )
    elif data.channels not in (None, channels):
        raise UsageError(
            Text(
                "{data} has events of {actual} channels, and input '{input}' has {expected}",
                data=data_name,
                actual=data.channels,
                input=name,
                expected=channels,
            ),
            fix="use recordings of that input, or an input with as many channels",
            node=name,
        )
    else:
        if data.shape is not None:
            refuse_other_axes(name, data.shape, shape_of_input(network, name))
        events = jax.tree.map(
            lambda leaf: np.asarray(leaf) if isinstance(leaf, Rows) else leaf, events
        )
    train = checked_inputs(network, events)[name]
    return Batch(inputs=to_jax(train), labels=labels)


def late_notes(splits: Mapping[str, Batch], t_end: float) -> list[str]:
    """Return a sentence for each part of the data with events at or after the end, for example because
    times are in milliseconds.

    Args:
        splits: samples by the name of the part.
        t_end: end of a sample in seconds.
    """
    notes = []
    for part, batch in splits.items():
        if not isinstance(batch.inputs, Events | GradedEvents | Currents):
            continue
        time = np.asarray(batch.inputs.time)
        used = np.isfinite(time)
        if isinstance(batch.inputs, Currents):  # a current of 0 after the end has no effect
            used &= np.asarray(batch.inputs.value).any(axis=-1)
        if late := int((used & (time >= t_end)).sum()):
            text = Text(
                "{part}: {late} of {events} events are at or after {option} and are left out "
                "(times are in seconds)",
                part=part,
                late=late,
                events=int(used.sum()),
                option=T_END.equal_to(format_time(t_end)),
            )
            notes.append(Note(text, kind="dropped", code="late-events"))
    return notes


def late_sample_notes(splits: Mapping[str, Batch | Streamed], t_end: float) -> list[str]:
    """Return a sentence for each streamed part of events in files with samples that end too late: of such
    parts `late_notes` inspects only the first samples.

    Args:
        splits: samples by the name of the part.
        t_end: end of a sample in seconds.
    """
    notes = []
    for part, split in splits.items():
        rows = getattr(split.data.x, "time", None) if isinstance(split, Streamed) else None
        if not isinstance(rows, Rows) or rows.stored is None:
            continue
        if late := int((rows.stored.last[rows.index] >= t_end).sum()):
            text = Text(
                "{part}: {late} of {samples} samples have events at or after {option}, which are left out",
                part=part,
                late=late,
                samples=len(rows),
                option=T_END.equal_to(format_time(t_end)),
            )
            notes.append(Note(text, kind="dropped", code="late-samples"))
    return notes


#: Fraction of the shortest time constant within which events are so close together that their times are
#: perhaps in another unit.
_BRIEF = 0.02


def brief_event_notes(network: Network, splits: Mapping[str, Batch]) -> Iterator[str]:
    """Yield a note if all events lie within a small fraction of the shortest time constant, so that their
    times may be in another unit. If all are at time 0, there is no note.

    Time constants of a framework that steps through time were computed by an exporter, and may be long.

    Args:
        splits: samples by the name of the part.
    """
    taus = [
        np.min(np.asarray(value))
        for name, population in network.populations.items()
        if not population.steps_through_time and not population.counts_steps
        for key, value in network.parameters[name].items()
        if key.startswith("tau")
    ]
    shortest = float(min(taus, default=np.inf))
    last = 0.0
    for batch in splits.values():
        if not isinstance(batch.inputs, Events | GradedEvents):
            return
        time = np.asarray(batch.inputs.time)
        last = max(last, float(time[np.isfinite(time)].max(initial=0.0)))
    # `time_constant_notes` reports time constants that look like milliseconds.
    if look_like_milliseconds(shortest) or shortest == np.inf:
        return
    if 0 < last < _BRIEF * shortest:
        text = Text(
            "the last event of the samples is at {last}, {ratio:.2g} times the shortest time constant, {tau} "
            "(times are in seconds)",
            last=format_time(last),
            ratio=last / shortest,
            tau=format_time(shortest),
        )
        yield Note(text, kind="assumed", code="times-in-seconds")


def _over_time(network: Network, name: str, x: Any, split_name: str) -> jax.Array:
    """Return arrays (samples, time, *shape) for the time-stepped engine."""
    shape = shape_of_input(network, name)
    if np.shape(x)[2:] != shape:
        expected = ", ".join(map(str, ("samples", "time", *shape)))
        raise UsageError(
            Text(
                "{data} has shape {shape}, and for input '{input}' the time-stepped engine requires "
                "({expected})",
                data=split_name,
                shape=np.shape(x),
                input=name,
                expected=expected,
            ),
            fix="move the axes, or pass Events",
            node=name,
        )
    return jnp.asarray(x, network.dtype)


#: Bytes of the padded events that are read from files at once by default.
_STREAMED_BYTES = 2**27
#: Number of samples that are encoded in two orders, to detect encoders that mix samples.
_COMPARED = 8


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """Split whose samples are encoded when they are needed, in the form of a `Batch`.

    Attributes:
        data: samples, whose arrays may lie on the disk (`jaxsnn.train.data.datasets.Rows`).
        encode: function that encodes some of the samples as a `Batch`.
        at_once: number of samples in memory at once, at least one batch.
        channels: number of channels of the input, which is the index of unused slots.
    """

    data: Data
    encode: Callable[[Data], Batch]
    at_once: int
    channels: int

    @property
    def labels(self) -> np.ndarray:
        """Labels, (samples,) int32."""
        return self.data.y

    def take(self, index: np.ndarray) -> Batch:
        """Encode and return the samples of an index array."""
        batch = self.encode(select_samples(self.data, np.asarray(index)))
        return batch._replace(inputs=self._padded(batch.inputs))

    def refuse_dependent(self) -> None:
        """Refuse an encoder whose spikes of a sample depend on the other samples of a call, such as
        random numbers that are drawn for all samples in sequence: from epoch to epoch, a sample is
        encoded together with different samples.
        """
        index = np.arange(min(_COMPARED, len(self.data)))
        batch, reversed_batch = self.take(index), self.take(index[::-1])
        pairs = zip(jax.tree.leaves(batch), jax.tree.leaves(reversed_batch), strict=True)
        if any(
            not np.array_equal(leaf, np.asarray(reversed_leaf)[::-1])
            for leaf, reversed_leaf in pairs
        ):
            raise UsageError(
                Text(
                    "the spikes that the encoder returns for a sample depend on the other samples of the "
                    "call, which change with {stream}",
                    stream=OPTIONS["stream"].set_to(self.at_once),
                ),
                fix=Text(
                    "leave {stream} out, or use an encoder that encodes each sample independently",
                    stream=OPTIONS["stream"],
                ),
            )

    def _padded(self, inputs: Any) -> Any:
        """Pad events to a power of two slots: each number of slots is compiled separately."""
        if isinstance(inputs, Currents) or not hasattr(inputs, "time"):
            return inputs
        return to_jax(with_slots(inputs, bucket(inputs.time.shape[1]), self.channels))

    def digest(self) -> str:
        """Return a hash of all samples and labels, read piece by piece."""
        sha256 = hashlib.sha256(np.ascontiguousarray(self.data.y).tobytes())
        for leaf in jax.tree.leaves(self.data.x):
            if isinstance(leaf, Rows) and leaf.stored is not None:
                sha256.update(leaf.stored.digest(leaf.index))
                continue
            for first in range(0, len(self.data), self.at_once):
                part = np.asarray(leaf[np.arange(first, min(first + self.at_once, len(self.data)))])
                sha256.update(part.tobytes())
        return sha256.hexdigest()


def pieces(split: Batch | Streamed, order: np.ndarray) -> Iterator[tuple[Batch, np.ndarray, int]]:
    """Yield the batches of an epoch in pieces: samples, their order (batches, batch_size) in these,
    and the number of the first batch. A split in memory is one piece.

    Args:
        order: indices of samples, (batches, batch_size).
    """
    if isinstance(split, Batch):
        yield split, order, 0
        return
    batches = max(split.at_once // order.shape[1], 1)
    for first in range(0, len(order), batches):
        part = order[first : first + batches]
        places = np.arange(part.size, dtype=np.int32).reshape(part.shape)
        yield split.take(part.reshape(-1)), places, first


def evaluation_parts(
    split: Batch | Streamed,
    parts: Iterable[tuple[np.ndarray, np.ndarray]],
    slots: int,
    channels: int,
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yield the samples of each batch, and the mask of those that are not padding.

    Args:
        parts: indices of samples (batch,), and the mask of those that are not padding (batch,).
        slots: minimum number of slots of events, so that all splits share compiled code.
        channels: number of channels of the input.
    """
    for order, used in parts:
        batch = split.take_here(order) if isinstance(split, Batch) else split.take(order)
        if batch.slots:
            batch = batch._replace(inputs=with_slots(batch.inputs, slots, channels))
        yield batch, used


def split_of(
    data: Data, encode: Callable[[Data], Batch], at_once: int | None, channels: int
) -> Batch | Streamed:
    """Return a split, encoded in memory; or a streamed one, if `at_once` is smaller than its number
    of samples.

    Args:
        at_once: number of samples to encode at once; None: all, but of events in files as many as
            have `_STREAMED_BYTES` padded.

    Raises:
        UsageError: an encoder that cannot be streamed.
    """
    stored = getattr(getattr(data.x, "time", None), "stored", None)
    if at_once is None and stored is not None:
        at_once = max(_STREAMED_BYTES // (stored.slots * BYTES_OF_AN_EVENT), 1)
    if at_once is None or at_once >= len(data):
        return encode(data)
    split = Streamed(data=data, encode=encode, at_once=at_once, channels=channels)
    split.refuse_dependent()
    return split


def first_pieces(splits: Mapping[str, Batch | Streamed]) -> dict[str, Batch]:
    """Return the samples to inspect before a run: all samples of splits in memory, and the first
    samples of streamed splits, whose names then contain the number of samples.
    """
    batches = {}
    for name, split in splits.items():
        if isinstance(split, Batch):
            batches[name] = split
        else:
            number = min(split.at_once, len(split.data))
            batches[f"{name}, its first {number} samples"] = split.take(np.arange(number))
    return batches


def identities(splits: Mapping[str, Batch | Streamed]) -> dict[str, Any]:
    """Return the data by which the fingerprint of a run identifies its splits."""
    return {
        name: split
        if isinstance(split, Batch)
        else np.frombuffer(split.digest().encode(), np.uint8)
        for name, split in splits.items()
    }
