"""Worker: Spyx, 100 steps, surrogate gradients."""

from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import spyx.nn
from flax import nnx
from protocol import Unavailable, serve
from records import INPUTS, OUTPUTS, Work


def network(work: Work) -> nnx.Module:
    """Linear layers and current-based neurons with the work's weights, which take up the scheme's factor dt/tau_mem."""
    rngs, factor = nnx.Rngs(0), work.dt / work.tau_mem
    alpha, beta = (float(np.exp(-work.dt / tau)) for tau in (work.tau_syn, work.tau_mem))
    options = {"alpha": alpha, "beta": beta, "threshold": work.v_threshold, "rngs": rngs}
    hidden = (spyx.nn.RCuBaLIF if work.recurrent else spyx.nn.CuBaLIF)((work.hidden,), **options)
    first = nnx.Linear(INPUTS, work.hidden, use_bias=False, rngs=rngs)
    second = nnx.Linear(work.hidden, OUTPUTS, use_bias=False, rngs=rngs)
    first.kernel[...] = jnp.asarray(factor * work.hidden_weights, jnp.float32)
    second.kernel[...] = jnp.asarray(factor * work.output_weights, jnp.float32)
    if work.recurrent:
        hidden.recurrent_w[...] = jnp.asarray(factor * work.recurrent_weights, jnp.float32)
    return spyx.nn.Sequential(first, hidden, second, spyx.nn.CuBaLIF((OUTPUTS,), **options))


def build(work: Work):
    if not isinstance(work, Work):
        raise Unavailable("the convolution is measured on events only")
    graph, state = nnx.split(network(work))
    x = jnp.asarray(work.raster())

    def total(state, x):
        spikes, _ = spyx.nn.run(nnx.merge(graph, state), x)
        return spikes.sum(), spikes.sum(axis=(1, 2))

    forward, gradient = jax.jit(total), jax.jit(jax.value_and_grad(total, has_aux=True))

    def results():
        (_, counts), found = gradient(state, x)
        layers = found["layers"]
        weights = {"hidden_weights": layers[0]["kernel"][...], "output_weights": layers[2]["kernel"][...]}
        if work.recurrent:
            weights["recurrent_weights"] = layers[1]["recurrent_w"][...]
        return {"output_counts": counts, **weights}

    rows = {
        "forward": lambda: jax.block_until_ready(forward(state, x)),
        "weights": lambda: jax.block_until_ready(gradient(state, x)),
    }
    return rows, results


if __name__ == "__main__":
    serve(lambda: f"Spyx {version('spyx')}, 100 steps", build)
