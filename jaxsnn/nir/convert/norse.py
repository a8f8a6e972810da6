"""Norse's importer: LIF and IF reset to 0, CubaLIF as `reset_method` says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.convert.neuron_writing import (
    LARGE_CURRENT,
    NO_LEAK,
    Setting,
    Written,
    filled,
    moved_threshold,
    needs_start,
    needs_value_reset,
    negligible,
)
from jaxsnn.nir.convert.step import Step

#: What `from_nir` is told, by kind. "unit": membranes are scaled so that a spike takes 1 off.
#: "floor": so that v_threshold is 1, and as many as fit in are taken off.
RESET_METHODS: Mapping[str, str] = MappingProxyType(
    {
        "value": "",
        "subtract": ", reset_method=norse.torch.functional.reset.reset_subtract",
        "unit": ", reset_method=lambda z, v, reset, th: v - z",
        "floor": ", reset_method=lambda z, v, reset, th: v - v.floor().clamp(min=0)",
    }
)


def reset_method(steps: Iterable[Step]) -> str:
    """The key of `RESET_METHODS` for a graph.

    Raises:
        ConversionError: Nodes need different ones.
    """
    resets = [step.reset for step in steps]
    several = any(step.several for step in steps)
    if several and "subtract later" in resets:
        raise ConversionError(
            "Norse takes one reset_method for all nodes, "
            "and some fire several spikes in a step where others reset one step later",
            fix="give all of them the same reset",
        )
    if several:
        return "floor"
    if "subtract later" in resets:
        return "unit"
    return "value" if all(reset in ("value", "skip") for reset in resets) else "subtract"


def write_norse(step: Step, setting: Setting) -> Written:
    """LIF and IF reset to 0 and ignore r; CubaLIF uses r, w_in and the reset method that `from_nir`
    is given.
    """
    if step.several and step.reset == "value":
        raise ConversionError(
            f"node '{step.name}' resets to a value after several spikes in a step, "
            "and Norse fires one",
            fix='use reset="subtract"',
            node=step.name,
        )
    if step.reset == "skip":
        needs_value_reset(step, setting, "Norse")
        step = dataclasses.replace(step, reset="value")
    if step.reset == "subtract unless above":
        setting.give_up(
            step.name,
            "a membrane still above v_threshold after its reset is not compared alike "
            "(reset_delay false)",
            "a plain subtraction is written",
        )
        step = dataclasses.replace(step, reset="subtract")
    if step.reset != "value" or step.current_based:
        return _norse_current(step, setting)
    threshold = moved_threshold(step, step.v_threshold - step.v_reset, False)
    start, rest = step.v_start - step.v_reset, 1 - step.decay
    if np.all(step.decay == 1):
        needs_start(step, step.v_reset, setting)
        entry = {
            "type": "IF",
            "r": filled(step, 1),
            "v_threshold": threshold,
            "v_reset": filled(step, 0),
        }
        return Written(
            entry=entry,
            factor=step.gain,
            offset=step.drive,
            why="Norse's importer ignores r of IF and resets to 0",
        )
    rest = np.maximum(rest, NO_LEAK)
    drive = step.drive - (1 - step.decay) * step.v_reset
    entry = {
        "type": "LIF",
        "tau": setting.dt / rest,
        "r": filled(step, 1),
        "v_leak": start,
        "v_threshold": threshold,
        "v_reset": filled(step, 0),
    }
    offset = negligible(drive / rest - start, threshold)
    why = (
        "Norse's importer ignores r of LIF, so that a spike of weight w adds w dt/tau; "
        "it starts at v_leak"
    )
    return Written(entry=entry, factor=step.gain / rest, offset=offset, why=why)


def _norse_current(step: Step, setting: Setting) -> Written:
    """CubaLIF: I += a (v_leak - I + w_in x), V += b (r I + v_leak - V), a = dt/tau_syn and b =
    dt/tau_mem.

    Without a current in the source, a = 1. Norse starts I and V at v_leak; I is written as large i
    + shift, where `large` makes that start fit, or makes it vanish.
    """
    subtracts = step.reset != "value"
    level = np.zeros_like(step.v_reset) if subtracts else step.v_reset
    scale = np.ones_like(level)
    if subtracts and setting.reset_method == "unit":
        scale = (step.decay if step.reset == "subtract later" else 1.0) / step.v_threshold
    if subtracts and setting.reset_method == "floor":
        scale = step.level / step.v_threshold
    if not subtracts and setting.reset_method != "value":
        raise ConversionError(
            f"node '{step.name}' resets to a value and other nodes subtract v_threshold, "
            "and Norse takes one reset_method for all CubaLIF",
            fix="give all of them the same reset",
            node=step.name,
        )
    if np.any(scale <= 0):
        raise ConversionError(
            f"node '{step.name}' has a decay of 0 in a step, after which nothing can be subtracted",
            fix="use another reset",
            node=step.name,
        )
    threshold = scale * (step.v_threshold - level)
    start = scale * (step.v_start - level)
    drive = scale * (step.drive - (1 - step.decay) * level)
    rest = np.maximum(1 - step.decay, NO_LEAK)
    share = 1 - step.synapse_decay if step.current_based else filled(step, 1)
    if np.any(share <= 0):
        raise ConversionError(
            f"node '{step.name}' has a synaptic current that never decays, which Norse cannot do",
            fix="give it a finite tau_syn",
            node=step.name,
        )
    large = np.where((start != 0) & (share != 1), LARGE_CURRENT, 1.0)
    if np.any(step.i_start):
        gap = step.i_start - step.v_start * rest / step.gain
        large = np.where(step.i_start == 0, large, start / np.where(gap == 0, np.nan, gap))
        if not np.all(np.isfinite(large) & (large != 0)):
            raise ConversionError(
                f"node '{step.name}' starts with a current that Norse's v_leak cannot give it",
                fix="leave out the biases that act before its first input arrives",
                node=step.name,
            )
    w_in = step.synapse_gain * large / share
    r = scale * step.gain / (rest * large)
    shift = (drive / rest - start) / r
    if np.any(
        np.abs(r * (large * step.i_start + shift - start) * (share != 1)) > 1e-7 * np.abs(threshold)
    ):
        setting.give_up(
            step.name,
            "Norse starts its current at v_leak, not at rest",
            "the first spikes may differ",
        )
    entry = {
        "type": "CubaLIF",
        "tau_syn": setting.dt / share,
        "tau_mem": setting.dt / rest,
        "r": r,
        "v_leak": start,
        "v_threshold": moved_threshold(step, threshold, False),
        "v_reset": filled(step, 0),
        "w_in": w_in,
    }
    offset = negligible((shift - start) / w_in, threshold)
    why = (
        "Norse's importer takes w_in = tau_syn/dt and r = tau_mem/dt for jumps of the current "
        "and of the membrane"
    )
    if not step.current_based:
        why = (
            "only CubaLIF of Norse's importer has a reset other than to 0; "
            "tau_syn = dt makes it a LIF"
        )
    return Written(entry=entry, factor=filled(step, 1), offset=offset, why=why)
