"""Minimal failures: a network and an input that fail are reduced as long as they fail for the same reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from jaxsnn.conformance.adapter import Adapter
from jaxsnn.conformance.cells import Role
from jaxsnn.conformance.checking import check_network
from jaxsnn.conformance.comparison import Answer, confirm
from jaxsnn.conformance.networks import NetworkLayer, NetworkSpec

#: Largest number of runs of the framework for one failure.
MAX_RUNS = 150
#: Number of runs that count for a run that does not return in time.
_TIMEOUT_RUNS = 50

#: A network with an input (time, batch, *shape).
Case = tuple[NetworkSpec, np.ndarray]


def shrink(
    adapter: Adapter,
    role: Role,
    network: NetworkSpec,
    x: np.ndarray,
    answer: Answer,
    *,
    max_runs: int = MAX_RUNS,
) -> tuple[NetworkSpec, np.ndarray, Answer]:
    """Return the smallest network and input that are reached, and their answer.

    Args:
        adapter: access to the framework.
        role: role of the cell.
        network: a network with the verdict "wrong" or "crash".
        x: its input (time, batch, *shape).
        answer: the answer for it.
        max_runs: largest number of runs of the framework.
    """
    is_wrong = answer.verdict == "wrong"
    judge = partial(confirm, answer.diagnosis) if is_wrong else lambda *_: Answer(verdict="pass")
    runs = 0
    is_reduced = True
    while is_reduced:
        is_reduced = False
        for reductions in _REDUCTIONS:
            # A reduction that succeeds is tried again on its result.
            candidates = reductions(network, x)
            while (candidate := next(candidates, None)) is not None and runs < max_runs:
                reduced = check_network(adapter, role, *candidate, judge)
                runs += _TIMEOUT_RUNS if "TimeoutError" in reduced.reason else 1
                if reduced.verdict == answer.verdict and reduced.cause == answer.cause:
                    (network, x), answer = candidate, reduced
                    candidates = reductions(network, x)
                    is_reduced = True
    return network, x, answer


def _fewer_samples(network: NetworkSpec, x: np.ndarray) -> Iterator[Case]:
    if x.shape[1] > 1:
        for sample in range(x.shape[1]):
            yield network, x[:, sample : sample + 1]


def _fewer_steps(network: NetworkSpec, x: np.ndarray) -> Iterator[Case]:
    steps = len(x)
    for length in sorted({1, steps // 4, steps // 2, steps * 3 // 4, steps - 1} - {0, steps}):
        yield network, x[:length]


def _fewer_connections(network: NetworkSpec, x: np.ndarray) -> Iterator[Case]:
    for skip in network.skips:
        skips = tuple(other for other in network.skips if other != skip)
        yield dataclasses.replace(network, skips=skips), x
    for number, layer in enumerate(network.layers):
        if layer.recurrent is not None:
            yield _with_layer(network, number, dataclasses.replace(layer, recurrent=None)), x


def _fewer_layers(network: NetworkSpec, x: np.ndarray) -> Iterator[Case]:
    """Leave out the last layers, the first layers, or a layer that does not change the shape."""
    layers = network.layers
    if network.skips or len(layers) == 1:
        return
    for number in range(1, len(layers)):
        yield dataclasses.replace(network, layers=layers[:number]), x
    for number in range(len(layers) - 1, 0, -1):
        shape = layers[number - 1].shape
        repeated = np.resize(x, (*x.shape[:2], *shape))
        yield dataclasses.replace(network, layers=layers[number:], shape=shape), repeated
    for number in range(1, len(layers) - 1):
        if layers[number].shape == layers[number - 1].shape:
            rest = layers[:number] + layers[number + 1 :]
            yield dataclasses.replace(network, layers=rest), x


def _fewer_units(network: NetworkSpec, x: np.ndarray) -> Iterator[Case]:
    """Keep one unit, or leave out one, of the input or of a population that lies between weights."""
    shapes = (network.shape, *(layer.shape for layer in network.layers))
    for first, last in _populations(network):
        size = shapes[first][0]
        if size == 1:
            continue
        for unit in range(size):
            yield _with_units(network, x, first, last, [unit])
        if size > 2:
            for unit in range(size):
                rest = [number for number in range(size) if number != unit]
                yield _with_units(network, x, first, last, rest)


def _populations(network: NetworkSpec) -> list[tuple[int, int]]:
    """Return ranges of places in the network whose units belong to each other.

    Place 0 is the input, and place n the output of layer n - 1. A population and its input have the same
    units; only weights have others before than behind them.
    """
    shapes = (network.shape, *(layer.shape for layer in network.layers))
    ranges = []
    first = 0
    for place, layer in enumerate((*network.layers, None)):
        if layer is None or not layer.is_neuron:
            before = first == 0 or network.layers[first - 1].type in _WEIGHTS
            after = layer is None or layer.type in _WEIGHTS
            if before and after and len(shapes[first]) == 1 and not network.skips:
                ranges.append((first, place))
            first = place + 1
    return ranges


#: Layers whose inputs and outputs are independent.
_WEIGHTS = ("Linear", "Affine")


def _with_units(
    network: NetworkSpec, x: np.ndarray, first: int, last: int, units: list[int]
) -> Case:
    """Return the network with some units of the places from first to last."""
    layers = list(network.layers)
    size = x.shape[2] if first == 0 else layers[first - 1].shape[0]
    if first > 0:
        layers[first - 1] = _with_outputs(layers[first - 1], size, units)
    for number in range(first, last):
        layers[number] = _with_outputs(layers[number], size, units)
    if last < len(layers):
        values = dict(layers[last].parameters)
        values["weight"] = np.asarray(values["weight"])[:, units]
        layers[last] = dataclasses.replace(layers[last], parameters=values)
    if first == 0:
        network, x = dataclasses.replace(network, shape=(len(units),)), x[:, :, units]
    return dataclasses.replace(network, layers=tuple(layers)), x


def _with_outputs(layer: NetworkLayer, size: int, units: list[int]) -> NetworkLayer:
    """Return a population or weights with some outputs."""
    values = {
        name: np.asarray(value)[units] if np.shape(value)[:1] == (size,) else value
        for name, value in layer.parameters.items()
    }
    recurrent = layer.recurrent
    if recurrent is not None:
        recurrent = recurrent[np.ix_(units, units)]
    return dataclasses.replace(layer, shape=(len(units),), parameters=values, recurrent=recurrent)


def _fewer_spikes(network: NetworkSpec, x: np.ndarray) -> Iterator[Case]:
    """Leave out input spikes: all of a half, or, if there are few, single ones."""
    spikes = np.argwhere(x)
    if len(spikes) <= 12:
        groups = list(spikes[:, None])
    else:
        groups = [spikes[: len(spikes) // 2], spikes[len(spikes) // 2 :]]
    for group in groups:
        fewer = x.copy()
        fewer[tuple(group.T)] = 0
        yield network, fewer


def _round_numbers(network: NetworkSpec, x: np.ndarray) -> Iterator[Case]:
    """Replace arrays by rounder ones."""
    for number, layer in enumerate(network.layers):
        for name, value in layer.parameters.items():
            if np.asarray(value).dtype.kind != "f":
                continue
            for rounded in _rounder(name, np.asarray(value)):
                values = {**layer.parameters, name: rounded}
                yield _with_layer(network, number, dataclasses.replace(layer, parameters=values)), x
        if layer.recurrent is not None:
            for rounded in _rounder("weight", layer.recurrent):
                yield _with_layer(network, number, dataclasses.replace(layer, recurrent=rounded)), x


#: Round numbers of parameters, the preferred ones first; others are 0, 1 or 0.5.
_ROUND: Mapping[str, tuple[float, ...]] = {
    "weight": (1.0, 0.5),
    "bias": (0.0,),
    "decay": (0.5, 0.9),
    "current_decay": (0.5, 0.9),
    "gain": (1.0,),
    "current_gain": (1.0,),
    "v_threshold": (1.0, 0.5),
    "r": (1.0, 0.5),
}


def _rounder(name: str, value: np.ndarray) -> Iterator[np.ndarray]:
    """Yield arrays of the same shape with rounder numbers than an array of a parameter."""
    candidates = [np.full_like(value, number) for number in _ROUND.get(name, (0.0, 1.0, 0.5))]
    if name not in ("decay", "current_decay"):
        candidates.append((np.round(value * 2) / 2).astype(value.dtype))
    candidates.append(np.round(value, 1).astype(value.dtype))
    for candidate in candidates:
        if np.array_equal(candidate, value):
            return
        if name in _POSITIVE and not (candidate > 0).all():
            continue
        yield candidate


#: Parameters that have to be positive.
_POSITIVE = ("decay", "current_decay", "gain", "current_gain", "v_threshold", "r")


def _with_layer(network: NetworkSpec, number: int, layer: NetworkLayer) -> NetworkSpec:
    layers = (*network.layers[:number], layer, *network.layers[number + 1 :])
    return dataclasses.replace(network, layers=layers)


#: Functions that yield reduced cases, in the order in which they are tried.
_REDUCTIONS: tuple[Callable[[NetworkSpec, np.ndarray], Iterator[Case]], ...] = (
    _fewer_samples,
    _fewer_steps,
    _fewer_connections,
    _fewer_layers,
    _fewer_units,
    _fewer_steps,
    _round_numbers,
    _fewer_spikes,
)
