"""Graph -> Network (`lower`), and a trained Network's numbers back into the Graph (`raise_`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import singledispatch
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import DialectError, LoweringError, listing
from jaxsnn.network import Network, Population, Wire, with_tau_facts
from jaxsnn.nir.dialects import DIALECTS, Dialect
from jaxsnn.nir.gains import require, rule_of, spike_area
from jaxsnn.nir.graph import IF, LI, LIF, Affine, CubaLI, CubaLIF, Flatten, I, Input, Linear, Node, Output, Scale
from jaxsnn.nir.passes import bypass_relays, is_relay, shapes

if TYPE_CHECKING:
    from jaxsnn.nir.graph import Graph

_PURPOSE = "simulation"


def lower(graph: Graph, *, dtype: Any = None, free_time_constants: bool = False) -> Network:
    """The network that the engines run.

    What the dialect leaves open is noted in the network's populations; an engine that needs it refuses to run, and says
    which option tells it.

    Args:
        graph: read with a dialect.
        dtype: float32 or float64 (needs jax_enable_x64); default JAX's own.
        free_time_constants: assume nothing of tau_mem and tau_syn, so that they can be trained.

    Raises:
        LoweringError: a node that has no size, or none of the graph's nodes is a neuron.
        DialectError: the dialect is undecided, or its framework never writes such a node.

    >>> from jaxsnn.nir import build
    >>> graph = build.sequential(build.input(2), build.linear(3), build.cubalif(tau_mem=10e-3, tau_syn=5e-3), seed=0)
    >>> lower(graph).populations["2"].size
    3
    """
    require(graph.dialect, ["name"], _PURPOSE)
    dtype = jnp.zeros((), dtype or float).dtype
    channels = {name: shape for name, (_, shape) in shapes(graph).items()}
    place = {name: number for number, name in enumerate(graph.order())}
    incoming: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in bypass_relays(graph):
        incoming[target].append(source)
    wires, parameters, populations = [], {}, {}
    for name in place:
        node, shape = graph.nodes[name], channels[name]
        if is_relay(node):
            continue
        if shape is None:
            raise LoweringError(f"the size of node '{name}' cannot be told from the file: give its parameters a shape")
        lowered = lower_node(node, graph.dialect, shape)
        sources = tuple(sorted(incoming[name], key=place.__getitem__))
        wires.append(Wire(name=name, kind=lowered.kind, sources=sources, shape=shape, detail=lowered.detail))
        if lowered.parameters:
            parameters[name] = {key: jnp.asarray(value, dtype) for key, value in lowered.parameters.items()}
        if lowered.kind == "neuron":
            population = _population(node, graph.dialect, wires[-1].size)
            populations[name] = with_tau_facts(population, parameters[name])
    if not populations:
        raise LoweringError("the graph has no neurons: nothing to simulate")
    network = Network(parameters=parameters, wires=wires, populations=populations)
    return network.with_free_time_constants() if free_time_constants else network


class Lowered(NamedTuple):
    """One node: kind and detail of its `Wire`, and its parameters, time constants in seconds."""

    kind: str
    parameters: dict[str, np.ndarray]
    detail: Any = None


@singledispatch
def lower_node(node: Node, dialect: Dialect, shape: tuple[int, ...]) -> Lowered:
    """Lower one node whose signal has the given shape."""
    supported = listing(kind.__name__ for kind in lower_node.registry if kind not in (object, Node))
    raise LoweringError(f"node '{node.name}' is a {node.type}: simulation runs {supported}")


@lower_node.register
def _(node: Input, dialect, shape):
    return Lowered("input", {})


@lower_node.register
def _(node: Output, dialect, shape):
    return Lowered("output", {})


@lower_node.register
def _(node: Flatten, dialect, shape):
    if dialect.conventions.channels_last:
        raise LoweringError(
            f"node '{node.name}' is a Flatten in the order of channels last ({dialect.name}): not supported so far"
        )
    return Lowered("Flatten", {})


@lower_node.register
def _(node: Linear, dialect, shape):
    return Lowered("Linear", {"weight": _matrix(node)})


@lower_node.register
def _(node: Affine, dialect, shape):
    return Lowered("Affine", {"weight": _matrix(node), "bias": _per_channel(node, "bias", math.prod(shape))})


@lower_node.register
def _(node: Scale, dialect, shape):
    return Lowered("Scale", {"scale": _per_channel(node, "scale", math.prod(shape))})


@lower_node.register(CubaLIF)
@lower_node.register(CubaLI)
@lower_node.register(LIF)
@lower_node.register(LI)
@lower_node.register(IF)
@lower_node.register(I)
def _(node: Any, dialect, shape):
    values = {name: _per_channel(node, name, math.prod(shape)) for name in node.names}
    seconds = dialect.seconds or 1.0  # unknown: the population says so
    return Lowered("neuron", {key: value * seconds ** time_power(node, key) for key, value in values.items()})


def time_power(node: Node, parameter: str) -> int:
    """Power of the unit of time in a parameter: 1 for time constants, -1 for r of IF and I, else 0."""
    if parameter.startswith("tau"):
        return 1
    return -1 if parameter == "r" and isinstance(node, IF | I) else 0


def _matrix(node: Any) -> np.ndarray:
    if node.weight.ndim != 2:
        raise LoweringError(
            f"node '{node.name}' ({node.type}): weight has shape {node.weight.shape}: "
            "simulation takes (outputs, inputs)"
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


def _population(node: Node, dialect: Dialect, size: int) -> Population:
    """The static record of a population: what the dialect says of it, and what it leaves open."""
    view = dialect.at(node.name)
    readout = isinstance(node, CubaLI | LI | I) or view.readout
    conventions = DIALECTS[dialect.name or ""]
    rule = rule_of(dialect, node)
    obstacles = _obstacles(node, size, told_reset=view.reset)

    def known(field: str, get: Callable[[], Any], default: Any) -> Any:
        try:
            return get()
        except DialectError as error:
            obstacles[field] = str(error)
            return default

    def told(field: str, default: Any) -> Any:
        def get() -> Any:
            require(dialect, [field], _PURPOSE, node.name)
            return getattr(view if hasattr(view, field) else dialect, field)

        return known(field, get, default)

    told("seconds", None)
    area = known("spike_area", lambda: spike_area(dialect, node).seconds, None)
    return Population(
        name=node.name,
        kind=node.type,
        size=size,
        readout=readout,
        spike_area=area,
        spike_kernel=told("spike_kernel", "delta"),
        dt=told("dt", None),
        bias=conventions.constant_input,
        resistance=rule.resistance,
        initial=told("initial", "zero"),
        reset="none" if readout else told("reset", "zero"),
        obstacles=tuple(obstacles.items()),
    )


def _obstacles(node: Node, size: int, *, told_reset: str | None) -> dict[str, str]:
    """Numbers that make no sense in continuous time."""
    found = {}
    for name in ("tau", "tau_mem", "tau_syn"):
        if name in node.names and not (finite := np.isfinite(_per_channel(node, name, size))).all():
            neuron = int((~finite).argmax())
            found[name] = (
                f"node '{node.name}' ({node.type}): {name} of neuron {neuron} is infinite: continuous time needs a "
                "finite time constant"
            )
    if "v_threshold" in node.names:
        v_threshold = _per_channel(node, "v_threshold", size)
        v_reset = np.zeros(size) if told_reset == "subtract" else _per_channel(node, "v_reset", size)
        if (bad := v_reset >= v_threshold).any():
            neuron = int(bad.argmax())
            found["v_reset"] = (
                f"node '{node.name}' ({node.type}): neuron {neuron} resets to {v_reset[neuron]:g}, not below its "
                f"v_threshold {v_threshold[neuron]:g}: it would fire for ever at once"
            )
    return found


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
    value = value / (dialect.seconds or 1.0) ** time_power(node, name)
    if name == "r" and rule_of(dialect, node).resistance != "file":
        raise LoweringError(
            f"node '{node.name}' ({node.type}): r cannot be trained in the dialect {dialect.name}, "
            "which does not play it"
        )
    original = np.asarray(node.value(name))
    if original.size == 1 and value.size > 1:  # it was one number for all
        value = value[:1] if (value == value[0]).all() else value
    if value.size == original.size:
        value = value.reshape(original.shape)
    dtype = original.dtype if original.dtype.kind == "f" else value.dtype
    return value.astype(dtype)
