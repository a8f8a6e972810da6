"""snn-mlir, a compiler of spiking networks to C: LIF, IF, CubaLIF and LI, one step per call.

It writes no NIR files; the dialect describes how it runs files of other frameworks. The sources are
its reader (`python/snn_mlir` at 0e248ba) and its lowering (`SNNToLinalg.cpp` at 088a13f):
dt = tau/r, v = (1 - dt/tau) v + i, i = (1 - dt/tau_syn) i + x, a spike where v > v_threshold, then
v = 0. Its quantized mode rounds weights to 8 bits and states to 2^-12; this module describes its
float mode.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from jaxsnn.nir.frameworks.framework import Framework, Importer
from jaxsnn.nir.frameworks.neuron_writing import (
    NO_LEAK,
    Setting,
    Written,
    filled,
    moved_threshold,
    needs_one_axis,
    needs_start,
    needs_value_reset,
    negligible,
    one_for_all,
    one_level,
    refuse_drive,
)
from jaxsnn.nir.frameworks.shared_rules import TAU_OVER_R
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.model.changes import Edge
from jaxsnn.nir.model.decays import FROM_R, FROM_W_IN, NO_DECAY
from jaxsnn.nir.model.dialect import Conventions, Evidence, Rule, rules
from jaxsnn.nir.model.draft import Draft
from jaxsnn.wording import Text

_LEAKY = Rule(kernel="box", membrane_decay=FROM_R, membrane="leak")
_CURRENT_BASED = Rule(
    membrane_decay=FROM_R, synapse_decay=FROM_W_IN, membrane="leak", synapse="add last"
)
_RUNS = Conventions(
    name="snn_mlir",
    ran=False,
    reads_only=True,
    rules=rules(
        LIF=_LEAKY,
        LI=_LEAKY,
        IF=Rule(kernel="box", membrane_decay=NO_DECAY, membrane="leak", ones=("r",)),
        CubaLIF=_CURRENT_BASED,
        CubaLI=_CURRENT_BASED,
    ),
    evidence=Evidence(dt_from=TAU_OVER_R),
    time_unit="s",
    reset="zero",
    reset_delay=False,
)


def _write(step: Step, setting: Setting) -> Written:
    """Write LIF, IF and CubaLIF that rest at 0 and reset to 0, with one set of parameters per layer;
    LI and CubaLI for readouts.
    """
    needs_one_axis(step, "snn-mlir")
    spikes = step.reset != "none"
    scale, entry, height = filled(step, 1), {}, np.ones(step.shape)
    if spikes:
        needs_value_reset(step, setting, "snn-mlir")
        common, scale = one_level(step.v_threshold - step.v_reset)
        height = moved_threshold(step, filled(step, common), False)
        entry = {"v_threshold": height, "v_reset": filled(step, 0)}
    level = step.v_reset if spikes else np.zeros(step.shape)
    needs_start(step, level, setting)
    drive = scale * (step.drive - (1 - step.decay) * level)
    decay = one_for_all(step, setting, "the membrane time constant", step.decay)
    why = (
        "snn-mlir's reader requires r = tau/dt, w_in = tau_syn/dt and r = 1 of IF, with dt = "
        f"{setting.dt:g} s"
    )
    factor = scale * step.gain
    rest = max(1 - decay, NO_LEAK)
    times = {"r": filled(step, 1 / rest), "v_leak": filled(step, 0)}
    if step.current_based:
        refuse_drive(step, drive / scale, setting)
        if np.any(step.i_start):
            setting.give_up(step.name, "its synaptic current does not start at 0", "it starts at 0")
        synapse = one_for_all(step, setting, "the synaptic time constant", step.synapse_decay)
        share = max(1 - synapse, NO_LEAK)
        entry |= times | {"type": "CubaLIF" if spikes else "CubaLI"}
        entry |= {"tau_mem": filled(step, setting.dt / rest), "w_in": filled(step, 1 / share)}
        entry |= {"tau_syn": filled(step, setting.dt / share)}
        factor, drive = factor * step.synapse_gain, np.zeros(step.shape)
    elif decay == 1 and spikes:
        entry |= {"type": "IF", "r": filled(step, 1)}
    else:
        entry |= times | {"type": "LIF" if spikes else "LI"}
        entry |= {"tau": filled(step, setting.dt / rest)}
    return Written(entry=entry, factor=factor, offset=negligible(drive, height), why=why)


def _named_terminals(draft: Draft, recurrent: list[Edge], late: bool, dt: float) -> None:
    """Rename the terminals to 'input' and 'output', the ends of the path that snn-mlir follows."""
    ends = {draft.of_type(kind)[0]: kind.lower() for kind in ("Input", "Output")}
    new_names = {name: ends.get(name, name) for name in draft.nodes}
    for name in draft.nodes:
        while name not in ends and new_names[name] in ends.values():
            new_names[name] += "_"
    for name, new in new_names.items():
        if new != name:
            draft.changed(
                new,
                Text("renamed from '{node}'", node=name),
                "snn-mlir's reader finds input and output by name",
            )
    draft.shapes = {
        new_names[name]: shape for name, shape in draft.shapes.items() if name in new_names
    }
    draft.nodes = {new_names[name]: entry for name, entry in draft.nodes.items()}
    draft.edges = [(new_names[source], new_names[target]) for source, target in draft.edges]
    draft.renamed = new_names


def _load(path: str, setting: Setting) -> str:
    return f"import snn_mlir; net = snn_mlir.parse_graph({path!r})"


_IMPORTER = Importer(
    version="main",
    ran=False,
    nodes=(
        *("Input", "Output", "Linear", "Affine"),
        *("IF", "LIF", "CubaLIF", "LI", "CubaLI"),
    ),
    lacks=("scalars",),
    torch_names=False,
    write=_write,
    load=_load,
    run="""\
# for a folder with only this file and input.csv (one row per time step, one column per input):
# snn_mlir.run_folder(folder) compiles C and prints one row of integers per time step""",
    wire=_named_terminals,
    dt=1e-3,
    wiring=(),
    uniform=True,
    reads=MappingProxyType({"reset": "zero", "reset_delay": False, "initial": "zero"}),
)

FRAMEWORK = Framework(
    name="snn_mlir",
    title="snn-mlir",
    dialects=(_RUNS,),
    importers=(_IMPORTER,),
    distribution="snn-mlir",
    note=(
        "A compiler to C that does not write NIR files. The dialect describes how its float "
        "mode runs files of other frameworks, based on its source code. The quantized mode "
        "rounds weights to 8 bits and states to 2^-12; the dialect does not. Generated C "
        "programs do not run loops."
    ),
)
