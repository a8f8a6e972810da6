"""This library, and the one of the Electronic Vision(s) group: continuous time, exact spikes.

Their files differ in the unit of time only: seconds here, milliseconds there. Without this
library's tag in the metadata the unit must be told.

What is converted is converted for the importer of that library, which takes tau_mem = tau_syn or
tau_mem = 2 tau_syn, and starts currents and membranes at 0.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks.equations import written_equations
from jaxsnn.nir.frameworks.framework import Framework, Importer
from jaxsnn.nir.frameworks.neuron_writing import Setting, Written
from jaxsnn.nir.frameworks.source_flow import Flow
from jaxsnn.nir.model.decays import EXACT_SYNAPSE, NO_DECAY
from jaxsnn.nir.model.dialect import Conventions, Rule, rules


def _write(flow: Flow, setting: Setting) -> Written:
    """CubaLIF, with a membrane as slow as the current, or half as fast."""
    title = "jaxsnn"
    if not flow.spikes:
        raise ConversionError(
            f"node '{flow.name}' gives its membrane, and {title}'s importer takes CubaLIF alone",
            fix="replace it by a neuron that spikes, or convert for hxtorch",
            node=flow.name,
        )
    written = written_equations(flow, setting, title)
    tau_mem, tau_syn = (float(written.entry[key][0]) for key in ("tau_mem", "tau_syn"))
    ratio = 1 if abs(tau_mem / tau_syn - 1) < abs(tau_mem / tau_syn - 2) else 2
    if abs(tau_mem / tau_syn - ratio) > 1e-6:
        setting.give_up(
            flow.name,
            f"tau_mem is {tau_mem:g} ms and tau_syn {tau_syn:g} ms, "
            f"and {title}'s solver takes tau_mem = tau_syn or 2 tau_syn",
            f"tau_mem {ratio * tau_syn:g} ms is written",
        )
    entry = written.entry | {"tau_mem": np.full(flow.shape, ratio * tau_syn)}
    return dataclasses.replace(written, entry=entry)


def _load(path: str, setting: Setting) -> str:
    module = "from jaxsnn.event.utils.from_nir import ConversionConfig, from_nir"
    config = "ConversionConfig(n_steps=dict.fromkeys(graph.nodes, n_steps), t_max=t_max)"
    return f"import nir; {module}; graph = nir.read({path!r}); net = from_nir(graph, {config})"


_IMPORTER = Importer(
    version="0.3",
    nodes=("Input", "Output", "Linear", "CubaLIF"),
    torch_names=False,
    write=_write,
    load=_load,
    run="""\
# in an environment of its own: that library is imported as jaxsnn, too
# n_steps: more than the events, inputs included, of any population; t_max: seconds
init, apply = net.done()""",
    continuous=True,
    reads=MappingProxyType(
        {
            "time_unit": "ms",
            "spike_kernel": "delta",
            "reset": "zero",
            "reset_delay": False,
            "initial": "zero",
        }
    ),
)

FRAMEWORK = Framework(
    name="jaxsnn",
    title="jaxsnn",
    note=(
        "A spike of weight w makes the current (LIF and IF: the membrane) jump by w. Files of the "
        "library of the Electronic Vision(s) group have time in ms, those of this one in seconds. "
        "Conversions are for that library, whose solver takes tau_mem = tau_syn or 2 tau_syn."
    ),
    dialects=(
        Conventions(
            name="jaxsnn",
            rules=rules(
                CubaLIF=Rule(arrival="jump", synapse_decay=EXACT_SYNAPSE),
                CubaLI=Rule(arrival="jump", synapse_decay=EXACT_SYNAPSE),
                LIF=Rule(arrival="jump"),
                LI=Rule(arrival="jump"),
                IF=Rule(arrival="jump", membrane_decay=NO_DECAY),
                I=Rule(arrival="jump", membrane_decay=NO_DECAY),
            ),
            others=Rule(arrival="jump"),
            own_unit="s",
            reset="zero",
            reset_delay=False,
            constant_input="current",
            recurrent_delay=0,
        ),
    ),
    importers=(_IMPORTER,),
)
