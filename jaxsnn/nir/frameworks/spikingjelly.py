"""SpikingJelly: its LIF, IF and CUBALIF neurons."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError, listing
from jaxsnn.nir.frameworks.framework import Doing, Forward, Framework, Importer
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
    one_for_all,
    one_level,
    refuse_drive,
)
from jaxsnn.nir.frameworks.shared_rules import COMMON_NODES, TAU_OVER_R, TORCH_RUN
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.frameworks.torch_layers import (
    LAYER_SETTERS,
    LAYERS,
    Call,
    Exported,
    LayerNumbers,
    exported_normalisation,
    layer_class,
    numbers_of,
    refuse_axes,
    set_normalisation,
)
from jaxsnn.nir.model.decays import EULER_MEMBRANE, FROM_R, FROM_W_IN, NO_DECAY
from jaxsnn.nir.model.dialect import Conventions, Estimate, Evidence, Rule, rules
from jaxsnn.nir.model.draft import diagonal
from jaxsnn.nir.model.node import Node
from jaxsnn.wording import Text

# Files that the framework writes


def _refutes(nodes: Mapping[str, Node], dt_estimate: Estimate) -> tuple[str, str] | None:
    """Return a LIF node whose v_leak and v_reset differ, and the reason: LIFNode leaks to its reset
    level. None if there is none.
    """
    for name, node in nodes.items():
        if node.type != "LIF":
            continue
        levels = (np.asarray(node.value(key), float) for key in ("v_leak", "v_reset"))
        leak, reset = np.broadcast_arrays(*levels)
        if np.any(differs := leak != reset):
            return name, (
                Text(
                    "spikingjelly writes v_leak = v_reset, but node '{node}' has {v_leak:g} and "
                    "{v_reset:g}",
                    node=name,
                    v_leak=leak[differs][0],
                    v_reset=reset[differs][0],
                )
            )
    return None


_WRITES = Conventions(
    name="spikingjelly",
    rules=rules(
        LIF=Rule(kernel="box", membrane_decay=EULER_MEMBRANE, membrane="relax"),
        IF=Rule(kernel="box", membrane_decay=NO_DECAY, membrane="leak"),
        CubaLIF=Rule(
            membrane_decay=FROM_R,
            synapse_decay=FROM_W_IN,
            membrane="leak",
            synapse="add last",
        ),
    ),
    evidence=Evidence(
        dt_from=TAU_OVER_R, r_of_one_is_silent=True, r_is_rate=True, refutes=_refutes
    ),
    time_unit="s",
    reset="zero",
    reset_delay=False,
    threshold=">=",
    initial="v_reset",
    loops_by_importer=True,
    runs_loops="in turn",
)


# Files that the framework reads


def _needs_its_reset(step: Step, setting: Setting) -> None:
    """Require a reset to a value. Any other reset is an approximation; see `Setting.give_up`.

    Delayed subtractions that can be rewritten as immediate subtractions have been rewritten before;
    see `jaxsnn.nir.convert.resets.move_subtractions`.
    """
    if step.reset != "subtract later":
        needs_value_reset(step, setting, "SpikingJelly")
        return
    advice = "it is written with a reset to a value; alternatively, train the network with no reset delay"
    lost = (1 - step.decay) * step.v_threshold / step.gain
    is_movable = diagonal(lost) is not None and diagonal(step.synapse_decay) is not None
    if len(step.shape) in (2, 3) and not is_movable:
        obstacle = Text("the neurons of a channel differ")
        advice += ", or with equal parameters for all neurons of a channel"
    elif step.current_based and np.any(step.i_start):
        obstacle = Text("this node has a synaptic current that does not start at 0")
    elif step.current_based and is_movable:
        obstacle = Text("this node has a synaptic current and is recurrent")
    else:
        obstacle = Text("this node has the shape {shape}", shape=step.shape)
    setting.give_up(
        step.name,
        Text(
            "its reset subtracts v_threshold one time step later, SpikingJelly's immediately. Weights"
            " from each neuron to itself can compensate, but {obstacle}",
            obstacle=obstacle,
        ),
        advice,
    )


def _write(step: Step, setting: Setting) -> Written:
    """Write IF, LIF and CubaLIF with one set of parameters for all neurons, v_leak = v_reset, and a
    reset to that value, or one that subtracts (v_reset None, which the line that loads the file
    sets).
    """
    if not step.current_based and np.all(np.abs(step.decay) < NO_LEAK):
        # LIFNode needs tau > dt, also after rounding; CUBALIFNode with a current of one step does not.
        none, unit_gain = np.zeros(step.shape), np.ones(step.shape)
        step = dataclasses.replace(
            step,
            decay=none,
            current_based=True,
            synapse_decay=none,
            synapse_gain=unit_gain,
            i_start=none,
        )
    says = {"reset": "subtract" if step.reset == "subtract" else "zero"}
    if step.reset != "subtract" or step.several:
        _needs_its_reset(step, setting)
        says = {"reset": "zero"}
    rests_at_reset = (
        np.allclose(step.drive, (1 - step.decay) * step.v_reset) and not step.current_based
    )
    if rests_at_reset and np.ptp(step.v_reset) == 0 and np.ptp(step.v_threshold) == 0:
        level = np.zeros_like(step.v_reset)
    else:
        level = step.v_reset
    needs_start(step, step.v_reset, setting)
    height = step.v_threshold - level
    common, scale = one_level(height)
    threshold = moved_threshold(step, filled(step, common), True)
    decay = one_for_all(step, setting, "the membrane time constant", step.decay)
    drive = scale * (step.drive - (1 - step.decay) * step.v_reset)
    offset = negligible(drive, threshold)
    entry = {"v_threshold": threshold, "v_reset": step.v_reset - level}
    why = (
        "SpikingJelly's importer supports only r = 1 or r = tau/dt (IF: r = 1/dt), with dt = "
        f"{setting.dt:g} s"
    )
    if step.current_based:
        refuse_drive(step, drive / scale, setting)
        synapse = one_for_all(step, setting, "the synaptic time constant", step.synapse_decay)
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


def _does(step: Step) -> Iterator[Doing]:
    """Yield the extended support for a step: two resets can be written as several nodes. CUBALIFNode
    is not suitable for these, for later subtractions, and for several spikes per step.
    """
    composed = step.reset in ("subtract unless above", "skip")
    if composed:
        yield "several nodes"
    if composed or step.reset == "subtract later" or step.several:
        yield "no current"


def _load(path: str, setting: Setting) -> str:
    module = "from spikingjelly.activation_based.nir_exchange import import_from_nir"
    soft_reset_names = ",".join(setting.neurons_with(reset="subtract"))
    soft = attribute_lines(
        setting, "hasattr(m, 'v_reset')", {soft_reset_names: (("v_reset", "None"),)}
    )
    read = f"nir.read({path!r})"
    return f"import nir; {module}; net = import_from_nir({read}, dt={setting.dt!r}){soft}"


# Layers

#: Time step of graphs that are exported from layers, which have no time step.
_DT = 1e-4


def _export_node(call: Call) -> Exported:
    """Export the neurons in `_NODES`, by the formulas of its exporter; a v_threshold of inf makes a
    leaky readout, as do neurons without one.
    """
    neuron, shape = call.module, call.outward
    kind = layer_class(neuron).__name__
    gives_membrane = kind in _READOUTS
    v_reset = 0.0 if gives_membrane else neuron.v_reset
    reset = 0.0 if v_reset is None else float(v_reset)
    readout = gives_membrane or float(neuron.v_threshold) == np.inf
    if readout and v_reset is None:
        raise ConversionError(
            Text(
                "layer '{node}' ({type}) has v_threshold inf and v_reset None; SpikingJelly then "
                "subtracts 0 times inf from its membrane potential, which becomes nan",
                node=call.name,
                type=type(neuron).__name__,
            ),
            fix="use v_reset=0.0, which has no effect because the layer never spikes",
            node=call.name,
        )
    _refuse_other_start(call, reset)
    threshold = 1.0 if readout else float(neuron.v_threshold)
    entry: dict[str, Any] = {"v_threshold": np.full(shape, threshold)}
    entry["v_reset"] = np.full(shape, reset)
    if kind in _INTEGRATORS:
        entry |= {"type": "IF", "r": np.full(shape, 1 / _DT)}
    elif kind == "CUBALIFNode":
        rest, share = 1 - float(neuron.v_decay), 1 - float(neuron.c_decay)
        if not (rest > 0 and share > 0):
            raise ConversionError(
                Text(
                    "a CUBALIFNode has v_decay {v_decay:g} and c_decay {c_decay:g}, and a decay of 1 has "
                    "no time constant",
                    v_decay=float(neuron.v_decay),
                    c_decay=float(neuron.c_decay),
                ),
                fix="use decays below 1",
            )
        entry |= {"type": "CubaLIF", "v_leak": np.zeros(shape)}
        entry |= {"tau_mem": np.full(shape, _DT / rest), "r": np.full(shape, 1 / rest)}
        entry |= {"tau_syn": np.full(shape, _DT / share), "w_in": np.full(shape, 1 / share)}
    else:
        learnt = kind == "ParametricLIFNode"
        tau = (
            1 / numbers_of(neuron.w.sigmoid(), shape).astype(float) if learnt else float(neuron.tau)
        )
        entry |= {"type": "LIF", "tau": np.full(shape, tau * _DT), "v_leak": np.full(shape, reset)}
        decays_input = gives_membrane or neuron.decay_input
        entry["r"] = np.full(shape, 1.0 if decays_input else tau)
    options: dict[str, Any] = {"reset": "subtract" if v_reset is None else "zero"}
    if readout:
        options = {"reset": "none", "readout": True}
    return Exported(
        nodes={"": entry},
        framework="spikingjelly",
        options=options,
        gives_membrane=gives_membrane,
    )


def _refuse_other_start(call: Call, v_reset: float) -> None:
    """Refuse a neuron whose membrane potential does not start at v_reset."""
    start = float(getattr(call.module, "_memories_rv", {}).get("v", v_reset))
    if start != v_reset:
        raise ConversionError(
            Text(
                "layer '{node}' ({type}) starts at a membrane potential of {start:g}, and graphs of "
                "SpikingJelly start at v_reset, which is {v_reset:g}",
                node=call.name,
                type=type(call.module).__name__,
                start=start,
                v_reset=v_reset,
            ),
            fix="use LIFNode or IFNode, which start at v_reset, or v_reset=0.0",
            node=call.name,
        )


def _set_node(
    call: Call, nodes: Mapping[str, Node], steps: Mapping[str, Step]
) -> list[LayerNumbers]:
    """Return thresholds, resets and decays, each a single number for all neurons."""
    neuron, step = call.module, steps[""]
    kind = layer_class(neuron).__name__
    values = {} if kind in _READOUTS else {"v_threshold": step.v_threshold}
    if step.reset == "value":
        # The membrane also starts at v_reset, after a reset of the layer and before its first call.
        values["v_reset"] = values["_memories_rv.v"] = step.v_reset
        if isinstance(neuron.v, float):
            values["_memories.v"] = step.v_reset
    if kind == "CUBALIFNode":
        values |= {"v_decay": step.decay, "c_decay": step.synapse_decay}
    elif kind not in _INTEGRATORS:
        rest = 1 - step.decay
        if np.any(rest <= 0) or np.any(step.decay <= 0):
            raise ConversionError(
                Text(
                    "layer '{layer}' ({type}) needs a decay between 0 and 1, and node '{node}' has "
                    "{value:g}",
                    layer=call.name,
                    type=kind,
                    node=step.name,
                    value=float(step.decay.max()),
                ),
                fix="use an IFNode for neurons that do not decay",
                node=step.name,
            )
        # ParametricLIFNode has the parameter w, with 1/tau = sigmoid(w).
        learnt = kind == "ParametricLIFNode"
        values["w" if learnt else "tau"] = np.log(rest / step.decay) if learnt else 1 / rest
    return [
        LayerNumbers(layer=call.name, node=step.name, owner=neuron, name=name, value=value)
        for name, value in values.items()
    ]


def _export_voting(call: Call) -> Exported:
    """Export VotingLayer, the means of equal groups of neurons, as weights."""
    outputs, votes = call.outward[-1], call.module.voting_size
    if len(call.inward) != 1 or outputs * votes != call.inward[0]:
        raise ConversionError(
            Text(
                "layer '{node}' (VotingLayer) reduces {inward} to {outward} by {votes} votes per "
                "class, and ignores some inputs",
                node=call.name,
                inward=call.inward,
                outward=call.outward,
                votes=votes,
            ),
            fix="use an input of shape (batch, classes * voting_size)",
            node=call.name,
        )
    weight = np.repeat(np.eye(outputs, dtype=np.float32), votes, axis=1) / np.float32(votes)
    return Exported(nodes={"": {"type": "Linear", "weight": weight}})


def _export_recurrent(call: Call) -> Exported:
    """Export LinearRecurrentContainer of one neuron: the weights of the input and, as a loop, those
    of the neuron's output of the previous step.
    """
    container = call.module
    neuron = container.sub_module
    if layer_class(neuron).__name__ not in _NODES:
        raise ConversionError(
            Text(
                "layer '{node}' (LinearRecurrentContainer) contains a layer of type {type}",
                node=call.name,
                type=type(neuron).__name__,
            ),
            fix=f"use exactly one of {listing(_NODES)} in it, and put other layers before or after it",
            node=call.name,
        )
    refuse_axes(call, 1)
    neuron_export = _export_node(dataclasses.replace(call, module=neuron))
    (size,) = call.outward
    weight = numbers_of(container.rc.weight)
    input_weights = {"type": "Linear", "weight": weight[:, :-size]}
    if container.rc.bias is not None:
        input_weights |= {"type": "Affine", "bias": numbers_of(container.rc.bias)}
    nodes = {
        "in": input_weights,
        "": neuron_export.nodes[""],
        "rec": {"type": "Linear", "weight": weight[:, -size:]},
    }
    edges = (("in", ""), ("", "rec"), ("rec", ""))
    return dataclasses.replace(neuron_export, nodes=nodes, edges=edges, last="")


def _set_recurrent(
    call: Call, nodes: Mapping[str, Node], steps: Mapping[str, Step]
) -> list[LayerNumbers]:
    """Return both parts of the weights as one matrix, the bias, and the neuron's parameters."""
    linear = call.module.rc
    parts = [np.asarray(nodes[suffix].value("weight")) for suffix in ("in", "rec")]
    values = {"weight": np.concatenate(parts, axis=1)}
    if linear.bias is not None:
        has = "bias" in nodes["in"].names
        values["bias"] = nodes["in"].value("bias") if has else np.zeros(len(values["weight"]))
    linear_numbers = [
        LayerNumbers(layer=call.name, node=nodes["in"].name, owner=linear, name=name, value=value)
        for name, value in values.items()
    ]
    return [
        *linear_numbers,
        *_set_node(dataclasses.replace(call, module=call.module.sub_module), nodes, steps),
    ]


def _in_time(module: Any) -> bool:
    is_readout = layer_class(module).__name__ in _READOUTS
    return is_readout or getattr(module, "step_mode", "s") == "m"


def _split_forward(module: Any, forward: Forward) -> tuple[Forward, Forward | None]:
    """Split calls of readouts into their membranes of all time steps and the option `decode`. Other
    neurons that loop over time are set to store all membranes instead of only the last.
    """
    if layer_class(module).__name__ not in _READOUTS:
        if not (_in_time(module) and hasattr(module, "store_v_seq")):
            return forward, None

        def stored(x_seq: Any) -> Any:
            module.store_v_seq = True
            return forward(x_seq)

        return stored, None

    def membranes(x_seq: Any) -> Any:
        import torch

        decode, module.decode = module.decode, None
        try:
            return torch.stack(forward(x_seq))
        finally:
            module.decode = decode

    return membranes, _DECODERS.get(module.decode, list)


def _largest(membranes: Any) -> Any:
    """Return the membranes that are farthest from 0, of all time steps."""
    high, low = membranes.max(0).values, membranes.min(0).values
    return high.where(high.abs() > low.abs(), low)


#: Option `decode` of a readout -> the function of its membranes of all time steps.
_DECODERS: Mapping[str | None, Forward] = MappingProxyType(
    {
        "max-mem": lambda membranes: membranes.max(0).values,
        "max-abs-mem": _largest,
        "mean-mem": lambda membranes: membranes.mean(0),
        "last_mem": lambda membranes: membranes[-1],
    }
)
#: Readouts, which return their membrane potentials of all time steps in one call.
_READOUTS = ("NonSpikingLIFNode", "NonSpikingIFNode")
#: LIF neurons for training step by step; in evaluation mode they compute what LIFNode does.
_ONLINE = ("OTTTLIFNode", "SLTTLIFNode")
_INTEGRATORS = ("IFNode", "SimpleIFNode", "NonSpikingIFNode")
_NODES = (
    *("IFNode", "LIFNode", "ParametricLIFNode", "CUBALIFNode"),
    *("SimpleIFNode", "SimpleLIFNode", *_ONLINE, *_READOUTS),
)
#: Layers that multiply by a number: of ann2snn, and of models for OTTT.
_SCALERS = ("VoltageScaler", "Scale")
#: Batch normalisations whose weights begin at the threshold (tdBN).
_NORMS = ("ThresholdDependentBatchNorm1d", "ThresholdDependentBatchNorm2d")


def _export_scaler(call: Call) -> Exported:
    """Export a layer of `_SCALERS`: one factor for all elements."""
    scale = np.full(call.outward, float(call.module.scale), np.float32)
    return Exported(nodes={"": {"type": "Scale", "scale": scale}})


def _set_scaler(
    call: Call, nodes: Mapping[str, Node], steps: Mapping[str, Step]
) -> list[LayerNumbers]:
    """Return the factor of a layer of `_SCALERS`."""
    node = nodes[""]
    value = np.broadcast_to(node.value("scale"), call.outward)
    return [
        LayerNumbers(layer=call.name, node=node.name, owner=call.module, name="scale", value=value)
    ]


_LEAVES: Mapping[str, Callable[[Call], Exported]] = MappingProxyType(
    {
        **LAYERS,
        **dict.fromkeys(_NODES, _export_node),
        **dict.fromkeys(_NORMS, exported_normalisation),
        "VotingLayer": _export_voting,
        **dict.fromkeys(_SCALERS, _export_scaler),
        "LinearRecurrentContainer": _export_recurrent,
    }
)

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
            counts_batch=False,
            dt=1e-4,
            order="names",
            starts_at_reset=True,
            uniform=True,
            subtracts=("at once",),
            does=_does,
            reads=MappingProxyType({"reset": "zero", "reset_delay": False, "initial": "v_reset"}),
        ),
    ),
    distribution="spikingjelly",
    extra="interop",
    package="spikingjelly",
    leaves=_LEAVES,
    leaf_options=MappingProxyType({"dt": _DT}),
    setters=MappingProxyType(
        {
            **LAYER_SETTERS,
            **dict.fromkeys(_NORMS, set_normalisation),
            **dict.fromkeys(_NODES, _set_node),
            **dict.fromkeys(_SCALERS, _set_scaler),
            "LinearRecurrentContainer": _set_recurrent,
        }
    ),
    in_time=_in_time,
    split_forward=_split_forward,
    rewind="reset",
    membranes=("v", "v_seq"),
    surrogate="Sigmoid(slope=4)",
    note=(
        "The importer requires r = 1 or tau/dt (IF: r = 1/dt) and one time constant per "
        "node. Its files do not contain the soft reset (v_reset None)."
    ),
)
