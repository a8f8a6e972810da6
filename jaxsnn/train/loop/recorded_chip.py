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

from jaxsnn.errors import UsageError, listing
from jaxsnn.event.event_solution import EventSolution
from jaxsnn.network.inputs import place_of
from jaxsnn.network.network import Network
from jaxsnn.network.spikes import Events
from jaxsnn.options import T_END
from jaxsnn.simulation.recordings import load_arrays
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
    """

    times: Mapping[str, np.ndarray]
    inputs: Mapping[str, tuple[np.ndarray, np.ndarray]]

    def forward(self, network: Network, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return the recorded spikes of samples whose inputs were sent. Recordings of inputs that
        were sent several times are returned in turn: the second such sample of a batch gets the
        second recording.

        Raises:
            UsageError: a sample that was not sent.
        """
        dtype = next(iter(inputs.values())).time.dtype
        recorded: dict[bytes, list[int]] = {}
        for number in range(self.samples):
            recorded.setdefault(_print(self.inputs, number, dtype), []).append(number)
        sent = {name: (events.time, events.index) for name, events in inputs.items()}
        places, met = [], Counter[bytes]()
        for number in range(len(next(iter(sent.values()))[0])):
            sample = _print(sent, number, dtype)
            if sample not in recorded:
                raise UsageError(
                    Text(
                        "the inputs of sample {sample} are not among those of the {samples} recorded samples",
                        sample=number,
                        samples=self.samples,
                    ),
                    fix="train on the inputs that were sent to the chip",
                )
            places.append(recorded[sample][met[sample] % len(recorded[sample])])
            met[sample] += 1
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
            options: options of `InTheLoop`; by default all spikes are recorded.
        """
        most = max((times.shape[2] for times in self.times.values()), default=1)
        chosen: dict[str, Any] = {"max_spikes": max(most, 1)} | options
        engine = InTheLoop(device=self, **chosen)
        events = {
            name: Events(time=jnp.asarray(arrays[0]), index=jnp.asarray(arrays[1]))
            for name, arrays in self.inputs.items()
        }
        solution = engine.run(network, events, t_end)
        notes = tuple(self.late_notes(t_end))
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


def _print(inputs: Mapping[str, tuple[Any, Any]], number: int, dtype: Any) -> bytes:
    """Return a fingerprint of a sample's events, independent of their order and padding."""
    digest = hashlib.sha256()
    for name in sorted(inputs):
        time = np.asarray(inputs[name][0][number]).astype(dtype)
        index = np.asarray(inputs[name][1][number])
        used = np.isfinite(time)
        time, index = time[used], index[used].astype(np.int64)
        order = np.lexsort((index, time))
        digest.update(name.encode() + time[order].tobytes() + index[order].tobytes())
    return digest.digest()


def read_recording(
    recorded: str | os.PathLike[str],
    inputs: Mapping[str, tuple[Any, Any]],
    network: Network,
) -> RecordedChip:
    """Read the recording that the script of a deployed network, or `jaxsnn emulate`, wrote.

    Args:
        recorded: .npz file with NAME.time, NAME.index of each population that fires.
        inputs: Input node -> (time, index) of the events that were sent.
        network: deployed network.

    Raises:
        FileError, UsageError: no such file, or a population that is missing or does not match.
    """
    arrays = load_arrays(recorded)
    sent = {
        name: tuple(np.atleast_2d(np.asarray(array)) for array in events)
        for name, events in inputs.items()
    }
    samples = len(next(iter(sent.values()))[0])
    times = {}
    for name, population in network.populations.items():
        if not population.fires:
            continue
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
        times[name] = by_neuron(time, index, population.size)
    return RecordedChip(times=times, inputs=sent)  # pyright: ignore[reportArgumentType]


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
