"""`Network`, the lowered network that the engines run.

A `Network` is a pytree. Its only leaves are the parameters, by NIR node and NIR name: differentiable
arrays in SI units. Everything else is static.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxsnn.errors import LoweringError, UsageError, listing, refuse_type, suggestion
from jaxsnn.keywords import suggests_keywords
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.number_ranges import with_reset_obstacle
from jaxsnn.network.on_processor import as_array_of
from jaxsnn.network.structure import Population as Population
from jaxsnn.network.structure import TauShape as TauShape
from jaxsnn.network.structure import Wire as Wire
from jaxsnn.network.structure import find_tau_shape as find_tau_shape
from jaxsnn.network.structure import tau_shape_holds as tau_shape_holds
from jaxsnn.network.structure import with_known_taus, with_unknown_taus
from jaxsnn.wording import Text

#: Maximum number of names of each kind that the text of a network lists.
_SHOWN = 6
#: Advice for numbers that need more bits than JAX uses; {} is the alternative.
ENABLE_X64 = 'call jax.config.update("jax_enable_x64", True) at the start, or {}'
#: NIR's names of the parameters of one node -> arrays, each of the shape that NIR gives it.
NodeParameters = dict[str, Float[Array, "..."]]
#: NIR node name -> its parameters.
Parameters = dict[str, NodeParameters]


class Network:
    """Network that can be simulated, differentiated and trained. `jaxsnn.lower` creates it from a
    Graph.

    Attributes:
        parameters: NIR node name -> NIR parameter name -> array; time constants in seconds. The
            leaves of the pytree. Per-neuron parameters have shape (neurons,), weights (outputs,
            inputs).
        wires: the nodes in execution order, sources before targets.
        populations: NIR node name -> `Population`.
    """

    def __init__(
        self,
        *,
        parameters: Parameters,
        wires: Iterable[Wire],
        populations: Mapping[str, Population],
    ) -> None:
        self.parameters = parameters
        self.wires = tuple(wires)
        self.populations = dict(populations)

    @property
    def inputs(self) -> dict[str, int]:
        """Number of channels of each input, by NIR name."""
        return {wire.name: wire.size for wire in self.wires if wire.kind == "input"}

    @property
    def outputs(self) -> dict[str, tuple[str, ...]]:
        """Names of the populations that feed each Output node, by NIR name."""
        return {wire.name: wire.sources for wire in self.wires if wire.kind == "output"}

    @property
    def dtype(self) -> np.dtype:
        """Floating type that holds all parameters, in JAX's precision: float32 or float64."""
        kinds = {jax.dtypes.canonicalize_dtype(x.dtype) for x in jax.tree.leaves(self.parameters)}
        wide = any(kind == np.float64 for kind in kinds)
        return np.dtype(np.float64 if wide else np.float32)

    def with_parameters(self, parameters: Parameters) -> Network:
        """Return the same network with other parameters.

        Facts about concrete time constants are derived again; for traced ones, nothing is assumed
        about populations whose time constants are not the same arrays as before. `simulate` refuses
        a concrete v_reset that is not below v_threshold, as it does for a file.

        Raises:
            UsageError: the nodes, parameters or shapes differ from those of the network, or time
                constants are neither float32 nor float64.
        """
        check_parameters(self.parameters, parameters)
        populations = {}
        for name, population in self.populations.items():
            changed = any(
                parameters[name][key] is not self.parameters[name][key]
                for key in parameters[name]
                if key.startswith("tau")
            )
            if changed:
                population = with_tau_facts(population, parameters[name])
            populations[name] = self._with_checked_reset(population, parameters[name])
        return Network(parameters=parameters, wires=self.wires, populations=populations)

    def _with_checked_reset(self, population: Population, parameters: NodeParameters) -> Population:
        """Return the population with the obstacle that its v_reset is not below its v_threshold, or
        without it, if these are concrete and not the same arrays as before.
        """
        old, keys = self.parameters[population.name], ("v_reset", "v_threshold")
        levels = {key: parameters[key] for key in keys if key in parameters}
        unchanged = all(value is old[key] for key, value in levels.items())
        if population.reset != "zero" or unchanged or _are_traced(levels):
            return population
        others = tuple(pair for pair in population.obstacles if pair[0] != "v_reset")
        return with_reset_obstacle(replace(population, obstacles=others), levels, self.dtype)

    def with_known_facts(self) -> tuple[Network, frozenset[str]]:
        """Return the network with properties of its time constants, such as tau_mem = 2 tau_syn, and
        the names of the populations whose time constants are known.

        They are known if they are concrete numbers, or traced but declared constant. Recorded
        properties that hold stay unchanged, even if more specific ones hold, too.
        """
        populations, populations_with_known_taus = dict(self.populations), set()
        for name, population in self.populations.items():
            taus = _time_constants(self.parameters[name])
            if _are_traced(taus):
                if population.taus_last:
                    populations_with_known_taus.add(name)
                continue
            populations_with_known_taus.add(name)
            actual = with_known_taus(population, taus)
            shape_holds = population.tau_shape in (TauShape.ANY, actual.tau_shape)
            if not shape_holds or (population.uniform and not actual.uniform):
                populations[name] = actual
        network = Network(parameters=self.parameters, wires=self.wires, populations=populations)
        return network, frozenset(populations_with_known_taus)

    def with_free_time_constants(self) -> Network:
        """Return the same network without assumptions on its time constants, so that they can be
        trained.
        """
        populations = {
            name: with_unknown_taus(population) for name, population in self.populations.items()
        }
        return Network(parameters=self.parameters, wires=self.wires, populations=populations)

    def with_lasting_time_constants(self) -> Network:
        """Return the same network with time constants declared constant: facts about them stay
        known in compiled code, too, where the network is an argument and they are traced.

        Callers of a compiled function with this network must not change its time constants.
        `with_parameters` with other time constants removes the declaration.
        """
        network, populations_with_known_taus = self.with_known_facts()
        populations = {
            name: replace(population, taus_last=name in populations_with_known_taus)
            for name, population in network.populations.items()
        }
        return Network(parameters=self.parameters, wires=self.wires, populations=populations)

    def with_fixed_gains(self) -> Network:
        """Return the same network for callers that change no gain (`w_in` of current-based neurons,
        `r` of others): if all gains are 1, compiled code does not multiply by them.

        Gradients with respect to those gains then lack the contribution of spikes.
        """
        populations = dict(self.populations)
        for name, population in self.populations.items():
            parameters = self.parameters[name]
            gains = parameters["w_in"] if "w_in" in parameters else parameters.get("r")
            if population.scales_jumps and gains is not None and np.all(np.asarray(gains) == 1):
                populations[name] = replace(population, scales_jumps=False)
        return Network(parameters=self.parameters, wires=self.wires, populations=populations)

    def __repr__(self) -> str:
        """Return at most ten lines: the populations with their types and sizes, and the number of
        parameters.
        """
        leaves = jax.tree.leaves(self.parameters)
        numbers = sum(int(np.size(leaf)) for leaf in leaves)
        neurons = sum(population.size for population in self.populations.values())
        inputs = [f"'{wire.name}' {wire.size}" for wire in self.wires if wire.kind == "input"]
        shown = [
            f"'{population.name}' {population.kind} {population.size}"
            for population in self.populations.values()
        ]
        outputs = [f"'{name}'" for name in self.outputs]
        lines = [
            f"Network({len(self.wires)} nodes, {neurons} neurons, {numbers} parameters",
            f"  inputs: {listing(inputs, _SHOWN)}",
            f"  populations: {listing(shown, _SHOWN)}",
            f"  outputs: {listing(outputs, _SHOWN)}",
        ]
        return "\n".join(lines) + ")"


_LOWER_FIRST = "pass jaxsnn.lower(graph)"


def check_precision(network: Network) -> None:
    """Refuse an object that is not a Network, parameters that are not arrays of real numbers or
    differ in shape from the network's, neuron parameters that are neither float32 nor float64,
    and arrays of 64 bits if JAX computes with 32; NumPy's arrays of 64 bits are converted as JAX
    does.

    Raises:
        UsageError: the object or a parameter is refused; the message names the first.
    """
    wide = jnp.result_type(float)
    refuse_type(network, Network, fix=_LOWER_FIRST)
    shapes = {wire.name: dict(wire.shapes) for wire in network.wires}
    for name, node_shapes in shapes.items():
        for key, shape in node_shapes.items():
            if key not in network.parameters.get(name, {}):
                fix = f"add it, with shape {shape}"
                raise UsageError(
                    Text("node '{node}' has no {parameter}", node=name, parameter=key),
                    fix=fix,
                    node=name,
                )
    for name, node_parameters in network.parameters.items():
        for key, value in node_parameters.items():
            if not hasattr(value, "dtype"):
                fix = "convert it with jax.numpy.asarray"
                kind = type(value).__name__
                raise UsageError(
                    Text(
                        "node '{node}': {parameter} has type {type}, which is not an array",
                        node=name,
                        parameter=key,
                        type=kind,
                    ),
                    fix=fix,
                    node=name,
                )
            if name in network.populations:
                _refuse_no_neurons(network.populations[name], key, value)
            else:
                _refuse_other_shape(name, key, value, shapes.get(name, {}))
            if isinstance(value, jax.Array) and value.dtype == np.float64 != wide:
                raise UsageError(
                    Text(
                        "node '{node}': {parameter} is {dtype}, but JAX computes in {expected}",
                        node=name,
                        parameter=key,
                        dtype=value.dtype,
                        expected=wide,
                    ),
                    fix=ENABLE_X64.format('lower the network with dtype="float32"'),
                    node=name,
                )


def _refuse_other_shape(
    name: str, key: str, value: Any, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse a parameter of a node without a state if its shape has changed since it was lowered,
    which gathering its rows would not detect. Delays of synapses have one of three shapes; other
    parameters may have an unknown shape.
    """
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        fix = "use real numbers, for example its real part"
        raise UsageError(
            Text(
                "node '{node}': {parameter} is {dtype}", node=name, parameter=key, dtype=value.dtype
            ),
            fix=fix,
            node=name,
        )
    allowed_shapes = [shapes[key]] if key in shapes else []
    if key == "delay" and "weight" in shapes:
        weight_shape = shapes["weight"]
        allowed_shapes = [weight_shape, weight_shape[1:], ()]
    shape = jnp.shape(value)
    if allowed_shapes and shape not in allowed_shapes:
        raise UsageError(
            Text(
                "node '{node}': {parameter} has shape {shape}",
                node=name,
                parameter=key,
                shape=shape,
            ),
            fix=f"use shape {' or '.join(map(str, allowed_shapes))}; use jax.vmap for several "
            "networks",
            node=name,
        )


def _refuse_no_neurons(population: Population, key: str, value: Any) -> None:
    """Refuse a parameter of neurons that does not have one number for each, float32 or float64."""
    name, size, shape = population.name, population.size, jnp.shape(value)
    _refuse_other_kind(name, key, value)
    if shape != (size,):
        raise UsageError(
            Text(
                "node '{node}': {parameter} has shape {shape}, but the node has {size} neurons",
                node=name,
                parameter=key,
                shape=shape,
                size=size,
            ),
            fix=f"use shape ({size},); use jax.vmap for several networks",
            node=name,
        )


def _refuse_other_kind(name: str, key: str, value: Any) -> None:
    """Refuse a parameter of neurons that is neither float32 nor float64."""
    if value.dtype not in (np.float32, np.float64):
        raise UsageError(
            Text(
                "node '{node}': {parameter} is {dtype}, but neuron parameters must be float32 or "
                "float64",
                node=name,
                parameter=key,
                dtype=value.dtype,
            ),
            fix='cast it with .astype("float32")',
            node=name,
        )


def in_one_type(network: Network) -> Network:
    """Return the network with all parameters in its dtype: weights may have another one."""
    kind = network.dtype
    there = {jax.dtypes.canonicalize_dtype(x.dtype) for x in jax.tree.leaves(network.parameters)}
    if there == {kind}:
        return network
    return jax.tree.map(lambda x: as_array_of(x, kind), network)


def check_dtype(dtype: Any) -> np.dtype:
    """Return the floating type for a requested dtype; None: JAX's default.

    Raises:
        UsageError: the type is neither float32 nor float64, or it is float64 and JAX computes in
            float32.
    """
    default_dtype = jnp.result_type(float)
    try:
        requested_dtype = default_dtype if dtype is None or dtype is float else np.dtype(dtype)
    except TypeError:
        requested_dtype = None
    if requested_dtype not in (np.float32, np.float64):
        raise UsageError(
            Text("dtype is {dtype!r}, but networks support only float32 and float64", dtype=dtype),
            fix='pass dtype="float32", or omit dtype',
        )
    if requested_dtype == np.float64 != default_dtype:
        raise UsageError(
            Text(
                "dtype is {dtype}, but JAX computes in {expected}",
                dtype=requested_dtype,
                expected=default_dtype,
            ),
            fix=ENABLE_X64.format('pass dtype="float32"'),
        )
    return requested_dtype


def check_parameters(old: Parameters, new: Parameters) -> None:
    """Refuse parameters that do not fit a network.

    Args:
        old: the network's own parameters, by node and name.
        new: those that should take their place.

    Raises:
        UsageError: parameters do not fit; the message contains the first difference.
    """
    for name in (*old, *new):
        has, lacks = Text("the network has no node"), Text("the parameters lack node")
        _refuse_lacking(name, old, has, new, lacks)
        old_parameters, new_parameters = old[name], new[name]
        has = Text("node '{node}' has no parameter", node=name)
        lacks = Text("node '{node}': the parameters lack", node=name)
        for key in (*old_parameters, *new_parameters):
            _refuse_lacking(key, old_parameters, has, new_parameters, lacks, node=name)
            shape, old_shape = jnp.shape(new_parameters[key]), jnp.shape(old_parameters[key])
            if shape != old_shape:
                raise UsageError(
                    Text(
                        "node '{node}': {parameter} has shape {shape}",
                        node=name,
                        parameter=key,
                        shape=shape,
                    ),
                    fix=f"use shape {old_shape}",
                    node=name,
                )
            if key.startswith("tau") and hasattr(new_parameters[key], "dtype"):
                _refuse_other_kind(name, key, new_parameters[key])


def _refuse_lacking(
    name: str,
    old: Mapping[str, Any],
    lacks_old: Text,
    new: Mapping[str, Any],
    lacks_new: Text,
    node: str = "",
) -> None:
    """Refuse a name that is missing from one of two mappings."""
    for mapping, lacks in ((old, lacks_old), (new, lacks_new)):
        if name not in mapping:
            message = lacks + Text(" '{name}'", name=name)
            raise UsageError(message, fix=suggestion(name, mapping), node=node or name)


@suggests_keywords
def with_synaptic_delays(network: Network, name: str, delay: ArrayLike) -> Network:
    """Return the network with a delay for each synapse of one of its Linear or Affine nodes, for
    the event engine.

    The delays are the parameter "delay" of the node and differentiable. `jaxsnn.update_graph`
    converts them to NIR: a Linear that copies channels, and a Delay.

    Args:
        name: name of the node, whose input must come directly from neurons or from an Input.
        delay: delays in seconds, at least 0: one for each synapse, (outputs, inputs) or (outputs,
            1); one for each source, (inputs,) or (1, inputs); or a single one. In a cycle, delays of
            the first kind take more time and memory: each spike arrives at each target separately,
            also through weights of 0.

    Raises:
        LoweringError: no such node, or one without synapses.
        UsageError: an object that is not a Network; delays that are negative or not finite, or of
            another shape.
    """
    refuse_type(network, Network, fix=_LOWER_FIRST)
    kinds = {wire.name: wire.kind for wire in network.wires}
    if kinds.get(name) not in ("Linear", "Affine"):
        defect = (
            Text("has type {type}", type=kinds[name]) if name in kinds else "is not in the network"
        )
        choices = [node for node, kind in kinds.items() if kind in ("Linear", "Affine")]
        raise LoweringError(
            Text(
                "node '{node}' {description}, but only Linear and Affine nodes have synapses",
                node=name,
                description=defect,
            ),
            fix=suggestion(name, choices),
            node=name,
        )
    weight = network.parameters[name]["weight"]
    kind = np.asarray(delay).dtype.kind if isinstance(delay, str | bytes | list) else "f"
    if kind not in "biuf":
        raise UsageError(
            Text("delay is {value!r}", value=delay), fix="pass a delay in seconds", node=name
        )
    if not isinstance(delay, Tracer):
        seconds = np.asarray(delay, float)
        if (wrong := ~(seconds >= 0) | (seconds == np.inf)).any():
            raise UsageError(
                Text("node '{node}': a delay is {value:g} s", node=name, value=seconds[wrong][0]),
                fix="pass finite delays of at least 0 s",
                node=name,
            )
    delay = jnp.asarray(delay, weight.dtype)
    sizes = zip(reversed(delay.shape), reversed(weight.shape), strict=False)
    if delay.ndim > 2 or any(
        delay_size not in (1, weight_size) for delay_size, weight_size in sizes
    ):
        raise UsageError(
            Text(
                "node '{node}': delay has shape {shape}, but its weight has shape {weight_shape}",
                node=name,
                shape=delay.shape,
                weight_shape=weight.shape,
            ),
            fix="pass one delay, one for each source (inputs,), or one for each synapse (outputs, "
            "inputs)",
            node=name,
        )
    if delay.ndim == 2 and delay.shape[0] == 1 < weight.shape[0]:
        delay = delay[0]
    # Delays that differ between targets have one entry for each synapse, others for each source.
    shape = weight.shape if delay.ndim == 2 else weight.shape[1:]
    delay = jnp.broadcast_to(delay, () if delay.size == 1 and delay.ndim == 0 else shape)
    parameters = {**network.parameters, name: {**network.parameters[name], "delay": delay}}
    return Network(parameters=parameters, wires=network.wires, populations=network.populations)


def without_synaptic_delays(
    network: Network,
) -> tuple[Parameters, dict[str, Float[Array, "outputs inputs"]]]:
    """Return the parameters without the delays that `with_synaptic_delays` added, and these
    delays by node.
    """
    parameters, delays = {}, {}
    for wire in network.wires:
        node_parameters = dict(network.parameters.get(wire.name, {}))
        if wire.kind in ("Linear", "Affine") and "delay" in node_parameters:
            delays[wire.name] = jnp.broadcast_to(
                node_parameters.pop("delay"), node_parameters["weight"].shape
            )
        if node_parameters:
            parameters[wire.name] = node_parameters
    return parameters, delays


def with_tau_facts(population: Population, parameters: NodeParameters) -> Population:
    """Return the population with the facts that follow from its time constants (none if these are
    traced).

    Args:
        parameters: parameters of its node, by NIR name.
    """
    taus = _time_constants(parameters)
    if _are_traced(taus):
        return with_unknown_taus(population)
    return with_known_taus(replace(population, taus_last=False), taus)


def _time_constants(parameters: NodeParameters) -> NodeParameters:
    """Return the parameters of a node that are time constants, by NIR name."""
    return {key: value for key, value in parameters.items() if key.startswith("tau")}


def _are_traced(parameters: NodeParameters) -> bool:
    """Return whether some parameters are traced."""
    return any(isinstance(value, Tracer) for value in parameters.values())


def _flatten(network: Network) -> tuple[tuple[tuple[Any, Parameters]], Hashable]:
    static = (network.wires, tuple(network.populations.items()))
    return ((jax.tree_util.GetAttrKey("parameters"), network.parameters),), static


def _unflatten(static: Any, children: Any) -> Network:
    wires, populations = static
    return Network(parameters=children[0], wires=wires, populations=populations)


jax.tree_util.register_pytree_with_keys(Network, _flatten, _unflatten)


def entries(tree: Any) -> Float[Array, "numbers"]:
    """Return all numbers of a tree of arrays as one flat array, so that a single check is compiled,
    not one for each array.
    """
    leaves = [jnp.ravel(array) for array in jax.tree.leaves(tree)]
    return jnp.concatenate(leaves) if leaves else jnp.zeros(0)
