"""Worker: Spyx, 100 steps, surrogate gradients."""

from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import spyx.nn
from flax import nnx
from protocol import serve
from records import INPUTS, OUTPUTS, Convolution, Work


def common(work: Work | Convolution):
    """Random keys, the scheme's factor dt/tau_mem that the weights take up, options of the neurons."""
    rngs, factor = nnx.Rngs(0), work.dt / work.tau_mem
    alpha, beta = (float(np.exp(-work.dt / tau)) for tau in (work.tau_syn, work.tau_mem))
    return rngs, factor, {"alpha": alpha, "beta": beta, "threshold": work.v_threshold, "rngs": rngs}


def network(work: Work) -> nnx.Module:
    """Linear layers and current-based neurons."""
    rngs, factor, options = common(work)
    hidden = (spyx.nn.RCuBaLIF if work.recurrent else spyx.nn.CuBaLIF)((work.hidden,), **options)
    first = nnx.Linear(INPUTS, work.hidden, use_bias=False, rngs=rngs)
    second = nnx.Linear(work.hidden, OUTPUTS, use_bias=False, rngs=rngs)
    first.kernel[...] = jnp.asarray(factor * work.hidden_weights, jnp.float32)
    second.kernel[...] = jnp.asarray(factor * work.output_weights, jnp.float32)
    if work.recurrent:
        hidden.recurrent_w[...] = jnp.asarray(factor * work.recurrent_weights, jnp.float32)
    return spyx.nn.Sequential(first, hidden, second, spyx.nn.CuBaLIF((OUTPUTS,), **options))


def convolution(work: Convolution) -> nnx.Module:
    """A convolution and current-based neurons, all along one axis: the library's state of neurons
    has no more.
    """
    rngs, factor, options = common(work)
    channels, _, taps, _ = work.kernel.shape
    padding = ((work.padding,) * 2,) * 2
    kernel = nnx.Conv(
        2, channels, (taps, taps), strides=work.stride, padding=padding, use_bias=False, rngs=rngs
    )
    kernel.kernel[...] = jnp.asarray(factor * work.kernel.transpose(2, 3, 1, 0), jnp.float32)
    return spyx.nn.Sequential(kernel, spyx.nn.CuBaLIF((channels * work.out_side**2,), **options))


def output_spikes(model: nnx.Module, x: jax.Array) -> jax.Array:
    """Of all steps; a convolution of all frames at once, which takes half the time."""
    if isinstance(model.layers[0], nnx.Conv):
        kernel, model = model.layers
        x = kernel(x).reshape(*x.shape[:2], -1)
    return spyx.nn.run(model, x)[0]


def build(work: Work | Convolution):
    is_convolution = isinstance(work, Convolution)
    graph, state = nnx.split(convolution(work) if is_convolution else network(work))
    x = jnp.asarray(
        np.moveaxis(work.raster(), 2, -1) if is_convolution else work.raster()
    )  # channels last

    def total(state, x):
        spikes = output_spikes(nnx.merge(graph, state), x)
        return spikes.sum(), spikes.sum(axis=(1, 2))

    forward, gradient = jax.jit(total), jax.jit(jax.value_and_grad(total, has_aux=True))

    def results():
        (_, counts), found = gradient(state, x)
        layers = found["layers"]
        if is_convolution:
            return {
                "output_counts": counts,
                "kernel": layers[0]["kernel"][...].transpose(3, 2, 0, 1),
            }
        weights = {
            "hidden_weights": layers[0]["kernel"][...],
            "output_weights": layers[2]["kernel"][...],
        }
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
