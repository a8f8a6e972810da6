"""The lowered network: what the engines run.

A `Network` is a pytree. Its only leaves are the parameters, by NIR node and NIR name, in SI units and as arrays that a
gradient can be taken by; everything else about it is static.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsnn.errors import LoweringError, UsageError, listing, suggestion
from jaxsnn.wiring import LINEAR as LINEAR
from jaxsnn.wiring import Population as Population
from jaxsnn.wiring import TauShape as TauShape
from jaxsnn.wiring import Wire as Wire
from jaxsnn.wiring import find_tau_shape as find_tau_shape
from jaxsnn.wiring import tau_shape_holds as tau_shape_holds


class Network:
    """A network that can be simulated, differentiated and trained. `jaxsnn.lower` makes it from a Graph.

    Attributes:
        parameters: NIR node name -> NIR parameter name -> array; time constants in seconds. The leaves of the pytree.
            Per-neuron parameters have shape (neurons,), weights (outputs, inputs).
        wires: the nodes in execution order, sources before targets.
        populations: NIR node name -> `Population`.
    """

    def __init__(self, *, parameters, wires, populations):
        self.parameters = parameters
        self.wires = tuple(wires)
        self.populations = dict(populations)

    @property
    def inputs(self):
        """NIR name of each input -> number of channels."""
        return {wire.name: wire.size for wire in self.wires if wire.kind == "input"}

    @property
    def outputs(self):
        """NIR name of each Output node -> names of the populations that feed it."""
        return {wire.name: wire.sources for wire in self.wires if wire.kind == "output"}

    @property
    def dtype(self):
        """Floating type of the parameters."""
        return jax.tree.leaves(self.parameters)[0].dtype

    def with_parameters(self, parameters):
        """The same network with other numbers.

        What is known of the time constants is looked up again where they are concrete; where they are traced, nothing
        is assumed of populations whose time constants are not the very arrays of before.

        Raises:
            UsageError: a node, a parameter or a shape that is not that of the network.
        """
        check_parameters(self.parameters, parameters)
        populations = {}
        for name, population in self.populations.items():
            old, new = self.parameters[name], parameters[name]
            same = all(new[key] is old[key] for key in new if key.startswith("tau"))
            populations[name] = population if same else with_tau_facts(population, new)
        return Network(parameters=parameters, wires=self.wires, populations=populations)

    def with_free_time_constants(self):
        """The same network, nothing assumed of its time constants: for training them."""
        populations = {
            name: replace(population, tau_shape=TauShape.ANY, uniform=False)
            for name, population in self.populations.items()
        }
        return Network(parameters=self.parameters, wires=self.wires, populations=populations)

    def __repr__(self):
        sizes = ", ".join(f"{wire.name}: {wire.kind} {wire.size}" for wire in self.wires)
        return f"Network({sizes})"


def check_parameters(old, new):
    """Refuse numbers that do not fit a network.

    Args:
        old: the network's own parameters, by node and name.
        new: those that should take their place.

    Raises:
        UsageError: says which differs first.
    """
    for name in (*old, *new):
        if name not in old or name not in new:
            where, known = ("the network has", old) if name not in old else ("the parameters have", new)
            raise UsageError(f"{where} no node '{name}': {suggestion(name, known)}")
        for key in (*old[name], *new[name]):
            if key not in old[name] or key not in new[name]:
                where, known = ("has", old[name]) if key not in old[name] else ("is given", new[name])
                raise UsageError(f"node '{name}' {where} no parameter '{key}': {suggestion(key, known)}")
            shapes = jnp.shape(old[name][key]), jnp.shape(new[name][key])
            if shapes[0] != shapes[1]:
                raise UsageError(f"node '{name}': {key} has shape {shapes[1]}, it must have {shapes[0]}")


def with_tau_facts(population, parameters):
    """The population with `tau_shape` and `uniform` as its concrete numbers have them (nothing, if they are traced)."""
    taus = [value for key, value in parameters.items() if key.startswith("tau")]
    if any(isinstance(tau, Tracer) for tau in taus):
        return replace(population, tau_shape=TauShape.ANY, uniform=False)
    uniform = all(bool((np.asarray(tau) == np.asarray(tau).flat[0]).all()) for tau in taus)
    if "tau_syn" not in parameters:
        return replace(population, uniform=uniform)
    tau_mem, tau_syn = (np.asarray(parameters[name]) for name in ("tau_mem", "tau_syn"))
    return replace(population, tau_shape=find_tau_shape(tau_mem, tau_syn), uniform=uniform)


def _flatten(network):
    static = (network.wires, tuple(network.populations.items()))
    return ((jax.tree_util.GetAttrKey("parameters"), network.parameters),), static


def _unflatten(static, children):
    wires, populations = static
    return Network(parameters=children[0], wires=wires, populations=populations)


jax.tree_util.register_pytree_with_keys(Network, _flatten, _unflatten)


@dataclass(frozen=True, kw_only=True)
class Signal:
    """What arrives somewhere: a linear function of spike trains, and a constant.

    Attributes:
        maps: source -> (inputs, outputs) matrix, or None for the identity.
        constant: (outputs,) array, or None for zero.
    """

    maps: dict[str, jax.Array | None]
    constant: jax.Array | None


def signals(network):
    """The signal that arrives at each population, by its NIR name; linear nodes composed on the way.

    Raises:
        LoweringError: a node that is no neuron and not in `LINEAR`.
    """
    leaving, arriving = {}, {}
    shapes = {wire.name: wire.shape for wire in network.wires}
    for wire in network.wires:
        entering = _sum([leaving[source] for source in wire.sources], wire.size, network.dtype)
        if wire.kind == "neuron":
            arriving[wire.name] = entering
        if wire.kind in ("input", "neuron"):
            leaving[wire.name] = Signal(maps={wire.name: None}, constant=None)
        elif wire.kind in LINEAR:
            inward = shapes[wire.sources[0]] if wire.sources else wire.shape
            leaving[wire.name] = _through(wire, inward, network.parameters.get(wire.name, {}), entering, network.dtype)
        elif wire.kind != "output":
            raise LoweringError(f"node '{wire.name}' is a {wire.kind}, which is not among {listing(LINEAR)}")
    return arriving


def _sum(parts, size, dtype):
    if len(parts) == 1:
        return parts[0]
    maps, constant = {}, None
    for part in parts:
        for source, matrix in part.maps.items():
            if source not in maps:
                maps[source] = matrix
                continue
            first, second = (jnp.eye(size, dtype=dtype) if m is None else m for m in (maps[source], matrix))
            maps[source] = first + second
        if part.constant is not None:
            constant = part.constant if constant is None else constant + part.constant
    return Signal(maps=maps, constant=constant)


def _through(wire, inward, parameters, signal, dtype):
    """A signal after one linear node that takes the shape `inward`; a bias enters once, never once per spike."""
    if wire.kind == "Flatten":
        return signal if wire.detail is None else _reordered(signal, wire.size, inward, wire.detail, dtype)
    if wire.kind == "Scale":
        scale = parameters["scale"]
        maps = {name: jnp.diag(scale) if m is None else m * scale for name, m in signal.maps.items()}
        return Signal(maps=maps, constant=None if signal.constant is None else signal.constant * scale)
    weight = parameters["weight"].T
    maps = {name: weight if m is None else m @ weight for name, m in signal.maps.items()}
    constant = None if signal.constant is None else signal.constant @ weight
    if wire.kind == "Affine":
        constant = parameters["bias"] if constant is None else constant + parameters["bias"]
    return Signal(maps=maps, constant=constant)


def _reordered(signal, size, shape, axes, dtype):
    """A signal of a given shape after its axes were put into another order and joined."""
    place = np.arange(size).reshape(shape).transpose(axes).reshape(-1)
    maps = {name: (jnp.eye(size, dtype=dtype) if m is None else m)[:, place] for name, m in signal.maps.items()}
    return Signal(maps=maps, constant=None if signal.constant is None else signal.constant[place])
