"""Spikes of populations that feed each other, in float64 NumPy: one sample at a time, Taylor series
and bisection.

It shares no formula with the engine: it simulates NIR's equations as they stand, in V and I, and
keeps the spikes on their way in one heap.
"""

import heapq
import itertools
from dataclasses import dataclass

import numpy as np

from tests.oracles import cubalif_series


@dataclass(frozen=True, kw_only=True)
class Population:
    """Neurons V' = a V + b I + c, I' = d I + e.

    Attributes:
        lanes: `cubalif_series.Lanes`.
        moved: what an arrival adds to: "v", "i" or "e".
        refractory: for how long V stays at the reset after a spike.
        once: neurons stop after their first spike.
    """

    lanes: cubalif_series.Lanes
    moved: str
    refractory: float = 0.0
    once: bool = False


@dataclass(frozen=True, kw_only=True)
class Edge:
    """Feedback: jumps (source's neurons, target's neurons), delays () or (source's neurons,), or
    None for none.
    """

    source: int
    target: int
    jumps: np.ndarray
    delays: np.ndarray | None


class Sample:
    """The state of all populations of one sample."""

    def __init__(self, populations, edges, arrivals):
        self.populations, self.edges = populations, edges
        self.now = 0.0
        self.state = [
            {"v": p.lanes.v.copy(), "i": p.lanes.i.copy(), "e": p.lanes.e.astype(float).copy()}
            for p in populations
        ]
        self.free = [np.zeros(len(p.lanes.v)) for p in populations]
        self.spikes = [[[] for _ in p.lanes.v] for p in populations]
        self.order = itertools.count()
        self.coming = [[] for _ in populations]
        for time, population, jumps in arrivals:
            self.send(time, population, jumps)

    def send(self, time, population, jumps, edge=-1, neuron=0):
        heapq.heappush(self.coming[population], (time, edge, neuron, next(self.order), jumps))

    def able(self, number):
        able = self.free[number] <= self.now
        if self.populations[number].once:
            able &= np.array([not spikes for spikes in self.spikes[number]])
        return able

    def run(self, t_end, limit):
        while self.now < t_end and sum(len(s) for spikes in self.spikes for s in spikes) < limit:
            if self.fire_above():
                continue
            if self.arrive():
                continue
            self.flow(
                min([t_end, *(events[0][0] for events in self.coming if events), *self.releases()])
            )
        return self.spikes

    def releases(self):
        return [time for free in self.free for time in free if time > self.now]

    def arrive(self):
        """Each population takes what comes next, if that is due."""
        due = [n for n, events in enumerate(self.coming) if events and events[0][0] <= self.now]
        for number in due:
            self.take(number, heapq.heappop(self.coming[number])[-1])
        return bool(due)

    def take(self, number, jumps):
        population, state = self.populations[number], self.state[number]
        held = self.free[number] > self.now
        state[population.moved] += np.where(held, 0.0, jumps) if population.moved == "v" else jumps

    def fire_above(self):
        """All neurons of the first population that has some above the threshold fire; what they
        send at once arrives when all of them have.
        """
        for number, population in enumerate(self.populations):
            above = np.flatnonzero(
                self.able(number) & (self.state[number]["v"] >= population.lanes.threshold)
            )
            if above.size:
                at_once = [sent for neuron in above for sent in self.fire(number, neuron)]
                for target, jumps in at_once:
                    self.take(target, jumps)
                return True
        return False

    def fire(self, number, neuron):
        """A spike now: (target, jumps) of what it sends without a delay."""
        at_once = []
        population = self.populations[number]
        self.spikes[number][neuron].append(self.now)
        self.state[number]["v"][neuron] = population.lanes.reset[neuron]
        self.free[number][neuron] = self.now + population.refractory
        for place, edge in enumerate(self.edges):
            if edge.source != number:
                continue
            if edge.delays is None:
                at_once.append((edge.target, edge.jumps[neuron]))
            else:
                each = edge.delays.ndim > 0
                delay = edge.delays[neuron] if each else edge.delays
                self.send(
                    self.now + delay, edge.target, edge.jumps[neuron], place, neuron if each else 0
                )
        return at_once

    def flow(self, until):
        """To a time, or to the first threshold crossing before it."""
        rates = [max(abs(p.lanes.a).max(), abs(p.lanes.d).max()) for p in self.populations]
        step = min(until - self.now, 0.5 / max(*rates, 1e-9))
        found, first = [], 1.0
        for number, (population, state) in enumerate(
            zip(self.populations, self.state, strict=True)
        ):
            lanes = cubalif_series.Lanes(**{**vars(population.lanes), "e": state["e"]})
            series = cubalif_series.series_of(lanes, state["v"], state["i"], step)
            place = cubalif_series.first_crossing(series[0], lanes.threshold)
            place[~self.able(number)] = np.inf
            found.append((series, place))
            first = min(first, place.min())
        for number, (state, (series, place)) in enumerate(zip(self.state, found, strict=True)):
            held = self.free[number] > self.now
            s = np.full(place.shape, first)
            state["v"] = np.where(held, state["v"], cubalif_series.value_at(series[0], s))
            state["i"] = cubalif_series.value_at(series[1], s)
            crosses = place == first
            state["v"][crosses] = np.maximum(state["v"], self.populations[number].lanes.threshold)[
                crosses
            ]
        self.now = until if first == 1.0 and step == until - self.now else self.now + first * step


def spikes(populations, edges, arrivals, t_end, limit=2000):
    """Spike times of every neuron: population -> neuron -> times.

    Args:
        arrivals: (time, population, jumps (neurons,)) of one sample, in the order of their slots.
    """
    ordered = sorted(arrivals, key=lambda arrival: arrival[0])
    return Sample(populations, edges, ordered).run(t_end, limit)
