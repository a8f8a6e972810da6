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
from jaxsnn.linear_map import order_of_pairs
from jaxsnn.nir.dialects.resolve import resolve_neurons
from jaxsnn.nir.frameworks.registry import build_options
from jaxsnn.nir.graphs.export import dense_document, tagged
from jaxsnn.nir.graphs.parse import parse
from jaxsnn.nir.initializers import Initializer, Seed, generator_of, kaiming_uniform
from jaxsnn.nir.io.documents import NIR_VERSION, group_of
from jaxsnn.nir.model.graph import Graph, refuse_no_graph
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
    "Edges",
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
    "with_dense_weights",
]

Size = int | Sequence[int]
Number = float | np.ndarray | Sequence[float]
Time = Number | str
Weights = Initializer | np.ndarray


@suggests_keywords
@summarised
@dataclasses.dataclass(frozen=True, eq=False)
class Edges:
    """Synapses of a sparse weight matrix, one entry of each array for each synapse. The same pair of
    neurons may have several synapses.

    Attributes:
        pre, post: Numbers of the presynaptic and of the postsynaptic neuron.
        weight: Weights.
        delay: Delays in seconds, or one for all, also as text such as "1.5ms"; None: no delay.
    """

    pre: np.ndarray
    post: np.ndarray
    weight: np.ndarray
    delay: Any = None

    @classmethod
    def of_matrix(cls, weight: Any, delay: Any = None) -> Edges:
        """Return the stored entries of a SciPy sparse matrix (outputs, inputs), zeros included.

        Args:
            weight: Weights.
            delay: Delays: one, or a sparse matrix with the same stored entries.

        Raises:
            UsageError: The delays are stored for other synapses than the weights.
        """
        columns = weight.tocsc(copy=True)
        columns.sum_duplicates()
        if hasattr(delay, "tocsc"):
            delays = delay.tocsc(copy=True)
            delays.sum_duplicates()
            same = columns.shape == delays.shape and all(
                np.array_equal(getattr(columns, key), getattr(delays, key))
                for key in ("indptr", "indices")
            )
            if not same:
                raise UsageError(
                    Text(
                        "the matrix of delays has shape {delay_shape} and {delays} stored entries, "
                        "that of the weights has shape {shape} and {weights}, or other places",
                        delay_shape=delays.shape,
                        delays=delays.nnz,
                        shape=columns.shape,
                        weights=columns.nnz,
                    ),
                    fix="store a delay for each stored weight, a delay of 0 too",
                )
            delay = delays.data
        pre = np.repeat(np.arange(columns.shape[1]), np.diff(columns.indptr))
        return cls(pre=pre, post=columns.indices, weight=columns.data, delay=delay)

    def parameters(self, name: str, shape: Shape) -> dict[str, np.ndarray]:
        """Return the parameters of a SparseLinear, synapses in the order of (pre, post).

        Args:
            name: Name of the node.
            shape: (outputs, inputs).

        Raises:
            GraphError: Columns of different lengths, or a neuron that does not exist.
        """
        pre, post, weight = map(np.asarray, (self.pre, self.post, self.weight))
        if weight.ndim == 0:
            weight = np.broadcast_to(weight, pre.shape)
        columns: dict[str, Any] = {"pre": pre, "post": post, "weight": weight}
        delay = parse_time(self.delay) if isinstance(self.delay, str) else self.delay
        if delay is not None:
            columns["delay"] = np.broadcast_to(delay, pre.shape) if np.ndim(delay) == 0 else delay
        for key, column in columns.items():
            if np.shape(column) != (len(pre),):
                raise GraphError(
                    Text(
                        "node '{node}': {parameter} of shape {actual} does not fit {expected}",
                        node=name,
                        parameter=key,
                        actual=np.shape(column),
                        expected=(len(pre),),
                    ),
                    fix="pass one entry for each synapse",
                    node=name,
                )
        for key, channels in (("pre", shape[1]), ("post", shape[0])):
            index = columns[key]
            if index.dtype.kind not in "iu" or (
                len(index) and not 0 <= index.min() <= index.max() < channels
            ):
                raise GraphError(
                    Text(
                        "node '{node}': {parameter} has the type {dtype} and is not between 0 and "
                        "{last}",
                        node=name,
                        parameter=key,
                        dtype=index.dtype,
                        last=channels - 1,
                    ),
                    fix="number neurons by integers from 0",
                    node=name,
                )
        order = order_of_pairs(pre, post)
        parameters = {
            "shape": np.array(shape),
            "source": pre[order].astype(np.int32),
            "target": post[order].astype(np.int32),
            "weight": weight[order],
        }
        if delay is not None:
            parameters["delay"] = np.asarray(columns["delay"], float)[order]
        return parameters


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
        inputs: Number of inputs of a sparse matrix; None: not known.
    """

    type: str
    size: Shape | None = None
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    weights: Mapping[str, Any] = dataclasses.field(default_factory=nothing)
    node_fields: Mapping[str, Value] | None = None
    without_unit: tuple[str, ...] = ()
    inputs: int | None = None

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
def linear(
    outputs: int | None = None, *, weight: Weights | Edges | Any = None, delay: Any = None
) -> Layer:
    """Return a weight matrix: an array (outputs, inputs), or drawn by an initialiser (default:
    kaiming_uniform), or sparse.

    Args:
        outputs: Number of outputs; not needed if the weights determine it.
        weight: Array, initialiser, SciPy sparse matrix (outputs, inputs), or `Edges`. The engines
            store only the entries of a sparse matrix.
        delay: Delay of each synapse of a SciPy matrix: one, or a sparse matrix with the same stored
            entries; seconds.

    Raises:
        UsageError: The number of outputs is unknown, or delays of dense weights.

    >>> synapses = Edges(pre=np.array([0, 1]), post=np.array([2, 0]), weight=np.array([1.0, 2.0]))
    >>> sequential(input(2), linear(3, weight=synapses), lif(tau="10ms")).nodes["1"].type
    'SparseLinear'
    """
    if hasattr(weight, "tocsc"):
        matrix: Any = weight
        outputs = matrix.shape[0] if outputs is None else outputs
        synapses = Edges.of_matrix(matrix, delay)
        return _matrix("SparseLinear", outputs, {"weight": synapses}, inputs=matrix.shape[1])
    if delay is not None:
        raise UsageError(
            "delay is the delay of each synapse of a SciPy sparse matrix, but the weights are not one",
            fix="pass Edges(..., delay=...), or jaxsnn.with_synaptic_delays for dense weights",
        )
    if isinstance(weight, Edges):
        return _matrix("SparseLinear", outputs, {"weight": weight})
    return _matrix("Linear", outputs, {"weight": kaiming_uniform() if weight is None else weight})


@suggests_keywords
def affine(
    outputs: int | None = None, *, weight: Weights | None = None, bias: Weights | float = 0.0
) -> Layer:
    """Return a weight matrix and a bias: arrays, or drawn by initialisers, the weights first.

    Raises:
        UsageError: The number of outputs is unknown, or the weights are sparse.
    """
    if isinstance(weight, Edges) or hasattr(weight, "tocsc"):
        raise UsageError(
            "an affine layer has dense weights, but these are sparse",
            fix="use linear, and v_leak of the neurons for the constant",
        )
    weights = {"weight": kaiming_uniform() if weight is None else weight}
    if callable(bias):
        return _matrix("Affine", outputs, {**weights, "bias": bias})
    return dataclasses.replace(_matrix("Affine", outputs, weights), parameters={"bias": bias})


def _matrix(
    kind: str,
    outputs: int | None,
    weights: Mapping[str, Any],
    *,
    inputs: int | None = None,
) -> Layer:
    weight = weights["weight"]
    if not callable(weight) and not isinstance(weight, Edges):
        outputs = np.shape(weight)[0] if outputs is None else outputs
    if outputs is None:
        raise UsageError(
            Text("a {type} layer has no number of outputs", type=kind),
            fix="pass it, or an array of weights",
        )
    return Layer(type=kind, size=(outputs,), weights=weights, inputs=inputs)


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
        if isinstance(weight, Edges):
            if len(array_shape) != 2 or layer.inputs not in (None, array_shape[1]):
                raise GraphError(
                    Text(
                        "node '{node}': {parameter} of shape {actual} does not fit {expected}",
                        node=name,
                        parameter=key,
                        actual=(*shape, layer.inputs),
                        expected=array_shape,
                    ),
                    fix="weights are (outputs, inputs), and a sparse matrix has one axis of inputs",
                    node=name,
                )
            entry |= weight.parameters(name, array_shape)
            continue
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


@suggests_keywords
def with_dense_weights(graph: Graph) -> Graph:
    """Return the graph with a Linear in place of each SparseLinear, for programs that read NIR only.

    Raises:
        GraphError: A matrix would be larger than 2**28 entries, or synapses have delays.

    >>> synapses = Edges(pre=np.array([0, 1]), post=np.array([2, 0]), weight=np.array([1.0, 2.0]))
    >>> graph = sequential(input(2), linear(3, weight=synapses), lif(tau="10ms"))
    >>> with_dense_weights(graph).nodes["1"].weight
    array([[0., 2.],
           [0., 0.],
           [1., 0.]])
    """
    refuse_no_graph(graph)
    return parse(dense_document(graph), dialect=graph.dialect)


def __dir__() -> list[str]:
    return __all__
