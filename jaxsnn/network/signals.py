"""Signals that arrive at each population: linear nodes composed into operators, and constants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxsnn.errors import LoweringError, listing
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.linear_nodes import Arrays
from jaxsnn.network.network import Network
from jaxsnn.network.operators import Path, added, identity, through
from jaxsnn.network.structure import OPERATORS, Wire
from jaxsnn.options import ENGINE
from jaxsnn.wording import Text


@dataclass(frozen=True, kw_only=True)
class Signal:
    """Signal at a place in the network: a linear function of spike trains and currents, and a
    constant.

    Attributes:
        paths: pairs of a source (an input or a population) and the `Operator` that its events pass.
        constant: constant part of the signal; None for zero.
    """

    paths: tuple[Path, ...]
    constant: Float[Array, "channels"] | None

    def matrices(self, dtype: DTypeLike) -> dict[str, Float[Array, "inputs channels"]]:
        """Return the sum of all paths from each source as a matrix, without delays."""
        matrices = {}
        for source, operator in self.paths:
            matrix = operator.dense(dtype)
            matrices[source] = matrices[source] + matrix if source in matrices else matrix
        return matrices


def signals(network: Network) -> dict[str, Signal]:
    """Return the input signal of each population, by its NIR name, with the linear nodes before it
    composed.

    Raises:
        LoweringError: a node that is neither a neuron nor linear, a cycle of such nodes, or nodes that
            cannot be joined.
    """
    wires = {wire.name: wire for wire in network.wires}
    leaving: dict[str, Signal] = {}
    entered: list[str] = []

    def entering(name: str) -> Signal:
        """Return the input signal of a node."""
        return _sum([signal_from(source) for source in wires[name].sources], network.dtype)

    def signal_from(name: str) -> Signal:
        """Return the output signal of a node, cached."""
        if name not in leaving:
            leaving[name] = passed(wires[name])
        return leaving[name]

    def passed(wire: Wire) -> Signal:
        if wire.kind in ("input", "neuron"):  # events begin here
            return Signal(paths=((wire.name, identity(wire.size)),), constant=None)
        _refuse_nonlinear(wire)
        if wire.name in entered:
            raise LoweringError(
                Text("node '{node}' is part of a cycle without a neuron", node=wire.name),
                fix="insert a neuron into the cycle",
                node=wire.name,
            )
        entered.append(wire.name)
        inward = wires[wire.sources[0]].shape if wire.sources else wire.shape
        parameters = network.parameters.get(wire.name, {})
        return _after(wire, inward, parameters, entering(wire.name), network.dtype)

    return {wire.name: entering(wire.name) for wire in network.wires if wire.kind == "neuron"}


def _refuse_nonlinear(wire: Wire) -> None:
    if not wire.linear:
        raise LoweringError(
            Text(
                "node '{node}' ({type}) is not a linear node",
                node=wire.name,
                type=wire.kind,
            ),
            fix=Text(
                "use one of {operators}, or simulate with {engine}",
                operators=listing(OPERATORS),
                engine=ENGINE.set_to("grid"),
            ),
            node=wire.name,
            code="unsupported-node",
        )


def _sum(parts: Sequence[Signal], dtype: DTypeLike) -> Signal:
    """Return the sum of signals."""
    constants = [part.constant for part in parts if part.constant is not None]
    return Signal(
        paths=added([path for part in parts for path in part.paths], dtype),
        constant=sum(constants[1:], constants[0]) if constants else None,
    )


def _after(
    wire: Wire, inward: tuple[int, ...], parameters: Arrays, signal: Signal, dtype: DTypeLike
) -> Signal:
    """Return a signal after one linear node that takes the shape `inward`; a bias enters once, never
    once per spike.
    """
    paths = tuple(
        (source, through(wire, inward, parameters, operator, dtype))
        for source, operator in signal.paths
    )
    constant = signal.constant
    if constant is not None:
        # Delays of synapses do not change a constant.
        without_delays = {
            key: value
            for key, value in parameters.items()
            if key != "delay" or wire.kind == "Delay"
        }
        operator = through(wire, inward, without_delays, identity(math.prod(inward)), dtype)
        constant = operator.apply(constant, dtype)
    bias = wire.bias(parameters)
    if bias is not None:
        # The bias has one number for each channel, the first axis of the shape, or each element.
        bias = jnp.repeat(bias, wire.size // bias.size)
        constant = bias if constant is None else constant + bias
    return Signal(paths=paths, constant=constant)
