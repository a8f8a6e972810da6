"""Rockpool: LIFTorch, LIFNeuron and ExpSynTorch, with several spikes in a step.

Its importer is `rockpool/nn/modules/torch/nir.py` at 42cee1c: CubaLIF becomes LIFTorch with dt =
tau_mem/(1+r), LIF fails (it asks for tau_mem), and LI truncates tau to an integer, so that times in
seconds become 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxsnn.nir.frameworks.framework import Doing, Framework, Importer
from jaxsnn.nir.frameworks.neuron_writing import (
    NO_LEAK,
    Setting,
    Written,
    filled,
    moved_threshold,
    needs_one_axis,
    needs_start,
    needs_subtraction,
    negligible,
    refuse_drive,
)
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.model.decays import EXACT_SYNAPSE
from jaxsnn.nir.model.dialect import Conventions, Estimate, Evidence, Rule, StepLength, rules
from jaxsnn.nir.model.node import Node
from jaxsnn.wording import Text

_BOX = Rule(arrival="jump", kernel="box", membrane="leak")


def lambert_w(z: np.ndarray) -> np.ndarray:
    """Compute the principal branch of Lambert's W (w exp(w) = z) for z >= 0, by Newton's method in
    log form.
    """
    positive = np.where(z > 0, z, 1.0)
    w = np.log1p(positive)
    for _ in range(32):
        w = w * (1 + np.log(positive / w)) / (1 + w)
    return np.where(z > 0, w, 0.0)


def _dt(tau: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Return dt from the exporter's r = (tau/dt) exp(-dt/tau)."""
    return tau * lambert_w(1 / r)


def _gain(tau: Any, dt: Any, xp: Any) -> Any:
    return tau / dt * xp.exp(-dt / tau)


def _refutes(nodes: Mapping[str, Node], dt_estimate: Estimate) -> tuple[str, str] | None:
    if not dt_estimate.pair.endswith("r = 1"):
        return None
    reason = Text(
        "rockpool writes r = (tau/dt) exp(-dt/tau), but node '{node}' has r = 1",
        node=dt_estimate.node,
    )
    return dt_estimate.node, reason


def _imported_gain(tau: Any, dt: Any, xp: Any) -> Any:
    return tau / dt - 1


def _imported_dt(tau: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Return the dt that the importer assumes, which differs from the exporter's."""
    return tau / (1 + r)


_WRITES = Conventions(
    name="rockpool",
    rules=rules(
        LIF=_BOX,
        LI=_BOX,
        CubaLIF=Rule(
            arrival="jump",
            synapse_decay=EXACT_SYNAPSE,
            membrane="leak",
            synapse="add first",
            ones=("w_in",),
        ),
    ),
    evidence=Evidence(
        dt_from=StepLength(text="tau W(1/r)", of=_dt, gain=_gain), proves=True, refutes=_refutes
    ),
    time_unit="s",
    reset="subtract",
    reset_delay=False,
    threshold=">=",
    spikes_per_step="several",
)
#: Files for Rockpool's importer.
_WRITTEN_FOR = dataclasses.replace(
    _WRITES,
    version="importer",
    importer="3.1",
    rules=rules(CubaLIF=_WRITES.rules["CubaLIF"]),
    evidence=Evidence(
        dt_from=StepLength(text="tau/(1+r)", of=_imported_dt, gain=_imported_gain, above_dt=True)
    ),
)

# Files that the framework reads

#: Decay of a current that lasts one time step: what remains of it vanishes in float32.
_NO_CURRENT = 2.0**-30


def _write(step: Step, setting: Setting) -> Written:
    """Write CubaLIF: i = a (i + x), v = k v + i, with a and k = exp(-dt/tau); without a current in
    the source, a is close to 0.
    """
    needs_one_axis(step, "Rockpool")
    needs_subtraction(step, setting, "Rockpool")
    needs_start(step, np.zeros(step.shape), setting)
    threshold = moved_threshold(step, step.v_threshold, True)
    none = np.zeros(step.shape)
    synapse = np.full(step.shape, _NO_CURRENT)
    offset = negligible(step.drive, threshold)
    if step.current_based:
        refuse_drive(step, step.drive, setting)
        if np.any(step.i_start):
            setting.give_up(step.name, "its synaptic current does not start at 0", "it starts at 0")
        synapse, offset = np.maximum(step.synapse_decay, _NO_CURRENT), none
    # A decay of 1 becomes the long, but finite time constant of NO_LEAK.
    rates = [-np.log(np.minimum(decay, 1 - NO_LEAK)) for decay in (step.decay, synapse)]
    tau_mem, tau_syn = (setting.dt / np.maximum(rate, NO_LEAK) for rate in rates)
    entry = {
        "type": "CubaLIF",
        "tau_mem": tau_mem,
        "tau_syn": tau_syn,
        "r": tau_mem / setting.dt - 1,
        "v_leak": none,
        "v_threshold": threshold,
        "v_reset": none,
        "w_in": filled(step, 1),
    }
    why = (
        f"Rockpool's importer uses dt = tau_mem/(1+r), here {setting.dt:g} s, ignores w_in, "
        "and adds input to a synaptic current before it decays"
    )
    if not step.current_based:
        why = (
            f"{why}; if the synaptic current decays within one time step, it is equivalent to a LIF"
        )
    factor = step.gain * step.synapse_gain / synapse
    return Written(entry=entry, factor=factor, offset=offset / synapse, why=why)


def _does(step: Step) -> Iterable[Doing]:
    """Return the extended support for a step: several spikes, each of which subtracts
    v_threshold.
    """
    return ("any height",) if step.several and step.reset == "subtract" else ()


def _load(path: str, setting: Setting) -> str:
    module = "from rockpool.nn.modules.torch.nir import from_nir"
    return f"import nir; {module}; net = from_nir(nir.read({path!r}))"


_IMPORTER = Importer(
    version="3.1",
    nodes=("Input", "Output", "Affine", "Linear", "CubaLIF"),
    write=_write,
    load=_load,
    run="spikes, _ = net(x)  # x: a float tensor (batch, time, channels)",
    dt=1e-3,
    wiring=("forks",),
    subtracts=("at once", "several"),
    bursts=True,
    does=_does,
    reads=MappingProxyType(
        {"version": "importer", "reset": "subtract", "reset_delay": False, "initial": "zero"}
    ),
)

FRAMEWORK = Framework(
    name="rockpool",
    title="Rockpool",
    dialects=(
        _WRITES,
        _WRITTEN_FOR,
    ),
    importers=(_IMPORTER,),
    distribution="rockpool",
    surrogate="step with a piecewise linear gradient",
    note=(
        "The exporter drops recurrent weights. The importer supports only current-based "
        "neurons, with dt = tau_mem/(1+r). A neuron whose membrane potential reaches several "
        "times v_threshold fires several spikes per time step."
    ),
)
