"""Voltages as synaptic currents: LI -> linear nodes -> LIF, simulated as one population.

Under delta spikes a LI follows V = V_inf + x with x' = -x / tau and a jump of x by its kick at each
spike. What linear nodes with matrix M and bias b make of it drives a LIF by r (M V_inf + b), a
constant, and by j = r M x, which decays:

    tau_mem v' = j - v,   j' = -j / tau,   in v = V - v_leak - r (M V_inf + b),

a CubaLIF with tau_syn = tau, arrivals of weight M kick W, and j = r M (V(0) - V_inf) at time 0. For
I -> linear nodes -> LIF tau is infinite. All of it is computed from the parameters of the nodes
themselves, so that gradients reach them.
"""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
from jax import lax

from jaxsnn.errors import LoweringError, listing
from jaxsnn.event.dynamics.kinds import neuron_of
from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.network import Network
from jaxsnn.network.operators import through
from jaxsnn.network.signals import Signal, signals
from jaxsnn.network.structure import Population, Wire, carried
from jaxsnn.network.voltage_chains import driving_taus


def arriving(network: Network) -> dict[str, Signal]:
    """The signal that arrives at each population, by its name; voltages are not among the sources.

    Raises:
        LoweringError: as `jaxsnn.network.network.signals`; or synapses behind a LI have delays.
    """
    # LI and I whose voltages drive others, and at each node those whose voltage comes there.
    chains = [
        population.chain
        for population in network.populations.values()
        if population.chain is not None
    ]
    names = dict.fromkeys(name for chain in chains for name in chain.sources)
    for name, entering in carried(network.wires, names).items():
        if (
            entering
            and "delay" in network.parameters.get(name, {})
            and name not in network.populations
        ):
            raise LoweringError(
                f"node '{name}' has synapses with delays and takes the voltage of "
                f"{listing(entering)}, the event engine delays spikes alone",
                fix=f"put the delays before {listing(entering)}",
                node=name,
            )
    return signals(network, {name: partial(_voltage, network, name) for name in names})


def _voltage(network: Network, name: str, entering: Signal) -> Signal:
    """The voltage of a LI or I under delta spikes, as a signal."""
    population, parameters = network.populations[name], network.parameters[name]
    # An I has no tau. All of a LI's are equal where its voltage is handed on (`tau_range`).
    if "tau" in parameters:
        parameters = {
            **parameters,
            "tau": jnp.broadcast_to(_one(parameters["tau"]), (population.size,)),
        }
    neuron = neuron_of(population)
    paths = entering.paths
    # x jumps by its kick at a spike of weight 1, which is 1 where it jumps by the weight itself.
    if population.spike_area is not None or population.scales_jumps:
        wire = Wire(name=name, kind="Scale", sources=(), shape=(population.size,))
        kick = {"scale": neuron.kick(parameters)}
        paths = tuple(
            (source, through(wire, wire.shape, kick, path, network.dtype)) for source, path in paths
        )
    # V_inf + x: the constant part and, at time 0, x(0) = V(0) - V_inf.
    start = neuron.lanes(parameters, entering.constant).v_start
    return Signal(paths=paths, constant=neuron.v_inf(parameters, entering.constant), start=start)


def driven_parameters(
    network: Network, population: Population, signal: Signal
) -> dict[str, Float[Array, "neurons"]]:
    """What a population takes over from the voltages that drive it: tau_syn and "start"."""
    taus = driving_taus(population, network.parameters)
    start = jnp.zeros(population.size, network.dtype) if signal.start is None else signal.start
    # Behind I alone tau is infinite, and there is no tau_syn to take over.
    if not taus:
        return {"start": start}
    tau = _one(jnp.concatenate(list(taus.values())))
    return {"tau_syn": jnp.broadcast_to(tau, (population.size,)), "start": start}


def tau_range(network: Network, population: Population) -> Float[Array, "2"] | None:
    """The smallest and the largest tau of the neurons whose voltages drive a population; they must
    be equal.
    """
    taus = driving_taus(population, network.parameters)
    if not taus:
        return None
    every = lax.stop_gradient(jnp.concatenate(list(taus.values())))
    return jnp.stack([jnp.min(every), jnp.max(every)])


def _one(taus: Float[Array, "taus"]) -> Float[Array, ""]:
    """The number that all entries are; its gradient falls to all of them in equal parts."""
    mean = jnp.mean(taus)
    # the value of the first one, exactly, and the derivative of the mean
    return lax.stop_gradient(taus[0]) + (mean - lax.stop_gradient(mean))
