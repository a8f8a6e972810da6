"""How each importer's neurons step, and which numbers make them fire a given population's spikes.

A writer takes one `Step` of the source. It may scale a membrane (v' = s (v - o)), choose another node type, and ask for
a factor and an offset on what arrives, which `convert` puts into the weights. It refuses what its importer cannot do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.convert_steps import Reset, Step
from jaxsnn.nir.nodes import nothing

#: 1 - decay of a membrane that does not leak: small enough to vanish in float32, large enough to divide by.
NO_LEAK = 2.0**-40
#: How many times larger the current is written where a small r keeps Norse's leak out of it.
LARGE_CURRENT = 2.0**30


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """A neuron for the target.

    Attributes:
        entry: Its type and parameters.
        factor, offset: What arrives is multiplied by `factor`, then `offset` is added; arrays of the neuron's shape.
        why: Why its numbers changed.
    """

    entry: dict[str, Any]
    factor: np.ndarray
    offset: np.ndarray
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What holds for all neurons of one conversion.

    Attributes:
        dt: The step of the target in seconds.
        unit_reset: Norse: membranes are scaled so that every reset subtracts 1.
        give_up: Called with a node and a reason where only an approximation is possible; raises unless that is wanted.
    """

    dt: float
    unit_reset: bool
    give_up: Callable[[str, str, str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """An importer.

    Attributes:
        name: As in the command line.
        title: As people write it.
        write: Writes one neuron.
        nodes: Types that the importer takes, neurons included.
        dt: The step that it assumes where it cannot be told another.
        fixed_dt: It cannot be told another.
        pool: The kind of pool that it takes.
        rename: Node names that it needs, by role.
        chain: It runs one chain of nodes only.
        sums: It adds several inputs to a node, recurrent ones aside.
    """

    name: str
    title: str
    write: Callable[[Step, Setting], Written]
    nodes: tuple[str, ...]
    dt: float
    fixed_dt: bool = False
    pool: str | None = None
    rename: Mapping[str, str] = dataclasses.field(default_factory=nothing)
    chain: bool = False
    sums: bool = True


def _filled(step: Step, value: Any) -> np.ndarray:
    return np.broadcast_to(np.asarray(value, float), step.shape).copy()


def _needs_value_reset(step: Step, setting: Setting, title: str) -> None:
    if step.reset == "value":
        return
    described: Mapping[Reset, str] = {
        "subtract": "subtracts v_threshold",
        "subtract later": "subtracts v_threshold one step later",
        "subtract unless above": "subtracts v_threshold",
        "skip": "is zero at the end of the step after a spike, whatever arrives",
    }
    setting.give_up(
        step.name,
        f"its reset {described[step.reset]}, and {title}'s importer resets to a value in the step of the spike",
        "that reset is written",
    )


def _loops_through_current(step: Step, drive: np.ndarray, setting: Setting) -> None:
    """A constant drive of the membrane cannot be put into what arrives, which passes through the current."""
    if np.any(np.abs(drive) > 1e-9 * np.abs(step.v_threshold)):
        place = int(np.argmax(np.abs(drive)))
        setting.give_up(
            step.name,
            f"neuron {place} rests at {drive.flat[place] / max(1 - step.decay.flat[place], NO_LEAK):g}, not where it starts "
            "and resets, and a constant input would pass through the synaptic current first",
            "it rests where it resets",
        )


def _needs_start(step: Step, start: np.ndarray, setting: Setting) -> None:
    """The importer starts its membranes at `start`, in the source's numbers."""
    off = np.abs(step.v_start - start) > 1e-9 * np.abs(step.v_threshold)
    if np.any(off):
        place = int(np.argmax(off))
        setting.give_up(
            step.name,
            f"neuron {place} starts at {step.v_start.flat[place]:g}, but the importer starts it at {start.flat[place]:g}",
            "the first spikes may differ",
        )


def _one(step: Step, setting: Setting, what: str, values: np.ndarray) -> float:
    """The one value that an importer takes for all neurons."""
    if np.ptp(values) > 1e-9 * np.abs(values).max():
        setting.give_up(
            step.name,
            f"its neurons differ in {what} ({values.min():g} to {values.max():g}), and the importer takes one for all",
            "their mean is written",
        )
        return float(values.mean())
    return float(values.flat[0])


def _moved_threshold(step: Step, threshold: np.ndarray, at_equality: bool) -> np.ndarray:
    """The threshold one float32 lower or higher where the target counts a membrane at threshold the other way."""
    if step.at_equality == at_equality:
        return threshold
    direction = np.float32(np.inf if step.at_equality is False else -np.inf)
    return np.nextafter(threshold.astype(np.float32), direction).astype(float)


# ---- Norse ----------------------------------------------------------------------------------------------------------


def write_norse(step: Step, setting: Setting) -> Written:
    """LIF and IF reset to 0 and ignore r; CubaLIF uses r, w_in and the reset method that `from_nir` is given."""
    if step.reset == "skip":
        _needs_value_reset(step, setting, "Norse")
        step = dataclasses.replace(step, reset="value")
    if step.reset == "subtract unless above":
        setting.give_up(
            step.name,
            "a membrane still above v_threshold after its reset is not compared alike (reset_delay false)",
            "a plain subtraction is written",
        )
        step = dataclasses.replace(step, reset="subtract")
    if step.reset != "value" or step.current_based:
        return _norse_current(step, setting)
    threshold = _moved_threshold(step, step.v_threshold - step.v_reset, False)
    start, rest = step.v_start - step.v_reset, 1 - step.decay
    if np.all(step.decay == 1):
        _needs_start(step, step.v_reset, setting)
        entry = {"type": "IF", "r": _filled(step, 1), "v_threshold": threshold, "v_reset": _filled(step, 0)}
        return Written(
            entry=entry, factor=step.gain, offset=step.drive, why="Norse's importer ignores r of IF and resets to 0"
        )
    rest = np.maximum(rest, NO_LEAK)
    drive = step.drive - (1 - step.decay) * step.v_reset
    entry = {
        "type": "LIF",
        "tau": setting.dt / rest,
        "r": _filled(step, 1),
        "v_leak": start,
        "v_threshold": threshold,
        "v_reset": _filled(step, 0),
    }
    offset = _negligible(drive / rest - start, threshold)
    why = "Norse's importer ignores r of LIF, so that a spike of weight w adds w dt/tau; it starts at v_leak"
    return Written(entry=entry, factor=step.gain / rest, offset=offset, why=why)


def _negligible(offset: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.where(np.abs(offset) < 1e-9 * np.abs(scale), 0.0, offset)


def _norse_current(step: Step, setting: Setting) -> Written:
    """CubaLIF: I += a (v_leak - I + w_in x), V += b (r I + v_leak - V), a = dt/tau_syn and b = dt/tau_mem.

    Without a current in the source, a = 1. Norse starts I and V at v_leak; I is written as large i + shift, where `large`
    makes that start fit, or makes it vanish.
    """
    subtracts = step.reset != "value"
    level = np.zeros_like(step.v_reset) if subtracts else step.v_reset
    scale = np.ones_like(level)
    if subtracts and setting.unit_reset:
        scale = (step.decay if step.reset == "subtract later" else 1.0) / step.v_threshold
    if np.any(scale <= 0):
        raise ConversionError(
            f"node '{step.name}' has a decay of 0 in a step, after which nothing can be subtracted: use another reset"
        )
    threshold = scale * (step.v_threshold - level)
    start = scale * (step.v_start - level)
    drive = scale * (step.drive - (1 - step.decay) * level)
    rest = np.maximum(1 - step.decay, NO_LEAK)
    share = 1 - step.synapse_decay if step.current_based else _filled(step, 1)
    if np.any(share <= 0):
        raise ConversionError(f"node '{step.name}' has a synaptic current that never decays: Norse needs tau_syn")
    large = np.where((start != 0) & (share != 1), LARGE_CURRENT, 1.0)
    if np.any(step.i_start):
        gap = step.i_start - step.v_start * rest / step.gain
        large = np.where(step.i_start == 0, large, start / np.where(gap == 0, np.nan, gap))
        if not np.all(np.isfinite(large) & (large != 0)):
            raise ConversionError(f"node '{step.name}' starts with a current that Norse's v_leak cannot give it")
    w_in = step.synapse_gain * large / share
    r = scale * step.gain / (rest * large)
    shift = (drive / rest - start) / r
    if np.any(np.abs(r * (large * step.i_start + shift - start) * (share != 1)) > 1e-7 * np.abs(threshold)):
        setting.give_up(step.name, "Norse starts its current at v_leak, not at rest", "the first spikes may differ")
    entry = {
        "type": "CubaLIF",
        "tau_syn": setting.dt / share,
        "tau_mem": setting.dt / rest,
        "r": r,
        "v_leak": start,
        "v_threshold": threshold if scale.max() != 1 else _moved_threshold(step, threshold, False),
        "v_reset": _filled(step, 0),
        "w_in": w_in,
    }
    offset = _negligible((shift - start) / w_in, threshold)
    why = "Norse's importer takes w_in = tau_syn/dt and r = tau_mem/dt for jumps of the current and of the membrane"
    if not step.current_based:
        why = "only CubaLIF of Norse's importer has a reset other than to 0; tau_syn = dt makes it a LIF"
    return Written(entry=entry, factor=_filled(step, 1), offset=offset, why=why)


# ---- snnTorch -------------------------------------------------------------------------------------------------------


def write_snntorch(step: Step, setting: Setting) -> Written:
    """Leaky and Synaptic with reset to zero at once, one threshold for all, leak and start at 0."""
    _needs_value_reset(step, setting, "snnTorch")
    _needs_start(step, step.v_reset, setting)
    height = step.v_threshold - step.v_reset
    level = float(height.flat[0])
    scale = np.where(height == level, 1.0, level / height)
    threshold = _filled(step, level)
    if np.all(scale == 1):
        threshold = _moved_threshold(step, threshold, False)
    drive = scale * (step.drive - (1 - step.decay) * step.v_reset)
    rest = np.maximum(1 - step.decay, NO_LEAK)
    entry = {"v_leak": _filled(step, 0), "v_threshold": threshold, "v_reset": _filled(step, 0), "r": 1 / rest}
    why = f"snnTorch's importer takes r = tau/dt with dt = {setting.dt:g} s, and one threshold for all neurons"
    if not step.current_based:
        entry |= {"type": "LIF", "tau": setting.dt / rest}
        return Written(entry=entry, factor=scale * step.gain, offset=_negligible(drive, threshold), why=why)
    _loops_through_current(step, drive, setting)
    share = np.maximum(1 - step.synapse_decay, NO_LEAK)
    entry |= {"type": "CubaLIF", "tau_mem": setting.dt / rest, "tau_syn": setting.dt / share, "w_in": 1 / share}
    return Written(entry=entry, factor=scale * step.gain * step.synapse_gain, offset=np.zeros(step.shape), why=why)


# ---- SpikingJelly ---------------------------------------------------------------------------------------------------


def write_spikingjelly(step: Step, setting: Setting) -> Written:
    """IF, LIF and CubaLIF with one set of parameters for all neurons, v_leak = v_reset, a reset to that value."""
    _needs_value_reset(step, setting, "SpikingJelly")
    own = np.allclose(step.drive, (1 - step.decay) * step.v_reset) and not step.current_based
    if own and np.ptp(step.v_reset) == 0 and np.ptp(step.v_threshold) == 0:
        level = np.zeros_like(step.v_reset)
    else:
        level = step.v_reset
    _needs_start(step, step.v_reset, setting)
    height = step.v_threshold - level
    scale = np.where(height == height.flat[0], 1.0, height.flat[0] / height)
    threshold = _filled(step, height.flat[0])
    if np.all(scale == 1):
        threshold = _moved_threshold(step, threshold, True)
    decay = _one(step, setting, "the time constant of the membrane", step.decay)
    drive = scale * (step.drive - (1 - step.decay) * step.v_reset)
    offset = _negligible(drive, threshold)
    entry = {"v_threshold": threshold, "v_reset": step.v_reset - level}
    why = f"SpikingJelly's importer takes r = 1 or r = tau/dt only, IF r = 1/dt, with dt = {setting.dt:g} s"
    if step.current_based:
        _loops_through_current(step, drive, setting)
        synapse = _one(step, setting, "the time constant of the synapse", step.synapse_decay)
        rest, share = max(1 - decay, NO_LEAK), max(1 - synapse, NO_LEAK)
        entry |= {"type": "CubaLIF", "v_leak": _filled(step, 0)}
        entry |= {"tau_mem": _filled(step, setting.dt / rest), "tau_syn": _filled(step, setting.dt / share)}
        entry |= {"r": _filled(step, 1 / rest), "w_in": _filled(step, 1 / share)}
        factor = scale * step.gain * step.synapse_gain
        return Written(entry=entry, factor=factor, offset=np.zeros(step.shape), why=why)
    if decay == 1:
        entry |= {"type": "IF", "r": _filled(step, 1 / setting.dt)}
        return Written(entry=entry, factor=scale * step.gain, offset=offset, why=why)
    if decay == 0:
        raise ConversionError(
            f"node '{step.name}' keeps nothing of its membrane from step to step (tau = dt): SpikingJelly needs tau > dt"
        )
    rest = 1 - decay
    entry |= {"type": "LIF", "tau": _filled(step, setting.dt / rest), "v_leak": step.v_reset - level}
    decays_input = np.allclose(step.gain, rest, rtol=1e-9) and np.all(scale == 1) and not np.any(offset)
    entry["r"] = _filled(step, 1 if decays_input else 1 / rest)
    factor = _filled(step, 1) if decays_input else scale * step.gain
    return Written(entry=entry, factor=factor, offset=offset, why=why)


# ---- Spyx -----------------------------------------------------------------------------------------------------------


def write_spyx(step: Step, setting: Setting) -> Written:
    """LIF and IF subtract one step later, CuBaLIF at once; all start and rest at 0, spikes leave one step late."""
    if step.reset in ("value", "skip", "subtract unless above"):
        described = "to a value" if step.reset in ("value", "skip") else "with reset_delay false"
        setting.give_up(
            step.name, f"it resets {described}, and Spyx's importer subtracts v_threshold", "that reset is written"
        )
    _needs_start(step, np.zeros(step.shape), setting)
    at_once = step.reset == "subtract" and not np.all(step.decay == 1)
    if step.current_based and step.reset == "subtract later" and not np.all(step.decay == 1):
        setting.give_up(
            step.name,
            "it subtracts v_threshold after decaying, and Spyx's CuBaLIF before",
            "the earlier subtraction is written",
        )
    threshold = _moved_threshold(step, step.v_threshold, False)
    rest = np.maximum(1 - step.decay, NO_LEAK)
    entry = {"v_threshold": threshold, "v_reset": _filled(step, 0)}
    why = f"Spyx's importer takes decays 1 - dt/tau with dt = {setting.dt:g} s, and ignores r and w_in"
    if step.current_based or at_once:
        if len(step.shape) > 1:
            raise ConversionError(
                f"node '{step.name}' of shape {step.shape} needs Spyx's CuBaLIF, which takes one axis: flatten before it"
            )
        if step.current_based:
            _loops_through_current(step, step.drive, setting)
        share = np.maximum(1 - step.synapse_decay, NO_LEAK)
        entry |= {
            "type": "CubaLIF",
            "tau_mem": setting.dt / rest,
            "tau_syn": setting.dt / share,
            "w_in": _filled(step, 1),
        }
        entry |= {"r": step.decay, "v_leak": _filled(step, 0)}
        if not step.current_based:
            why = "only Spyx's CuBaLIF subtracts at once; tau_syn = dt makes it a LIF"
        offset = np.zeros(step.shape) if step.current_based else _negligible(step.drive, threshold)
        return Written(entry=entry, factor=step.gain * step.synapse_gain, offset=offset, why=why)
    if np.all(step.decay == 1):
        entry |= {"type": "IF", "r": _filled(step, 1)}
    else:
        entry |= {"type": "LIF", "tau": setting.dt / rest, "r": step.decay, "v_leak": _filled(step, 0)}
    return Written(entry=entry, factor=step.gain, offset=_negligible(step.drive, threshold), why=why)


_COMMON = ("Input", "Output", "Linear", "Affine", "Conv2d", "Flatten", "IF", "LIF", "CubaLIF")

#: The importers that can be written for, by name.
TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "norse": Target(
            name="norse", title="Norse", write=write_norse, nodes=(*_COMMON, "SumPool2d"), dt=0.001, pool="SumPool2d",
            sums=False,
        ),
        "snntorch": Target(
            name="snntorch", title="snnTorch", write=write_snntorch, nodes=(*_COMMON, "AvgPool2d"), dt=1e-4,
            fixed_dt=True, pool="AvgPool2d",
        ),
        "spikingjelly": Target(
            name="spikingjelly", title="SpikingJelly", write=write_spikingjelly,
            nodes=(*_COMMON, "Conv1d", "AvgPool2d"), dt=1e-4, pool="AvgPool2d",
        ),
        "spyx": Target(
            name="spyx", title="Spyx", write=write_spyx, nodes=(*_COMMON, "SumPool2d"), dt=1.0, pool="SumPool2d",
            chain=True, sums=False,
        ),
    }
)  # fmt: skip
