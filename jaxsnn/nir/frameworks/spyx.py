"""Spyx, in JAX: LIF, CuBaLIF, IF and their recurrent forms. Channels are the last axis, and each layer
delays spikes by one time step.

Its importer needs one chain of nodes, its own node names, recurrent layers as nested graphs, and
biases that begin in the step in which the input reaches the layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxsnn.errors import ConversionError
from jaxsnn.nir.frameworks.clamps import Learnt, clamping
from jaxsnn.nir.frameworks.evidence import estimate
from jaxsnn.nir.frameworks.framework import Framework, Importer
from jaxsnn.nir.frameworks.neuron_writing import (
    NO_LEAK,
    Setting,
    Written,
    filled,
    moved_threshold,
    needs_start,
    negligible,
    refuse_drive,
)
from jaxsnn.nir.frameworks.shared_rules import COMMON_NODES
from jaxsnn.nir.frameworks.source_rule import NeuronRule
from jaxsnn.nir.frameworks.source_step import Step
from jaxsnn.nir.model.changes import Change, Edge
from jaxsnn.nir.model.decays import EULER_MEMBRANE, EULER_SYNAPSE, NO_DECAY, R
from jaxsnn.nir.model.dialect import (
    Conventions,
    Dialect,
    Estimate,
    Evidence,
    Rule,
    StepLength,
    rules,
)
from jaxsnn.nir.model.draft import (
    NEURON_TYPES,
    WEIGHTED,
    Draft,
    as_node,
    dense_groups,
    identity,
    pool_as_convolution,
)
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import LIKE_XLA, Node, ints
from jaxsnn.nir.model.nodes import Affine, Input, Linear
from jaxsnn.nir.model.passes import window
from jaxsnn.wording import Text

# Files that the framework writes


def _dt(tau: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Return dt from the exporter's r = 1 - dt/tau, its decay."""
    return tau * (1 - r)


def _decay(tau: Any, dt: Any, xp: Any) -> Any:
    return 1 - dt / tau


def _tau(decay: Any, dt: Any) -> Any:
    return dt / (1 - decay)


_REWIRED = (
    "Spyx writes files in which the input of a recurrent layer goes to its recurrent "
    "weights, but it feeds the input directly into the neuron"
)


def _rewired(graph: Graph) -> Iterator[tuple[tuple[Edge, Edge], Change]]:
    """Move the inputs of recurrent subgraphs from the recurrent weights to the neuron.

    The pattern is Input -> weights, weights -> neuron, neuron -> weights, and nothing else reaches
    the neuron.
    """
    for source, target in graph.written_edges:
        if "/" not in source or not isinstance(graph.nodes[source], Input):
            continue
        after = [end for start, end in graph.written_edges if start == target]
        if not isinstance(graph.nodes[target], Linear | Affine) or len(after) != 1:
            continue
        neuron = after[0]
        feeds = [start for start, end in graph.written_edges if end == neuron]
        if (
            graph.nodes[neuron].traits.state
            and feeds == [target]
            and (neuron, target) in graph.written_edges
        ):
            description = f"edge {source} -> {target} is read as {source} -> {neuron}"
            change = Change(node=target, what=description, why=_REWIRED)
            yield ((source, target), (source, neuron)), change


def _learnt(node: Node, graph: Graph) -> Iterator[Learnt]:
    """Yield beta, which r holds, and alpha = 1 - dt/tau_syn."""
    if node.type not in ("LIF", "CubaLIF"):
        return
    tau = "tau" if node.type == "LIF" else "tau_mem"
    taus, betas = np.broadcast_arrays(*(np.asarray(node.value(key)) for key in (tau, "r")))
    with np.errstate(all="ignore"):
        step = _dt(taus, betas)
    yield Learnt(symbol="beta", decay=betas.astype(float), tau=tau, step=step, gain="r")
    dt = estimate(graph.nodes, _EVIDENCE).dt
    if node.type == "CubaLIF" and dt is not None:
        synaptic = np.asarray(node.value("tau_syn"), float)
        alpha, steps = 1 - dt / synaptic, np.full(synaptic.shape, dt)
        yield Learnt(symbol="alpha", decay=alpha, tau="tau_syn", step=steps)


def _padded_like_xla(graph: Graph) -> Iterator[tuple[Node, Change]]:
    """Yield SumPool2d nodes with nonzero padding, and strided Conv2d nodes with the padding 'same',
    with XLA's SAME as padding: Spyx supports only XLA's VALID and SAME.
    """
    for node in graph.nodes.values():
        padding = node.value("padding") if "padding" in node.names else None
        pool = node.type == "SumPool2d" and np.any(np.asarray(padding) != 0)
        strided = node.type == "Conv2d" and np.any(np.asarray(node.value("stride")) != 1)
        if not pool and not (strided and isinstance(padding, str) and padding == "same"):
            continue
        padding_text = f"'{padding}'" if isinstance(padding, str) else f"{ints(padding)}"
        description = (
            f"padding {padding_text} is read as XLA's SAME, with the smaller half at the beginning"
        )
        why = (
            "Spyx pads so that the output size is the input size divided by the stride, rounded up"
        )
        yield node.read_as(padding=LIKE_XLA), Change(node=node.name, what=description, why=why)


def _without_threshold(nodes: Mapping[str, Node], dt_estimate: Estimate) -> tuple[str, str] | None:
    """Return an LI without a Threshold, and the reason: Spyx writes no layer whose output is its
    membrane. None if there is none.
    """
    membranes = [node.name for node in nodes.values() if node.type == "LI"]
    if len(membranes) <= sum(node.type == "Threshold" for node in nodes.values()):
        return None
    return membranes[0], (
        Text(
            "spyx writes LI nodes only with a Threshold after them, and node '{node}' has none",
            node=membranes[0],
        )
    )


def _refined(rule: NeuronRule, dialect: Dialect) -> NeuronRule:
    """Return the rule: gradients pass through resets, and r of neurons with a leak is tau/dt, since r
    of the file contains the decay.
    """
    has_leak = rule.node.type != "IF"
    return dataclasses.replace(
        rule, detaches_resets=False, resistance="tau/dt" if has_leak else "file"
    )


_EVIDENCE = Evidence(
    dt_from=StepLength(text="tau (1-r)", of=_dt, gain=_decay, tau=_tau, above_dt=True),
    proves=True,
    silent=("LI",),
    refutes=_without_threshold,
)
_WRITES = Conventions(
    name="spyx",
    rules=rules(
        LIF=Rule(
            arrival="jump",
            kernel="box",
            membrane_decay=R,
            membrane="leak",
        ),
        CubaLIF=Rule(
            arrival="jump",
            membrane_decay=R,
            synapse_decay=EULER_SYNAPSE,
            membrane="leak",
            synapse="add last",
            resets_first=("subtract",),
            ones=("w_in",),
        ),
        IF=Rule(arrival="jump", membrane_decay=NO_DECAY, membrane="leak", ones=("r",)),
        # The membrane of PSU_LIF, which never resets; a Threshold after it generates the spikes.
        LI=Rule(
            arrival="jump",
            kernel="box",
            membrane_decay=EULER_MEMBRANE,
            membrane="leak",
            ones=("r",),
        ),
    ),
    evidence=_EVIDENCE,
    time_unit="from dt",
    reset="subtract",
    reset_delay=True,
    resets_at_start=True,
    refine=_refined,
    spikes_from="before",
    recurrent_delay=0,
    channels_last=True,
    meanings=(_rewired, clamping("Spyx", _learnt), _padded_like_xla),
)


# Files that the framework reads


def _write(step: Step, setting: Setting) -> Written:
    """Write one neuron. LIF and IF subtract one step later, CuBaLIF immediately; all start and rest
    at 0, spikes leave one step late.
    """
    if step.reset == "value" and not step.current_based and np.all(step.decay == 0):
        # With a decay of 0 nothing remains in the next time step, so any reset is equivalent.
        step = dataclasses.replace(step, reset="subtract", v_start=np.zeros(step.shape))
    if step.reset in ("value", "skip", "subtract unless above"):
        manner = "with reset_delay false" if step.reset == "subtract unless above" else "to a value"
        reason = f"it resets {manner}, and Spyx's importer subtracts v_threshold"
        setting.give_up(step.name, reason, "it is written with a reset that subtracts v_threshold")
    needs_start(step, np.zeros(step.shape), setting)
    if step.current_based and step.reset == "subtract later" and not np.all(step.decay == 1):
        reason = "it subtracts v_threshold after the decay, Spyx's CuBaLIF before"
        setting.give_up(
            step.name, reason, "it is written as a neuron that subtracts before the decay"
        )
    at_once = step.reset == "subtract" and not np.all(step.decay == 1)
    threshold = moved_threshold(step, step.v_threshold, False)
    rest = np.maximum(1 - step.decay, NO_LEAK)
    entry = {"v_threshold": threshold, "v_reset": filled(step, 0)}
    why = (
        f"Spyx's importer uses decays 1 - dt/tau with dt = {setting.dt:g} s, and ignores r and w_in"
    )
    if step.current_based or at_once:
        if len(step.shape) > 1:
            raise ConversionError(
                Text(
                    "node '{node}' has the shape {shape}, and Spyx's CuBaLIF, which it needs, supports "
                    "only one axis",
                    node=step.name,
                    shape=step.shape,
                ),
                fix="add a Flatten before it",
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
            why = (
                "only Spyx's CuBaLIF subtracts immediately; with tau_syn = dt it is equivalent to a "
                "LIF"
            )
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


def _load(path: str, setting: Setting) -> str:
    read = f"nir.read({path!r})"
    return f"import nir, spyx.nir; net, y = spyx.nir.from_nir({read}, x, dt={setting.dt!r})"


#: Constant input with which an additional neuron fires in each step, by type; its v_threshold is 1,
#: and half of its membrane remains from step to step.
_DRIVE = {"LIF": 2.0, "CubaLIF": 2.0, "IF": 1.5}


def _chain(draft: Draft, recurrent: list[Edge], late: bool, dt: float) -> None:
    """Rename and nest nodes for Spyx, which walks from a node named `input` along first edges to
    `output`.

    Args:
        draft: Edited in place.
        recurrent: Edges from the weights of a loop to its neuron.
        late: Whether layers of the source framework do not delay spikes, while those of Spyx do.
        dt: Time step of the file in seconds.
    """
    _unlike_xla(draft)
    if late:
        _constant_neurons(draft, recurrent, dt)
    for weights, neuron in recurrent:
        _nest(draft, weights, neuron)
    for kind, name in (("Input", "input"), ("Output", "output")):
        _rename(draft, draft.of_type(kind)[0], name)


def _unlike_xla(draft: Draft) -> None:
    """Write pools as convolutions if their padding differs from XLA's SAME, as which Spyx interprets
    any padding.
    """
    for name in draft.of_type("SumPool2d"):
        frame = window(as_node(name, draft.nodes[name]))
        like_xla = dataclasses.replace(frame, like_xla=True).at(draft.shapes[name][0][1:])
        if frame == like_xla or not any(map(any, frame.padding or ())):
            continue
        draft.nodes[name] = pool_as_convolution(draft, name)
        padding = tuple(before for before, _ in frame.padding or ())
        why = f"Spyx's importer interprets the padding {padding} of a pool as XLA's SAME"
        draft.changed(name, "is written as Conv2d", why)
    dense_groups(draft, "Spyx's importer supports only one group")


def _nest(draft: Draft, weights: str, neuron: str) -> None:
    """Nest the neuron and its weights in the graph that Spyx writes for a recurrent layer."""
    name = neuron.removesuffix(".lif")
    while name != neuron and name in draft.nodes:
        name += "_"
    shape = np.array(draft.shapes[neuron][1])
    lif, w_rec, start, end = (f"{name}.{part}" for part in ("lif", "w_rec", "input", "output"))
    inner: dict[str, Any] = {
        lif: draft.nodes.pop(neuron),
        w_rec: draft.nodes.pop(weights),
        start: {"type": "Input", "shape": shape},
        end: {"type": "Output", "shape": shape},
    }
    edges = [(start, w_rec), (w_rec, lif), (lif, w_rec), (lif, end)]
    loop = {(weights, neuron), (neuron, weights)}
    draft.edges = [
        (name if source == neuron else source, name if target == neuron else target)
        for source, target in draft.edges
        if (source, target) not in loop
    ]
    draft.nodes[name] = {"type": "NIRGraph", "nodes": inner, "edges": edges}
    draft.renamed |= {neuron: f"{name}/{lif}", weights: f"{name}/{w_rec}"}
    draft.changed(
        name,
        Text(
            "'{neuron}' and '{weights}' are moved into this subgraph",
            neuron=neuron,
            weights=weights,
        ),
        "Spyx reads a recurrent layer as a nested graph",
    )


def _rename(draft: Draft, old: str, new: str) -> None:
    if old == new:
        return
    if new in draft.nodes:
        _rename(draft, new, f"{new}_")
    draft.nodes = {new if name == old else name: entry for name, entry in draft.nodes.items()}
    draft.edges = [(new if a == old else a, new if b == old else b) for a, b in draft.edges]
    draft.renamed[old] = new
    draft.changed(
        new,
        Text("renamed from '{old}'", old=old),
        "Spyx's importer follows the edges from 'input' to 'output'",
    )


def _constant_neurons(draft: Draft, recurrent: list[Edge], dt: float) -> None:
    """Replace each bias after a layer of neurons by a neuron of that layer that fires in each
    step.

    In Spyx, layer n receives its input n - 1 time steps late, but its bias immediately. A neuron
    that fires in every time step of its layer is as late as the input.
    """
    import networkx

    chain = list(
        networkx.topological_sort(
            networkx.DiGraph([edge for edge in draft.edges if edge not in set(recurrent)])
        )
    )
    loops = {neuron: weights for weights, neuron in recurrent}
    chain = [name for name in chain if name not in loops.values()]
    layers = (
        number for number, name in enumerate(chain) if draft.nodes[name]["type"] in NEURON_TYPES
    )
    first = next(layers, len(chain))
    biased = [n for n in range(first, len(chain)) if np.any(draft.nodes[chain[n]].get("bias", 0))]
    if not biased:
        return
    if not any(draft.nodes[name]["type"] in WEIGHTED for name in chain[:first]):
        entry = identity(draft.shapes[chain[first]][0])
        chain.insert(
            first, draft.insert((chain[first - 1], chain[first]), f"{chain[first]}_weights", entry)
        )
        biased = [number + 1 for number in biased]
    amplitude, space = None, None
    for number, name in enumerate(chain[: biased[-1] + 1]):
        entry = draft.nodes[name]
        if entry["type"] in WEIGHTED:
            ends = [draft.nodes[after]["type"] for after in chain[number + 1 :]]
            after = next((kind for kind in ends if kind in (*NEURON_TYPES, *WEIGHTED)), "")
            output_amplitude = _DRIVE.get(after, 1.0) if number < biased[-1] else None
            draft.nodes[name] = _widened(name, entry, amplitude, output_amplitude, space)
            amplitude, space = output_amplitude, None
        elif entry["type"] in NEURON_TYPES and amplitude is not None:
            draft.nodes[name] = _with_constant_neuron(entry, dt)
            size, *space_shape = draft.shapes[name][1]
            draft.shapes[name] = ((size + 1, *space_shape), (size + 1, *space_shape))
            why = (
                "in Spyx, input reaches each layer one time step later than the layer before, but "
                "biases act from the first time step on"
            )
            draft.changed(
                name,
                "a neuron that fires in every time step replaces the bias after this layer",
                why,
            )
            amplitude = 1.0
            if name in loops:
                weights = draft.nodes[loops[name]]
                draft.nodes[loops[name]] = weights | {
                    "weight": np.pad(weights["weight"], ((0, 1), (0, 1)))
                }
        elif amplitude is not None:
            if entry["type"] == "SumPool2d":
                amplitude *= float(np.prod(window(as_node(name, entry)).kernel))
            if entry["type"] == "Flatten":
                shape = draft.shapes[name][0]
                space = shape[1:]
                draft.nodes[name] = entry | {"input_type": np.array((shape[0] + 1, *shape[1:]))}


def _widened(
    name: str,
    entry: dict[str, Any],
    amplitude: float | None,
    output_amplitude: float | None,
    space: tuple[int, ...] | None,
) -> dict[str, Any]:
    """Return weights with a constant input of `amplitude` in place of the bias, and with a constant
    output of `output_amplitude`.

    `space`: height and width of a Flatten before it, whose order is height, width, channel.
    """
    weight, bias = (
        np.asarray(entry["weight"]),
        np.asarray(entry.get("bias", np.zeros(len(entry["weight"])))),
    )
    rows = 0 if output_amplitude is None else 1
    if entry["type"] == "Conv2d":
        tap = tuple(int(before) for before, _ in window(as_node(name, entry)).padding or ())
        if len(tap) != 2 or any(
            place >= size for place, size in zip(tap, weight.shape[2:], strict=True)
        ):
            raise ConversionError(
                Text(
                    "node '{node}' pads by more than its kernel, so that Spyx's input weights cannot "
                    "represent its bias",
                    node=name,
                ),
                fix="use less padding, or remove its bias",
                node=name,
            )
        if amplitude is not None and _outgrows(name, entry):
            raise ConversionError(
                Text(
                    "node '{node}' has so much padding that a constant input, which represents the bias "
                    "in Spyx, does not reach all of its outputs",
                    node=name,
                ),
                fix="use less padding, or remove the biases after the first layer of neurons",
                node=name,
            )
        wide = np.pad(weight, ((0, rows), (0, int(amplitude is not None)), (0, 0), (0, 0)))
        source, place = -1, tap
    elif space is None or amplitude is None:
        wide = np.pad(weight, ((0, rows), (0, int(amplitude is not None))))
        source, place = -1, ()
    else:
        by_place = weight.reshape(len(weight), *space, -1)
        wide = np.pad(by_place, ((0, rows), *((0, 0) for _ in space), (0, 1))).reshape(
            len(weight) + rows, -1
        )
        source, place = by_place.shape[-1], ()
    new_bias = np.pad(bias, (0, rows))
    if rows:
        new_bias[-1] = output_amplitude
    if amplitude is not None:
        wide[(slice(None), source, *place)] = new_bias / amplitude
        new_bias = np.zeros_like(new_bias)
    widened_entry = entry | {"weight": wide, "bias": new_bias}
    return widened_entry if entry["type"] != "Linear" else widened_entry | {"type": "Affine"}


def _outgrows(name: str, entry: dict[str, Any]) -> bool:
    """Return whether the last output of a convolution lies beyond its last input."""
    frame = window(as_node(name, entry))
    assert frame.padding is not None
    sides = np.ravel(entry["input_shape"])
    for side, kernel, stride, padding in zip(
        sides, frame.kernel, frame.stride, frame.padding, strict=True
    ):
        last = (side + sum(padding) - kernel) // stride
        if last * stride >= side:
            return True
    return False


def _with_constant_neuron(entry: dict[str, Any], dt: float) -> dict[str, Any]:
    half, unit = 0.5, 1.0
    values = {
        "tau": dt / half,
        "tau_mem": dt / half,
        "tau_syn": dt,
        "r": half,
        "w_in": unit,
        "v_leak": 0.0,
    }
    values |= {"v_threshold": unit, "v_reset": 0.0}
    if entry["type"] == "IF":
        values["r"] = unit
    return {
        key: np.concatenate([value, np.full((1, *value.shape[1:]), values[key])])
        if key in values
        else value
        for key, value in entry.items()
    }


FRAMEWORK = Framework(
    name="spyx",
    title="Spyx",
    dialects=(_WRITES,),
    importers=(
        Importer(
            version="1.0",
            nodes=(*COMMON_NODES, "SumPool2d"),
            torch_names=False,
            write=_write,
            load=_load,
            run=(
                "from spyx import nn\n"
                "y, state = nn.run(net, x)  # x: (time, batch, *shape), channels last"
            ),
            wire=_chain,
            lacks=("dilation",),
            counts_batch=None,
            dt=1.0,
            wiring=("loops",),
            subtracts=("later",),
            reads=MappingProxyType({"reset": "subtract", "reset_delay": True, "initial": "zero"}),
        ),
    ),
    distribution="spyx",
    surrogate="FastSigmoid(slope=25), which Spyx calls SuperSpike",
    note="Its files may count time in steps. Each layer delays spikes by one time step.",
)
