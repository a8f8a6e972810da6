"""snnTorch: Leaky, Synaptic, RLeaky and RSynaptic; version 1.0, and the main branch after it.

The importer of the main branch is `snntorch/import_nir.py` at commit 0819ba4 (pull requests 435 and
452); its exporter writes the same files as that of 1.0.0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks.clamps import Learnt, clamping
from jaxsnn.nir.frameworks.framework import Doing, Framework, Importer
from jaxsnn.nir.frameworks.neuron_writing import (
    NO_LEAK,
    Setting,
    Written,
    attribute_lines,
    filled,
    moved_threshold,
    needs_start,
    needs_value_reset,
    negligible,
    one_level,
    refuse_drive,
)
from jaxsnn.nir.frameworks.shared_rules import COMMON_NODES, TAU_OVER_R, TORCH_RUN
from jaxsnn.nir.frameworks.source_rule import NeuronRule
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.frameworks.torch_layers import (
    Call,
    Exported,
    LayerNumbers,
    exported_convolution,
    exported_linear,
    numbers_of,
    set_weights,
)
from jaxsnn.nir.model.changes import Edge
from jaxsnn.nir.model.decays import ALPHA_DECAY, FROM_R, FROM_W_IN
from jaxsnn.nir.model.dialect import Conventions, Dialect, Evidence, Rule, rules
from jaxsnn.nir.model.draft import NEURON_TYPES, Draft, diagonal
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Node
from jaxsnn.nir.model.nodes import IF, NEURONS, I
from jaxsnn.options import RESET_DELAY
from jaxsnn.wording import Text

if TYPE_CHECKING:
    from collections.abc import Callable

#: Time step that the exporter always writes, and the importer assumes.
_DT = 1e-4


# Files that the framework writes


def _is_single_precision(nodes: Mapping[str, Node]) -> bool:
    """Return whether r = 1/(1-beta) was computed from betas in float32.

    snnTorch computes in float32, SpikingJelly in float64. Layers with a single r are skipped: if
    SpikingJelly learns their tau, it is 1/sigmoid(w) of a w in float32.
    """
    for name, node in nodes.items():
        if not isinstance(node, NEURONS) or isinstance(node, IF | I):
            continue
        r: Any = node.value("r")
        if np.asarray(r).dtype == np.float32:
            return True
        recurrent = f"{name.removesuffix('lif')}w_rec" in nodes
        if np.ndim(r) and np.unique(r).size == 1 and not recurrent:
            continue
        r = np.asarray(r, float).ravel()
        beta = 1 - 1 / r[np.isfinite(r) & (r > 1)]
        single = np.abs(beta.astype(np.float32).astype(float) - beta) < 1e-12
        # Betas such as 0.5 or 0.9375 are exact in both precisions and prove nothing.
        decided = np.mod(beta * 2**12, 1) != 0
        if np.any(decided) and np.all(single[decided]):
            return True
    return False


def _learnt(node: Node, graph: Graph) -> Iterator[Learnt]:
    """Yield beta and alpha, computed from r = 1/(1-beta) and w_in = 1/(1-alpha)."""
    pairs = {
        "LIF": (("beta", "tau", "r"),),
        "CubaLIF": (("beta", "tau_mem", "r"), ("alpha", "tau_syn", "w_in")),
    }
    for symbol, tau, gain in pairs.get(node.type, ()):
        taus, gains = np.broadcast_arrays(*(np.asarray(node.value(key)) for key in (tau, gain)))
        with np.errstate(all="ignore"):
            decay, step = 1 - 1 / gains.astype(float), taus / gains
        yield Learnt(symbol=symbol, decay=decay, tau=tau, step=step, gain=gain, gains=(1.0, np.inf))


def _refined(rule: NeuronRule, dialect: Dialect) -> NeuronRule:
    """Return the rule of recurrent neurons, whatever the dialect specifies for all nodes: RLeaky
    resets after the decay; RSynaptic of 1.0.0 computes its immediate reset and drops it, so that it
    resets one step late.
    """
    if not rule.is_recurrent or (rule.readout and not rule.resetting):
        return rule
    if rule.node.type == "LIF":
        return dataclasses.replace(rule, resets_first=False)
    if rule.node.type != "CubaLIF":
        return rule
    name, declared_delay = rule.node.name, dialect.at(rule.node.name).reset_delay
    subject = Text("node '{node}' ({type})", node=name, type=rule.node.type)
    if "reset_delay" in dialect.nodes.get(name, {}):
        remark = Text(
            "{neuron}: reset_delay is {value}, as specified for this node; in {dialect}, "
            "recurrent neurons of this type always act as if it were True",
            neuron=subject,
            value=declared_delay,
            dialect=rule.dialect,
        )
    else:
        remark = Text(
            "{subject}: {title} is {value}, not {declared_delay}, because {dialect} supports "
            "nothing else for recurrent neurons of this type; to override this, pass {setting}",
            subject=subject,
            title=RESET_DELAY.name,
            value=True,
            declared_delay=declared_delay,
            dialect=rule.dialect,
            setting=RESET_DELAY.set_to(declared_delay, node=name),
        )
        problems = {key: value for key, value in rule.problems.items() if key != "reset_delay"}
        rule = dataclasses.replace(rule, reset_delay=True, problems=problems)
    return dataclasses.replace(rule, remarks=() if declared_delay in (None, True) else (remark,))


_WRITES = Conventions(
    name="snntorch",
    version="1.0",
    rules=rules(
        LIF=Rule(
            kernel="box",
            membrane_decay=FROM_R,
            membrane="leak",
            resets_first=("zero",),
        ),
        CubaLIF=Rule(
            membrane_decay=FROM_R,
            synapse_decay=FROM_W_IN,
            membrane="leak",
            synapse="add last",
        ),
        Alpha=Rule(membrane_decay=ALPHA_DECAY, membrane="leak"),
    ),
    evidence=Evidence(dt_from=TAU_OVER_R, proves=True, confirms=_is_single_precision),
    time_unit="s",
    dt=_DT,
    resets_at_start=True,
    runs_loops="in turn",
    refine=_refined,
    meanings=(clamping("snnTorch", _learnt),),
)


# Files that the framework reads


#: Attributes of a loaded neuron by reset: reset_mechanism, reset_delay and the name of
#: state_function.
_MECHANISMS: Mapping[str, tuple[str, bool, str]] = MappingProxyType(
    {
        "value": ("zero", False, "_base_zero"),
        "skip": ("zero", True, "_base_zero"),
        "subtract later": ("subtract", True, "_base_sub"),
        "subtract unless above": ("subtract", False, "_base_sub"),
    }
)


def _write(step: Step, setting: Setting) -> Written:
    """Write Leaky and Synaptic of 1.0, with one threshold for all, leak and start at 0.

    Its importer sets an immediate reset to zero; the line that loads the file sets other resets.
    """
    step = _without_a_current(step)
    if step.reset not in _MECHANISMS or step.several:
        needs_value_reset(step, setting, "snnTorch")
        step = dataclasses.replace(step, reset="value", several=False)
    needs_start(step, step.v_reset, setting)
    height = step.v_threshold - step.v_reset
    level, scale = one_level(height)
    threshold = moved_threshold(step, filled(step, level), False)
    drive = scale * (step.drive - (1 - step.decay) * step.v_reset)
    rest = np.maximum(1 - step.decay, NO_LEAK)
    entry = {
        "v_leak": filled(step, 0),
        "v_threshold": threshold,
        "v_reset": filled(step, 0),
        "r": 1 / rest,
    }
    why = (
        f"snnTorch's importer requires r = tau/dt with dt = {setting.dt:g} s, and one "
        "threshold for all neurons"
    )
    mechanism, delay, _ = _MECHANISMS[step.reset]
    says = {"reset": mechanism, "reset_delay": delay}
    if not step.current_based:
        entry |= {"type": "LIF", "tau": setting.dt / rest}
        offset = negligible(drive, threshold)
        return Written(entry=entry, factor=scale * step.gain, offset=offset, why=why, says=says)
    refuse_drive(step, drive / scale, setting)
    share = np.maximum(1 - step.synapse_decay, NO_LEAK)
    entry |= {
        "type": "CubaLIF",
        "tau_mem": setting.dt / rest,
        "tau_syn": setting.dt / share,
        "w_in": 1 / share,
    }
    factor, none = scale * step.gain * step.synapse_gain, np.zeros(step.shape)
    return Written(entry=entry, factor=factor, offset=none, why=why, says=says)


def _without_a_current(step: Step) -> Step:
    """Rewrite a LIF whose delayed reset to zero drops its input as Synaptic with a current of one
    step: Leaky would reset before the input arrives.
    """
    if step.reset != "skip" or step.current_based:
        return step
    return dataclasses.replace(
        step,
        current_based=True,
        synapse_decay=np.zeros(step.shape),
        synapse_gain=np.ones(step.shape),
    )


def _does(step: Step) -> Iterator[Doing]:
    """Yield the extended support for a step: snnTorch's immediate subtraction at any height. For
    other immediate subtractions and for several spikes per step, Synaptic is not suitable.
    """
    if step.reset == "subtract unless above" and not step.several:
        yield "any height"
    if step.reset == "subtract" or step.several:
        yield "no current"


def _write_main(step: Step, setting: Setting) -> Written:
    """Write a neuron as for 1.0, except for CubaLIF, whose threshold is divided by w_in, and for
    IF, which subtracts.
    """
    if _is_if(step):
        return _write_if(step, setting)
    written = _write(step, setting)
    if written.entry["type"] != "CubaLIF":
        return written
    entry = written.entry | {"w_in": filled(step, 1)}
    why = (
        f"snnTorch's importer requires r = tau_mem/dt with dt = {setting.dt:g} s, w_in = 1, "
        "and one threshold for all neurons"
    )
    return dataclasses.replace(written, entry=entry, why=why)


def _is_if(step: Step) -> bool:
    """Return whether a neuron has no leak and no current, starts and rests at 0, and subtracts as
    snnTorch does.
    """
    still = not np.any(step.v_start) and not np.any(step.drive)
    plain = step.reset == "subtract unless above" and not step.current_based and not step.several
    return bool(plain and np.all(step.decay == 1) and still)


def _write_if(step: Step, setting: Setting) -> Written:
    """Write Leaky(beta=1, reset_delay=False) with its default reset, which subtracts the
    threshold.
    """
    level, scale = one_level(step.v_threshold)
    threshold = moved_threshold(step, filled(step, level), False)
    entry = {
        "type": "IF",
        "r": filled(step, 1),
        "v_threshold": threshold,
        "v_reset": filled(step, 0),
    }
    why = "snnTorch's importer requires r = 1 of IF, and one threshold for all neurons"
    says = {"reset": "subtract", "reset_delay": False}
    return Written(
        entry=entry,
        factor=scale * step.gain,
        offset=np.zeros(step.shape),
        why=why,
        says=says,
    )


def _load(path: str, setting: Setting) -> str:
    module = "from snntorch.import_nir import import_from_nir"
    return f"import nir; {module}; net = import_from_nir(nir.read({path!r})){_reset_lines(setting)}"


def _load_main(path: str, setting: Setting) -> str:
    module = "from snntorch.import_nir import import_from_nir"
    read = f"nir.read({path!r})"
    return f"import nir; {module}; net = import_from_nir({read}, dt={setting.dt!r}){_reset_lines(setting)}"


def _reset_lines(setting: Setting) -> str:
    """Return code that sets resets which files cannot represent."""
    settings = {}
    for mechanism, delay, function in _MECHANISMS.values():
        if (mechanism, delay) == ("zero", False):
            continue
        neuron_names = ",".join(setting.neurons_with(reset=mechanism, reset_delay=delay))
        settings[neuron_names] = (
            ("reset_mechanism", repr(mechanism)),
            ("reset_delay", repr(delay)),
            ("state_function", f"m.{function}"),
        )
    return attribute_lines(setting, "hasattr(m, 'reset_mechanism')", settings)


def _lengthen_loops(draft: Draft, recurrent: list[Edge], late: bool, dt: float) -> None:
    """Extend each loop of two nodes to three nodes, since the importer fails on loops of two."""
    # `recurrent`, `draft.delayed` and `memories` have the names from before nodes were renamed.
    old_names = {new: old for old, new in draft.renamed.items()}
    for edge in recurrent:
        weights, neuron = (draft.renamed.get(name, name) for name in edge)
        alone = draft.sources(weights) == [neuron] and draft.nodes[neuron]["type"] in NEURON_TYPES
        if edge[1] in draft.memories or (edge in draft.delayed and not alone):
            continue
        dtype = np.asarray(draft.nodes[weights]["weight"]).dtype
        entry = diagonal(np.ones(draft.shapes[weights][1], dtype))
        name = draft.insert((weights, neuron), f"{weights}.identity", dict(entry or {}))
        if weights in old_names:
            draft.renamed[f"{old_names[weights]}.identity"] = name
        why = "snnTorch's importer fails on loops of two nodes, but supports longer loops"
        draft.changed(name, "an identity inside the loop", why)
        draft.delayed = [
            (name, neuron) if delayed == edge else delayed for delayed in draft.delayed
        ]


#: Values that snnTorch assumes for properties that a file does not contain.
_READS = {"reset": "zero", "reset_delay": False, "initial": "zero"}
_IMPORTER = Importer(
    version="1.0",
    nodes=(*COMMON_NODES, "AvgPool2d"),
    # Leaky and Synaptic reset to 0.
    ignores=MappingProxyType({"LIF": ("v_reset", 0.0), "CubaLIF": ("v_reset", 0.0)}),
    write=_write,
    load=_load,
    run=TORCH_RUN,
    dt=_DT,
    wire=_lengthen_loops,
    order="names",
    starts_at_reset=True,
    subtracts=("later", "unless above"),
    does=_does,
    reads=MappingProxyType(_READS | {"dt": _DT}),
)
_IMPORTER_MAIN = dataclasses.replace(
    _IMPORTER,
    version="main",
    after="1.0",
    ran=False,
    write=_write_main,
    load=_load_main,
    reads=MappingProxyType(_READS),
    # snnTorch's exporter writes w_in = tau_syn/dt in CubaLIF, and never writes IF.
    misread=("CubaLIF", "IF"),
)


# Layers


def _export_neuron(call: Call) -> Exported:
    """Export Leaky, Synaptic, RLeaky and RSynaptic, by the formulas of snnTorch's exporter; a Scale
    follows a neuron whose spikes are not 1. A Leaky or Synaptic that `forward` resets before each
    call spikes if its input exceeds the threshold, like a LIF with a decay of 0 that resets in the
    same time step.
    """
    neuron, shape = call.module, call.outward
    _refuse_unheld(call)
    dt = np.float32(_DT)
    rest = 1 - np.clip(numbers_of(neuron.beta, shape), 0, 1) * (not call.reset_each_call)
    with np.errstate(divide="ignore"):
        entry = {"type": "LIF", "tau": dt / rest, "r": 1 / rest}
        if hasattr(neuron, "alpha") and not call.reset_each_call:
            share = 1 - np.clip(numbers_of(neuron.alpha, shape), 0, 1)
            entry = {
                "type": "CubaLIF",
                "tau_mem": dt / rest,
                "tau_syn": dt / share,
                "r": 1 / rest,
                "w_in": 1 / share,
            }
    zero = np.zeros(shape, np.float32)
    entry |= {"v_leak": zero, "v_threshold": numbers_of(neuron.threshold, shape), "v_reset": zero}
    options: dict[str, Any] = {
        "reset": neuron.reset_mechanism,
        "reset_delay": bool(neuron.reset_delay),
    }
    if neuron.reset_mechanism == "none":
        options["readout"] = True
    elif call.reset_each_call:
        options = {"reset": "zero", "reset_delay": False}
    recurrent = getattr(neuron, "recurrent", None)
    if recurrent is not None and hasattr(neuron, "alpha"):
        options["reset_delay"] = True  # RSynaptic ignores its argument reset_delay; see `_refined`.
    neuron_key = "" if recurrent is None else "lif"
    nodes, edges, last = {neuron_key: entry}, [], neuron_key
    factor = numbers_of(neuron.graded_spikes_factor, shape)
    # A learnt graded_spikes_factor needs a Scale even while it is 1.
    learnt = type(neuron.graded_spikes_factor).__name__ == "Parameter"
    graded = learnt or np.any(factor != 1)
    if graded and neuron.reset_mechanism != "none":
        last = "graded"
        nodes[last] = {"type": "Scale", "scale": factor}
        edges = [(neuron_key, last)]
    if recurrent is not None:
        nodes["w_rec"] = _recurrent_weights(call, recurrent)
        edges += [(last, "w_rec"), ("w_rec", neuron_key)]
    return Exported(
        nodes=nodes,
        edges=tuple(edges),
        last=last,
        neuron=neuron_key,
        framework="snntorch",
        options=options,
    )


def _refuse_unheld(call: Call) -> None:
    """Refuse features of a neuron that NIR cannot represent."""
    neuron = call.module
    for feature, odd in (
        ("inhibition", neuron.inhibition),
        ("state_quant", neuron.state_quant),
        ("a graded_spikes_factor of 0", not np.all(numbers_of(neuron.graded_spikes_factor))),
    ):
        if odd:
            raise ConversionError(
                Text(
                    "layer '{node}' has {feature}, which NIR cannot represent",
                    node=call.name,
                    feature=feature,
                ),
                fix="remove it",
                node=call.name,
            )


def _recurrent_weights(call: Call, recurrent: Any) -> dict[str, Any]:
    """Return the entry of the recurrent weights of an RLeaky or RSynaptic."""
    if not call.module.all_to_all:
        return {"type": "Linear", "weight": np.diag(numbers_of(recurrent.V, call.outward))}
    recurrent_call = dataclasses.replace(call, module=recurrent, inward=call.outward)
    if type(recurrent).__name__ == "Linear":
        return exported_linear(recurrent_call).nodes[""]
    if type(recurrent).__name__ == "Conv2d":
        return exported_convolution(recurrent_call).nodes[""]
    raise ConversionError(
        Text(
            "layer '{node}' feeds itself through a layer of type {type}",
            node=call.name,
            type=type(recurrent).__name__,
        ),
        fix="use a Linear",
        node=call.name,
    )


def _export_lapicque(call: Call) -> Exported:
    """Export Lapicque: V = (1 - dt/(R C)) V + dt/C x.

    Its reset to zero drops the input of the step, which among snnTorch's other neurons only Synaptic
    does. So with this reset it is exported as a Synaptic whose current lasts one step.
    """
    neuron, shape = call.module, call.outward
    _refuse_unheld(call)
    step, capacity, resistance = (
        numbers_of(parameter, shape).astype(float)
        for parameter in (neuron.time_step, neuron.C, neuron.R)
    )
    gain = step / capacity
    rest = gain / resistance
    if not (np.all(rest > 0) and np.all(rest <= 1) and np.all(np.isfinite(gain))):
        raise ConversionError(
            Text(
                "layer '{node}' (Lapicque) multiplies its membrane potential by 1 - time_step/(R C) "
                "= {value:g} per time step, and NIR supports only factors between 0 and 1",
                node=call.name,
                value=1 - rest.flat[0],
            ),
            fix="use a finite R C of at least time_step, or a beta between 0.37 and 1",
            node=call.name,
        )
    zero = np.zeros(shape)
    levels = {"v_leak": zero, "v_reset": zero, "v_threshold": numbers_of(neuron.threshold, shape)}
    entry = {"type": "LIF", "tau": _DT / rest, "r": 1 / rest, **levels}
    if neuron.reset_mechanism == "zero":
        one_step = {"tau_syn": np.full(shape, _DT), "w_in": np.ones(shape)}
        entry = {"type": "CubaLIF", "tau_mem": _DT / rest, "r": 1 / rest, **one_step, **levels}
    options: dict[str, Any] = {"reset": neuron.reset_mechanism, "reset_delay": True}
    if neuron.reset_mechanism == "none":
        options["readout"] = True
    return Exported(
        nodes={"scale": {"type": "Scale", "scale": gain}, "": entry},
        edges=(("scale", ""),),
        last="",
        framework="snntorch",
        options=options,
    )


def _set_lapicque(
    call: Call, nodes: Mapping[str, Node], steps: Mapping[str, Step]
) -> list[LayerNumbers]:
    """Return R, C and the threshold, for the layer's time_step."""
    neuron, step = call.module, steps[""]
    gain = np.asarray(nodes["scale"].value("scale"), float)
    values = {"C": numbers_of(neuron.time_step, gain.shape) / gain, "R": gain / (1 - step.decay)}
    if np.all(np.isfinite(step.v_threshold)):
        values["threshold"] = step.v_threshold
    return [
        LayerNumbers(layer=call.name, node=step.name, owner=neuron, name=name, value=value)
        for name, value in values.items()
    ]


def _export_alpha(call: Call) -> Exported:
    """Export Alpha: with a reset, as the extension Alpha; without, as a Synaptic.

    Without a reset its membrane, m (a^n - b^n) for a spike n steps ago with decays a and b, is that
    of a Synaptic, (a^(n+1) - b^(n+1)) / (a - b), one step later, times m (a - b).
    """
    neuron, shape = call.module, call.outward
    _refuse_unheld(call)
    if neuron.reset_mechanism != "none":
        return Exported(
            nodes={
                "": {
                    "type": "Alpha",
                    "alpha": numbers_of(neuron.alpha, shape),
                    "beta": numbers_of(neuron.beta, shape),
                    "v_threshold": numbers_of(neuron.threshold, shape),
                }
            },
            framework="snntorch",
            options={"reset": neuron.reset_mechanism, "reset_delay": True},
        )
    alpha, beta = (
        np.clip(numbers_of(decay, shape).astype(float), 0, 1)
        for decay in (neuron.alpha, neuron.beta)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        height = np.log(alpha) / (np.log(beta) - np.log(alpha)) + 1
        numbers = {"tau_mem": _DT / (1 - beta), "tau_syn": _DT / (1 - alpha)}
        numbers |= {"r": 1 / (1 - beta), "w_in": 1 / (1 - alpha)}
        factor = height * (alpha - beta)
    if not np.all(np.isfinite(factor)):
        raise ConversionError(
            Text(
                "layer '{node}' (Alpha) has alpha {alpha:g} and beta {beta:g}, which NIR cannot "
                "represent",
                node=call.name,
                alpha=alpha.flat[0],
                beta=beta.flat[0],
            ),
            fix="use two different decays between 0 and 1",
            node=call.name,
        )
    zero = np.zeros(shape)
    levels = {"v_leak": zero, "v_reset": zero, "v_threshold": numbers_of(neuron.threshold, shape)}
    nodes = {
        "scale": {"type": "Scale", "scale": factor},
        "delay": {"type": "Delay", "delay": np.full(shape, _DT)},
        "": {"type": "CubaLIF", **numbers, **levels},
    }
    return Exported(
        nodes=nodes,
        edges=(("scale", "delay"), ("delay", "")),
        last="",
        framework="snntorch",
        options={"reset": "none", "reset_delay": True, "readout": True},
    )


def _set_alpha(
    call: Call, nodes: Mapping[str, Node], steps: Mapping[str, Step]
) -> list[LayerNumbers]:
    """Return alpha, beta and the threshold of an Alpha that resets."""
    node = nodes[""]
    if node.type != "Alpha":
        return []
    return [
        LayerNumbers(
            layer=call.name, node=node.name, owner=call.module, name=name, value=node.numbers(key)
        )
        for name, key in (("alpha", "alpha"), ("beta", "beta"), ("threshold", "v_threshold"))
    ]


def _set_neuron(
    call: Call, nodes: Mapping[str, Node], steps: Mapping[str, Step]
) -> list[LayerNumbers]:
    """Return beta, alpha, threshold and recurrent weights; the threshold of a neuron that never
    resets has no effect.
    """
    neuron = call.module
    step = steps["lif" if "lif" in steps else ""]
    values = {} if call.reset_each_call else {"beta": step.decay}
    if hasattr(neuron, "alpha") and not call.reset_each_call:
        values["alpha"] = step.synapse_decay
    if np.all(np.isfinite(step.v_threshold)):
        values["threshold"] = step.v_threshold
    layer_numbers = [
        LayerNumbers(layer=call.name, node=step.name, owner=neuron, name=name, value=value)
        for name, value in values.items()
    ]
    if "graded" in nodes:
        size = np.asarray(nodes["graded"].value("scale"))
        name = "graded_spikes_factor"
        node = nodes["graded"].name
        layer_numbers.append(
            LayerNumbers(layer=call.name, node=node, owner=neuron, name=name, value=size)
        )
    if "w_rec" not in nodes:
        return layer_numbers
    if neuron.all_to_all:
        recurrent = dataclasses.replace(call, module=neuron.recurrent)
        return layer_numbers + set_weights(recurrent, nodes, steps, suffix="w_rec")
    weights = np.diag(np.asarray(nodes["w_rec"].value("weight")))
    owner = neuron.recurrent
    name = nodes["w_rec"].name
    return [
        *layer_numbers,
        LayerNumbers(layer=call.name, node=name, owner=owner, name="V", value=weights),
    ]


_LEAVES: Mapping[str, Callable[[Call], Exported]] = MappingProxyType(
    {
        **dict.fromkeys(("Leaky", "Synaptic", "RLeaky", "RSynaptic"), _export_neuron),
        "Alpha": _export_alpha,
        "Lapicque": _export_lapicque,
    }
)

FRAMEWORK = Framework(
    name="snntorch",
    title="snnTorch",
    dialects=(_WRITES, dataclasses.replace(_WRITES, version="main", after="1.0")),
    importers=(_IMPORTER, _IMPORTER_MAIN),
    distribution="snntorch",
    extra="interop",
    package="snntorch",
    leaves=_LEAVES,
    setters=MappingProxyType(
        {
            **dict.fromkeys(("Leaky", "Synaptic", "RLeaky", "RSynaptic"), _set_neuron),
            "Alpha": _set_alpha,
            "Lapicque": _set_lapicque,
        }
    ),
    rewind="reset_mem",
    resettable=("Leaky", "Synaptic"),
    membranes=("mem",),
    surrogate="ArcTan(alpha=2)",
    note="Its files do not contain the reset. The importer resets to 0 immediately; the line "
    "that loads a converted file sets other resets.",
)
