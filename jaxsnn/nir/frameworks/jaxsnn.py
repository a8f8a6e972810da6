"""This library, and the one of the Electronic Vision(s) group: continuous time, exact spikes.

Their files differ only in the unit of time: seconds in this library, milliseconds in the other.
Without this library's tag in the metadata the unit must be specified.

A spike of weight w makes the synaptic current jump by w_in w, or, in a neuron without a synaptic
current, the membrane potential by r w: NIR's equations for a spike of area tau_syn (tau). The other
library writes r = w_in = 1 and reads neither. Earlier releases of this library applied them to
currents, but not to spikes. Hence the option `scale_spikes` must specify the meaning of files with
other values; the tag of graphs that this library builds, and of files that it writes now, contains it.

Conversions are for the importer of that library, which takes tau_mem = tau_syn or
tau_mem = 2 tau_syn, and starts currents and membranes at 0.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks.equations import written_equations
from jaxsnn.nir.frameworks.framework import Framework, Importer
from jaxsnn.nir.frameworks.neuron_writing import Setting, Written
from jaxsnn.nir.frameworks.source_flow import Flow
from jaxsnn.nir.frameworks.source_rule import NeuronRule
from jaxsnn.nir.model.decays import EXACT_SYNAPSE, NO_DECAY
from jaxsnn.nir.model.dialect import Conventions, Dialect, FrameworkOption, Rule, rules
from jaxsnn.nir.model.graph import Graph
from jaxsnn.wording import Text


def _write(flow: Flow, setting: Setting) -> Written:
    """Write CubaLIF whose membrane time constant equals the synaptic one, or is twice as long."""
    title = "jaxsnn"
    if not flow.spikes:
        raise ConversionError(
            Text(
                "node '{node}' outputs its membrane potential, and {framework}'s importer supports "
                "only CubaLIF",
                node=flow.name,
                framework=title,
            ),
            fix="replace it by a spiking neuron, or convert for hxtorch",
            node=flow.name,
        )
    written = written_equations(flow, setting, title)
    tau_mem, tau_syn = (float(written.entry[key][0]) for key in ("tau_mem", "tau_syn"))
    ratio = 1 if abs(tau_mem / tau_syn - 1) < abs(tau_mem / tau_syn - 2) else 2
    if abs(tau_mem / tau_syn - ratio) > 1e-6:
        setting.give_up(
            flow.name,
            Text(
                "tau_mem is {tau_mem:g} ms and tau_syn {tau_syn:g} ms, and {framework}'s solver "
                "requires tau_mem = tau_syn or tau_mem = 2 tau_syn",
                tau_mem=tau_mem,
                tau_syn=tau_syn,
                framework=title,
            ),
            f"tau_mem is written as {ratio * tau_syn:g} ms",
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
# in a separate environment: that library is also imported as jaxsnn
# n_steps: more than the number of events (including inputs) of any population; t_max in seconds
init, apply = net.done()""",
    dt=None,
    reads=MappingProxyType(
        {
            "time_unit": "ms",
            "spike_kernel": "delta",
            "reset": "zero",
            "reset_delay": False,
            "initial": "zero",
            # The importer ignores r and w_in, which are written as 1.
            "scale_spikes": True,
        }
    ),
)


def _need_not_say(graph: Graph) -> bool | None:
    """Return True where all gains of spikes are 1, so that `scale_spikes` makes no difference."""
    gains = (
        node.value("w_in" if node.traits.current_based else "r")
        for node in graph.nodes.values()
        if node.type in _RULES
    )
    return True if all(np.all(np.asarray(gain) == 1) for gain in gains) else None


_SCALE_SPIKES = FrameworkOption(
    name="scale_spikes",
    kind="bool",
    help="jaxsnn: true: w_in (LIF, LI, IF and I: r) scales spikes, as in the equations of "
    "NIR; false: it does not, as in earlier releases of this library and in the library "
    "of the Electronic Vision(s) group",
    missing="scale_spikes, because w_in (LIF, LI, IF and I: r) is not 1 and earlier releases of "
    "this library did not apply it to spikes",
    fix="pass {true} (equations of NIR) or {false} (earlier releases)",
    tries=(True, False),
    fallback=(_need_not_say, ""),
)


def _refined(rule: NeuronRule, dialect: Dialect) -> NeuronRule:
    """Return a neuron's rule; if the node has gains that do not scale spikes, they are noted in
    `assumed`.
    """
    node = rule.node
    if node.type not in _RULES or dialect.option(_SCALE_SPIKES.name, node.name) is not False:
        return rule
    gain = "w_in" if node.traits.current_based else "r"
    values = np.unique(np.asarray(node.value(gain), float))
    if np.all(values == 1):
        return rule
    ignored = (
        Text("{minimum:g}", minimum=values[0])
        if values.size == 1
        else Text("{minimum:g} to {maximum:g}", minimum=values[0], maximum=values[-1])
    )
    sentence = Text(
        "node '{node}': {gain} is {ignored} and does not scale spikes ({setting})",
        node=node.name,
        gain=gain,
        ignored=ignored,
        setting=_SCALE_SPIKES.set_to(False),
    )
    return dataclasses.replace(rule, assumed=(sentence,))


def _rule(**fields: Any) -> Rule:
    """Return the rule of a type of neuron, by `scale_spikes`."""
    return Rule(
        arrival="scaled jump",
        option=_SCALE_SPIKES.name,
        without=Rule(arrival="jump", **fields),
        **fields,
    )


_RULES = rules(
    CubaLIF=_rule(synapse_decay=EXACT_SYNAPSE),
    CubaLI=_rule(synapse_decay=EXACT_SYNAPSE),
    LIF=_rule(),
    LI=_rule(),
    IF=_rule(membrane_decay=NO_DECAY),
    I=_rule(membrane_decay=NO_DECAY),
)

FRAMEWORK = Framework(
    name="jaxsnn",
    title="jaxsnn",
    note=(
        "A spike of weight w increases the current by w_in w (LIF and IF: the membrane "
        "potential by r w). Files of the library of the Electronic Vision(s) group have "
        "times in ms, files of this library in seconds. Conversions are for the former, "
        "whose solver requires tau_mem = tau_syn or 2 tau_syn."
    ),
    dialects=(
        Conventions(
            name="jaxsnn",
            rules=_RULES,
            others=Rule(arrival="jump"),
            build_options=MappingProxyType({"time_unit": "s", _SCALE_SPIKES.name: True}),
            reset="zero",
            reset_delay=False,
            constant_input="current",
            recurrent_delay=0,
            refine=_refined,
            options=(_SCALE_SPIKES,),
        ),
    ),
    importers=(_IMPORTER,),
)
