"""SpikingJelly: LIFNode, IFNode and CUBALIFNode."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Literal

import numpy as np

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
    told,
)
from jaxsnn.nir.convert.step import Step
from jaxsnn.nir.frameworks.decays import EULER_MEMBRANE, FROM_R, FROM_W_IN, NO_DECAY
from jaxsnn.nir.frameworks.framework import (
    Conventions,
    Evidence,
    Framework,
    Importer,
    Rule,
    rules,
)
from jaxsnn.nir.frameworks.shared_rules import COMMON_NODES, TAU_OVER_R, TORCH_RUN

# What it writes

_LEAK_IS_RESET = (("v_leak", "v_reset"),)
_WRITES = Conventions(
    name="spikingjelly",
    rules=rules(
        LIF=Rule(
            kernel="box", membrane_decay=EULER_MEMBRANE, membrane="relax", equal=_LEAK_IS_RESET
        ),
        IF=Rule(kernel="box", membrane_decay=NO_DECAY, membrane="leak"),
        CubaLIF=Rule(
            membrane_decay=FROM_R,
            synapse_decay=FROM_W_IN,
            membrane="leak",
            synapse="add last",
        ),
    ),
    evidence=Evidence(dt_from=TAU_OVER_R, r_of_one_is_silent=True, r_is_rate=True),
    time_unit="s",
    reset="zero",
    reset_delay=False,
    threshold=">=",
    initial="v_reset",
)


# What it reads


def _write(step: Step, setting: Setting) -> Written:
    """IF, LIF and CubaLIF with one set of parameters for all neurons, v_leak = v_reset, and a reset
    to that value, or one that subtracts (v_reset None, which the line that loads the file sets).
    """
    if not step.current_based and np.all(step.decay == 0):
        # LIFNode needs tau > dt; CUBALIFNode with a current of one step does not.
        none, one = np.zeros(step.shape), np.ones(step.shape)
        step = dataclasses.replace(
            step, current_based=True, synapse_decay=none, synapse_gain=one, i_start=none
        )
    says = {"reset": "subtract" if step.reset == "subtract" else "zero"}
    if step.reset != "subtract" or step.several:
        needs_value_reset(step, setting, "SpikingJelly")
        says = {"reset": "zero"}
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
        factor, none = scale * step.gain * step.synapse_gain, np.zeros(step.shape)
        return Written(entry=entry, factor=factor, offset=none, why=why, says=says)
    if decay == 1:
        entry |= {"type": "IF", "r": filled(step, 1 / setting.dt)}
        factor = scale * step.gain
        return Written(entry=entry, factor=factor, offset=offset, why=why, says=says)
    rest = 1 - decay
    entry |= {"type": "LIF", "tau": filled(step, setting.dt / rest), "v_leak": step.v_reset - level}
    decays_input = (
        np.allclose(step.gain, rest, rtol=1e-9) and np.all(scale == 1) and not np.any(offset)
    )
    entry["r"] = filled(step, 1 if decays_input else 1 / rest)
    factor = filled(step, 1) if decays_input else scale * step.gain
    return Written(entry=entry, factor=factor, offset=offset, why=why, says=says)


#: Resets that no neuron of its importer has.
_COMPOSED: tuple[Literal["subtract unless above", "skip"], ...] = ("subtract unless above", "skip")


def _needs_no_current(step: Step) -> bool:
    """CUBALIFNode subtracts at once only, and fires one spike a step."""
    return step.reset in ("subtract later", *_COMPOSED) or step.several


def _load(path: str, setting: Setting) -> str:
    module = "from spikingjelly.activation_based.nir_exchange import import_from_nir"
    names = ",".join(setting.saying(reset="subtract"))
    soft = told(setting, "hasattr(m, 'v_reset')", {names: (("v_reset", "None"),)})
    read = f"nir.read({path!r})"
    return f"import nir; {module}; net = import_from_nir({read}, dt={setting.dt!r}){soft}"


FRAMEWORK = Framework(
    name="spikingjelly",
    title="SpikingJelly",
    dialects=(_WRITES,),
    importers=(
        Importer(
            version="2.0",
            nodes=(*COMMON_NODES, "Conv1d", "AvgPool2d"),
            write=_write,
            load=_load,
            run=TORCH_RUN,
            dt=1e-4,
            pool="AvgPool2d",
            starts_at_reset=True,
            uniform=True,
            subtracts=True,
            subtraction=("at once",),
            apart=_needs_no_current,
            composes=_COMPOSED,
            by_name=True,
            reads=MappingProxyType({"reset": "zero", "reset_delay": False, "initial": "v_reset"}),
        ),
    ),
    distribution="spikingjelly",
    extra="interop",
    package="spikingjelly",
    surrogate="Sigmoid(slope=4)",
    note=(
        "Its importer is strict: r must be 1 or tau/dt, IF r = 1/dt, one time constant a node; "
        "v_reset None, its soft reset, is in no file."
    ),
)
