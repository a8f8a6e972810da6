"""`Step`, one time step of a population in numbers, from which every target is written.

    i = synapse_decay i + synapse_gain x        (current-based neurons only)
    u = decay v + gain X + drive                (X is i, or x without a current)
    a spike where u passes v_threshold, then the reset gives the next v

x is the sum of what arrives in the step; a spike of weight w counts as w. The update of every framework
has this form.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

#: Effect of a spike on the membrane potential v:
#: "value": v becomes v_reset at once.
#: "subtract": v decreases by v_threshold at once.
#: "subtract later": v decreases by v_threshold in the next time step, after decaying.
#: "skip": v is v_reset at the end of the next time step, whatever the input.
#: "subtract unless above": as "subtract", but a membrane that stays above threshold after a reset
#: counts as already reset (snnTorch's reset_delay false).
#: "difference": with R = [v above threshold] before a time step and S after it, v becomes v_reset
#: where R = 1, and v decreases by (S - R) (v - v_reset) at the end of the time step.
#: "difference later": the same, but R resets v after decay and input.
#: The last two are snnTorch's reset_delay false, which is equal to "value" if v_reset and v_start
#: are not above v_threshold.
Reset = Literal[
    "value",
    "subtract",
    "subtract later",
    "skip",
    "subtract unless above",
    "difference",
    "difference later",
    "none",
]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One step of a population; see the module.

    Attributes:
        name, type: Name and type of the node; `shape` is that of the population, and of all arrays.
        current_based: Whether the input passes through a synaptic current.
        decay, gain, drive: Coefficients of the membrane potential; `drive` is the constant input per
            time step that results from the leak potential.
        synapse_decay, synapse_gain: Factors of the synaptic current.
        bias_ratio: Effect of a bias of 1 in a time step, relative to a spike of weight 1.
        v_threshold, v_reset, v_start: Levels of the membrane potential.
        i_start: Initial synaptic current.
        reset: Effect of a spike, see `Reset`.
        at_equality: Whether a membrane potential equal to v_threshold spikes.
        several: Whether a neuron may fire several spikes per time step, each of which subtracts
            v_threshold.
        level: If copies of a neuron share its spikes: v_threshold of the copy, as a multiple of the
            neuron's v_threshold.
        floor: Lower bound of V at the end of a time step; None for no bound.
        late: Whether spikes are emitted one time step after the threshold crossing.
        starts_with_reset: Whether some membrane potentials start above v_threshold and are reset in
            the first time step.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    current_based: bool
    decay: np.ndarray
    gain: np.ndarray
    drive: np.ndarray
    synapse_decay: np.ndarray
    synapse_gain: np.ndarray
    bias_ratio: np.ndarray
    v_threshold: np.ndarray
    v_reset: np.ndarray
    v_start: np.ndarray
    i_start: np.ndarray
    level: np.ndarray
    reset: Reset
    at_equality: bool
    several: bool
    late: bool
    floor: float | None = None
    starts_with_reset: bool = False
