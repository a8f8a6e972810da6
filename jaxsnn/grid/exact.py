"""NIR's equations solved exactly over one step.

    CubaLIF, CubaLI: tau_syn I' = -I + w_in S;  tau_mem V' = v_leak - V + r I
    LIF, LI:         tau V' = v_leak - V + r S
    IF, I:           V' = r S

S is the sum of an input that is constant over the step and of arriving spikes, which are deltas at
the beginning of the step or boxes as long as the step.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp

from jaxsnn.network.array_types import Array, Float
from jaxsnn.network.structure import Population, input_gain, input_tau

#: NIR's names -> arrays with an entry per neuron.
Parameters = Mapping[str, Float[Array, "*shape"]]
#: Factors of a step by name: arrays with an entry per neuron, or scalars.
Factors = Mapping[str, Float[Array, "*shape"] | float]


def box_force(
    population: Population, parameters: Parameters, dt: float
) -> Float[Array, "*shape"] | float:
    """Return the force that a rectangular pulse of weight 1 and the length of a step adds in
    `flow`; its integral equals `Population.jump`.
    """
    return population.jump(parameters) * input_tau(parameters) / dt


def level_force(
    parameters: Parameters, level: Float[Array, "batch *shape"]
) -> Float[Array, "batch *shape"]:
    """Return the force of `flow` under a constant current."""
    return input_gain(parameters) * level


def factors(parameters: Parameters, dt: float) -> Factors:
    """Return the factors that `flow` needs for a step of length dt: decays "k" of V and "a" of I,
    and the "share" of the current in V. Without a leak that is "dt" alone.
    """
    p = parameters
    if "tau_syn" in p:
        mem, syn = dt / p["tau_mem"], dt / p["tau_syn"]
        return {"k": jnp.exp(-mem), "a": jnp.exp(-syn), "share": share(mem, syn)}
    return {"k": jnp.exp(-dt / p["tau"])} if "tau" in p else {"dt": dt}


def flow(
    parameters: Parameters,
    factors: Factors,
    v: Float[Array, "batch *shape"],
    i: Float[Array, "batch *shape"] | None,
    force: Float[Array, "batch *shape"] | float,
) -> tuple[Float[Array, "batch *shape"], Float[Array, "batch *shape"] | None]:
    """Return V and I (None without a synaptic current) after a step.

    Args:
        factors: see the function of this name.
        force: w_in S of current-based neurons, else r S; constant over the step.
    """
    p = parameters
    if "dt" in factors:
        return v + force * factors["dt"], None
    # V decays towards v_inf, its fixed point for I = force.
    v_inf = p["v_leak"] + (force if i is None else p["r"] * force)
    v = v_inf + (v - v_inf) * factors["k"]
    if i is None:
        return v, None
    # The difference between I and the force decays by "a", and adds its "share" to V.
    return v + factors["share"] * p["r"] * (i - force), force + (i - force) * factors["a"]


def share(mem: Float[Array, "*shape"], syn: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return (exp(-syn) - exp(-mem)) mem / (mem - syn), also where the two are equal: V after a
    step that began with r I = 1.

    Args:
        mem, syn: dt / tau_mem, dt / tau_syn.
    """
    smaller = jnp.minimum(mem, syn)
    # If the two are equal, the gradient of this difference is 0, unlike that of abs in JAX.
    apart = jnp.maximum(mem, syn) - smaller
    close = apart < 1 / 64
    safe = jnp.where(close, 1.0, apart)
    # Horner's scheme of (1 - exp(-apart)) / apart.
    series = 1.0
    for order in range(8, 1, -1):
        series = 1 - apart / order * series
    return mem * jnp.exp(-smaller) * jnp.where(close, series, -jnp.expm1(-safe) / safe)
