"""The values of a table of layers (see `layer_tables`): of the right kind, and within limits.

A configuration file may come by mail, as a NIR file may: nothing is made of it before all of its
values were looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from jaxsnn.errors import UsageError
from jaxsnn.nir.io.read_limits import LIMIT_VARIABLE, read_limits

#: Neurons, channels or inputs of one layer, and layers: far more than anybody trains.
MAX_NEURONS, MAX_LAYERS = 10_000_000, 100
#: One of these says what a layer is.
_KINDS = ("neurons", "channels", "pool")
_MOST_AXES = 3


def refuse_network_values(table: Mapping[str, Any]) -> None:
    """Refuse what the table of a network says beside its layers.

    Raises:
        UsageError: names the key, its value and the limit.
    """
    if "input" in table:
        _size(table["input"], "network: input")
    for name in ("tau_mem", "tau_syn"):
        if name in table:
            _time(table[name], f"network: {name}")
    layers = table.get("layers", [{}])
    if not isinstance(layers, list) or not all(isinstance(layer, Mapping) for layer in layers):
        raise UsageError(
            f"network: layers is {_shown(layers)}", fix="give a list of tables, one for each layer"
        )
    if not 0 < len(layers) <= MAX_LAYERS:
        raise UsageError(
            f"network: layers has {len(layers)} tables", fix=f"give from 1 to {MAX_LAYERS}"
        )


def refuse_layer_values(layer: Mapping[str, Any], location: str) -> None:
    """Refuse what the table of one layer says; `location` is what messages call it.

    Raises:
        UsageError: names the key, its value and the limit.
    """
    for name, value in layer.items():
        _CHECKS[name](value, f"{location}: {name}")
    kinds = [name for name in _KINDS if name in layer]
    if len(kinds) > 1:
        raise UsageError(f"{location} has {' and '.join(kinds)}", fix="write one of them")
    if "bias" in layer and "pool" in layer:
        raise UsageError(f"{location} is a pool and has a bias", fix="leave it out")
    if "neuron" in layer and ("pool" in layer or layer.get("readout")):
        second_kind = "pool" if "pool" in layer else "readout"
        raise UsageError(f"{location} has neuron and {second_kind}", fix="write one of them")
    if "feedback" in layer and "neurons" not in layer:
        raise UsageError(
            f"{location} has feedback and no neurons",
            fix="leave it out: only neurons that are connected all to all have feedback",
        )


def shape_behind(
    layer: Mapping[str, Any], shape: tuple[int, ...], location: str
) -> tuple[int, ...]:
    """The shape of what leaves a layer that is fed with a shape, before there is room made for it.

    What cannot take that shape is refused where the network is built.

    Raises:
        UsageError: it has too many neurons.
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
            f"{location} has {math.prod(output_shape)} neurons, of shape {output_shape}",
            fix=f"make it smaller, a layer may have {MAX_NEURONS}",
        )
    return output_shape


def refuse_large_weights(shape: tuple[int, ...], entry_name: str) -> None:
    """Refuse an array before it is drawn, if it would be larger than a file may be.

    Raises:
        UsageError: names its bytes and the limit, which is that of files that are read.
    """
    size, allowed = math.prod(shape) * 8, read_limits().max_bytes
    if size > allowed:
        raise UsageError(
            f"{entry_name} of shape {shape} has {size} bytes, and {allowed} are allowed",
            fix=f"make the layers smaller, or set {LIMIT_VARIABLE}",
        )


def _shown(value: Any) -> str:
    """A value as a message has it, however long it is."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**30 else "a number too long"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_NEURONS


def _whole(least: int) -> Callable[[Any, str], None]:
    def check(value: Any, entry_name: str) -> None:
        if not _is_whole(value, least):
            raise UsageError(
                f"{entry_name} is {_shown(value)}",
                fix=f"give a whole number from {least} to {MAX_NEURONS}",
            )

    return check


def _size(value: Any, entry_name: str) -> None:
    """A number of inputs, or a shape."""
    axes = value if isinstance(value, list) else [value]
    axes_are_valid = 0 < len(axes) <= _MOST_AXES and all(_is_whole(axis, 1) for axis in axes)
    if not axes_are_valid or math.prod(axes) > MAX_NEURONS:
        raise UsageError(
            f"{entry_name} is {_shown(value)}",
            fix=f"give a whole number from 1 to {MAX_NEURONS}, or [planes, rows, columns] of"
            " no more inputs",
        )


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= 1e30  # neither infinite nor not-a-number


def _time(value: Any, entry_name: str) -> None:
    if not isinstance(value, str) and not (_is_number(value) and value > 0):
        raise UsageError(
            f"{entry_name} is {_shown(value)}", fix='give a time with its unit, as "10ms"'
        )


def _truth(value: Any, entry_name: str) -> None:
    if not isinstance(value, bool):
        raise UsageError(f"{entry_name} is {_shown(value)}", fix="give true or false")


def _weights(value: Any, entry_name: str) -> None:
    """[mean, standard deviation], or [inputs, mean, standard deviation] for each part of them."""
    parts = value if isinstance(value, list) else []
    if parts and all(isinstance(part, list) for part in parts):
        fits = all(
            len(part) == 3 and _is_whole(part[0], 1) and _drawable(part[1:]) for part in parts
        )
    else:
        fits = len(parts) == 2 and _drawable(parts)
    if not fits:
        raise UsageError(
            f"{entry_name} is {_shown(value)}",
            fix="give [mean, standard deviation], or for some inputs after the others"
            " [[inputs, mean, deviation], ...]; a deviation is not negative",
        )


def _bias(value: Any, entry_name: str) -> None:
    """[mean, standard deviation]."""
    if not (isinstance(value, list) and len(value) == 2 and _drawable(value)):
        raise UsageError(
            f"{entry_name} is {_shown(value)}",
            fix="give [mean, standard deviation]; a deviation is not negative",
        )


def _neuron(value: Any, entry_name: str) -> None:
    """A table with the type of neuron, and its parameters: numbers, or texts that are times."""
    fits = isinstance(value, Mapping) and isinstance(value.get("type"), str)
    if not fits or not all(
        isinstance(parameter, str) or _is_number(parameter) for parameter in value.values()
    ):
        raise UsageError(
            f"{entry_name} is {_shown(value)}",
            fix='give its type and parameters, as { type = "LIF", v-threshold = 1.0, ... }',
        )


def _drawable(pair: list[Any]) -> bool:
    # NumPy draws with no deviation of -0.0 either
    return all(map(_is_number, pair)) and math.copysign(1.0, pair[1]) > 0


#: What looks at the value of each key of a layer.
_CHECKS: dict[str, Callable[[Any, str], None]] = {
    **dict.fromkeys(("neurons", "channels", "kernel", "stride", "pool"), _whole(1)),
    "padding": _whole(0),
    **dict.fromkeys(("weight", "feedback"), _weights),
    "bias": _bias,
    "neuron": _neuron,
    "readout": _truth,
    **dict.fromkeys(("tau_mem", "tau_syn"), _time),
}
#: What a layer may say.
LAYER = tuple(_CHECKS)
