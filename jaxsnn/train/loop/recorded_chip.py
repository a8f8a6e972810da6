"""Recordings of a chip: as a `Solution` with exact gradients at the recorded spikes, and as the
device of another epoch.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import Note, UsageError, as_number, listing
from jaxsnn.event.event_solution import EventSolution
from jaxsnn.files.array_files import load_arrays
from jaxsnn.network.inputs import place_of
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events
from jaxsnn.options import T_END
from jaxsnn.train.loop.in_the_loop import InTheLoop
from jaxsnn.units import format_time
from jaxsnn.wording import Text


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordedChip:
    """Device that replays recorded spikes, sample by sample, in any order of the samples.

    Attributes:
        times: population -> sorted spike times in seconds of the network, (samples, neurons, spikes),
            with inf in unused slots.
        inputs: Input node -> (time, index) of the events that were sent, (samples, events) each.
        t_end: duration of a recorded sample in seconds of the network; None if unknown.
        mapping: fingerprint of the mapping that was recorded; None if unknown.
        refractory: refractory period of the chip's neurons, seconds of the network; None if unknown.
        notes: what the file of the recording does not contain, a sentence each.
    """

    times: Mapping[str, np.ndarray]
    inputs: Mapping[str, tuple[np.ndarray, np.ndarray]]
    t_end: float | None = None
    mapping: str | None = None
    refractory: float | None = None
    notes: tuple[str, ...] = ()

    def forward(self, network: Network, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return the recorded spikes of samples whose inputs were sent. Recordings of inputs that
        were sent several times are returned in turn: the second such sample of a batch gets the
        second recording.

        Raises:
            UsageError: a sample that was not sent, or a spiking population that was not recorded.
        """
        for name, population in network.populations.items():
            if population.fires and name not in self.times:
                raise UsageError(
                    Text("the spikes of population '{node}' were not recorded", node=name),
                    fix="record all spiking populations",
                    node=name,
                )
        recorded: dict[str, list[int]] = {}
        for number, fingerprint in enumerate(sample_fingerprints(self.inputs).tolist()):
            recorded.setdefault(fingerprint, []).append(number)
        sent = {name: (events.time, events.index) for name, events in inputs.items()}
        places, met = [], Counter[str]()
        for number, fingerprint in enumerate(sample_fingerprints(sent).tolist()):
            if fingerprint not in recorded:
                raise UsageError(
                    Text(
                        "the inputs of sample {sample} are not among those of the {samples} recorded samples",
                        sample=number,
                        samples=self.samples,
                    ),
                    fix="train on the inputs that were sent to the chip",
                )
            repetitions = recorded[fingerprint]
            places.append(repetitions[met[fingerprint] % len(repetitions)])
            met[fingerprint] += 1
        return {name: times[places] for name, times in self.times.items()}

    @property
    def samples(self) -> int:
        """Number of recorded samples."""
        return len(next(iter(self.inputs.values()))[0])

    def solution(self, network: Network, t_end: float, **options: Any) -> EventSolution:
        """Return the recording as a solution of the network: losses and gradients are computed at
        its spikes.

        Args:
            network: network whose equations determine the gradients.
            t_end: end of a sample in seconds of the network.
            options: options of `InTheLoop`; by default all spikes are recorded, and the refractory
                period is that of the recording.
        """
        most = max((times.shape[2] for times in self.times.values()), default=1)
        chosen: dict[str, Any] = {"max_spikes": max(most, 1)} | options
        engine = InTheLoop(device=self, **chosen)
        events = {
            name: Events(time=jnp.asarray(arrays[0]), index=jnp.asarray(arrays[1]))
            for name, arrays in self.inputs.items()
        }
        solution = engine.run(network, events, t_end)
        notes = (*self.notes, *self.late_notes(t_end))
        return replace(solution, approximations=(*solution.approximations, *notes))

    def late_notes(self, t_end: float) -> Iterator[str]:
        """Yield a sentence for each population with recorded spikes that come too late, with their
        number.

        Args:
            t_end: end of a sample in seconds of the network.
        """
        end = format_time(t_end)
        for name, times in self.times.items():
            if count := int(np.sum((times >= t_end) & np.isfinite(times))):
                yield (
                    Text(
                        "population '{name}': {count} recorded spikes at or after {t_end} were left out "
                        "(times are in seconds)",
                        name=name,
                        count=count,
                        t_end=T_END.equal_to(end),
                    )
                )


def sample_fingerprints(inputs: Mapping[str, tuple[Any, Any]]) -> np.ndarray:
    """Return a fingerprint of the events of each sample, (samples,) text of 16 hexadecimal digits.

    It depends neither on the order of the events nor on padding. Times are rounded to float32, as
    programs store them with different precision. The scripts of `jaxsnn deploy` compute the same.

    Args:
        inputs: Input node -> (time, index), (samples, events) each, with inf in unused slots.
    """
    arrays = {
        name: (np.asarray(time).astype("<f4"), np.asarray(index).astype("<i8"))
        for name, (time, index) in inputs.items()
    }
    fingerprints = []
    for sample in range(len(next(iter(arrays.values()))[0])):
        digest = hashlib.sha256()
        for name in sorted(arrays):
            time, index = (array[sample] for array in arrays[name])
            time, index = time[np.isfinite(time)], index[np.isfinite(time)]
            order = np.lexsort((index, time))
            digest.update(name.encode() + b"\0" + time[order].tobytes() + index[order].tobytes())
        fingerprints.append(digest.hexdigest()[:16])
    return np.array(fingerprints, "<U16")


#: Arrays of a recording that do not belong to a population.
T_END_ARRAY, INPUTS_ARRAY, MAPPING_ARRAY = "t_end", "fingerprint.inputs", "fingerprint.mapping"
REFRACTORY_ARRAY = "refractory"


def identification(
    inputs: Mapping[str, tuple[Any, Any]], mapping: str, t_end: float, refractory: float
) -> dict[str, np.ndarray]:
    """Return the arrays of a recording that identify its inputs and its mapping.

    Args:
        inputs: Input node -> (time, index) of the events that were sent.
        mapping: `jaxsnn.bss2.mapping.digest` of the mapping.
        t_end: duration of a sample, seconds of the network.
        refractory: refractory period of the neurons, seconds of the network.
    """
    return {
        T_END_ARRAY: np.array(t_end, float),
        REFRACTORY_ARRAY: np.array(refractory, float),
        INPUTS_ARRAY: sample_fingerprints(inputs),
        MAPPING_ARRAY: np.array(mapping),
    }


def read_recording(
    recorded: str | os.PathLike[str],
    inputs: Mapping[str, tuple[Any, Any]],
    network: Network,
    *,
    mapping: str | None = None,
    refractory: float | None = None,
) -> RecordedChip:
    """Read the recording that the script of a deployed network, or `jaxsnn emulate`, wrote.

    Args:
        recorded: .npz file with NAME.time, NAME.index of each population that fires, or of some of
            them.
        inputs: Input node -> (time, index) of the events that were sent.
        network: deployed network.
        mapping: `jaxsnn.bss2.mapping.digest` of the mapping that was recorded; None if unknown.
        refractory: refractory period of that mapping, seconds of the network, for recordings of
            earlier versions, which do not contain it; None if unknown.

    Raises:
        FileError, UsageError: no such file, no recorded population or one that does not match,
            other inputs or another order of the samples, another mapping, or another refractory
            period.
    """
    arrays = load_arrays(recorded)
    sent: dict[str, tuple[np.ndarray, np.ndarray]] = {
        name: (np.atleast_2d(np.asarray(time)), np.atleast_2d(np.asarray(index)))
        for name, (time, index) in inputs.items()
    }
    samples = len(next(iter(sent.values()))[0])
    notes = [*_refuse_other_inputs(recorded, arrays, sent)]
    recorded_mapping = str(arrays[MAPPING_ARRAY]) if MAPPING_ARRAY in arrays else None
    if mapping is not None and recorded_mapping is None:
        notes.append(Note("the recording does not identify its mapping", kind="assumed"))
    elif mapping not in (None, recorded_mapping):
        raise UsageError(
            Text(
                "{path} was recorded with mapping {actual}, not {expected}",
                path=recorded,
                actual=recorded_mapping,
                expected=mapping,
            ),
            fix="pass the mapping that was deployed or emulated",
        )
    recorded_refractory = _recorded_seconds(recorded, arrays, REFRACTORY_ARRAY)
    if (
        refractory is not None
        and recorded_refractory is not None
        and not np.isclose(refractory, recorded_refractory, rtol=2**-20, atol=0)
    ):
        raise UsageError(
            Text(
                "{path} was recorded with a refractory period of {actual} of the network, not {expected}",
                path=recorded,
                actual=format_time(recorded_refractory),
                expected=format_time(refractory),
            ),
            fix="pass the mapping that was deployed or emulated",
        )
    firing = [name for name, population in network.populations.items() if population.fires]
    recorded_names = [
        name for name in firing if f"{name}.time" in arrays or f"{name}.index" in arrays
    ]
    times = {}
    for name in recorded_names or firing:
        population = network.populations[name]
        if f"{name}.time" not in arrays or f"{name}.index" not in arrays:
            raise UsageError(
                Text(
                    "{path} lacks '{population}.time' or '{population}.index', and contains {arrays}",
                    path=recorded,
                    population=name,
                    arrays=listing(arrays),
                ),
                fix="pass the file that the script of the deployed network wrote",
                node=name,
            )
        time, index = arrays[f"{name}.time"], arrays[f"{name}.index"]
        for field, numbers, kinds, requirement in (
            ("time", time, "iuf", "real numbers"),
            ("index", index, "iu", "integers"),
        ):
            if numbers.dtype.kind not in kinds:
                raise UsageError(
                    Text(
                        "'{population}.{field}' of {path} has the type {dtype}, and must be "
                        "{requirement}",
                        population=name,
                        field=field,
                        path=recorded,
                        dtype=numbers.dtype,
                        requirement=requirement,
                    ),
                    fix="pass the file that the script of the deployed network wrote",
                    node=name,
                )
        if time.shape != index.shape or time.ndim != 2 or len(time) != samples:
            raise UsageError(
                Text(
                    "'{population}.time' has shape {shape}, and the number of samples sent is {samples}",
                    population=name,
                    shape=time.shape,
                    samples=samples,
                ),
                fix="pass the inputs of the recording",
                node=name,
            )
        _refuse_events(recorded, name, time, index, population.size)
        times[name] = by_neuron(
            time, np.where(np.isfinite(time), index.astype(np.int64), -1), population.size
        )
    if unrecorded := [name for name in firing if name not in times]:
        notes.append(
            Text(
                "populations that were not recorded: {populations}", populations=listing(unrecorded)
            )
        )
    return RecordedChip(
        times=times,
        inputs=sent,
        t_end=_recorded_seconds(recorded, arrays, T_END_ARRAY),
        mapping=recorded_mapping,
        refractory=refractory if recorded_refractory is None else recorded_refractory,
        notes=tuple(notes),
    )


def _recorded_seconds(
    recorded: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], name: str
) -> float | None:
    """Return a recorded time in seconds of the network; None if the recording lacks it."""
    if name not in arrays:
        return None
    array = arrays[name]
    seconds = as_number(array.item()) if array.size == 1 else np.nan
    if not 0 < seconds < np.inf:
        raise UsageError(
            Text("'{array}' of {path} is {value}", array=name, path=recorded, value=array),
            fix="save a positive number of seconds, or remove the array",
        )
    return seconds


def _refuse_other_inputs(
    recorded: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    sent: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> Iterator[str]:
    """Refuse inputs that were not recorded, or in another order; yield a note if the recording does
    not identify its inputs.
    """
    if INPUTS_ARRAY not in arrays:
        yield Note(
            "the recording does not identify its inputs, so that their order is not checked",
            kind="assumed",
        )
        return
    actual, expected = arrays[INPUTS_ARRAY], sample_fingerprints(sent)
    if actual.shape != expected.shape:
        raise UsageError(
            Text(
                "{path} has {recorded} samples, and the number of samples sent is {samples}",
                path=recorded,
                recorded=actual.size,
                samples=len(expected),
            ),
            fix="pass the inputs of the recording",
        )
    differing = np.flatnonzero(actual != expected)
    if not differing.size:
        return
    sample = int(differing[0])
    positions = np.flatnonzero(actual == expected[sample])
    if positions.size:
        raise UsageError(
            Text(
                "the inputs of sample {sample} were recorded as sample {position} of {path}",
                sample=sample,
                position=int(positions[0]),
                path=recorded,
            ),
            fix="pass the inputs in the order in which they were sent",
        )
    raise UsageError(
        Text(
            "the inputs of sample {sample} are not those of the recording {path}",
            sample=sample,
            path=recorded,
        ),
        fix="pass the inputs that were sent to the chip",
    )


def _refuse_events(
    recorded: str | os.PathLike[str], name: str, time: np.ndarray, index: np.ndarray, size: int
) -> None:
    """Refuse spikes with invalid times, those of neurons that a population lacks, and those of
    another population.
    """
    used = np.isfinite(time)
    for wrong, numbers, field, requirement in (
        (~used & (time != np.inf) | (time < 0), time, "time", "at least 0 s, or inf"),
        (used & ((index < 0) | (index >= size)), index, "index", f"from 0 to {size - 1}"),
    ):
        if wrong.any():
            raise UsageError(
                Text(
                    "'{population}.{field}' of {path} has {value:g} at {place}, and must be "
                    "{requirement}",
                    population=name,
                    field=field,
                    path=recorded,
                    value=numbers[wrong][0],
                    place=place_of(np.argwhere(wrong)[0]),
                    requirement=requirement,
                ),
                fix="pass the file that the script of the deployed network wrote",
                node=name,
            )
    padding = np.unique(index[~used])
    # Padding with the size of another population, which is larger than all its indices.
    if padding.size == 1 and padding[0] > index[used].max(initial=0) and padding[0] != size:
        raise UsageError(
            Text(
                "'{population}.index' of {path} is padded with {padding}, as for a population "
                "of {padding} neurons, and '{population}' has {size}",
                population=name,
                path=recorded,
                padding=padding[0],
                size=size,
            ),
            fix=f"pass a recording of this network, or pad with {size}",
            node=name,
        )


def by_neuron(time: np.ndarray, index: np.ndarray, size: int) -> np.ndarray:
    """Return the times of events (samples, events) as sorted spike times (samples, neurons, spikes),
    padded with inf.

    >>> by_neuron(np.array([[3.0, 1.0, np.inf]]), np.array([[1, 1, 2]]), 2).tolist()
    [[[inf, inf], [1.0, 3.0]]]
    """
    used = np.isfinite(time) & (index >= 0) & (index < size)
    sample, place = np.nonzero(used)
    neuron = index[sample, place]
    key = sample * size + neuron
    order = np.lexsort((time[sample, place], key))
    key, values = key[order], time[sample, place][order]
    rank = np.arange(len(key)) - np.searchsorted(key, key, side="left")
    most = int(rank.max(initial=-1)) + 1
    trains = np.full((len(time) * size, most), np.inf)
    trains[key, rank] = values
    return trains.reshape(len(time), size, most)
