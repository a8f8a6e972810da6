"""Shared code of the importers of the Electronic Vision(s) group: hxtorch's, and that of their
jaxsnn.

Both take CubaLIF with one set of parameters per layer, time constants in ms, and Linear between
populations; neither reads w_in. Their sources: `hxtorch/spiking/utils/from_nir.py` at 3bfc7aa,
`jaxsnn/event/utils/from_nir.py` at 5e9bb86.
"""

from __future__ import annotations

import numpy as np

from jaxsnn.nir.frameworks.neuron_writing import Setting, Written
from jaxsnn.nir.frameworks.source_flow import Flow, one_value
from jaxsnn.nir.model.dialect import UNIT_SECONDS
from jaxsnn.wording import Text


def written_equations(flow: Flow, setting: Setting, title: str) -> Written:
    """Write a population as CubaLIF, or as CubaLI if it is a readout, in ms.

    Membranes are written as s (V - v_start), so that they start at 0. The factor s gives all neurons
    of a layer the same threshold.
    """
    scale, height = np.ones(flow.shape), flow.v_threshold - flow.v_start
    if flow.spikes:
        scale = np.where(height == height.flat[0], 1.0, height.flat[0] / height)
    levels = {"v_leak": scale * (flow.v_leak - flow.v_start)}
    if flow.spikes:
        levels |= {
            "v_threshold": scale * height,
            "v_reset": scale * (flow.v_reset - flow.v_start),
        }
    times = {key: getattr(flow, key) / UNIT_SECONDS["ms"] for key in ("tau_mem", "tau_syn")}
    layer_values = {
        key: one_value(flow, value, key, title) for key, value in (levels | times).items()
    }
    if not flow.spikes and np.any(flow.v_start):
        setting.give_up(
            flow.name,
            Text(
                "its membrane potential starts at {value:g}, in the importer at 0",
                value=flow.v_start.flat[0],
            ),
            "membrane potentials are relative to their initial value",
        )
    entry = {key: np.full(flow.shape, value) for key, value in layer_values.items()}
    entry |= {"r": np.ones(flow.shape), "w_in": np.ones(flow.shape)}
    return Written(
        entry={"type": "CubaLIF" if flow.spikes else "CubaLI", **entry},
        factor=scale * flow.jump,
        offset=np.zeros(flow.shape),
        why=f"{title}'s importer expects times in ms, and a spike changes the current by its "
        "weight alone",
    )
