"""Graphs without a file: layers in a row, or nodes with named edges.

Time constants are in seconds (text such as "10ms" too) and the dialect is this library's own, unless another is said.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsnn.errors import GraphError, UsageError
from jaxsnn.nir.export import group_of, tagged
from jaxsnn.nir.graph import Graph
from jaxsnn.nir.initializers import Initializer, kaiming_uniform
from jaxsnn.nir.nodes import IF, LI, LIF, Affine, CubaLI, CubaLIF, I, Input, Linear, Node, Output, Scale, freeze
from jaxsnn.nir.parse import parse
from jaxsnn.nir.passes import Shape, own_shape, transfer
from jaxsnn.units import parse_time

#: The version of NIR whose format is written.
NIR_VERSION = "1.0.8"

Size = int | Sequence[int]
Number = float | np.ndarray | Sequence[float]
Weights = Initializer | np.ndarray


def linear(
    inputs: int, outputs: int, *, weight: Weights | None = None, seed: int | np.random.Generator | None = None
) -> Linear:
    """A weight matrix. `weight` is an array or an initialiser, which needs a seed or a generator.

    >>> linear(5, 120, seed=0).value("weight").shape
    (120, 5)
    """
    return Linear(name="", weight=_drawn(kaiming_uniform() if weight is None else weight, (outputs, inputs), seed))


def affine(
    inputs: int,
    outputs: int,
    *,
    weight: Weights | None = None,
    bias: Weights | None = None,
    seed: int | np.random.Generator | None = None,
) -> Affine:
    """A weight matrix and a bias, 0 if not said. One generator draws first the weights, then the bias."""
    rng = None if seed is None else np.random.default_rng(seed)
    drawn = _drawn(kaiming_uniform() if weight is None else weight, (outputs, inputs), rng)
    offset = freeze(np.zeros(outputs)) if bias is None else _drawn(bias, (outputs,), rng)
    return Affine(name="", weight=drawn, bias=offset)


def _drawn(weight: Weights, shape: tuple[int, ...], seed: int | np.random.Generator | None) -> np.ndarray:
    if callable(weight):
        if seed is None:
            raise UsageError("random weights need a seed: pass seed=0, or a numpy generator, or an array of weights")
        return freeze(weight(np.random.default_rng(seed), shape))
    if np.shape(weight) != shape:
        raise GraphError(f"a weight or bias of shape {np.shape(weight)} does not fit {shape}: (outputs, inputs)")
    return freeze(weight)


def scale(value: Number) -> Scale:
    """Multiplies each element by its own factor."""
    return Scale(name="", scale=freeze(value))


def cubalif(
    size: Size,
    *,
    tau_mem: Number | str,
    tau_syn: Number | str,
    v_threshold: Number = 1.0,
    v_leak: Number = 0.0,
    v_reset: Number = 0.0,
    r: Number = 1.0,
    w_in: Number = 1.0,
) -> CubaLIF:
    """Current-based leaky integrate-and-fire neurons. Each parameter is one number or one for each neuron."""
    given = {"v_threshold": v_threshold, "v_leak": v_leak, "v_reset": v_reset, "r": r, "w_in": w_in}
    return CubaLIF(name="", **_parameters(size, {"tau_mem": tau_mem, "tau_syn": tau_syn}, given))


def cubali(
    size: Size,
    *,
    tau_mem: Number | str,
    tau_syn: Number | str,
    v_leak: Number = 0.0,
    r: Number = 1.0,
    w_in: Number = 1.0,
) -> CubaLI:
    """Current-based leaky integrators."""
    given = {"v_leak": v_leak, "r": r, "w_in": w_in}
    return CubaLI(name="", **_parameters(size, {"tau_mem": tau_mem, "tau_syn": tau_syn}, given))


def lif(
    size: Size,
    *,
    tau: Number | str,
    v_threshold: Number = 1.0,
    v_leak: Number = 0.0,
    v_reset: Number = 0.0,
    r: Number = 1.0,
) -> LIF:
    """Leaky integrate-and-fire neurons."""
    given = {"v_threshold": v_threshold, "v_leak": v_leak, "v_reset": v_reset, "r": r}
    return LIF(name="", **_parameters(size, {"tau": tau}, given))


def li(size: Size, *, tau: Number | str, v_leak: Number = 0.0, r: Number = 1.0) -> LI:
    """Leaky integrators."""
    return LI(name="", **_parameters(size, {"tau": tau}, {"v_leak": v_leak, "r": r}))


def integrate_and_fire(size: Size, *, v_threshold: Number = 1.0, v_reset: Number = 0.0, r: Number = 1.0) -> IF:
    """Integrate-and-fire neurons (IF); r is per second."""
    return IF(name="", **_parameters(size, {}, {"v_threshold": v_threshold, "v_reset": v_reset, "r": r}))


def integrator(size: Size, *, r: Number = 1.0) -> I:
    """Integrators (I); r is per second."""
    return I(name="", **_parameters(size, {}, {"r": r}))


def _parameters(size: Size, times: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    shape = (size,) if isinstance(size, int) else tuple(size)
    found = {name: parse_time(value) if isinstance(value, str) else value for name, value in times.items()}
    parameters = {}
    for name, value in (found | dict(given)).items():
        array = np.asarray(value, float)
        if array.shape not in ((), shape):
            raise GraphError(f"{name} of shape {array.shape} does not fit {shape}: pass one number or one per neuron")
        parameters[name] = freeze(np.broadcast_to(array, shape))
    return parameters


def inputs(size: Size) -> Input:
    """Where data enters."""
    return Input(name="", shape=freeze(np.atleast_1d(size)))


def outputs(size: Size) -> Output:
    """Where data leaves."""
    return Output(name="", shape=freeze(np.atleast_1d(size)))


def sequential(*layers: Node, dialect: str = "jaxsnn", **options: Any) -> Graph:
    """Layers in a row, named "0", "1", ... between "input" and "output".

    Args:
        layers: Made with the functions of this module, or records of `jaxsnn.nir.nodes`.
        dialect: How the numbers are meant; options are those of `jaxsnn.nir.read`.

    >>> from jaxsnn.nir.initializers import normal
    >>> net = sequential(
    ...     linear(5, 120, weight=normal(3.0, 1.6), seed=0),
    ...     cubalif(120, tau_mem="10ms", tau_syn="5ms"),
    ...     linear(120, 3, weight=normal(1.5, 1.5), seed=1),
    ...     cubalif(3, tau_mem="10ms", tau_syn="5ms"),
    ... )
    >>> net.order(), net.dialect.name, net.dialect.time_unit
    (('input', '0', '1', '2', '3', 'output'), 'jaxsnn', 's')
    """
    if not layers:
        raise UsageError("a network needs at least one layer: sequential(linear(...), cubalif(...))")
    first = own_shape(layers[0])
    if first is None:
        raise UsageError(
            f"the first layer, a {layers[0].type}, does not say its size: use network(...) with inputs(...)"
        )
    shape: Shape | None = first
    for number, layer in enumerate(layers):
        given, shape = shape, transfer(layer, own_shape(layer) or shape or ())
        if shape is None:
            raise GraphError(f"layer {number}, a {layer.type}, cannot take the shape {given}: correct its size")
    nodes = {str(number): layer for number, layer in enumerate(layers)}
    chain = ("input", *nodes, "output")
    return network({"input": inputs(first), **nodes, "output": outputs(shape)}, [chain], dialect=dialect, **options)


def network(
    nodes: Mapping[str, Node], chains: Iterable[Sequence[str]], *, dialect: str = "jaxsnn", **options: Any
) -> Graph:
    """Named nodes and the edges between them.

    Args:
        nodes: Layers by name, `inputs` and `outputs` included.
        chains: Names in the order of the signal; ("a", "b", "c") are the edges a -> b and b -> c.
        dialect: How the numbers are meant; options are those of `jaxsnn.nir.read`.

    Raises:
        GraphError: Shapes that do not match, or an edge to a node that does not exist.

    >>> net = network(
    ...     {
    ...         "input": inputs(2),
    ...         "w": linear(2, 4, seed=0),
    ...         "hidden": cubalif(4, tau_mem=0.02, tau_syn=0.01),
    ...         "w_rec": linear(4, 4, seed=1),
    ...         "output": outputs(4),
    ...     },
    ...     [("input", "w", "hidden", "output"), ("hidden", "w_rec", "hidden")],
    ... )
    >>> net.recurrent_components()
    (('hidden', 'w_rec'),)
    """
    edges = [edge for chain in chains for edge in itertools.pairwise(chain)]
    tree = {
        "type": "NIRGraph",
        "nodes": {name: {"type": node.type, **node.parameters} for name, node in nodes.items()},
        "edges": edges,
    }
    if dialect == "jaxsnn":
        options.setdefault("time_unit", "s")
    return tagged(parse(group_of(tree, NIR_VERSION), dialect=dialect, **options))
