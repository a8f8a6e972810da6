"""The earliest threshold crossing among the neurons of a population, for each sample of a batch.

At tau_mem = 2 tau_syn for all neurons, crossings of all of them are compared as x = exp(-t /
tau_mem), the root of a quadratic, so that no neuron costs an exponential or a logarithm. Elsewhere
cheap lower bounds of the crossing times (`Neuron.bound`) tell which neurons to solve for: in the
order of the bounds, until the next one lies behind the earliest crossing found.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsnn.event.dynamics.current_based import CubaLIFBox, CubaLIFDelta
from jaxsnn.event.forward.batching import anywhere
from jaxsnn.network.structure import TauShape


class Crossing(NamedTuple):
    """The earliest crossing of each sample.

    wait: (batch,) time to it, inf where none comes within the window.
    lanes: (batch, neurons), the neurons that cross at that very time.
    """

    wait: jax.Array
    lanes: jax.Array


def earliest_crossing(neuron, lanes, state, able, window) -> Crossing:
    """The earliest crossing of each sample within a window.

    Args:
        neuron: the population's type.
        lanes: `Lanes` of (neurons,).
        state: the neuron type's own state, arrays (batch, neurons).
        able: (batch, neurons) bool, the neurons that can fire; None: all.
        window: (batch,) seconds.
    """
    if isinstance(neuron, CubaLIFDelta) and neuron.uniform and neuron.tau_shape is TauShape.DOUBLE:
        return _of_all(neuron, lanes, state, able, window)
    return _in_order_of_bounds(neuron, lanes, state, able, window)


def _of_all(neuron, lanes, state, able, window):
    v, j, threshold = state[0], state[1], lanes.threshold
    if isinstance(neuron, CubaLIFBox):
        v, j, threshold = v - state[2], j - state[2], threshold - state[2]
    x = _decayed(v, j, threshold)
    if able is not None:
        x = jnp.where(able, x, 0.0)
    first = jnp.max(x, axis=1)
    wait = -lanes.tau_mem[0] * jnp.log(first)
    within = (first > 0) & (wait <= window)
    return Crossing(
        wait=jnp.where(within, wait, jnp.inf), lanes=(x == first[:, None]) & within[:, None]
    )


def _decayed(v, j, threshold):
    """exp(-t / tau_mem) at the upward crossing of v = threshold, 1 where v is there already, 0
    where it never comes.

    The larger root x of (v + j) x - j x^2 = threshold. Where v is below the threshold it comes
    there if it ends above (threshold < 0), or over a maximum.
    """
    half = 0.5 * (v + j)
    discriminant = half * half - j * threshold
    root = jnp.sqrt(jnp.maximum(discriminant, 0.0))
    falls = half <= 0
    x = jnp.where(falls, -threshold, half + root) / jnp.where(falls, root - half, j)
    reaches = (threshold < 0) | ((j > v) & (half > 0) & (discriminant >= 0))
    x = jnp.clip(x, jnp.finfo(v.dtype).tiny, 1.0)
    return jnp.where(v >= threshold, 1.0, jnp.where(reaches, x, 0.0))


class _Search(NamedTuple):
    """bound: (batch, neurons), inf where the neuron was looked at; times: crossings found; best:
    (batch,) the first.
    """

    bound: jax.Array
    times: jax.Array
    best: jax.Array


def _in_order_of_bounds(neuron, lanes, state, able, window):
    bound = neuron.bound(lanes, state)
    if able is not None:
        bound = jnp.where(able, bound, jnp.inf)
    numbers = lax.broadcasted_iota(jnp.int32, bound.shape, 1)

    def unfinished(search):
        return anywhere(_open(search, window))

    def look(search):
        nearest = jnp.min(search.bound, axis=1, keepdims=True)
        number = jnp.min(jnp.where(search.bound == nearest, numbers, bound.shape[1] - 1), axis=1)
        here = _open(search, window)
        time = _crossing_of(neuron, lanes, state, number, window)
        time = jnp.where(here, time, jnp.inf)
        this = here[:, None] & (numbers == number[:, None])
        return _Search(
            bound=jnp.where(this, jnp.inf, search.bound),
            times=jnp.where(this, time[:, None], search.times),
            best=jnp.minimum(search.best, time),
        )

    start = _Search(
        bound=bound, times=jnp.full_like(bound, jnp.inf), best=jnp.full_like(bound[:, 0], jnp.inf)
    )
    search = lax.while_loop(unfinished, look, start)
    found = jnp.isfinite(search.best)
    return Crossing(wait=search.best, lanes=(search.times == search.best[:, None]) & found[:, None])


def _open(search, window):
    """Samples in which a neuron is left that may cross before the earliest crossing found, or with
    it.
    """
    nearest = jnp.min(search.bound, axis=1)
    return (nearest <= window) & (nearest <= search.best)


def _crossing_of(neuron, lanes, state, number, window):
    """Time to the crossing of one neuron of each sample within a window, inf if it has none."""
    one = jax.tree.map(lambda array: array.at[number].get(mode="promise_in_bounds"), lanes)
    x = tuple(
        jnp.take_along_axis(array, number[:, None], 1, mode="promise_in_bounds")[:, 0]
        for array in state
    )
    above = x[0] >= one.threshold
    crosses = neuron.crosses(one, x, neuron.flow(neuron.decay(one, window), x))
    wait = neuron.solve(one, x, window, crosses & ~above)
    return jnp.where(above, 0.0, jnp.where(crosses, wait, jnp.inf))
