"""The neurons of snnTorch's, SpikingJelly's and Spyx's importers, and the register of all targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.convert.neuron_writing import (
    NO_LEAK,
    Setting,
    Written,
    filled,
    moved_threshold,
    needs_start,
    needs_value_reset,
    negligible,
    one_for_all,
    refuse_drive,
)
from jaxsnn.nir.convert.norse import write_norse
from jaxsnn.nir.convert.step import Step
from jaxsnn.units import parse_time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """An importer.

    Attributes:
        name: As in the command line.
        title: As people write it.
        write: Writes one neuron; None where neurons are not rewritten.
        nodes: Types that the importer takes, neurons included.
        dt: The step that it assumes where it cannot be told another.
        fixed_dt: It cannot be told another.
        pool: The kind of pool that it takes.
        chain: It runs one chain of nodes only.
        sums: It adds several inputs to a node, recurrent ones aside.
        depth_first: It runs nodes depth first, so that sources must be made to run before what sums
            them.
        starts_at_reset: Its membranes start where they reset, its currents at 0.
        uniform: It takes one time constant for all neurons of a node.
        subtracts: Its neurons can subtract their threshold, so that copies can share several spikes
            in a step.
    """

    name: str
    title: str
    write: Callable[[Step, Setting], Written] | None
    nodes: tuple[str, ...]
    dt: float
    fixed_dt: bool = False
    pool: str | None = None
    chain: bool = False
    sums: bool = True
    depth_first: bool = False
    starts_at_reset: bool = False
    uniform: bool = False
    subtracts: bool = False


def write_snntorch(step: Step, setting: Setting) -> Written:
    """Leaky and Synaptic with reset to zero at once, one threshold for all, leak and start at 0."""
    needs_value_reset(step, setting, "snnTorch")
    needs_start(step, step.v_reset, setting)
    height = step.v_threshold - step.v_reset
    level = float(height.flat[0])
    scale = np.where(height == level, 1.0, level / height)
    threshold = filled(step, level)
    if np.all(scale == 1):
        threshold = moved_threshold(step, threshold, False)
    drive = scale * (step.drive - (1 - step.decay) * step.v_reset)
    rest = np.maximum(1 - step.decay, NO_LEAK)
    entry = {
        "v_leak": filled(step, 0),
        "v_threshold": threshold,
        "v_reset": filled(step, 0),
        "r": 1 / rest,
    }
    why = (
        f"snnTorch's importer takes r = tau/dt with dt = {setting.dt:g} s, "
        "and one threshold for all neurons"
    )
    if not step.current_based:
        entry |= {"type": "LIF", "tau": setting.dt / rest}
        return Written(
            entry=entry, factor=scale * step.gain, offset=negligible(drive, threshold), why=why
        )
    refuse_drive(step, drive, setting)
    share = np.maximum(1 - step.synapse_decay, NO_LEAK)
    entry |= {
        "type": "CubaLIF",
        "tau_mem": setting.dt / rest,
        "tau_syn": setting.dt / share,
        "w_in": 1 / share,
    }
    return Written(
        entry=entry,
        factor=scale * step.gain * step.synapse_gain,
        offset=np.zeros(step.shape),
        why=why,
    )


def write_spikingjelly(step: Step, setting: Setting) -> Written:
    """IF, LIF and CubaLIF with one set of parameters for all neurons, v_leak = v_reset, a reset to
    that value.
    """
    needs_value_reset(step, setting, "SpikingJelly")
    own = np.allclose(step.drive, (1 - step.decay) * step.v_reset) and not step.current_based
    if own and np.ptp(step.v_reset) == 0 and np.ptp(step.v_threshold) == 0:
        level = np.zeros_like(step.v_reset)
    else:
        level = step.v_reset
    needs_start(step, step.v_reset, setting)
    height = step.v_threshold - level
    scale = np.where(height == height.flat[0], 1.0, height.flat[0] / height)
    threshold = filled(step, height.flat[0])
    if np.all(scale == 1):
        threshold = moved_threshold(step, threshold, True)
    decay = one_for_all(step, setting, "the time constant of the membrane", step.decay)
    drive = scale * (step.drive - (1 - step.decay) * step.v_reset)
    offset = negligible(drive, threshold)
    entry = {"v_threshold": threshold, "v_reset": step.v_reset - level}
    why = (
        "SpikingJelly's importer takes r = 1 or r = tau/dt only, IF r = 1/dt, "
        f"with dt = {setting.dt:g} s"
    )
    if step.current_based:
        refuse_drive(step, drive, setting)
        synapse = one_for_all(step, setting, "the time constant of the synapse", step.synapse_decay)
        rest, share = max(1 - decay, NO_LEAK), max(1 - synapse, NO_LEAK)
        entry |= {"type": "CubaLIF", "v_leak": filled(step, 0)}
        entry |= {
            "tau_mem": filled(step, setting.dt / rest),
            "tau_syn": filled(step, setting.dt / share),
        }
        entry |= {"r": filled(step, 1 / rest), "w_in": filled(step, 1 / share)}
        factor = scale * step.gain * step.synapse_gain
        return Written(entry=entry, factor=factor, offset=np.zeros(step.shape), why=why)
    if decay == 1:
        entry |= {"type": "IF", "r": filled(step, 1 / setting.dt)}
        return Written(entry=entry, factor=scale * step.gain, offset=offset, why=why)
    if decay == 0:
        raise ConversionError(
            f"node '{step.name}' keeps nothing of its membrane between steps (tau = dt)",
            fix="give it tau > dt, which SpikingJelly needs",
            node=step.name,
        )
    rest = 1 - decay
    entry |= {"type": "LIF", "tau": filled(step, setting.dt / rest), "v_leak": step.v_reset - level}
    decays_input = (
        np.allclose(step.gain, rest, rtol=1e-9) and np.all(scale == 1) and not np.any(offset)
    )
    entry["r"] = filled(step, 1 if decays_input else 1 / rest)
    factor = filled(step, 1) if decays_input else scale * step.gain
    return Written(entry=entry, factor=factor, offset=offset, why=why)


def write_spyx(step: Step, setting: Setting) -> Written:
    """LIF and IF subtract one step later, CuBaLIF at once; all start and rest at 0, spikes leave
    one step late.
    """
    if step.reset in ("value", "skip", "subtract unless above"):
        described = "to a value" if step.reset in ("value", "skip") else "with reset_delay false"
        setting.give_up(
            step.name,
            f"it resets {described}, and Spyx's importer subtracts v_threshold",
            "that reset is written",
        )
    needs_start(step, np.zeros(step.shape), setting)
    at_once = step.reset == "subtract" and not np.all(step.decay == 1)
    if step.current_based and step.reset == "subtract later" and not np.all(step.decay == 1):
        setting.give_up(
            step.name,
            "it subtracts v_threshold after decaying, and Spyx's CuBaLIF before",
            "the earlier subtraction is written",
        )
    threshold = moved_threshold(step, step.v_threshold, False)
    rest = np.maximum(1 - step.decay, NO_LEAK)
    entry = {"v_threshold": threshold, "v_reset": filled(step, 0)}
    why = (
        f"Spyx's importer takes decays 1 - dt/tau with dt = {setting.dt:g} s, "
        "and ignores r and w_in"
    )
    if step.current_based or at_once:
        if len(step.shape) > 1:
            raise ConversionError(
                f"node '{step.name}' of shape {step.shape} needs Spyx's CuBaLIF, "
                "which takes one axis",
                fix="flatten what feeds it",
                node=step.name,
            )
        if step.current_based:
            refuse_drive(step, step.drive, setting)
        share = np.maximum(1 - step.synapse_decay, NO_LEAK)
        entry |= {
            "type": "CubaLIF",
            "tau_mem": setting.dt / rest,
            "tau_syn": setting.dt / share,
            "w_in": filled(step, 1),
        }
        entry |= {"r": step.decay, "v_leak": filled(step, 0)}
        if not step.current_based:
            why = "only Spyx's CuBaLIF subtracts at once; tau_syn = dt makes it a LIF"
        offset = np.zeros(step.shape) if step.current_based else negligible(step.drive, threshold)
        return Written(entry=entry, factor=step.gain * step.synapse_gain, offset=offset, why=why)
    if np.all(step.decay == 1):
        entry |= {"type": "IF", "r": filled(step, 1)}
    else:
        entry |= {
            "type": "LIF",
            "tau": setting.dt / rest,
            "r": step.decay,
            "v_leak": filled(step, 0),
        }
    return Written(entry=entry, factor=step.gain, offset=negligible(step.drive, threshold), why=why)


_COMMON = ("Input", "Output", "Linear", "Affine", "Conv2d", "Flatten", "IF", "LIF", "CubaLIF")

#: The importers that can be written for, by name.
TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "norse": Target(
            name="norse",
            title="Norse",
            write=write_norse,
            nodes=(*_COMMON, "SumPool2d"),
            dt=parse_time("1ms"),
            pool="SumPool2d",
            depth_first=True,
            subtracts=True,
        ),
        "snntorch": Target(
            name="snntorch",
            title="snnTorch",
            write=write_snntorch,
            nodes=(*_COMMON, "AvgPool2d"),
            dt=1e-4,
            fixed_dt=True,
            pool="AvgPool2d",
            starts_at_reset=True,
        ),
        "spikingjelly": Target(
            name="spikingjelly",
            title="SpikingJelly",
            write=write_spikingjelly,
            nodes=(*_COMMON, "Conv1d", "AvgPool2d"),
            dt=1e-4,
            pool="AvgPool2d",
            starts_at_reset=True,
            uniform=True,
        ),
        "spyx": Target(
            name="spyx",
            title="Spyx",
            write=write_spyx,
            nodes=(*_COMMON, "SumPool2d"),
            dt=1.0,
            pool="SumPool2d",
            chain=True,
            sums=False,
            subtracts=True,
        ),
    }
)
