"""The lowered network: what the engines run.

A `Network` is a pytree. Its only leaves are the parameters, by NIR node and NIR name, in SI units
and as arrays that a gradient can be taken by; everything else about it is static.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxsnn.errors import LoweringError, UsageError, suggestion
from jaxsnn.network.structure import Population as Population
from jaxsnn.network.structure import TauShape as TauShape
from jaxsnn.network.structure import Wire as Wire
from jaxsnn.network.structure import find_tau_shape as find_tau_shape
from jaxsnn.network.structure import tau_shape_holds as tau_shape_holds
from jaxsnn.network.voltage_chains import (
    driving_taus,
    still_holds,
    with_known_taus,
    with_unknown_taus,
)


class Network:
    """A network that can be simulated, differentiated and trained. `jaxsnn.lower` makes it from a
    Graph.

    Attributes:
        parameters: NIR node name -> NIR parameter name -> array; time constants in seconds. The
            leaves of the pytree. Per-neuron parameters have shape (neurons,), weights (outputs,
            inputs).
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

        What is known of the time constants is looked up again where they are concrete; where they
        are traced, nothing is assumed of populations whose time constants are not the very arrays
        of before.

        Raises:
            UsageError: a node, a parameter or a shape that is not that of the network.
        """
        check_parameters(self.parameters, parameters)
        populations = {}
        for name, population in self.populations.items():
            driving = driving_taus(population, parameters)
            same = all(
                parameters[node][key] is self.parameters[node][key]
                for node in (name, *driving)
                for key in parameters[node]
                if key.startswith("tau")
            )
            populations[name] = (
                population if same else with_tau_facts(population, parameters[name], driving)
            )
        return Network(parameters=parameters, wires=self.wires, populations=populations)

    def with_known_facts(self):
        """The same network with facts about time constants that hold for its numbers, wherever
        these can be looked at, and the names of the populations of which that is so.

        Facts that hold stay as they are, also those that say little.
        """
        populations, known = dict(self.populations), set()
        for name, population in self.populations.items():
            own = _time_constants(self.parameters[name])
            driving = driving_taus(population, self.parameters)
            if _are_traced(own, driving):
                continue
            known.add(name)
            found = with_known_taus(population, own, driving)
            if not still_holds(population, found):
                populations[name] = found
        network = Network(parameters=self.parameters, wires=self.wires, populations=populations)
        return network, frozenset(known)

    def with_free_time_constants(self):
        """The same network without assumptions on its time constants: for training them."""
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
            where, known = (
                ("the network has", old) if name not in old else ("the parameters have", new)
            )
            raise UsageError(f"{where} no node '{name}'", fix=suggestion(name, known), node=name)
        for key in (*old[name], *new[name]):
            if key not in old[name] or key not in new[name]:
                where, known = (
                    ("has", old[name]) if key not in old[name] else ("is given", new[name])
                )
                raise UsageError(
                    f"node '{name}' {where} no parameter '{key}'",
                    fix=suggestion(key, known),
                    node=name,
                )
            shapes = jnp.shape(old[name][key]), jnp.shape(new[name][key])
            if shapes[0] != shapes[1]:
                raise UsageError(
                    f"node '{name}': {key} has shape {shapes[1]}",
                    fix=f"give it the shape {shapes[0]}",
                    node=name,
                )


def with_synaptic_delays(network, name, delay):
    """The network with a delay for each synapse of one of its Linear or Affine nodes, for the event
    engine.

    It is the parameter "delay" of that node, (outputs, inputs), which a gradient can be taken by.
    `jaxsnn.update_graph` writes it as NIR can say it: a Linear that copies channels, and a Delay.

    Args:
        name: the node; it must stand right behind neurons or an input.
        delay: seconds, at least 0, (outputs, inputs) or what broadcasts to that.

    Raises:
        LoweringError: no such node, or one without synapses.
    """
    kinds = {wire.name: wire.kind for wire in network.wires}
    if kinds.get(name) not in ("Linear", "Affine"):
        what = f"is of kind {kinds[name]}" if name in kinds else "is not in the network"
        choices = [node for node, kind in kinds.items() if kind in ("Linear", "Affine")]
        raise LoweringError(
            f"node '{name}' {what}, and only a Linear or Affine has synapses",
            fix=suggestion(name, choices),
            node=name,
        )
    weight = network.parameters[name]["weight"]
    delay = jnp.broadcast_to(jnp.asarray(delay, weight.dtype), weight.shape)
    parameters = {**network.parameters, name: {**network.parameters[name], "delay": delay}}
    return Network(parameters=parameters, wires=network.wires, populations=network.populations)


def without_synaptic_delays(network):
    """Parameters without the delays of `with_synaptic_delays`, and these delays by node."""
    parameters, delays = {}, {}
    for wire in network.wires:
        own = dict(network.parameters.get(wire.name, {}))
        if wire.kind in ("Linear", "Affine") and "delay" in own:
            delays[wire.name] = own.pop("delay")
        if own:
            parameters[wire.name] = own
    return parameters, delays


def with_tau_facts(population, parameters, driving: Mapping = MappingProxyType({})):
    """The population with what its numbers say of its time constants (nothing, if they are traced).

    Args:
        parameters: its own, by NIR name.
        driving: tau of each LI whose voltage drives it, by node.
    """
    own = _time_constants(parameters)
    if _are_traced(own, driving):
        return with_unknown_taus(population)
    return with_known_taus(population, own, driving)


def _time_constants(parameters):
    return {key: value for key, value in parameters.items() if key.startswith("tau")}


def _are_traced(*groups):
    return any(isinstance(tau, Tracer) for taus in groups for tau in taus.values())


def _flatten(network):
    static = (network.wires, tuple(network.populations.items()))
    return ((jax.tree_util.GetAttrKey("parameters"), network.parameters),), static


def _unflatten(static, children):
    wires, populations = static
    return Network(parameters=children[0], wires=wires, populations=populations)


jax.tree_util.register_pytree_with_keys(Network, _flatten, _unflatten)


def entries(tree):
    """All numbers of a tree of arrays in one row: one check of them is compiled, not one for each
    array.
    """
    leaves = [jnp.ravel(array) for array in jax.tree.leaves(tree)]
    return jnp.concatenate(leaves) if leaves else jnp.zeros(0)
