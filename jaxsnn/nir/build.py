"""Graphs without a file: layers in a row, or nodes with named edges.

Time constants are in seconds (or text such as "10ms"). The default dialect is that of this library.
Sizes that follow from the previous layers may be omitted. One seed determines all weights, which are
drawn in the order of the layers.
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from jaxsnn.errors import GraphError, Note, Problem, UsageError, suggestion, warn_of
from jaxsnn.keywords import suggests_keywords
from jaxsnn.nir.dialects.resolve import resolve_neurons
from jaxsnn.nir.frameworks.registry import build_options
from jaxsnn.nir.graphs.export import tagged
from jaxsnn.nir.graphs.parse import parse
from jaxsnn.nir.initializers import Initializer, Seed, generator_of, kaiming_uniform
from jaxsnn.nir.io.documents import NIR_VERSION, group_of
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.node import Parameter, Value, nothing
from jaxsnn.nir.model.nodes import class_of
from jaxsnn.nir.model.passes import Shape
from jaxsnn.options import SEED
from jaxsnn.summary import summarised
from jaxsnn.units import look_like_milliseconds, parse_time
from jaxsnn.wording import Text

if TYPE_CHECKING:
    from jaxsnn.nir.dialects.option_keywords import DialectKeywords

__all__ = [
    "Layer",
    "affine",
    "cubali",
    "cubalif",
    "delay",
    "input",
    "integrate_and_fire",
    "integrator",
    "li",
    "lif",
    "linear",
    "network",
    "node",
    "output",
    "scale",
    "sequential",
]

Size = int | Sequence[int]
Number = float | np.ndarray | Sequence[float]
Time = Number | str
Weights = Initializer | np.ndarray


@summarised
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A node before its size is known and its weights are drawn, created by the functions of this
    module.

    Attributes:
        type: NIR's name of the primitive.
        size: Shape of its output; None: the shape of its input.
        parameters: Numbers; a single number applies to all neurons.
        weights: Arrays, or initialisers that draw them.
        node_fields: Arrays and settings of a layer from `node`, used unchanged; None for other layers.
        without_unit: Names of the time constants that were passed as numbers, not as text.
    """

    type: str
    size: Shape | None = None
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    weights: Mapping[str, Weights] = dataclasses.field(default_factory=nothing)
    node_fields: Mapping[str, Value] | None = None
    without_unit: tuple[str, ...] = ()

    def leaving(self, name: str, shape: Shape) -> Shape:
        """Return the output shape of a layer without a size, for an input shape.

        Raises:
            GraphError: The layer does not accept this input shape.
        """
        if self.node_fields is None:
            return shape
        numbers = {key: np.asarray(value) for key, value in self.parameters.items()}
        record = class_of(self.type)(name=name).replace(**numbers, **self.node_fields)
        output_shape = record.traits.output_shape(record, shape)
        if output_shape is None:
            raise GraphError(
                Text(
                    "node '{node}' ({type}) cannot take the shape {shape}",
                    node=name,
                    type=self.type,
                    shape=shape,
                ),
                fix="correct its parameters or the node before it",
                node=name,
            )
        return output_shape


def _shape(size: Size | None) -> Shape | None:
    """Return the axes of a size as integers.

    Raises:
        UsageError: a number that is not an integer, or below 1.
    """
    if size is None:
        return None
    axes: Any = [size] if np.ndim(size) == 0 else size
    try:
        shape = tuple(map(operator.index, axes))
    except TypeError:
        shape = (0,)
    if any(length < 1 for length in shape):
        raise UsageError(Text("a size is {value!r}", value=size), fix="pass integers of at least 1")
    return shape


@suggests_keywords
def input(size: Size) -> Layer:
    """Return a node by which data enter the graph."""
    return Layer(type="Input", size=_shape(size))


@suggests_keywords
def output(size: Size | None = None) -> Layer:
    """Return a node by which data leave the graph."""
    return Layer(type="Output", size=_shape(size))


@suggests_keywords
def linear(outputs: int | None = None, *, weight: Weights | None = None) -> Layer:
    """Return a weight matrix: an array (outputs, inputs), or drawn by an initialiser (default:
    kaiming_uniform).
    """
    return _matrix("Linear", outputs, {"weight": kaiming_uniform() if weight is None else weight})


@suggests_keywords
def affine(
    outputs: int | None = None, *, weight: Weights | None = None, bias: Weights | float = 0.0
) -> Layer:
    """Return a weight matrix and a bias: arrays, or drawn by initialisers, the weights first."""
    weights = {"weight": kaiming_uniform() if weight is None else weight}
    if callable(bias):
        return _matrix("Affine", outputs, {**weights, "bias": bias})
    return dataclasses.replace(_matrix("Affine", outputs, weights), parameters={"bias": bias})


def _matrix(kind: str, outputs: int | None, weights: Mapping[str, Weights]) -> Layer:
    weight = weights["weight"]
    if not callable(weight):
        outputs = np.shape(weight)[0] if outputs is None else outputs
    if outputs is None:
        raise UsageError(
            Text("a {type} layer has no number of outputs", type=kind),
            fix="pass it, or an array of weights",
        )
    return Layer(type=kind, size=(outputs,), weights=weights)


@suggests_keywords
def scale(value: Number) -> Layer:
    """Return a node that multiplies each element by its own factor."""
    return Layer(type="Scale", parameters={"scale": value})


@suggests_keywords
def delay(duration: Time) -> Layer:
    """Return a node that delays its input: y(t) = x(t - duration).

    Args:
        duration: Seconds or text such as "2ms"; one for all elements, or one for each.

    Raises:
        UsageError: The text is not a duration.

    >>> sequential(input(2), delay("2ms"), lif(tau="10ms")).nodes["1"].value("delay")
    array([0.002, 0.002])
    """
    return node("Delay", delay=duration)


@suggests_keywords
def cubalif(
    size: Size | None = None,
    *,
    tau_mem: Time,
    tau_syn: Time,
    v_threshold: Number = 1.0,
    v_leak: Number = 0.0,
    v_reset: Number = 0.0,
    r: Number = 1.0,
    w_in: Number = 1.0,
) -> Layer:
    """Return current-based leaky integrate-and-fire neurons.

    Each parameter is one number or one for each neuron.
    """
    times = {"tau_mem": tau_mem, "tau_syn": tau_syn}
    others = {
        "v_threshold": v_threshold,
        "v_leak": v_leak,
        "v_reset": v_reset,
        "r": r,
        "w_in": w_in,
    }
    return _neurons("CubaLIF", size, times, others)


@suggests_keywords
def cubali(
    size: Size | None = None,
    *,
    tau_mem: Time,
    tau_syn: Time,
    v_leak: Number = 0.0,
    r: Number = 1.0,
    w_in: Number = 1.0,
) -> Layer:
    """Return current-based leaky integrators."""
    return _neurons(
        "CubaLI",
        size,
        {"tau_mem": tau_mem, "tau_syn": tau_syn},
        {"v_leak": v_leak, "r": r, "w_in": w_in},
    )


@suggests_keywords
def lif(
    size: Size | None = None,
    *,
    tau: Time,
    v_threshold: Number = 1.0,
    v_leak: Number = 0.0,
    v_reset: Number = 0.0,
    r: Number = 1.0,
) -> Layer:
    """Return leaky integrate-and-fire neurons."""
    others = {"v_threshold": v_threshold, "v_leak": v_leak, "v_reset": v_reset, "r": r}
    return _neurons("LIF", size, {"tau": tau}, others)


@suggests_keywords
def li(size: Size | None = None, *, tau: Time, v_leak: Number = 0.0, r: Number = 1.0) -> Layer:
    """Return leaky integrators."""
    return _neurons("LI", size, {"tau": tau}, {"v_leak": v_leak, "r": r})


@suggests_keywords
def integrate_and_fire(
    size: Size | None = None, *, v_threshold: Number = 1.0, v_reset: Number = 0.0, r: Number = 1.0
) -> Layer:
    """Return integrate-and-fire neurons (IF); r is in 1/s."""
    return _neurons("IF", size, {}, {"v_threshold": v_threshold, "v_reset": v_reset, "r": r})


@suggests_keywords
def integrator(size: Size | None = None, *, r: Number = 1.0) -> Layer:
    """Return non-spiking integrators without leak (I); r is in 1/s."""
    return _neurons("I", size, {}, {"r": r})


def _neurons(
    kind: str, size: Size | None, times: Mapping[str, Time], others: Mapping[str, Number]
) -> Layer:
    seconds = {
        name: parse_time(value) if isinstance(value, str) else value
        for name, value in times.items()
    }
    numbers = tuple(name for name, value in times.items() if not isinstance(value, str))
    parameters = seconds | dict(others)
    return Layer(type=kind, size=_shape(size), parameters=parameters, without_unit=numbers)


def node(kind: str, size: Size | None = None, /, **parameters: Any) -> Layer:
    """Return a node of any type of NIR, including those without a function here, or of a registered
    type.

    Args:
        kind: Type of the node.
        size: Shape of a population; not needed for other nodes.
        parameters: Parameters by their names in the type. If a parameter has one number per element,
            a single number applies to all; a time may be text.

    Raises:
        UnsupportedNodeError: There is no such type.
        UsageError: The type has no such parameter, or no size.

    >>> pool = node("SumPool2d", kernel_size=2, stride=2, padding=0)
    >>> sequential(input((1, 4, 4)), pool, lif(tau="10ms")).nodes["2"].value("tau").shape
    (1, 2, 2)
    """
    traits = class_of(kind).traits
    if size is not None and not traits.keeps_shape:
        raise UsageError(
            Text("a {type} has no size of its own", type=kind),
            fix="leave it out: the node before it determines the size",
        )
    values_by_scope: dict[bool, dict[str, Any]] = {True: {}, False: {}}
    for name, value in parameters.items():
        parameter = traits.parameter(name)
        if parameter is None:
            raise UsageError(
                Text("a {type} has no parameter '{parameter}'", type=kind, parameter=name),
                fix=suggestion(name, traits.names),
            )
        values_by_scope[parameter.per == "element"][name] = _number(parameter, value)
    numbers = tuple(
        name for name in traits.time_constants if not isinstance(parameters.get(name, ""), str)
    )
    return Layer(
        type=kind,
        size=_shape(size),
        parameters=values_by_scope[True],
        node_fields=values_by_scope[False],
        without_unit=numbers,
    )


def _number(parameter: Parameter, value: Any) -> Any:
    """Return a parameter as numbers, times in seconds; permitted texts stay texts."""
    if not isinstance(value, str):
        return value if parameter.per == "element" else np.asarray(value)
    if value in parameter.texts:
        return value
    return parse_time(value)


def sequential(
    *layers: Layer,
    seed: Seed | None = None,
    dialect: str = "jaxsnn",
    **options: Unpack[DialectKeywords],
) -> Graph:
    """Build a graph of layers in a row.

    The first layer is an `input`; an Output is added. Nodes are named "input", "1", "2", ... and
    "output", the numbers being places among the arguments.

    Args:
        layers: Layers from the functions of this module.
        seed: Random seed of the weights: an integer, or a `jax.random` key of either kind. Not needed
            if all weights are arrays.
        dialect: Dialect of the numbers; options are those of `jaxsnn.nir.read`.

    Raises:
        GraphError: Shapes do not match, or cannot be inferred.

    >>> from jaxsnn.nir.initializers import normal
    >>> net = sequential(
    ...     input(5),
    ...     linear(120, weight=normal(3.0, 1.6)),
    ...     cubalif(tau_mem="10ms", tau_syn="5ms"),
    ...     linear(3, weight=normal(1.5, 1.5)),
    ...     cubalif(tau_mem="10ms", tau_syn="5ms"),
    ...     seed=0,
    ... )
    >>> net.order(), net.dialect.name, net.dialect.time_unit
    (('input', '1', '2', '3', '4', 'output'), 'jaxsnn', 's')
    """
    if not layers or layers[0].type != "Input":
        raise UsageError(
            "the first layer does not specify the number of its inputs",
            fix="begin with an input, sequential(input(5), ...)",
        )
    named = {str(number): layer for number, layer in enumerate(layers)}
    nodes = {"input": named.pop("0"), **named}
    if layers[-1].type != "Output":
        nodes["output"] = output()
    graph = _network(nodes, [tuple(nodes)], seed=seed, dialect=dialect, **options)
    warn_of(_notes(graph))
    return graph


def network(
    nodes: Mapping[str, Layer],
    chains: Iterable[Sequence[str]],
    *,
    seed: Seed | None = None,
    dialect: str = "jaxsnn",
    **options: Unpack[DialectKeywords],
) -> Graph:
    """Build a graph from named nodes and the edges between them.

    Args:
        nodes: Layers by name, those of `input` and `output` included.
        chains: Names in the order of the signal; ("a", "b", "c") are the edges a -> b and b -> c.
        seed: Random seed of the weights, which are drawn in the order of the nodes: an integer, or a
            `jax.random` key.
        dialect: Dialect of the numbers; options are those of `jaxsnn.nir.read`.

    Raises:
        GraphError: Shapes that do not match, or an edge to a node that does not exist.

    >>> net = network(
    ...     {
    ...         "input": input(2),
    ...         "w": linear(4),
    ...         "hidden": cubalif(tau_mem=0.02, tau_syn=0.01),
    ...         "w_rec": linear(4),
    ...         "output": output(),
    ...     },
    ...     [("input", "w", "hidden", "output"), ("hidden", "w_rec", "hidden")],
    ...     seed=0,
    ... )
    >>> net.recurrent_components()
    (('hidden', 'w_rec'),)
    """
    graph = _network(nodes, chains, seed=seed, dialect=dialect, **options)
    warn_of(_notes(graph))
    return graph


def _network(
    nodes: Mapping[str, Layer],
    chains: Iterable[Sequence[str]],
    *,
    seed: Seed | None,
    dialect: str,
    **options: Any,
) -> Graph:
    """Build the graph; arguments as in `network`."""
    edges = list(dict.fromkeys(edge for chain in chains for edge in itertools.pairwise(chain)))
    for name in dict.fromkeys(name for edge in edges for name in edge):
        if name not in nodes:
            raise GraphError(
                Text("an edge refers to '{node}', which is not a node", node=name),
                fix=suggestion(name, nodes),
            )
    shapes = _fed_shapes(nodes, edges)
    rng = None if seed is None else generator_of(seed)
    members = {name: _entry(name, layer, shapes[name], rng) for name, layer in nodes.items()}
    tree = {"type": "NIRGraph", "nodes": members, "edges": edges}
    options = {**build_options(dialect), **options}
    graph = tagged(parse(group_of(tree, NIR_VERSION), dialect=dialect, **options))
    problems = tuple(_implausible_time_constants(graph, nodes))
    return dataclasses.replace(graph, warnings=(*graph.warnings, *problems))


def _notes(graph: Graph) -> Iterator[Note]:
    """Yield notes on the assumptions in reading a new graph."""
    for problem in graph.warnings:
        if problem.code == "time-constant":
            yield Note(str(problem), kind="assumed", code=problem.code)


def _implausible_time_constants(graph: Graph, layers: Mapping[str, Layer]) -> Iterator[Problem]:
    """Name time constants that were specified as numbers and look like milliseconds.

    Those of dialects with another unit, and of frameworks whose steps define them, may be anything.
    """
    if graph.dialect.name is None or graph.dialect.time_unit != "s":
        return
    rules = resolve_neurons(graph)
    for name, layer in layers.items():
        if not layer.without_unit or not rules[name].is_continuous:
            continue
        for key in layer.without_unit:
            values = np.asarray(layer.parameters[key], float)
            suspicious = values[look_like_milliseconds(values)]
            if suspicious.size:
                longest = float(suspicious.max())
                yield Problem(
                    node=name,
                    code="time-constant",
                    message=Text(
                        "node '{node}': {parameter} is {value:g}, which is read as seconds",
                        node=name,
                        parameter=key,
                        value=longest,
                    ),
                    fix=f'write "{longest:g}ms" for milliseconds, or "{longest:g}s" for seconds',
                    severity="warning",
                )


def _fed_shapes(nodes: Mapping[str, Layer], edges: Sequence[tuple[str, str]]) -> dict[str, Shape]:
    """Return the input shape of each node; its own size for nodes without a source."""
    output_shapes = {name: layer.size for name, layer in nodes.items()}
    fed: dict[str, Shape] = {}
    for _ in nodes:
        for source, target in edges:
            shape = output_shapes[source]
            if shape is None:
                continue
            fed.setdefault(target, shape)
            output_shapes[target] = output_shapes[target] or nodes[target].leaving(target, shape)
    for name, size in output_shapes.items():
        if name not in fed and size is not None and not nodes[name].weights:
            fed[name] = size
    unknown = [name for name in nodes if name not in fed]
    if unknown:
        raise GraphError(
            Text("node '{node}' has no size, and no node feeds it", node=unknown[0]),
            fix="pass its size or add an edge to it",
            node=unknown[0],
        )
    return fed


def _entry(name: str, layer: Layer, fed: Shape, rng: np.random.Generator | None) -> dict[str, Any]:
    """Return one node as an entry of NIR."""
    shape = layer.size or layer.leaving(name, fed)
    entry: dict[str, Any] = {"type": layer.type, **(layer.node_fields or {})}
    if layer.type in ("Input", "Output"):
        return entry | {"shape": np.array(shape)}
    for key, weight in layer.weights.items():
        array_shape = (*shape, *fed) if key == "weight" else shape
        entry[key] = _drawn(name, key, weight, array_shape, rng)
    for key, value in layer.parameters.items():
        array = np.asarray(value, float)
        if array.shape not in ((), shape):
            raise GraphError(
                Text(
                    "node '{node}': {parameter} of shape {actual} does not fit {expected}",
                    node=name,
                    parameter=key,
                    actual=array.shape,
                    expected=shape,
                ),
                fix="pass one number, or one for each neuron",
                node=name,
            )
        entry[key] = np.broadcast_to(array, shape)
    return entry


def _drawn(
    name: str, key: str, weight: Weights, shape: Shape, rng: np.random.Generator | None
) -> np.ndarray:
    if callable(weight):
        if rng is None:
            raise UsageError(
                Text(
                    "node '{node}' draws its {parameter}, and no seed is specified",
                    node=name,
                    parameter=key,
                ),
                fix=Text(
                    "pass {seed} or an array of shape {shape}",
                    seed=SEED.set_to(0),
                    shape=shape,
                ),
                node=name,
            )
        return np.asarray(weight(rng, shape))
    if np.shape(weight) != shape:
        raise GraphError(
            Text(
                "node '{node}': {parameter} of shape {actual} does not fit {expected}",
                node=name,
                parameter=key,
                actual=np.shape(weight),
                expected=shape,
            ),
            fix="weights are (outputs, inputs), a bias is (outputs,)",
            node=name,
        )
    return np.asarray(weight)


def __dir__() -> list[str]:
    return __all__
