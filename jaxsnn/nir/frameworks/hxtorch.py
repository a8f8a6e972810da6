"""hxtorch.snn, the framework of BrainScaleS-2: continuous time, current-based neurons.

Its importer walks the edges in the order of the file, and calls the layer at the end of each: one
source each, no loops. Membranes start at v_leak.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from jaxsnn.nir.frameworks.equations import written_equations
from jaxsnn.nir.frameworks.framework import Framework, Importer
from jaxsnn.nir.frameworks.neuron_writing import Setting, Written
from jaxsnn.nir.frameworks.source_flow import Flow
from jaxsnn.nir.model.decays import EXACT_SYNAPSE
from jaxsnn.nir.model.dialect import Conventions, Rule, rules
from jaxsnn.wording import Text

_CURRENT_BASED = Rule(arrival="jump", synapse_decay=EXACT_SYNAPSE, ones=("r", "w_in"))


def _write(flow: Flow, setting: Setting) -> Written:
    """Write CubaLIF and CubaLI whose membranes start at v_leak."""
    off = np.abs(flow.v_start - flow.v_leak)
    if np.any(off > 1e-9):
        setting.give_up(
            flow.name,
            Text(
                "its membrane potential starts at {value:g}, in hxtorch at v_leak = {expected:g}",
                value=flow.v_start.flat[int(np.argmax(off))],
                expected=flow.v_leak.flat[int(np.argmax(off))],
            ),
            "its first spikes may differ",
        )
    return written_equations(flow, setting, "hxtorch")


def _load(path: str, setting: Setting) -> str:
    module = "from hxtorch.spiking.utils.from_nir import from_nir"
    return f"import nir; {module}; graph = nir.read({path!r}); net = from_nir(graph)"


_IMPORTER = Importer(
    version="main",
    ran=False,
    nodes=("Input", "Output", "Linear", "CubaLI", "CubaLIF"),
    write=_write,
    load=_load,
    run="""\
# spikes: float tensor (time, batch, channels) in steps of ConversionConfig.dt, 1 us by default
(source,) = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
outputs = net({source: spikes})  # spikes of each population, by name""",
    dt=None,
    wiring=("forks",),
    order="edges",
    reads=MappingProxyType(
        {
            "time_unit": "ms",
            "spike_kernel": "delta",
            "reset": "zero",
            "reset_delay": False,
            "initial": "v_leak",
        }
    ),
)

FRAMEWORK = Framework(
    name="hxtorch",
    title="hxtorch",
    note=(
        "A spike of weight w increases the current by w. The importer supports Linear, "
        "CubaLI and CubaLIF with one set of parameters per layer, uses time in ms, and "
        "ignores w_in."
    ),
    dialects=(
        Conventions(
            name="hxtorch",
            ran=False,
            rules=rules(CubaLIF=_CURRENT_BASED, CubaLI=_CURRENT_BASED),
            reset="zero",
            reset_delay=False,
            constant_input="current",
            recurrent_delay=0,
            initial="v_leak",
        ),
    ),
    importers=(_IMPORTER,),
)
