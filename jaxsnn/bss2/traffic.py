"""What a mapping carries and takes at the activity of given data: events at each bus and link against
what they move, time on the chip and energy per sample.
"""

from __future__ import annotations

from collections.abc import Mapping as Mapped
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.bss2.chip import Chip
from jaxsnn.bss2.mapping import Mapping, Run
from jaxsnn.units import parse_time

#: The window in which events are counted, seconds of the chip.
WINDOW = parse_time("1us")
#: Watts of the chip: "less than 200 mW" (Cramer et al., PNAS 119, 2022).
POWER = 0.2
#: How many of the longest time constants a chip rests between two samples, as the deployed scripts
#: make it.
REST = 10


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What one run carries.

    Attributes:
        events: bus or link -> events per sample, on average.
        peak: bus or link -> most events in a window of a microsecond, in any sample.
        limit: events that a bus or link moves in such a window.
        replayed: spikes of earlier runs that the host sends again, per sample.
    """

    events: Mapped[str, float]
    peak: Mapped[str, int]
    limit: int
    replayed: float

    @property
    def busiest(self) -> str:
        """Name of the bus or link with the highest peak."""
        return max(self.peak, key=lambda name: self.peak[name])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "events": dict(self.events),
            "peak": dict(self.peak),
            "limit": self.limit,
            "replayed": self.replayed,
        }


def seconds_per_sample(runs: int, t_end: float, speedup: float, longest_tau: float) -> float:
    """Seconds of the chip that a sample takes in so many runs, rest included; several chips in one
    pass take those of one run.

    Args:
        t_end: of a sample, seconds of the network.
        longest_tau: seconds of the chip.
    """
    return runs * (t_end / speedup + REST * longest_tau)


def between_chips(mapping: Mapping) -> dict[tuple[int, int], int]:
    """If each run has a chip of its own: (from, to) -> neurons whose spikes one passes to the
    other.
    """
    found: dict[tuple[int, int], int] = {}
    for number, run in enumerate(mapping.runs):
        for source in run.sources:
            if source.from_run is not None:
                link = source.from_run, number
                found[link] = found.get(link, 0) + 1
    return dict(sorted(found.items()))


def answered(times: np.ndarray, speedup: float) -> float:
    """Latency: seconds of the chip from a sample's begin to its first output spike, the median of
    the samples in which there is one; NaN where there is none.

    Args:
        times: (samples, neurons, spikes) seconds of the network, inf where unused.
    """
    first = times.reshape(len(times), -1).min(axis=1, initial=np.inf)
    first = first[np.isfinite(first)]
    return float(np.median(first)) / speedup if first.size else float("nan")


def traffic(
    mapping: Mapping,
    times: Mapped[str, np.ndarray],
    t_end: float,
    speedup: float,
) -> tuple[Traffic, ...]:
    """What each run carries.

    Args:
        times: input or population -> (samples, channels, spikes) seconds of the network, inf where
            unused.
    """
    return tuple(_of_run(mapping, run, times, t_end, speedup) for run in mapping.runs)


def _of_run(
    mapping: Mapping, run: Run, times: Mapped[str, np.ndarray], t_end: float, speedup: float
) -> Traffic:
    chip, bins = mapping.chip, max(int(np.ceil(t_end / speedup / WINDOW)), 1)
    samples = len(next(iter(times.values())))
    names = [one.name for one in mapping.populations]

    def counted(population: int, index: int) -> np.ndarray:
        """(samples, bins) spikes of one sender."""
        own = times.get(names[population])
        found = np.zeros((samples, bins), np.int64)
        if own is None or not own.shape[2]:
            return found
        window = np.floor(own[:, index] / speedup / WINDOW)
        sample, place = np.nonzero(window < bins)
        np.add.at(found, (sample, window[sample, place].astype(int)), 1)
        return found

    carried = {name: np.zeros((samples, bins), np.int64) for name in _names(chip)}
    nodes = {}
    for start, end, mask, target in run.crossbar.tolist():
        nodes.setdefault(start, []).append((end, mask, target))
    outputs = list(carried)
    for entry, address, link, counts in _events(chip, run, counted):
        if link is not None:
            carried[f"link {link} from the host"] += counts
            carried["all from the host"] += counts
        for end, mask, target in nodes.get(entry, ()):
            if address & mask == target:
                carried[outputs[end]] += counts
    replayed = [
        counted(one.population, one.index).sum() for one in run.sources if one.from_run is not None
    ]
    return Traffic(
        events={name: float(one.sum() / samples) for name, one in carried.items()},
        peak={name: int(one.max(initial=0)) for name, one in carried.items()},
        limit=round(WINDOW / chip.clock_period),
        replayed=float(sum(replayed) / samples),
    )


def _names(chip: Chip) -> list[str]:
    """Buses and links in the order of the crossbar's outputs, then what the host sends."""
    names = [f"bus {bus} {side}" for side in ("top", "bottom") for bus in range(chip.buses)]
    names += [f"link {link} to the host" for link in range(chip.buses)]
    names += [f"link {link} from the host" for link in range(chip.buses)]
    return [*names, "all from the host"]


def _events(chip: Chip, run: Run, counted: Any) -> Any:
    """(crossbar input, address, link from the host or None, (samples, bins) counts) of all events."""
    for neuron in run.neurons:
        column = neuron.circuits[neuron.head][1]
        counts = counted(neuron.population, neuron.index)
        yield chip.output_of(column), chip.neuron_event(column, neuron.address), None, counts
    for source in run.sources:
        counts = counted(source.population, source.index)
        for event in source.events:
            link = chip.link_of(event)
            address = event & ((1 << chip.event_bits) - 1)
            yield chip.link_input(link), address, link, counts
