"""The event engine in float32 against itself in float64: lost and extra spikes, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tests.fuzz import nir_reading
from tests.fuzz.engine_runs import Group
from tests.fuzz.random_networks import Drawn, numbers_of
from tests.oracles import continuous_time

BATCH, MAX_SPIKES = 64, 48
#: Spikes that are farther apart than this, in units of the shortest time constant, are different.
SAME = 1e-3
#: Distance from the threshold, in heights, that rounding in float32 may explain.
MARGIN = 3e-5
#: Relative perturbation of the reference's numbers, if the margin explains nothing: 5 ulp.
ROUNDING, TRIES = 3e-7, 8


@dataclass(frozen=True, kw_only=True)
class Strange:
    """The first spike of a sample that only one of the two has."""

    sample: int
    name: str
    neuron: int
    time: float
    lost: bool


def rounded(drawn: Drawn) -> Drawn:
    """The network in numbers that float32 has; not where these are ratios of a step (sinabs)."""

    def single(value):
        return np.asarray(value, np.float32).astype(float)

    steps = drawn.structure.dialect == "sinabs"
    nodes = (
        drawn.nodes
        if steps
        else {
            name: node.with_numbers(**{key: single(value) for key, value in node.numbers.items()})
            for name, node in drawn.nodes.items()
        }
    )
    times = {name: single(input_times) for name, input_times in drawn.times.items()}
    return replace(drawn, nodes=nodes, times=times, t_end=float(single(drawn.t_end)))


class Pair:
    """The engine in both precisions, compiled once for the networks of a structure."""

    def __init__(self, drawn: Drawn):
        self.double = Group(drawn, "float64", MAX_SPIKES)
        self.single = Group(drawn, "float32", MAX_SPIKES)

    def run(self, seed: int, drawn: Drawn):
        """The network with more samples, and both solutions."""
        large = numbers_of(drawn.structure, seed, drawn.attempt, BATCH)
        large = rounded(replace(large, t_end=drawn.t_end))
        return large, self.double.run(large, np.zeros(1)), self.single.run(large, np.zeros(1))


def compared(double, single, tau: float):
    """(spikes, lost, extra, worst difference of others, first strange one of each sample)."""
    spikes = lost = extra = 0
    worst, first = 0.0, {}
    for name, trains in double.spikes.items():
        there, here = np.asarray(trains.time, float), np.asarray(single.spikes[name].time, float)
        spikes += int(np.isfinite(there).sum())
        both = np.isfinite(there) & np.isfinite(here)
        gap = np.where(both, np.abs(np.where(both, there, 0) - np.where(both, here, 0)), 0) / tau
        apart = (np.isfinite(there) != np.isfinite(here)) | (gap > SAME)
        strange = apart.any(axis=-1)
        worst = max(worst, float(gap[~strange].max(initial=0)))
        for sample, neuron in zip(*np.nonzero(strange), strict=True):
            alone = unmatched(there[sample, neuron], here[sample, neuron], SAME * tau)
            lost, extra = lost + len(alone[0]), extra + len(alone[1])
            for times, is_lost in zip(alone, (True, False), strict=True):
                for time in times[:1]:
                    strange_spike = Strange(
                        sample=int(sample),
                        name=name,
                        neuron=int(neuron),
                        time=float(time),
                        lost=is_lost,
                    )
                    if sample not in first or time < first[sample].time:
                        first[int(sample)] = strange_spike
    return spikes, lost, extra, worst, list(first.values())


def unmatched(there: np.ndarray, here: np.ndarray, same: float):
    """Times of each of two trains that the other lacks."""
    times = [float(t) for t in there[np.isfinite(there)]]
    right = [float(t) for t in here[np.isfinite(here)]]
    only_left = []
    for time in times:
        near = min(right, key=lambda candidate: abs(candidate - time), default=np.inf)
        if abs(near - time) <= same:
            right.remove(near)
        else:
            only_left.append(time)
    return only_left, right


def explanation(drawn: Drawn, strange: Strange, tau: float, notes: tuple[str, ...]) -> str:
    """Why rounding may decide about a spike, by a check."""
    for note in notes:
        if "float32" in note:
            return "flagged by a note"
    outcome = _reference(drawn, strange.sample)
    for close in outcome.close:
        if abs(close.time - strange.time) < 2e-2 * tau and abs(close.margin) < MARGIN:
            return f"explained: {close.kind} {close.place} {close.margin:.2g}"
    rng = np.random.default_rng(1)
    for _ in range(TRIES):
        again = _reference(_disturbed(drawn, rng), strange.sample)
        times = again.spikes[strange.name][strange.neuron]
        near = min((abs(time - strange.time) for time in times), default=np.inf)
        if (near > SAME * tau) == strange.lost:
            return "explained: the reference changes with numbers changed by 3e-7"
    return "UNEXPLAINED"


def _reference(drawn: Drawn, sample: int):
    populations, synapses = nir_reading.read(
        drawn.nodes, drawn.structure.edges, drawn.structure.meaning
    )
    events = drawn.events(sample)
    return continuous_time.simulate(populations, synapses, events, drawn.t_end, close=1e-4)


def _disturbed(drawn: Drawn, rng: np.random.Generator) -> Drawn:
    def disturb(value):
        return value * (1 + ROUNDING * rng.uniform(-1, 1, np.shape(value)))

    nodes = {
        name: node.with_numbers(**{key: disturb(value) for key, value in node.numbers.items()})
        for name, node in drawn.nodes.items()
    }
    return replace(drawn, nodes=nodes)


def differences(seed: int, pair: Pair, drawn: Drawn, tau: float, summary) -> Iterator[tuple]:
    """(what, label) of each sample in which a spike is lost or extra."""
    large, double, single = pair.run(seed, drawn)
    spikes, lost, extra, worst, first = compared(double, single, tau)
    summary.spikes += spikes
    summary.lost, summary.extra = summary.lost + lost, summary.extra + extra
    summary.worst = max(summary.worst, worst)
    for strange in first:
        change = "lost" if strange.lost else "extra"
        description = (
            f"sample {strange.sample}, {strange.name}[{strange.neuron}]: spike {change} in float32"
        )
        yield description, strange.time, explanation(large, strange, tau, tuple(single.notes))
