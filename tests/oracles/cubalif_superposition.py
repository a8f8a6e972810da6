"""dV/dt of current-based neurons at their spikes, from the current that all arrivals before have
left: a sum of decaying exponentials.
"""

import numpy as np


def slopes(p, weight, times, rows, at, *, area, current):
    """tau_mem V' = v_leak - v_threshold + r I: (samples, neurons, spikes).

    Args:
        p: NIR's names -> (neurons,).
        weight: (sources, neurons), and a spike moves I by w_in weight area / tau_syn.
        times, rows: (samples, arrivals).
        at: (samples, neurons, spikes), spike times.
        current: (neurons,), constant inputs since time 0.
    """
    p = {name: values[:, None] for name, values in p.items()}
    arrived = times[:, None, None] < at[..., None]  # (samples, neurons, spikes, arrivals)
    wait = np.where(arrived, at[..., None] - times[:, None, None], 0.0)
    jump = weight[rows].transpose(0, 2, 1)[:, :, None]
    jump = jump * (area * p["w_in"] / p["tau_syn"])[..., None]
    decayed = np.where(arrived, jump * np.exp(-wait / p["tau_syn"][..., None]), 0.0)
    rest = p["w_in"] * current[:, None]
    total = rest * -np.expm1(-at / p["tau_syn"]) + decayed.sum(axis=-1)
    return (p["v_leak"] - p["v_threshold"] + p["r"] * total) / p["tau_mem"]
