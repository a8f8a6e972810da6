"""Load of a mapping for given data: events on each bus and link against its capacity, time on the
chip and energy for each sample.
"""

from __future__ import annotations

from collections.abc import Mapping as Mapped
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.bss2.chip import Chip
from jaxsnn.bss2.mapping import Mapping, Run
from jaxsnn.units import parse_time

#: Length of the window in which events are counted, seconds of the chip.
WINDOW = parse_time("1us")
#: Power of the chip, watts: "less than 200 mW" (Cramer et al., PNAS 119, 2022).
POWER = 0.2
#: Pause between two samples, in multiples of the longest time constant, as in the deployed scripts.
REST = 10


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Event rates of one run on buses and links.

    Attributes:
        events: Mean number of events per sample, by bus or link.
        peak: Maximum number of events in a window of a microsecond, in any sample, by bus or link.
        limit: Number of events that a bus or link can move in such a window.
        replayed: Mean number of spikes of earlier runs that the host replays, per sample.
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
        """Return the rates as a dict for JSON."""
        return {
            "events": dict(self.events),
            "peak": dict(self.peak),
            "limit": self.limit,
            "replayed": self.replayed,
        }


def seconds_per_sample(runs: int, t_end: float, speedup: float, longest_tau: float) -> float:
    """Return the seconds of the chip that a sample takes in a number of runs, rest included;
    several chips in one pass take as long as one run.

    Args:
        t_end: Duration of a sample, seconds of the network.
        longest_tau: Longest time constant, seconds of the chip.
    """
    return runs * (t_end / speedup + REST * longest_tau)


def between_chips(mapping: Mapping) -> dict[tuple[int, int], int]:
    """Count the neurons whose spikes one chip passes to another, if each run has its own chip:
    (from, to) -> neurons.
    """
    neurons_by_link: dict[tuple[int, int], int] = {}
    for number, run in enumerate(mapping.runs):
        for source in run.sources:
            if source.from_run is not None:
                link = source.from_run, number
                neurons_by_link[link] = neurons_by_link.get(link, 0) + 1
    return dict(sorted(neurons_by_link.items()))


def answered(times: np.ndarray, speedup: float) -> float:
    """Return the latency, in seconds of the chip: the time from the start of a sample to its first
    output spike, as the median over samples with an output spike; NaN if no sample has an output
    spike.

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
    """Return the traffic of each run.

    Args:
        times: input or population -> (samples, channels, spikes) seconds of the network, inf where
            unused.
    """
    return tuple(_of_run(mapping, run, times, t_end, speedup) for run in mapping.runs)


def _of_run(
    mapping: Mapping, run: Run, times: Mapped[str, np.ndarray], t_end: float, speedup: float
) -> Traffic:
    chip, samples = mapping.chip, len(next(iter(times.values())))
    population_names = [source.name for source in mapping.populations]

    def sent(population: int, index: int) -> np.ndarray:
        """Return the spikes of one sender, (samples, spikes) seconds of the chip, inf where there
        is none.
        """
        spike_times = times.get(population_names[population])
        if spike_times is None:
            return np.zeros((samples, 0))
        return np.where(spike_times[:, index] < t_end, spike_times[:, index], np.inf) / speedup

    carried: dict[str, list[np.ndarray]] = {name: [] for name in bus_names(chip)}
    nodes, outputs = nodes_behind(run), list(carried)
    for entry, address, link, spikes in sent_events(chip, run, sent):
        if link is not None:
            carried[f"link {link} from the host"].append(spikes)
            carried["all from the host"].append(spikes)
        for end, mask, target in nodes.get(entry, ()):
            if address & mask == target:
                carried[outputs[end]].append(spikes)
    replayed = [
        sent(source.population, source.index)
        for source in run.sources
        if source.from_run is not None
    ]
    return Traffic(
        events={
            name: sum(map(_number, spike_times)) / samples for name, spike_times in carried.items()
        },
        peak={name: _peak(spike_times) for name, spike_times in carried.items()},
        limit=round(WINDOW / chip.clock_period),
        replayed=sum(map(_number, replayed)) / samples,
    )


def _number(spikes: np.ndarray) -> int:
    """Return the number of spikes."""
    return int(np.isfinite(spikes).sum())


def _peak(trains: list[np.ndarray]) -> int:
    """Return the largest number of spikes in any window of any sample.

    >>> _peak([np.array([[0.9e-6, 5e-6]]), np.array([[1.1e-6, np.inf]])])
    2
    """
    most = 0
    for sample in zip(*trains, strict=True):
        rising = np.sort(np.concatenate(sample))
        rising = rising[np.isfinite(rising)]
        # An event one window later, up to rounding, is outside of the window.
        behind = np.searchsorted(rising, rising + WINDOW * (1 - 2.0**-20))
        most = max(most, int((behind - np.arange(len(rising))).max(initial=0)))
    return most


def bus_names(chip: Chip) -> list[str]:
    """Return buses and links in the order of the crossbar's outputs, then the links from the host
    and their total.
    """
    labels = [f"bus {bus} {side}" for side in ("top", "bottom") for bus in range(chip.buses)]
    labels += [f"link {link} to the host" for link in range(chip.buses)]
    labels += [f"link {link} from the host" for link in range(chip.buses)]
    return [*labels, "all from the host"]


def nodes_behind(run: Run) -> dict[int, list[tuple[int, int, int]]]:
    """Map each crossbar input to (output, mask, target) of its nodes."""
    nodes = {}
    for entry, output, mask, target in run.crossbar.tolist():
        nodes.setdefault(entry, []).append((output, mask, target))
    return nodes


def sent_events(chip: Chip, run: Run, sent: Any) -> Any:
    """Yield (crossbar input, address, link from the host or None, result of `sent` for the sender)
    of all events of a run.
    """
    for neuron in run.neurons:
        column = neuron.circuits[neuron.head][1]
        spikes = sent(neuron.population, neuron.index)
        yield chip.output_of(column), chip.neuron_event(column, neuron.address), None, spikes
    for source in run.sources:
        spikes = sent(source.population, source.index)
        for event in source.events:
            link = chip.link_of(event)
            address = event & ((1 << chip.event_bits) - 1)
            yield chip.link_input(link), address, link, spikes
