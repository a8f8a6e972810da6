"""Equations of a population, as importers that simulate in continuous time need them.

    tau_syn I' = -I,  I jumps by `jump` times the weight with each spike
    tau_mem V' = v_leak - V + I
    a spike where V passes v_threshold, then V = v_reset

Each current-based neuron has this form, with r and w_in put into the jump.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.wording import Text

GiveUp = Callable[[str, str, str], None]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Flow:
    """The equations of a population; see the module. Arrays of its shape, in seconds.

    Attributes:
        name, type, shape: Name, type and shape of the node.
        tau_mem, tau_syn: Time constants.
        jump: Increase of the synaptic current by a spike of weight 1.
        v_leak, v_threshold, v_reset, v_start: Levels of the membrane potential.
        spikes: Whether the population spikes; False: it outputs its membrane potential and never
            resets.
        bias_ratio: Array of ones, as in `Step`.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    tau_mem: np.ndarray
    tau_syn: np.ndarray
    jump: np.ndarray
    v_leak: np.ndarray
    v_threshold: np.ndarray
    v_reset: np.ndarray
    v_start: np.ndarray
    spikes: bool
    bias_ratio: np.ndarray


def one_value(flow: Flow, values: np.ndarray, quantity: str, title: str) -> float:
    """Return the single value of a layer.

    Raises:
        ConversionError: The values of the neurons differ.
    """
    low, high = float(values.min()), float(values.max())
    if high - low > 1e-9 * max(abs(low), abs(high)):
        raise ConversionError(
            Text(
                "node '{node}': its neurons differ in {parameter} ({minimum:g} to {maximum:g}), and "
                "{framework}'s importer supports one value per layer",
                node=flow.name,
                parameter=quantity,
                minimum=low,
                maximum=high,
                framework=title,
            ),
            fix="use the same value for all, or split the layer",
            node=flow.name,
        )
    return float(values.flat[0])
