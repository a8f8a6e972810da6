"""Spikes of LIF and IF neurons under box-shaped currents, in closed form from edge to edge of the
boxes.
"""

import itertools

import numpy as np
from scipy.optimize import brentq


def spikes(p, times, heights, width, t_end, *, constant=0.0):
    """Spike times of one neuron that starts at v_reset; the root is bracketed.

    Args:
        p: numbers by NIR's names; an IF has no tau.
        times: (boxes,), when each begins.
        heights: (boxes,), what each adds to tau dV/dt (of an IF: to dV/dt).
        width: of each box, in seconds.
        constant: is added likewise, all the time.
    """
    tau, leak, found = p.get("tau"), p.get("v_leak", 0.0), []
    edges = np.unique(np.concatenate([[0.0], times, times + width, [t_end]]))
    v = p["v_reset"]
    for start, end in itertools.pairwise(edges[edges <= t_end]):
        middle = (start + end) / 2
        drive = constant + heights[(times < middle) & (middle < times + width)].sum()

        def voltage(t, v, drive=drive):
            if tau is None:
                return v + drive * t
            return leak + drive + (v - leak - drive) * np.exp(-t / tau)

        now = start
        while voltage(end - now, v) > p["v_threshold"]:
            now += brentq(
                lambda t, v=v: voltage(t, v) - p["v_threshold"], 0.0, end - now, xtol=1e-15
            )
            found.append(now)
            v = p["v_reset"]
        v = voltage(end - now, v)
    return found
