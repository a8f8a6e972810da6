"""What the libraries that step must come to: their own schemes in float64, with their surrogate gradients.

The sum of all output spikes counts. A scheme is what a step does to (V, I) of a population; `feed(spikes)` is the
current that arrives, given the spikes with which the population feeds back.
"""

import jax
import jax.numpy as jnp
import numpy as np
from records import Work


def _spike(slope):
    """Heaviside with the derivative of a fast sigmoid."""

    @jax.custom_jvp
    def spike(x):
        return (x > 0).astype(x.dtype)

    spike.defjvp(lambda x, dx: (spike(*x), dx[0] / (slope * jnp.abs(x[0]) + 1) ** 2))
    return spike


def _snntorch(work, v, i, last, feed):
    spike = _spike(25.0)
    reset = jax.lax.stop_gradient(spike(v - work.v_threshold))
    i = np.exp(-work.dt / work.tau_syn) * i + feed(last)
    v = np.exp(-work.dt / work.tau_mem) * v + i - reset * work.v_threshold
    return spike(v - work.v_threshold), v, i


def _norse(work, v, i, last, feed):
    i = i + feed(last)
    v = v + work.dt / work.tau_mem * (i - v)
    spikes = _spike(1.0)(v - work.v_threshold)
    return spikes, (1 - spikes) * v, i - work.dt / work.tau_syn * i


def _spyx(work, v, i, last, feed):
    spikes = _spike(25.0)(v - work.v_threshold)
    i = np.exp(-work.dt / work.tau_syn) * i + feed(spikes)
    return spikes, np.exp(-work.dt / work.tau_mem) * (v - spikes * work.v_threshold) + i, i


SCHEMES = {"snntorch": _snntorch, "norse": _norse, "spyx": _spyx}


def results(work: Work, scheme: str) -> dict[str, np.ndarray]:
    """Number of output spikes in each step, and the gradients by the weights as the library holds them."""
    step, factor = SCHEMES[scheme], 1.0 if scheme == "norse" else work.dt / work.tau_mem
    with jax.enable_x64(True):
        names = ("hidden_weights", "output_weights", "recurrent_weights")
        weights = {name: jnp.asarray(factor * getattr(work, name)) for name in names}
        size = work.hidden_weights.shape[1], work.output_weights.shape[1]
        batch = len(work.input_times)

        def total(weights):
            def body(state, spikes_in):
                (v, i, z), (v_out, i_out, z_out) = state

                def feed(spikes):
                    back = spikes @ weights["recurrent_weights"] if work.recurrent else 0.0
                    return spikes_in @ weights["hidden_weights"] + back

                z, v, i = step(work, v, i, z, feed)
                z_out, v_out, i_out = step(work, v_out, i_out, z_out, lambda _: z @ weights["output_weights"])
                return ((v, i, z), (v_out, i_out, z_out)), z_out

            start = tuple((jnp.zeros((batch, n)),) * 3 for n in size)
            _, spikes = jax.lax.scan(body, start, jnp.asarray(work.raster(), jnp.float64))
            return spikes.sum(), spikes.sum(axis=(1, 2))

        (_, counts), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(weights)
        found = {name: np.asarray(gradient[name]) for name in names if gradient[name].size}
        return {"output_counts": np.asarray(counts), **found}
