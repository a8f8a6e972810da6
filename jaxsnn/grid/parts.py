"""Parts of a network for time-stepped simulation: neurons that are ready to step, and their
connections.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxsnn.capabilities import unsupported
from jaxsnn.errors import LoweringError, refuse
from jaxsnn.grid.capabilities import GRID
from jaxsnn.grid.flow_stepping import FlowStepper
from jaxsnn.grid.linear import above, bias_of
from jaxsnn.grid.neuron import SteppedNeuron, factors_of
from jaxsnn.grid.step_input import StepInput, SteppingModel
from jaxsnn.grid.surrogate import FastSigmoid, Surrogate, surrogate_of
from jaxsnn.grid.timing import delay_steps, step_in_units, step_length
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.features import StaticNetwork
from jaxsnn.network.linear_nodes import applied
from jaxsnn.network.network import Network, without_synaptic_delays
from jaxsnn.network.neuron_models import model_of
from jaxsnn.network.structure import Population, Wire
from jaxsnn.options import ENGINE
from jaxsnn.wording import Text


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Parts of a network ready to step, shared by layers and cycles.

    Attributes:
        network: the network.
        neurons: population -> its stepping model.
        delays: Delay node -> its delays in steps, one or one for each channel.
        shapes: node -> shape of its output.
        continuous: whether the network is in continuous time, where spikes and currents differ; in time
            steps, all inputs are treated alike.
        surrogate: derivative of a spike.
    """

    network: Network
    neurons: dict[str, SteppingModel]
    delays: dict[str, tuple[int, ...]]
    shapes: dict[str, tuple[int, ...]]
    continuous: bool
    surrogate: Surrogate

    def inward(self, wire: Wire) -> tuple[int, ...]:
        """Return the shape of a node's input."""
        return self.shapes[wire.sources[0]] if wire.sources else wire.shape

    def parameters(self, wire: Wire) -> dict[str, Float[Array, "..."]]:
        """Return a node's parameters: NIR's names -> arrays."""
        return self.network.parameters.get(wire.name, {})

    def emitted(self, y: Float[Array, "*lead *shape"], *, spikes: bool) -> StepInput:
        """Return the output of an Input or a population as spikes or a level."""
        return StepInput(spikes=y) if spikes and self.continuous else StepInput(level=y)

    def through(self, wire: Wire, entering: StepInput) -> StepInput:
        """Return a signal after a node without a state."""
        parameters, inward = self.parameters(wire), self.inward(wire)
        if wire.kind == "Threshold":
            assert entering.level is not None
            return StepInput(level=above(parameters, wire.shape, entering.level, self.surrogate))
        passed: StepInput = jax.tree.map(lambda x: applied(wire, inward, parameters, x), entering)
        bias = bias_of(wire, parameters)
        if bias is None:
            return passed
        if passed.level is None:
            level = jnp.broadcast_to(bias, passed.only.shape)
        else:
            level = passed.level + bias
        return StepInput(spikes=passed.spikes, level=level)


def take_apart(
    network: Network, *, dt: float | None, surrogate: Surrogate | None, detach_reset: bool | None
) -> Parts:
    """Prepare the parts of a network for time-stepped simulation.

    Args:
        dt: length of a step, seconds; None: that of the network.
        surrogate: surrogate gradient; None: that of the source framework.

    Raises:
        LoweringError: a required property is unknown, or a node is not supported.
        UsageError: dt contradicts the network.
    """
    unit = step_in_units(network.populations, step_length(network, dt))
    refuse(unsupported(StaticNetwork.of(network, dt=dt), GRID))
    _refuse_synaptic_delays(network)
    neurons: dict[str, Any] = {}
    for wire in network.wires:
        if wire.kind != "neuron":
            continue
        population = network.populations[wire.name]
        parameters = {
            name: value.reshape(wire.shape) for name, value in network.parameters[wire.name].items()
        }
        rules = {"dt": unit, "detach_reset": detach_reset}
        rules["surrogate"] = surrogate_of(population) if surrogate is None else surrogate
        neurons[wire.name] = _stepping(population, parameters, **rules)
    delays = [wire for wire in network.wires if wire.kind == "Delay"]
    membranes = {population.membrane for population in network.populations.values()}
    return Parts(
        network=network,
        neurons=neurons,
        delays={wire.name: delay_steps(wire, unit) for wire in delays},
        shapes={wire.name: wire.shape for wire in network.wires},
        continuous="exact" in membranes,
        surrogate=surrogate or _of_thresholds(network),
    )


def _of_thresholds(network: Network) -> Surrogate:
    """Return the surrogate of Threshold nodes: that of the framework that wrote the neurons."""
    population = next(iter(network.populations.values()), None)
    return FastSigmoid() if population is None else surrogate_of(population)


def _refuse_synaptic_delays(network: Network) -> None:
    """Refuse delays of synapses: delays in steps must be known before compilation."""
    _, delays = without_synaptic_delays(network)
    for wire in network.wires:
        if wire.kind == "SparseLinear" and "delay" in network.parameters[wire.name]:
            raise LoweringError(
                f"node '{wire.name}' (SparseLinear) has individual synaptic delays, which the "
                "time-stepped engine does not support",
                fix=Text("simulate with {engine}", engine=ENGINE.set_to("event")),
                node=wire.name,
            )
    for name in delays:
        raise LoweringError(
            f"node '{name}' has individual synaptic delays (with_synaptic_delays), which the "
            "time-stepped engine does not support",
            fix=Text(
                "simulate with {engine}, or convert them to Delay nodes, whose delays are "
                "multiples of the time step: lower(update_graph(graph, network))",
                engine=ENGINE.set_to("event"),
            ),
            node=name,
        )


def _stepping(
    population: Population, parameters: dict[str, Float[Array, "*shape"]], **rules: Any
) -> SteppingModel:
    """Return a population ready to step: NIR's kinds by their framework's rules, registered kinds
    by their own.

    Args:
        rules: `dt`, `surrogate` and `detach_reset` of the engine.
    """
    model = model_of(population.kind)
    if model.stepping is not None:
        maker = model.stepping
        stepping = pkgutil.resolve_name(maker) if isinstance(maker, str) else maker
        return stepping(population, parameters, **rules)
    if model.dynamics is not None:
        neuron = model.dynamics(population)
        return FlowStepper(neuron=neuron, population=population, parameters=parameters, **rules)
    factors = factors_of(population, parameters, rules["dt"])
    return SteppedNeuron(population=population, parameters=parameters, factors=factors, **rules)


def total(drives: list[StepInput]) -> StepInput:
    """Return the sum of step inputs, added in the order of the list."""
    return StepInput(
        spikes=_sum([drive.spikes for drive in drives]),
        level=_sum([drive.level for drive in drives]),
    )


def _sum(
    arrays: list[Float[Array, "*lead *shape"] | None],
) -> Float[Array, "*lead *shape"] | None:
    """Return the sum of arrays, in which None counts as zero; None if all are None."""
    result = None
    for array in arrays:
        if array is not None:
            result = array if result is None else result + array
    return result
