"""Shared parts of the descriptions of several frameworks."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsnn.nir.model.dialect import StepLength


def _tau_over_r(tau: np.ndarray, r: np.ndarray) -> np.ndarray:
    return tau / r


def _tau_over_dt(tau: Any, dt: Any, xp: Any) -> Any:
    return tau / dt


#: r = tau/dt, and w_in = tau_syn/dt.
TAU_OVER_R = StepLength(
    text="tau/r", of=_tau_over_r, synapses=True, gain=_tau_over_dt, above_dt=True
)
#: Node types that all importers with a writer support.
COMMON_NODES = (
    *("Input", "Output", "Linear", "Affine", "Conv2d", "Flatten", "IF", "LIF", "CubaLIF"),
)
#: Template of code that runs a module of an importer for PyTorch, step by step, with the returned
#: state.
TORCH_RUN = """\
state, spikes = None, []
for frame in x:  # x: a float tensor (time, batch, *shape)
    y, state = net(frame, state)
    spikes.append(y)"""
