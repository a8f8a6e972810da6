"""Voltages of readouts by Euler steps that are tiny: NIR's equations as they stand."""

import numpy as np


def voltages(kind, p, drive, bias, dt, fine):
    """V of a CubaLI, LI or I at each time step, right after what arrives in it.

    Args:
        p: numbers by NIR's names, and the `area` of a spike in seconds.
        drive: (steps,), weight times spikes that arrive in each step.
        bias: a constant input.
        dt: seconds of a time step; fine: in how many it is divided.
    """
    v = i = 0.0
    trace = []
    for arriving in drive:
        if kind.startswith("Cuba"):
            i += p["w_in"] * p["area"] / p["tau_syn"] * arriving
        else:
            v += p["r"] * p["area"] / p.get("tau", 1.0) * arriving
        trace.append(v)
        for _ in range(fine):
            h = dt / fine
            if kind.startswith("Cuba"):
                dv = (p["v_leak"] - v + p["r"] * i) / p["tau_mem"]
                i, v = i + h * (p["w_in"] * bias - i) / p["tau_syn"], v + h * dv
            elif kind == "LI":
                v += h * (p["v_leak"] - v + p["r"] * bias) / p["tau"]
            else:
                v += h * p["r"] * bias
    return np.array(trace)
