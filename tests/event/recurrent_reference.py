"""A slow oracle of recurrent groups in float64 NumPy: one sample at a time, Taylor series and bisection.

It shares no formula with the engine: it simulates NIR's equations as they stand, in V and I, and keeps the spikes on
their way in one heap.
"""

import heapq
import itertools
from dataclasses import dataclass

import numpy as np

from tests.event import oracle


@dataclass(frozen=True, kw_only=True)
class Population:
    """Neurons V' = a V + b I + c, I' = d I + e.

    Attributes:
        lanes: `oracle.Lanes`.
        moved: what an arrival adds to: "v", "i" or "e".
        refractory: for how long V stays at the reset after a spike.
        once: neurons stop after their first spike.
    """

    lanes: oracle.Lanes
    moved: str
    refractory: float = 0.0
    once: bool = False


@dataclass(frozen=True, kw_only=True)
class Edge:
    """Feedback: jumps (source's neurons, target's neurons), delays (source's neurons,)."""

    source: int
    target: int
    jumps: np.ndarray
    delays: np.ndarray


class Sample:
    """The state of all populations of one sample."""

    def __init__(self, populations, edges, arrivals):
        self.populations, self.edges = populations, edges
        self.now = 0.0
        self.state = [
            {"v": p.lanes.v.copy(), "i": p.lanes.i.copy(), "e": p.lanes.e.astype(float).copy()} for p in populations
        ]
        self.free = [np.zeros(len(p.lanes.v)) for p in populations]
        self.spikes = [[[] for _ in p.lanes.v] for p in populations]
        self.order = itertools.count()
        self.coming = []
        for time, population, jumps in arrivals:
            self.send(time, population, jumps)

    def send(self, time, population, jumps):
        heapq.heappush(self.coming, (time, next(self.order), population, jumps))

    def able(self, number):
        able = self.free[number] <= self.now
        if self.populations[number].once:
            able &= np.array([not spikes for spikes in self.spikes[number]])
        return able

    def run(self, t_end, limit):
        while self.now < t_end and sum(len(s) for spikes in self.spikes for s in spikes) < limit:
            if self.fire_above():
                continue
            if self.coming and self.coming[0][0] <= self.now:
                self.arrive()
                continue
            self.flow(min([t_end, *(event[0] for event in self.coming[:1]), *self.releases()]))
        return self.spikes

    def releases(self):
        return [time for free in self.free for time in free if time > self.now]

    def arrive(self):
        _, _, number, jumps = heapq.heappop(self.coming)
        population, state = self.populations[number], self.state[number]
        held = self.free[number] > self.now
        state[population.moved] += np.where(held, 0.0, jumps) if population.moved == "v" else jumps

    def fire_above(self):
        """The first neuron that is above its threshold fires."""
        for number, population in enumerate(self.populations):
            above = np.flatnonzero(self.able(number) & (self.state[number]["v"] >= population.lanes.threshold))
            if above.size:
                self.fire(number, above[0])
                return True
        return False

    def fire(self, number, neuron):
        population = self.populations[number]
        self.spikes[number][neuron].append(self.now)
        self.state[number]["v"][neuron] = population.lanes.reset[neuron]
        self.free[number][neuron] = self.now + population.refractory
        for edge in self.edges:
            if edge.source == number:
                self.send(self.now + edge.delays[neuron], edge.target, edge.jumps[neuron])

    def flow(self, until):
        """To a time, or to the first threshold crossing before it."""
        rates = [max(abs(p.lanes.a).max(), abs(p.lanes.d).max()) for p in self.populations]
        step = min(until - self.now, 0.5 / max(*rates, 1e-9))
        found, first = [], 1.0
        for number, (population, state) in enumerate(zip(self.populations, self.state, strict=True)):
            lanes = oracle.Lanes(**{**vars(population.lanes), "e": state["e"]})
            series = oracle._series(lanes, state["v"], state["i"], step)
            place = oracle._first_crossing(series[0], lanes.threshold)
            place[~self.able(number)] = np.inf
            found.append((series, place))
            first = min(first, place.min())
        for number, (state, (series, place)) in enumerate(zip(self.state, found, strict=True)):
            held = self.free[number] > self.now
            s = np.full(place.shape, first)
            state["v"] = np.where(held, state["v"], oracle._value(series[0], s))
            state["i"] = oracle._value(series[1], s)
            crosses = place == first
            state["v"][crosses] = np.maximum(state["v"], self.populations[number].lanes.threshold)[crosses]
        self.now = until if first == 1.0 and step == until - self.now else self.now + first * step


def spikes(populations, edges, arrivals, t_end, limit=2000):
    """Spike times of every neuron: population -> neuron -> times.

    Args:
        arrivals: (time, population, jumps (neurons,)) of one sample, in the order of their slots.
    """
    ordered = sorted(arrivals, key=lambda arrival: arrival[0])
    return Sample(populations, edges, ordered).run(t_end, limit)
