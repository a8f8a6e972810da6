"""Graph -> Network (`lower`), and a trained Network's numbers back into the Graph (`raise_`)."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import LoweringError, listing
from jaxsnn.network import Network, Population, Wire, with_tau_facts
from jaxsnn.nir.dialects import Dialect
from jaxsnn.nir.gains import require, resistance, spike_area
from jaxsnn.nir.graph import Affine, CubaLI, CubaLIF, Flatten, Input, Linear, Node, Output, Scale
from jaxsnn.nir.passes import bypass_relays, is_relay, shapes

if TYPE_CHECKING:
    from jaxsnn.nir.graph import Graph

_PURPOSE = "event-based simulation"


def lower(graph: Graph, *, dtype: Any = None, free_time_constants: bool = False) -> Network:
    """The network that the event engine runs.

    Args:
        graph: read with a dialect; what the file does not say and the simulation needs must be known.
        dtype: float32 or float64 (needs jax_enable_x64); default JAX's own.
        free_time_constants: assume nothing of tau_mem and tau_syn, so that they can be trained.

    Raises:
        LoweringError: a node or a connection that the event engine does not run, by name.
        DialectError: the dialect leaves something open that is needed.

    >>> from jaxsnn.nir import build
    >>> graph = build.sequential(build.input(2), build.linear(3), build.cubalif(tau_mem=10e-3, tau_syn=5e-3), seed=0)
    >>> lower(graph).populations["2"].size
    3
    """
    require(graph.dialect, ["name"], _PURPOSE)
    cycles = graph.recurrent_components()
    if cycles:
        raise LoweringError(
            f"nodes {listing(cycles[0])} form a cycle: the event engine runs feed-forward networks only so far"
        )
    dtype = jnp.zeros((), dtype or float).dtype
    channels = {name: shape for name, (_, shape) in shapes(graph).items()}
    incoming: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in bypass_relays(graph):
        incoming[target].append(source)
    place = {name: number for number, name in enumerate(graph.order())}
    wires, parameters, populations = [], {}, {}
    for name in graph.order():
        node, shape = graph.nodes[name], channels[name]
        if is_relay(node):
            continue
        if shape is None:
            raise LoweringError(f"the size of node '{name}' cannot be told from the file: give its parameters a shape")
        size = math.prod(shape)
        kind, values = lower_node(node, graph.dialect, size)
        sources = tuple(sorted(incoming[name], key=place.__getitem__))
        wires.append(Wire(name=name, kind=kind, sources=sources, size=size))
        if values:
            parameters[name] = {key: jnp.asarray(value, dtype) for key, value in values.items()}
        if kind == "neuron":
            population = _population(node, graph.dialect, size, biased=_is_biased(graph, wires, sources))
            populations[name] = with_tau_facts(population, parameters[name])
    if not populations:
        raise LoweringError("the graph has no neurons: nothing to simulate")
    network = Network(parameters=parameters, wires=wires, populations=populations)
    return network.with_free_time_constants() if free_time_constants else network


@singledispatch
def lower_node(node: Node, dialect: Dialect, size: int) -> tuple[str, dict[str, np.ndarray]]:
    """Kind of `Wire`, and the parameters in SI units, of one node."""
    supported = listing(kind.__name__ for kind in lower_node.registry if kind not in (object, Node))
    raise LoweringError(f"node '{node.name}' is a {node.type}: the event engine runs {supported}")


@lower_node.register
def _(node: Input, dialect, size):
    return "input", {}


@lower_node.register
def _(node: Output, dialect, size):
    return "output", {}


@lower_node.register
def _(node: Flatten, dialect, size):
    conventions = dialect.conventions
    if conventions is not None and conventions.channels_last:
        raise LoweringError(
            f"node '{node.name}' is a Flatten in the order of channels last ({dialect.name}): not supported so far"
        )
    return "Flatten", {}


@lower_node.register
def _(node: Linear, dialect, size):
    return "Linear", {"weight": _matrix(node)}


@lower_node.register
def _(node: Affine, dialect, size):
    return "Affine", {"weight": _matrix(node), "bias": _per_channel(node, "bias", size)}


@lower_node.register
def _(node: Scale, dialect, size):
    return "Scale", {"scale": _per_channel(node, "scale", size)}


@lower_node.register(CubaLIF)
@lower_node.register(CubaLI)
def _(node: Any, dialect, size):
    seconds = dialect.seconds
    if seconds is None:
        require(dialect, ["seconds"], _PURPOSE, node.name)
    values = {name: _per_channel(node, name, size) for name in node.names}
    for tau in ("tau_mem", "tau_syn"):
        values[tau] = values[tau] * seconds
        _finite_tau(node, tau, values[tau])
    values["r"] = np.broadcast_to(resistance(dialect, node).reshape(-1), size)
    return "neuron", values


def _matrix(node: Any) -> np.ndarray:
    if node.weight.ndim != 2:
        raise LoweringError(
            f"node '{node.name}' ({node.type}): weight has shape {node.weight.shape}: "
            "the event engine takes (outputs, inputs)"
        )
    return node.weight


def _per_channel(node: Node, name: str, size: int) -> np.ndarray:
    """A parameter as (size,) array; a scalar holds for all."""
    value = np.asarray(node.value(name))
    if value.size not in (1, size):
        raise LoweringError(
            f"node '{node.name}' ({node.type}): {name} has {value.size} entries for {size} channels: give one or {size}"
        )
    return np.broadcast_to(value.reshape(-1), size)


def _finite_tau(node: Node, name: str, value: np.ndarray) -> None:
    bad = ~np.isfinite(value)
    if bad.any():
        raise LoweringError(
            f"node '{node.name}' ({node.type}): {name} of neuron {int(bad.argmax())} is {value[bad][0]}: "
            "the event engine needs finite time constants in CubaLIF and CubaLI"
        )


def _is_biased(graph: Graph, wires: list[Wire], sources: tuple[str, ...]) -> bool:
    """Whether a constant that is not zero can reach a node through linear nodes."""
    known = {wire.name: wire for wire in wires}
    waiting = list(sources)
    while waiting:
        wire = known[waiting.pop()]
        if wire.kind == "Affine" and np.any(graph.nodes[wire.name].value("bias") != 0):
            return True
        if wire.kind in ("Linear", "Affine", "Scale", "Flatten"):
            waiting.extend(wire.sources)
    return False


def _population(node: Node, dialect: Dialect, size: int, *, biased: bool) -> Population:
    """The static record of a population: what the dialect says of it."""
    view = dialect.at(node.name)
    readout = isinstance(node, CubaLI) or view.readout
    require(dialect, ["initial"] if readout else ["initial", "reset"], _PURPOSE, node.name)
    if not readout and view.reset == "none":
        raise LoweringError(f"node '{node.name}' has reset 'none': say --readout {node.name} if it is a leaky readout")
    if view.spike_kernel == "box":
        raise LoweringError(
            f"node '{node.name}' ({node.type}): box spikes into a neuron with synaptic current are not "
            f"supported so far: say --spike-kernel {node.name}:delta"
        )
    area = spike_area(dialect, node)
    conventions = dialect.conventions
    steps = conventions is not None and conventions.constant_input == "step"
    if biased and steps and area.kind == "jump":
        require(dialect, ["dt"], "a bias", node.name)
    reset: Any = "subtract" if view.reset == "subtract" else "zero"
    population = Population(
        name=node.name,
        kind="CubaLI" if readout else "CubaLIF",
        size=size,
        spike_area=area.seconds,
        step=dialect.dt if steps and dialect.dt is not None else None,
        initial=view.initial or "zero",
        reset=reset,
    )
    if not readout:
        _resets_below_threshold(node, population, size)
    return population


def _resets_below_threshold(node: Node, population: Population, size: int) -> None:
    v_threshold = _per_channel(node, "v_threshold", size)
    v_reset = np.zeros(size) if population.reset == "subtract" else _per_channel(node, "v_reset", size)
    bad = v_reset >= v_threshold
    if bad.any():
        n = int(bad.argmax())
        raise LoweringError(
            f"node '{node.name}' ({node.type}): neuron {n} resets to {v_reset[n]:g}, not below its v_threshold "
            f"{v_threshold[n]:g}: it would fire for ever at once"
        )


def raise_(graph: Graph, network: Network) -> Graph:
    """The graph with the numbers of a network that was lowered from it and changed since.

    A number that did not change keeps its bits, its shape (a scalar stays one) and its dtype; a parameter that the file
    lacks stays absent.

    Raises:
        LoweringError: a changed number that the dialect cannot write.
    """
    before = lower(graph, dtype=network.dtype).parameters
    changed = []
    for name, values in network.parameters.items():
        node = graph.nodes[name]
        changes = {
            key: _written(node, key, np.asarray(value), graph.dialect)
            for key, value in values.items()
            if not np.array_equal(np.asarray(value), np.asarray(before[name][key]))
        }
        if changes:
            changed.append(node.replace(**changes))
    return graph.with_nodes(changed)


def _written(node: Node, name: str, value: np.ndarray, dialect: Dialect) -> np.ndarray:
    """A changed parameter in the file's units, shape and dtype."""
    if not np.isfinite(value).all():
        raise LoweringError(
            f"node '{node.name}' ({node.type}): {name} is {value[~np.isfinite(value)][0]} after training"
        )
    if name in ("tau_mem", "tau_syn"):
        value = value / dialect.seconds
    if name == "r" and not np.array_equal(resistance(dialect, node), node.value("r")):
        raise LoweringError(f"node '{node.name}' ({node.type}): r cannot be trained in the dialect {dialect.name}")
    original = np.asarray(node.value(name))
    if original.size == 1 and value.size > 1:  # it was one number for all
        value = value[:1] if (value == value[0]).all() else value
    if value.size == original.size:
        value = value.reshape(original.shape)
    dtype = original.dtype if original.dtype.kind == "f" else value.dtype
    return value.astype(dtype)
