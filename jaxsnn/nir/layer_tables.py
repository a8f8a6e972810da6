"""A network as a table, as the configuration file of a training run has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsnn.errors import UsageError, listing, suggestion
from jaxsnn.keywords import with_underscores
from jaxsnn.nir import build
from jaxsnn.nir.build import Layer
from jaxsnn.nir.initializers import Initializer, Seed, generator_of, normal, seed_words
from jaxsnn.nir.model.graph import Graph
from jaxsnn.nir.model.layer_values import (
    LAYER,
    refuse_large_weights,
    refuse_layer_values,
    refuse_network_values,
    shape_behind,
)
from jaxsnn.nir.model.nodes import class_of
from jaxsnn.wording import Text

#: Allowed entries of the table; `LAYER` has those of each layer.
NETWORK = ("input", "layers", "tau_mem", "tau_syn")


def graph_of_table(table: Mapping[str, Any], seed: Seed = 0) -> Graph:
    """Build a network of CubaLIF neurons, layer by layer.

    Nodes are named by their layer, from 1 on: the weights "w1", neurons "1", feedback "r1", a pool
    "p1".

    Args:
        table: `input`, a number or a shape; the times `tau_mem` and `tau_syn`; and `layers`, a list
            of tables. A layer is dense (`neurons` = N), a convolution (`channels` = N with
            `kernel`, `stride` and `padding`) or a pool (`pool` = N, which sums N x N inputs). Its
            further entries: `weight` = [mean, standard deviation], or [[inputs, mean, deviation],
            ...] for consecutive parts of the inputs; `bias` = [mean, standard deviation] of a
            constant current; `feedback`, like `weight`, between the neurons of the layer;
            `readout` = true for neurons that do not fire; `tau_mem` and `tau_syn` of the layer; and
            `neuron` = a table with the `type` of its neurons, built in or registered, and their
            parameters.
        seed: random seed of the weights.

    Raises:
        UsageError: an unknown name, a missing or invalid value, or a network larger than
            `layer_values.MAX_NEURONS` and `MAX_LAYERS` allow.

    >>> layers = [{"neurons": 4, "weight": [0.5, 0.1]}, {"neurons": 2, "weight": [1.0, 0.2]}]
    >>> graph_of_table({"input": 3, "tau_mem": "20ms", "tau_syn": "10ms", "layers": layers}).order()
    ('input', 'w1', '1', 'w2', '2', 'output')
    """
    table = _normalised_keys(table, NETWORK, "network")
    refuse_network_values(table)
    size: Any = _needed(table, "input", "network")
    shape = (size,) if isinstance(size, int) else tuple(size)
    planes = None if isinstance(size, int) else size[0]  # of the input; None if it is flat
    nodes = {"input": build.input(shape)}
    chain, loops = ["input"], []
    times = {name: table[name] for name in ("tau_mem", "tau_syn") if name in table}
    for number, layer_entry in enumerate(_needed(table, "layers", "network"), 1):
        location = f"network, layer {number}"
        layer_fields = _normalised_keys(layer_entry, LAYER, location)
        layer = times | layer_fields
        refuse_layer_values(layer, location)
        if "neuron" in layer:
            layer["neuron"] = _of_a_type(layer["neuron"], times, layer_fields, location)
        shape = shape_behind(layer, shape, location)
        place = _Place(where=location, number=number, planes=planes, seed=seed)
        inward = _nodes(place, layer)
        nodes |= inward
        chain += inward
        if "feedback" in layer:
            nodes[f"r{number}"] = build.linear(
                layer["neurons"], weight=_drawn(layer, "feedback", location)
            )
            loops.append((str(number), f"r{number}", str(number)))
        planes = None if "neurons" in layer else layer.get("channels", planes)
    nodes["output"] = build.output()
    return build.network(nodes, [(*chain, "output"), *loops], seed=seed)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Location of a layer in the table and the network.

    Attributes:
        where: location for messages.
        number: number of the layer, from 1.
        planes: number of input planes; None for flat input.
        seed: seed of the network.
    """

    where: str
    number: int
    planes: int | None
    seed: Seed


def _nodes(place: _Place, layer: Mapping[str, Any]) -> dict[str, Layer]:
    """Build the nodes of a layer in the order of the signal."""
    number, location = place.number, place.where
    if "pool" in layer:
        side = np.array([layer["pool"], layer["pool"]])
        pool = build.node("SumPool2d", kernel_size=side, stride=side, padding=np.zeros(2, int))
        return {f"p{number}": pool}
    neurons = _neurons(layer, location)
    if "channels" in layer:
        return {f"w{number}": _convolution(place, layer), str(number): neurons}
    flatten = {f"f{number}": build.node("Flatten", start_dim=0, end_dim=-1)}
    outputs = _needed(layer, "neurons", location)
    weight = _drawn(layer, "weight", location)
    inward = build.linear(outputs, weight=weight)
    if "bias" in layer:
        inward = build.affine(outputs, weight=weight, bias=normal(*map(float, layer["bias"])))
    before = {} if place.planes is None else flatten
    return before | {f"w{number}": inward, str(number): neurons}


def _neurons(layer: Mapping[str, Any], location: str) -> Layer:
    """Build the neurons of a layer, CubaLIF or CubaLI if no type is specified."""
    if "neuron" in layer:
        return layer["neuron"]
    times = {name: _needed(layer, name, location) for name in ("tau_mem", "tau_syn")}
    return (build.cubali if layer.get("readout") else build.cubalif)(**times)


def _of_a_type(
    table: Mapping[str, Any],
    times: Mapping[str, Any],
    layer_fields: Mapping[str, Any],
    location: str,
) -> Layer:
    """Build neurons of the type that their table specifies.

    Args:
        table: `type` and parameters of the neurons.
        times: time constants of the network, for types that have such time constants.
        layer_fields: entries of the layer.
        location: name of the layer in messages.
    """
    neuron_fields = {name.replace("-", "_"): value for name, value in table.items()}
    kind = neuron_fields.pop("type")
    traits = class_of(kind).traits
    if not traits.state:
        raise UsageError(
            Text("{location}: a {type} is not a neuron", location=location, type=kind),
            fix="write a type of neuron",
        )
    of_layer = {name: layer_fields[name] for name in ("tau_mem", "tau_syn") if name in layer_fields}
    if len(neuron_fields) + 1 < len(table) or of_layer.keys() & neuron_fields.keys():
        raise UsageError(
            Text("{location}: a parameter of its neurons occurs twice", location=location),
            fix="write it once",
        )
    values = {name: time for name, time in times.items() if name in traits.names}
    values |= of_layer | neuron_fields
    for name, value in values.items():
        parameter = traits.parameter(name)
        if parameter is None:
            raise UsageError(
                Text(
                    "{location}: a {type} has no parameter '{parameter}'",
                    location=location,
                    type=kind,
                    parameter=name,
                ),
                fix=suggestion(name, traits.names),
            )
        if isinstance(value, str) and not parameter.time and value not in parameter.texts:
            raise UsageError(
                Text(
                    "{location}: {parameter} of its neurons is '{value}'",
                    location=location,
                    parameter=name,
                    value=value,
                ),
                fix="write a number",
            )
    needed = [parameter.name for parameter in traits.parameters if not parameter.optional]
    lacking = [name for name in needed if name not in values]
    if lacking:
        raise UsageError(
            Text(
                "{location}: a {type} also needs {parameters}",
                location=location,
                type=kind,
                parameters=listing(lacking),
            ),
            fix="write them in neuron = { ... }",
        )
    return build.node(kind, **values)


def _convolution(place: _Place, layer: Mapping[str, Any]) -> Layer:
    if place.planes is None:
        raise UsageError(
            Text("{location} is a convolution, and its input is flat", location=place.where),
            fix="write input = [planes, rows, columns], and convolutions before other layers",
        )
    side, channels = _needed(layer, "kernel", place.where), layer["channels"]
    generator = generator_of([*seed_words(place.seed), place.number])
    shape = (channels, place.planes, side, side)
    return build.node(
        "Conv2d",
        weight=_drawn(layer, "weight", place.where)(generator, shape),
        bias=normal(*map(float, layer.get("bias", (0.0, 0.0))))(generator, (channels,)),
        stride=layer.get("stride", 1),
        padding=layer.get("padding", 0),
        dilation=1,
        groups=1,
    )


def _drawn(layer: Mapping[str, Any], name: str, location: str) -> Initializer:
    value, entry_name = _needed(layer, name, location), f"{location}: {name}"
    draw = (
        _in_columns(value, entry_name) if isinstance(value[0], list) else normal(*map(float, value))
    )

    def drawn(source: Any, shape: tuple[int, ...]) -> np.ndarray:
        refuse_large_weights(shape, entry_name)
        return draw(source, shape)

    return drawn


def _in_columns(parts: list[list[Any]], entry_name: str) -> Initializer:
    """Return an initialiser of weights (outputs, inputs) that draws each group of inputs by its own
    initialiser.
    """

    def drawn(source: Any, shape: tuple[int, ...]) -> np.ndarray:
        if (inputs := sum(part[0] for part in parts)) != shape[1]:
            fix = f"make it {shape[1]}"
            raise UsageError(
                Text(
                    "{entry} is for {expected} inputs, and there are {actual}",
                    entry=entry_name,
                    expected=inputs,
                    actual=shape[1],
                ),
                fix=fix,
            )
        generator = generator_of(source)
        columns = [generator.normal(mean, std, (shape[0], count)) for count, mean, std in parts]
        return np.concatenate(columns, axis=1)

    return drawn


def _normalised_keys(
    table: Mapping[str, Any], known_names: tuple[str, ...], location: str
) -> dict[str, Any]:
    """Return a table with "_" in its keys; refuse unknown and repeated keys."""
    if not isinstance(table, Mapping):
        raise UsageError(
            Text("{location} is not a table", location=location),
            fix=f"write [{location}] above its lines",
        )
    entries = with_underscores(table, location)
    for name in entries:
        if name not in known_names:
            raise UsageError(
                Text("{location}: there is no '{entry}'", location=location, entry=name),
                fix=suggestion(name, known_names),
            )
    return entries


def _needed(table: Mapping[str, Any], name: str, location: str) -> Any:
    if name not in table:
        raise UsageError(
            Text("{location} has no {entry}", location=location, entry=name),
            fix=f"write {name} = ...",
        )
    return table[name]
