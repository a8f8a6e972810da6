"""Networks in no framework's words: what an adapter builds, and what the suite writes as a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxsnn.nir.graphs.parse import parse
from jaxsnn.nir.io.documents import NIR_VERSION, group_of
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import nothing
from jaxsnn.nir.model.nodes import class_of

#: Types of layers with a state.
NEURON_TYPES = ("LIF", "IF", "CubaLIF", "LI", "CubaLI")


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkLayer:
    """One layer.

    Attributes:
        type: NIR's name of the primitive.
        shape: shape of the output.
        parameters: of a layer without a state: the parameters of NIR, with weights as NIR has them; of
            a Delay the number of time steps, `steps`.
            Of a neuron: numbers that depend on no time step, a single one or one for each neuron:
            `decay` of the membrane potential per step (a fraction), `current_decay`, `gain` (change of
            V in one step by an input or a current of 1), `current_gain`, `v_threshold`, `v_leak`,
            `v_reset`; `r` of an IF replaces its gain in files.
        reset: "zero", "subtract", or another of the adapter, for modules; a NIR file does not contain
            it.
        recurrent: weights (neurons, neurons) with which the spikes of the layer return to it, or None.
    """

    type: str
    shape: tuple[int, ...]
    parameters: Mapping[str, Any] = field(default_factory=nothing)
    reset: str = "zero"
    recurrent: np.ndarray | None = None

    @property
    def is_neuron(self) -> bool:
        """Whether the layer has a state."""
        return self.type in NEURON_TYPES


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkSpec:
    """A chain of layers, perhaps with additional connections.

    Attributes:
        shape: shape of the input, channels first, without time and batch.
        layers: the layers in the order of the signal.
        skips: pairs of layers (source, target), by their places: the output of the source is also added
            to the input of the target. Place -1 is the input.
        is_nested: whether a file has each population, with its recurrent weights, in a graph of its own.
        is_renamed: whether the nodes of a file have other names than "input", "output" and numbers.
    """

    shape: tuple[int, ...]
    layers: tuple[NetworkLayer, ...]
    skips: tuple[tuple[int, int], ...] = ()
    is_nested: bool = False
    is_renamed: bool = False


def graph_of(network: NetworkSpec, dt: float) -> Graph:
    """Return a network as a NIR graph whose time constants are for time steps of dt.

    The time constants follow from dt/tau = 1 - decay, the literal reading of the equations.
    """
    input_name, output_name = (
        ("stimulus", "response") if network.is_renamed else ("input", "output")
    )
    prefix = "layer." if network.is_renamed else ""
    nodes: dict[str, Any] = {input_name: {"type": "Input", "shape": np.array(network.shape)}}
    edges: list[tuple[str, str]] = []
    last = input_name
    for number, layer in enumerate(network.layers):
        name = f"{prefix}{number}"
        entry = _neuron_entry(layer, dt) if layer.is_neuron else _entry(layer, dt)
        edges.append((last, name))
        last = name
        if layer.is_neuron and network.is_nested:
            nodes[name] = _subgraph(layer, entry)
            continue
        nodes[name] = entry
        if layer.recurrent is not None:
            nodes[f"{name}_recurrent"] = {"type": "Linear", "weight": layer.recurrent}
            edges += [(name, f"{name}_recurrent"), (f"{name}_recurrent", name)]
    for source, target in network.skips:
        edges.append((input_name if source < 0 else f"{prefix}{source}", f"{prefix}{target}"))
    nodes[output_name] = {"type": "Output", "shape": np.array(network.layers[-1].shape)}
    edges.append((last, output_name))
    tree = {"type": "NIRGraph", "nodes": nodes, "edges": edges}
    return parse(group_of(tree, NIR_VERSION), dialect="nir", time_unit="s")


def _subgraph(layer: NetworkLayer, entry: dict[str, Any]) -> dict[str, Any]:
    """Return a population, and its recurrent weights if it has any, as a graph of its own."""
    nodes: dict[str, Any] = {
        "input": {"type": "Input", "shape": np.array(layer.shape)},
        "neuron": entry,
        "output": {"type": "Output", "shape": np.array(layer.shape)},
    }
    edges = [("input", "neuron"), ("neuron", "output")]
    if layer.recurrent is not None:
        nodes["recurrent"] = {"type": "Linear", "weight": layer.recurrent}
        edges += [("neuron", "recurrent"), ("recurrent", "neuron")]
    return {"type": "NIRGraph", "nodes": nodes, "edges": edges}


def _entry(layer: NetworkLayer, dt: float) -> dict[str, Any]:
    if layer.type == "Delay":
        delay = np.asarray(layer.parameters["steps"]) * dt
        return {"type": "Delay", "delay": delay.astype(np.float32)}
    return {"type": layer.type, **layer.parameters}


def _neuron_entry(layer: NetworkLayer, dt: float) -> dict[str, Any]:
    """Return the parameters of NIR: tau = dt/(1 - decay), and r = gain/(dt/tau)."""
    numbers = {name: np.asarray(value, float) for name, value in layer.parameters.items()}
    zero = np.zeros(())
    entry: dict[str, Any] = {
        "v_leak": numbers.get("v_leak", zero),
        "v_threshold": numbers.get("v_threshold", zero),
        "v_reset": numbers.get("v_reset", zero),
    }
    gain = numbers["gain"]
    if layer.type == "IF":
        entry["r"] = numbers.get("r", gain / dt)
    else:
        share = 1 - numbers["decay"]
        entry |= {"tau_mem" if layer.type.startswith("Cuba") else "tau": dt / share}
        entry["r"] = gain / share
    if layer.type.startswith("Cuba"):
        share = 1 - numbers["current_decay"]
        entry |= {"tau_syn": dt / share, "w_in": numbers["current_gain"] / share}
    names = class_of(layer.type).names
    return {"type": layer.type} | {
        name: np.broadcast_to(value, layer.shape).astype(np.float32)
        for name, value in entry.items()
        if name in names
    }
