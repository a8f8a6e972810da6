"""What circuits of the chip do with the events that reach them: leaky membranes whose currents
decay, exactly from event to event. It knows no network, only circuits.
"""

import heapq

import numpy as np

#: Number of bisections of an interval of at most some milliseconds; what remains is far shorter
#: than a clock cycle.
HALVINGS = 36


class Circuits:
    """Neurons by number of their head circuit.

    Args:
        heads: circuit number -> values of the calibration there, potentials and seconds.
        slope: CADC LSB per second by which one LSB of a weight changes dV/dt.
    """

    def __init__(self, heads, slope):
        self.place = {circuit: number for number, circuit in enumerate(heads)}
        circuits = list(heads.values())
        self.leak, self.reset, self.threshold, self.tau_mem, self.refractory = (
            np.array([values[name] for values in circuits], float)
            for name in ("leak", "reset", "threshold", "tau_mem", "refractory_time")
        )
        self.fires = np.array([values["fires"] for values in circuits], bool)
        self.tau = np.array([values["tau_syn"] for values in circuits], float).T.reshape(2, -1)
        self.slope = slope

    def start(self):
        """At rest."""
        size = len(self.place)
        self.voltage, self.current = self.leak.copy(), np.zeros((2, size))
        self.free = np.full(size, -np.inf)  # end of the refractory time
        self.now = 0.0

    def at(self, elapsed):
        """Voltages and currents after some time without events or spikes: (neurons,), or (steps,
        neurons) for (steps, 1) times.
        """
        held = np.clip(self.free - self.now, 0.0, elapsed)  # time that V is clamped to reset
        moving = elapsed - held
        begin = np.where(held > 0, self.reset, self.voltage)
        drop = np.exp(-moving / self.tau_mem)
        voltage = self.leak + (begin - self.leak) * drop
        currents = []
        for part, tau in zip(self.current, self.tau, strict=True):
            entering = part * np.exp(-held / tau)
            equal = np.abs(tau / self.tau_mem - 1) < 1e-9
            safe = np.where(equal, 2 * self.tau_mem, tau)
            factor = safe * self.tau_mem / (safe - self.tau_mem)
            rise = np.where(equal, moving * drop, factor * (np.exp(-moving / safe) - drop))
            voltage = voltage + self.slope * entering * rise
            currents.append(part * np.exp(-elapsed / tau))
        return voltage, currents

    def first_crossing(self, limit):
        """Time until the first neuron fires, within `limit` seconds, and which; None if none."""
        count = int(
            np.clip(np.ceil(limit / (0.05 * min(self.tau.min(), self.tau_mem.min()))), 2, 400)
        )
        steps = np.linspace(0.0, limit, count + 1)[1:]
        above = self.at(steps[:, None])[0] >= self.threshold
        above &= self.fires & (self.free - self.now < steps[:, None])
        if not above.any():
            return None
        step = int(np.argmax(above.any(axis=1)))
        chosen = above[step]
        low = np.full(len(chosen), steps[step - 1] if step else 0.0)
        high = np.full(len(chosen), steps[step])
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            over = self.at(middle)[0] >= self.threshold
            low, high = np.where(over, low, middle), np.where(over, middle, high)
        high = np.where(chosen, high, np.inf)
        first = int(np.argmin(high))
        return float(high[first]), first

    def advance(self, elapsed):
        voltage, currents = self.at(elapsed)
        self.voltage, self.current = voltage, np.array(currents)
        self.now += elapsed

    def run(self, events, reached, duration, sampled=()):
        """All spikes, (seconds, circuit), and voltages at some times.

        Args:
            events: (seconds, sender).
            reached: sender -> [(circuit, signed weight)]; senders on the chip are circuits.
        """
        self.start()
        waiting = [(time, 1, order, sender) for order, (time, sender) in enumerate(events)]
        waiting += [(time, 0, order, None) for order, time in enumerate(sampled)]
        heapq.heapify(waiting)
        circuits = list(self.place)
        spikes, voltages = [], []
        while True:
            until = min(waiting[0][0], duration) if waiting else duration
            while until > self.now:
                crossing = self.first_crossing(until - self.now)
                if crossing is None:
                    self.advance(until - self.now)
                    break
                elapsed, which = crossing
                self.advance(elapsed)
                spikes.append((self.now, circuits[which]))
                self.voltage[which] = self.reset[which]
                self.free[which] = self.now + self.refractory[which]
                self.arrive(reached.get(circuits[which], ()))
            if not waiting or waiting[0][0] >= duration:
                return spikes, voltages
            _, kind, _, sender = heapq.heappop(waiting)
            if kind:
                self.arrive(reached.get(sender, ()))
            else:
                voltages.append(self.voltage.copy())

    def arrive(self, targets):
        for circuit, weight in targets:
            self.current[0 if weight > 0 else 1, self.place[circuit]] += weight
