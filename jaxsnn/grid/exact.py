"""NIR's own equations over one step, without an error of discretisation between its ends.

    tau_syn I' = -I + w_in S;   tau_mem V' = v_leak - V + r I;   LIF: tau V' = v_leak - V + r S;   IF: V' = r S

S is a constant over the step, and the spikes that arrive, as deltas at its beginning or as boxes
that last the step.
"""

import jax.numpy as jnp


def kick(population, parameters):
    """What an arriving delta of weight 1 adds to I (without a synaptic current: to V)."""
    if population.spike_area is None:
        return 1.0
    return _gain(parameters) * population.spike_area / _inertia(parameters)


def box_force(population, parameters, dt):
    """What an arriving box of weight 1 that lasts a step adds to the force of `flow`: as much in
    all as `kick`.
    """
    return kick(population, parameters) * _inertia(parameters) / dt


def level_force(parameters, level):
    """The force of `flow` under a constant current."""
    return _gain(parameters) * level


def _gain(p):
    return p["w_in"] if "tau_syn" in p else p["r"]


def _inertia(p):
    """tau_syn of current-based neurons, tau of LIF and LI, 1 of IF and I."""
    return p.get("tau_syn", p.get("tau", 1.0))


def factors(parameters, dt):
    """What `flow` needs of a step of length dt: decays of V and I, and the share of the current in
    V.
    """
    p = parameters
    if "tau_syn" in p:
        mem, syn = dt / p["tau_mem"], dt / p["tau_syn"]
        return {"k": jnp.exp(-mem), "a": jnp.exp(-syn), "share": share(mem, syn)}
    return {"k": jnp.exp(-dt / p["tau"])} if "tau" in p else {"dt": dt}


def flow(parameters, factors, v, i, force):
    """V and I (None without a synaptic current) after a step.

    Args:
        factors: see the function of this name.
        force: w_in S of current-based neurons, else r S; constant over the step.
    """
    p = parameters
    if "dt" in factors:
        return v + force * factors["dt"], None
    v_inf = p["v_leak"] + (force if i is None else p["r"] * force)
    v = v_inf + (v - v_inf) * factors["k"]
    if i is None:
        return v, None
    return v + factors["share"] * p["r"] * (i - force), force + (i - force) * factors["a"]


def share(mem, syn):
    """(exp(-syn) - exp(-mem)) mem / (mem - syn), also where the two are equal: V after a step that
    began with r I = 1.

    Args:
        mem, syn: dt / tau_mem, dt / tau_syn.
    """
    smaller = jnp.minimum(mem, syn)
    apart = (
        jnp.maximum(mem, syn) - smaller
    )  # where the two are equal, its gradient is 0, unlike that of abs
    close = apart < 1 / 64
    safe = jnp.where(close, 1.0, apart)
    series = 1.0
    for order in range(8, 1, -1):
        series = 1 - apart / order * series
    return mem * jnp.exp(-smaller) * jnp.where(close, series, -jnp.expm1(-safe) / safe)
