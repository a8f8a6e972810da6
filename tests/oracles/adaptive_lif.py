"""Spikes of current-based neurons whose threshold each spike raises, in small pieces of closed form,
spike after spike.

    tau_syn I' = -I + w_in sum W S,  tau_mem V' = v_leak - V + r I,  tau_adaptation A' = -A,
    V > v_threshold + A: V = v_reset, A = A + step
"""

import numpy as np


def spikes(parameters, weights, arrivals, current, t_end, recurrent=None):
    """Spike times of each neuron, by a fine search in closed form between events and bisection.

    Args:
        weights: (neurons, channels), an arriving spike's; recurrent: (neurons, neurons) likewise.
        arrivals: (time, channel) pairs in order.
        current: (neurons,) constant input.
    """
    p = {name: np.asarray(value, float) for name, value in parameters.items()}
    size = len(p["r"])
    v, i, a = np.zeros(size), np.zeros(size), np.zeros(size)
    queue = [(time, weights[:, channel]) for time, channel in arrivals]
    now, fired = 0.0, [[] for _ in range(size)]

    def after(dt, neuron):
        """V - threshold, V, I, A after some time."""
        mem, syn = p["tau_mem"][neuron], p["tau_syn"][neuron]
        i_inf = p["w_in"][neuron] * current[neuron]
        v_inf = p["v_leak"][neuron] + p["r"][neuron] * i_inf
        j = p["r"][neuron] * (i[neuron] - i_inf)
        em, es = np.exp(-dt / mem), np.exp(-dt / syn)
        # (em - es) syn / (mem - syn), in a form that is finite if the two are equal.
        z = dt * (1 / mem - 1 / syn)
        with np.errstate(invalid="ignore", divide="ignore"):
            k = dt / mem * em * np.where(z == 0, 1.0, np.expm1(z) / z)
        new_v = v_inf + (v[neuron] - v_inf) * em + j * k
        new_i = i_inf + (i[neuron] - i_inf) * es
        new_a = a[neuron] * np.exp(-dt / p["tau_adaptation"][neuron])
        return new_v - p["v_threshold"][neuron] - new_a, new_v, new_i, new_a

    while now < t_end:
        end = min(queue[0][0] if queue else t_end, t_end)
        crossings = []
        for neuron in range(size):
            grid = np.linspace(0.0, end - now, 400)
            above = after(grid, neuron)[0] >= 0
            if above[1:].any():
                number = int(above[1:].argmax()) + 1
                low, high = grid[number - 1], grid[number]
                for _ in range(100):
                    middle = (low + high) / 2
                    low, high = (low, middle) if after(middle, neuron)[0] >= 0 else (middle, high)
                crossings.append((high, neuron))
        step = min(crossings)[0] if crossings else end - now
        v, i, a = (
            np.array(component)
            for component in zip(*(after(step, n)[1:] for n in range(size)), strict=True)
        )
        now += step
        if crossings:
            neuron = min(crossings)[1]
            fired[neuron].append(now)
            v[neuron], a[neuron] = p["v_reset"][neuron], a[neuron] + p["step"][neuron]
            if recurrent is not None:
                i = i + p["w_in"] / p["tau_syn"] * recurrent[:, neuron]
        elif queue and queue[0][0] <= t_end:
            i = i + p["w_in"] / p["tau_syn"] * queue.pop(0)[1]
        else:
            break
    return fired
