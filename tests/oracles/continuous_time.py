"""A plain reference of spiking networks in continuous time: NumPy, float64, one event after the other.

NIR's equations, literally, with arrivals S:

    CubaLIF, CubaLI: tau_syn I' = -I + w_in S,   tau_mem V' = v_leak - V + r I
    LIF, LI:         tau V' = v_leak - V + r S
    IF, I:           V' = r S

A spike of weight w and area a is S = w a delta(t), or a box S = w a / width for that long; without an
area I (of neurons without a current: V) jumps, or is driven for a width, by w itself. A bias is a
constant S; an input that is a current adds weight times its value to S, from each of its changes to
the next.

What happens at exactly one time goes through the network from its inputs on: a population acts when
all that it hears at that time is there, whatever way it came. Populations that feed each other act
in rounds: all that arrives at a neuron is added up; then every neuron that an arrival has moved above
its threshold fires, as often as it takes, each with its reset (by subtraction: the overshoot is
kept); what they send without a delay arrives in the next round. Where V comes to the threshold by its
own flow, the neuron fires first.

Each neuron is a handful of Python floats that are moved only where something happens to it. This
module imports nothing of ours, and shares no formula with what it tests: V's extremum is in closed
form, every crossing is bisected down to neighbouring floats.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np

#: Maximum number of rounds at one time; a network with more fires endlessly.
MOST_ROUNDS = 1000
#: Distances from the threshold, in heights (v_threshold - v_reset), below which they are recorded.
CLOSE = 1e-9
#: Times between two events below which they are recorded, in units of the shortest time constant.
TOGETHER = 1e-11

_PARAMETERS = ("tau_mem", "tau_syn", "r", "w_in", "v_leak", "v_threshold", "v_reset")


class EndlessError(Exception):
    """Neurons that fire without end at one time."""


@dataclass(frozen=True, kw_only=True)
class Neurons:
    """A population.

    Attributes:
        kind: NIR's type.
        parameters: NIR's names -> (neurons,); of readouts without a threshold.
        area: of a spike of weight 1, seconds; "tau": tau_syn (LIF, LI: tau); None: I (else V) jumps
            by the weight itself.
        width: of a box spike, seconds; 0: delta spikes.
        bias: (neurons,) constant S.
        refractory: seconds for which V stays at v_reset after a spike.
        subtract: a spike takes v_threshold from V; else V becomes v_reset.
        inclusive: an arrival that moves V onto the threshold makes it fire; else V must be above.
        once: neurons stop after their first spike.
        readout: they never fire, whatever their type.
        v_start: (neurons,) V at time 0; I starts at 0.
    """

    kind: str
    parameters: Mapping[str, np.ndarray]
    area: float | str | None = 1.0
    width: float = 0.0
    bias: np.ndarray | float = 0.0
    refractory: float = 0.0
    subtract: bool = False
    inclusive: bool = False
    once: bool = False
    readout: bool = False
    v_start: np.ndarray | float = 0.0

    @property
    def size(self) -> int:
        return len(self.parameters["r"])

    @property
    def fires(self) -> bool:
        return self.kind.endswith("F") and not self.readout


@dataclass(frozen=True, kw_only=True)
class Synapses:
    """What goes from one population or input to another.

    Attributes:
        weight: (targets, sources).
        delay: seconds, a number or (targets, sources).
    """

    source: str
    target: str
    weight: np.ndarray
    delay: np.ndarray | float = 0.0


@dataclass(frozen=True, kw_only=True)
class Close:
    """Where rounding may decide otherwise.

    Attributes:
        time: seconds.
        kind: "tangent": V has its maximum at the threshold; "edge": V is at the threshold where an
            interval ends; "jump": an arrival leaves V at the threshold, not exactly; "together": two
            events at nearly one time; "meets": a neuron comes to its threshold by its own flow at
            exactly the time of another event; "end": something happens at nearly the end.
        place: the neuron, or the two times.
        margin: V - v_threshold in heights, or a time.
    """

    time: float
    kind: str
    place: str
    margin: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a simulation leaves.

    Attributes:
        spikes: population -> neuron -> times.
        samples: population -> (samples, neurons) V.
        close: in the order in which they were found.
        stopped: the time at which some neuron had fired too often, or inf.
        slopes: V' just before each spike, like `spikes`; inf where an arrival moved V itself.
        summed: times at which several arrivals came to one neuron at once.
    """

    spikes: dict[str, list[list[float]]]
    samples: dict[str, np.ndarray]
    close: list[Close]
    stopped: float
    slopes: dict[str, list[list[float]]]
    summed: list[float]


def simulate(
    populations: Mapping[str, Neurons],
    synapses: Sequence[Synapses],
    inputs: Mapping[str, Sequence[tuple[float, int]]],
    t_end: float,
    sample_times: Sequence[float] = (),
    most_spikes: float = math.inf,
    close: float = CLOSE,
    currents: Mapping[str, Sequence[tuple[float, int, float]]] | None = None,
) -> Outcome:
    """Simulate a network.

    Args:
        inputs: name -> (time, channel) in any order; those at t_end and later do not count.
        most_spikes: of one neuron, where the simulation stops.
        close: distance from the threshold, in heights, below which it is written down.
        currents: name -> (time, channel, what its value is from then on).

    Raises:
        EndlessError: neurons fire without end at one time.
    """
    simulation = _Simulation(populations, synapses, inputs, t_end, sample_times)
    for name, pieces in (currents or {}).items():
        for time, channel, value in pieces:
            simulation.change(name, channel, time, value)
    simulation.most, simulation.tolerance = most_spikes, close
    return simulation.run()


def simulate_population(
    parameters: Mapping[str, np.ndarray],
    weight: np.ndarray,
    times: np.ndarray,
    rows: np.ndarray,
    t_end: float,
    sample_times: Sequence[float] = (),
    **options: Any,
) -> list[Outcome]:
    """Simulate a population "n" of CubaLIF neurons, or of CubaLI without a threshold, for each sample.

    Args:
        parameters: NIR's names -> (neurons,).
        weight: (sources, neurons).
        times: (samples, arrivals) in any order; inf where unused.
        rows: (samples, arrivals), the source of each.
        options: of `Neurons`.
    """
    kind = "CubaLIF" if "v_threshold" in parameters else "CubaLI"
    neurons = Neurons(kind=kind, parameters=parameters, **options)
    synapses = [Synapses(source="in", target="n", weight=weight.T)]
    trains = [list(zip(*arrays, strict=True)) for arrays in zip(times, rows, strict=True)]
    return [
        simulate({"n": neurons}, synapses, {"in": train}, t_end, sample_times) for train in trains
    ]


# -- one neuron between two events


def share(x: float) -> float:
    """(1 - e^-x) / x, 1 at 0."""
    return 1.0 if x == 0 else -math.expm1(-x) / x


@dataclass(kw_only=True, slots=True)
class Neuron:
    """One neuron: its parameters, and its state at a time.

    Attributes:
        leaks, has_current: what its equations are.
        drive: S, delta spikes aside.
        at: time of the state.
        held: time until which V stays where it is.
        crossing: when it fires next if nothing arrives.
    """

    name: str
    leaks: bool
    has_current: bool
    fires: bool
    tau_mem: float
    tau_syn: float
    r: float
    w_in: float
    v_leak: float
    v_threshold: float
    v_reset: float
    v: float = 0.0
    i: float = 0.0
    drive: float = 0.0
    at: float = 0.0
    held: float = -math.inf
    stopped: bool = False
    crossing: float = math.inf
    boxes: dict[Any, float] = field(default_factory=dict)

    @property
    def height(self) -> float:
        return self.v_threshold - self.v_reset

    def i_inf(self) -> float:
        return self.w_in * self.drive

    def flowed(self, v: float, i: float, t: float) -> tuple[float, float]:
        """V and I after a time t in which V is free."""
        if not self.leaks:
            return v + self.r * self.drive * t, i
        if not self.has_current:
            v_inf = self.v_leak + self.r * self.drive
            return v_inf + (v - v_inf) * math.exp(-t / self.tau_mem), i
        mem, syn, i_inf = self.tau_mem, self.tau_syn, self.i_inf()
        v_inf = self.v_leak + self.r * i_inf
        # (e^(-t/syn) - e^(-t/mem)) / (1 - syn/mem), in a form that is finite if the two are equal.
        gap = abs(mem - syn) / (mem * syn)
        k = t / mem * math.exp(-t / max(mem, syn)) * share(t * gap)
        after = v_inf + (v - v_inf) * math.exp(-t / mem) + self.r * (i - i_inf) * k
        return after, i_inf + (i - i_inf) * math.exp(-t / syn)

    def after(self, time: float) -> tuple[float, float]:
        """V and I at a later time, if nothing arrives and it does not fire."""
        t = time - self.at
        rest = min(max(self.held - self.at, 0.0), t)
        v, i = self.v, self.i
        if rest > 0 and self.has_current:
            i_inf = self.i_inf()
            i = i_inf + (i - i_inf) * math.exp(-rest / self.tau_syn)
        return self.flowed(v, i, t - rest) if t > rest else (v, i)

    def slope(self, v: float, i: float) -> float:
        """V'."""
        if not self.leaks:
            return self.r * self.drive
        current = i if self.has_current else self.drive
        return (self.v_leak - v + self.r * current) / self.tau_mem

    def turning(self, v: float, i: float) -> float:
        """How long until V has its one extremum; inf if it has none ahead.

        tau_mem V' e^(t/tau_mem) = D - J (1 + tau_syn/tau_mem) z / tau_syn, where D is tau_mem V' at
        first, J = r (I - I_inf), d = 1/tau_syn - 1/tau_mem and z = (1 - e^(-d t)) / d: 0 at
        z = tau_syn D / J.
        """
        if not self.has_current:
            return math.inf
        j = self.r * (i - self.i_inf())
        if j == 0:
            return math.inf
        z = self.tau_syn * self.tau_mem * self.slope(v, i) / j
        x = z * (self.tau_mem - self.tau_syn) / (self.tau_mem * self.tau_syn)
        if z <= 0 or x >= 1:
            return math.inf
        return z * (1.0 if x == 0 else -math.log1p(-x) / x)

    def excess(self, v: float, i: float, t: float) -> float:
        return self.flowed(v, i, t)[0] - self.v_threshold

    def wait(
        self, v: float, i: float, window: float, tolerance: float = CLOSE
    ) -> tuple[float, list[tuple[float, float, str]]]:
        """How long until V, free, comes to the threshold from below (inf: not within a window), and
        where it rises to almost that, or hardly above: (time, margin in heights, what).
        """
        turn = self.turning(v, i)
        points = [0.0, turn, window] if turn < window else [0.0, window]
        ends = [self.excess(v, i, t) for t in points]
        close = [
            (time, end / self.height, "tangent" if time == turn else "edge")
            for before, time, end in zip(ends, points[1:], ends[1:], strict=False)
            if abs(end) < tolerance * self.height and before < end
        ]
        for (low, below), (high, above) in itertools.pairwise(zip(points, ends, strict=True)):
            if below == 0 < above:  # a tie: the spike may precede the arrivals at this time, or not
                return low, [*close, (low, 0.0, "edge")]
            if below < 0 <= above:
                return self.bisected(v, i, low, high), close
        return math.inf, close

    def bisected(self, v: float, i: float, low: float, high: float) -> float:
        """Down to two neighbouring floats."""
        while True:
            middle = 0.5 * (low + high)
            if middle in (low, high):
                return high
            if self.excess(v, i, middle) >= 0:
                high = middle
            else:
                low = middle


# -- networks


def ranks(populations, synapses) -> dict[str, int]:
    """Population -> its place in the network: before all that it feeds, but for those that feed it
    back, which have the same place.
    """
    graph = nx.DiGraph([(projection.source, projection.target) for projection in synapses])
    graph.add_nodes_from(populations)
    parts = nx.condensation(graph)
    order = {
        name: rank
        for rank, part in enumerate(nx.topological_sort(parts))
        for name in parts.nodes[part]["members"]
    }
    return {name: order[name] for name in populations}


class _Simulation:
    def __init__(self, populations, synapses, inputs, t_end, sample_times):
        self.populations, self.t_end = dict(populations), t_end
        self.most, self.tolerance = math.inf, CLOSE
        self.neurons = {
            name: neurons_of(name, population) for name, population in self.populations.items()
        }
        self.rank = ranks(self.populations, synapses)
        self.outgoing: dict[tuple[str, int], list] = {}
        for projection in synapses:
            self.wire(projection)
        self.order, self.boxes, self.now = itertools.count(), itertools.count(), 0.0
        self.queue: list = []
        self.levels: list = []
        firing = [name for name, population in self.populations.items() if population.fires]
        self.spikes = {name: [[] for _ in self.neurons[name]] for name in firing}
        self.slopes = {name: [[] for _ in self.neurons[name]] for name in firing}
        self.firing = [(name, n) for name in firing for n in range(len(self.neurons[name]))]
        self.samples: dict[str, list] = {name: [] for name in self.populations}
        self.close: list[Close] = []
        self.summed: list[float] = []
        self.stopped = math.inf
        taus = [
            time
            for name, population in self.populations.items()
            for neuron in self.neurons[name]
            for time in (
                [neuron.tau_mem] * leaks(population) + [neuron.tau_syn] * neuron.has_current
            )
        ]
        self.together = TOGETHER * min(taus, default=1.0)
        for name, events in inputs.items():
            for time, channel in events:
                if time < t_end:
                    self.send(name, channel, time)
        for time in sample_times:
            self.push(time, "sample", None)

    def wire(self, projection):
        """Note whom each channel reaches: (delay, target, neuron, weight)."""
        weight = projection.weight
        delays = np.broadcast_to(projection.delay, weight.shape)
        for pair in zip(*np.nonzero(weight), strict=True):
            target, source = map(int, pair)
            reached = self.outgoing.setdefault((projection.source, source), [])
            reached.append((float(delays[pair]), projection.target, target, float(weight[pair])))

    def push(self, time, kind, detail):
        heapq.heappush(self.queue, (time, next(self.order), kind, detail))

    def send(self, source, channel, time):
        """What a spike sets going."""
        for delay, target, neuron, weight in self.outgoing.get((source, channel), ()):
            self.push(time + delay, "arrival", (target, neuron, weight))

    def change(self, source, channel, time, value):
        """What a change of a current sets going: it is a separate box that never closes."""
        for delay, target, neuron, weight in self.outgoing.get((source, channel), ()):
            level = (source, channel), weight * value
            self.push(time + delay, "current", (target, neuron, level))

    def run(self) -> Outcome:
        for name, number in self.firing:
            self.begin(name, number)
        while True:
            crossing = min((self.neurons[p][n].crossing for p, n in self.firing), default=math.inf)
            event = self.queue[0][0] if self.queue else math.inf
            time = min(crossing, event)
            if abs(time - self.t_end) < self.together:
                self.note(time, "end", f"{time!r}", time - self.t_end)
            if time > self.t_end or (crossing > self.t_end and event >= self.t_end):
                break
            self.write_down_times(time, crossing, event)
            self.now = time
            if crossing == time:
                for name, number in self.firing:
                    if self.neurons[name][number].crossing == time:
                        self.fire_by_flow(name, number)
            self.rounds()
            if self.stopped < math.inf:
                break
        self.now = self.t_end
        while self.queue and self.queue[0][0] <= self.t_end and self.stopped == math.inf:
            *_, kind, _ = heapq.heappop(self.queue)
            if kind == "sample":
                self.take_sample()
        samples = {name: np.array(voltages) for name, voltages in self.samples.items()}
        return Outcome(
            spikes=self.spikes,
            samples=samples,
            close=self.close,
            stopped=self.stopped,
            slopes=self.slopes,
            summed=self.summed,
        )

    def begin(self, name, number):
        """V may be above the threshold at time 0: it fires there, where arrivals move V with these."""
        population, neuron = self.populations[name], self.neurons[name][number]
        self.look_ahead(name, number)
        if not self.is_above(population, neuron):
            return
        if population.width or neuron.has_current:
            neuron.crossing = 0.0
        else:
            self.push(0.0, "arrival", (name, number, 0.0))

    def write_down_times(self, time, crossing, event):
        if 0 < abs(crossing - event) < self.together and math.isfinite(time):
            self.note(time, "together", f"{crossing!r} and {event!r}", crossing - event)
        elif crossing == event:
            self.note(time, "meets", f"{crossing!r}", 0.0)
        elif 0 < time - self.now < self.together:
            self.note(time, "together", f"{self.now!r} and {time!r}", time - self.now)

    def note(self, time, kind, place, margin):
        self.close.append(Close(time=time, kind=kind, place=place, margin=margin))

    def take_sample(self):
        for name, neurons in self.neurons.items():
            self.samples[name].append([neuron.after(self.now)[0] for neuron in neurons])

    # -- arrivals

    def rounds(self):
        """All that happens now."""
        for _ in range(MOST_ROUNDS):
            if not self.queue or self.queue[0][0] > self.now or self.now >= self.t_end:
                return
            arrived = self.gathered()
            for (name, number), (weights, closing) in arrived.items():
                self.arrive(name, number, weights, closing)
                if len(weights) + len(closing) > 1:
                    self.summed.append(self.now)
            for name, number in sorted(arrived):
                if self.populations[name].fires:
                    self.fire_while_above(name, number)
                    self.look_ahead(name, number)
            if self.stopped < math.inf:
                return
        raise EndlessError(f"more than {MOST_ROUNDS} rounds at {self.now!r} s")

    def gathered(self):
        """What arrives in one round: (population, neuron) -> its weights, and the boxes that end."""
        self.levels = []  # (population, neuron, its current from now on)
        arrived: dict[tuple[str, int], tuple[list, list]] = {}
        due = []
        while self.queue and self.queue[0][0] <= self.now:
            event = heapq.heappop(self.queue)
            if event[2] == "sample":
                self.take_sample()
            else:
                due.append(event)
        first = min((self.rank[detail[0]] for *_, detail in due), default=0)
        for event in due:
            *_, kind, (name, number, value) = event
            if self.rank[name] > first:  # populations before it may still fire
                heapq.heappush(self.queue, event)
                continue
            weights, closing = arrived.setdefault((name, number), ([], []))
            if kind == "current":
                self.levels.append((name, number, value))
            else:
                (closing if kind == "close" else weights).append(value)
        return arrived

    def arrive(self, name, number, weights, closing):
        population, neuron = self.populations[name], self.neurons[name][number]
        before = neuron.v
        neuron.v, neuron.i = neuron.after(self.now)
        neuron.at = self.now
        margin = (neuron.v - neuron.v_threshold) / neuron.height if population.fires else 1.0
        if abs(margin) < self.tolerance and before != neuron.v:
            self.note(self.now, "edge", neuron.name, margin)
        for box in closing:
            del neuron.boxes[box]
        for box, value in (level for *target, level in self.levels if target == [name, number]):
            neuron.boxes[box] = value
        for weight in weights if population.width else ():
            box = next(self.boxes)
            neuron.boxes[box] = weight * box_factor(population, neuron)
            self.push(self.now + population.width, "close", (name, number, box))
        bias = np.broadcast_to(population.bias, (population.size,))
        neuron.drive = math.fsum([float(bias[number]), *neuron.boxes.values()])
        if population.width:
            return
        jump = sum(weights) * jump_factor(population, neuron)
        if neuron.has_current:
            neuron.i += jump
        elif neuron.held <= self.now:
            neuron.v += jump

    def fire_while_above(self, name, number):
        """Fires a neuron as often as it takes, if an arrival has moved V."""
        population, neuron = self.populations[name], self.neurons[name][number]
        if population.width or neuron.has_current or neuron.held > self.now or neuron.stopped:
            return
        margin = (neuron.v - neuron.v_threshold) / neuron.height
        # V that reaches the threshold exactly is exact if it is measured from a rest of 0.
        rest = leaks(population) and neuron.v_leak + neuron.r * neuron.drive
        if abs(margin) < self.tolerance and (margin or rest):
            self.note(self.now, "jump", f"{name}[{number}]", margin)
        while self.is_above(population, neuron):
            self.fire(name, number, neuron.v - neuron.v_threshold, math.inf)

    def is_above(self, population, neuron):
        if neuron.held > self.now or neuron.stopped or self.stopped < math.inf:
            return False
        return (
            neuron.v >= neuron.v_threshold
            if population.inclusive
            else neuron.v > neuron.v_threshold
        )

    # -- spikes

    def fire_by_flow(self, name, number):
        neuron = self.neurons[name][number]
        neuron.v, neuron.i = neuron.after(self.now)
        neuron.at = self.now
        self.fire(name, number, 0.0, neuron.slope(neuron.v, neuron.i))
        self.look_ahead(name, number)

    def fire(self, name, number, overshoot, slope):
        population, neuron = self.populations[name], self.neurons[name][number]
        times = self.spikes[name][number]
        times.append(self.now)
        self.slopes[name][number].append(slope)
        neuron.v = overshoot if population.subtract else neuron.v_reset
        if population.refractory:
            neuron.held = self.now + population.refractory
            neuron.v = neuron.v_reset
        neuron.stopped = population.once
        if len(times) >= self.most:
            self.stopped = self.now
        self.send(name, number, self.now)

    def look_ahead(self, name, number):
        """When a neuron fires next, if nothing arrives."""
        neuron = self.neurons[name][number]
        neuron.crossing = math.inf
        start = max(neuron.at, neuron.held)
        if neuron.stopped or start >= self.t_end:
            return
        v, i = neuron.after(start)
        wait, close = neuron.wait(v, i, self.t_end - start, self.tolerance)
        for later, margin, kind in close:
            self.note(start + later, kind, f"{name}[{number}]", margin)
        neuron.crossing = start + wait


def leaks(population: Neurons) -> bool:
    """Whether V decays."""
    return population.kind not in ("IF", "I")


def neurons_of(name: str, population: Neurons) -> list[Neuron]:
    """The neurons of a population at time 0."""
    values = dict(population.parameters)
    if "tau" in values:
        values["tau_mem"] = values.pop("tau")
    size = (population.size,)
    numbers = {key: np.broadcast_to(values.get(key, 1.0), size) for key in _PARAMETERS}
    if "v_reset" not in values or population.subtract:
        numbers["v_reset"] = np.zeros(size)
    if "v_leak" not in values:
        numbers["v_leak"] = np.zeros(size)
    start, bias = np.broadcast_to(population.v_start, size), np.broadcast_to(population.bias, size)
    return [
        Neuron(
            name=f"{name}[{n}]",
            leaks=leaks(population),
            has_current=population.kind.startswith("Cuba"),
            fires=population.fires,
            v=float(start[n]),
            drive=float(bias[n]),
            **{key: float(array[n]) for key, array in numbers.items()},
        )
        for n in range(population.size)
    ]


def jump_factor(population: Neurons, neuron: Neuron) -> float:
    """What a delta spike of weight 1 adds to I, or to V where there is none."""
    if population.area is None:
        return 1.0
    tau = neuron.tau_syn if neuron.has_current else neuron.tau_mem if neuron.leaks else 1.0
    area = tau if population.area == "tau" else population.area
    return (neuron.w_in if neuron.has_current else neuron.r) * area / tau


def box_factor(population: Neurons, neuron: Neuron) -> float:
    """S in a box of weight 1."""
    if population.area == "tau":
        return (neuron.tau_syn if neuron.has_current else neuron.tau_mem) / population.width
    if population.area is not None:
        return population.area / population.width
    if neuron.has_current:
        return neuron.tau_syn / neuron.w_in / population.width
    return (
        neuron.tau_mem / neuron.r / population.width
        if neuron.leaks
        else 1 / neuron.r / population.width
    )
