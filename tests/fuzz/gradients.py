"""Gradients of spike times in the reference: central differences with Richardson extrapolation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tests.fuzz import nir_reading
from tests.fuzz.random_networks import Drawn
from tests.oracles import continuous_time

STEP = 1e-3
FIRST = 3
#: Gradients below this are compared by absolute errors.
SMALL = 1e-2


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One number: of a node, or the time of an input event."""

    node: str
    key: str
    place: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.node}.{self.key}{list(self.place)}"


def entries_of(drawn: Drawn) -> list[Entry]:
    """All numbers that a gradient can be taken by."""
    entries = [
        Entry(node=name, key=key, place=place)
        for name, node in drawn.nodes.items()
        for key, value in node.numbers.items()
        for place in np.ndindex(value.shape)
        if not (key == "delay" and value[place] < 4 * STEP)
    ]
    for name, times in drawn.times.items():
        places = zip(*np.nonzero(np.isfinite(times)), strict=True)
        entries += [Entry(node=name, key="time", place=tuple(map(int, p))) for p in places]
    return entries


def moved(drawn: Drawn, entry: Entry, by: float) -> Drawn:
    """The network with one number changed."""
    if entry.key == "time":
        times = drawn.times[entry.node].copy()
        times[entry.place] += by
        return replace(drawn, times={**drawn.times, entry.node: times})
    node = drawn.nodes[entry.node]
    value = node.numbers[entry.key].astype(float)
    value[entry.place] += by
    changed = node.with_numbers(**{entry.key: value})
    return replace(drawn, nodes={**drawn.nodes, entry.node: changed})


class Functional:
    """A random linear functional of the first spike times of every neuron."""

    def __init__(self, drawn: Drawn, outcomes: list, rng: np.random.Generator):
        self.counts = [_counts(outcome) for outcome in outcomes]
        sizes = {name: len(trains) for name, trains in outcomes[0].spikes.items()}
        self.weights = {
            name: rng.normal(size=(len(outcomes), size, FIRST)) for name, size in sizes.items()
        }
        self.drawn = drawn

    def value(self, drawn: Drawn) -> float | None:
        """None where other spikes come than in the network itself."""
        populations, synapses = nir_reading.read(
            drawn.nodes, drawn.structure.edges, drawn.structure.meaning
        )
        total = []
        for sample, counts in enumerate(self.counts):
            events = drawn.events(sample)
            outcome = continuous_time.simulate(populations, synapses, events, drawn.t_end)
            if _counts(outcome) != counts:
                return None
            for name, weights in self.weights.items():
                for spike_times, weight in zip(outcome.spikes[name], weights[sample], strict=True):
                    total += [a * b for a, b in zip(spike_times, weight, strict=False)]
        return math.fsum(total)

    def slope(self, entry: Entry, share: float = 1.0) -> tuple[float, str]:
        """The derivative by one number, by a share of the usual step, and why there is none ("" if
        there is).
        """
        step = STEP * share
        if entry.key != "time":
            step *= max(
                abs(float(self.drawn.nodes[entry.node].numbers[entry.key][entry.place])), 0.1
            )
        return derivative(lambda by: self.value(moved(self.drawn, entry, by)), step)


def derivative(function: Callable[[float], float | None], step: float) -> tuple[float, str]:
    """By central differences over three steps, extrapolated twice."""
    here = function(0.0)
    central, apart = [], []
    for width in (step, step / 2, step / 4):
        ahead, behind = function(width), function(-width)
        if here is None or ahead is None or behind is None:
            return math.nan, "other spikes"
        central.append((ahead - behind) / (2 * width))
        apart.append(abs(ahead - 2 * here + behind) / width)
    coarse = (4 * central[1] - central[0]) / 3
    fine = (4 * central[2] - central[1]) / 3
    slope = (16 * fine - coarse) / 15
    scale = max(abs(slope), SMALL)
    if apart[2] > 0.75 * apart[0] and apart[2] > 1e-6 * scale:
        return slope, "a kink"
    if abs(slope - fine) > 3e-6 * scale:
        return slope, "differences that do not converge"
    return slope, ""


def _counts(outcome) -> dict[str, list[int]]:
    return {
        name: [len(spike_times) for spike_times in neurons]
        for name, neurons in outcome.spikes.items()
    }
