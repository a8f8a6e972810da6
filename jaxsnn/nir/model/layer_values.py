"""Checks of the values in a table of layers (see `layer_tables`): their types and their limits.

A configuration file may come from an untrusted source, like a NIR file: all of its values are checked
before anything is created from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from jaxsnn.errors import UsageError
from jaxsnn.files.read_limits import LIMIT_VARIABLE, read_limits
from jaxsnn.wording import Text

#: Maximum number of neurons, channels or inputs of a layer, and of layers: far more than anybody
#: trains.
MAX_NEURONS, MAX_LAYERS = 10_000_000, 100
#: Entries that specify the kind of a layer; it has exactly one of them.
_KINDS = ("neurons", "channels", "pool")
_MOST_AXES = 3


def refuse_network_values(table: Mapping[str, Any]) -> None:
    """Refuse invalid values of the table of a network, beside its layers.

    Raises:
        UsageError: A value is invalid; the message contains key, value and limit.
    """
    for name in _NETWORK:
        if name in table:
            _refuse_value(name, table[name], "network", _NETWORK)
    layers = table.get("layers", [{}])
    if not isinstance(layers, list) or not all(isinstance(layer, Mapping) for layer in layers):
        raise UsageError(
            Text("network: layers is {value}", value=_shown(layers)),
            fix="specify a list of tables, one per layer",
        )
    if not 0 < len(layers) <= MAX_LAYERS:
        raise UsageError(
            Text("network: layers has {count} tables", count=len(layers)),
            fix=f"specify 1 to {MAX_LAYERS} layers",
        )


def refuse_layer_values(layer: Mapping[str, Any], location: str) -> None:
    """Refuse invalid values of the table of one layer; `location` is its name in messages.

    Raises:
        UsageError: A value is invalid; the message contains key, value and limit.
    """
    for name, value in layer.items():
        _refuse_value(name, value, location, _LAYER)
    kinds = [name for name in _KINDS if name in layer]
    if len(kinds) > 1:
        raise UsageError(
            Text("{location} has {kinds}", location=location, kinds=" and ".join(kinds)),
            fix="specify only one of them",
        )
    if "bias" in layer and "pool" in layer:
        raise UsageError(
            Text("{location} is a pool and cannot have a bias", location=location),
            fix="remove the bias",
        )
    if "neuron" in layer and ("pool" in layer or layer.get("readout")):
        second_kind = "pool" if "pool" in layer else "readout"
        raise UsageError(
            Text("{location} has both neuron and {kind}", location=location, kind=second_kind),
            fix="specify only one of them",
        )
    if "feedback" in layer and "neurons" not in layer:
        raise UsageError(
            Text("{location} has feedback but no neurons", location=location),
            fix="remove it: only fully connected layers support feedback",
        )


def _refuse_value(
    name: str,
    value: Any,
    location: str,
    expected: Mapping[str, tuple[Callable[[Any], bool], str]],
) -> None:
    fits, fix = expected[name]
    if not fits(value):
        text = Text(
            "{location}: {entry} is {value}", location=location, entry=name, value=_shown(value)
        )
        raise UsageError(text, fix=fix)


def shape_behind(
    layer: Mapping[str, Any], shape: tuple[int, ...], location: str
) -> tuple[int, ...]:
    """Return the output shape of a layer for an input shape, before any memory is allocated.

    Incompatible layers are refused when the network is built.

    Raises:
        UsageError: The layer has too many neurons.
    """
    planes, *sides = shape
    if "neurons" in layer:
        output_shape = (layer["neurons"],)
    elif "pool" in layer:
        output_shape = (planes, *(side // layer["pool"] for side in sides))
    else:
        kernel, stride = layer.get("kernel", 1), layer.get("stride", 1)
        padded = [side + 2 * layer.get("padding", 0) for side in sides]
        output_shape = (
            layer.get("channels", planes),
            *((side - kernel) // stride + 1 for side in padded),
        )
    if math.prod(output_shape) > MAX_NEURONS:
        raise UsageError(
            Text(
                "{location} has {count} neurons (shape {shape}), more than the limit",
                location=location,
                count=math.prod(output_shape),
                shape=output_shape,
            ),
            fix=f"use at most {MAX_NEURONS} neurons per layer",
        )
    return output_shape


def refuse_large_weights(shape: tuple[int, ...], entry_name: str) -> None:
    """Reject an array before it is sampled if it would exceed the size limit of files.

    Raises:
        UsageError: The array exceeds the limit for files that are read; the message contains both.
    """
    size, allowed = math.prod(shape) * 8, read_limits().max_bytes
    if size > allowed:
        raise UsageError(
            Text(
                "{entry} of shape {shape} has {size} bytes, more than the limit of {limit} bytes",
                entry=entry_name,
                shape=shape,
                size=size,
                limit=allowed,
            ),
            fix=f"use smaller layers, or set {LIMIT_VARIABLE}",
        )


def _shown(value: Any) -> str:
    """Return a value for messages, shortened if it is long."""
    text = (
        repr(value)
        if not isinstance(value, int) or abs(value) < 10**30
        else "a number with more than 30 digits"
    )
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_integer(value: Any, minimum: int) -> bool:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return is_integer and minimum <= value <= MAX_NEURONS


def _is_size(value: Any) -> bool:
    """Return whether a value is a valid number of inputs, or a valid shape."""
    axes = value if isinstance(value, list) else [value]
    if not 0 < len(axes) <= _MOST_AXES or not all(_is_integer(axis, 1) for axis in axes):
        return False
    return math.prod(axes) <= MAX_NEURONS


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= 1e30  # neither infinite nor NaN


def _is_distribution(value: Any) -> bool:
    """Return whether a value is [mean, standard deviation]."""
    if not (isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))):
        return False
    return math.copysign(1.0, value[1]) > 0  # NumPy also refuses a deviation of -0.0


def _are_weights(value: Any) -> bool:
    """Return whether a value is a distribution, or [inputs, mean, standard deviation] for each part
    of the inputs.
    """
    if isinstance(value, list) and value and all(isinstance(part, list) for part in value):
        return all(
            len(part) == 3 and _is_integer(part[0], 1) and _is_distribution(part[1:])
            for part in value
        )
    return _is_distribution(value)


def _is_neuron(value: Any) -> bool:
    """Return whether a value is a table with the type of neuron, and its parameters: numbers, or
    texts that are times.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
        return False
    return all(isinstance(parameter, str) or _is_number(parameter) for parameter in value.values())


_POSITIVE = (lambda value: _is_integer(value, 1), f"specify an integer from 1 to {MAX_NEURONS}")
_WEIGHTS = (
    _are_weights,
    "specify [mean, standard deviation], or one entry per group of inputs, [[inputs, "
    "mean, standard deviation], ...]; a deviation must not be negative",
)
_TIME = (
    lambda value: isinstance(value, str) or (_is_number(value) and value > 0),
    'specify a time with its unit, such as "10ms"',
)
#: Check of each value of a network, and the advice for values that fail it.
_NETWORK: dict[str, tuple[Callable[[Any], bool], str]] = {
    "input": (
        _is_size,
        f"specify an integer from 1 to {MAX_NEURONS}, or [planes, rows, columns] with at most "
        "as many inputs",
    ),
    **dict.fromkeys(("tau_mem", "tau_syn"), _TIME),
}
#: Check of each value of a layer, and the advice.
_LAYER: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("neurons", "channels", "kernel", "stride", "pool"), _POSITIVE),
    "padding": (lambda value: _is_integer(value, 0), f"specify an integer from 0 to {MAX_NEURONS}"),
    **dict.fromkeys(("weight", "feedback"), _WEIGHTS),
    "bias": (
        _is_distribution,
        "specify [mean, standard deviation]; the deviation must not be negative",
    ),
    "neuron": (
        _is_neuron,
        'specify type and parameters, such as { type = "LIF", v-threshold = 1.0, ... }',
    ),
    "readout": (lambda value: isinstance(value, bool), "specify true or false"),
    **dict.fromkeys(("tau_mem", "tau_syn"), _TIME),
}
#: Allowed entries of a layer.
LAYER = tuple(_LAYER)
