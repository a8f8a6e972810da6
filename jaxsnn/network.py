"""The lowered network: what the engines run.

A `Network` is a pytree. Its only leaves are the parameters, by NIR node and NIR name, in SI units and as arrays that a
gradient can be taken by; everything else about it is static.
"""

import enum
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsnn.errors import LoweringError, listing


class TauShape(enum.Enum):
    """What is known, before any number is traced, about tau_mem and tau_syn of a whole population."""

    DOUBLE = "tau_mem = 2 tau_syn"
    HALF = "tau_mem = tau_syn / 2"
    EQUAL = "tau_mem = tau_syn"
    APART = "tau_mem and tau_syn differ by more than a tenth"
    ANY = "any tau_mem, tau_syn"


# Where the two constants are closer than this fraction, the difference of their exponentials loses digits.
APART_FRACTION = 0.1

_RATIOS = {TauShape.DOUBLE: 2.0, TauShape.HALF: 0.5, TauShape.EQUAL: 1.0}


def tau_shape_holds(shape, tau_mem, tau_syn):
    """Whether time constants have a shape, element by element, exact up to rounding (NumPy or JAX arrays)."""
    if shape is TauShape.ANY:
        return tau_mem == tau_mem
    if shape is TauShape.APART:
        larger = (tau_mem + tau_syn + abs(tau_mem - tau_syn)) / 2
        return abs(tau_mem - tau_syn) > APART_FRACTION * larger
    return abs(tau_mem - _RATIOS[shape] * tau_syn) <= 8 * np.finfo(tau_mem.dtype).eps * tau_mem


def find_tau_shape(tau_mem, tau_syn):
    """The most special shape that all of a population's time constants have."""
    shapes = (shape for shape in TauShape if tau_shape_holds(shape, tau_mem, tau_syn).all())
    return next(shapes, TauShape.ANY)  # none holds for NaN


@dataclass(frozen=True, kw_only=True)
class Wire:
    """One node of the lowered graph, static.

    Attributes:
        name: the NIR node's name.
        kind: "input", "output", "neuron", or the NIR type of a node without a state ("Linear", "Conv2d", ...).
        sources: names of the nodes whose signals add up at its input.
        shape: shape of the signal that leaves it, without batch and time.
        detail: what the node needs beyond its parameters, hashable. Of a convolution or pool its window (kernel,
            stride, dilation, padding, groups), of a Flatten the order in which it joins the axes (None: as they come),
            of a Delay its delays in seconds, one or one for each channel.
    """

    name: str
    kind: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    detail: Any = None

    @property
    def size(self):
        """Number of channels that leave it."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Population:
    """A population of neurons, static.

    Attributes:
        name: the NIR node's name.
        kind: the NIR type: "CubaLIF", "CubaLI", "LIF", "LI", "IF" or "I".
        size: number of neurons.
        readout: it never fires, whatever its type.
        tau_shape: what holds for tau_mem and tau_syn of all neurons.
        uniform: all neurons have the same time constants.
        spike_area: area of an arriving spike of weight 1, seconds; None where the state jumps by the weight itself.
        spike_kernel: "delta", or "box" of width `dt`.
        dt: the step of the framework that wrote the file, seconds.
        bias: a bias is a constant "current", or added like a spike once in every "step" of length dt.
        resistance: "file": r as it is; "tau/dt": what the framework plays in spite of it.
        initial: where V starts: "zero", "v_leak" or "v_reset".
        reset: where V goes after a spike: "zero" (to v_reset) or "subtract" (to V - v_threshold, which is 0).
        membrane: what a step of the grid does to V under the step's input X (a current-based neuron's: its current I).
            "exact": the flow of the ODE over dt. "leak": V = k V + X. "average": V = k V + (1 - k) X.
            "euler": V = V + dt/tau (v_leak - V + X). "relax": V = V + (X - (V - v_reset)) dt/tau.
            "relax, add": V = V - (V - v_reset)/r + X.
        synapse: what it does to I: "exact", "add last" (I = a I + X), "add first" (I = a (I + X)) or "decay last"
            (I = I + X drives V, then I = a I).
        membrane_decay, synapse_decay: formulas of k and a.
        threshold: on the grid it fires where V ">" or ">=" v_threshold; in continuous time there is no difference.
        spikes_per_step: "one", or "several": as often as v_threshold fits into V.
        spikes_from: a step's spike is that of the membrane "before" or "after" its update.
        reset_delay: on the grid a spike resets the membrane one step later.
        resets_at_start: where V is above threshold when a step begins it is reset then, whatever `reset_delay` is.
        resets_first: a reset that acts one step late acts before V decays and X is added; else after.
        recurrent_delay: steps that a recurrent spike takes.
        counts_steps: time constants are in steps, because nothing says how long one is.
        obstacles: pairs of a field or parameter and the reason why an engine that needs it cannot run, with the way out
            (the file does not say it, or its value makes no sense in continuous time).
    """

    name: str
    kind: str
    size: int
    readout: bool = False
    tau_shape: TauShape = TauShape.ANY
    uniform: bool = False
    spike_area: float | None = None
    spike_kernel: str = "delta"
    dt: float | None = None
    bias: Literal["current", "step"] = "current"
    resistance: Literal["file", "tau/dt"] = "file"
    initial: Literal["zero", "v_leak", "v_reset"] = "zero"
    reset: Literal["zero", "subtract", "none"] = "zero"
    membrane: Literal["exact", "leak", "average", "euler", "relax", "relax, add"] = "exact"
    synapse: Literal["exact", "add last", "add first", "decay last"] = "exact"
    membrane_decay: str = "exp(-dt/tau_mem)"
    synapse_decay: str = ""
    threshold: Literal[">", ">="] = ">"
    spikes_per_step: Literal["one", "several"] = "one"
    spikes_from: Literal["before", "after"] = "after"
    reset_delay: bool = False
    resets_at_start: bool = False
    resets_first: bool = False
    recurrent_delay: int = 0
    counts_steps: bool = False
    obstacles: tuple[tuple[str, str], ...] = ()

    @property
    def fires(self):
        """Whether it emits spikes; a readout does not."""
        return self.kind in ("CubaLIF", "LIF", "IF") and not self.readout

    def require(self, *fields):
        """Refuse to go on where something stands in the way of some fields.

        Raises:
            LoweringError: says what, and the way out.
        """
        for field, message in self.obstacles:
            if field in fields:
                raise LoweringError(message)


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
        """
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


LINEAR = ("Linear", "Affine", "Scale", "Flatten")


def signals(network):
    """The signal that arrives at each population, by its NIR name; linear nodes composed on the way.

    Raises:
        LoweringError: a node that is no neuron and not in `LINEAR`.
    """
    leaving, arriving = {}, {}
    shapes = {wire.name: wire.shape for wire in network.wires}
    for wire in network.wires:
        entering = _sum([leaving[source] for source in wire.sources], wire.size)
        if wire.kind == "neuron":
            arriving[wire.name] = entering
        if wire.kind in ("input", "neuron"):
            leaving[wire.name] = Signal(maps={wire.name: None}, constant=None)
        elif wire.kind in LINEAR:
            inward = shapes[wire.sources[0]] if wire.sources else wire.shape
            leaving[wire.name] = _through(wire, inward, network.parameters.get(wire.name, {}), entering)
        elif wire.kind != "output":
            raise LoweringError(f"node '{wire.name}' is a {wire.kind}, which is not among {listing(LINEAR)}")
    return arriving


def _sum(parts, size):
    if len(parts) == 1:
        return parts[0]
    maps, constant = {}, None
    for part in parts:
        for source, matrix in part.maps.items():
            if source not in maps:
                maps[source] = matrix
                continue
            first, second = (jnp.eye(size) if m is None else m for m in (maps[source], matrix))
            maps[source] = first + second
        if part.constant is not None:
            constant = part.constant if constant is None else constant + part.constant
    return Signal(maps=maps, constant=constant)


def _through(wire, inward, parameters, signal):
    """A signal after one linear node that takes the shape `inward`; a bias enters once, never once per spike."""
    if wire.kind == "Flatten":
        return signal if wire.detail is None else _reordered(signal, wire.size, inward, wire.detail)
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


def _reordered(signal, size, shape, axes):
    """A signal of a given shape after its axes were put into another order and joined."""
    place = np.arange(size).reshape(shape).transpose(axes).reshape(-1)
    maps = {name: (jnp.eye(size) if m is None else m)[:, place] for name, m in signal.maps.items()}
    return Signal(maps=maps, constant=None if signal.constant is None else signal.constant[place])
