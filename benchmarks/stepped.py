"""What the libraries that step must come to: their own schemes in float64, with their surrogate
gradients.

The sum of all output spikes counts. A scheme is what a step does to (V, I) of a population;
`feed(spikes)` is the current that arrives, given the spikes with which the population feeds back.
Each position of a convolution is a sample of its own, with the arrivals of `Convolution.fields`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from records import Convolution, Work


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


def _given(work: Work | Convolution) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Input spikes (steps, samples, inputs), and the matrix of each layer: (inputs, neurons)."""
    if isinstance(work, Convolution):
        return work.binned(*work.fields(), len(work.rows())), {"kernel": work.rows()}
    return work.raster(), {
        name: getattr(work, name) for name in ("hidden_weights", "output_weights")
    }


def results(work: Work | Convolution, scheme: str) -> dict[str, np.ndarray]:
    """Number of output spikes in each step, and the gradients by the weights as the library holds
    them.
    """
    step, factor = SCHEMES[scheme], 1.0 if scheme == "norse" else work.dt / work.tau_mem
    raster, layers = _given(work)
    feedback = (
        {"recurrent_weights": work.recurrent_weights}
        if isinstance(work, Work) and work.recurrent
        else {}
    )
    with jax.enable_x64(True):
        weights = {
            name: jnp.asarray(factor * matrix) for name, matrix in {**layers, **feedback}.items()
        }

        def current(weights, name, arriving, last):
            back = (
                last @ weights["recurrent_weights"]
                if feedback and name == "hidden_weights"
                else 0.0
            )
            return arriving @ weights[name] + back

        def total(weights):
            def body(state, spikes):
                after = []
                for name, (v, i, last) in zip(layers, state, strict=True):
                    feed = partial(current, weights, name, spikes)
                    spikes, v, i = step(work, v, i, last, feed)
                    after.append((v, i, spikes))
                return after, spikes

            start = [
                (jnp.zeros((raster.shape[1], matrix.shape[1])),) * 3 for matrix in layers.values()
            ]
            _, spikes = jax.lax.scan(body, start, jnp.asarray(raster, jnp.float64))
            return spikes.sum(), spikes.sum(axis=(1, 2))

        (_, counts), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(weights)
        found = {name: np.asarray(value) for name, value in gradient.items()}
    if isinstance(work, Convolution):
        found["kernel"] = found["kernel"].T.reshape(work.kernel.shape)
    return {"output_counts": np.asarray(counts), **found}
