"""What arrives at each population: linear nodes composed into operators, and constants."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import jax
import jax.numpy as jnp

from jaxsnn.errors import LoweringError, listing
from jaxsnn.network.operators import Operator, added, identity, through
from jaxsnn.network.structure import OPERATORS


@dataclass(frozen=True, kw_only=True)
class Signal:
    """What arrives somewhere: a linear function of spike trains and levels, and a constant.

    Attributes:
        paths: pairs of a source (an input, a population or a Threshold) and the `Operator` that its
            events pass.
        constant: (channels,) array, or None for zero.
        start: (channels,) what more there is at time 0, if voltages are handed on; it decays as
            they do. None: nothing.
    """

    paths: tuple[tuple[str, Operator], ...]
    constant: jax.Array | None
    start: jax.Array | None = None

    def matrices(self, dtype):
        """Source -> (inputs, outputs) matrix, all paths from it added up; delays are not in it."""
        found = {}
        for source, operator in self.paths:
            matrix = operator.dense(dtype)
            found[source] = found[source] + matrix if source in found else matrix
        return found


def signals(network, handed_on: Mapping = MappingProxyType({})):
    """The signal that arrives at each population, by its NIR name; linear nodes composed on the
    way.

    Args:
        handed_on: population -> function from the signal that enters it to the one that leaves it,
            for populations that send on what a linear function makes of their spikes.

    Raises:
        LoweringError: a node that is no neuron and not linear, a cycle of such nodes, or nodes that
            cannot be joined.
    """
    wires = {wire.name: wire for wire in network.wires}
    leaving, entered = {}, []

    def entering(name):
        return _sum([signal_from(source) for source in wires[name].sources], network.dtype)

    def signal_from(name):
        if name in leaving:
            return leaving[name]
        wire = wires[name]
        if name in handed_on:
            leaving[name] = handed_on[name](entering(name))
            return leaving[name]
        if wire.kind in ("input", "neuron", "Threshold"):
            leaving[name] = Signal(paths=((name, identity(wire.size)),), constant=None)
            return leaving[name]
        if not wire.linear:
            raise LoweringError(
                f"node '{name}' is a {wire.kind}, which is not a linear node",
                fix=f"use one of {listing(OPERATORS)}, or simulate with engine=TimeStepped()",
                node=name,
                code="unsupported-node",
            )
        if name in entered:
            raise LoweringError(
                f"node '{name}' is part of a cycle without a neuron",
                fix="put a neuron into it",
                node=name,
            )
        entered.append(name)
        inward = wires[wire.sources[0]].shape if wire.sources else wire.shape
        leaving[name] = _after(
            wire, inward, network.parameters.get(name, {}), entering(name), network.dtype
        )
        return leaving[name]

    return {wire.name: entering(wire.name) for wire in network.wires if wire.kind == "neuron"}


def _sum(parts, dtype):
    """Signals added up."""
    paths = added([path for part in parts for path in part.paths], dtype)
    constant, start = (
        _total(part.constant for part in parts),
        _total(part.start for part in parts),
    )
    return Signal(paths=paths, constant=constant, start=start)


def _total(arrays):
    """The sum of arrays, of which None are zero; None if all are."""
    given = [array for array in arrays if array is not None]
    return sum(given[1:], given[0]) if given else None


def _after(wire, inward, parameters, signal, dtype):
    """A signal after one linear node that takes the shape `inward`; a bias enters once, never once
    per spike.
    """
    paths = tuple(
        (source, through(wire, inward, parameters, operator, dtype))
        for source, operator in signal.paths
    )
    without_delays = {
        key: value for key, value in parameters.items() if key != "delay" or wire.kind == "Delay"
    }

    def passed(values):
        if values is None:
            return None
        return through(wire, inward, without_delays, identity(math.prod(inward)), dtype).apply(
            values, dtype
        )

    constant = passed(signal.constant)
    own = wire.bias(parameters)
    if own is not None:
        bias = jnp.repeat(own, wire.size // own.size)
        constant = bias if constant is None else constant + bias
    return Signal(paths=paths, constant=constant, start=passed(signal.start))
